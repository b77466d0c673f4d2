package connector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/linkerhq/linker/connector/internal/lease"
	"github.com/linkerhq/linker/connector/internal/session"
	"github.com/linkerhq/linker/pkg/run"
)

// rebirthFor is how long the end of a life may take that has no part in the
// domain any more: what its sessions still say is of no use.
const rebirthFor = 2 * time.Second

// networkFor is how long the port waits for the description of the network.
const networkFor = time.Second

// live serves as one incarnation until ctx ends or a part fails, and drains.
func (c *Connector) live(ctx context.Context, entry *door) error {
	metrics := run.NewScope(c.deps.Metrics)
	defer metrics.Close()
	p, err := c.assemble(metrics)
	if err != nil {
		return err
	}
	// The parts outlive ctx: they are needed for draining.
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	failed := make(chan error, 1) // the first failure counts
	var running sync.WaitGroup
	begin := func(what string, part func(context.Context) error) {
		running.Go(func() {
			if err := part(work); err != nil {
				select {
				case failed <- fmt.Errorf("%s: %w", what, err):
				default:
				}
			}
		})
	}
	for what, part := range p.runners(c) {
		begin(what, part)
	}
	server := c.server(p)
	begin("serve websockets", func(ctx context.Context) error {
		if !p.awaitTurn(ctx) {
			return nil
		}
		err := server.Serve(entry.open())
		if errors.Is(err, http.ErrServerClosed) {
			return nil
		}
		return err
	})
	// Links end first: meanwhile neighbours hand over to another connector.
	open, closeLinks := context.WithCancel(work)
	defer closeLinks()
	begin("serve links", func(context.Context) error { return c.links.Serve(open, p.links()) })
	running.Go(func() { c.warnOfOpenApps(work, p) })
	c.parts.Store(p)
	c.deps.Log.Info("connector serves", "name", c.cfg.Name, "domain", c.cfg.Domain, "websocket", c.Addr().String(), "http", c.HTTPAddr().String())

	var failure error
	select {
	case <-ctx.Done():
	case failure = <-failed:
	}
	c.parts.Store(nil)
	closeLinks()
	switch {
	case errors.Is(failure, lease.ErrLost):
		end(work, server) // who knocks now waits for the next life
		c.drain(work, p, server, drain{limit: rebirthFor, cause: session.CauseAsleep})
	case failure != nil:
		c.drain(work, p, server, drain{limit: c.cfg.DrainFor, cause: session.CauseShutdown})
	default:
		c.drain(work, p, server, drain{limit: c.cfg.DrainFor, spread: min(c.cfg.DrainSpread, c.cfg.DrainFor/2), cause: session.CauseShutdown})
	}
	stopWork()
	running.Wait()
	p.close(context.WithoutCancel(ctx))
	return failure
}

// awaitTurn waits until no other process of the name is known to be there: who logs in
// while a killed predecessor's lease stands would be taken for one of its users. Then
// it waits a moment for the network, without which nobody can be let in. It returns
// false when ctx has ended.
func (p *parts) awaitTurn(ctx context.Context) bool {
	select {
	case <-p.lease.Ours():
	case <-ctx.Done():
		return false
	}
	changed, stop := p.feed.Subscribe()
	defer stop()
	select {
	case <-changed:
	case <-time.After(networkFor):
	case <-ctx.Done():
		return false
	}
	return true
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

// drain is how a life ends.
type drain struct {
	limit  time.Duration // how long it may take
	spread time.Duration // over which the clients are sent away
	cause  session.Cause
}

// drain ends all sessions and waits until the log has their last records, but no
// longer than the limit. Whoever knocks meanwhile is told that there is no room.
func (c *Connector) drain(work context.Context, p *parts, server *http.Server, d drain) {
	ctx, cancel := context.WithTimeout(work, d.limit)
	defer cancel()
	began := time.Now()
	c.deps.Log.Info("connector drains", "name", c.cfg.Name, "cause", d.cause, "sessions", p.gateway.Sessions(), "spread", d.spread)
	if err := p.gateway.Drain(ctx, d.cause, d.spread); err != nil {
		c.deps.Log.Warn("sessions left behind", "error", err, "sessions", p.gateway.Sessions())
	}
	end(ctx, server)
	if err := p.uplink.Settled(ctx); err != nil {
		c.deps.Log.Warn("records without acknowledgement left behind", "error", err)
	}
	c.deps.Log.Info("connector has drained", "name", c.cfg.Name, "took", time.Since(began))
}

// end gives handshakes under way a moment, and cuts what is not upgraded by then.
func end(ctx context.Context, server *http.Server) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	if server.Shutdown(ctx) != nil {
		_ = server.Close() // nothing can be done about it
	}
}
