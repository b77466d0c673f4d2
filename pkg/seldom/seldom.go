// Package seldom keeps what would be said again and again, for each lane or for each
// attempt, to one line now and then.
package seldom

import (
	"sync"
	"time"
)

// every is how often a line may be said.
const every = 5 * time.Second

// Line is one kind of line. The zero value has said nothing. It may be used by any
// goroutine.
type Line struct {
	mu   sync.Mutex
	last time.Time // guarded by mu
}

// Due says whether the line may be said now: at most once in 5 s.
func (l *Line) Due() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.last.IsZero() && time.Since(l.last) < every {
		return false
	}
	l.last = time.Now()
	return true
}
