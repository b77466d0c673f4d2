// Package linkport is where neighbouring domains knock. It lets in those with
// whom the description of the network has a link and who prove who they are; a
// domain that serves no links lets in nobody. Whoever is refused learns nothing:
// the connection is closed without a byte.
package linkport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const acceptPause = 100 * time.Millisecond

// Port is the listener of a connector for links. This connector serves no links,
// so that it refuses everybody, and counts them.
type Port struct {
	listener net.Listener
	refused  prometheus.Counter
	log      *slog.Logger
}

// New listens on addr, HOST:PORT; port 0 picks a free one.
func New(addr string, log *slog.Logger, reg prometheus.Registerer) (*Port, error) {
	p := &Port{log: log, refused: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "linker_linkport_refused_total", Help: "Connections to the link port that were refused.",
	})}
	if err := reg.Register(p.refused); err != nil {
		return nil, fmt.Errorf("register metrics of the link port: %w", err)
	}
	var err error
	p.listener, err = new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Addr is the address that is listened on.
func (p *Port) Addr() net.Addr { return p.listener.Addr() }

// Close releases a port that is never run.
func (p *Port) Close() error { return p.listener.Close() }

// pause keeps an error that repeats itself from taking all of the processor.
func pause(ctx context.Context) {
	select {
	case <-time.After(acceptPause):
	case <-ctx.Done():
	}
}

// Run answers until ctx ends.
func (p *Port) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { _ = p.listener.Close() })()
	for {
		conn, err := p.listener.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close() // nothing was said on it
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept links: %w", err)
		case err != nil:
			p.log.Warn("accept a link", "error", err)
			pause(ctx) // it may be that there are no file descriptors left
			continue
		}
		p.refused.Inc()
		p.log.Debug("link refused", "remote", conn.RemoteAddr().String())
		_ = conn.Close()
	}
}
