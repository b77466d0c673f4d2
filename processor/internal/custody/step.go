package custody

import (
	"slices"
	"strings"
	"time"

	"github.com/linkerhq/linker/pkg/delivery"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/pkg/route"
	"github.com/linkerhq/linker/pkg/trace"
	"github.com/linkerhq/linker/pkg/wire"
)

// Step takes one event at a time and adds to the effects what follows from it.
func (s *State) Step(now time.Time, event Event, fx *Effects) {
	s.now = now
	switch e := event.(type) {
	case *RecordRead:
		s.record(e, fx)
	case FastArrived:
		s.fastArrived(e.Envelope, fx)
	case Answered:
		s.answered(e.Answers, fx)
	case *Stored:
		s.rowsStored(e.Keys, fx)
	case *RowsRead:
		s.rowsRead(e, fx)
	case *Counted:
		s.counted(e, fx)
	case *UsageRead:
		s.usageRead(e, fx)
	case *RowsExpired:
		s.rowsExpired(e, fx)
	case *Loaded:
		s.loaded(e, fx)
	case *AnnouncedSaved:
		s.announcedSaved(e.Announced, fx)
	case *Produced:
		s.produced(e.Token, fx)
	case *Buried:
		s.noteBurial(e.Burial)
		s.buried(e.Burial, fx)
	case *ConnectorDied:
		s.connectorDied(e.Connector, fx)
	case *Assembled:
		s.assembled = true
		s.missing(fx)
	case *NetworkChanged:
		s.networkChanged(e.Network, fx)
	case *RoadsChanged:
		s.roadsChanged(e.Roads, fx)
	case *HandedOver:
		s.handedOver(e, fx)
	case *Refused:
		s.refusedByNeighbour(e, fx)
	case *TargetsListed:
		s.targetsListed(e, fx)
	case *Ticked:
		s.tick(fx)
	}
	s.catchUp(fx)
}

// record takes the next record of the log, or lets it wait behind others.
func (s *State) record(r *RecordRead, fx *Effects) {
	if len(s.pending.records) > 0 || s.tooNew(r) {
		s.pending.add(r, s.now)
		return
	}
	s.handle(r, fx)
}

func (s *State) handle(r *RecordRead, fx *Effects) {
	e := r.Envelope
	if r.Fill {
		if e != nil {
			s.fill(r.Offset, e)
		}
		s.log.open(r.Offset, 0)
		return
	}
	if e == nil {
		s.metrics.undecodable.Inc()
		s.log.open(r.Offset, 1)
		fx.Bury = append(fx.Bury, Burial{Offset: r.Offset, Record: r.Raw, Reason: reasonUndecodable})
		return
	}
	switch e.Kind {
	case envelope.KindMessage, envelope.KindConfirmation, envelope.KindPresence, envelope.KindWindows:
		s.distribute(r.Offset, e, fx)
	case envelope.KindLogin:
		s.log.open(r.Offset, 1)
		s.login(r.Offset, e, fx)
	case envelope.KindLogout:
		s.log.open(r.Offset, 1)
		s.logout(r.Offset, e, fx)
	case envelope.KindMissing:
		s.log.open(r.Offset, 1)
		s.presenceChanged(s.user(e.User()), s.pos(r.Offset), fx)
	case envelope.KindFetch:
		s.log.open(r.Offset, 0)
		s.fetchAsked(r.Offset, e, fx)
	case envelope.KindClose:
		s.log.open(r.Offset, 0)
		s.closeAsked(e, fx)
	case envelope.KindConnectorDown:
		s.connectorDown(r.Offset, e, fx)
	case envelope.KindEpoch:
		s.epoch(r.Offset, fx)
	case envelope.KindFailure:
		s.log.open(r.Offset, 0) // never written to the log
	}
}

