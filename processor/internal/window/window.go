// Package window recognises records that a lane has taken before: by the number
// of a message in its stream, or by its id where there is no stream. A number
// that is not known as taken is never called a duplicate.
//
// It also keeps trails: which number of which stream was the last that a sender
// used to a receiver in another domain. Trails are kept with the windows, and as
// exactly, as windows of a user whose name no user can have.
//
// There are two views. The live one holds everything taken so far. The settled
// one holds only what lies below the lane's lowest unsettled offset; only that
// one is saved, since a record above it is read again by the lane's next owner
// and must not be mistaken for its own duplicate.
package window

import (
	"slices"
	"strings"
	"time"

	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
)

const (
	// WindowLife is how long a window is kept after its stream was last used.
	WindowLife = 24 * time.Hour
	// TrailLife is how long after its last message a sender may begin a new stream to
	// a receiver that is known to follow the one before.
	TrailLife = time.Minute
	// forgottenPrefix stands before the user of an id that was saved before, and is
	// forgotten: no user's name begins so.
	forgottenPrefix = "!"
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
	trails  map[ident.UserID]uint64 // the stream of each trail

	recent  *stream                // looked up last; nil: none was
	taken   []taken                // above the settled offset, ascending
	dirty   []*stream              // whose settled views have changed since they were saved; some of them twice
	newIDs  []mailbox.RememberedID // settled, not yet saved
	gone    []mailbox.WindowKey    // settled, not yet forgotten where they are saved
	settled int64                  // offset up to which the settled view goes
}

type stream struct {
	key     mailbox.WindowKey
	live    mailbox.Window
	settled mailbox.Window
	dirty   bool // among those that are to be saved
	dropped bool // not in the map any more; perhaps another one is, under the same key
	over    bool // forgotten in the live view …
	ends    int  // … and so often, perhaps begun anew in between, still to be in the settled one
}

type idKey struct {
	user ident.UserID
	id   ident.MessageID
}

// taken is one record above the settled offset; n is 0 for a remembered id.
type taken struct {
	offset int64
	stream *stream // nil for an id
	n      uint64
	user   ident.UserID // of an id
	id     ident.MessageID
	void   bool            // forgotten again
	all    bool            // every number up to n, but for those below it that are missing
	gone   bool            // the window is to be forgotten
	back   bool            // the number is not taken any more
	merged *mailbox.Window // all that it holds was taken elsewhere
}

// New returns windows as they were saved. Ids are remembered for at least
// idsFor, and at most twice as long.
func New(saved mailbox.LaneState, idsFor time.Duration, now time.Time) *Windows {
	w := &Windows{
		streams: make(map[mailbox.WindowKey]*stream, len(saved.Windows)),
		ids:     [2]map[idKey]struct{}{{}, {}},
		period:  now,
		idsFor:  idsFor,
		settled: saved.Position.Offset,
		trails:  map[ident.UserID]uint64{},
	}
	for key, win := range saved.Windows {
		w.streams[key] = &stream{key: key, live: clone(win), settled: win}
		if isTrail(key.User) {
			w.trails[key.User] = key.Stream
		}
	}
	for _, id := range saved.IDs {
		if user, forgotten := strings.CutPrefix(string(id.User), forgottenPrefix); forgotten {
			delete(w.ids[0], idKey{ident.UserID(user), id.ID})
			continue
		}
		w.ids[0][idKey{id.User, id.ID}] = struct{}{}
	}
	return w
}

// Seen is what a window says of a number.
type Seen uint8

// What a window says of a number.
const (
	Next    Seen = iota // it follows the highest number taken
	Taken               // it was taken before
	Missing             // higher ones were taken before it
	Ahead               // lower ones are missing
)

// Look says what is known of number n of a stream to a user.
func (w *Windows) Look(user ident.UserID, streamID, n uint64) Seen {
	var live mailbox.Window
	if s := w.find(mailbox.WindowKey{User: user, Stream: streamID}); s != nil {
		live = s.live
	}
	switch {
	case n == live.High+1:
		return Next
	case n > live.High:
		return Ahead
	}
	if len(live.Missing) == maxMissing && n < live.Missing[0] {
		return Missing
	}
	if _, missing := slices.BinarySearch(live.Missing, n); missing {
		return Missing
	}
	return Taken
}

