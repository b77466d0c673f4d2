package custody

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/pkg/trace"
	"github.com/linkerhq/linker/processor/internal/window"
)

// A message that has overtaken others of its sender, because they took another road, is
// held back until these are there, or for HoldFor. Then it is written into the lane
// once more, marked as released: so it gets its position behind them. A row keeps it
// meanwhile, so that nothing holds up the log.
//
// HoldPrefix begins the names of the mailboxes of those rows; the user follows.
const HoldPrefix = "hold/"

// isHold says whether a mailbox is that of messages for a user that are held back.
func isHold(target string) bool { return strings.HasPrefix(target, HoldPrefix) }

// turn says when a message may be given to its receiver.
type turn uint8

const (
	itMayGo  turn = iota
	itIsLate      // newer ones have gone before it
	itWaits       // older ones are missing
)

// turn decides whether it is a message's turn. Within a domain nothing overtakes
// anything; so it is about what came over links, and about users who have just moved
// here. A duplicate may go: it is recognised then.
func (s *State) turn(pos envelope.Position, e *envelope.Envelope, to envelope.Recipient) turn {
	if e.Stream == 0 {
		return itMayGo
	}
	seen := s.windows.Look(to.User, e.Stream, to.N)
	switch {
	case seen == window.Taken:
		return itMayGo
	case e.Moved && s.windows.Newer(to.User, e.Stream, to.N):
		return itIsLate
	case e.Moved: // its number may be missing only because it was sent after its receiver
		return itMayGo
	case e.Released && seen == window.Missing:
		return itIsLate
	case e.Released:
		return itMayGo
	case s.arriving(to.User), len(e.Path) == 0 && s.holds.before(pos, e.From, to.User):
		return itWaits
	case seen == window.Missing && len(e.Path) > 0:
		return itIsLate
	case seen == window.Ahead && (len(e.Path) > 0 || pos.Offset < s.cfg.Epoch):
		// What it has overtaken is on the way; or an earlier owner has held it back, and
		// it stands behind this one now.
		return itWaits
	case to.After != (envelope.Mark{}) && !s.windows.Passed(to.User, to.After.Stream, to.After.N):
		return itWaits
	}
	return itMayGo
}

// holds are the messages that are held back.
type holds struct {
	byUser  map[ident.UserID]map[uint64][]*held // by stream, in the order of numbers
	leaving []*held                             // those that have gone on, until what took their places is settled
	bytes   int
}

// held is one message that is held back.
type held struct {
	env     *envelope.Envelope // for its one receiver
	key     mailbox.Key        // of its row
	since   time.Time
	size    int
	inLog   bool // the log still has custody
	storing bool
	stored  bool
	going   bool  // written into the lane again …
	passed  int64 // … at this offset, where it was taken; 0: not yet
}

func (h *held) to() envelope.Recipient { return h.env.To[0] }

// before says whether a message of a sender to a user is held back that stands before a
// position.
func (hs *holds) before(pos envelope.Position, from, to ident.UserID) bool {
	for _, list := range hs.byUser[to] {
		for _, h := range list {
			if h.env.From == from && h.key.Pos.Before(pos) {
				return true
			}
		}
	}
	return false
}

// load takes over what earlier owners have held back.
func (hs *holds) load(rows []mailbox.Row) {
	hs.byUser = map[ident.UserID]map[uint64][]*held{}
	for i := range rows {
		row := &rows[i]
		env, err := envelope.Decode(row.Record)
		if err != nil || len(env.To) != 1 {
			continue // it stays where it is, for those who know how to read it
		}
		hs.add(&held{
			env: &env, key: mailbox.Key{To: row.To, Pos: row.Pos, ID: row.ID}, since: time.Unix(row.Stored, 0), size: size(&env), stored: true,
		})
	}
}

// add puts a message in its place, if it is not there.
func (hs *holds) add(h *held) {
	to := h.to()
	streams := hs.byUser[to.User]
	if streams == nil {
		streams = map[uint64][]*held{}
		hs.byUser[to.User] = streams
	}
	i, found := hs.at(to, h.env.Stream)
	if found {
		return
	}
	streams[h.env.Stream] = slices.Insert(streams[h.env.Stream], i, h)
	hs.bytes += h.size
}

// has says whether a number of a stream is held back for a user.
func (hs *holds) has(to envelope.Recipient, stream uint64) bool {
	_, found := hs.at(to, stream)
	return found
}

// at is the index of a number in the list of its stream, or where it would be.
func (hs *holds) at(to envelope.Recipient, stream uint64) (int, bool) {
	return slices.BinarySearchFunc(hs.byUser[to.User][stream], to.N, func(h *held, n uint64) int { return cmp.Compare(h.to().N, n) })
}

// find returns the message whose row has the key.
func (hs *holds) find(key mailbox.Key) *held {
	for _, list := range hs.byUser[ident.UserID(strings.TrimPrefix(key.To, HoldPrefix))] {
		for _, h := range list {
			if h.key == key {
				return h
			}
		}
	}
	for _, h := range hs.leaving {
		if h.key == key {
			return h
		}
	}
	return nil
}

func (hs *holds) remove(h *held) {
	to := h.to()
	streams := hs.byUser[to.User]
	list := slices.DeleteFunc(streams[h.env.Stream], func(other *held) bool { return other == h })
	streams[h.env.Stream] = list
	hs.bytes -= h.size
	if len(list) > 0 {
		return
	}
	delete(streams, h.env.Stream)
	if len(streams) == 0 {
		delete(hs.byUser, to.User)
	}
}

