package lane

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/wire"
	"github.com/linkerhq/linker/processor/internal/custody"
)

// reasonUndecodable is the reason that package custody gives for records which it
// cannot read.
const reasonUndecodable = "UNDECODABLE"

// deadReasons lists why records become dead letters: codes that their senders are
// told, and what no program of this version can read. Any other counts as other.
func deadReasons() []string {
	return []string{
		reasonUndecodable, string(wire.CodeUnknownApp), string(wire.CodeForbiddenApp), string(wire.CodeForbidden),
		string(wire.CodeNoRoute), string(wire.CodeMailboxFull), string(wire.CodeExpired),
		string(wire.CodeHopsExhausted), string(wire.CodeForbiddenType), string(wire.CodeInvalidUserID), string(wire.CodeTooLarge),
	}
}

// Metrics are the figures that all lanes of a process share.
type Metrics struct {
	Custody *custody.Metrics

	buried      map[string]prometheus.Counter // by reason
	buriedOther prometheus.Counter
	panics      prometheus.Counter
	failures    prometheus.Counter
	storeFailed prometheus.Counter
	storeTime   prometheus.Histogram
	backlog     *prometheus.GaugeVec
	lag         *prometheus.GaugeVec
	unsettled   *prometheus.GaugeVec
	behind      *prometheus.GaugeVec
	sessions    *prometheus.GaugeVec
	oldest      *prometheus.GaugeVec
	roadRows    *prometheus.GaugeVec
	roadBytes   *prometheus.GaugeVec
}

// NewMetrics registers the figures.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	decided, err := custody.NewMetrics(reg)
	mistakes := []error{err}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "linker_lane_" + name, Help: help}, append([]string{"lane"}, labels...))
		mistakes = append(mistakes, reg.Register(g))
		return g
	}
	buried := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "linker_lane_dead_letters_total", Help: "Records given to the dead letters, by reason."}, []string{"reason"})
	m := &Metrics{
		Custody:     decided,
		buried:      map[string]prometheus.Counter{},
		buriedOther: buried.WithLabelValues("other"),
		panics:      prometheus.NewCounter(prometheus.CounterOpts{Name: "linker_lane_panics_total", Help: "Lanes ended by a fault of the program; the record at fault becomes a dead letter."}),
		failures:    prometheus.NewCounter(prometheus.CounterOpts{Name: "linker_lane_failures_total", Help: "Times that a lane could not be served and was taken again; the log says why."}),
		storeFailed: prometheus.NewCounter(prometheus.CounterOpts{Name: "linker_lane_store_failures_total", Help: "Attempts that the mailbox or the dead letters did not take; they are made again."}),
		storeTime:   prometheus.NewHistogram(prometheus.HistogramOpts{Name: "linker_lane_store_seconds", Help: "Duration of one job for the mailbox: what had gathered while the one before it was under way, repetitions included.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 14)}),
		backlog:     gauge("backlog_bytes", "Bytes of records of the log that are not settled: counted for those read, estimated for the others."),
		lag:         gauge("lag_records", "Records of the log that are not settled."),
		unsettled:   gauge("unsettled_records", "Records read and not settled."),
		behind:      gauge("behind_targets", "Targets with records waiting in the mailbox."),
		sessions:    gauge("sessions", "Open sessions."),
		oldest:      gauge("oldest_unsettled_seconds", "Age of the oldest record that is not settled."),
		roadRows:    gauge("road_waiting_records", "Records that wait in the mailbox for the road to another domain.", "destination"),
		roadBytes:   gauge("road_waiting_bytes", "Bytes of the records that wait in the mailbox for the road to another domain.", "destination"),
	}
	for _, reason := range deadReasons() {
		m.buried[reason] = buried.WithLabelValues(reason)
	}
	mistakes = append(mistakes, reg.Register(buried), reg.Register(m.panics), reg.Register(m.failures), reg.Register(m.storeFailed), reg.Register(m.storeTime))
	if err := errors.Join(mistakes...); err != nil {
		return nil, fmt.Errorf("register the metrics of lanes: %w", err)
	}
	return m, nil
}

// forget removes the gauges of a lane that this process no longer owns.
func (m *Metrics) forget(lane string) {
	for _, g := range []*prometheus.GaugeVec{m.backlog, m.lag, m.unsettled, m.behind, m.sessions, m.oldest} {
		g.DeleteLabelValues(lane)
	}
	for _, g := range []*prometheus.GaugeVec{m.roadRows, m.roadBytes} {
		g.DeletePartialMatch(prometheus.Labels{"lane": lane})
	}
}

// bury counts a record that becomes a dead letter.
func (m *Metrics) bury(reason string) {
	counter, known := m.buried[reason]
	if !known {
		counter = m.buriedOther
	}
	counter.Inc()
}