// Newer says whether a number of a stream to a user above n was taken.
func (w *Windows) Newer(user ident.UserID, streamID, n uint64) bool {
	s := w.find(mailbox.WindowKey{User: user, Stream: streamID})
	if s == nil || s.live.High <= n {
		return false
	}
	above, _ := slices.BinarySearch(s.live.Missing, n+1)
	return s.live.High-n > uint64(len(s.live.Missing)-above)
}

// Passed says whether number n of a stream to a user was taken, or given up.
func (w *Windows) Passed(user ident.UserID, streamID, n uint64) bool {
	s := w.find(mailbox.WindowKey{User: user, Stream: streamID})
	return s != nil && s.live.High >= n
}

// GiveUp notes, at an offset, that nobody waits for the numbers of a stream up to n
// any more: those that were not taken are missing from now on.
func (w *Windows) GiveUp(user ident.UserID, streamID, n uint64, offset int64, now time.Time) {
	key := mailbox.WindowKey{User: user, Stream: streamID}
	s := w.stream(key, now)
	if s.live.High < n {
		skip(&s.live, n)
		w.taken = append(w.taken, taken{offset: offset, stream: s, n: n, all: true})
	}
}

// PutBack notes, at an offset, that number n of a stream to a user, which was taken, has
// not reached the user and has left: whoever has it then counts it as missing.
func (w *Windows) PutBack(user ident.UserID, streamID, n uint64, offset int64) {
	if s := w.find(mailbox.WindowKey{User: user, Stream: streamID}); s != nil && putBack(&s.live, n) {
		w.taken = append(w.taken, taken{offset: offset, stream: s, n: n, back: true})
	}
}

// Merge adds, at an offset, what was taken of a stream to a user in another place.
func (w *Windows) Merge(user ident.UserID, streamID uint64, win mailbox.Window, offset int64, now time.Time) {
	key := mailbox.WindowKey{User: user, Stream: streamID}
	s := w.stream(key, now)
	s.live = union(s.live, win)
	w.taken = append(w.taken, taken{offset: offset, stream: s, merged: &win})
}

// Of returns the windows of a user, by stream.
func (w *Windows) Of(user ident.UserID) map[uint64]mailbox.Window {
	list := map[uint64]mailbox.Window{}
	for key, s := range w.streams {
		if key.User == user {
			list[key.Stream] = clone(s.live)
		}
	}
	return list
}

// Users returns everybody who has a window.
func (w *Windows) Users() map[ident.UserID]bool {
	users := map[ident.UserID]bool{}
	for key := range w.streams {
		if !isTrail(key.User) {
			users[key.User] = true
		}
	}
	return users
}

// Follow notes that a sender's record for a receiver in another domain, number n of
// a stream, was read at an offset. If it is the first of its stream, and the sender has
// written to the receiver in another one within TrailLife, it returns the last
// number of that; for a copy of the record the same.
func (w *Windows) Follow(from, to ident.UserID, streamID, n uint64, offset int64, now time.Time) (lastStream, last uint64) {
	name, formerName := trailName(from, to), formerTrailName(from, to)
	before, known := w.trails[name]
	switch {
	case known && before == streamID:
		if n > w.lastOf(name).High {
			break
		}
		if former, is := w.trails[formerName]; n == 1 && is { // a copy
			return former, w.lastOf(formerName).High
		}
		return 0, 0
	case known:
		trail := w.lastOf(name)
		if n == 1 && now.Unix()-trail.Touched <= int64(TrailLife/time.Second) {
			lastStream, last = before, trail.High
		}
		w.endTrail(name, offset)
		w.endTrail(formerName, offset)
		if lastStream != 0 {
			w.trail(formerName, lastStream, last, offset, now)
		}
	}
	w.trail(name, streamID, n, offset, now)
	return lastStream, last
}

// trail notes number n of a stream as used, under the name of a trail.
func (w *Windows) trail(name ident.UserID, streamID, n uint64, offset int64, now time.Time) {
	w.trails[name] = streamID
	key := mailbox.WindowKey{User: name, Stream: streamID}
	s := w.stream(key, now)
	s.live.High = max(s.live.High, n)
	w.taken = append(w.taken, taken{offset: offset, stream: s, n: n, all: true})
}

