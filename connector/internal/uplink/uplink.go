// Package uplink takes what logged-in clients send: it checks what a frame asks
// for against the network, numbers it, and hands it to its lane: through the log
// what is RELIABLE, through the live plane what is FAST. What cannot be sent it
// answers with DELIVER_FAILED.
//
// From the log's acknowledgement on, and not before, a message is the server's
// job: that is when MESSAGE_ACCEPTED is written.
package uplink

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/connector/internal/session"
	"github.com/linkerhq/linker/pkg/delivery"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/topology"
	"github.com/linkerhq/linker/pkg/trace"
)

// Log is the durable log of the domain.
type Log interface {
	// Append queues a record. It does not block. The log owns value until done is called.
	// Without an error, done is called exactly once, later and from another
	// goroutine, with the outcome.
	Append(lane int, key string, value []byte, done func(offset int64, err error)) error
}

// Plane is the live plane, as far as it is needed here.
type Plane interface {
	// Publish is done with data when it returns.
	Publish(subject string, data []byte) error
}

// Lanes says what lanes take now.
type Lanes interface {
	// Accepts says whether a lane's owner can be heard, which FAST needs, and
	// whether its backlog has room, which RELIABLE needs.
	Accepts(lane int) (heard, room bool)
}

// Network is the description of the network.
type Network interface {
	Current() *topology.Snapshot
}

// Config says whose messages these are. Every field is needed.
type Config struct {
	Domain     string
	Connector  ident.Connector
	Generation uint32 // of the log
	Lanes      int
	Log        *slog.Logger
	Metrics    prometheus.Registerer
}

// Deps is where messages go.
type Deps struct {
	Log     Log
	Plane   Plane
	Lanes   Lanes
	Network Network
	Trace   *trace.Log // is told what becomes of messages; nil: nobody is
}

// Uplink is the way from the sessions to the lanes.
type Uplink struct {
	cfg     Config
	to      Deps
	metrics *metrics
	began   time.Time  // static; the times of limits and streams count from here
	fast    []fastLane // static, by lane
	logouts logouts
	under   underWay

	drafts      sync.Pool // of *draft
	acceptances sync.Pool // of *acceptance

	appLimits appLimits
}

// New returns an Uplink; only its logouts need Run.
func New(cfg Config, to Deps) (*Uplink, error) {
	m, err := newMetrics(cfg.Metrics)
	if err != nil {
		return nil, err
	}
	u := &Uplink{cfg: cfg, to: to, metrics: m, began: time.Now(), fast: make([]fastLane, cfg.Lanes)}
	u.logouts.wake = make(chan struct{}, 1)
	for i := range u.fast {
		u.fast[i].subject, u.fast[i].stream = delivery.FastSubject(cfg.Domain, i), newStream()
	}
	return u, nil
}

// Open returns the sender of a session that is about to log in.
func (u *Uplink) Open(s *session.Session, id uint64, user ident.UserID, features envelope.Features) *Sender {
	return &Sender{
		u: u, s: s, id: id, user: user, features: features,
		lane:    user.Lane(u.cfg.Lanes),
		numbers: newNumbers(),
	}
}

// append is Log.Append, counted, so that Settled knows what is under way. The last thing
// that done does is to count it down again, as counted and record.acknowledged do.
func (u *Uplink) append(lane int, user ident.UserID, e *envelope.Envelope, done func(offset int64, err error)) error {
	return u.appendTo(nil, lane, user, e, done)
}

// appendTo is append with memory for the record, if it is enough.
func (u *Uplink) appendTo(memory []byte, lane int, user ident.UserID, e *envelope.Envelope, done func(offset int64, err error)) error {
	u.under.add(1)
	err := u.to.Log.Append(lane, string(user), e.Append(slices.Grow(memory[:0], room(e))), done)
	if err != nil {
		u.under.add(-1)
	}
	return err
}

// counted returns done for append.
func (u *Uplink) counted(done func(offset int64, err error)) func(offset int64, err error) {
	return func(offset int64, err error) {
		done(offset, err)
		u.under.add(-1)
	}
}

