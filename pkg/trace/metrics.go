package trace

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// Who asks.
const (
	fromDomain    = "domain"
	fromNeighbour = "neighbour"
)

// refusal says why a question, or an answer, was not taken. The list is closed.
type refusal string

const (
	refusedMalformed refusal = "malformed"
	refusedBusy      refusal = "busy" // as many are under way as may be
	refusedRate      refusal = "rate" // the neighbour asks too often
)

func refusals() []refusal { return []refusal{refusedMalformed, refusedBusy, refusedRate} }

type metrics struct {
	questions map[string]prometheus.Counter
	refused   map[refusal]prometheus.Counter
}

func newMetrics(r prometheus.Registerer, log *Log) (*metrics, error) {
	questions := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "linker_trace_questions_total", Help: "Questions about a message that this process has answered, by who asked: domain, neighbour."}, []string{"from"})
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "linker_trace_refused_total", Help: "Questions about a message, and answers, that were not taken, by reason."}, []string{"reason"})
	events := prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "linker_trace_events_total", Help: "Events of messages that were noted."}, func() float64 { return float64(log.Added()) })
	m := &metrics{questions: map[string]prometheus.Counter{}, refused: map[refusal]prometheus.Counter{}}
	for _, from := range []string{fromDomain, fromNeighbour} {
		m.questions[from] = questions.WithLabelValues(from)
	}
	for _, why := range refusals() {
		m.refused[why] = refused.WithLabelValues(string(why))
	}
	for _, c := range []prometheus.Collector{questions, refused, events} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register the metrics of traces: %w", err)
		}
	}
	return m, nil
}
