package run_test

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/run"
)

func TestMetricsOfAScopeCanBeRegisteredAgainAfterItsEnd(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	counter := func() prometheus.Collector {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "times_total", Help: "Times."})
	}
	for range 2 {
		s := run.NewScope(registry)
		if err := s.Register(counter()); err != nil {
			t.Fatal(err)
		}
		if s.Register(counter()) == nil {
			t.Error("registered twice")
		}
		families, err := registry.Gather()
		if err != nil || len(families) != 1 {
			t.Errorf("%d metrics, %v", len(families), err)
		}
		s.Close()
	}
}
