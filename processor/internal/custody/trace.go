package custody

import (
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/pkg/trace"
)

// What is noted here decides nothing: it is for those who ask where a message is.

// note says what has happened to an item; sn is the session it is about, nil if it is about
// none.
func (s *State) note(kind trace.Kind, it *item, sn *session) {
	if s.cfg.Trace == nil || it.control {
		return
	}
	if it.user.domain != "" {
		s.noteRoad(kind, it)
		return
	}
	n := trace.Note{At: s.now, Kind: kind, Message: it.id, User: it.user.traced, Lane: s.cfg.Lane, Offset: it.pos.Offset}
	if sn != nil {
		n.Session, n.Peer = sn.id, sn.connector.traced
	}
	s.cfg.Trace.Note(&n)
}

// noteRoad says what has happened to an item on its way to another domain.
func (s *State) noteRoad(kind trace.Kind, it *item) {
	if it.env == nil {
		return // only the mailbox knows which message it is
	}
	e := trace.Event{
		At: s.now, Kind: kind, Message: it.env.ID, Lane: s.cfg.Lane, Offset: it.pos.Offset, Peer: it.user.domain, Road: true,
	}
	e.User, e.Users = receivers(it.env)
	s.cfg.Trace.Add(e)
}

// noteRecord says what has happened to a record for one receiver that is no item.
func (s *State) noteRecord(kind trace.Kind, offset int64, e *envelope.Envelope, user ident.UserID) {
	s.cfg.Trace.Add(trace.Event{At: s.now, Kind: kind, Message: e.ID, User: user, Lane: s.cfg.Lane, Offset: offset})
}

// noteBurial says that the dead letters hold a record.
func (s *State) noteBurial(b Burial) {
	if s.cfg.Trace == nil {
		return
	}
	env, err := envelope.Decode(b.Record)
	if err != nil {
		return // nobody knows which message it is
	}
	e := trace.Event{At: s.now, Kind: trace.Dead, Message: env.ID, Lane: s.cfg.Lane, Offset: b.Offset, Reason: b.Reason}
	e.User, e.Users = receivers(&env)
	s.cfg.Trace.Add(e)
}

// receivers names the receiver of a record, or says how many there are.
func receivers(e *envelope.Envelope) (ident.UserID, int) {
	if len(e.To) == 1 {
		return e.To[0].User, 0
	}
	return "", len(e.To)
}

// noteMove says that a row is sent after its receiver, or over another road.
func (s *State) noteMove(row *mailbox.Row, env *envelope.Envelope) {
	e := trace.Event{At: s.now, Kind: trace.Moved, Message: env.ID, Lane: s.cfg.Lane, Offset: row.Pos.Offset}
	e.User, e.Users = receivers(env)
	if isRoad(row.To) {
		e.Road, e.Peer = true, roadDomain(row.To)
	}
	s.cfg.Trace.Add(e)
}

// leaves is what it means that an item leaves the mailbox.
func (it *item) leaves() trace.Kind {
	if it.user.domain != "" {
		return trace.HandedOver
	}
	return trace.Removed
}
