package lane

import "github.com/prometheus/client_golang/prometheus"

// dropReason says why a FAST message was dropped. The list is closed.
type dropReason string

const (
	dropAbsent    dropReason = "receiver_absent"
	dropForbidden dropReason = "receiver_forbidden"
	dropQueueFull dropReason = "lane_queue_full"
	dropMalformed dropReason = "malformed"
)

// Metrics are the figures that all lanes of a process share.
type Metrics struct {
	duplicates     prometheus.Counter
	proofs         prometheus.Counter
	stored         prometheus.Counter
	spills         prometheus.Counter
	resends        prometheus.Counter
	undecodable    prometheus.Counter
	connectorsDown prometheus.Counter
	buried         prometheus.Counter
	fastDropped    map[dropReason]prometheus.Counter
	lag            *prometheus.GaugeVec
	unsettled      *prometheus.GaugeVec
	behind         *prometheus.GaugeVec
	sessions       *prometheus.GaugeVec
	oldest         *prometheus.GaugeVec
}

// NewMetrics registers the figures.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "linker_lane_" + name, Help: help})
		reg.MustRegister(c)
		return c
	}
	gauge := func(name, help string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "linker_lane_" + name, Help: help}, []string{"lane"})
		reg.MustRegister(g)
		return g
	}
	m := &Metrics{
		duplicates:     counter("duplicates_total", "Records dropped because they had been taken before."),
		proofs:         counter("proofs_total", "Messages whose receipt a socket has proved."),
		stored:         counter("stored_total", "Messages that went into the mailbox."),
		spills:         counter("spills_total", "Messages that the mailbox took because no proof came in time."),
		resends:        counter("resends_total", "Times that deliveries were repeated to a connector."),
		undecodable:    counter("undecodable_total", "Records and rows that could not be decoded."),
		connectorsDown: counter("connectors_down_total", "Connectors found dead."),
		buried:         counter("dead_letters_total", "Records given to the dead letters."),
		fastDropped:    map[dropReason]prometheus.Counter{},
		lag:            gauge("lag_records", "Records of the log that are not settled."),
		unsettled:      gauge("unsettled_records", "Records read and not settled."),
		behind:         gauge("behind_targets", "Targets with records waiting in the mailbox."),
		sessions:       gauge("sessions", "Open sessions."),
		oldest:         gauge("oldest_unsettled_seconds", "Age of the oldest record that is not settled."),
	}
	drops := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "linker_lane_fast_dropped_total", Help: "FAST messages dropped, by reason."}, []string{"reason"})
	reg.MustRegister(drops)
	for _, r := range []dropReason{dropAbsent, dropForbidden, dropQueueFull, dropMalformed} {
		m.fastDropped[r] = drops.WithLabelValues(string(r))
	}
	return m
}

func (m *Metrics) fastDrops(r dropReason) prometheus.Counter { return m.fastDropped[r] }
