// Package nats is the live plane of a domain: messages between lanes and
// connectors that are delivered at most once, now or never. Whoever uses it
// numbers what it sends and repeats what matters.
//
// While the server is away nothing is kept for later: publishing fails at once.
// The connection comes back by itself, with its subscriptions.
package nats

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/seldom"
)

// The errors that callers decide on.
var (
	// ErrDisconnected: the server is away, the message is gone.
	ErrDisconnected = errors.New("the live plane is disconnected")
	// ErrTooLarge: the server takes no message of that size.
	ErrTooLarge = errors.New("the message is too large for the live plane")
)

const (
	// pingInterval times two is how long a server that says nothing is taken
	// for alive.
	pingInterval    = 5 * time.Second
	dialTimeout     = 2 * time.Second
	reconnectWait   = 100 * time.Millisecond
	reconnectJitter = 400 * time.Millisecond

	// writeTimeout ends a connection whose server takes nothing more. Publish
	// can wait that long for a lock; without a limit it would wait for ever.
	writeTimeout = 2 * time.Second
	flushTimeout = 5 * time.Second
	drainTimeout = 5 * time.Second

	// What one subscription keeps for a handler that is behind. When either is
	// full, the newest message is dropped, counted and logged.
	maxPendingMessages = 1 << 16
	maxPendingBytes    = 64 << 20
	leastPendingBytes  = 4 << 20

	// leastPayload is the largest message that a server has to take, in bytes:
	// what servers take that nobody configured, and room for a frame of the
	// largest size with a whole group.
	leastPayload = 1 << 20
)

// Config says which live plane it is.
type Config struct {
	Server

	Name string // how the server calls this connection

	Log *slog.Logger
	// Metrics takes the metrics of one Conn at most.
	Metrics prometheus.Registerer
}

// Conn is a connection to the live plane. All methods can be called from any
// goroutine.
type Conn struct {
	conn   *nats.Conn    // static
	log    *slog.Logger  // static
	closed chan struct{} // static; closed by the library when nothing is left to do
	drops  *drops        // static

	trying  atomic.Pointer[nats.Conn] // the same as conn, for callbacks that may come before Connect returns
	closing atomic.Bool               // Close was called

	unreached, troubled seldom.Line // what is logged when there is no connection, and when the server complains

	reconnects, failures prometheus.Counter // static
}

// Connect returns a connection, which need not be established yet: it is sought
// for as long as it takes, in the background, and again whenever it is lost. A
// server that refuses us is asked again like one that is away, and every 5 s at
// most a line says why there is no connection. An error means that the
// configuration is wrong.
func Connect(cfg Config) (*Conn, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("connect to the live plane: %w", err)
	}
	c := &Conn{
		log: cfg.Log, closed: make(chan struct{}), drops: newDrops(),
		reconnects: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "linker_nats_connects_total", Help: "Times the connection was established.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "linker_nats_publish_failures_total", Help: "Messages that were not sent because there was no connection.",
		}),
	}
	conn, err := nats.Connect(cfg.URL, append(c.options(cfg.Name), cfg.options()...)...)
	if err != nil {
		return nil, fmt.Errorf("connect to the live plane: %w", err)
	}
	c.conn = conn
	c.trying.Store(conn)
	if err := c.register(cfg.Metrics); err != nil {
		c.closing.Store(true)
		conn.Close()
		return nil, err
	}
	return c, nil
}

// options are those that every connection has.
func (c *Conn) options(name string) []nats.Option {
	return []nats.Option{
		nats.Name(name),
		nats.Timeout(dialTimeout),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.CustomReconnectDelay(c.delay),
		nats.ReconnectBufSize(-1), // late is worse than lost
		nats.PingInterval(pingInterval),
		nats.FlusherTimeout(writeTimeout),
		nats.ReconnectOnFlusherError(),
		nats.DrainTimeout(drainTimeout),
		nats.ConnectHandler(c.connected),
		nats.ReconnectHandler(c.connected),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { c.notReached(err) }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				c.log.Warn("live plane lost", "error", err)
			}
		}),
		nats.ErrorHandler(c.asyncError),
		nats.ClosedHandler(func(conn *nats.Conn) {
			if !c.closing.Load() {
				c.log.Error("live plane closed for good", "error", conn.LastError())
			}
			close(c.closed)
		}),
	}
}

// delay is the time until all servers are tried again. The library tells nobody
// of a server that answers and refuses us, but remembers it meanwhile.
func (c *Conn) delay(int) time.Duration {
	if conn := c.trying.Load(); conn != nil {
		c.notReached(conn.LastError())
	}
	return reconnectWait + rand.N(reconnectJitter)
}

