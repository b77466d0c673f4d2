package linkport_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/linkerhq/linker/connector/internal/linkport"
	"github.com/linkerhq/linker/pkg/broker/nats"
	"github.com/linkerhq/linker/pkg/delivery"
	"github.com/linkerhq/linker/pkg/embedded"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/link"
	"github.com/linkerhq/linker/pkg/logtest"
	"github.com/linkerhq/linker/pkg/polltest"
	"github.com/linkerhq/linker/pkg/topology"
)

const (
	lanes = 4
	here  = "domain-01"
)

var (
	errUnavailable = errors.New("later")
	errTooLarge    = errors.New("never")
	errStopped     = errors.New("stopped")
)

// network describes domain-02 – domain-01 – domain-03 – domain-04, where each has a
// thousand numbers.
func network() topology.Network {
	n := topology.Network{
		Links: []topology.Link{
			{N1: "domain-01", N2: "domain-02", Key: "the key of 01 and 02"},
			{N1: "domain-03", N2: "domain-01", Key: "the key of 01 and 03"},
			{N1: "domain-03", N2: "domain-04", Key: "the key of 03 and 04"},
		},
		Apps: []topology.App{{Name: "A", AppID: "1", Master: "A-1"}},
	}
	for i := range 4 {
		name := fmt.Sprintf("domain-%02d", i+1)
		n.Domains = append(n.Domains, topology.Domain{Name: name, URLs: []string{"ws://127.0.0.1:1", "tcp://127.0.0.1:2"}})
		n.Distributions = append(n.Distributions, topology.Distribution{DomainName: name, From: int64(1000 * i), To: int64(1000*i + 999)})
	}
	return n
}

// feed is the description of the network, as the port sees it.
type feed struct {
	mu      sync.Mutex
	current *topology.Snapshot
	changed []chan struct{}
}

func (f *feed) Current() *topology.Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.current
}

func (f *feed) Subscribe() (<-chan struct{}, func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := make(chan struct{}, 1)
	if f.current != nil {
		c <- struct{}{}
	}
	f.changed = append(f.changed, c)
	return c, func() {}
}

func (f *feed) set(t *testing.T, version uint64, n topology.Network) {
	t.Helper()
	s, err := topology.New(version, n)
	if err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.current = s
	for _, c := range f.changed {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// appended is what came for the log, with the answer still owed.
type appended struct {
	envelope.Envelope
	lane int
	key  string
	done func(offset int64, err error)
}

// brokers are the log, the live plane and the lanes, where the test has them in its
// hands.
type brokers struct {
	records chan appended
	fast    chan published

	mu       sync.Mutex
	refusing error
	full     bool
	silent   map[int]bool
	away     error
	asked    int
}

type published struct {
	envelope.Envelope
	subject string
}

func newBrokers() *brokers {
	return &brokers{records: make(chan appended, 10000), fast: make(chan published, 1000), silent: make(map[int]bool)}
}

func (b *brokers) set(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
}

func (b *brokers) Append(lane int, key string, value []byte, done func(int64, error)) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked++
	if b.refusing != nil {
		return fmt.Errorf("append: %w", b.refusing)
	}
	e, err := envelope.Decode(value)
	if err != nil {
		return err
	}
	b.records <- appended{e, lane, key, done}
	return nil
}

func (b *brokers) Accepts(lane int) (heard, room bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked++
	return !b.silent[lane], !b.full
}

func (b *brokers) Publish(subject string, data []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.away != nil {
		return b.away
	}
	if !strings.HasPrefix(subject, "fast.") {
		return nil // states of links
	}
	record, rest, err := delivery.NextFast(data)
	if err != nil || len(rest) > 0 {
		return fmt.Errorf("%s: %d bytes behind: %w", subject, len(rest), err)
	}
	e, err := envelope.Decode(record)
	if err != nil {
		return err
	}
	b.fast <- published{e, subject}
	return nil
}

func (b *brokers) Subscribe(string, func([]byte)) (func() error, error) {
	return func() error { return nil }, nil
}

// world is one link port with what lies behind it.
type world struct {
	*brokers
	t    *testing.T
	feed *feed
	port *linkport.Port
	reg  *prometheus.Registry
	deps linkport.Deps
	log  *logtest.Log

	lives []func() // each ends a life and waits for that
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, brokers: newBrokers(), feed: &feed{}, reg: prometheus.NewRegistry(), log: &logtest.Log{}}
	w.feed.set(t, 5, network())
	w.deps = linkport.Deps{Log: w.brokers, Plane: w.brokers, Lanes: w.brokers, Network: w.feed, Unavailable: errUnavailable, TooLarge: errTooLarge}
	var err error
	w.port, err = linkport.New(linkport.Config{Domain: here, Address: "127.0.0.1:0", Lanes: lanes, Log: slog.New(slog.NewTextHandler(w.log, nil)), Metrics: w.reg})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- w.port.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run returned %v", err)
		}
		for _, end := range w.lives {
			end()
		}
	})
	return w
}

