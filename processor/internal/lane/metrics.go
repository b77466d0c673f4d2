package lane

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/processor/internal/custody"
)

// Metrics are the figures that all lanes of a process share.
type Metrics struct {
	Custody *custody.Metrics

	buried    prometheus.Counter
	lag       *prometheus.GaugeVec
	unsettled *prometheus.GaugeVec
	behind    *prometheus.GaugeVec
	sessions  *prometheus.GaugeVec
	oldest    *prometheus.GaugeVec
}

// NewMetrics registers the figures.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	decided, err := custody.NewMetrics(reg)
	mistakes := []error{err}
	gauge := func(name, help string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "linker_lane_" + name, Help: help}, []string{"lane"})
		mistakes = append(mistakes, reg.Register(g))
		return g
	}
	m := &Metrics{
		Custody:   decided,
		buried:    prometheus.NewCounter(prometheus.CounterOpts{Name: "linker_lane_dead_letters_total", Help: "Records given to the dead letters."}),
		lag:       gauge("lag_records", "Records of the log that are not settled."),
		unsettled: gauge("unsettled_records", "Records read and not settled."),
		behind:    gauge("behind_targets", "Targets with records waiting in the mailbox."),
		sessions:  gauge("sessions", "Open sessions."),
		oldest:    gauge("oldest_unsettled_seconds", "Age of the oldest record that is not settled."),
	}
	mistakes = append(mistakes, reg.Register(m.buried))
	if err := errors.Join(mistakes...); err != nil {
		return nil, fmt.Errorf("register the metrics of lanes: %w", err)
	}
	return m, nil
}
