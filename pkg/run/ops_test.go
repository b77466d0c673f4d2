package run_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/run"
)

func TestOpsTellsHealthReadinessAndMetrics(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	if err := run.RuntimeMetrics(reg); err != nil {
		t.Fatal(err)
	}
	var ready atomic.Bool
	ops, err := run.NewOps("127.0.0.1:0", reg, slog.New(slog.DiscardHandler), func() error {
		if !ready.Load() {
			return errors.New("the cat sleeps")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- ops.Run(ctx) }()
	get := func(path string, want int, part string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+ops.Addr().String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		body, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != want || !strings.Contains(string(body), part) {
			t.Errorf("%s: got %d %q, %v; want %d and %q", path, res.StatusCode, body, err, want, part)
		}
	}
	get("/healthz", http.StatusOK, "ok")
	get("/readyz", http.StatusServiceUnavailable, "the cat sleeps")
	ready.Store(true)
	get("/readyz", http.StatusOK, "ready")
	get("/metrics", http.StatusOK, "go_goroutines")
	get("/debug/pprof/", http.StatusNotFound, "")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