// serve begins a life.
func (w *world) serve() (end func()) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- w.port.Serve(ctx, w.deps) }()
	end = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("Serve returned %v", err)
		}
	})
	w.lives = append(w.lives, end)
	return end
}

// withNATS gives the port a real live plane, and the test a connection to it.
func (w *world) withNATS() *nats.Conn {
	w.t.Helper()
	log := slog.New(slog.DiscardHandler)
	server, err := embedded.NATS(0, log)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(server.Close)
	connect := func() *nats.Conn {
		c, err := nats.Connect(nats.Config{Server: nats.Server{URL: server.URL()}, Log: log, Metrics: prometheus.NewRegistry()})
		if err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(c.Close)
		eventually(w.t, "the live plane is connected", c.Connected)
		return c
	}
	w.deps.Plane = plane{connect()}
	return connect()
}

type plane struct{ *nats.Conn }

func (p plane) Subscribe(subject string, handle func([]byte)) (func() error, error) {
	s, err := p.Conn.Subscribe(subject, handle)
	if err != nil {
		return nil, err
	}
	return s.Stop, p.Flush(context.Background())
}

// neighbour is a processor of another domain.
type neighbour struct {
	*link.Conn
	t     *testing.T
	got   chan link.Message
	ended chan struct{}
}

// dial opens a link as a domain, with the key of the network.
func (w *world) dial(domain string) *neighbour {
	w.t.Helper()
	l, is := w.feed.Current().Link(here, domain)
	if !is {
		w.t.Fatalf("no link with %s", domain)
	}
	var n *neighbour
	eventually(w.t, "the port serves "+domain, func() bool {
		var err error
		n, err = w.try(domain, l)
		return err == nil
	})
	eventually(w.t, domain+" is counted", func() bool { return w.metric("linker_linkport_links", domain) >= 1 })
	return n
}

