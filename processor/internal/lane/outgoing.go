package lane

import (
	"sync"

	"github.com/linkerhq/linker/pkg/broker/nats"
	"github.com/linkerhq/linker/pkg/delivery"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/failpoint"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/processor/internal/custody"
)

// outgoing batches deliveries by connector: whatever one round of the actor
// has for a connector travels in as few messages as fit.
type outgoing struct {
	domain string
	header []byte // of every batch of this owner
	lane   int
	plane  *nats.Conn
	byName map[ident.Connector]*packet
	latest *packet   // the one that was added to last; nil: none
	filled []*packet // those that have something in them
}

// packet is the message under construction for one connector.
type packet struct {
	to      ident.Connector
	subject string
	buf     []byte
	used    bool // since the last tidy
}

func newOutgoing(domain string, lane int, epoch envelope.Position, plane *nats.Conn) outgoing {
	b := delivery.Batch{Lane: lane, Epoch: epoch}
	return outgoing{domain: domain, lane: lane, header: b.AppendHeader(nil), plane: plane, byName: map[ident.Connector]*packet{}}
}

// add puts one delivery into its connector's packet, and sends the packet first
// if both do not fit.
func (o *outgoing) add(d *custody.Delivery) {
	p := o.packet(d.To)
	before := len(p.buf)
	if before == len(o.header) {
		o.filled = append(o.filled, p)
	}
	p.buf = d.Item.Append(p.buf)
	if before > len(o.header) && len(p.buf) > delivery.MaxMessageSize {
		item := p.buf[before:]
		p.buf = p.buf[:before]
		o.send(p)
		p.buf = append(p.buf, item...) // what is behind the packet has not moved
	}
}

func (o *outgoing) packet(to ident.Connector) *packet {
	if o.latest != nil && o.latest.to == to {
		return o.latest
	}
	p := o.byName[to]
	if p == nil {
		p = &packet{to: to, subject: delivery.ConnectorSubject(o.domain, to, o.lane)}
		p.buf = append(p.buf, o.header...)
		o.byName[to] = p
	}
	o.latest, p.used = p, true
	return p
}

// flush sends every packet that has something in it.
func (o *outgoing) flush() {
	for i, p := range o.filled {
		o.send(p)
		o.filled[i] = nil
	}
	o.filled = o.filled[:0]
}

// tidy forgets the connectors that have got nothing since it was last called: they
// may be gone. There is nothing in any packet then.
func (o *outgoing) tidy() {
	for c, p := range o.byName {
		if !p.used {
			delete(o.byName, c)
		}
		p.used = false
	}
	o.latest = nil
}

func (o *outgoing) send(p *packet) {
	// What is lost here was not taken: it is sent again under the same number.
	_ = o.plane.Publish(p.subject, p.buf)
	_ = failpoint.Hit(failpoint.LaneAfterDelivery)
	p.buf = p.buf[:len(o.header)]
}

// inbox holds events until the actor takes them.
type inbox struct {
	wake chan struct{} // capacity 1; never closed

	mu     sync.Mutex
	events []custody.Event // guarded by mu
	spare  []custody.Event // owned by the actor between two takes
	plane  int             // events of the live plane among them; guarded by mu
}

func newInbox() *inbox { return &inbox{wake: make(chan struct{}, 1)} }

// put adds an event that must not be lost.
func (b *inbox) put(e custody.Event) {
	b.mu.Lock()
	b.events = append(b.events, e)
	b.mu.Unlock()
	b.signal()
}

// offer adds an event of the live plane; when too many wait it is dropped, which
// the plane may do as well.
func (b *inbox) offer(e custody.Event) bool {
	b.mu.Lock()
	full := b.plane >= maxInbox
	if !full {
		b.events = append(b.events, e)
		b.plane++
	}
	b.mu.Unlock()
	if !full {
		b.signal()
	}
	return !full
}

func (b *inbox) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// take returns all events in the order in which they came. The slice is valid
// until the next take.
func (b *inbox) take() []custody.Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.spare)
	events := b.events
	b.events, b.spare, b.plane = b.spare[:0], events, 0
	return events
}

// answers receives what connectors say.
func (b *inbox) answers(m *Metrics) func([]byte) {
	return func(data []byte) {
		a, err := delivery.DecodeAnswers(data)
		if err != nil {
			m.Custody.Undecodable()
			return
		}
		// Dropped when full: numbers are cumulative and asked for again.
		b.offer(custody.Answered{Answers: &a})
	}
}

// fast receives FAST envelopes.
func (b *inbox) fast(m *Metrics) func([]byte) {
	return func(data []byte) {
		for len(data) > 0 {
			record, rest, err := delivery.NextFast(data)
			if err != nil {
				m.Custody.DropFast(custody.DropMalformed)
				return
			}
			data = rest
			e, err := envelope.DecodeNew(record)
			if err != nil {
				m.Custody.DropFast(custody.DropMalformed)
				continue
			}
			if !b.offer(custody.FastArrived{Envelope: e}) {
				m.Custody.DropFast(custody.DropQueueFull)
			}
		}
	}
}
