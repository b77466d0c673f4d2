package custody

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// DropReason says why a FAST message was dropped. The list is closed.
type DropReason string

// The reasons.
const (
	DropAbsent    DropReason = "receiver_absent"
	DropForbidden DropReason = "receiver_forbidden"
	DropQueueFull DropReason = "lane_queue_full"
	DropMalformed DropReason = "malformed"
)

// Metrics count what becomes of messages, for all lanes of a process together.
type Metrics struct {
	duplicates     prometheus.Counter
	proofs         prometheus.Counter
	stored         prometheus.Counter
	spills         prometheus.Counter
	resends        prometheus.Counter
	undecodable    prometheus.Counter
	connectorsDown prometheus.Counter
	fastDropped    map[DropReason]prometheus.Counter
}

// NewMetrics registers the figures.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	var mistakes []error
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "linker_lane_" + name, Help: help})
		mistakes = append(mistakes, reg.Register(c))
		return c
	}
	m := &Metrics{
		duplicates:     counter("duplicates_total", "Records dropped because they had been taken before."),
		proofs:         counter("proofs_total", "Messages whose receipt a socket has proved."),
		stored:         counter("stored_total", "Messages that went into the mailbox."),
		spills:         counter("spills_total", "Messages that the mailbox took because no proof came in time."),
		resends:        counter("resends_total", "Times that deliveries were repeated to a connector."),
		undecodable:    counter("undecodable_total", "Records, rows and answers that could not be decoded."),
		connectorsDown: counter("connectors_down_total", "Connectors found dead."),
		fastDropped:    map[DropReason]prometheus.Counter{},
	}
	drops := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "linker_lane_fast_dropped_total", Help: "FAST messages dropped, by reason."}, []string{"reason"})
	mistakes = append(mistakes, reg.Register(drops))
	for _, r := range []DropReason{DropAbsent, DropForbidden, DropQueueFull, DropMalformed} {
		m.fastDropped[r] = drops.WithLabelValues(string(r))
	}
	return m, errors.Join(mistakes...)
}

// DropFast counts a FAST message that is dropped.
func (m *Metrics) DropFast(r DropReason) { m.fastDropped[r].Inc() }

// Undecodable counts something that could not be decoded.
func (m *Metrics) Undecodable() { m.undecodable.Inc() }
