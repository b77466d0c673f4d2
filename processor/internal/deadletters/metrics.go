package deadletters

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	kept                               prometheus.Gauge
	stored, missed, replayed, failures prometheus.Counter
	purged                             *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "linker_dead_letters_" + name, Help: help})
	}
	m := &metrics{
		kept:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "linker_dead_letters", Help: "Dead letters that are kept; only the processor that keeps them shows them, the others 0."}),
		stored:   counter("stored_total", "Dead letters brought from the topic into the mailbox."),
		missed:   counter("missed_total", "Dead letters that the topic had dropped before they were stored."),
		replayed: counter("replayed_total", "Dead letters written into the log again."),
		failures: counter("failures_total", "Requests for dead letters that the mailbox did not carry out."),
		purged: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "linker_dead_letters_purged_total", Help: "Dead letters removed: by an operator, or for their age.",
		}, []string{"by"}),
	}
	for _, by := range []string{purgedByAge, purgedByOperator} {
		m.purged.WithLabelValues(by)
	}
	for _, c := range []prometheus.Collector{m.kept, m.stored, m.missed, m.replayed, m.failures, m.purged} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics of dead letters: %w", err)
		}
	}
	return m, nil
}
