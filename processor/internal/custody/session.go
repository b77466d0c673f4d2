package custody

import (
	"maps"
	"slices"

	"github.com/linkerhq/linker/pkg/delivery"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/pkg/trace"
)

// login begins a session. Whatever is accepted later has a higher offset, so the
// lane knows the session before it sees the message. A session that logged in
// before this owner's time has numbers that only its connector knows: it is
// served when its connector has said so (adopt).
func (s *State) login(offset int64, e *envelope.Envelope, fx *Effects) {
	u, l := s.user(e.User()), s.pos(offset)
	if _, gone := s.departed[e.Session]; gone {
		s.presenceChanged(u, l, fx) // a copy of a record whose session has ended since
		return
	}
	sn := s.sessions[e.Session]
	if sn == nil {
		sn = &session{id: e.Session, user: u, connector: s.connector(e.Connector), features: e.Features}
		s.addSession(sn)
	}
	if sn.target == nil && !sn.gone && offset > s.cfg.Epoch {
		s.attach(sn, l, fx)
		if e.Features.Has(envelope.FeatureHints) {
			serial := s.count(Count{Purpose: ForHint, Session: sn.id, Query: mailbox.Query{To: string(u.id), Before: l}}, u, fx)
			if e.Features.Has(envelope.FeaturePush) {
				sn.target.reading = serial // what is stored comes behind the hint
			}
		}
	}
	u.opened(sn.id)
	if sn.target == nil {
		s.unadopted[sn] = true
	} else {
		item := delivery.Item{Kind: delivery.KindLoggedIn, Pos: sn.target.l}
		fx.deliver(sn.connector, &item, delivery.Target{Session: sn.id, User: u.id})
	}
	s.presenceChanged(u, l, fx)
}

// attach makes the session, or the target it joins, owed what comes from now on.
func (s *State) attach(sn *session, l envelope.Position, fx *Effects) {
	u := sn.user
	app, _ := s.network.App(u.id.App())
	u.one = app.MasterOne && app.Master == u.id
	push := sn.features.Has(envelope.FeaturePush)
	if push {
		l = envelope.Position{}
		for _, it := range u.inOrder() {
			s.store(it, fx) // so that it comes in its place among what is stored
		}
	}
	if u.one && len(u.targets) > 0 {
		t := u.targets[0]
		sn.target = t
		t.sessions = append(t.sessions, sn)
		if l.Before(t.l) { // owed more than those before it: read again from there
			t.l, t.cursor, t.reading = l, l, 0
			s.setBehind(t, true)
		}
		s.catching[t] = true
		return
	}
	t := &target{user: u, l: l, cursor: l, sessions: []*session{sn}}
	sn.target = t
	s.setBehind(t, push)
	u.targets = append(u.targets, t)
	s.catching[t] = true
}

// joined takes over the sessions of one connector. When all parts of its list are
// there, those that it does not name are gone, whatever the log says of them.
func (s *State) joined(a *delivery.Answers, fx *Effects) {
	l := s.lists[a.Connector]
	if l == nil || l.serial != a.Join.Serial {
		l = &list{serial: a.Join.Serial, parts: map[int]bool{}, named: map[uint64]bool{}}
		s.lists[a.Connector] = l
	}
	l.parts[a.Join.Part] = true
	for i := range a.Sessions {
		l.named[a.Sessions[i].Session] = true
		s.adopt(a.Connector, &a.Sessions[i], fx)
	}
	if len(l.parts) < a.Join.Parts {
		return
	}
	delete(s.lists, a.Connector)
	s.heard[a.Connector] = true
	for _, sn := range s.sessions {
		if sn.connector.id == a.Connector && sn.target == nil && !l.named[sn.id] {
			sn.gone = true
			s.left(sn, fx)
		}
	}
}