// distribute takes custody of a record: for those of its receivers who are at home
// here each by itself, for those of another domain together.
func (s *State) distribute(offset int64, e *envelope.Envelope, fx *Effects) {
	s.log.open(offset, len(e.To))
	var away []share
	for i := range e.To {
		to := e.To[i]
		u := s.users[to.User]
		if u != nil {
			to.User = u.id // which is kept anyway, unlike the record's
		}
		d := s.decideFor(u, e, to.User)
		if e.Released && !e.Moved {
			s.wentOn(offset, e, to)
		}
		switch {
		case e.Released && e.Moved && !s.leaves(offset, e, to, d, fx):
			s.log.settle(offset) // it stays
		case d.Verdict == route.Refuse && e.Kind == envelope.KindWindows:
			s.log.settle(offset) // it has moved on, and cannot be reached
		case d.Verdict == route.Refuse:
			s.turnAway(offset, e, to, d.Code, fx)
		case d.Verdict == route.Elsewhere:
			away = addShare(away, d.Domain, to)
		case to.User.Lane(s.cfg.Lanes) != s.cfg.Lane:
			s.passOn(offset, e, to, fx)
		case e.Kind == envelope.KindWindows:
			s.windowsArrived(offset, e, to.User, fx)
		default:
			s.message(offset, e, to, u, fx)
		}
	}
	for _, share := range away {
		for range len(share.to) - 1 {
			s.log.settle(offset) // one record goes for all of them
		}
		s.transit(offset, e, share, fx)
	}
}

// decide says where a record goes that is for a user. Only messages are asked whether
// they may: the rest is the system's own.
func (s *State) decide(e *envelope.Envelope, to ident.UserID) route.Decision {
	if e.Kind != envelope.KindMessage {
		return route.Answer(to, e.Home, s.cfg.Domain, s.network)
	}
	return route.Decide(e.From, to, s.cfg.Domain, s.network)
}

// decideFor is decide for somebody of whom the lane knows; nil: it does not. Users of this
// domain are found to be so once for each description of the network.
func (s *State) decideFor(u *user, e *envelope.Envelope, to ident.UserID) route.Decision {
	plain := u != nil && (e.Kind == envelope.KindMessage && u.id.SameApp(e.From) || e.Kind == envelope.KindConfirmation && e.Home == "")
	if plain && u.home == s.described {
		return route.Decision{Verdict: route.Here}
	}
	d := s.decide(e, to)
	if plain && d.Verdict == route.Here && e.Kind == envelope.KindMessage {
		u.home = s.described
	}
	return d
}

// fill lets the windows learn of a record that an earlier owner has settled. What that
// may have held back, or sent elsewhere, is not known as taken.
func (s *State) fill(offset int64, e *envelope.Envelope) {
	if !e.Kind.Deliverable() && e.Kind != envelope.KindWindows {
		return
	}
	for _, to := range e.To {
		switch d := route.Way(to.User, s.cfg.Domain, s.network); {
		case e.Released && e.Moved:
			s.windows.PutBack(to.User, e.Stream, to.N, offset)
		case e.Kind == envelope.KindWindows:
			if d.Verdict == route.Here && to.User.Lane(s.cfg.Lanes) == s.cfg.Lane {
				s.mergeWindows(offset, e, to.User)
			}
		case d.Verdict == route.Elsewhere:
			s.follow(offset, e, to)
		case !e.Released && s.holds.has(to, e.Stream):
		case e.Network != 0 && e.Network < s.network.Version:
			// By what the earlier owner knew, the user may have been at home elsewhere.
		case d.Verdict == route.Here && to.User.Lane(s.cfg.Lanes) == s.cfg.Lane && s.turn(s.pos(offset), e, to) != itWaits:
			s.take(offset, e, to)
			s.supposed(e, to)
		}
	}
}

// take notes the record for this receiver and says whether it was taken before.
func (s *State) take(offset int64, e *envelope.Envelope, to envelope.Recipient) (duplicate bool) {
	if e.Stream != 0 {
		if e.Released && !e.Moved && to.After != (envelope.Mark{}) {
			s.windows.GiveUp(to.User, to.After.Stream, to.After.N, offset, s.now)
		}
		duplicate = s.windows.TakeNumber(to.User, e.Stream, to.N, offset, s.now)
	}
	if e.Remember && !duplicate {
		// What has moved may have been here before, and left without reaching the user.
		if s.users[to.User] == nil { // or else it is the user's own already
			to.User = ident.UserID(strings.Clone(string(to.User)))
		}
		duplicate = s.windows.TakeID(to.User, e.ID, offset, s.now) && !e.Moved && !s.doubtful(e, to)
	}
	return duplicate
}

// supposed notes that an id is remembered only because an earlier owner has read the
// record: it may have refused it, and then a dead letter holds it.
func (s *State) supposed(e *envelope.Envelope, to envelope.Recipient) {
	switch {
	case !e.Remember:
	case s.decide(e, to.User).Verdict == route.Refuse:
		s.refused(to.User, e)
	default:
		s.supposedly[mailbox.RememberedID{User: ident.UserID(strings.Clone(string(to.User))), ID: e.ID}] = true
	}
}

