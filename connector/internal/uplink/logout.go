package uplink

import (
	"context"
	"sync"
	"time"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
)

const (
	// maxLogouts bounds the logouts that wait for the log; the oldest goes and is
	// counted. Its session is then found gone at the next delivery, or when the
	// connector ends.
	maxLogouts = 1 << 16
	// logoutEvery is how often waiting logouts are tried again.
	logoutEvery = 200 * time.Millisecond
)

// logouts wait until the log takes them.
type logouts struct {
	wake chan struct{} // capacity 1, never closed

	mu      sync.Mutex
	waiting []logout // guarded by mu
}

type logout struct {
	lane   int
	user   ident.UserID
	record envelope.Envelope
}

// logout writes a logout to the log, now or when the log takes it.
func (u *Uplink) logout(l logout) {
	u.under.add(1) // until the log has it
	u.tryLogout(l)
}

func (u *Uplink) tryLogout(l logout) {
	err := u.append(l.lane, l.user, &l.record, u.counted(func(_ int64, err error) {
		if err != nil {
			u.keepLogout(l)
			return
		}
		u.under.add(-1)
	}))
	if err != nil {
		u.keepLogout(l)
	}
}

func (u *Uplink) keepLogout(l logout) {
	q := &u.logouts
	q.mu.Lock()
	q.waiting = append(q.waiting, l)
	dropped := max(0, len(q.waiting)-maxLogouts)
	q.waiting = q.waiting[dropped:]
	q.mu.Unlock()
	if dropped > 0 {
		u.metrics.logoutsDropped.Add(float64(dropped))
		u.under.add(-dropped)
	}
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Run tries waiting logouts again until ctx ends.
func (u *Uplink) Run(ctx context.Context) {
	timer := time.NewTimer(logoutEvery)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-u.logouts.wake:
		}
		timer.Reset(logoutEvery)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		u.logouts.mu.Lock()
		waiting := u.logouts.waiting
		u.logouts.waiting = nil
		u.logouts.mu.Unlock()
		for _, l := range waiting {
			u.tryLogout(l)
		}
	}
}
