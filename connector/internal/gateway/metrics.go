package gateway

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/wire"
)

// loginAccepted stands among the reasons for a login that was not refused.
const loginAccepted wire.Reason = "ACCEPTED"

// handshake says what came of one. The list is closed.
type handshake string

const (
	handshakeAccepted    handshake = "accepted"
	handshakeRefused     handshake = "refused"      // it is none, or of a page that may not connect
	handshakeFull        handshake = "full"         // too many sockets, or too many without a login
	handshakeAddressFull handshake = "address_full" // too many from one address
	handshakeDraining    handshake = "draining"     // the connector is about to end
)

// text is what is told to who is not let in.
func (h handshake) text() string {
	switch h {
	case handshakeFull:
		return "too many connections are open here: try again, or elsewhere"
	case handshakeAddressFull:
		return "too many connections from this address are open here"
	case handshakeDraining:
		return "this connector is about to end: try again, or elsewhere"
	case handshakeAccepted, handshakeRefused:
	}
	return ""
}

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
		handshakes: make(map[handshake]prometheus.Counter),
		logins:     make(map[wire.Reason]prometheus.Counter),
		loggedIn:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "linker_gateway_sessions", Help: "Sessions that are logged in."}),
		loginTime:  prometheus.NewHistogram(prometheus.HistogramOpts{Name: "linker_gateway_login_duration_seconds", Help: "Duration of accepted logins, from the frame to the reply.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 14)}),
		unanswered: prometheus.NewCounter(prometheus.CounterOpts{Name: "linker_gateway_unanswered_logins_total", Help: "Logins whose lane did not answer within 1 s; they were let in."}),
	}
	for _, h := range []handshake{handshakeAccepted, handshakeRefused, handshakeFull, handshakeAddressFull, handshakeDraining} {
		m.handshakes[h] = handshakes.WithLabelValues(string(h))
	}
	for _, reason := range []wire.Reason{
		loginAccepted, wire.ReasonInvalidRequest, wire.ReasonInvalidUserID, wire.ReasonUnknownApp, wire.ReasonWrongDomain,
		wire.ReasonAuthMissing, wire.ReasonRefused, wire.ReasonAuthUnavailable, wire.ReasonTooManySockets,
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
