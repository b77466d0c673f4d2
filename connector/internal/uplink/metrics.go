package uplink

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/wire"
)

type metrics struct {
	accepted       prometheus.Counter
	fast           prometheus.Counter
	failed         map[wire.Code]prometheus.Counter
	logoutsDropped prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	failed := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "linker_uplink_failed_messages_total", Help: "Frames answered with DELIVER_FAILED by the connector, by code."}, []string{"code"})
	m := &metrics{
		accepted:       prometheus.NewCounter(prometheus.CounterOpts{Name: "linker_uplink_accepted_messages_total", Help: "RELIABLE messages that the log has acknowledged."}),
		fast:           prometheus.NewCounter(prometheus.CounterOpts{Name: "linker_uplink_fast_messages_total", Help: "FAST messages that were published."}),
		failed:         make(map[wire.Code]prometheus.Counter),
		logoutsDropped: prometheus.NewCounter(prometheus.CounterOpts{Name: "linker_uplink_dropped_logouts_total", Help: "Logouts given up because too many waited for the log."}),
	}
	for _, c := range []wire.Code{wire.CodeUnknownApp, wire.CodeForbiddenApp, wire.CodeForbidden, wire.CodeNoRoute, wire.CodeQueueUnavailable} {
		m.failed[c] = failed.WithLabelValues(string(c))
	}
	for _, c := range []prometheus.Collector{m.accepted, m.fast, failed, m.logoutsDropped} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register uplink metrics: %w", err)
		}
	}
	return m, nil
}
