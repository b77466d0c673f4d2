package custody

import (
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/pkg/wire"
)

// presence is what the master of a user's app has been told about the user.
// Changes are taken one after another: the entry is made durable, then the
// event is produced, then the record that caused it is settled. A record that
// is read again produces the same event under the same number, or nothing.
type presence struct {
	announced mailbox.Announced
	known     bool // announced is an entry of the store, or was put there
	loaded    bool // the store was asked
	loading   bool
	changes   []change
	busy      bool // the first change is being saved or produced
}

// change is a record after which the user was connected or not.
type change struct {
	pos       envelope.Position
	connected bool
}

func (p *presence) idle() bool { return len(p.changes) == 0 && !p.loading }

// kept says whether the entry must stay in memory although nothing is under way:
// until it is certain who is connected, it tells who is missing.
func (p *presence) kept(s *State) bool { return p.known && !(s.started && s.assembled) }

// missing writes into the lane, once everything is known, that the users are gone
// who were announced as connected and whom nobody has claimed: the end of
// sessions of which no record tells has its place in the log like any other.
func (s *State) missing(fx *Effects) {
	if !s.started || !s.assembled {
		return
	}
	for _, u := range s.users {
		if u.announced.Connected && len(u.open) == 0 {
			fx.Produce = append(fx.Produce, Produce{Envelope: envelope.Envelope{
				Kind: envelope.KindMissing, To: []envelope.Recipient{{User: u.id}},
			}})
		}
	}
	for _, u := range s.users {
		s.forget(u)
	}
}

// presenceChanged notes that a record may have changed whether a user is
// connected. The record stays unsettled until its master has been told.
func (s *State) presenceChanged(u *user, pos envelope.Position, fx *Effects) {
	s.users[u.id] = u
	u.changes = append(u.changes, change{pos: pos, connected: len(u.open) > 0})
	s.announce(u, fx)
}

// announce works on the user's changes as far as it can.
func (s *State) announce(u *user, fx *Effects) {
	for len(u.changes) > 0 && !u.busy {
		app, found := s.network.App(u.id.App())
		if !found || app.Master == "" || app.Master == u.id {
			s.changeDone(u)
			continue
		}
		if !u.loaded {
			if !u.loading {
				u.loading = true
				fx.Loads = append(fx.Loads, u.id)
			}
			return
		}
		c := u.changes[0]
		order := c.pos.Compare(u.announced.Pos)
		switch {
		case u.known && order == 0:
			u.busy = true
			s.produceEvent(u, app.Master, fx)
		case u.known && order < 0, u.announced.Connected == c.connected:
			s.changeDone(u)
		case !c.connected && !s.assembled:
			s.changeDone(u) // a session that has not been claimed yet may be left; see missing
		default:
			u.busy = true
			u.announced = mailbox.Announced{User: u.id, Connected: c.connected, N: u.announced.N + 1, Pos: c.pos}
			u.known = true
			fx.Announce = append(fx.Announce, u.announced)
		}
	}
	s.forget(u)
}

// changeDone settles the first change's record.
func (s *State) changeDone(u *user) {
	s.log.settle(u.changes[0].pos.Offset)
	u.changes = u.changes[1:]
	u.busy = false
}

func (s *State) loaded(e *Loaded, fx *Effects) {
	u := s.users[e.User]
	if u == nil || !u.loading {
		return
	}
	u.loading, u.loaded = false, true
	u.known, u.announced = e.Found, e.Announced
	s.announce(u, fx)
}

func (s *State) announcedSaved(a mailbox.Announced, fx *Effects) {
	u := s.users[a.User]
	if u == nil || !u.busy || u.announced.N != a.N {
		return
	}
	app, found := s.network.App(u.id.App())
	if !found {
		s.changeDone(u)
		s.announce(u, fx)
		return
	}
	s.produceEvent(u, app.Master, fx)
}

func (s *State) presenceProduced(u *user, n uint64, fx *Effects) {
	if u.busy && u.announced.N == n {
		s.changeDone(u)
		s.announce(u, fx)
	}
}

// produceEvent tells the master what was announced last.
func (s *State) produceEvent(u *user, master ident.UserID, fx *Effects) {
	a := u.announced
	if a.Connected {
		s.metrics.online.Inc()
	} else {
		s.metrics.offline.Inc()
	}
	e := envelope.Envelope{
		Kind:      envelope.KindPresence,
		Remember:  true,
		ID:        ident.PresenceID(s.cfg.Domain, u.id, a.N),
		From:      u.id,
		To:        []envelope.Recipient{{User: master}},
		CreatedAt: s.now.UnixMilli(),
	}
	if s.network.HomeOf(master, s.cfg.Domain) != s.cfg.Domain {
		e.Remember = false // its number is enough, and for longer
		e.Stream, e.To[0].N = ident.PresenceStream(s.cfg.Domain, u.id), a.N
	}
	e.Frame = wire.AppendPresence(nil, a.Connected, u.id, wire.Stamp{ID: e.ID, CreatedAt: e.CreatedAt})
	fx.Produce = append(fx.Produce, Produce{Envelope: e, Token: Token{User: u.id, Presence: a.N}})
}
