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
	limited        map[kind]prometheus.Counter
	logoutsDropped prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	failed := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "linker_uplink_failed_messages_total", Help: "Frames answered with DELIVER_FAILED by the connector, by code."}, []string{"code"})
	limited := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "linker_uplink_limited_messages_total", Help: "Messages answered with RATE_LIMITED, by the limit that they were above: of the socket, of the app."}, []string{"limit"})
	m := &metrics{
		accepted:       prometheus.NewCounter(prometheus.CounterOpts{Name: "linker_uplink_accepted_messages_total", Help: "RELIABLE messages that the log has acknowledged."}),
		fast:           prometheus.NewCounter(prometheus.CounterOpts{Name: "linker_uplink_fast_messages_total", Help: "FAST messages that were published."}),
		failed:         make(map[wire.Code]prometheus.Counter),
		limited:        make(map[kind]prometheus.Counter),
		logoutsDropped: prometheus.NewCounter(prometheus.CounterOpts{Name: "linker_uplink_dropped_logouts_total", Help: "Logouts given up because too many waited for the log."}),
	}
	for _, c := range []wire.Code{wire.CodeUnknownApp, wire.CodeForbiddenApp, wire.CodeForbidden, wire.CodeNoRoute, wire.CodeQueueUnavailable, wire.CodeRateLimited} {
		m.failed[c] = failed.WithLabelValues(string(c))
	}
	for _, k := range []kind{ofSocket, ofApp} {
		m.limited[k] = limited.WithLabelValues(string(k))
	}
	for _, c := range []prometheus.Collector{m.accepted, m.fast, failed, limited, m.logoutsDropped} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register uplink metrics: %w", err)
		}
	}
	return m, nil
}
