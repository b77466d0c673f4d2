package uplink

import (
	"sync"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/wire"
)

// fetches are the fetches of one session: one is under way, the others wait. The
// next goes when the end of the one before was written.
type fetches struct {
	mu      sync.Mutex
	last    uint64  // guarded by mu; the number of the last request
	active  *fetch  // guarded by mu; nil: none is under way
	waiting []fetch // guarded by mu; at most wire.MaxFetchesWaiting
}

type fetch struct {
	request   uint64
	count     int
	reference string
	before    uint64 // Session.FetchedFrames when it began
}

func (x *Sender) fetch(count int, reference string) {
	q := x.fetches.Load()
	if q == nil {
		q = new(fetches)
		x.fetches.Store(q)
	}
	q.mu.Lock()
	full := len(q.waiting) >= wire.MaxFetchesWaiting
	if !full {
		q.last++
		q.waiting = append(q.waiting, fetch{request: q.last, count: count, reference: reference})
	}
	q.mu.Unlock()
	if full {
		x.s.Refuse(reference, &wire.Problem{Code: wire.CodeRateLimited, Message: "type: too many fetches wait, expected at most 16 before the first is answered"})
		return
	}
	x.nextFetch(q)
}

// FetchDone says that the end of a fetch was written.
func (x *Sender) FetchDone(request uint64) {
	q := x.fetches.Load()
	if q == nil {
		return
	}
	q.mu.Lock()
	if q.active != nil && q.active.request == request {
		q.active = nil
	}
	q.mu.Unlock()
	x.nextFetch(q)
}

// nextFetch begins the next fetch if none is under way. One that the log does
// not take is answered with a failure, and the next is tried.
func (x *Sender) nextFetch(q *fetches) {
	for {
		q.mu.Lock()
		if q.active != nil || len(q.waiting) == 0 {
			q.mu.Unlock()
			return
		}
		f := q.waiting[0]
		q.waiting = append([]fetch(nil), q.waiting[1:]...)
		f.before = x.s.FetchedFrames()
		q.active = &f
		q.mu.Unlock()
		if x.request(q, f, f.count) == nil {
			return
		}
		x.abandon(q, f)
	}
}

// OwnerChanged asks the new owner of the lane for the rest of the fetch that is
// under way: the record that began it may be settled already.
func (x *Sender) OwnerChanged() {
	q := x.fetches.Load()
	if q == nil {
		return
	}
	q.mu.Lock()
	active := q.active
	q.mu.Unlock()
	if active == nil {
		return
	}
	left := active.count - int(x.s.FetchedFrames()-active.before)
	// Without room in the log the client is told, as for any other fetch.
	if x.request(q, *active, max(left, 1)) != nil {
		x.abandon(q, *active)
		x.nextFetch(q)
	}
}

func (x *Sender) request(q *fetches, f fetch, count int) error {
	e := x.record(envelope.KindFetch)
	e.Request, e.Count = f.request, count
	return x.u.append(x.lane, x.user, &e, x.u.counted(func(_ int64, err error) {
		if err != nil {
			x.abandon(q, f)
			x.nextFetch(q)
		}
	}))
}

// abandon tells the client that a fetch failed, unless it has ended meanwhile.
func (x *Sender) abandon(q *fetches, f fetch) {
	q.mu.Lock()
	ours := q.active != nil && q.active.request == f.request
	if ours {
		q.active = nil
	}
	q.mu.Unlock()
	if ours {
		x.unavailable(f.reference, "the queue cannot be written to")
	}
}
