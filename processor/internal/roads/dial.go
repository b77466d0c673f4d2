package roads

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/linkerhq/linker/pkg/link"
	"github.com/linkerhq/linker/pkg/topology"
)

const (
	dialTimeout = 8 * time.Second // handshake included

	// Pauses between attempts are drawn between 0 and a bound that grows.
	leastBackOff = 500 * time.Millisecond
	mostBackOff  = 30 * time.Second
	// leastInterval lies between the beginnings of any two attempts at an address.
	leastInterval = 500 * time.Millisecond
	// soon is within what time a neighbour that shows signs of life is dialled.
	soon = 250 * time.Millisecond
	// established is how long a connection has to last for the back-off to start over.
	established = 5 * time.Second
	// leastHold is how long a neighbour is left alone at least when its log was stuck,
	// whatever signs of life it shows; it grows to mostBackOff as well.
	leastHold = 15 * time.Second

	// patience is how long a link may be down before that is worth a warning: neighbours
	// start and stop.
	patience = 3 * time.Second
	// repeatAfter is when an error that stays the same is logged again.
	repeatAfter = 5 * time.Minute
)

// outcome is how an attempt to open a link has ended. The list is closed.
type outcome string

const (
	outcomeOpened      outcome = "opened"
	outcomeUnreachable outcome = "unreachable" // nobody listens there, or the name is unknown
	outcomeTimeout     outcome = "timeout"
	outcomeRefused     outcome = "refused" // somebody listens, and one of the two does not accept the other
	outcomeFailed      outcome = "failed"  // on our side: there is no proof that we could give
)

func outcomes() []outcome {
	return []outcome{outcomeOpened, outcomeUnreachable, outcomeTimeout, outcomeRefused, outcomeFailed}
}

// outcomeOf says why a link was not opened.
func outcomeOf(err error) outcome {
	var op *net.OpError
	var dns *net.DNSError
	var refused *link.RefusedError
	switch {
	case errors.As(err, &refused) && refused.Reason == link.ReasonTimeout:
		return outcomeTimeout
	case errors.As(err, &refused):
		return outcomeRefused
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return outcomeTimeout
	case errors.As(err, &op) && op.Op == "dial" && op.Timeout():
		return outcomeTimeout
	case errors.As(err, &dns), errors.As(err, &op) && op.Op == "dial":
		return outcomeUnreachable
	default:
		return outcomeFailed
	}
}

// dialler keeps a connection to one address of a neighbour.
type dialler struct {
	neighbour *neighbour              // static
	address   string                  // static; HOST:PORT
	link      topology.Link           // static
	stop      context.CancelCauseFunc // static
	signs     chan struct{}           // static; capacity 1, never closed: the neighbour lives

	mu      sync.Mutex
	failure string    // guarded by mu; why there is no connection; empty while there is one
	at      time.Time // guarded by mu; when that was

	// Owned by keep.
	down     time.Time // since when there is no connection
	logged   string    // the last failure that was logged
	loggedAt time.Time
}

// sign notes a sign of life of the neighbour.
func (d *dialler) sign() {
	select {
	case d.signs <- struct{}{}:
	default:
	}
}

// failed notes why there is no connection.
func (d *dialler) failed(text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failure, d.at = text, time.Now()
}

// lastFailure is why there is no connection, and since when that is known.
func (d *dialler) lastFailure() (string, time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failure, d.at
}

// keep dials whenever there is no connection, until ctx ends.
func (r *Roads) keep(ctx context.Context, d *dialler) {
	var p pace
	d.down = time.Now()
	for p.wait(ctx, d.signs) {
		c, err := r.open(ctx, d)
		if err != nil {
			p.failed()
			if ctx.Err() == nil {
				r.notOpened(d, err)
			}
			continue
		}
		began := time.Now()
		why := r.serve(ctx, d, c)
		d.down = time.Now()
		p.served(time.Since(began), why == endStuck, c.delivered())
		d.forgetSigns()
	}
}

// forgetSigns drops signs that came while there was a connection.
func (d *dialler) forgetSigns() {
	select {
	case <-d.signs:
	default:
	}
}

