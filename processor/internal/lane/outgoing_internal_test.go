package lane

import (
	"log/slog"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/broker/nats"
	"github.com/linkerhq/linker/pkg/delivery"
	"github.com/linkerhq/linker/pkg/embedded"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/processor/internal/custody"
)

func TestDeliveriesTravelInOrderInMessagesThatFit(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	server, err := embedded.NATS(0, log)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	plane, err := nats.Connect(nats.Config{Server: nats.Server{URL: server.URL()}, Log: log, Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	defer plane.Close()
	connectors := []ident.Connector{{Name: "a"}, {Name: "b", Incarnation: ident.Incarnation{1}}}
	const rounds, perRound = 20, 100
	messages := make([]chan []byte, len(connectors))
	for i, c := range connectors {
		messages[i] = make(chan []byte, rounds*perRound)
		sub, err := plane.Subscribe(delivery.ConnectorSubject("d", c, 3), func(data []byte) { messages[i] <- data })
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = sub.Stop() }()
	}
	epoch := envelope.Position{Generation: 1, Offset: 5}
	out := newOutgoing("d", 3, epoch, plane)
	rng := rand.New(rand.NewPCG(1, 1))
	sent := make([]int64, len(connectors))
	for round := range rounds {
		for range perRound {
			i := rng.IntN(len(connectors))
			sent[i]++
			size := rng.IntN(3000)
			if rng.IntN(50) == 0 {
				size = 2 * delivery.MaxMessageSize // travels alone
			}
			out.add(&custody.Delivery{To: connectors[i], Item: delivery.Item{
				Kind: delivery.KindFrame, Pos: envelope.Position{Offset: sent[i]}, Frame: make([]byte, size), Targets: []delivery.Target{{Session: 1, User: "A-1", D: uint64(sent[i])}},
			}})
		}
		out.flush()
		if round%3 == 0 {
			out.tidy()
		}
	}
	for i := range connectors {
		for next := int64(1); next <= sent[i]; {
			data := <-messages[i]
			b, err := delivery.DecodeBatch(data)
			if err != nil || b.Lane != 3 || b.Epoch != epoch {
				t.Fatalf("lane %d, epoch %v, %v", b.Lane, b.Epoch, err)
			}
			if len(data) > delivery.MaxMessageSize && len(b.Items) > 1 {
				t.Errorf("%d items are %d bytes", len(b.Items), len(data))
			}
			for _, it := range b.Items {
				if it.Pos.Offset != next || it.Targets[0].D != uint64(next) {
					t.Fatalf("got %d, want %d", it.Pos.Offset, next)
				}
				next++
			}
		}
	}
}
