// Package linkport is where neighbouring domains come in. It lets in those with
// whom the description of the network has a link and who prove who they are.
// Whoever is refused learns nothing: the connection is closed without a byte.
//
// What a neighbour hands over becomes a record of the lanes of this domain; the
// neighbour hears so, and lets go of it, when the log has it, and not before. What
// domains say of their links is passed on to everybody else.
//
// The port lives as long as the connector; links are served by one life at a time.
package linkport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/link"
	"github.com/linkerhq/linker/pkg/seldom"
	"github.com/linkerhq/linker/pkg/topology"
)

const (
	acceptPause = 100 * time.Millisecond
	// maxEntering bounds the connections that have not proved anything yet; when one more
	// comes, any one of them goes.
	maxEntering = 64
	// maxLinks bounds the links; who comes beyond that is refused.
	maxLinks = 1024
	// maxKnown is how many descriptions of the network are remembered.
	maxKnown = 16
)

// Config says whose port it is. Every field is needed but Certificates.
type Config struct {
	Domain       string
	Address      string // HOST:PORT; port 0 picks a free one
	Lanes        int
	Certificates link.Certificates
	Log          *slog.Logger
	Metrics      prometheus.Registerer
}

// Port is the listener of a connector for links.
type Port struct {
	// Static after construction.
	cfg      Config
	listener net.Listener
	end      *link.End
	metrics  *metrics
	lines    lines

	mu sync.Mutex
	// serving is the present life; nil: there is none. Guarded by mu.
	serving *service
	// known are the newest descriptions of the network, the present one first;
	// a list that was handed out does not change. Guarded by mu.
	known []*topology.Snapshot
}

// lines keep what others can cause from filling the log.
type lines struct {
	refusedRecord, refusedStates, droppedFast, waiting seldom.Line
	refused                                            map[reason]*seldom.Line // static
}

// New loads the certificates and listens. It starts nothing.
func New(cfg Config) (*Port, error) {
	p := &Port{cfg: cfg, lines: lines{refused: make(map[reason]*seldom.Line)}}
	for _, r := range reasons() {
		p.lines.refused[r] = &seldom.Line{}
	}
	var err error
	p.end, err = link.NewEnd(link.Config{Domain: cfg.Domain, Certificates: cfg.Certificates, Log: cfg.Log})
	if err != nil {
		return nil, fmt.Errorf("prepare links: %w", err)
	}
	p.metrics, err = newMetrics(cfg.Metrics)
	if err != nil {
		return nil, err
	}
	p.listener, err = new(net.ListenConfig).Listen(context.Background(), "tcp", cfg.Address)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Addr is the address that is listened on.
func (p *Port) Addr() net.Addr { return p.listener.Addr() }

// Close releases a port that is never run.
func (p *Port) Close() error { return p.listener.Close() }

// Run answers until ctx ends. Who knocks while nobody serves is refused.
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
			p.cfg.Log.Warn("accept a link", "error", err)
			pause(ctx.Done(), acceptPause) // it may be that there are no file descriptors left
			continue
		}
		if !p.hand(ctx, conn) {
			_ = conn.Close()
			p.refused(conn.RemoteAddr(), reasonNotServing, nil)
		}
	}
}

// hand gives a connection to the present life, if there is one.
func (p *Port) hand(ctx context.Context, conn net.Conn) bool {
	p.mu.Lock()
	s := p.serving
	p.mu.Unlock()
	if s == nil {
		return false
	}
	select {
	case s.arrivals <- conn:
		return true
	case <-s.ended:
	case <-ctx.Done():
	}
	return false
}

// refused counts a connection that was closed, and says so, not more often than the
// log can bear. err may be nil.
func (p *Port) refused(remote net.Addr, why reason, err error) {
	p.metrics.refused[why].Inc()
	if !p.lines.refused[why].Due() {
		return
	}
	level := slog.LevelWarn
	if why == reasonNotServing || why == reasonClosed {
		level = slog.LevelInfo // such as probes of load balancers
	}
	args := []any{"remote", remote.String(), "reason", string(why)}
	if err != nil {
		args = append(args, "error", err)
	}
	p.cfg.Log.Log(context.Background(), level, "link refused", args...)
}

// look returns the descriptions of the network that are remembered, the present one
// first; none before there was a first one.
func (p *Port) look(network Network) []*topology.Snapshot {
	p.mu.Lock()
	defer p.mu.Unlock()
	current := network.Current()
	if current != nil && (len(p.known) == 0 || p.known[0] != current) {
		before := p.known[:min(len(p.known), maxKnown-1)]
		p.known = append([]*topology.Snapshot{current}, before...)
	}
	return p.known
}

// pause waits, but not longer than until ended is closed.
func pause(ended <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ended:
	}
}
