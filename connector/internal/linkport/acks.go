package linkport

import (
	"fmt"
	"sync"
)

// acks know, by channel, up to which record the log has everything. The log's
// answers come per lane in order, over all lanes in any.
//
// What is open is bounded by what the log takes before it says that it is not
// available.
type acks struct {
	wake chan struct{} // capacity 1, never closed: there is something to take

	mu       sync.Mutex
	channels map[uint64]*window // guarded by mu; those with something open
	settled  map[uint64]uint64  // guarded by mu; by channel up to where, since the last take
	failed   error              // guarded by mu; nothing is acknowledged any more
}

// window is the records of a channel that are not all in the log.
type window struct {
	upTo uint64  // everything up to it is
	open []entry // upTo+1, …
}

type entry struct {
	left    int // parts of which nothing was heard
	refused bool
}

func newAcks() *acks {
	return &acks{wake: make(chan struct{}, 1), channels: make(map[uint64]*window), settled: make(map[uint64]uint64)}
}

// begin opens record n of a channel, which has so many parts.
func (a *acks) begin(channel, n uint64, parts int) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	w := a.channels[channel]
	if w == nil {
		w = &window{upTo: n - 1}
		a.channels[channel] = w
	}
	if next := w.upTo + uint64(len(w.open)) + 1; n != next {
		return fmt.Errorf("record %d of a channel, expected %d", n, next)
	}
	w.open = append(w.open, entry{left: parts})
	return nil
}

// refuse notes that record n is refused. It is false if it was before.
func (a *acks) refuse(channel, n uint64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	w := a.channels[channel]
	e := &w.open[n-w.upTo-1]
	first := !e.refused
	e.refused = true
	return first
}

// settle notes that one part of record n is in the log, or was refused.
func (a *acks) settle(channel, n uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w := a.channels[channel]
	w.open[n-w.upTo-1].left--
	from := w.upTo
	for len(w.open) > 0 && w.open[0].left == 0 {
		w.open = w.open[1:]
		w.upTo++
	}
	if w.upTo == from {
		return
	}
	if len(w.open) == 0 {
		delete(a.channels, channel)
	}
	a.settled[channel] = w.upTo
	signal(a.wake)
}

// fail notes that a record will not be in the log for all we know: nothing that
// comes after it in its channel is acknowledged, and the link has to end.
func (a *acks) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failed = err
	signal(a.wake)
}

// failure is what fail was told.
func (a *acks) failure() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.failed
}

// take returns by channel up to where everything is in the log, of those channels
// where that has changed since it was last asked.
func (a *acks) take() map[uint64]uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.settled) == 0 {
		return nil
	}
	taken := a.settled
	a.settled = make(map[uint64]uint64)
	return taken
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
