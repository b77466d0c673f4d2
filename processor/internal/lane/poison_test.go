package lane_test

import (
	"context"
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
	"github.com/linkerhq/linker/pkg/topology"
	"github.com/linkerhq/linker/processor/internal/lane"
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

func TestARecordThatMakesTheLanePanicBecomesADeadLetterAndTheNextIsServed(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	broker, err := embedded.Kafka("", 0, log)
	must(t, err)
	t.Cleanup(broker.Close)
	server, err := embedded.NATS(0, log)
	must(t, err)
	t.Cleanup(server.Close)
	plane, err := nats.Connect(nats.Config{Server: nats.Server{URL: server.URL()}, Log: log, Metrics: prometheus.NewRegistry()})
	must(t, err)
	t.Cleanup(plane.Close)
	store, err := sqlite.Open(t.TempDir(), log)
	must(t, err)
	t.Cleanup(func() { must(t, store.Close()) })
	cfg := kafka.Config{Server: kafka.Server{Brokers: []string{broker.Addr()}}, Domain: "d", Lanes: 1, Generation: 1, Log: log, Metrics: prometheus.NewRegistry()}
	must(t, kafka.EnsureTopics(t.Context(), cfg))
	producer, err := kafka.NewProducer(cfg)
	must(t, err)
	registry := prometheus.NewRegistry()
	metrics, err := lane.NewMetrics(registry)
	must(t, err)
	var net network
	deps := lane.Deps{
		Domain: "d", Lanes: 1, Generation: 1, Producer: producer, Plane: plane, Store: store, Connectors: nobody{},
		Network: &net, Poison: lane.NewPoison(), Complaints: new(lane.Complaints), Metrics: metrics, Log: log,
	}
	group, err := kafka.NewGroup(cfg, func(ctx context.Context, l *kafka.Lane) error { return lane.NewDriver(deps, l).Run(ctx) })
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() { _ = producer.Run(ctx) })
	running.Go(func() { _ = group.Run(ctx) })

	appended := make(chan error, 2)
	send := func(n uint64) {
		e := envelope.Envelope{
			Kind: envelope.KindMessage, From: "A-2", Stream: 5, ID: ident.StreamMessageID(5, "A-1", n),
			To: []envelope.Recipient{{User: "A-1", N: n}}, Frame: []byte("{}"),
		}
		must(t, producer.Append(0, "A-1", e.Append(nil), func(_ int64, err error) { appended <- err }))
		must(t, <-appended)
	}
	send(1)
	eventually(t, "the lane panics", func() bool { return counted(t, registry, "linker_lane_panics_total") == 1 })
	eventually(t, "the record is buried", func() bool { return counted(t, registry, "linker_lane_dead_letters_total") == 1 })
	good, err := topology.New(1, topology.Network{
		Domains: []topology.Domain{{Name: "d", URLs: []string{"ws://127.0.0.1:1"}}},
		Apps:    []topology.App{{Name: "A", AppID: "a", Master: "A-0"}},
	})
	must(t, err)
	net.Store(good)
	send(2)
	eventually(t, "the next one is stored", func() bool {
		rows, _, err := store.Read(t.Context(), mailbox.Query{To: "A-1", Limit: 10})
		must(t, err)
		return len(rows) == 1 && rows[0].ID == ident.StreamMessageID(5, "A-1", 2)
	})
	if n := counted(t, registry, "linker_lane_panics_total"); n != 1 {
		t.Errorf("panicked %v times", n)
	}
}

// counted is the sum of all counters of a name.
func counted(t *testing.T, registry *prometheus.Registry, name string) float64 {
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

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, want func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !want() {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("never: %s", what)
		}
	}
}