// room is how many bytes a record needs, or a few more.
func room(e *envelope.Envelope) int {
	const fixed, each, session = 72, 11, 48
	n := fixed + len(e.From) + len(e.Reference) + len(e.Frame)
	for i := range e.To {
		n += each + len(e.To[i].User)
	}
	if e.Session != 0 {
		n += session + len(e.Connector.Name)
	}
	return n
}

// fastLane numbers what is published for a lane, densely: a gap that its owner
// sees is a loss on the way.
type fastLane struct {
	subject string // static
	stream  uint64 // static

	// mu is held while publishing, which only copies into a buffer: the numbers
	// leave in order.
	mu      sync.Mutex
	n       uint64     // guarded by mu; of the last record
	message []byte     // guarded by mu; records that wait for whoever is about to publish
	senders []fastSent // guarded by mu; whose records those are
}

// fastSent is who hears if a record cannot be published.
type fastSent struct {
	x         *Sender // nil: nobody
	reference string
}

// publish publishes a record of about so many bytes for a lane, which write makes of its
// stream and number. Records that others have for the lane at the same time go with it, in
// one message, if that does not become too large. Who has sent what cannot be published is
// told.
func (u *Uplink) publish(lane int, from fastSent, size int, write func(stream, n uint64) []byte) {
	f := &u.fast[lane]
	var failed []fastSent
	f.mu.Lock()
	if len(f.message)+size > delivery.MaxMessageSize {
		failed = u.sendLocked(f)
	}
	f.n++
	f.message = delivery.AppendFast(f.message, write(f.stream, f.n))
	f.senders = append(f.senders, from)
	first, full := len(f.senders) == 1, len(f.message) >= delivery.MaxMessageSize
	if full {
		failed = append(failed, u.sendLocked(f)...)
	}
	f.mu.Unlock()
	if first && !full {
		// Whoever is about to add to this message does so first; at low rates nobody is.
		runtime.Gosched()
		f.mu.Lock()
		failed = append(failed, u.sendLocked(f)...)
		f.mu.Unlock()
	}
	for _, s := range failed {
		s.x.unavailable(s.reference, "the live plane cannot be reached")
	}
}

// sendLocked publishes what waits, if anything does. It returns who is to hear that it was
// in vain.
func (u *Uplink) sendLocked(f *fastLane) (failed []fastSent) {
	if len(f.senders) == 0 {
		return nil
	}
	err := u.to.Plane.Publish(f.subject, f.message)
	if err != nil {
		f.n -= uint64(len(f.senders)) // nobody has seen these numbers
	}
	for _, s := range f.senders {
		switch {
		case s.x == nil:
		case err != nil:
			failed = append(failed, s)
		default:
			u.metrics.fast.Inc()
		}
	}
	clear(f.senders)
	f.message, f.senders = f.message[:0], f.senders[:0]
	return failed
}

// Settled waits until nothing is under way, logouts included, or ctx ends.
func (u *Uplink) Settled(ctx context.Context) error { return u.under.wait(ctx) }

// underWay counts records of which the log has said nothing yet.
type underWay struct {
	n      atomic.Int64
	waited atomic.Bool // somebody waits; stored with mu held

	mu   sync.Mutex
	none chan struct{} // guarded by mu; closed when n is found to be 0; nil: nobody waits
}

func (w *underWay) add(n int) {
	// Who waits says so before it looks at the number: one of both sees the other.
	if w.n.Add(int64(n)) == 0 && w.waited.Load() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.tellLocked()
	}
}

// tellLocked ends the waiting if nothing is under way.
func (w *underWay) tellLocked() {
	if w.none != nil && w.n.Load() == 0 {
		close(w.none)
		w.none = nil
		w.waited.Store(false)
	}
}

func (w *underWay) wait(ctx context.Context) error {
	w.mu.Lock()
	if w.none == nil {
		w.none = make(chan struct{})
	}
	none := w.none
	w.waited.Store(true)
	w.tellLocked()
	w.mu.Unlock()
	select {
	case <-none:
		return nil
	default:
	}
	select {
	case <-none:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// newStream draws the number of a stream; 0 stands for none.
func newStream() uint64 {
	for {
		if n := rand.Uint64(); n != 0 {
			return n
		}
	}
}

func now() int64 { return time.Now().UnixMilli() }