// doubtful says whether a record that seems to be a duplicate may be none: a dead letter
// that was sent again, of which only supposedly an earlier copy was taken. Its receiver
// may get it twice, but in no case never.
func (s *State) doubtful(e *envelope.Envelope, to envelope.Recipient) bool {
	id := mailbox.RememberedID{User: to.User, ID: e.ID}
	if !e.Replayed() || !s.supposedly[id] {
		return false
	}
	delete(s.supposedly, id)
	return true
}

// message takes custody of a record for one receiver at home here, or lets it wait for
// what it has overtaken.
func (s *State) message(offset int64, e *envelope.Envelope, to envelope.Recipient, u *user, fx *Effects) {
	if !e.Released && s.holds.has(to, e.Stream) { // a copy, or the row's own record
		s.metrics.duplicates.Inc()
		s.noteRecord(trace.Duplicate, offset, e, to.User)
		s.log.settle(offset)
		return
	}
	turn := s.turn(s.pos(offset), e, to)
	if turn == itWaits {
		s.holdBack(offset, e, to, fx)
		return
	}
	if s.take(offset, e, to) {
		s.metrics.duplicates.Inc()
		s.noteRecord(trace.Duplicate, offset, e, to.User)
		s.log.settle(offset)
		return
	}
	if turn == itIsLate {
		s.noteRecord(trace.Late, offset, e, to.User)
		late := *e
		late.Late, e = true, &late
		s.metrics.late.Inc()
	}
	if u == nil {
		u = s.user(to.User)
	}
	s.accept(offset, e, u, fx)
	s.recheck(to.User, fx)
}

// turnAway refuses a record for one receiver, once.
func (s *State) turnAway(offset int64, e *envelope.Envelope, to envelope.Recipient, code wire.Code, fx *Effects) {
	if s.take(offset, e, to) {
		s.metrics.duplicates.Inc()
		s.noteRecord(trace.Duplicate, offset, e, to.User)
		s.log.settle(offset)
		return
	}
	s.refuse(offset, e, to, code, fx)
}

// accept offers a record that may be delivered to its receiver.
func (s *State) accept(offset int64, e *envelope.Envelope, u *user, fx *Effects) {
	pos := s.pos(offset)
	it := u.items.find(pos)
	if it == nil {
		it = &item{user: u, pos: pos, id: e.ID, size: sizeFor(e, 1)}
		s.hold(it)
	} else if it.env != nil {
		s.log.settle(offset) // a user named twice in one record
		return
	}
	s.metrics.taken.Inc()
	it.env, it.taken, it.inLog = e, s.now, true
	s.note(trace.Taken, it, nil)
	s.logged += it.size
	if !e.Confirm {
		it.confirm = confirmed
	}
	s.wait(it)
	s.offer(it, fx)
}

// wait notes an item that the log may not keep for too long.
func (s *State) wait(it *item) {
	settled := 0
	for _, oldest := range s.waiting.all() {
		if oldest.inLog {
			break
		}
		settled++
	}
	s.waiting.drop(settled)
	s.waiting.push(it)
}

// overhead is what an item costs in memory and a frame on the wire beside its
// bytes, roughly.
const overhead = 128

// memberOverhead is what each further member of a group costs.
const memberOverhead = 48

func size(e *envelope.Envelope) int { return sizeFor(e, len(e.To)) }

// sizeFor is the size of a record for so many of its members.
func sizeFor(e *envelope.Envelope, members int) int {
	return len(e.Frame) + overhead + memberOverhead*(members-1)
}

// offer gives a message to every target that is owed it, or to the mailbox.
func (s *State) offer(it *item, fx *Effects) {
	owed, store := false, false
	for _, t := range it.user.targets {
		switch {
		case it.pos.Before(t.l):
			continue // brought by fetches only
		case t.sent(it.pos) && len(it.flights) > 0:
			continue // sent by an earlier owner, and not proved yet
		case t.sent(it.pos) && !it.user.one:
			it.proved = true // sent by an earlier owner, in order: what is not in flight has landed
			continue
		case t.sent(it.pos):
			// Sent by an earlier owner to one of several sessions, and perhaps lost.
			s.rewind(t, it.pos)
			owed, store = true, true
		case t.behind:
			owed, store = true, true
		default:
			owed = true
			if sn := t.roomiest(); sn != nil {
				s.send(sn, it, false, fx)
				t.cursor = it.pos
				continue
			}
			s.setBehind(t, true)
			store = true
		}
	}
	if store || !owed && !it.proved && len(it.flights) == 0 {
		s.store(it, fx)
	}
	if it.proved {
		s.finish(it, fx)
	}
}

