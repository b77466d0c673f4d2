package roads_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/broker/nats"
	"github.com/linkerhq/linker/pkg/embedded"
	"github.com/linkerhq/linker/pkg/link"
	"github.com/linkerhq/linker/pkg/linkstate"
	"github.com/linkerhq/linker/pkg/logtest"
	"github.com/linkerhq/linker/pkg/polltest"
	"github.com/linkerhq/linker/pkg/topology"
	"github.com/linkerhq/linker/processor/internal/roads"
)

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	polltest.Eventually(t, what, ok)
}

// described is a description of the network that tests change.
type described struct {
	mu          sync.Mutex
	current     *topology.Snapshot // guarded by mu
	subscribers []chan struct{}    // guarded by mu
}

func (d *described) Current() *topology.Snapshot {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.current
}

func (d *described) Subscribe() (changed <-chan struct{}, stop func()) {
	ch := make(chan struct{}, 1)
	ch <- struct{}{}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.subscribers = append(d.subscribers, ch)
	return ch, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.subscribers = slices.DeleteFunc(d.subscribers, func(c chan struct{}) bool { return c == ch })
	}
}

func (d *described) set(t *testing.T, n topology.Network) {
	t.Helper()
	version := uint64(1)
	if s := d.Current(); s != nil {
		version = s.Version + 1
	}
	s, err := topology.New(version, n)
	if err != nil {
		t.Fatal(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.current = s
	for _, ch := range d.subscribers {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// plane is a connection to a NATS server.
type plane struct{ *nats.Conn }

func (p plane) Subscribe(subject string, handle func(data []byte)) (stop func() error, err error) {
	s, err := p.Conn.Subscribe(subject, handle)
	if err != nil {
		return nil, err
	}
	return s.Stop, nil
}

// server starts a NATS server and returns how to connect to it.
func server(t *testing.T) func() plane {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	s, err := embedded.NATS(0, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return func() plane {
		c, err := nats.Connect(nats.Config{Server: nats.Server{URL: s.URL()}, Name: "test", Log: log, Metrics: prometheus.NewRegistry()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		eventually(t, "there is a live plane", c.Connected)
		return plane{c}
	}
}

// running is a Roads that runs until the test ends, or stop.
type running struct {
	*roads.Roads

	registry *prometheus.Registry
	log      *logtest.Log
	stop     func()
}

func run(t *testing.T, domain string, network roads.Network, p roads.Plane) *running {
	t.Helper()
	r := &running{registry: prometheus.NewRegistry(), log: &logtest.Log{}}
	var err error
	r.Roads, err = roads.New(roads.Config{Domain: domain, Network: network, Plane: p, Log: r.log.Logger(), Metrics: r.registry})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run of %s: %v", domain, err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

// metric returns the value of a series, by its name and its labels in the order of
// their names: linker_link_up{neighbour="b"}. It is -1 if there is none.
func (r *running) metric(t *testing.T, series string) float64 {
	t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			if f.GetName()+"{"+strings.Join(labels, ",")+"}" == series {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return -1
}

// port is what a connector does for links: it lets neighbours in, acknowledges their
// records and floods link states.
type port struct {
	t        *testing.T
	domain   string
	network  roads.Network
	plane    roads.Plane
	listener net.Listener
	end      *link.End
	states   *linkstate.Database
	running  sync.WaitGroup

	mu      sync.Mutex
	silent  bool                    // guarded by mu: nothing is acknowledged
	refuse  map[string]string       // guarded by mu: the code by record
	conns   map[*link.Conn]struct{} // guarded by mu
	entered []*link.Conn            // guarded by mu: all that were let in
	records map[string][]string     // guarded by mu: by neighbour
	fast    map[string][]string     // guarded by mu: by neighbour
}

func open(t *testing.T, domain string, network roads.Network, p roads.Plane) *port {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	end, err := link.NewEnd(link.Config{Domain: domain, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	o := &port{
		t: t, domain: domain, network: network, plane: p, listener: listener, end: end, states: linkstate.New(),
		refuse: map[string]string{}, conns: map[*link.Conn]struct{}{}, records: map[string][]string{}, fast: map[string][]string{},
	}
	stop, err := p.Subscribe(linkstate.StatesSubject(domain), func(data []byte) {
		entries, err := linkstate.Decode(data)
		if err != nil {
			t.Error(err)
		}
		o.tell(nil, o.states.Merge(entries, time.Now()))
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	o.running.Go(func() { o.accept(ctx) })
	t.Cleanup(func() {
		_ = stop()
		cancel()
		_ = listener.Close()
		o.running.Wait()
	})
	return o
}

func (o *port) address() string { return o.listener.Addr().String() }

func (o *port) accept(ctx context.Context) {
	for {
		raw, err := o.listener.Accept()
		if err != nil {
			return
		}
		o.running.Go(func() {
			c, err := o.end.Accept(ctx, raw, func(domain string) (topology.Link, bool) { return o.network.Current().Link(o.domain, domain) })
			if err != nil {
				return
			}
			o.mu.Lock()
			o.conns[c] = struct{}{}
			o.entered = append(o.entered, c)
			o.mu.Unlock()
			for _, b := range linkstate.Batches(o.states.All(time.Now())) {
				c.Send(link.States{Entries: b})
			}
			_ = c.Run(ctx, func(m link.Message) error { return o.handle(c, m) })
			o.mu.Lock()
			delete(o.conns, c)
			o.mu.Unlock()
		})
	}
}

func (o *port) handle(c *link.Conn, m link.Message) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch m := m.(type) {
	case link.Records:
		for i, record := range m.Records {
			o.records[c.Peer()] = append(o.records[c.Peer()], string(record))
			if code := o.refuse[string(record)]; code != "" {
				c.Send(link.Refusal{Channel: m.Channel, N: m.First + uint64(i), Code: code})
			}
		}
		ack := link.Ack{Channel: m.Channel, UpTo: m.First + uint64(len(m.Records)) - 1}
		if o.silent {
			return nil
		}
		c.Send(ack)
	case link.Fast:
		o.fast[c.Peer()] = append(o.fast[c.Peer()], string(m.Record))
	case link.States:
		entries, err := linkstate.Decode(m.Entries)
		if err != nil {
			return err
		}
		news := o.states.Merge(entries, time.Now())
		for _, b := range linkstate.Batches(news) {
			_ = o.plane.Publish(linkstate.StatesSubject(o.domain), b)
		}
		o.tellLocked(c, news)
	default:
		return errors.New("unexpected")
	}
	return nil
}

func (o *port) tell(from *link.Conn, news []linkstate.Entry) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tellLocked(from, news)
}

func (o *port) tellLocked(from *link.Conn, news []linkstate.Entry) {
	for c := range o.conns {
		if c == from {
			continue
		}
		for _, b := range linkstate.Batches(news) {
			c.Send(link.States{Entries: b})
		}
	}
}

// received returns the records and FAST messages of a neighbour.
func (o *port) received(neighbour string) (records, fast []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.records[neighbour]), slices.Clone(o.fast[neighbour])
}

// nth waits for the nth connection that is let in, from 1 on.
func (o *port) nth(n int) *link.Conn {
	o.t.Helper()
	var c *link.Conn
	eventually(o.t, "the neighbour has let the connection in", func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		if len(o.entered) < n {
			return false
		}
		c = o.entered[n-1]
		return true
	})
	return c
}

// proxy stands between a processor and a connector.
type proxy struct {
	listener net.Listener
	running  sync.WaitGroup

	mu    sync.Mutex
	to    string                // guarded by mu
	cut   bool                  // guarded by mu: nobody comes through
	hole  bool                  // guarded by mu: nothing comes through
	moved sync.Cond             // of mu: hole has changed
	conns map[net.Conn]struct{} // guarded by mu
	tries int                   // guarded by mu: connections that were begun
}

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: listener, to: to, conns: map[net.Conn]struct{}{}}
	p.moved.L = &p.mu
	p.running.Go(p.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		p.setHole(false)
		p.setCut(true)
		p.running.Wait()
	})
	return p
}

func (p *proxy) address() string { return p.listener.Addr().String() }

func (p *proxy) accept() {
	for {
		in, err := p.listener.Accept()
		if err != nil {
			return
		}
		out, ok := p.enter(in)
		if !ok {
			_ = in.Close()
			continue
		}
		p.running.Go(func() { p.copy(out, in) })
		p.running.Go(func() { p.copy(in, out) })
	}
}

func (p *proxy) enter(in net.Conn) (net.Conn, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tries++
	if p.cut {
		return nil, false
	}
	out, err := net.Dial("tcp", p.to)
	if err != nil {
		return nil, false
	}
	p.conns[in], p.conns[out] = struct{}{}, struct{}{}
	return out, true
}

func (p *proxy) copy(to, from net.Conn) {
	defer func() {
		_, _ = to.Close(), from.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, to)
		delete(p.conns, from)
	}()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		for p.hole && !p.cut {
			p.moved.Wait()
		}
		p.mu.Unlock()
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// setCut closes all connections and takes no more, until it is called again.
func (p *proxy) setCut(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = cut
	p.moved.Broadcast()
	if cut {
		for c := range p.conns {
			_ = c.Close()
		}
	}
}

// setHole lets nothing through, while connections stay open.
func (p *proxy) setHole(hole bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hole = hole
	p.moved.Broadcast()
}

// receiver notes what it hears.
type receiver struct {
	mu      sync.Mutex
	upTo    map[uint64]uint64 // guarded by mu
	refused []string          // guarded by mu
}

func newReceiver() *receiver { return &receiver{upTo: map[uint64]uint64{}} }

func (r *receiver) HandedOver(channel, upTo uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.upTo[channel] = upTo
}

func (r *receiver) Refused(channel, n uint64, code string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refused = append(r.refused, fmt.Sprintf("%d/%d %s after %d", channel, n, code, r.upTo[channel]))
}

func (r *receiver) handedOver(channel uint64) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.upTo[channel]
}

func (r *receiver) refusals() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.refused)
}

// network describes domains a, b, … with the addresses of their link ports.
func network(links []topology.Link, addresses map[string][]string) topology.Network {
	n := topology.Network{Links: links}
	for _, l := range links {
		for _, name := range []string{l.N1, l.N2} {
			if !slices.ContainsFunc(n.Domains, func(d topology.Domain) bool { return d.Name == name }) {
				n.Domains = append(n.Domains, topology.Domain{Name: name})
			}
		}
	}
	for i := range n.Domains {
		d := &n.Domains[i]
		d.URLs = []string{"ws://127.0.0.1:1"}
		for _, a := range addresses[d.Name] {
			d.URLs = append(d.URLs, "tcp://"+a)
		}
	}
	return n
}
