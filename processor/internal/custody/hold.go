package custody

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
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
func (s *State) turn(e *envelope.Envelope, to envelope.Recipient) turn {
	if e.Stream == 0 || e.Moved {
		return itMayGo
	}
	seen := s.windows.Look(to.User, e.Stream, to.N)
	switch {
	case seen == window.Taken:
		return itMayGo
	case e.Released && seen == window.Missing:
		return itIsLate
	case e.Released:
		return itMayGo
	case s.arriving(to.User):
		return itWaits
	case seen == window.Missing && len(e.Path) > 0:
		return itIsLate
	case seen == window.Ahead && len(e.Path) > 0:
		return itWaits
	case to.After != (envelope.Mark{}) && !s.windows.Passed(to.User, to.After.Stream, to.After.N):
		return itWaits
	}
	return itMayGo
}

// holds are the messages that are held back.
type holds struct {
	byUser map[ident.UserID]map[uint64][]*held // by stream, in the order of numbers
	bytes  int
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
	going   bool // written into the lane again …
	gone    bool // … and the log has it
}

func (h *held) to() envelope.Recipient { return h.env.To[0] }

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

// add puts a message in its place and says whether it was not there.
func (hs *holds) add(h *held) bool {
	to := h.to()
	streams := hs.byUser[to.User]
	if streams == nil {
		streams = map[uint64][]*held{}
		hs.byUser[to.User] = streams
	}
	list := streams[h.env.Stream]
	i, found := slices.BinarySearchFunc(list, to.N, func(h *held, n uint64) int { return cmp.Compare(h.to().N, n) })
	if found {
		return false
	}
	streams[h.env.Stream] = slices.Insert(list, i, h)
	hs.bytes += h.size
	return true
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
	if !s.holds.add(h) {
		s.metrics.duplicates.Inc()
		s.log.settle(offset)
		return
	}
	s.logged += h.size
	s.metrics.held.Inc()
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
						To: h.key.To, Pos: h.key.Pos, ID: h.key.ID, Lane: s.cfg.Lane, Stored: s.now.Unix(), Record: h.env.Append(nil),
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
	if h.gone {
		s.endHold(h, fx)
	}
	return true
}

func (s *State) settleHeld(h *held) {
	if h.inLog {
		h.inLog = false
		s.logged -= h.size
		s.log.settle(h.key.Pos.Offset)
	}
}

// replaced notes that the log has a record that takes the place of a row.
func (s *State) replaced(t Token, fx *Effects) {
	if !isHold(t.Stands.To) {
		s.movedAway(t.Stands, fx)
		return
	}
	h := s.holds.find(t.Stands)
	if h == nil {
		return
	}
	h.gone = true
	s.settleHeld(h)
	if !h.storing {
		s.endHold(h, fx)
	}
}

func (s *State) endHold(h *held, fx *Effects) {
	if h.stored {
		fx.Delete = append(fx.Delete, h.key)
	}
	s.holds.remove(h)
}

// recheck lets go on, for one user, what waits for nothing any more.
func (s *State) recheck(user ident.UserID, fx *Effects) {
	for _, list := range s.holds.byUser[user] {
		next := firstWaiting(list)
		if next < len(list) && s.turn(list[next].env, list[next].to()) != itWaits {
			s.letGo(list[next:], releaseInOrder, fx)
		}
	}
}

// tickHolds lets go on what has waited for long enough.
func (s *State) tickHolds(fx *Effects) {
	if len(s.holds.byUser) == 0 {
		return
	}
	s.storeHeld(SpillAfter, fx)
	if !s.started {
		return
	}
	for user, streams := range s.holds.byUser {
		s.recheck(user, fx)
		for _, list := range streams {
			next := firstWaiting(list)
			if next < len(list) && s.now.Sub(list[next].since) >= HoldFor {
				s.letGo(list[next:], releaseTime, fx)
			}
		}
	}
}

// releaseOldest lets go on what has waited longest, since there is no room for more.
func (s *State) releaseOldest(fx *Effects) {
	var oldest []*held
	for _, streams := range s.holds.byUser {
		for _, list := range streams {
			next := firstWaiting(list)
			if next < len(list) && (oldest == nil || list[next].since.Before(oldest[0].since)) {
				oldest = list[next:]
			}
		}
	}
	s.letGo(oldest, releaseFull, fx)
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
		released := *h.env
		released.Released = true
		fx.Produce = append(fx.Produce, Produce{Envelope: released, Token: Token{User: h.to().User, Stands: h.key}})
	}
}
