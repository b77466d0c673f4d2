package kafka_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/broker/kafka"
	"github.com/linkerhq/linker/pkg/embedded"
)

// BenchmarkRecords appends records of 1 KB to four lanes of a log on disk and reads
// them, as fast as they are taken, or one after the other.
func BenchmarkRecords(b *testing.B) {
	for _, way := range []string{"memory", "loopback"} {
		for name, underWay := range map[string]int{"saturated": 1000, "alone": 1} {
			b.Run(way+"/"+name, func(b *testing.B) { benchmarkRecords(b, way == "memory", underWay) })
		}
	}
}

func benchmarkRecords(b *testing.B, inMemory bool, underWay int) {
	broker, err := embedded.Kafka(b.TempDir(), 0, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer broker.Close()
	cfg := configFor(broker.Addr())
	if inMemory {
		cfg.Dial = broker.Dial
	}
	if err := kafka.EnsureTopics(b.Context(), cfg); err != nil {
		b.Fatal(err)
	}
	p, err := kafka.NewProducer(cfg)
	if err != nil {
		b.Fatal(err)
	}
	cfg.Metrics = prometheus.NewRegistry()
	owned, read := make(chan struct{}, lanes), make(chan struct{}, underWay)
	g, err := kafka.NewGroup(cfg, func(ctx context.Context, lane *kafka.Lane) error {
		owned <- struct{}{}
		return lane.Read(ctx, 0, func(records []kafka.Record) error {
			for range records {
				read <- struct{}{}
			}
			return nil
		})
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 2)
	go func() { ended <- p.Run(ctx) }()
	go func() { ended <- g.Run(ctx) }()
	for range lanes {
		select {
		case <-owned:
		case <-time.After(30 * time.Second):
			b.Fatal("no lanes")
		}
	}
	value := make([]byte, 1000)
	waiting := 0
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if waiting == underWay {
			<-read
			waiting--
		}
		if err := p.Append(n%lanes, "ANZ-123223", value, func(int64, error) {}); err != nil {
			b.Fatal(err)
		}
		waiting++
	}
	for range waiting {
		<-read
	}
	cancel()
	for range 2 {
		if err := <-ended; err != nil {
			b.Error(err)
		}
	}
}