// adopt takes over a session that an earlier owner of the lane has served. One
// whose login the log has not acknowledged to its connector yet must wait: where
// it begins is not known, or its login record comes after the epoch.
func (s *State) adopt(c ident.Connector, state *delivery.SessionState, fx *Effects) {
	if _, gone := s.departed[state.Session]; gone {
		return // the answer is older than its logout
	}
	if known := s.sessions[state.Session]; known != nil && (known.target != nil || known.user.id != state.User) {
		return
	}
	l := state.L
	if l == (envelope.Position{}) && !state.Features.Has(envelope.FeaturePush) {
		return
	}
	u := s.user(state.User)
	sn := &session{
		id: state.Session, user: u, connector: s.connector(c), features: state.Features,
		d: state.Taken, taken: state.Taken, proved: state.Proved, heard: s.now,
	}
	s.addSession(sn)
	u.opened(sn.id)
	u.marked = true
	s.attach(sn, l, fx)
	t := sn.target
	s.setBehind(t, true)
	if !u.one { // where sessions share, the order of one says nothing about what another has got
		t.landed = state.Last
	}
	for _, f := range state.Unproved {
		if f.ID == (ident.MessageID{}) {
			continue
		}
		it := u.items.find(f.Pos)
		if it == nil {
			it = &item{user: u, pos: f.Pos, id: f.ID, size: overhead, taken: s.now}
			s.hold(it)
		}
		s.takeOff(sn, flight{d: f.D, item: it, fetch: f.Pos.Before(t.l), since: s.now})
	}
	if s.started && !u.announced.Connected {
		// Said to be gone meanwhile: a login record corrects it, in the log's order.
		fx.Produce = append(fx.Produce, Produce{Envelope: envelope.Envelope{
			Kind: envelope.KindLogin, To: []envelope.Recipient{{User: u.id}}, Session: sn.id, Connector: c, Features: sn.features,
		}})
	}
}

// left writes into the lane that a session is gone whose own logout may never come.
func (s *State) left(sn *session, fx *Effects) {
	if sn.left {
		return
	}
	sn.left = true
	fx.Produce = append(fx.Produce, Produce{Envelope: envelope.Envelope{
		Kind: envelope.KindLogout, To: []envelope.Recipient{{User: sn.user.id}}, Session: sn.id, Connector: sn.connector.id,
	}})
}

// logout ends a session.
func (s *State) logout(offset int64, e *envelope.Envelope, fx *Effects) {
	u := s.user(e.User())
	s.departed[e.Session] = s.now
	s.departing.push(departure{e.Session, s.now})
	if sn := s.sessions[e.Session]; sn != nil && sn.user == u {
		if sn.target != nil {
			// The last proofs may still be on their way over the live plane.
			s.progress(sn, &delivery.Progress{Taken: e.Request, Proved: e.Request}, fx)
		}
		s.endSession(sn, fx)
		s.dropSession(sn)
	}
	u.closed(e.Session)
	s.presenceChanged(u, s.pos(offset), fx)
}

// endSession frees what was under way to a session: its target's other sessions
// get it, or the mailbox.
func (s *State) endSession(sn *session, fx *Effects) {
	t, u := sn.target, sn.user
	if t == nil {
		return
	}
	sn.target, sn.gone = nil, true
	t.sessions = slices.DeleteFunc(t.sessions, func(other *session) bool { return other == sn })
	flights := sn.flights.all()
	sn.flights, sn.fetch, sn.fetches, sn.bytes = queue[flight]{}, nil, nil, 0
	for _, f := range flights {
		f.item.landed(sn)
		s.note(trace.Returned, f.item, sn)
	}
	if len(t.sessions) > 0 {
		s.handOver(t, flights, fx)
	} else {
		s.removeTarget(t)
	}
	for _, it := range u.inOrder() {
		s.reconsider(it, fx)
	}
	if u.marked {
		before := u.provedBefore()
		fx.DeleteProved = append(fx.DeleteProved, ProvedRows{To: string(u.id), Before: before})
		u.marked = len(u.targets) > 0
	}
	s.forget(u)
}

// handOver gives what was in flight to one session of a target to another one.
func (s *State) handOver(t *target, flights []flight, fx *Effects) {
	t.reading = 0
	for _, f := range flights {
		switch {
		case f.fetch || f.item.control:
		case f.item.env != nil:
			s.send(t.leastBusy(), f.item, false, fx)
		default:
			s.rewind(t, f.item.pos) // only the mailbox has it
		}
	}
	s.catching[t] = true
}

// sent says whether the message at a position has gone out to the target.
func (t *target) sent(pos envelope.Position) bool {
	return !t.cursor.Before(pos) || !t.landed.Before(pos)
}