// lastOf is the window of a trail.
func (w *Windows) lastOf(name ident.UserID) mailbox.Window {
	if s := w.find(mailbox.WindowKey{User: name, Stream: w.trails[name]}); s != nil {
		return s.live
	}
	return mailbox.Window{}
}

// endTrail forgets a trail, if there is one.
func (w *Windows) endTrail(name ident.UserID, offset int64) {
	streamID, known := w.trails[name]
	if !known {
		return
	}
	delete(w.trails, name)
	s := w.find(mailbox.WindowKey{User: name, Stream: streamID})
	if s == nil {
		return // it is saved nowhere
	}
	s.live, s.over = mailbox.Window{}, true
	s.ends++
	w.taken = append(w.taken, taken{offset: offset, stream: s, gone: true})
}

// trailName is the name of the trail of what a sender sends to a receiver now,
// formerTrailName of what it sent in the stream before that.
func trailName(from, to ident.UserID) ident.UserID { return from + ">" + to }

func formerTrailName(from, to ident.UserID) ident.UserID { return from + ">>" + to }

func isTrail(user ident.UserID) bool { return strings.Contains(string(user), ">") }

// find returns the window of a key, nil if there is none.
func (w *Windows) find(key mailbox.WindowKey) *stream {
	if w.recent != nil && w.recent.key == key {
		return w.recent
	}
	s := w.streams[key]
	if s != nil {
		w.recent = s
	}
	return s
}

// open returns the window of a key, a new one if there is none.
func (w *Windows) open(key mailbox.WindowKey) *stream {
	s := w.find(key)
	if s == nil {
		key.User = ident.UserID(strings.Clone(string(key.User))) // what is kept is not part of something larger
		s = &stream{key: key}
		w.streams[key], w.recent = s, s
	}
	return s
}

// drop removes a window.
func (w *Windows) drop(s *stream) {
	delete(w.streams, s.key)
	s.dropped = true
	if w.recent == s {
		w.recent = nil
	}
}

// stream returns the window of a key, which was touched now.
func (w *Windows) stream(key mailbox.WindowKey, now time.Time) *stream {
	s := w.open(key)
	s.live.Touched, s.over = now.Unix(), false
	return s
}

// TakeNumber notes that number n of a stream to a user was read at an offset,
// and says whether it had been taken before.
func (w *Windows) TakeNumber(user ident.UserID, streamID, n uint64, offset int64, now time.Time) (duplicate bool) {
	s := w.open(mailbox.WindowKey{User: user, Stream: streamID})
	if !take(&s.live, n) {
		return true
	}
	s.live.Touched = now.Unix()
	w.taken = append(w.taken, taken{offset: offset, stream: s, n: n})
	return false
}

// TakeID notes that an id was read for a user at an offset, and says whether it
// was remembered. The user's id is kept for long.
func (w *Windows) TakeID(user ident.UserID, id ident.MessageID, offset int64, now time.Time) (duplicate bool) {
	if still := now.Sub(w.period); still >= w.idsFor {
		w.ids[1], w.ids[0] = w.ids[0], map[idKey]struct{}{}
		if still >= 2*w.idsFor { // nothing has come for so long
			clear(w.ids[1])
		}
		w.period = now
	}
	key := idKey{user, id}
	for _, ids := range w.ids {
		if _, known := ids[key]; known {
			return true
		}
	}
	w.ids[0][key] = struct{}{}
	w.taken = append(w.taken, taken{offset: offset, user: user, id: id})
	return false
}

// ForgetID forgets an id: its message was refused, or has expired, and may be sent again
// under it. Where the id may have been saved, it is saved that it is forgotten.
func (w *Windows) ForgetID(user ident.UserID, id ident.MessageID) {
	for _, ids := range w.ids {
		delete(ids, idKey{user, id})
	}
	for i := len(w.taken) - 1; i >= 0; i-- {
		if t := &w.taken[i]; t.isID() && !t.void && t.id == id && t.user == user {
			t.void = true
			return
		}
	}
	w.newIDs = append(w.newIDs, mailbox.RememberedID{User: forgottenPrefix + user, ID: id})
}

