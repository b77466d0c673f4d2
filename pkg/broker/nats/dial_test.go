package nats_test

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/broker/nats"
	"github.com/linkerhq/linker/pkg/polltest"
)

func TestWhoIsGivenAWayToConnectTakesNoOther(t *testing.T) {
	t.Parallel()
	server := startServer(t, 0)
	const nowhere = "127.0.0.1:1"
	var last atomic.Pointer[net.Conn]
	c, err := nats.Connect(nats.Config{
		Server: nats.Server{URL: "nats://" + nowhere, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			if network != "tcp" || address != nowhere && address != server.Addr() { // the server tells where it is
				t.Errorf("asked for %s %s", network, address)
			}
			conn, err := server.Dial(ctx, network, server.Addr())
			if err == nil {
				last.Store(&conn)
			}
			return conn, err
		}},
		Name: "test", Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	polltest.Eventually(t, "there is a connection", c.Connected)
	got, subject := make(chan []byte, 1), rand.Text()
	if _, err := c.Subscribe(subject, func(data []byte) { got <- data }); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"hello", "again"} {
		polltest.Eventually(t, "a message is taken", func() bool { return c.Flush(t.Context()) == nil && c.Publish(subject, []byte(text)) == nil })
		if data := <-got; string(data) != text {
			t.Errorf("got %q", data)
		}
		lost := last.Load()
		if err := (*lost).Close(); err != nil {
			t.Error(err)
		}
		polltest.Eventually(t, "it is sought again", func() bool { return last.Load() != lost && c.Connected() })
	}
}
