package authcall

import (
	"sync"
	"time"
)

const (
	failuresToOpen = 5
	firstPause     = time.Second
	longestPause   = 30 * time.Second
)

// breaker keeps calls away from a service that does not answer.
type breaker struct {
	mu       sync.Mutex
	failures int           // guarded by mu; in a row
	pause    time.Duration // guarded by mu; of the open breaker; 0: closed
	until    time.Time     // guarded by mu; when the pause ends
	probing  bool          // guarded by mu; one call is out to see
}

// allow says whether a call may go out, and whether it is the one that probes.
// Each allowed call must be followed by record or forget.
func (b *breaker) allow(now time.Time) (allowed, probe bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pause == 0 {
		return true, false
	}
	if b.probing || now.Before(b.until) {
		return false, false
	}
	b.probing = true
	return true, true
}

// record takes the result of a call. It says whether the breaker has opened, or
// stays open for longer.
func (b *breaker) record(now time.Time, probe, answered bool) (opened bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if probe {
		b.probing = false
	}
	if answered {
		b.failures, b.pause = 0, 0
		return false
	}
	b.failures++
	switch {
	case probe:
		b.pause = min(max(2*b.pause, firstPause), longestPause)
	case b.pause == 0 && b.failures >= failuresToOpen:
		b.pause = firstPause
	default:
		return false
	}
	b.until = now.Add(b.pause)
	return true
}

// forget ends a call that says nothing about the service.
func (b *breaker) forget(probe bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if probe {
		b.probing = false
	}
}
