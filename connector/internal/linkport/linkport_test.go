package linkport_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/linkerhq/linker/connector/internal/linkport"
)

func TestAStrangerIsRefusedLearnsNothingAndIsCounted(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	p, err := linkport.New("127.0.0.1:0", slog.New(slog.DiscardHandler), reg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	const strangers = 3
	for range strangers {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", p.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if said, err := io.ReadAll(conn); len(said) > 0 || err != nil {
			t.Errorf("the port said %q, %v; want only the end", said, err)
		}
		_ = conn.Close()
	}
	want := strings.NewReader("# HELP linker_linkport_refused_total Connections to the link port that were refused.\n" +
		"# TYPE linker_linkport_refused_total counter\nlinker_linkport_refused_total 3\n")
	if err := testutil.GatherAndCompare(reg, want); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestAPortThatIsTakenIsAnError(t *testing.T) {
	t.Parallel()
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	if _, err := linkport.New(taken.Addr().String(), slog.New(slog.DiscardHandler), prometheus.NewRegistry()); err == nil {
		t.Error("a taken port was bound")
	}
}
