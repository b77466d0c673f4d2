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
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/linkerhq/linker/connector/internal/linkport"
	"github.com/linkerhq/linker/pkg/run"
)

// Connector is one connector.
type Connector struct {
	cfg      Config
	deps     Deps
	listener net.Listener
	ops      *run.Ops
	links    *linkport.Port
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
	var err error
	c.listener, err = new(net.ListenConfig).Listen(context.Background(), "tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("bind the websocket port %s: %w", cfg.Listen, err)
	}
	c.ops, err = run.NewOps(cfg.HTTP, deps.Metrics, deps.Log, c.ready)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("bind the connector's HTTP port %s: %w", cfg.HTTP, err), c.listener.Close())
	}
	c.links, err = linkport.New(cfg.Link, deps.Log, deps.Metrics)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("bind the link port %s: %w", cfg.Link, err), c.listener.Close(), c.ops.Close())
	}
	return c, nil
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

// ready says why no client can log in and send.
func (c *Connector) ready() error {
	p := c.parts.Load()
	if p == nil {
		return errors.New("not serving")
	}
	return p.ready()
}

// Run serves until ctx ends or a part fails for good, and drains. It returns
// when all its goroutines have ended; its listeners are closed then.
func (c *Connector) Run(ctx context.Context) error {
	p, err := c.assemble()
	if err != nil {
		return errors.Join(err, c.Close())
	}
	// The parts outlive ctx: they are needed for draining.
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	failed := make(chan error, 1) // the first failure counts
	var running sync.WaitGroup
	for what, part := range p.runners(c) {
		running.Go(func() {
			if err := part(work); err != nil {
				select {
				case failed <- fmt.Errorf("%s: %w", what, err):
				default:
				}
			}
		})
	}
	server := c.server(p)
	running.Go(func() {
		if err := server.Serve(c.listener); !errors.Is(err, http.ErrServerClosed) {
			select {
			case failed <- fmt.Errorf("serve websockets: %w", err):
			default:
			}
		}
	})
	running.Go(func() { c.warnOfOpenApps(work, p) })
	c.parts.Store(p)
	c.deps.Log.Info("connector serves", "name", c.cfg.Name, "domain", c.cfg.Domain, "websocket", c.Addr().String(), "http", c.HTTPAddr().String())

	var failure error
	select {
	case <-ctx.Done():
	case failure = <-failed:
	}
	c.parts.Store(nil)
	c.drain(work, p, server)
	stopWork()
	running.Wait()
	p.close(context.WithoutCancel(ctx))
	c.deps.Log.Info("connector has stopped", "name", c.cfg.Name)
	return failure
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

func (c *Connector) server(p *parts) *http.Server {
	return &http.Server{
		Handler:           p.gateway,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(c.deps.Log.Handler(), slog.LevelDebug),
	}
}

// drain ends all sessions and waits until the log has their last records.
func (c *Connector) drain(work context.Context, p *parts, server *http.Server) {
	ctx, cancel := context.WithTimeout(work, c.cfg.DrainFor)
	defer cancel()
	handshakes, cancelHandshakes := context.WithTimeout(ctx, handshakeTime)
	defer cancelHandshakes()
	if server.Shutdown(handshakes) != nil {
		_ = server.Close() // what is not upgraded yet is cut
	}
	if err := p.gateway.Drain(ctx); err != nil {
		c.deps.Log.Warn("sessions left behind", "error", err)
	}
	if err := p.uplink.Settled(ctx); err != nil {
		c.deps.Log.Warn("records without acknowledgement left behind", "error", err)
	}
}
