package nats_test

import (
	"log/slog"
	"runtime"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/broker/nats"
	"github.com/linkerhq/linker/pkg/embedded"
)

// BenchmarkMessages publishes messages of 1 KB on one connection and takes them on
// another one, as fast as they arrive, or one after the other.
func BenchmarkMessages(b *testing.B) {
	for _, way := range []string{"memory", "loopback"} {
		for name, underWay := range map[string]int{"saturated": 1000, "alone": 1} {
			b.Run(way+"/"+name, func(b *testing.B) { benchmarkMessages(b, way == "memory", underWay) })
		}
	}
}

func benchmarkMessages(b *testing.B, inMemory bool, underWay int) {
	log := slog.New(slog.DiscardHandler)
	server, err := embedded.NATS(0, log)
	if err != nil {
		b.Fatal(err)
	}
	defer server.Close()
	join := func() *nats.Conn {
		cfg := nats.Config{Server: nats.Server{URL: server.URL()}, Name: "bench", Log: log, Metrics: prometheus.NewRegistry()}
		if inMemory {
			cfg.Dial = server.Dial
		}
		c, err := nats.Connect(cfg)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(c.Close)
		for end := time.Now().Add(10 * time.Second); c.Flush(b.Context()) != nil; runtime.Gosched() {
			if time.Now().After(end) {
				b.Fatal("no connection")
			}
		}
		return c
	}
	from, to := join(), join()
	arrived := make(chan struct{}, underWay)
	if _, err := to.Subscribe("lane", func([]byte) { arrived <- struct{}{} }); err != nil {
		b.Fatal(err)
	}
	if err := to.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
	value, waiting := make([]byte, 1000), 0
	b.ReportAllocs()
	for b.Loop() {
		if waiting == underWay {
			<-arrived
			waiting--
		}
		if err := from.Publish("lane", value); err != nil {
			b.Fatal(err)
		}
		waiting++
	}
	for range waiting {
		<-arrived
	}
}