func (w *world) try(domain string, l topology.Link) (*neighbour, error) {
	w.t.Helper()
	end, err := link.NewEnd(link.Config{Domain: domain, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		w.t.Fatal(err)
	}
	conn, err := end.Dial(w.t.Context(), w.port.Addr().String(), l)
	if err != nil {
		return nil, err
	}
	n := &neighbour{Conn: conn, t: w.t, got: make(chan link.Message, 10000), ended: make(chan struct{})}
	go func() {
		defer close(n.ended)
		_ = conn.Run(context.WithoutCancel(w.t.Context()), func(m link.Message) error { n.got <- m; return nil })
	}()
	w.t.Cleanup(func() { conn.Close(); <-n.ended })
	return n, nil
}

// send hands records over.
func (n *neighbour) send(channel, first uint64, list ...envelope.Envelope) {
	n.t.Helper()
	r := link.Records{Channel: channel, First: first}
	for _, e := range list {
		r.Records = append(r.Records, e.Append(nil))
	}
	n.put(r)
}

func (n *neighbour) put(m link.Message) {
	n.t.Helper()
	if !n.Send(m) {
		n.t.Fatalf("%T was not sent", m)
	}
}

// want waits for a message.
func (n *neighbour) want(want link.Message) {
	n.t.Helper()
	select {
	case got := <-n.got:
		if got != want {
			n.t.Fatalf("got %+v, want %+v", got, want)
		}
	case <-n.ended:
		n.t.Fatalf("the link has ended; want %+v", want)
	case <-time.After(20 * time.Second):
		n.t.Fatalf("never came: %+v", want)
	}
}

// acknowledged waits for the acknowledgement of a record. Those before it may come
// with it or alone.
func (n *neighbour) acknowledged(channel, upTo uint64) {
	n.t.Helper()
	for last := uint64(0); last < upTo; {
		select {
		case got := <-n.got:
			ack, is := got.(link.Ack)
			if !is || ack.Channel != channel || ack.UpTo <= last || ack.UpTo > upTo {
				n.t.Fatalf("got %+v after %d, want acknowledgements up to %d", got, last, upTo)
			}
			last = ack.UpTo
		case <-n.ended:
			n.t.Fatalf("the link has ended; want an acknowledgement up to %d", upTo)
		case <-time.After(20 * time.Second):
			n.t.Fatalf("never acknowledged: %d", upTo)
		}
	}
}

// gone waits until the other side has ended the link.
func (n *neighbour) gone() {
	n.t.Helper()
	select {
	case <-n.ended:
	case <-time.After(20 * time.Second):
		n.t.Fatal("the link is still there")
	}
}

// silent says that nothing has come.
func (n *neighbour) silent() {
	n.t.Helper()
	select {
	case m := <-n.got:
		n.t.Errorf("got %+v, want nothing", m)
	default:
	}
}

// next is what comes for the log.
func (w *world) next() appended {
	w.t.Helper()
	select {
	case r := <-w.records:
		return r
	case <-time.After(20 * time.Second):
		w.t.Fatal("nothing comes for the log")
		panic("unreachable")
	}
}

// metric is the value of a counter or gauge, with the only label that it has.
func (w *world) metric(name, label string) float64 {
	w.t.Helper()
	families, err := w.reg.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && len(m.GetLabel()) == 1 && m.GetLabel()[0].GetValue() == label {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return 0
}

func (w *world) counted(name, label string, want float64) {
	w.t.Helper()
	eventually(w.t, fmt.Sprintf("%s of %s is %v", name, label, want), func() bool { return w.metric(name, label) == want })
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	polltest.Within(t, 20*time.Second, what, ok)
}

// message is a MESSAGE, numbered in its sender's stream.
func message(from ident.UserID, n uint64, to ...ident.UserID) envelope.Envelope {
	e := envelope.Envelope{Kind: envelope.KindMessage, From: from, Stream: 1, CreatedAt: 1, Network: 5, Frame: []byte(`{"type":"MESSAGE"}`)}
	for _, user := range to {
		e.To = append(e.To, envelope.Recipient{User: user, N: n})
	}
	return e
}

// inLane is a user of a number range whose lane is as wanted.
func inLane(lane, from int) ident.UserID {
	for n := from; ; n++ {
		if user := ident.UserID(fmt.Sprintf("A-%d", n)); user.Lane(lanes) == lane {
			return user
		}
	}
}

func users(to []envelope.Recipient) []ident.UserID {
	var list []ident.UserID
	for _, r := range to {
		list = append(list, r.User)
	}
	slices.Sort(list)
	return list
}

// lint checks the metrics' names and help.
func (w *world) lint() {
	w.t.Helper()
	problems, err := testutil.GatherAndLint(w.reg)
	if err != nil || len(problems) > 0 {
		w.t.Errorf("metrics: %v, %v", problems, err)
	}
}
