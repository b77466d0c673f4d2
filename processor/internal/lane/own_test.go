package lane_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/broker/kafka"
	"github.com/linkerhq/linker/pkg/broker/nats"
	"github.com/linkerhq/linker/pkg/embedded"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/pkg/mailbox/sqlite"
	"github.com/linkerhq/linker/pkg/polltest"
	"github.com/linkerhq/linker/pkg/topology"
	"github.com/linkerhq/linker/processor/internal/custody"
	"github.com/linkerhq/linker/processor/internal/lane"
	"github.com/linkerhq/linker/processor/internal/roads"
)

// network is one that a test can take away: to judge a message by none is a fault
// that no record is guarded against.
type network struct {
	atomic.Pointer[topology.Snapshot]
}

func (n *network) Current() *topology.Snapshot { return n.Load() }

// nobody says that there are no connectors.
type nobody struct{}

func (nobody) Alive() ([]ident.Connector, bool) { return nil, true }
func (nobody) Settled() bool                    { return true }
func (nobody) Dead(ident.Connector) bool        { return false }

// noRoads is a network of one domain.
type noRoads struct{ table roads.Table }

func (n *noRoads) Table() *roads.Table                      { return &n.table }
func (*noRoads) Subscribe(func()) func()                    { return func() {} }
func (*noRoads) Open(uint64, uint64, roads.Receiver) bool   { return false }
func (*noRoads) Send(uint64, uint64, uint64, [][]byte) bool { return false }
func (*noRoads) Fast(uint64, []byte) bool                   { return false }
func (*noRoads) Close(uint64, uint64)                       {}

// bench is a processor's lanes on servers of their own.
type bench struct {
	t        testing.TB
	net      network
	store    mailbox.Store
	producer *kafka.Producer
	plane    *nats.Conn
	registry *prometheus.Registry
	appended chan error
}

