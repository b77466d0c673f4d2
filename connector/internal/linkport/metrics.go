package linkport

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/link"
	"github.com/linkerhq/linker/pkg/topology"
)

// reason says why a connection was refused: what package link says, or that we have
// no place for it.
type reason string

const (
	reasonNotServing reason = "not_serving"
	reasonBusy       reason = "busy"

	reasonUnknownDomain = reason(link.ReasonUnknownDomain)
	reasonHandshake     = reason(link.ReasonHandshake)
	reasonClosed        = reason(link.ReasonClosed)
)

func reasons() []reason {
	list := []reason{reasonNotServing, reasonBusy}
	for _, r := range link.Reasons() {
		list = append(list, reason(r))
	}
	return list
}

// reasonOf is why package link has refused a connection.
func reasonOf(err error) reason {
	var refused *link.RefusedError
	if errors.As(err, &refused) {
		return reason(refused.Reason)
	}
	return reasonHandshake
}

// Why FAST messages are dropped: the codes of records in lower case, and these.
const (
	fastSilent      = "silent_lane"
	fastUnpublished = "unpublished"
)

func fastReason(c code) string { return strings.ToLower(string(c)) }

// Why states of links are not believed.
const (
	statesUndecodable = "undecodable"
	statesStranger    = "unknown_speaker"
)

type metrics struct {
	refused        map[reason]prometheus.Counter
	refusedRecords map[code]prometheus.Counter
	fastDropped    map[string]prometheus.Counter
	refusedStates  map[string]prometheus.Counter

	links                *prometheus.GaugeVec
	records, bytes, fast *prometheus.CounterVec
	unanswered           *prometheus.CounterVec

	mu         sync.Mutex
	neighbours map[string]*neighbour // guarded by mu
}

// neighbour is what is counted of one neighbour.
type neighbour struct {
	links                prometheus.Gauge
	records, bytes, fast prometheus.Counter
	unanswered           prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	counter := func(name, label, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "linker_linkport_" + name, Help: help}, []string{label})
	}
	refused := counter("refused_total", "reason", "Connections to the link port that were refused, by reason.")
	refusedRecords := counter("refused_records_total", "code", "Records of neighbours that are never taken, by code.")
	fastDropped := counter("fast_dropped_total", "reason", "FAST messages of neighbours that were dropped, by reason.")
	refusedStates := counter("refused_states_total", "reason", "What was said of links and is not believed, by reason.")
	m := &metrics{
		refused:        make(map[reason]prometheus.Counter),
		refusedRecords: make(map[code]prometheus.Counter),
		fastDropped:    make(map[string]prometheus.Counter),
		refusedStates:  make(map[string]prometheus.Counter),
		links: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "linker_linkport_links", Help: "Open links that a neighbour has dialled.",
		}, []string{"neighbour"}),
		records:    counter("records_total", "neighbour", "Records of a neighbour that were taken for the log."),
		bytes:      counter("bytes_total", "neighbour", "Bytes of the records of a neighbour that were taken for the log."),
		fast:       counter("fast_total", "neighbour", "FAST messages of a neighbour that were taken."),
		unanswered: counter("unanswered_questions_total", "neighbour", "Questions of a neighbour about messages that got no answer."),
		neighbours: make(map[string]*neighbour),
	}
	for _, why := range reasons() {
		m.refused[why] = refused.WithLabelValues(string(why))
	}
	for _, c := range codes() {
		m.refusedRecords[c] = refusedRecords.WithLabelValues(string(c))
		if c != codeTooLarge { // which is for the log to say
			m.fastDropped[fastReason(c)] = fastDropped.WithLabelValues(fastReason(c))
		}
	}
	for _, why := range []string{fastSilent, fastUnpublished} {
		m.fastDropped[why] = fastDropped.WithLabelValues(why)
	}
	for _, why := range []string{statesUndecodable, statesStranger} {
		m.refusedStates[why] = refusedStates.WithLabelValues(why)
	}
	for _, c := range []prometheus.Collector{refused, refusedRecords, fastDropped, refusedStates, m.links, m.records, m.bytes, m.fast, m.unanswered} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics of the link port: %w", err)
		}
	}
	return m, nil
}

// of returns what is counted of a neighbour.
func (m *metrics) of(name string) *neighbour {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.neighbours[name]
	if n == nil {
		n = &neighbour{
			links: m.links.WithLabelValues(name), records: m.records.WithLabelValues(name),
			bytes: m.bytes.WithLabelValues(name), fast: m.fast.WithLabelValues(name),
			unanswered: m.unanswered.WithLabelValues(name),
		}
		m.neighbours[name] = n
	}
	return n
}

// follow counts from now on for the neighbours that these links lead to, and for no
// others.
func (m *metrics) follow(links []topology.Link, here string) {
	present := make(map[string]bool, len(links))
	for _, l := range links {
		present[l.Other(here)] = true
		m.of(l.Other(here))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for name := range m.neighbours {
		if !present[name] {
			delete(m.neighbours, name)
			for _, vec := range []interface{ DeleteLabelValues(values ...string) bool }{m.links, m.records, m.bytes, m.fast, m.unanswered} {
				vec.DeleteLabelValues(name)
			}
		}
	}
}
