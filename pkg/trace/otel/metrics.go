package otel

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// Why something did not become a span that the collector has. The list is closed.
const (
	droppedQueue     = "queue_full" // an event: more happens than can be made into spans
	droppedCollector = "collector"  // a span: the collector is away, too slow, or refuses it
)

// Metrics count what becomes of spans. They exist from the start, wanted or not.
type Metrics struct {
	sent    prometheus.Counter
	cut     prometheus.Counter
	dropped map[string]prometheus.Counter
}

// NewMetrics registers the figures.
func NewMetrics(r prometheus.Registerer) (*Metrics, error) {
	dropped := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "linker_otel_dropped_total", Help: "Events and spans of OpenTelemetry that were dropped, by reason."}, []string{"reason"})
	m := &Metrics{
		sent:    prometheus.NewCounter(prometheus.CounterOpts{Name: "linker_otel_spans_total", Help: "Spans of OpenTelemetry that the collector has taken."}),
		cut:     prometheus.NewCounter(prometheus.CounterOpts{Name: "linker_otel_cut_total", Help: "Spans of OpenTelemetry that ended when they began, because too many were open."}),
		dropped: map[string]prometheus.Counter{},
	}
	for _, why := range []string{droppedQueue, droppedCollector} {
		m.dropped[why] = dropped.WithLabelValues(why)
	}
	for _, c := range []prometheus.Collector{m.sent, m.cut, dropped} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register the metrics of spans: %w", err)
		}
	}
	return m, nil
}