func (r *Roads) open(ctx context.Context, d *dialler) (*conn, error) {
	bounded, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	raw, err := r.dial(bounded, d.address, d.link)
	if err != nil {
		return nil, err
	}
	return newConn(raw, d), nil
}

// notOpened counts an attempt in vain. When the link has been down for a moment it is
// logged, if the error is another one, and now and then.
func (r *Roads) notOpened(d *dialler, err error) {
	o := outcomeOf(err)
	d.neighbour.counts.dials[o].Inc()
	d.failed(err.Error())
	if time.Since(d.down) < patience {
		r.cfg.Log.Debug("link is not open yet", "neighbour", d.neighbour.name, "address", d.address, "outcome", string(o), "error", err)
		return
	}
	same := withoutDigits(err.Error())
	if same == d.logged && time.Since(d.loggedAt) < repeatAfter {
		return
	}
	d.logged, d.loggedAt = same, time.Now()
	r.cfg.Log.Warn("link not opened", "neighbour", d.neighbour.name, "address", d.address, "outcome", string(o), "error", err)
}

// withoutDigits makes errors equal that differ in the port of our own end.
func withoutDigits(text string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsDigit(c) {
			return -1
		}
		return c
	}, text)
}

// serve uses a connection until it ends, and says why it did.
func (r *Roads) serve(ctx context.Context, d *dialler, c *conn) end {
	n := d.neighbour
	n.counts.dials[outcomeOpened].Inc()
	d.failed("")
	d.logged = ""
	r.cfg.Log.Info("link is open", "neighbour", n.name, "address", d.address, "remote", c.raw.RemoteAddr().String())
	r.enter(c)
	err := c.raw.Run(ctx, func(m link.Message) error { return r.handle(c, m) })
	why := c.endOf(ctx, err)
	d.failed(describe(why, err))
	n.counts.ended[why].Inc()
	n.counts.fastLost.Add(float64(c.raw.Stats().FastLost))
	r.leave(c)
	level := slog.LevelWarn
	if why == endStopped || why == endRemoved || why == endClosed || why == endWorn {
		level = slog.LevelInfo
	}
	r.cfg.Log.Log(ctx, level, "link has ended", "neighbour", n.name, "address", d.address, "reason", string(why),
		"lasted", time.Since(c.since).Round(time.Millisecond).String(), "error", err)
	return why
}

// pace is when the next attempt is due.
type pace struct {
	bound time.Duration // of the next pause; 0: none
	hold  time.Duration // how long nothing is tried, whatever happens; 0: the last connection was not stuck
	until time.Time     // when that is over
	last  time.Time     // when the last attempt began
}

// failed notes that the attempt was in vain.
func (p *pace) failed() { p.bound = min(max(2*p.bound, leastBackOff), mostBackOff) }

// served notes that there was a connection and how it went.
func (p *pace) served(lasted time.Duration, stuck, delivered bool) {
	if lasted < established {
		p.failed() // who takes connections and drops them is no better than one who takes none
	} else {
		p.bound = leastBackOff
	}
	if delivered {
		p.hold = 0
	}
	if stuck {
		p.hold = min(max(2*p.hold, leastHold), mostBackOff)
		p.until = time.Now().Add(p.hold/2 + rand.N(p.hold/2))
	}
}

// wait returns when the next attempt is due; false if ctx has ended. At a sign of
// life the back-off starts over.
func (p *pace) wait(ctx context.Context, signs <-chan struct{}) bool {
	now := time.Now()
	due := now
	if p.bound > 0 {
		due = p.soonest(now.Add(rand.N(p.bound)))
	}
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			p.last = time.Now()
			return ctx.Err() == nil
		case <-signs:
			p.bound = 0
			sooner := p.soonest(time.Now().Add(rand.N(soon)))
			if sooner.Before(due) {
				due = sooner
				timer.Reset(time.Until(due))
			}
		}
	}
}

// soonest is t, or when an attempt may be made at the earliest.
func (p *pace) soonest(t time.Time) time.Time {
	for _, earliest := range []time.Time{p.last.Add(leastInterval), p.until} {
		if earliest.After(t) {
			t = earliest
		}
	}
	return t
}
