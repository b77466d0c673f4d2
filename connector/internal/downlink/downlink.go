// Package downlink brings what the lanes deliver to the sessions, and what the
// sessions have taken and proved back to the lanes.
//
// For each lane it knows the epoch of the present owner: whatever comes from an
// earlier one is ignored, so that a processor which slept through its ownership
// can do no harm. Answers are batched naturally: whatever queued while the last
// ones were being published.
package downlink

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/connector/internal/session"
	"github.com/linkerhq/linker/pkg/delivery"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/trace"
)

// Plane is the live plane, as far as it is needed here.
type Plane interface {
	Publish(subject string, data []byte) error
	// Subscribe calls handle from one goroutine, in order; handle owns data.
	Subscribe(subject string, handle func(data []byte)) (stop func() error, err error)
	// SubscribeMore says as well whether more has arrived behind a message already; so many
	// subscriptions share the bound of what waits for their handlers.
	SubscribeMore(subject string, shares int, handle func(data []byte, more bool)) (stop func() error, err error)
}

// Sessions is the roster, as far as it is needed here.
type Sessions interface {
	Find(lane int, id uint64) *session.Session
	Lane(lane int) []*session.Session
}

// Config says whose deliveries these are. Every field is needed but OwnerChanged and
// Trace.
type Config struct {
	Domain    string
	Connector ident.Connector
	Lanes     int
	Log       *slog.Logger
	Metrics   prometheus.Registerer
	// OwnerChanged is called when a new owner of a lane begins to deliver, from
	// the goroutine of the subscription: it must not block.
	OwnerChanged func(lane int)
	Trace        *trace.Log // is told what arrives; nil: nobody is
}

// maxUnwritten is how many batches at most are taken before what they brought is written.
const maxUnwritten = 32

// silentAfter is how long an announcement counts; they come every second.
const silentAfter = 3 * time.Second

// Downlink is the way from the lanes to the sessions and back.
type Downlink struct {
	cfg      Config
	plane    Plane
	sessions Sessions
	metrics  *metrics
	lanes    []lane
	began    time.Time
	wake     chan struct{} // capacity 1, never closed: urgent answers wait
}

// lane is what is known of one lane.
type lane struct {
	number int // static

	// What senders ask for each message, apart from the lock.
	heard atomic.Int64 // when the last announcement came, as nanoseconds since the downlink began; 0: none has
	full  atomic.Bool

	// Owned by the goroutine of the lane's subscription.
	unwritten []*session.Session // those with Unwritten
	batches   int                // since the last write

	// mu is held while a batch or an announcement is worked on: after a new epoch
	// was adopted, nothing of an older one is taken.
	mu        sync.Mutex
	epoch     envelope.Position // guarded by mu
	joining   bool              // guarded by mu
	delivered envelope.Position // guarded by mu; the epoch that OwnerChanged was called for

	answers answers
}

// New returns a Downlink that does nothing before Run.
func New(cfg Config, plane Plane, sessions Sessions) (*Downlink, error) {
	m, err := newMetrics(cfg.Metrics)
	if err != nil {
		return nil, err
	}
	d := &Downlink{cfg: cfg, plane: plane, sessions: sessions, metrics: m, lanes: make([]lane, cfg.Lanes), began: time.Now(), wake: make(chan struct{}, 1)}
	for i := range d.lanes {
		d.lanes[i].number = i
	}
	if err := d.registerLanes(); err != nil {
		return nil, err
	}
	return d, nil
}

// Run works until ctx ends. It returns an error if the live plane cannot be
// subscribed to.
func (d *Downlink) Run(ctx context.Context) error {
	var stops []func() error
	defer func() {
		for _, stop := range stops {
			_ = stop() // the connection is about to be closed anyway
		}
	}()
	for i := range d.lanes {
		l := &d.lanes[i]
		stop, err := d.plane.SubscribeMore(delivery.ConnectorSubject(d.cfg.Domain, d.cfg.Connector, i), len(d.lanes), func(data []byte, more bool) {
			d.batch(l, data, more)
		})
		if err != nil {
			return fmt.Errorf("subscribe to the deliveries of lane %d: %w", i, err)
		}
		stops = append(stops, stop)
	}
	stop, err := d.plane.Subscribe(delivery.EpochSubject(d.cfg.Domain), d.announcement)
	if err != nil {
		return fmt.Errorf("subscribe to announcements: %w", err)
	}
	stops = append(stops, stop)
	d.answerLoop(ctx)
	return nil
}

// Accepts says whether a lane takes messages now: whether its owner can be heard
// (FAST needs it), and whether its backlog has room (RELIABLE needs it).
func (d *Downlink) Accepts(number int) (heard, room bool) {
	l := &d.lanes[number]
	silent := d.silent(l)
	return !silent, silent || !l.full.Load()
}

// Ready says whether the owners of all lanes can be heard and deliver.
func (d *Downlink) Ready() error {
	for i := range d.lanes {
		l := &d.lanes[i]
		l.mu.Lock()
		joining := l.joining
		l.mu.Unlock()
		if d.silent(l) {
			return fmt.Errorf("lane %d: no owner was heard of for %s", i, silentAfter)
		}
		if joining {
			return fmt.Errorf("lane %d: its owner is taking over", i)
		}
	}
	return nil
}

func (d *Downlink) silent(l *lane) bool {
	heard := l.heard.Load()
	return heard == 0 || d.now()-heard > int64(silentAfter)
}

