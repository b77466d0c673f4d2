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
	DropOvertaken DropReason = "overtaken" // newer ones of the same publisher have been here before it
	DropNoRoad    DropReason = "no_road"   // every road to the receiver's home is closed, or the message has come through too many domains
)

// Metrics count what becomes of messages, for all lanes of a process together.
type Metrics struct {
	taken          prometheus.Counter
	duplicates     prometheus.Counter
	proofs         prometheus.Counter
	stored         prometheus.Counter
	fromLog        prometheus.Counter // delivered while only the log had custody
	fromMailbox    prometheus.Counter // delivered after the mailbox had taken custody
	spills         prometheus.Counter
	resends        prometheus.Counter
	undecodable    prometheus.Counter
	expired        prometheus.Counter
	connectorsDown prometheus.Counter
	online         prometheus.Counter
	offline        prometheus.Counter
	fastDropped    map[DropReason]prometheus.Counter
	handedOver     prometheus.Counter
	held           prometheus.Counter
	released       map[release]prometheus.Counter
	late           prometheus.Counter
	moved          prometheus.Counter
}

// release says why a message that was held back goes on. The list is closed.
type release string

// The reasons.
const (
	releaseInOrder release = "in_order" // what it had overtaken is there
	releaseTime    release = "time"     // it has waited long enough
	releaseFull    release = "full"     // too many wait
)

// NewMetrics registers the figures.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	var mistakes []error
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "linker_lane_" + name, Help: help})
		mistakes = append(mistakes, reg.Register(c))
		return c
	}
	vector := func(name, help, label string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "linker_lane_" + name, Help: help}, []string{label})
		mistakes = append(mistakes, reg.Register(c))
		return c
	}
	delivered := vector("delivered_total", "Messages whose custody ended because all who are owed them have proved receipt, by who had custody: log, mailbox.", "from")
	events := vector("presence_events_total", "Events for masters about users who came or went, repeated ones included.", "event")
	m := &Metrics{
		taken:          counter("taken_total", "Messages of which a lane took custody, one for each receiver."),
		duplicates:     counter("duplicates_total", "Records dropped because they had been taken before."),
		proofs:         counter("proofs_total", "Messages whose receipt a socket has proved."),
		stored:         counter("stored_total", "Messages that went into the mailbox."),
		spills:         counter("spills_total", "Messages that the mailbox took because no proof came in time."),
		resends:        counter("resends_total", "Times that deliveries were repeated to a connector."),
		undecodable:    counter("undecodable_total", "Records, rows and answers that could not be decoded."),
		expired:        counter("expired_total", "Messages that waited in the mailbox for too long and became dead letters."),
		connectorsDown: counter("connectors_down_total", "Connectors found dead."),
		fromLog:        delivered.WithLabelValues("log"),
		fromMailbox:    delivered.WithLabelValues("mailbox"),
		online:         events.WithLabelValues("connected"),
		offline:        events.WithLabelValues("disconnected"),
		fastDropped:    map[DropReason]prometheus.Counter{},
		handedOver:     counter("handed_over_total", "Records that another domain has taken custody of."),
		held:           counter("held_total", "Messages held back because they had overtaken others of their sender on the way."),
		late:           counter("late_total", "Messages that came after newer ones of their sender had been delivered, and are marked so."),
		moved:          counter("moved_total", "Stored messages sent after their receivers to another domain, or to another road."),
		released:       map[release]prometheus.Counter{},
	}
	releases := vector("released_total", "Messages that were held back and go on, by reason: in_order, time, full.", "reason")
	for _, r := range []release{releaseInOrder, releaseTime, releaseFull} {
		m.released[r] = releases.WithLabelValues(string(r))
	}
	drops := vector("fast_dropped_total", "FAST messages dropped, by reason.", "reason")
	for _, r := range []DropReason{DropAbsent, DropForbidden, DropQueueFull, DropMalformed, DropOvertaken, DropNoRoad} {
		m.fastDropped[r] = drops.WithLabelValues(string(r))
	}
	return m, errors.Join(mistakes...)
}

// landed counts a message whose custody ends here because its receiver has it, or a record
// that another domain has.
func (m *Metrics) landed(it *item) {
	switch {
	case it.user.domain != "":
		m.handedOver.Inc()
	case it.stored:
		m.fromMailbox.Inc()
	default:
		m.fromLog.Inc()
	}
}

// DropFast counts a FAST message that is dropped.
func (m *Metrics) DropFast(r DropReason) { m.fastDropped[r].Inc() }

// Undecodable counts something that could not be decoded.
func (m *Metrics) Undecodable() { m.undecodable.Inc() }