// Settle moves the settled view up to, not including, offset low.
func (w *Windows) Settle(low int64, now time.Time) {
	done := 0
	for ; done < len(w.taken) && w.taken[done].offset < low; done++ {
		w.settle(&w.taken[done], now)
	}
	w.taken = slices.Delete(w.taken, 0, done)
	w.settled = max(w.settled, low)
}

// settle moves one entry into the settled view.
func (w *Windows) settle(t *taken, now time.Time) {
	switch {
	case t.isID() && t.void:
		return
	case t.isID():
		w.newIDs = append(w.newIDs, mailbox.RememberedID{User: t.user, ID: t.id})
		return
	case t.gone:
		s := t.stream
		if !s.dropped {
			s.settled = mailbox.Window{}
			s.ends--
			if s.over && s.ends == 0 {
				w.drop(s)
			}
		}
		s.dirty = false
		w.gone = append(w.gone, s.key)
		return
	}
	s := t.stream
	if s.dropped {
		s = w.streams[s.key] // begun anew, or expired since
	}
	if s == nil {
		return
	}
	switch {
	case t.back:
		putBack(&s.settled, t.n)
	case t.merged != nil:
		s.settled = union(s.settled, *t.merged)
	case t.all && isTrail(s.key.User):
		s.settled.High = max(s.settled.High, t.n)
	case t.all:
		skip(&s.settled, t.n)
	default:
		take(&s.settled, t.n)
	}
	s.settled.Touched = now.Unix()
	if !s.dirty {
		s.dirty = true
		w.dirty = append(w.dirty, s)
	}
}

// isID says whether the entry is a remembered id, not a number.
func (t *taken) isID() bool { return t.n == 0 && !t.gone && t.merged == nil }

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
	for _, s := range w.dirty {
		if s.dirty && !s.dropped {
			c.Windows[s.key] = clone(s.settled)
		}
		s.dirty = false
	}
	for _, key := range w.gone {
		if _, again := c.Windows[key]; !again {
			c.Expired = append(c.Expired, key)
		}
	}
	clear(w.dirty)
	w.dirty = w.dirty[:0]
	w.newIDs, w.gone = nil, nil
	return c
}

// Expire forgets the streams that have been still for WindowLife and returns
// their keys, to be added to a change. It walks all streams: call it rarely.
func (w *Windows) Expire(now time.Time) []mailbox.WindowKey {
	var expired []mailbox.WindowKey
	windows, trails := now.Add(-WindowLife).Unix(), now.Add(-TrailLife).Unix()
	for key, s := range w.streams {
		trail := isTrail(key.User)
		if s.over || s.live.Touched >= windows && !trail || s.live.Touched >= trails && trail {
			continue
		}
		w.drop(s)
		if trail && w.trails[key.User] == key.Stream {
			delete(w.trails, key.User)
		}
		expired = append(expired, key)
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

// skip makes n the highest number; those below it that were not taken are missing.
func skip(win *mailbox.Window, n uint64) {
	if n <= win.High {
		return
	}
	take(win, n)
	win.Missing = append(win.Missing, n)
	if over := len(win.Missing) - maxMissing; over > 0 {
		win.Missing = slices.Delete(win.Missing, 0, over)
	}
}

// putBack marks n as missing and says whether it was known as taken.
func putBack(win *mailbox.Window, n uint64) bool {
	if n > win.High || len(win.Missing) == maxMissing && n < win.Missing[0] {
		return false
	}
	i, found := slices.BinarySearch(win.Missing, n)
	if found {
		return false
	}
	win.Missing = slices.Insert(win.Missing, i, n)
	if over := len(win.Missing) - maxMissing; over > 0 {
		win.Missing = slices.Delete(win.Missing, 0, over)
	}
	return true
}

// union is what was taken in either of two windows.
func union(a, b mailbox.Window) mailbox.Window {
	if b.High > a.High {
		a, b = b, a
	}
	c := mailbox.Window{High: a.High, Touched: max(a.Touched, b.Touched)}
	for _, n := range a.Missing {
		taken := n <= b.High && (len(b.Missing) < maxMissing || n >= b.Missing[0])
		if _, missing := slices.BinarySearch(b.Missing, n); !taken || missing {
			c.Missing = append(c.Missing, n)
		}
	}
	return c
}

func clone(win mailbox.Window) mailbox.Window {
	win.Missing = slices.Clone(win.Missing)
	return win
}