// now is never 0.
func (d *Downlink) now() int64 { return int64(time.Since(d.began)) + 1 }

// batch takes what a lane delivers; more says that the next batch has arrived already. What
// several batches have for one socket is one write.
func (d *Downlink) batch(l *lane, data []byte, more bool) {
	d.open(l, data)
	l.batches++
	if more && l.batches < maxUnwritten {
		return
	}
	l.batches = 0
	// Without the lock: whoever writes calls others.
	for i, s := range l.unwritten {
		s.Unwritten = false
		s.Flush()
		l.unwritten[i] = nil
	}
	l.unwritten = l.unwritten[:0]
}

func (d *Downlink) open(l *lane, data []byte) {
	b, err := delivery.DecodeBatch(data)
	if err != nil || b.Lane != l.number {
		d.metrics.refused[refusedMalformed].Inc()
		d.cfg.Log.Warn("delivery not understood", "lane", l.number, "of_lane", b.Lane, "error", err)
		return
	}
	if d.distribute(l, &b) {
		signal(d.wake)
	}
}

// distribute puts what a batch brings into the outboxes of its sessions. It says whether
// the lane has to hear of something at once.
func (d *Downlink) distribute(l *lane, b *delivery.Batch) (urgent bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b.Epoch.Before(l.epoch) {
		d.metrics.refused[refusedEpoch].Inc()
		return false
	}
	l.epoch = b.Epoch
	for i := range b.Items {
		for _, to := range b.Items[i].Targets {
			s := d.sessions.Find(l.number, to.Session)
			urgent = d.deliver(l, s, &b.Items[i], to) || urgent
			if s != nil && !s.Unwritten {
				s.Unwritten = true
				l.unwritten = append(l.unwritten, s)
			}
		}
	}
	return urgent
}

// deliver takes one item for one session, nil if there is none. It says whether the lane has to hear
// of it at once.
func (d *Downlink) deliver(l *lane, s *session.Session, it *delivery.Item, to delivery.Target) (urgent bool) {
	if it.Kind == delivery.KindLoggedIn && s != nil && s.Identity().User == to.User {
		s.LoggedIn(it.Pos)
		return false
	}
	verdict, advanced := session.Gone, false
	if s != nil && it.Kind != delivery.KindLoggedIn {
		verdict, advanced = s.Deliver(it, to)
	}
	d.metrics.deliveries[verdict].Inc()
	if verdict == session.Taken && it.Kind == delivery.KindFrame {
		d.note(l, it, to)
	}
	switch verdict {
	case session.Gone:
		if s != nil {
			l.answers.add(s, true, false) // its last proofs come first
		}
		l.answers.addGone(to.Session)
		return true
	case session.Gap:
		l.answers.add(s, true, true)
		return true
	case session.Again:
		l.answers.add(s, true, false)
		return true
	case session.Parting:
		return false // what it has not proved by its logout is freed then
	case session.Taken, session.Duplicate:
	}
	if it.Kind == delivery.KindFast {
		return false
	}
	l.answers.add(s, advanced, false)
	return advanced
}

// note says, for those who ask where a message is, that it is here for its session. What
// is no message has no id.
func (d *Downlink) note(l *lane, it *delivery.Item, to delivery.Target) {
	if d.cfg.Trace != nil {
		d.cfg.Trace.Add(trace.Event{
			At: time.Now(), Kind: trace.Reached, Message: it.ID, User: to.User, Session: to.Session, Lane: l.number, Offset: it.Pos.Offset,
		})
	}
}

// announcement takes what the owner of a lane says every second.
func (d *Downlink) announcement(data []byte) {
	a, err := delivery.DecodeAnnouncement(data)
	if err != nil || a.Lane >= len(d.lanes) {
		d.metrics.refused[refusedMalformed].Inc()
		d.cfg.Log.Warn("announcement not understood", "lane", a.Lane, "error", err)
		return
	}
	l := &d.lanes[a.Lane]
	l.mu.Lock()
	if a.Epoch.Before(l.epoch) {
		l.mu.Unlock()
		d.metrics.refused[refusedEpoch].Inc()
		return
	}
	join := a.Joining || l.epoch.Before(a.Epoch) || slices.Contains(a.Ask, d.cfg.Connector)
	l.epoch, l.joining = a.Epoch, a.Joining
	l.heard.Store(d.now())
	l.full.Store(a.Full)
	changed := !a.Joining && l.delivered != a.Epoch
	if changed {
		l.delivered = a.Epoch
	}
	var states []delivery.SessionState
	if join {
		for _, s := range d.sessions.Lane(l.number) {
			states = append(states, s.State())
		}
	}
	l.mu.Unlock()
	if join {
		whole := delivery.Answers{Lane: l.number, Epoch: a.Epoch, Connector: d.cfg.Connector, Sessions: states}
		for _, part := range whole.Parts(rand.Uint64(), maxPartBytes) {
			d.publish(l, &part)
		}
	}
	if changed && d.cfg.OwnerChanged != nil {
		d.cfg.OwnerChanged(l.number)
	}
}

// Proved hears from a session that its progress has moved. Its lane hears of it at once if
// it is urgent, else within answerEvery, together with others.
func (d *Downlink) Proved(s *session.Session, tokens []uint64, urgent bool) {
	l := &d.lanes[s.Identity().Lane]
	l.answers.addProved(s, tokens, urgent)
	if urgent {
		signal(d.wake)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
