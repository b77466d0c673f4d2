package nats_test

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/broker/nats"
	"github.com/linkerhq/linker/pkg/embedded"
	"github.com/linkerhq/linker/pkg/internal/porttest"
	"github.com/linkerhq/linker/pkg/polltest"
)

func startServer(t *testing.T, port int) *embedded.NATSServer {
	t.Helper()
	server, err := embedded.NATS(port, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	return server
}

// serverURL is where the server named in NATS_URL is, or else one of the test's own.
func serverURL(t *testing.T) string {
	t.Helper()
	if url := os.Getenv("NATS_URL"); url != "" {
		return url
	}
	return startServer(t, 0).URL()
}

func connect(t *testing.T, url string, registry *prometheus.Registry) *nats.Conn {
	t.Helper()
	c, err := nats.Connect(nats.Config{Server: nats.Server{URL: url}, Name: "test", Log: slog.New(slog.DiscardHandler), Metrics: registry})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func flush(t *testing.T, c *nats.Conn) {
	t.Helper()
	if err := c.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestMessagesArriveInOrderAndDataMayBeReused(t *testing.T) {
	t.Parallel()
	url, subject := serverURL(t), "lane."+rand.Text()
	from, to := connect(t, url, prometheus.NewRegistry()), connect(t, url, prometheus.NewRegistry())
	const n = 5000
	var kept [][]byte
	all := make(chan struct{})
	_, err := to.Subscribe(subject, func(data []byte) {
		if kept = append(kept, data); len(kept) == n {
			close(all)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	flush(t, to)
	buffer := make([]byte, 4)
	for i := range n {
		binary.BigEndian.PutUint32(buffer, uint32(i))
		if err := from.Publish(subject, buffer); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-all:
	case <-time.After(30 * time.Second):
		t.Fatal("not all messages arrived")
	}
	for i, data := range kept {
		if got := binary.BigEndian.Uint32(data); got != uint32(i) {
			t.Fatalf("message %d arrived in place %d", got, i)
		}
	}
}

func TestPublishingFailsAtOnceWithoutAServerAndWorksWhenItComes(t *testing.T) {
	t.Parallel()
	port := porttest.Lasting(t)
	c := connect(t, "nats://127.0.0.1:"+strconv.Itoa(port), prometheus.NewRegistry())
	arrived := make(chan string, 10)
	if _, err := c.Subscribe("s", func(data []byte) { arrived <- string(data) }); err != nil {
		t.Fatal(err)
	}
	if err := c.Publish("s", []byte("lost")); !errors.Is(err, nats.ErrDisconnected) || c.Connected() {
		t.Errorf("before the server came: %v, connected %v", err, c.Connected())
	}
	if err := c.Flush(t.Context()); !errors.Is(err, nats.ErrDisconnected) {
		t.Errorf("flush before the server came: %v", err)
	}
	server := startServer(t, port)
	polltest.Eventually(t, "it is connected", c.Connected)
	flush(t, c)
	if err := c.Publish("s", []byte("first")); err != nil {
		t.Fatal(err)
	}
	if got := <-arrived; got != "first" {
		t.Errorf("got %q, want only what was published while connected", got)
	}

	server.Close()
	polltest.Eventually(t, "publishing fails", func() bool { return errors.Is(c.Publish("s", []byte("lost")), nats.ErrDisconnected) })
	startServer(t, port)
	polltest.Eventually(t, "it is connected again", c.Connected)
	flush(t, c)
	if err := c.Publish("s", []byte("second")); err != nil {
		t.Fatal(err)
	}
	for got := range arrived {
		if got == "second" {
			break
		}
		if got != "lost" { // sent before the loss was noticed, and arrived
			t.Errorf("got %q", got)
		}
	}
}

func TestAGroupOf4096MembersFitsAndMoreIsRefused(t *testing.T) {
	t.Parallel()
	c := connect(t, startServer(t, 0).URL(), prometheus.NewRegistry())
	flush(t, c)
	arrived := make(chan int, 1)
	if _, err := c.Subscribe("s", func(data []byte) { arrived <- len(data) }); err != nil {
		t.Fatal(err)
	}
	if err := c.Publish("s", make([]byte, 8<<20)); err != nil {
		t.Error(err)
	}
	if got := <-arrived; got != 8<<20 {
		t.Errorf("%d bytes arrived", got)
	}
	if err := c.Publish("s", make([]byte, 8<<20+1)); !errors.Is(err, nats.ErrTooLarge) {
		t.Errorf("got %v, want %v", err, nats.ErrTooLarge)
	}
}

func TestAHandlerIsNotCalledAfterStop(t *testing.T) {
	t.Parallel()
	c := connect(t, serverURL(t), prometheus.NewRegistry())
	subject := rand.Text()
	calls := 0 // written by the handler, read after Stop: the race detector watches
	sub, err := c.Subscribe(subject, func([]byte) { calls++ })
	if err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		if err := c.Publish(subject, nil); err != nil {
			t.Fatal(err)
		}
	}
	flush(t, c)
	if err := sub.Stop(); err != nil {
		t.Fatal(err)
	}
	before := calls
	if err := c.Publish(subject, nil); err != nil {
		t.Fatal(err)
	}
	flush(t, c)
	if calls != before {
		t.Errorf("%d calls after Stop", calls-before)
	}
	if err := sub.Stop(); err != nil {
		t.Errorf("a second Stop: %v", err)
	}
}

func TestWhatASlowHandlerLosesIsCountedPerSubject(t *testing.T) {
	t.Parallel()
	server := startServer(t, 0)
	registry := prometheus.NewRegistry()
	from, to := connect(t, server.URL(), prometheus.NewRegistry()), connect(t, server.URL(), registry)
	release, entered := make(chan struct{}), make(chan struct{}, 1)
	handled := 0
	sub, err := to.Subscribe("slow", func([]byte) {
		if handled++; handled == 1 {
			entered <- struct{}{}
			<-release
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	flush(t, to)
	const kept, more = 1<<16 - 1, 100 // besides the one in the handler
	if err := from.Publish("slow", nil); err != nil {
		t.Fatal(err)
	}
	<-entered
	for range kept + more {
		if err := from.Publish("slow", nil); err != nil {
			t.Fatal(err)
		}
	}
	polltest.Eventually(t, "the loss is counted", func() bool { return dropped(t, registry) == more })
	close(release)
	if err := sub.Stop(); err != nil {
		t.Fatal(err)
	}
	if got := dropped(t, registry); got != more {
		t.Errorf("after Stop the count is %v, want %v", got, more)
	}
}

func dropped(t *testing.T, registry *prometheus.Registry) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "linker_nats_dropped_messages_total" {
			return family.GetMetric()[0].GetCounter().GetValue()
		}
	}
	return 0
}

func TestTwoConnectionsCannotShareARegistry(t *testing.T) {
	t.Parallel()
	server := startServer(t, 0)
	registry := prometheus.NewRegistry()
	connect(t, server.URL(), registry)
	if _, err := nats.Connect(nats.Config{Server: nats.Server{URL: server.URL()}, Log: slog.New(slog.DiscardHandler), Metrics: registry}); err == nil {
		t.Error("the second was accepted")
	}
}
