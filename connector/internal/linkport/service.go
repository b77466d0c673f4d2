package linkport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/linkerhq/linker/pkg/linkstate"
	"github.com/linkerhq/linker/pkg/topology"
	"github.com/linkerhq/linker/pkg/trace"
)

// Log is the durable log of the domain.
type Log interface {
	// Append queues a record, which the log owns from then on. It does not block.
	// Without an error, done is called exactly once, later and from another
	// goroutine, with the outcome.
	Append(lane int, key string, value []byte, done func(offset int64, err error)) error
}

// Plane is the live plane, as far as it is needed here.
type Plane interface {
	Publish(subject string, data []byte) error
	// Subscribe calls handle from one goroutine, in order; handle owns data.
	Subscribe(subject string, handle func(data []byte)) (stop func() error, err error)
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
	// Subscribe returns a channel that receives whenever Current has changed, and
	// at once if there is a first one.
	Subscribe() (changed <-chan struct{}, stop func())
}

// Deps is what one life of the connector gives. Every field but Trace is needed.
type Deps struct {
	Log     Log
	Plane   Plane
	Lanes   Lanes
	Network Network
	Trace   *trace.Log // is told what arrives; nil: nobody is
	// Asked answers a neighbour's question; an empty answer is none. It is called by one
	// goroutine for each question.
	Asked func(ctx context.Context, neighbour string, question []byte) (answer []byte)
	// Unavailable is the error of Append that means later, TooLarge the outcome
	// that means never. With any other the link ends.
	Unavailable, TooLarge error
}

// errUnlinked is why a link ends that the network has no more, or not with the same
// proof.
var errUnlinked = errors.New("the description of the network has this link no more, or with another key")

// service is the links of one life.
type service struct {
	// Static after construction.
	port     *Port
	to       Deps
	state    *linkstate.Database
	arrivals chan net.Conn // never closed; without room: one after another
	ended    chan struct{} // closed when nobody is let in any more

	running sync.WaitGroup // one for each connection

	mu       sync.Mutex
	entering map[net.Conn]struct{} // guarded by mu; those that have not proved anything yet
	peers    map[*peer]struct{}    // guarded by mu
}

// Serve serves links until ctx ends, and returns when all of them have ended. There
// is one Serve at a time. It returns an error if the live plane cannot be subscribed
// to.
func (p *Port) Serve(ctx context.Context, to Deps) error {
	s := &service{
		port: p, to: to, state: linkstate.New(), arrivals: make(chan net.Conn), ended: make(chan struct{}),
		entering: make(map[net.Conn]struct{}), peers: make(map[*peer]struct{}),
	}
	stop, err := to.Plane.Subscribe(linkstate.StatesSubject(p.cfg.Domain), s.heardInside)
	if err != nil {
		return fmt.Errorf("subscribe to the states of links: %w", err)
	}
	p.present(s)
	s.run(ctx)
	p.present(nil)
	_ = stop() // the connection is about to be closed anyway
	return nil
}

// present makes s the life that connections are given to; nil: there is none.
func (p *Port) present(s *service) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.serving = s
}

// run takes connections and follows the network until ctx ends, and returns when
// all links have ended.
func (s *service) run(ctx context.Context) {
	changed, stop := s.to.Network.Subscribe()
	defer stop()
	defer s.running.Wait()
	defer close(s.ended)
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			s.review()
		case conn := <-s.arrivals:
			if why := s.enter(ctx, conn); why != "" {
				_ = conn.Close()
				s.port.refused(conn.RemoteAddr(), why, nil)
			}
		}
	}
}

// review closes the links that the network has no more.
func (s *service) review() {
	known := s.port.look(s.to.Network)
	if len(known) == 0 {
		return
	}
	s.port.metrics.follow(known[0].LinksOf(s.port.cfg.Domain), s.port.cfg.Domain)
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := range s.peers {
		if !s.stillLinked(p.link, p.name) {
			p.endLocked(errUnlinked)
		}
	}
}

// linkTo is the link that the network has with a domain.
func (s *service) linkTo(domain string) (topology.Link, bool) {
	known := s.port.look(s.to.Network)
	if len(known) == 0 {
		return topology.Link{}, false
	}
	return known[0].Link(s.port.cfg.Domain, domain)
}

// stillLinked says whether who has proved what a link asked for would be let in now.
func (s *service) stillLinked(l topology.Link, peer string) bool {
	now, is := s.linkTo(peer)
	return is && now.Key == l.Key && now.Insecure == l.Insecure
}

// enter takes a connection that nothing is known of, or says why not. Where too many
// have proved nothing yet, any one of them goes: those who only stay lose, and a
// neighbour, who is done in a moment, mostly gets in.
func (s *service) enter(ctx context.Context, conn net.Conn) (why reason) {
	if s.to.Network.Current() == nil {
		return reasonNotServing
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.peers) >= maxLinks {
		return reasonBusy
	}
	if len(s.entering) >= maxEntering {
		for other := range s.entering { // in no order
			delete(s.entering, other)
			_ = other.Close() // its own goroutine says why
			break
		}
	}
	s.entering[conn] = struct{}{}
	s.running.Go(func() { s.serve(ctx, conn) })
	return ""
}

// serve lets somebody in, or not, and serves the link until it ends.
func (s *service) serve(ctx context.Context, raw net.Conn) {
	remote := raw.RemoteAddr()
	p, why, err := s.admit(ctx, raw)
	if why != "" {
		s.port.refused(remote, why, err)
		return
	}
	log := s.port.cfg.Log.With("neighbour", p.name, "remote", remote.String())
	log.Info("link opened")
	p.introduce()
	p.counts.links.Inc()
	err = p.run(ctx)
	p.counts.links.Dec()
	s.mu.Lock()
	delete(s.peers, p)
	if p.cause != nil {
		err = p.cause
	}
	s.mu.Unlock()
	log.Info("link ended", "reason", err)
}

// admit hears who is there, and makes it one of the peers, or says why not.
func (s *service) admit(ctx context.Context, raw net.Conn) (*peer, reason, error) {
	var found topology.Link // what the one who is there is asked to prove
	conn, err := s.port.end.Accept(ctx, raw, func(domain string) (topology.Link, bool) {
		l, is := s.linkTo(domain)
		found = l
		return l, is
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	_, entering := s.entering[raw]
	delete(s.entering, raw)
	var why reason
	switch {
	case !entering && err != nil:
		return nil, reasonBusy, nil
	case err != nil && ctx.Err() != nil:
		return nil, reasonNotServing, nil
	case err != nil:
		return nil, reasonOf(err), err
	case !s.stillLinked(found, conn.Peer()): // it has changed meanwhile
		why = reasonUnknownDomain
	case len(s.peers) >= maxLinks:
		why = reasonBusy
	}
	if why != "" {
		conn.Close()
		return nil, why, nil
	}
	p := newPeer(s, conn, found)
	s.peers[p] = struct{}{}
	return p, "", nil
}
