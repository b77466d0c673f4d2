package link

import (
	"fmt"
	"sync"
	"time"
)

// pulse knows whether the other side is there. Only what it answers proves that: its
// own pings and records would come as well if our direction were cut.
//
// While the inbox is full nothing is read, so that no answer can be seen: that time
// does not count as silence. It counts by itself, as the handler's.
type pulse struct {
	silence time.Duration // static

	mu       sync.Mutex
	proved   time.Time     // guarded by mu: when the round trip was proved last, later by the time of full inboxes
	blocked  time.Time     // guarded by mu: since when the inbox has been full; zero: it is not
	last     uint64        // guarded by mu: number of the last ping
	answered uint64        // guarded by mu: number of the last ping that was answered
	times    [8]time.Time  // guarded by mu: when the last pings were written, by number
	rtt      time.Duration // guarded by mu: of the last pong
}

// begin starts the clock: the handshake has proved the round trip.
func (p *pulse) begin(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.proved = now
}

// ping returns the number of a ping that is written now.
func (p *pulse) ping(now time.Time) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last++
	p.times[p.last%uint64(len(p.times))] = now
	return p.last
}

// pong takes the answer to a ping. One that was answered already proves nothing.
func (p *pulse) pong(n uint64, now time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n > p.last {
		return fmt.Errorf("%w: it answers ping %d, of which %d were sent", ErrProtocol, n, p.last)
	}
	if n <= p.answered {
		return nil
	}
	p.answered = n
	p.proved = now
	if p.last-n < uint64(len(p.times)) {
		p.rtt = now.Sub(p.times[n%uint64(len(p.times))])
	}
	return nil
}

// prove notes any other proof of the round trip.
func (p *pulse) prove(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.proved = now
}

// block notes that there is no room for what was read.
func (p *pulse) block(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.blocked = now
}

// unblock notes that there is room again.
func (p *pulse) unblock(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.proved = p.proved.Add(now.Sub(p.blocked))
	p.blocked = time.Time{}
}

// verdict says why the connection is dead, or when to ask again.
func (p *pulse) verdict(now time.Time) (time.Time, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.blocked.IsZero() {
		until := p.blocked.Add(p.silence)
		if !now.Before(until) {
			return time.Time{}, fmt.Errorf("%w: no room for %s", ErrStuck, p.silence)
		}
		return until, nil
	}
	until := p.proved.Add(p.silence)
	if !now.Before(until) {
		return time.Time{}, fmt.Errorf("%w: no answer for %s", ErrSilent, p.silence)
	}
	return until, nil
}

func (p *pulse) roundTrip() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rtt
}