// refuse reports a record that cannot be delivered to its sender's open sockets
// and gives it to the dead letters.
func (s *State) refuse(offset int64, e *envelope.Envelope, to envelope.Recipient, code wire.Code, fx *Effects) {
	s.metrics.taken.Inc()
	s.refused(to.User, e)
	one := *e
	one.To = []envelope.Recipient{to}
	fx.Bury = append(fx.Bury, Burial{Offset: offset, User: to.User, Record: one.Encode(), Reason: string(code)})
	if e.Kind == envelope.KindMessage {
		s.fail(e, wire.Failure{Code: code, Message: "message to " + string(to.User) + " cannot be delivered", Reference: e.Reference}, fx)
	}
}

// fail tells the open sockets of a record's sender of a failure, wherever they are.
func (s *State) fail(e *envelope.Envelope, f wire.Failure, fx *Effects) {
	fx.Failures = append(fx.Failures, envelope.Envelope{
		Kind:  envelope.KindFailure,
		To:    []envelope.Recipient{{User: e.From}},
		Home:  e.Origin(),
		Frame: wire.AppendDeliverFailed(nil, f),
	})
}

// fastArrived delivers what travels in memory only: now or never.
func (s *State) fastArrived(e *envelope.Envelope, fx *Effects) {
	if e.Kind == envelope.KindClose {
		s.closeAsked(e, fx)
		return
	}
	var away []share
	overtaken := s.overtaken(e)
	for _, to := range e.To {
		u := s.users[to.User]
		switch d := s.decideFor(u, e, to.User); {
		case overtaken:
			s.metrics.DropFast(DropOvertaken)
		case d.Verdict == route.Refuse:
			s.metrics.DropFast(DropForbidden)
		case d.Verdict == route.Elsewhere:
			away = addShare(away, d.Domain, to)
		default:
			s.fastHere(u, e, fx)
		}
	}
	for _, share := range away {
		one := *e
		one.To = share.to
		if !s.handFast(&one, share.domain, fx) {
			s.metrics.DropFast(DropNoRoad)
		}
	}
}

// publisher is who has numbered a FAST record, and for whom. The numbers of one stream are
// in order for each sender only: a domain on the way, whose lanes are others, shares its
// senders out among them.
type publisher struct {
	stream uint64
	from   ident.UserID
}

// overtaken says whether a FAST record comes behind newer ones of its publisher, or a
// second time: it was stuck on a road or in a server, and comes out of order or not at all.
func (s *State) overtaken(e *envelope.Envelope) bool {
	if e.Stream == 0 || len(e.To) == 0 {
		return false
	}
	from := publisher{e.Stream, e.From}
	high := s.fastHigh[from]
	if high == nil {
		if len(s.fastHigh) >= maxPublishers {
			clear(s.fastHigh)
		}
		from.from = ident.UserID(strings.Clone(string(from.from)))
		high = new(uint64)
		s.fastHigh[from] = high
	}
	if e.To[0].N <= *high {
		return true
	}
	*high = e.To[0].N
	return false
}

func (s *State) fastHere(u *user, e *envelope.Envelope, fx *Effects) {
	if u != nil && len(u.targets) > 0 {
		s.fastDeliver(u, e, fx)
	} else if e.Kind == envelope.KindMessage {
		s.metrics.DropFast(DropAbsent)
	}
}

func (s *State) fastDeliver(u *user, e *envelope.Envelope, fx *Effects) {
	var token uint64
	if e.Confirm && len(s.fast) < maxFastWaits {
		s.token++
		token = s.token
		s.fast[token] = fastWait{
			from: ident.UserID(strings.Clone(string(e.From))), to: u.id, id: e.ID, reference: strings.Clone(e.Reference), origin: strings.Clone(e.Origin()),
		}
	}
	it := delivery.Item{Kind: delivery.KindFast, ID: e.ID, Token: token, Urgent: e.Confirm, Frame: e.Frame}
	for _, t := range u.targets {
		to := t.sessions[:1]
		if e.Kind == envelope.KindFailure {
			to = t.sessions // every open socket hears of a failure
		} else if len(t.sessions) > 1 {
			to = []*session{t.leastBusy()}
		}
		for _, sn := range to {
			fx.deliver(sn.connector, &it, delivery.Target{Session: sn.id, User: u.id})
		}
	}
}