func (c *Conn) notReached(err error) {
	if err != nil && c.unreached.Due() {
		c.log.Warn("live plane not reached", "error", explain(err))
	}
}

// Publish hands a message to the connection, which sends it together with
// whatever else is handed over meanwhile. No error means no more than that.
// data may be reused after the return. It fails at once with ErrDisconnected
// while there is no connection.
func (c *Conn) Publish(subject string, data []byte) error {
	err := c.conn.Publish(subject, data)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, nats.ErrMaxPayload):
		return fmt.Errorf("publish %s: %w: %d bytes", subject, ErrTooLarge, len(data))
	case errors.Is(err, nats.ErrBadSubject):
		return fmt.Errorf("publish %q: %w", subject, err)
	case errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrConnectionDraining):
	default:
		// The write failed and may have been cut short: nothing that follows
		// on this connection would be understood. An error here means that
		// another goroutine has seen to it, or closed the connection.
		_ = c.conn.ForceReconnect()
	}
	c.failures.Inc()
	return fmt.Errorf("publish %s: %w: %w", subject, ErrDisconnected, err)
}

// Subscribe calls handle for each message on the subject, in the order of each
// publisher, from one goroutine of the subscription's own. handle owns data.
// While it is behind, up to 65,536 messages or 64 MiB are kept, the one in its
// hands included; then the newest is dropped and counted. The server knows the subscription after the next
// Flush at the latest, or, without a connection, as soon as there is one.
func (c *Conn) Subscribe(subject string, handle func(data []byte)) (*Subscription, error) {
	return c.subscribe(subject, maxPendingBytes, func(m *nats.Msg) { handle(m.Data) })
}

// SubscribeMore is Subscribe for a handler that wants to know whether more has arrived
// behind a message already: then it is called again at once. It is one of so many
// subscriptions that share the bound of bytes, of which each has 4 MiB in any case.
func (c *Conn) SubscribeMore(subject string, shares int, handle func(data []byte, more bool)) (*Subscription, error) {
	return c.subscribe(subject, max(maxPendingBytes/shares, leastPendingBytes), func(m *nats.Msg) {
		pending, _, err := m.Sub.Pending() // the one in hand is among them
		handle(m.Data, err == nil && pending > 1)
	})
}

func (c *Conn) subscribe(subject string, pendingBytes int, handle nats.MsgHandler) (*Subscription, error) {
	s := &Subscription{drops: c.drops}
	sub, err := c.conn.Subscribe(subject, func(m *nats.Msg) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.stopped {
			handle(m)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("subscribe to %s: %w", subject, err)
	}
	if err := sub.SetPendingLimits(maxPendingMessages, pendingBytes); err != nil {
		return nil, fmt.Errorf("subscribe to %s: %w", subject, errors.Join(err, sub.Unsubscribe()))
	}
	s.sub = sub
	c.drops.add(sub)
	return s, nil
}

// MaxPayload is the largest message that the server takes, in bytes; 0 before
// there was a connection.
func (c *Conn) MaxPayload() int64 { return c.conn.MaxPayload() }

// Connected says whether there is a connection.
func (c *Conn) Connected() bool { return c.conn.IsConnected() }

// Flush returns when the server has taken everything that was published and
// subscribed before, or when ctx ends, or after 5 s.
func (c *Conn) Flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	if !c.Connected() {
		return fmt.Errorf("flush: %w", ErrDisconnected)
	}
	if err := c.conn.FlushWithContext(ctx); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	return nil
}

// Close sends what was published, lets the handlers finish what has arrived,
// and closes the connection; it takes at most about 5 s.
func (c *Conn) Close() {
	c.closing.Store(true)
	if err := c.conn.Drain(); err != nil {
		c.conn.Close() // there was nothing to drain
	}
	<-c.closed
}

// Subscription is one interest in a subject.
type Subscription struct {
	sub   *nats.Subscription // static
	drops *drops             // static

	mu      sync.Mutex
	stopped bool // guarded by mu, which is held while the handler runs
}

// Stop ends the subscription. After it has returned the handler is not called
// again; it waits for a call that is under way, so the handler must not call it.
// What had arrived and was not handled is dropped without being counted.
func (s *Subscription) Stop() error {
	s.mu.Lock()
	stopped := s.stopped
	s.stopped = true
	s.mu.Unlock()
	if stopped {
		return nil
	}
	s.drops.remove(s.sub)
	err := s.sub.Unsubscribe()
	if err != nil && !errors.Is(err, nats.ErrConnectionClosed) && !errors.Is(err, nats.ErrBadSubscription) {
		return fmt.Errorf("unsubscribe from %s: %w", s.sub.Subject, err)
	}
	return nil
}

