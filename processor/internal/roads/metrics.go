package roads

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/seldom"
	"github.com/linkerhq/linker/pkg/wire"
)

// drop is why link states were not passed on. The list is closed.
type drop string

const (
	dropMalformed   drop = "malformed"
	dropUnpublished drop = "unpublished" // the live plane takes nothing; who said it repeats it
	dropNoRoom      drop = "no_room"
)

// refusalCodes lists why neighbours refuse records; any other counts as other.
func refusalCodes() []string {
	return []string{
		"UNDECODABLE", string(wire.CodeForbiddenType), string(wire.CodeInvalidUserID), string(wire.CodeHopsExhausted),
		string(wire.CodeForbidden), string(wire.CodeTooLarge),
	}
}

const otherCode = "other"

// metrics are the figures of all links of the process.
type metrics struct {
	dials    *prometheus.CounterVec
	records  *prometheus.CounterVec
	bytes    *prometheus.CounterVec
	fast     *prometheus.CounterVec
	fastLost *prometheus.CounterVec
	refused  *prometheus.CounterVec
	ended    *prometheus.CounterVec

	statesDropped map[drop]prometheus.Counter // static; those that are counted here
	malformed     seldom.Line
}

// counters are those of one neighbour; they exist from the start.
type counters struct {
	dials                          map[outcome]prometheus.Counter
	records, bytes, fast, fastLost prometheus.Counter
	refused                        map[string]prometheus.Counter // by code
	ended                          map[end]prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, r *Roads) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append([]string{"neighbour"}, labels...))
	}
	dropped := func(d drop) prometheus.CounterOpts {
		return prometheus.CounterOpts{
			Name: "linker_link_states_dropped_total", ConstLabels: prometheus.Labels{"reason": string(d)},
			Help: "What was heard or said of links and not passed on, by reason: messages, or entries for which there was no room.",
		}
	}
	m := &metrics{
		dials:    counter("linker_link_dials_total", "Attempts to open a link, by outcome.", "outcome"),
		records:  counter("linker_link_records_total", "Records sent to a neighbour, repetitions included."),
		bytes:    counter("linker_link_bytes_total", "Bytes of records and FAST messages sent to a neighbour."),
		fast:     counter("linker_link_fast_total", "FAST messages sent to a neighbour."),
		fastLost: counter("linker_link_fast_lost_total", "FAST messages that were queued for a neighbour and went with their connection."),
		refused:  counter("linker_link_refused_total", "Records that a neighbour has refused for ever, by code.", "code"),
		ended:    counter("linker_link_ended_total", "Connections to a neighbour that have ended, by reason.", "reason"),
		statesDropped: map[drop]prometheus.Counter{
			dropMalformed:   prometheus.NewCounter(dropped(dropMalformed)),
			dropUnpublished: prometheus.NewCounter(dropped(dropUnpublished)),
		},
	}
	noRoom := prometheus.NewCounterFunc(dropped(dropNoRoom), func() float64 { return float64(r.states.Dropped()) })
	var mistakes []error
	for _, c := range []prometheus.Collector{
		m.dials, m.records, m.bytes, m.fast, m.fastLost, m.refused, m.ended,
		m.statesDropped[dropMalformed], m.statesDropped[dropUnpublished], noRoom, newGauges(r),
	} {
		mistakes = append(mistakes, reg.Register(c))
	}
	if err := errors.Join(mistakes...); err != nil {
		return nil, fmt.Errorf("register the metrics of links: %w", err)
	}
	return m, nil
}

// of returns the counters of a neighbour.
func (m *metrics) of(neighbour string) counters {
	c := counters{
		dials:   make(map[outcome]prometheus.Counter),
		records: m.records.WithLabelValues(neighbour),
		bytes:   m.bytes.WithLabelValues(neighbour),
		fast:    m.fast.WithLabelValues(neighbour),
		refused: make(map[string]prometheus.Counter),
		ended:   make(map[end]prometheus.Counter),

		fastLost: m.fastLost.WithLabelValues(neighbour),
	}
	for _, o := range outcomes() {
		c.dials[o] = m.dials.WithLabelValues(neighbour, string(o))
	}
	for _, code := range append(refusalCodes(), otherCode) {
		c.refused[code] = m.refused.WithLabelValues(neighbour, code)
	}
	for _, why := range ends() {
		c.ended[why] = m.ended.WithLabelValues(neighbour, string(why))
	}
	return c
}

// refuse counts a record that was refused.
func (c counters) refuse(code string) {
	counter, known := c.refused[code]
	if !known {
		counter = c.refused[otherCode]
	}
	counter.Inc()
}

func (n *neighbour) countRecords(records, bytes int) {
	n.totals.records.Add(uint64(records))
	n.totals.bytes.Add(uint64(bytes))
	n.counts.records.Add(float64(records))
	n.counts.bytes.Add(float64(bytes))
}

func (n *neighbour) countFast(bytes int) {
	n.totals.fast.Add(1)
	n.totals.bytes.Add(uint64(bytes))
	n.counts.fast.Inc()
	n.counts.bytes.Add(float64(bytes))
}

// gauges tell how things are when they are asked: of the links that the network has
// then.
type gauges struct {
	roads                       *Roads
	up, unacknowledged, domains *prometheus.Desc
}

func newGauges(r *Roads) *gauges {
	return &gauges{
		roads:          r,
		up:             prometheus.NewDesc("linker_link_up", "1 while there is a connection of this process to the neighbour, else 0.", []string{"neighbour"}, nil),
		unacknowledged: prometheus.NewDesc("linker_link_unacknowledged", "Records sent to a neighbour that it has not acknowledged.", []string{"neighbour"}, nil),
		domains:        prometheus.NewDesc("linker_roads_domains", "Other domains of the network, by whether there is a path of live links.", []string{"state"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (g *gauges) Describe(descs chan<- *prometheus.Desc) {
	descs <- g.up
	descs <- g.unacknowledged
	descs <- g.domains
}

// Collect implements prometheus.Collector.
func (g *gauges) Collect(metrics chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value uint64, label string) {
		metrics <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(value), label)
	}
	up, waiting := make(map[string]uint64), make(map[string]uint64)
	for _, c := range g.roads.connections() {
		up[c.neighbour.name] = 1
		waiting[c.neighbour.name] += c.waiting()
	}
	for _, name := range g.roads.neighbourNames() {
		gauge(g.up, up[name], name)
		gauge(g.unacknowledged, waiting[name], name)
	}
	reachable := uint64(g.roads.Table().Len())
	others := g.roads.otherDomains()
	gauge(g.domains, reachable, "reachable")
	gauge(g.domains, max(others, reachable)-reachable, "cut")
}