// rewind makes the target read its rows again from a position on.
func (s *State) rewind(t *target, pos envelope.Position) {
	s.setBehind(t, true)
	t.landed = envelope.Position{}
	pos.Offset--
	if pos.Before(t.cursor) {
		t.cursor = pos
	}
}

// reconsider decides anew about an item after one of its targets has ended.
func (s *State) reconsider(it *item, fx *Effects) {
	switch {
	case it.env == nil:
	case it.proved:
		s.finish(it, fx)
	case it.inLog && len(it.flights) == 0 && !s.owedToOthers(it):
		s.store(it, fx)
	}
	s.release(it)
}

// provedBefore is the position below which no target is owed anything; zero if
// there is no target.
func (u *user) provedBefore() envelope.Position {
	var before envelope.Position
	for i, t := range u.targets {
		low := t.cursor
		if low.Before(t.landed) {
			low = t.landed
		}
		low.Offset++
		for _, sn := range t.sessions {
			for _, f := range sn.flights.all() {
				if !f.item.control && !f.fetch && f.item.pos.Before(low) {
					low = f.item.pos
				}
			}
		}
		if i == 0 || low.Before(before) {
			before = low
		}
	}
	return before
}

// inOrder returns a copy of the user's items, in the order of their positions.
func (u *user) inOrder() []*item { return slices.Clone(u.items.all()) }

// opened notes that a session has logged in.
func (u *user) opened(session uint64) {
	if !slices.Contains(u.open, session) {
		u.open = append(u.open, session)
	}
}

// closed notes that a session has logged out.
func (u *user) closed(session uint64) {
	if i := slices.Index(u.open, session); i >= 0 {
		u.open = slices.Delete(u.open, i, i+1)
	}
}

// connectorDied writes into the lane that a connector is gone, so that the end
// of its sessions has its place in the log.
func (s *State) connectorDied(c ident.Connector, fx *Effects) {
	if s.dead[c] || !s.serves(c) {
		return
	}
	s.dead[c] = true
	fx.Produce = append(fx.Produce, Produce{Envelope: envelope.Envelope{Kind: envelope.KindConnectorDown, Connector: c}})
}

func (s *State) serves(c ident.Connector) bool { return s.connectors[c] != nil }

// Connectors returns the connectors that have sessions of this lane.
func (s *State) Connectors() []ident.Connector { return slices.Collect(maps.Keys(s.connectors)) }

// connectorDown ends all sessions of a connector.
func (s *State) connectorDown(offset int64, e *envelope.Envelope, fx *Effects) {
	delete(s.dead, e.Connector)
	delete(s.lists, e.Connector)
	delete(s.heard, e.Connector) // should it be there after all, it is asked
	pos := s.pos(offset)
	affected := map[ident.UserID]*user{}
	for _, sn := range s.sessions {
		if sn.connector.id != e.Connector {
			continue
		}
		affected[sn.user.id] = sn.user
		s.endSession(sn, fx)
		s.dropSession(sn)
		sn.user.closed(sn.id)
	}
	s.metrics.connectorsDown.Inc()
	s.absent(offset, pos, affected, fx)
}

// epoch begins this owner's time, if the record is its own: users whom a
// connector has claimed are connected, whatever was announced.
func (s *State) epoch(offset int64, fx *Effects) {
	affected := map[ident.UserID]*user{}
	if offset == s.cfg.Epoch {
		s.started = true
		for id, u := range s.users {
			if !u.announced.Connected && len(u.open) > 0 {
				affected[id] = u
			}
		}
	}
	s.absent(offset, s.pos(offset), affected, fx)
	if offset == s.cfg.Epoch {
		s.missing(fx)
	}
}

// absent evaluates the presence of the users that one record affects, and of
// those whose last announcement it had caused when it was read before.
func (s *State) absent(offset int64, pos envelope.Position, affected map[ident.UserID]*user, fx *Effects) {
	for id, u := range s.users {
		if u.known && u.announced.Pos == pos {
			affected[id] = u
		}
	}
	s.log.open(offset, len(affected))
	for _, u := range affected {
		s.presenceChanged(u, pos, fx)
	}
}