func (c *Conn) connected(conn *nats.Conn) {
	c.reconnects.Inc()
	c.log.Info("live plane connected", "server", conn.ConnectedAddr())
	if most := conn.MaxPayload(); most < leastPayload {
		c.log.Warn("the live plane takes small messages only: set max_payload of the server", "max_payload", most, "expected", leastPayload)
	}
}

// asyncError is told once for each time that a handler falls behind, and of
// whatever the server complains about.
func (c *Conn) asyncError(_ *nats.Conn, sub *nats.Subscription, err error) {
	switch {
	case sub != nil && errors.Is(err, nats.ErrSlowConsumer):
		c.log.Warn("live plane", "subject", sub.Subject, "error", err)
	case refuses(err):
		c.notReached(err)
	case c.troubled.Due():
		c.log.Warn("live plane", "error", explain(err))
	}
}

func (c *Conn) register(r prometheus.Registerer) error {
	counter := func(name, help string, value func(nats.Statistics) uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(
			prometheus.CounterOpts{Name: "linker_nats_" + name, Help: help},
			func() float64 { return float64(value(c.conn.Stats())) },
		)
	}
	connected := prometheus.NewGaugeFunc(
		prometheus.GaugeOpts{Name: "linker_nats_connected_state", Help: "1 while there is a connection, else 0."},
		func() float64 {
			if c.Connected() {
				return 1
			}
			return 0
		},
	)
	for _, collector := range []prometheus.Collector{
		connected, c.reconnects, c.failures, c.drops,
		counter("published_messages_total", "Messages handed to the connection.", func(s nats.Statistics) uint64 { return s.OutMsgs }),
		counter("published_bytes_total", "Bytes handed to the connection.", func(s nats.Statistics) uint64 { return s.OutBytes }),
		counter("received_messages_total", "Messages that arrived.", func(s nats.Statistics) uint64 { return s.InMsgs }),
		counter("received_bytes_total", "Bytes that arrived.", func(s nats.Statistics) uint64 { return s.InBytes }),
	} {
		if err := r.Register(collector); err != nil {
			return fmt.Errorf("register metrics of the live plane: %w", err)
		}
	}
	return nil
}

// drops counts, per subject, what handlers that were behind have lost. The
// library counts per subscription; what a subscription had lost when it ended
// is kept here.
type drops struct {
	desc *prometheus.Desc // static

	mu    sync.Mutex
	live  map[*nats.Subscription]struct{} // guarded by mu
	ended map[string]int                  // guarded by mu: by subject
}

func newDrops() *drops {
	return &drops{
		desc: prometheus.NewDesc("linker_nats_dropped_messages_total",
			"Messages dropped because the handler was too slow.", []string{"subject"}, nil),
		live:  make(map[*nats.Subscription]struct{}),
		ended: make(map[string]int),
	}
}

func (d *drops) add(sub *nats.Subscription) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.live[sub] = struct{}{}
}

func (d *drops) remove(sub *nats.Subscription) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended[sub.Subject] += dropped(sub)
	delete(d.live, sub)
}

// dropped returns what a subscription has lost; one whose connection is closed
// no longer says.
func dropped(sub *nats.Subscription) int {
	n, err := sub.Dropped()
	if err != nil {
		return 0
	}
	return n
}

// Describe implements prometheus.Collector.
func (d *drops) Describe(descs chan<- *prometheus.Desc) { descs <- d.desc }

// Collect implements prometheus.Collector.
func (d *drops) Collect(metrics chan<- prometheus.Metric) {
	d.mu.Lock()
	total := maps.Clone(d.ended)
	for sub := range d.live {
		total[sub.Subject] += dropped(sub)
	}
	d.mu.Unlock()
	for subject, n := range total {
		metrics <- prometheus.MustNewConstMetric(d.desc, prometheus.CounterValue, float64(n), subject)
	}
}

// Plane is a connection for those who know a subscription by what stops it.
type Plane struct{ *Conn }

// Subscribe is Conn.Subscribe.
func (p Plane) Subscribe(subject string, handle func(data []byte)) (stop func() error, err error) {
	return stopOf(p.Conn.Subscribe(subject, handle))
}

// SubscribeMore is Conn.SubscribeMore.
func (p Plane) SubscribeMore(subject string, shares int, handle func(data []byte, more bool)) (stop func() error, err error) {
	return stopOf(p.Conn.SubscribeMore(subject, shares, handle))
}

func stopOf(s *Subscription, err error) (stop func() error, _ error) {
	if err != nil {
		return nil, err
	}
	return s.Stop, nil
}