// holdBack lets a message wait for those that it has overtaken.
func (s *State) holdBack(offset int64, e *envelope.Envelope, to envelope.Recipient, fx *Effects) {
	one := *e
	one.To = []envelope.Recipient{to}
	pos := s.pos(offset)
	h := &held{
		env: &one, key: mailbox.Key{To: HoldPrefix + string(to.User), Pos: pos, ID: rowID(pos)},
		since: s.now, size: size(&one), inLog: true,
	}
	s.holds.add(h)
	s.logged += h.size
	s.metrics.held.Inc()
	s.noteRecord(trace.Held, offset, e, to.User)
	if s.holds.bytes > maxHolding {
		s.releaseOldest(fx)
	}
}

// storeHeld gives to the mailbox what has been held back for so long.
func (s *State) storeHeld(age time.Duration, fx *Effects) {
	for _, streams := range s.holds.byUser {
		for _, list := range streams {
			for _, h := range list {
				if h.inLog && !h.storing && !h.going && s.now.Sub(h.since) >= age {
					h.storing = true
					fx.Put = append(fx.Put, mailbox.Row{
						To: h.key.To, Pos: h.key.Pos, ID: h.key.ID, Lane: s.cfg.Lane, Stored: s.now.Unix(), Record: h.env.Encode(),
					})
				}
			}
		}
	}
}

// heldStored notes that the mailbox has a message that is held back; it is false for
// the rows of others.
func (s *State) heldStored(key mailbox.Key, fx *Effects) bool {
	if !isHold(key.To) {
		return false
	}
	h := s.holds.find(key)
	if h == nil {
		fx.Delete = append(fx.Delete, key)
		return true
	}
	h.storing, h.stored = false, true
	s.settleHeld(h)
	return true
}

func (s *State) settleHeld(h *held) {
	if h.inLog {
		h.inLog = false
		s.logged -= h.size
		s.log.settle(h.key.Pos.Offset)
	}
}

// wentOn notes that what takes the place of a message that was held back was read at an
// offset.
func (s *State) wentOn(offset int64, e *envelope.Envelope, to envelope.Recipient) {
	if i, found := s.holds.at(to, e.Stream); found {
		h := s.holds.byUser[to.User][e.Stream][i]
		h.passed = offset
		s.holds.remove(h)
		s.holds.leaving = append(s.holds.leaving, h)
	}
}

// endHolds ends the custody of messages that have gone on: as soon as what took their
// places is settled, and not before. A later owner who reads them again, without knowing
// why they were held back, would take them for delivered otherwise.
func (s *State) endHolds(fx *Effects) {
	s.holds.leaving = slices.DeleteFunc(s.holds.leaving, func(h *held) bool {
		if h.storing || !s.log.settled(h.passed) {
			return false
		}
		s.settleHeld(h)
		if h.stored {
			fx.Delete = append(fx.Delete, h.key)
		}
		return true
	})
}

// recheck lets go on, for one user, what waits for nothing any more.
func (s *State) recheck(user ident.UserID, fx *Effects) {
	for _, list := range s.holds.waiting(user) {
		if s.turn(list[0].key.Pos, list[0].env, list[0].to()) != itWaits {
			s.letGo(list, releaseInOrder, fx)
		}
	}
}

// tickHolds lets go on what has waited for long enough.
func (s *State) tickHolds(fx *Effects) {
	s.endHolds(fx)
	if len(s.holds.byUser) == 0 {
		return
	}
	s.storeHeld(SpillAfter, fx)
	if !s.started {
		return
	}
	for user := range s.holds.byUser {
		s.recheck(user, fx)
		for _, list := range s.holds.waiting(user) {
			if s.now.Sub(list[0].since) >= HoldFor {
				s.letGo(list, releaseTime, fx)
			}
		}
	}
}

// releaseOldest lets go on what has waited longest, since there is no room for more.
func (s *State) releaseOldest(fx *Effects) {
	var oldest []*held
	for user := range s.holds.byUser {
		for _, list := range s.holds.waiting(user) {
			if oldest == nil || list[0].since.Before(oldest[0].since) {
				oldest = list
			}
		}
	}
	s.letGo(oldest, releaseFull, fx)
}

// waiting returns what is held back for a user and not going on already, by stream. The
// streams are in the order in which their first messages came.
func (hs *holds) waiting(user ident.UserID) [][]*held {
	var lists [][]*held
	for _, list := range hs.byUser[user] {
		if next := firstWaiting(list); next < len(list) {
			lists = append(lists, list[next:])
		}
	}
	slices.SortFunc(lists, func(a, b []*held) int { return a[0].key.Pos.Compare(b[0].key.Pos) })
	return lists
}

// firstWaiting is the index of the first that is not going on already.
func firstWaiting(list []*held) int {
	for i, h := range list {
		if !h.going {
			return i
		}
	}
	return len(list)
}

// letGo writes messages into the lane again, up to the next gap between them.
func (s *State) letGo(list []*held, why release, fx *Effects) {
	for i, h := range list {
		if i > 0 && h.to().N != list[i-1].to().N+1 {
			return
		}
		h.going = true
		s.metrics.released[why].Inc()
		s.noteRecord(trace.Released, h.key.Pos.Offset, h.env, h.to().User)
		released := *h.env
		released.Released = true
		fx.Produce = append(fx.Produce, Produce{Envelope: released})
	}
}
