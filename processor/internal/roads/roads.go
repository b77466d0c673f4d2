// Package roads is a processor's side of the links to neighbouring domains. It dials
// them, keeps the connections, tells everybody which of its links are up and hears
// the same from others, and from all that knows over which neighbour and which
// connections every other domain is reached: the Table. Lanes send their records
// over it.
//
// It has custody of nothing: a lane keeps a record until HandedOver says that the
// neighbour's log has it. When a connection ends, what was not handed over is sent
// again by its lane, over whatever connection is then right.
package roads

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/link"
	"github.com/linkerhq/linker/pkg/linkstate"
	"github.com/linkerhq/linker/pkg/seldom"
	"github.com/linkerhq/linker/pkg/topology"
)

// lookEvery is how often expired link states and connections that are stuck are
// looked for.
const lookEvery = time.Second

// Network is the current description of the network.
type Network interface {
	Current() *topology.Snapshot
	// Subscribe returns a channel that receives whenever Current has changed, and at
	// once if there is a description.
	Subscribe() (changed <-chan struct{}, stop func())
}

// Plane is the live plane, as far as it is needed here.
type Plane interface {
	Publish(subject string, data []byte) error
	Subscribe(subject string, handle func(data []byte)) (stop func() error, err error)
}

// Config says whose roads these are. Every field is needed but Certificates.
type Config struct {
	Domain       string
	Certificates link.Certificates
	Network      Network
	Plane        Plane
	Log          *slog.Logger
	// Metrics takes the metrics of one Roads at most.
	Metrics prometheus.Registerer
}

// connection is an open link; of package link.
type connection interface {
	RemoteAddr() net.Addr
	Send(m link.Message) bool
	Run(ctx context.Context, handle func(link.Message) error) error
	Close()
	Stats() link.Stats
	Asks() bool // whether the other side knows questions
}

// Roads are the links of one process. All methods may be called from any goroutine.
type Roads struct {
	// Static after construction.
	cfg     Config
	proof   func(topology.Link) link.Proof
	dial    func(ctx context.Context, address string, l topology.Link) (connection, error)
	speaker uint64
	metrics *metrics
	states  *linkstate.Database
	wake    chan struct{} // capacity 1, never closed: something has changed

	table      atomic.Pointer[Table]
	unsendable seldom.Line
	diallers   sync.WaitGroup
	questions  questions

	mu          sync.Mutex
	neighbours  map[string]*neighbour  // guarded by mu; those that the network has a link with
	conns       map[uint64]*conn       // guarded by mu; the open ones
	subscribers map[*subscriber]func() // guarded by mu

	// Owned by Run.
	version uint64    // of the last entry
	spoken  []string  // neighbours that the last entry names
	spokeAt time.Time // when the last entry was published
	seen    seen      // what the table was made of
}

// subscriber is the identity of a subscription; not of size zero, so that each has
// an address of its own.
type subscriber struct{ _ byte }

// neighbour is a domain that the network has a link with.
type neighbour struct {
	name   string   // static
	counts counters // static
	totals totals

	// Guarded by Roads.mu.
	link     topology.Link
	diallers map[endpoint]*dialler
	open     int       // connections
	since    time.Time // when open began or ceased to be 0
}

// totals are what was sent to a neighbour since the network has a link with it.
type totals struct{ records, bytes, fast atomic.Uint64 }

// New loads the certificates. It starts nothing.
func New(cfg Config) (*Roads, error) {
	end, err := link.NewEnd(link.Config{Domain: cfg.Domain, Certificates: cfg.Certificates, Log: cfg.Log})
	if err != nil {
		return nil, fmt.Errorf("prepare links: %w", err)
	}
	r := &Roads{
		cfg:     cfg,
		proof:   end.Proof,
		speaker: rand.Uint64(),
		states:  linkstate.New(),
		wake:    make(chan struct{}, 1),
		dial: func(ctx context.Context, address string, l topology.Link) (connection, error) {
			c, err := end.Dial(ctx, address, l)
			if err != nil {
				return nil, err // c is not nil: it holds no connection
			}
			return c, nil
		},
		neighbours:  make(map[string]*neighbour),
		conns:       make(map[uint64]*conn),
		subscribers: make(map[*subscriber]func()),
	}
	r.table.Store(&Table{})
	r.metrics, err = newMetrics(cfg.Metrics, r)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// The reasons for which Run ends connections itself, as causes of contexts.
var (
	errRemoved = errors.New("the network has the link no longer, or with another address or proof")
	errStopped = errors.New("the processor stops")
)

// Run keeps the links until ctx ends. It returns an error if the live plane cannot be
// subscribed to.
func (r *Roads) Run(ctx context.Context) error {
	stopStates, err := r.cfg.Plane.Subscribe(linkstate.StatesSubject(r.cfg.Domain), r.heardInside)
	if err != nil {
		return fmt.Errorf("subscribe to link states: %w", err)
	}
	changed, stopChanged := r.cfg.Network.Subscribe()
	// The links outlive ctx for as long as it takes to say goodbye.
	links, stopLinks := context.WithCancelCause(context.WithoutCancel(ctx))
	r.follow(ctx, links, changed)
	stopChanged()
	r.speak(time.Now(), nil)
	stopLinks(errStopped)
	r.diallers.Wait()
	_ = stopStates() // the connection is about to be closed anyway
	r.update(time.Now())
	return nil
}

func (r *Roads) follow(ctx, links context.Context, changed <-chan struct{}) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		now := time.Now()
		r.announce(now)
		r.update(now)
		select {
		case <-ctx.Done():
			return
		case <-changed:
			r.reconcile(links, r.cfg.Network.Current())
		case <-r.wake:
		case <-tick.C:
			r.endStuck(time.Now())
		}
	}
}