// serve runs the lanes until the test ends; change may put something between them
// and the store.
func serve(t testing.TB, lanes int, limits custody.Limits, change func(mailbox.Store) mailbox.Store) *bench {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	b := &bench{t: t, registry: prometheus.NewRegistry(), appended: make(chan error, 1)}
	broker, err := embedded.Kafka("", 0, log)
	must(t, err)
	t.Cleanup(broker.Close)
	server, err := embedded.NATS(0, log)
	must(t, err)
	t.Cleanup(server.Close)
	plane, err := nats.Connect(nats.Config{Server: nats.Server{URL: server.URL()}, Log: log, Metrics: prometheus.NewRegistry()})
	must(t, err)
	t.Cleanup(plane.Close)
	b.plane = plane
	b.store, err = sqlite.Open(t.TempDir(), log)
	must(t, err)
	t.Cleanup(func() { must(t, b.store.Close()) })
	cfg := kafka.Config{Server: kafka.Server{Brokers: []string{broker.Addr()}}, Domain: "d", Lanes: lanes, Generation: 1, Log: log, Metrics: prometheus.NewRegistry()}
	must(t, kafka.EnsureTopics(t.Context(), cfg))
	b.producer, err = kafka.NewProducer(cfg)
	must(t, err)
	metrics, err := lane.NewMetrics(b.registry)
	must(t, err)
	deps := lane.Deps{
		Domain: "d", Lanes: lanes, Generation: 1, Producer: b.producer, Plane: plane, Store: change(b.store), Connectors: nobody{}, Limits: limits,
		Network: &b.net, Roads: &noRoads{}, Poison: lane.NewPoison(), Complaints: new(lane.Complaints), Metrics: metrics, Log: log,
	}
	group, err := kafka.NewGroup(cfg, func(ctx context.Context, l *kafka.Lane) error { return lane.Own(ctx, deps, l) })
	must(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { _ = b.producer.Run(ctx) })
	running.Go(func() { _ = group.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return b
}

func unchanged(s mailbox.Store) mailbox.Store { return s }

// describe gives the lanes a network.
func (b *bench) describe() {
	b.t.Helper()
	good, err := topology.New(1, topology.Network{
		Domains: []topology.Domain{{Name: "d", URLs: []string{"ws://127.0.0.1:1"}}},
		Apps:    []topology.App{{Name: "A", AppID: "a", Master: "A-0"}},
	})
	must(b.t, err)
	b.net.Store(good)
}

// send writes the n-th message to a user into a lane.
func (b *bench) send(number int, user ident.UserID, n uint64) {
	b.t.Helper()
	e := envelope.Envelope{
		Kind: envelope.KindMessage, From: "A-2", Stream: 5, ID: ident.StreamMessageID(5, user, n),
		To: []envelope.Recipient{{User: user, N: n}}, Frame: []byte("{}"),
	}
	must(b.t, b.producer.Append(number, string(user), e.Append(nil), func(_ int64, err error) { b.appended <- err }))
	must(b.t, <-b.appended)
}

// stored waits until exactly the n-th message waits for a user.
func (b *bench) stored(user ident.UserID, n uint64) {
	b.t.Helper()
	eventually(b.t, "the message is stored", func() bool {
		rows, _, err := b.store.Read(b.t.Context(), mailbox.Query{To: string(user), Limit: 10})
		must(b.t, err)
		return len(rows) == 1 && rows[0].ID == ident.StreamMessageID(5, user, n)
	})
}

func TestARecordThatMakesTheLanePanicBecomesADeadLetterAndTheNextIsServed(t *testing.T) {
	t.Parallel()
	b := serve(t, 1, custody.Limits{}, unchanged)
	b.send(0, "A-1", 1)
	eventually(t, "the lane panics", func() bool { return counted(t, b.registry, "linker_lane_panics_total") == 1 })
	eventually(t, "the record is buried", func() bool { return counted(t, b.registry, "linker_lane_dead_letters_total") == 1 })
	b.describe()
	b.send(0, "A-1", 2)
	b.stored("A-1", 2)
	if n := counted(t, b.registry, "linker_lane_panics_total"); n != 1 {
		t.Errorf("panicked %v times", n)
	}
}

// uncountable is a store that cannot say how much waits for one user.
type uncountable struct {
	mailbox.Store
	user string
}

func (s uncountable) Usage(ctx context.Context, to string) (mailbox.Usage, error) {
	if to == s.user {
		return mailbox.Usage{}, errors.New("damaged")
	}
	return s.Store.Usage(ctx, to)
}

func TestAReadThatFailsHoldsUpNobodyElse(t *testing.T) {
	t.Parallel()
	b := serve(t, 1, custody.Limits{Rows: 10}, func(s mailbox.Store) mailbox.Store { return uncountable{s, "A-1"} })
	b.describe()
	b.send(0, "A-4", 1)
	b.stored("A-4", 1) // the lane has been taken
	b.send(0, "A-1", 1)
	eventually(t, "the store is asked in vain", func() bool { return counted(t, b.registry, "linker_lane_store_failures_total") > 0 })
	b.send(0, "A-3", 1)
	b.stored("A-3", 1)
}

// inLane returns the nth user of a lane.
func inLane(number, lanes, nth int) ident.UserID {
	for i := 1; ; i++ {
		if u := ident.UserID(fmt.Sprintf("A-%d", i)); u.Lane(lanes) == number {
			if nth--; nth == 0 {
				return u
			}
		}
	}
}

// cut is a store that remembers a lane to have been served beyond the end of its log.
type cut struct{ mailbox.Store }

func (s cut) LoadLane(ctx context.Context, number int) (mailbox.LaneState, bool, error) {
	if number == 0 {
		return mailbox.LaneState{Position: envelope.Position{Generation: 1, Offset: 1 << 40}}, true, nil
	}
	return s.Store.LoadLane(ctx, number)
}

func TestALaneThatCannotBeServedDisturbsNoOther(t *testing.T) {
	t.Parallel()
	b := serve(t, 2, custody.Limits{}, func(s mailbox.Store) mailbox.Store { return cut{s} })
	b.describe()
	one, another := inLane(1, 2, 1), inLane(1, 2, 2)
	b.send(1, one, 1)
	b.stored(one, 1)
	eventually(t, "the other lane was tried several times", func() bool { return counted(t, b.registry, "linker_lane_failures_total") > 3 })
	b.send(1, another, 1)
	b.stored(another, 1)
	if n := counted(t, b.registry, "linker_lane_panics_total"); n != 0 {
		t.Errorf("panicked %v times", n)
	}
}

// counted is the sum of all counters of a name.
func counted(t testing.TB, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	must(t, err)
	sum := 0.0
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	if test, is := t.(*testing.T); is {
		polltest.Within(test, 20*time.Second, what, ok)
		return
	}
	for !ok() { // a benchmark takes as long as it takes
		time.Sleep(time.Millisecond)
	}
}