// closeAsked closes all sockets of a user for the master of its app. It is never
// stored: whoever is absent now is not hit later.
func (s *State) closeAsked(e *envelope.Envelope, fx *Effects) {
	target := e.User()
	d := route.DecideClose(e.From, target, s.cfg.Domain, s.network)
	switch {
	case d.Verdict == route.Refuse:
		s.fail(e, wire.Failure{Code: d.Code, Message: "connections of " + string(target) + " cannot be closed by " + string(e.From), Reference: e.Reference}, fx)
		return
	case d.Verdict == route.Elsewhere:
		if !s.handFast(e, d.Domain, fx) {
			s.fail(e, wire.Failure{
				Code: wire.CodeNoRoute, Message: "every road to " + d.Domain + ", where " + string(target) + " is at home, is closed now", Retryable: true, Reference: e.Reference,
			}, fx)
		}
		return
	}
	u, found := s.users[target], false
	if u != nil {
		for _, t := range u.targets {
			for _, sn := range t.sessions {
				found = true
				s.instruct(sn, delivery.Item{Kind: delivery.KindClose}, fx)
			}
		}
	}
	if !found {
		s.fail(e, wire.Failure{Code: wire.CodeNotConnected, Message: string(target) + " has no open connection", Reference: e.Reference}, fx)
	}
}

// tick lets time pass.
func (s *State) tick(fx *Effects) {
	s.resume(fx)
	s.spill(fx)
	s.tickHolds(fx)
	s.move(fx)
	s.expire(fx)
	s.serveBusy(fx)
	s.waiting.keep(func(it *item) bool { return it.inLog })
	if s.now.Sub(s.fastTurn) >= fastProofFor {
		s.fastOld, s.fast, s.fastTurn = s.fast, map[uint64]fastWait{}, s.now
	}
	s.recount(fx)
	if len(s.supposedly) > 0 && s.now.Sub(s.begun) > 2*RememberFor {
		clear(s.supposedly) // nobody remembers these ids any more
	}
	s.forgetDeparted()
	if s.held > maxHeld {
		s.shed()
	}
}

// serveBusy goes on with the sessions that have something under way.
func (s *State) serveBusy(fx *Effects) {
	for i := 0; i < len(s.busy); i++ { // while they are served, some may be added
		if sn := s.busy[i]; sn.target != nil {
			s.resend(sn, fx)
			s.serveFetch(sn, fx)
		}
	}
	s.busy = slices.DeleteFunc(s.busy, func(sn *session) bool {
		sn.busy = sn.target != nil && (sn.flights.len() > 0 || sn.fetch != nil)
		if !sn.busy {
			sn.flights.free()
			sn.user.items.free()
		}
		return !sn.busy
	})
}

// forgetDeparted forgets the sessions that have logged out long ago.
func (s *State) forgetDeparted() {
	done := 0
	for _, d := range s.departing.all() {
		if s.now.Sub(d.at) <= departedFor {
			break
		}
		if s.departed[d.session].Equal(d.at) { // or else it has logged out once more since
			delete(s.departed, d.session)
		}
		done++
	}
	s.departing.drop(done)
	s.departing.free()
}

// shed forgets the content of what the mailbox has and the connectors have taken:
// slow sockets may not fill the memory. Should it be needed, it is read again.
func (s *State) shed() {
	for _, sn := range s.busy {
		for _, f := range sn.flights.all() {
			it := f.item
			if it.control || !it.stored || it.env == nil || it.confirm == confirming || f.d > sn.taken || len(it.flights) != 1 {
				continue
			}
			it.env = nil
			s.held -= it.kept - overhead
			it.kept = overhead
		}
	}
}

// spill gives to the mailbox what has waited too long for proof, so that nobody
// holds up the log.
func (s *State) spill(fx *Effects) {
	n := 0
	for _, it := range s.waiting.all() {
		if s.now.Sub(it.taken) < SpillAfter {
			break
		}
		if it.inLog && !it.storing {
			s.metrics.spills.Inc()
			s.store(it, fx)
		}
		n++
	}
	s.waiting.drop(n)
}
