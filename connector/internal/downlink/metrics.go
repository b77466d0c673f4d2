package downlink

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/connector/internal/session"
)

// refusal says why a whole message of a lane was ignored. The list is closed.
type refusal string

const (
	refusedEpoch     refusal = "old_epoch"
	refusedMalformed refusal = "malformed"
)

type metrics struct {
	deliveries map[session.Verdict]prometheus.Counter
	refused    map[refusal]prometheus.Counter
	unanswered prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	deliveries := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "linker_downlink_deliveries_total", Help: "Deliveries of lanes by what became of them."}, []string{"verdict"})
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "linker_downlink_refused_messages_total", Help: "Messages of lanes that were ignored as a whole, by reason."}, []string{"reason"})
	m := &metrics{
		deliveries: map[session.Verdict]prometheus.Counter{
			session.Taken:     deliveries.WithLabelValues("taken"),
			session.Duplicate: deliveries.WithLabelValues("duplicate"),
			session.Again:     deliveries.WithLabelValues("again"),
			session.Gap:       deliveries.WithLabelValues("gap"),
			session.Gone:      deliveries.WithLabelValues("gone"),
			session.Parting:   deliveries.WithLabelValues("parting"),
		},
		refused: map[refusal]prometheus.Counter{
			refusedEpoch:     refused.WithLabelValues(string(refusedEpoch)),
			refusedMalformed: refused.WithLabelValues(string(refusedMalformed)),
		},
		unanswered: prometheus.NewCounter(prometheus.CounterOpts{Name: "linker_downlink_unpublished_answers_total", Help: "Messages of answers that could not be published; they are tried again."}),
	}
	for _, c := range []prometheus.Collector{deliveries, refused, m.unanswered} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register downlink metrics: %w", err)
		}
	}
	return m, nil
}

// registerLanes adds how many lanes are without an owner, or full. Their states
// change with time alone, so they are looked at when somebody asks.
func (d *Downlink) registerLanes() error {
	for _, g := range []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "linker_downlink_silent_lanes", Help: "Lanes whose owner has not been heard for 3 s.",
		}, func() float64 {
			return d.countLanes(func(heard, _ bool) bool { return !heard })
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "linker_downlink_full_lanes", Help: "Lanes with so much waiting that nothing is accepted for them.",
		}, func() float64 {
			return d.countLanes(func(_, room bool) bool { return !room })
		}),
	} {
		if err := d.cfg.Metrics.Register(g); err != nil {
			return fmt.Errorf("register downlink metrics: %w", err)
		}
	}
	return nil
}

func (d *Downlink) countLanes(which func(heard, room bool) bool) float64 {
	n := 0
	for i := range d.lanes {
		if which(d.Accepts(i)) {
			n++
		}
	}
	return float64(n)
}
