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

func (x *Sender) fetch(f wire.Frame) {
	q := &x.fetches
	q.mu.Lock()
	full := len(q.waiting) >= wire.MaxFetchesWaiting
	if !full {
		q.last++
		q.waiting = append(q.waiting, fetch{request: q.last, count: f.Count, reference: f.Reference})
	}
	q.mu.Unlock()
	if full {
		x.s.Refuse(f.Reference, &wire.Problem{Code: wire.CodeRateLimited, Message: "type: too many fetches wait, expected at most 16 before the first is answered"})
		return
	}
	x.nextFetch()
}

// FetchDone says that the end of a fetch was written.
func (x *Sender) FetchDone(request uint64) {
	q := &x.fetches
	q.mu.Lock()
	if q.active != nil && q.active.request == request {
		q.active = nil
	}
	q.mu.Unlock()
	x.nextFetch()
}

// nextFetch begins the next fetch if none is under way. One that the log does
// not take is answered with a failure, and the next is tried.
func (x *Sender) nextFetch() {
	for {
		q := &x.fetches
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
		if x.request(f, f.count) == nil {
			return
		}
		x.abandon(f)
	}
}

// OwnerChanged asks the new owner of the lane for the rest of the fetch that is
// under way: the record that began it may be settled already.
func (x *Sender) OwnerChanged() {
	q := &x.fetches
	q.mu.Lock()
	active := q.active
	q.mu.Unlock()
	if active == nil {
		return
	}
	left := active.count - int(x.s.FetchedFrames()-active.before)
	// Without room in the log the client is told, as for any other fetch.
	if x.request(*active, max(left, 1)) != nil {
		x.abandon(*active)
		x.nextFetch()
	}
}

func (x *Sender) request(f fetch, count int) error {
	e := x.record(envelope.KindFetch)
	e.Request, e.Count = f.request, count
	return x.u.append(x.lane, x.user, &e, func(_ int64, err error) {
		if err != nil {
			x.abandon(f)
			x.nextFetch()
		}
	})
}

// abandon tells the client that a fetch failed, unless it has ended meanwhile.
func (x *Sender) abandon(f fetch) {
	q := &x.fetches
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
