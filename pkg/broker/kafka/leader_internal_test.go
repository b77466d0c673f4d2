package kafka

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/embedded"
)

func TestAConnectionIsUsedAgainUntilNobodyHasUsedItForLong(t *testing.T) {
	t.Parallel()
	broker, err := embedded.Kafka("", 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	cfg := Config{
		Server: Server{Brokers: []string{broker.Addr()}, Dial: broker.Dial}, Domain: "domain-01", Lanes: 1,
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	}
	if err := EnsureTopics(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	c, err := newClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	l := c.leader(cfg.topic(), 0)
	defer l.close()
	produce := func(want int64) net.Conn {
		t.Helper()
		offset, refused, err := l.produce(t.Context(), batchOf(2, 10))
		if offset != want || refused != nil || err != nil {
			t.Fatalf("at %d: %v, %v; want %d", offset, refused, err, want)
		}
		return l.conn
	}
	first := produce(0)
	if produce(2) != first {
		t.Error("each request has a connection of its own")
	}
	l.used = time.Now().Add(-2 * maxIdle)
	second := produce(4)
	if second == first {
		t.Error("an idle connection is used again")
	}
	_ = second.Close()
	if _, _, err := l.produce(t.Context(), batchOf(2, 10)); err == nil {
		t.Error("a connection that has ended brings an answer")
	}
	produce(6)

	ctx, cancel := context.WithCancel(t.Context())
	l.close()
	if records, err := l.fetch(ctx, 0); err != nil || len(records) != 8 {
		t.Fatalf("%d records, %v", len(records), err)
	}
	cancel()
	if _, err := l.fetch(ctx, 8); err == nil {
		t.Error("a request succeeds after its context has ended")
	}
}
