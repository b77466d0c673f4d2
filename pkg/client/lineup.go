package client

import (
	"cmp"
	"container/heap"
	"slices"
	"time"
)

// What may be under way at most; the server stops reading at 64 messages or 1 MiB.
const (
	maxUnderWay      = 64
	maxUnderWayBytes = 768 << 10
)

// widenAfter is how many messages have to be accepted in a row until twice as many
// may be under way, if there were less since the server had limited us.
const widenAfter = 16

// itemState says where in the lineup an item is.
type itemState int

const (
	waiting  itemState = iota // behind another one
	ready                     // can be sent
	underWay                  // written to the connection and not answered
	resting                   // refused for now, or kept back; sent when it is due
)

// item is one message that is not accepted yet. The lineup owns its fields, but
// for those that are static.
type item struct {
	// Static.
	key       uint64   // growing with the Send calls; its name in the outbox
	lines     []string // what it occupies: each receiver, and a reference of the caller
	reference string   // on the wire
	named     bool     // the reference is the caller's: others may have the same
	id        string   // the client's id
	frame     []byte
	stored    bool          // it is in the outbox
	wanted    *Sent         // what Send returns
	done      chan struct{} // closed when it is over; then err can be read

	state     itemState
	ahead     int  // in how many of its lines another item is before it
	written   bool // to some connection: it may have been accepted
	abandoned bool // nobody waits for it any more
	refusals  int  // in a row
	due       time.Time
	at        int // its index among the resting
	err       error
}

// lineup orders what waits to be accepted: of the items that share a receiver,
// only the oldest may be under way, so that none overtakes another, even if one
// has to be sent several times. It is not safe for concurrent use.
type lineup struct {
	lines map[string][]*item // oldest first; by receiver or reference
	all   map[uint64]*item   // by key
	byRef map[string]*item   // the items that are ready or under way, or rest: no two have the same reference
	ready []*item            // in the order in which they became ready
	rest  restHeap
	under map[uint64]*item // under way, by key
	bytes int              // under way
	count int              // of all items

	window int       // how many may be under way: less than maxUnderWay after RATE_LIMITED
	good   int       // accepted since the window last changed
	pause  time.Time // nothing is sent before: RATE_LIMITED has said so
}

func newLineup() lineup {
	return lineup{lines: map[string][]*item{}, all: map[uint64]*item{}, byRef: map[string]*item{}, under: map[uint64]*item{}, window: maxUnderWay}
}

// add appends an item.
func (l *lineup) add(it *item) {
	it.state = waiting
	it.ahead = 0
	for _, name := range it.lines {
		if len(l.lines[name]) > 0 {
			it.ahead++
		}
		l.lines[name] = append(l.lines[name], it)
	}
	l.all[it.key] = it
	l.count++
	if it.ahead == 0 {
		l.promote(it)
	}
}

func (l *lineup) promote(it *item) {
	it.state = ready
	l.byRef[it.reference] = it
	l.ready = append(l.ready, it)
}

// next returns an item to write, if there is one and there is room for it under
// way, where it is from then on; again says that it was written before.
func (l *lineup) next() (it *item, again bool) {
	if len(l.ready) == 0 {
		return nil, false
	}
	it = l.ready[0]
	if len(l.under) >= l.window || len(l.under) > 0 && l.bytes+len(it.frame) > maxUnderWayBytes {
		return nil, false
	}
	again = it.written
	l.ready = slices.Delete(l.ready, 0, 1)
	it.state = underWay
	it.written = true
	l.under[it.key] = it
	l.bytes += len(it.frame)
	return it, again
}

// answered returns the item under way with this reference, nil if there is none.
func (l *lineup) answered(reference string) *item {
	it := l.byRef[reference]
	if it == nil || it.state != underWay {
		return nil
	}
	return it
}

// remove takes an item out, whatever its state; those behind it move up.
func (l *lineup) remove(it *item) {
	switch it.state {
	case waiting:
	case ready:
		l.ready = slices.DeleteFunc(l.ready, func(other *item) bool { return other == it })
	case underWay:
		l.leaveWay(it)
	case resting:
		heap.Remove(&l.rest, it.at)
	}
	if l.byRef[it.reference] == it {
		delete(l.byRef, it.reference)
	}
	delete(l.all, it.key)
	l.count--
	for _, name := range it.lines {
		line := l.lines[name]
		i := slices.Index(line, it)
		line = slices.Delete(line, i, i+1)
		if len(line) == 0 {
			delete(l.lines, name)
			continue
		}
		l.lines[name] = line
		if i > 0 {
			continue
		}
		if first := line[0]; first.ahead > 0 {
			first.ahead--
			if first.ahead == 0 {
				l.promote(first)
			}
		}
	}
}

func (l *lineup) leaveWay(it *item) {
	delete(l.under, it.key)
	l.bytes -= len(it.frame)
}

// postpone lets an item that is under way rest until it is due.
func (l *lineup) postpone(it *item, due time.Time) {
	l.leaveWay(it)
	it.state = resting
	it.due = due
	heap.Push(&l.rest, it)
}

// wake makes ready what is due, before what is newer, and returns when to look
// again; zero: nothing rests. Before that nothing may be sent if sending is
// false.
func (l *lineup) wake(now time.Time) (next time.Time, sending bool) {
	if l.pause.After(now) {
		return l.pause, false
	}
	var due []*item
	for len(l.rest) > 0 && !l.rest[0].due.After(now) {
		it := heap.Pop(&l.rest).(*item)
		it.state = ready
		due = append(due, it)
	}
	if len(due) > 0 {
		slices.SortFunc(due, byKey)
		l.ready = append(due, l.ready...)
	}
	if len(l.rest) == 0 {
		return time.Time{}, true
	}
	return l.rest[0].due, true
}

// limited slows down after a RATE_LIMITED: nothing is sent for a while, then one
// message at a time, then more again.
func (l *lineup) limited(until time.Time) {
	if until.After(l.pause) {
		l.pause = until
	}
	l.window, l.good = 1, 0
}

// accepted notes that a message was taken.
func (l *lineup) accepted() {
	l.good++
	if l.window < maxUnderWay && l.good >= widenAfter {
		l.window, l.good = min(2*l.window, maxUnderWay), 0
	}
}

func byKey(a, b *item) int { return cmp.Compare(a.key, b.key) }

// lost makes ready again what was under way, before anything else.
func (l *lineup) lost() {
	again := make([]*item, 0, len(l.under)+len(l.ready))
	for _, it := range l.under {
		it.state = ready
		again = append(again, it)
	}
	slices.SortFunc(again, byKey)
	l.ready = append(again, l.ready...)
	clear(l.under)
	l.bytes = 0
}

// items returns all items, oldest first.
func (l *lineup) items() []*item {
	list := make([]*item, 0, len(l.all))
	for _, it := range l.all {
		list = append(list, it)
	}
	slices.SortFunc(list, byKey)
	return list
}

// restHeap is a heap by when items are due.
type restHeap []*item

// Len, Less, Swap, Push and Pop are those of heap.Interface.
func (h *restHeap) Len() int           { return len(*h) }
func (h *restHeap) Less(i, j int) bool { return (*h)[i].due.Before((*h)[j].due) }
func (h *restHeap) Swap(i, j int) {
	list := *h
	list[i], list[j] = list[j], list[i]
	list[i].at, list[j].at = i, j
}

func (h *restHeap) Push(x any) {
	it := x.(*item)
	it.at = len(*h)
	*h = append(*h, it)
}

func (h *restHeap) Pop() any {
	last := len(*h) - 1
	it := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return it
}
