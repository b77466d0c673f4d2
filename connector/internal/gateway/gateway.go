// Package gateway is where clients come in: the upgrade to a websocket, the
// login, and the end of sessions whose right to be here has ended.
package gateway

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/connector/internal/authcall"
	"github.com/linkerhq/linker/connector/internal/roster"
	"github.com/linkerhq/linker/connector/internal/session"
	"github.com/linkerhq/linker/connector/internal/uplink"
	"github.com/linkerhq/linker/pkg/topology"
	"github.com/linkerhq/linker/pkg/wire"
)

const (
	// Path is where websockets are served.
	Path = "/ws"
	// tickEvery is how often the time limits of all sessions are looked at.
	tickEvery = 500 * time.Millisecond
	// retryAfter is what is told to who finds no room, in seconds.
	retryAfter = "1"
)

// Network is the description of the network and its changes.
type Network interface {
	// Current returns the latest snapshot, nil before the first.
	Current() *topology.Snapshot
	// Subscribe returns a channel that gets a signal after changes.
	Subscribe() (changed <-chan struct{}, stop func())
}

// Config says what is let in. Every field is needed but AllowedOrigins and Limits.
type Config struct {
	Domain         string
	Lanes          int
	FrameLimit     int      // bytes of one message of a client
	AllowedOrigins []string // hosts of pages that may connect, as patterns of path.Match; empty: any
	Limits         Limits
	Log            *slog.Logger
	Metrics        prometheus.Registerer
}

// Deps is what the gateway brings together.
type Deps struct {
	Network Network
	Roster  *roster.Roster
	Uplink  *uplink.Uplink
	Proofs  session.Proofs
}

// Gateway lets clients in.
type Gateway struct {
	cfg     Config
	to      Deps
	env     session.Env
	auth    *authcall.Caller
	metrics *metrics
	crowd   *crowd

	entering chan struct{} // holds one element for each login that waits for the log; never closed
}

// New returns a Gateway.
func New(cfg Config, to Deps) (*Gateway, error) {
	auth, err := authcall.New(cfg.Log, cfg.Metrics)
	if err != nil {
		return nil, err
	}
	sessions, err := session.NewMetrics(cfg.Metrics)
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(cfg.Metrics)
	if err != nil {
		return nil, err
	}
	g := &Gateway{cfg: cfg, to: to, auth: auth, metrics: m, crowd: newCrowd(cfg.Limits), entering: make(chan struct{}, maxEntering)}
	g.env = session.Env{
		Log: cfg.Log, Metrics: sessions, Buffers: new(session.Buffers),
		Door: g, Proofs: to.Proofs, FrameLimit: cfg.FrameLimit,
	}
	return g, nil
}

// ServeHTTP upgrades GET /ws. The session goes on after it returns. Who finds no
// room is told so before the upgrade, with 503.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != Path {
		http.NotFound(w, r)
		return
	}
	from := addressOf(r.RemoteAddr)
	result := g.crowd.enter(from)
	if result != handshakeAccepted {
		g.metrics.handshakes[result].Inc()
		w.Header().Set("Retry-After", retryAfter)
		w.Header().Set("Connection", "close")
		http.Error(w, result.text(), http.StatusServiceUnavailable)
		return
	}
	s, err := session.Accept(w, r, &g.env, g.cfg.AllowedOrigins)
	if err != nil {
		g.crowd.leave(from, "")
		g.metrics.handshakes[handshakeRefused].Inc()
		g.cfg.Log.Debug("handshake refused", "remote", r.RemoteAddr, "error", err)
		return
	}
	g.metrics.handshakes[handshakeAccepted].Inc()
	g.to.Roster.Enter(s)
	if g.crowd.isClosed() { // since it was let in: nobody else may end it
		s.End(wire.CloseRestarting, session.CauseShutdown)
	}
	go g.serve(s, from)
}

// serve runs a session from its upgrade to its logout. It depends on nothing of
// the request.
func (g *Gateway) serve(s *session.Session, from netip.Addr) {
	s.Run(context.Background())
	g.leave(s, from)
}

// leave is apart from serve, whose stack is there as long as the session is.
func (g *Gateway) leave(s *session.Session, from netip.Addr) {
	g.to.Roster.Leave(s)
	identity := s.Identity()
	defer g.crowd.leave(from, identity.User)
	if identity.ID != 0 {
		g.to.Roster.Remove(s)
		identity.Sender.Leave()
		g.metrics.loggedIn.Dec()
		g.cfg.Log.Debug("session ended", "user", identity.User, "session", identity.ID)
	}
}

// Run looks after the sessions until ctx ends: their time limits, and the right
// of their users to be here.
func (g *Gateway) Run(ctx context.Context) {
	changed, stop := g.to.Network.Subscribe()
	defer stop()
	ticker := time.NewTicker(tickEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			for _, s := range g.to.Roster.Sockets() {
				s.Tick()
			}
		case <-changed:
			for lane := range g.cfg.Lanes {
				for _, s := range g.to.Roster.Lane(lane) {
					g.review(s)
				}
			}
		}
	}
}

// review ends a session whose app is gone, or whose user is at home elsewhere.
func (g *Gateway) review(s *session.Session) {
	network := g.to.Network.Current()
	user := s.Identity().User
	if _, known := network.App(user.App()); !known {
		s.End(wire.CloseRefused, session.CauseRefused)
		return
	}
	if network.HomeOf(user, g.cfg.Domain) != g.cfg.Domain {
		s.GoAway("domain_moved", rand.N(comeBackWithin))
		s.End(wire.CloseDomainMoved, session.CauseMoved)
	}
}

// Sessions is how many sessions are logged in.
func (g *Gateway) Sessions() int { return g.crowd.sessions() }