// poke makes Run look at what has changed.
func (r *Roads) poke() {
	select {
	case r.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// endpoint is what makes a dialler another one when it changes. It holds a secret:
// it is not logged.
type endpoint struct {
	address  string
	key      string
	insecure bool
}

// endpoints are where a link of ours is dialled.
func endpoints(s *topology.Snapshot, neighbour string, l topology.Link) []endpoint {
	d, _ := s.Domain(neighbour)
	var list []endpoint
	for _, text := range d.LinkURLs() {
		u, err := url.Parse(text)
		if err != nil {
			continue // a snapshot has no such URL
		}
		e := endpoint{address: u.Host, key: l.Key, insecure: l.Insecure}
		if !slices.Contains(list, e) {
			list = append(list, e)
		}
	}
	return list
}

// reconcile begins and ends dialling, so that there is one dialler for each address
// of each neighbour.
func (r *Roads) reconcile(links context.Context, s *topology.Snapshot) {
	if s == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	wanted := make(map[string]topology.Link)
	for _, l := range s.LinksOf(r.cfg.Domain) {
		wanted[l.Other(r.cfg.Domain)] = l
	}
	for name, n := range r.neighbours {
		if _, still := wanted[name]; still {
			continue
		}
		for _, d := range n.diallers {
			d.stop(errRemoved)
		}
		delete(r.neighbours, name)
	}
	for name, l := range wanted {
		n := r.neighbours[name]
		if n == nil {
			n = &neighbour{name: name, counts: r.metrics.of(name), diallers: make(map[endpoint]*dialler), since: time.Now()}
			r.neighbours[name] = n
		}
		r.reconcileLocked(links, n, l, endpoints(s, name, l))
	}
}

func (r *Roads) reconcileLocked(links context.Context, n *neighbour, l topology.Link, list []endpoint) {
	news := n.link != l
	n.link = l
	for e, d := range n.diallers {
		switch {
		case !slices.Contains(list, e):
			d.stop(errRemoved)
			delete(n.diallers, e)
		case news:
			d.sign()
		}
	}
	for _, e := range list {
		if n.diallers[e] != nil {
			continue
		}
		ctx, stop := context.WithCancelCause(links)
		d := &dialler{neighbour: n, address: e.address, link: l, stop: stop, signs: make(chan struct{}, 1)}
		n.diallers[e] = d
		r.diallers.Go(func() {
			defer stop(nil)
			r.keep(ctx, d)
		})
	}
}

// enter makes a connection known; it is used from then on. Everything that is known
// of links is told to the other side.
func (r *Roads) enter(c *conn) {
	r.mu.Lock()
	r.conns[c.id] = c
	n := c.neighbour
	n.open++
	if n.open == 1 {
		n.since = time.Now()
	}
	r.mu.Unlock()
	c.states(linkstate.Batches(r.states.All(time.Now())))
	r.poke()
}

// leave forgets a connection that has ended.
func (r *Roads) leave(c *conn) {
	c.end()
	r.mu.Lock()
	delete(r.conns, c.id)
	n := c.neighbour
	n.open--
	if n.open == 0 {
		n.since = time.Now()
	}
	r.mu.Unlock()
	r.questions.endAll(c)
	r.poke()
}

// connections returns the open connections, the oldest first.
func (r *Roads) connections() []*conn {
	r.mu.Lock()
	list := slices.Collect(maps.Values(r.conns))
	r.mu.Unlock()
	slices.SortFunc(list, func(a, b *conn) int {
		return cmp.Or(a.since.Compare(b.since), cmp.Compare(a.id, b.id))
	})
	return list
}

// conn returns an open connection, or nil.
func (r *Roads) conn(id uint64) *conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.conns[id]
}

// endStuck ends connections over which nothing is handed over any more, so that
// another way is taken.
func (r *Roads) endStuck(now time.Time) {
	for _, c := range r.connections() {
		if c.stuck(now) {
			c.endFor(endStuck)
		}
	}
}
