// Package window recognises records that a lane has taken before: by the number
// of a message in its stream, or by its id where there is no stream. A number
// that is not known as taken is never called a duplicate.
//
// There are two views. The live one holds everything taken so far. The settled
// one holds only what lies below the lane's lowest unsettled offset; only that
// one is saved, since a record above it is read again by the lane's next owner
// and must not be mistaken for its own duplicate.
package window

import (
	"slices"
	"time"

	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
)

const (
	// WindowLife is how long a window is kept after its stream was last used.
	WindowLife = 24 * time.Hour
	// maxMissing bounds the numbers of one window that are known to be missing.
	// When the list is full, numbers below its first are not known at all.
	maxMissing = 1024
)

// Windows are the duplicate windows and remembered ids of one lane. Not safe for
// concurrent use: the lane's actor owns it.
type Windows struct {
	streams map[mailbox.WindowKey]*stream
	ids     [2]map[idKey]struct{} // what was remembered in this period, and in the one before it
	period  time.Time             // when the newer map of ids was begun
	idsFor  time.Duration

	taken   []taken // above the settled offset, ascending
	dirty   map[mailbox.WindowKey]struct{}
	newIDs  []mailbox.RememberedID // settled, not yet saved
	settled int64                  // offset up to which the settled view goes
}

type stream struct {
	live    mailbox.Window
	settled mailbox.Window
}

type idKey struct {
	user ident.UserID
	id   ident.MessageID
}

// taken is one record above the settled offset; n is 0 for a remembered id.
type taken struct {
	offset int64
	key    mailbox.WindowKey
	n      uint64
	id     ident.MessageID
	void   bool // forgotten again
}

// New returns windows as they were saved. Ids are remembered for at least
// idsFor, and at most twice as long.
func New(saved mailbox.LaneState, idsFor time.Duration, now time.Time) *Windows {
	w := &Windows{
		streams: make(map[mailbox.WindowKey]*stream, len(saved.Windows)),
		ids:     [2]map[idKey]struct{}{{}, {}},
		period:  now,
		idsFor:  idsFor,
		dirty:   map[mailbox.WindowKey]struct{}{},
		settled: saved.Position.Offset,
	}
	for key, win := range saved.Windows {
		w.streams[key] = &stream{live: clone(win), settled: win}
	}
	for _, id := range saved.IDs {
		w.ids[0][idKey{id.User, id.ID}] = struct{}{}
	}
	return w
}

// TakeNumber notes that number n of a stream to a user was read at an offset,
// and says whether it had been taken before.
func (w *Windows) TakeNumber(user ident.UserID, streamID, n uint64, offset int64, now time.Time) (duplicate bool) {
	key := mailbox.WindowKey{User: user, Stream: streamID}
	s := w.streams[key]
	if s == nil {
		s = &stream{}
		w.streams[key] = s
	}
	if !take(&s.live, n) {
		return true
	}
	s.live.Touched = now.Unix()
	w.taken = append(w.taken, taken{offset: offset, key: key, n: n})
	return false
}

// TakeID notes that an id was read for a user at an offset, and says whether it
// was remembered.
func (w *Windows) TakeID(user ident.UserID, id ident.MessageID, offset int64, now time.Time) (duplicate bool) {
	if now.Sub(w.period) >= w.idsFor {
		w.ids[1], w.ids[0] = w.ids[0], map[idKey]struct{}{}
		w.period = now
	}
	key := idKey{user, id}
	for _, ids := range w.ids {
		if _, known := ids[key]; known {
			return true
		}
	}
	w.ids[0][key] = struct{}{}
	w.taken = append(w.taken, taken{offset: offset, key: mailbox.WindowKey{User: user}, id: id})
	return false
}

// ForgetID forgets an id that was taken at an offset that is not settled yet: its
// message was refused, and may be sent again under it.
func (w *Windows) ForgetID(user ident.UserID, id ident.MessageID) {
	for _, ids := range w.ids {
		delete(ids, idKey{user, id})
	}
	for i := len(w.taken) - 1; i >= 0; i-- {
		if t := &w.taken[i]; t.n == 0 && t.id == id && t.key.User == user {
			t.void = true
			return
		}
	}
}

// Settle moves the settled view up to, not including, offset low.
func (w *Windows) Settle(low int64, now time.Time) {
	done := 0
	for ; done < len(w.taken) && w.taken[done].offset < low; done++ {
		t := &w.taken[done]
		if t.n == 0 && t.void {
			continue
		}
		if t.n == 0 {
			w.newIDs = append(w.newIDs, mailbox.RememberedID{User: t.key.User, ID: t.id})
			continue
		}
		s := w.streams[t.key]
		if s == nil {
			continue // expired since
		}
		take(&s.settled, t.n)
		s.settled.Touched = now.Unix()
		w.dirty[t.key] = struct{}{}
	}
	if done == len(w.taken) {
		w.taken = w.taken[:0]
	} else if done > 0 {
		w.taken = append(w.taken[:0], w.taken[done:]...)
	}
	w.settled = max(w.settled, low)
}

// Change returns what is to be saved since the last call: the settled view,
// exact for the offsets below the one last settled. It forgets streams that have
// been still for WindowLife.
func (w *Windows) Change(generation uint32, now time.Time) mailbox.LaneChange {
	c := mailbox.LaneChange{
		Windows: make(map[mailbox.WindowKey]mailbox.Window, len(w.dirty)),
		IDs:     w.newIDs,
		Now:     now.Unix(),
		IDsFor:  int64(2 * w.idsFor / time.Second),
	}
	c.Position.Generation, c.Position.Offset = generation, w.settled
	for key := range w.dirty {
		if s := w.streams[key]; s != nil {
			c.Windows[key] = clone(s.settled)
		}
	}
	clear(w.dirty)
	w.newIDs = nil
	return c
}

// Expire forgets the streams that have been still for WindowLife and returns
// their keys, to be added to a change. It walks all streams: call it rarely.
func (w *Windows) Expire(now time.Time) []mailbox.WindowKey {
	var expired []mailbox.WindowKey
	before := now.Add(-WindowLife).Unix()
	for key, s := range w.streams {
		if s.live.Touched < before {
			delete(w.streams, key)
			expired = append(expired, key)
		}
	}
	return expired
}

// Len returns the number of streams.
func (w *Windows) Len() int { return len(w.streams) }

// take marks n as taken and says whether it was not known as taken before.
func take(win *mailbox.Window, n uint64) bool {
	switch {
	case n > win.High:
		from := max(win.High+1, n-min(n-1, maxMissing))
		for m := from; m < n; m++ {
			win.Missing = append(win.Missing, m)
		}
		if over := len(win.Missing) - maxMissing; over > 0 {
			win.Missing = slices.Delete(win.Missing, 0, over)
		}
		win.High = n
		return true
	case len(win.Missing) == maxMissing && n < win.Missing[0]:
		return true
	}
	i, found := slices.BinarySearch(win.Missing, n)
	if !found {
		return false
	}
	win.Missing = slices.Delete(win.Missing, i, i+1)
	return true
}

func clone(win mailbox.Window) mailbox.Window {
	win.Missing = slices.Clone(win.Missing)
	return win
}
