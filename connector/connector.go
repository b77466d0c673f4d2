// Package connector is the service that clients connect to: it terminates
// websockets, logs users in, hands what they send to the lanes, and writes what
// the lanes deliver to the sockets.
//
// New binds the ports and starts nothing; Run serves until its context ends, and
// then drains: every client is told to come back, every logout is in the log, and
// the lease is given back.
package connector

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/connector/internal/lease"
	"github.com/linkerhq/linker/connector/internal/linkport"
	"github.com/linkerhq/linker/pkg/certs"
	"github.com/linkerhq/linker/pkg/run"
	"github.com/linkerhq/linker/pkg/trace"
	"github.com/linkerhq/linker/pkg/trace/otel"
)

// Connector is one connector.
type Connector struct {
	cfg      Config
	deps     Deps
	listener net.Listener
	ops      *run.Ops
	links    *linkport.Port
	trace    *trace.Log            // of all lives
	spans    *otel.Spans           // nil: nobody wants any
	parts    atomic.Pointer[parts] // nil unless it runs and takes clients
}

const (
	headerTimeout = 5 * time.Second
	// maxHeaderBytes is 8 KiB in effect: net/http lets 4 KiB more pass.
	maxHeaderBytes = 4 << 10
	idleTimeout    = 10 * time.Second
	// handshakeTime is what handshakes under way get when the connector stops.
	handshakeTime = 100 * time.Millisecond
)

// New checks the configuration and binds the ports.
func New(cfg Config, deps Deps) (*Connector, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("configure connector: %w", err)
	}
	c := &Connector{cfg: cfg, deps: deps}
	secure, err := security(cfg, deps)
	if err != nil {
		return nil, fmt.Errorf("configure connector: %w", err)
	}
	c.listener, err = new(net.ListenConfig).Listen(context.Background(), "tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("bind the websocket port %s: %w", cfg.Listen, err)
	}
	if secure != nil {
		// Handshakes are made where a connection is served, with its time limit:
		// a slow one holds up nobody.
		c.listener = tls.NewListener(c.listener, secure)
	}
	c.ops, err = run.NewOps(cfg.HTTP, deps.Metrics, deps.Log, c.readyz)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("bind the connector's HTTP port %s: %w", cfg.HTTP, err), c.listener.Close())
	}
	c.ops.RevealProfiles("")
	c.links, err = linkport.New(linkport.Config{
		Domain: cfg.Domain, Address: cfg.Link, Lanes: cfg.Lanes, Certificates: cfg.LinkTLS, Log: deps.Log, Metrics: deps.Metrics,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("bind the link port %s: %w", cfg.Link, err), c.listener.Close(), c.ops.Close())
	}
	if err := c.openTrace(); err != nil {
		return nil, errors.Join(fmt.Errorf("configure connector: %w", err), c.Close())
	}
	return c, nil
}

// openTrace prepares to note what becomes of messages.
func (c *Connector) openTrace() error {
	metrics, err := otel.NewMetrics(c.deps.Metrics)
	if err != nil {
		return err
	}
	var sink trace.Sink
	if c.cfg.OtelEndpoint != "" {
		c.spans, err = otel.New(otel.Config{Endpoint: c.cfg.OtelEndpoint, Ratio: c.cfg.OtelRatio, Place: c.cfg.place(), Log: c.deps.Log, Metrics: metrics})
		if err != nil {
			return err
		}
		sink = c.spans
	}
	c.trace = trace.NewLog(c.cfg.place(), c.cfg.TraceEvents, sink)
	return nil
}

// security returns how clients speak TLS; nil: they do not.
func security(cfg Config, deps Deps) (*tls.Config, error) {
	if cfg.TLSCert == "" {
		return nil, nil
	}
	pair, err := certs.OpenPair(cfg.TLSCert, cfg.TLSKey, deps.Log)
	if err != nil {
		return nil, err
	}
	if err := pair.Register(deps.Metrics); err != nil {
		return nil, err
	}
	return pair.Server(), nil
}

// Name is the connector's name.
func (c *Connector) Name() string { return c.cfg.Name }

// Addr is the address of the websockets.
func (c *Connector) Addr() net.Addr { return c.listener.Addr() }

// LinkAddr is the address of the links of neighbouring domains.
func (c *Connector) LinkAddr() net.Addr { return c.links.Addr() }

// HTTPAddr is the address of health and metrics.
func (c *Connector) HTTPAddr() net.Addr { return c.ops.Addr() }

// Close releases the ports of a connector that is never run.
func (c *Connector) Close() error {
	return errors.Join(c.listener.Close(), c.ops.Close(), c.links.Close())
}

// Ready says why no client can log in and send; nil means that one can.
func (c *Connector) Ready() error {
	p := c.parts.Load()
	if p == nil {
		return errors.New("not serving")
	}
	return p.ready()
}

// readyz is what the HTTP port says: the connector first, then what it was told to
// ask in addition.
func (c *Connector) readyz() error {
	err := c.Ready()
	if err != nil || c.deps.Ready == nil {
		return err
	}
	return c.deps.Ready()
}

// Run serves until ctx ends or a part fails for good, and drains. It returns
// when all its goroutines have ended; its listeners are closed then.
//
// When the domain has taken the connector for dead, because it did not run for a
// while or was cut off, its clients are told to come back, and it begins a new life
// as another incarnation.
func (c *Connector) Run(ctx context.Context) error {
	begun := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "linker_connector_lives_total", Help: "Times that the connector began to serve: once, and again whenever the domain had taken it for dead.",
	})
	if err := c.deps.Metrics.Register(begun); err != nil {
		return errors.Join(fmt.Errorf("register connector metrics: %w", err), c.Close())
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	// Health is told until the end, also while it drains.
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var running sync.WaitGroup
	part := func(what string, run func(context.Context) error, until context.Context) {
		running.Go(func() {
			if err := run(until); err != nil {
				fail(fmt.Errorf("%s: %w", what, err))
			}
		})
	}
	entry := newDoor(c.listener, c.deps.Log)
	part("take connections", entry.run, work) // until the end too: who knocks is told
	part("serve health", c.ops.Run, work)
	part("answer links", c.links.Run, ctx)
	if c.spans != nil {
		part("send spans", c.spans.Run, work)
	}
	var err error
	for {
		begun.Inc()
		err = c.live(ctx, entry)
		if !errors.Is(err, lease.ErrLost) || ctx.Err() != nil {
			break
		}
		c.deps.Log.Warn("connector begins a new life, its clients come back", "name", c.cfg.Name, "error", err)
	}
	if errors.Is(err, lease.ErrLost) {
		err = nil // it was to end anyway
	}
	if cause := context.Cause(ctx); err == nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	fail(nil)
	stop()
	running.Wait()
	c.deps.Log.Info("connector has stopped", "name", c.cfg.Name)
	return err
}

// warnOfOpenApps tells the operator, once the network is known, which apps let
// anybody in, if others than this machine can reach the port.
func (c *Connector) warnOfOpenApps(ctx context.Context, p *parts) {
	if a, ok := c.Addr().(*net.TCPAddr); ok && a.IP.IsLoopback() {
		return
	}
	changed, stop := p.feed.Subscribe()
	defer stop()
	select {
	case <-changed:
	case <-ctx.Done():
		return
	}
	var open []string
	for _, app := range p.feed.Current().Network().Apps {
		if !app.AuthEnabled {
			open = append(open, app.Name)
		}
	}
	if len(open) > 0 {
		c.deps.Log.Warn("whoever reaches the port can log in as any user of these apps: they have no authEnabled", "apps", open, "websocket", c.Addr().String())
	}
}
