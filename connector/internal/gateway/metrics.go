package gateway

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/wire"
)

// loginAccepted stands among the reasons for a login that was not refused.
const loginAccepted wire.Reason = "ACCEPTED"

type handshake string

const (
	handshakeAccepted handshake = "accepted"
	handshakeRefused  handshake = "refused"
)

type metrics struct {
	handshakes map[handshake]prometheus.Counter
	logins     map[wire.Reason]prometheus.Counter
	loggedIn   prometheus.Gauge
	loginTime  prometheus.Histogram
	unanswered prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	handshakes := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "linker_gateway_handshakes_total", Help: "Websocket handshakes by result."}, []string{"result"})
	logins := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "linker_gateway_logins_total", Help: "Logins by result: ACCEPTED, or the reason of the refusal."}, []string{"result"})
	m := &metrics{
		handshakes: map[handshake]prometheus.Counter{
			handshakeAccepted: handshakes.WithLabelValues(string(handshakeAccepted)),
			handshakeRefused:  handshakes.WithLabelValues(string(handshakeRefused)),
		},
		logins:     make(map[wire.Reason]prometheus.Counter),
		loggedIn:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "linker_gateway_sessions", Help: "Sessions that are logged in."}),
		loginTime:  prometheus.NewHistogram(prometheus.HistogramOpts{Name: "linker_gateway_login_duration_seconds", Help: "Duration of accepted logins, from the frame to the reply.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 14)}),
		unanswered: prometheus.NewCounter(prometheus.CounterOpts{Name: "linker_gateway_unanswered_logins_total", Help: "Logins whose lane did not answer within 1 s; they were let in."}),
	}
	for _, reason := range []wire.Reason{
		loginAccepted, wire.ReasonInvalidRequest, wire.ReasonInvalidUserID, wire.ReasonUnknownApp, wire.ReasonWrongDomain,
		wire.ReasonAuthMissing, wire.ReasonRefused, wire.ReasonAuthUnavailable,
	} {
		m.logins[reason] = logins.WithLabelValues(string(reason))
	}
	for _, c := range []prometheus.Collector{handshakes, logins, m.loggedIn, m.loginTime, m.unanswered} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register gateway metrics: %w", err)
		}
	}
	return m, nil
}
