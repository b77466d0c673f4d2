package linkport

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/linkerhq/linker/pkg/delivery"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/failpoint"
	"github.com/linkerhq/linker/pkg/link"
	"github.com/linkerhq/linker/pkg/topology"
	"github.com/linkerhq/linker/pkg/trace"
)

// The pauses between two looks at a log, or a lane, that takes nothing now.
const (
	firstPause = time.Millisecond
	mostPause  = 100 * time.Millisecond
)

const (
	// maxRecord is above the largest record that a domain makes, and leaves room in the
	// log, and in the dead letters, for what is added to it.
	maxRecord = 512 << 10
	// maxQuestions is how many questions of a link are answered at once.
	maxQuestions = 4
	// maxOwed is how many bytes may wait for a neighbour that sends and does not read.
	maxOwed = 4 << 20
	// networkWait is how long a link waits for the description of the network by which the
	// neighbour has routed a record, and impatientFor how long not after it was in vain.
	networkWait  = 10 * time.Second
	impatientFor = time.Minute
)

// errStopped ends a link whose records the log did not take up to the end.
var errStopped = errors.New("the log has stopped")

// peer is one open link.
type peer struct {
	// Static after construction.
	s      *service
	conn   *link.Conn
	name   string        // the neighbour
	link   topology.Link // whose proof was given
	counts *neighbour
	acks   *acks

	// Owned by the goroutine that handles what the neighbour sends.
	gaveUp      uint64    // no version up to this one is waited for
	patientFrom time.Time // none at all is waited for before it

	asking    sync.WaitGroup // one for each question that is being answered
	answering chan struct{}  // static; never closed: holds as many

	cause error // guarded by s.mu; why we have closed it, nil if we have not
}

func newPeer(s *service, conn *link.Conn, l topology.Link) *peer {
	return &peer{s: s, conn: conn, name: conn.Peer(), link: l, counts: s.port.metrics.of(conn.Peer()), acks: newAcks(), answering: make(chan struct{}, maxQuestions)}
}

// endLocked closes the link. s.mu is held.
func (p *peer) endLocked(cause error) {
	if p.cause == nil {
		p.cause = cause
	}
	p.conn.Close()
}

// run serves the link until it ends, and returns why.
func (p *peer) run(ctx context.Context) error {
	var acks sync.WaitGroup
	acks.Go(p.acknowledge)
	asking, stopAsking := context.WithCancel(ctx)
	err := p.conn.Run(ctx, func(m link.Message) error {
		if question, is := m.(link.Question); is {
			p.asked(asking, question)
			return nil
		}
		return p.handle(m)
	})
	stopAsking()
	p.asking.Wait()
	acks.Wait()
	return err
}

// acknowledge tells the neighbour what the log has: whatever came in while the last
// acknowledgements were being sent.
func (p *peer) acknowledge() {
	for {
		select {
		case <-p.conn.Done():
			return
		case <-p.acks.wake:
		}
		for channel, upTo := range p.acks.take() {
			_ = failpoint.Hit(failpoint.LinkBeforeAck)
			p.conn.Send(link.Ack{Channel: channel, UpTo: upTo})
		}
		if err := p.acks.failure(); err != nil {
			p.s.mu.Lock()
			p.endLocked(err)
			p.s.mu.Unlock()
		}
	}
}

// handle takes one message. While the log takes nothing it waits: nothing more is
// read then, and the neighbour keeps what it has.
func (p *peer) handle(m link.Message) error {
	switch m := m.(type) {
	case link.Records:
		for i, record := range m.Records {
			if err := p.record(m.Channel, m.First+uint64(i), record); err != nil {
				return err
			}
		}
	case link.Fast:
		p.fast(m.Record)
	case link.States:
		p.s.heardOutside(p, m.Entries)
	case link.Ack, link.Refusal, link.Answer:
		return fmt.Errorf("%T, expected records, FAST, states or questions: nothing was handed over to the neighbour, and it was not asked", m)
	default:
		return fmt.Errorf("%T, expected records, FAST or states", m)
	}
	return nil
}

// record takes record n of a channel: it is in the log when all its parts are.
func (p *peer) record(channel, n uint64, value []byte) error {
	// Who does not hear what we refuse is not listened to.
	for p.conn.Stats().Queued > maxOwed {
		if err := p.ended(); err != nil {
			return err
		}
		pause(p.conn.Done(), mostPause)
	}
	parts, code := p.open(value, crossesReliable)
	if err := p.acks.begin(channel, n, max(len(parts), 1)); err != nil {
		return err
	}
	if code != "" {
		p.refuse(channel, n, code)
		p.acks.settle(channel, n)
		return nil
	}
	p.counts.records.Inc()
	p.counts.bytes.Add(float64(len(value)))
	done := func(_ int64, err error) {
		switch {
		case err == nil:
		case errors.Is(err, p.s.to.TooLarge):
			p.refuse(channel, n, codeTooLarge)
		default:
			p.acks.fail(errStopped)
			return
		}
		p.acks.settle(channel, n)
	}
	for _, part := range parts {
		if err := p.append(part, done); err != nil {
			return err
		}
	}
	return nil
}

// append queues one part for the log, however long it takes.
func (p *peer) append(part part, done func(offset int64, err error)) error {
	value := part.Append(make([]byte, 0, sizeOf(&part.Envelope)))
	for wait := firstPause; ; wait = min(2*wait, mostPause) {
		if err := p.ended(); err != nil {
			return err
		}
		if _, room := p.s.to.Lanes.Accepts(part.lane); room {
			err := p.s.to.Log.Append(part.lane, string(part.key), value, p.traced(&part, done))
			if err == nil || !errors.Is(err, p.s.to.Unavailable) {
				return err
			}
		}
		if wait == mostPause && p.s.port.lines.waiting.Due() {
			p.s.port.cfg.Log.Warn("a link waits: the log takes nothing, or a lane has no room", "neighbour", p.name, "lane", part.lane)
		}
		pause(p.conn.Done(), wait)
	}
}

// traced notes, before done is called, that the log has a part.
func (p *peer) traced(part *part, done func(offset int64, err error)) func(offset int64, err error) {
	if p.s.to.Trace == nil {
		return done
	}
	e := trace.Event{Kind: trace.Received, Message: part.ID, Lane: part.lane, Peer: p.name, Since: time.Now()}
	if len(part.To) == 1 {
		e.User = part.To[0].User
	} else {
		e.Users = len(part.To)
	}
	return func(offset int64, err error) {
		if err == nil {
			e.At, e.Offset = time.Now(), offset
			p.s.to.Trace.Add(e)
		}
		done(offset, err)
	}
}

// asked answers a question, beside what else comes over the link. Who asks more at once
// than anybody needs gets no answer.
func (p *peer) asked(ctx context.Context, q link.Question) {
	select {
	case p.answering <- struct{}{}:
	default:
		p.counts.unanswered.Inc()
		p.conn.Send(link.Answer{N: q.N})
		return
	}
	p.asking.Go(func() {
		answer := p.s.to.Asked(ctx, p.name, q.Text)
		if len(answer) == 0 {
			p.counts.unanswered.Inc()
		}
		p.conn.Send(link.Answer{N: q.N, Text: answer})
		<-p.answering
	})
}

// ended says why nothing more is taken over this link.
func (p *peer) ended() error {
	select {
	case <-p.conn.Done():
		return link.ErrClosed
	default:
		return p.acks.failure()
	}
}

// refuse tells the neighbour that a record will never be taken, before the
// acknowledgement that covers it.
func (p *peer) refuse(channel, n uint64, code code) {
	if !p.acks.refuse(channel, n) {
		return // it knows
	}
	p.s.port.metrics.refusedRecords[code].Inc()
	if p.s.port.lines.refusedRecord.Due() {
		p.s.port.cfg.Log.Warn("record of a neighbour refused", "neighbour", p.name, "code", string(code))
	}
	p.conn.Send(link.Refusal{Channel: channel, N: n, Code: string(code)})
}

// fast publishes what only memory holds, to each lane with receivers.
func (p *peer) fast(value []byte) {
	parts, code := p.open(value, crossesFast)
	if code != "" {
		p.dropFast(fastReason(code))
		return
	}
	p.counts.fast.Inc()
	for _, part := range parts {
		if heard, _ := p.s.to.Lanes.Accepts(part.lane); !heard {
			p.dropFast(fastSilent)
			continue
		}
		if err := p.s.to.Plane.Publish(delivery.FastSubject(p.s.port.cfg.Domain, part.lane), delivery.AppendFast(nil, part.Append(nil))); err != nil {
			p.dropFast(fastUnpublished)
		}
	}
}

func (p *peer) dropFast(why string) {
	p.s.port.metrics.fastDropped[why].Inc()
	if p.s.port.lines.droppedFast.Due() {
		p.s.port.cfg.Log.Warn("FAST message of a neighbour dropped", "neighbour", p.name, "reason", why)
	}
}

// open reads, checks and stamps what the neighbour has sent, and cuts it up by
// lanes.
func (p *peer) open(value []byte, crosses func(envelope.Kind) bool) ([]part, code) {
	e, err := envelope.Decode(value)
	switch {
	case err != nil:
		return nil, codeUndecodable
	case len(value) > maxRecord:
		return nil, codeTooLarge
	}
	if code := check(&e, crosses); code != "" {
		return nil, code
	}
	here, known := p.s.port.cfg.Domain, p.awaitNetwork(e.Network)
	// What lanes wait for is a network that we have seen.
	e.Network = min(e.Network, known[0].Version)
	if !credible(&e, here, p.name, known) {
		return nil, codeForbidden
	}
	return split(stamp(e, p.name), known[0], here, p.s.port.cfg.Lanes), ""
}

// awaitNetwork returns what is known of the network. It waits until we know the one by which
// a record was routed, but not for long, not again for that version, and not again for a
// while after it was in vain: the neighbour may have it from somewhere else.
func (p *peer) awaitNetwork(version uint64) []*topology.Snapshot {
	known := p.s.port.look(p.s.to.Network)
	if version <= known[0].Version || version <= p.gaveUp || time.Now().Before(p.patientFrom) {
		return known
	}
	deadline := time.Now().Add(networkWait)
	for wait := firstPause; known[0].Version < version; wait = min(2*wait, mostPause) {
		if time.Now().After(deadline) || p.ended() != nil {
			p.gaveUp, p.patientFrom = version, time.Now().Add(impatientFor)
			break
		}
		pause(p.conn.Done(), wait)
		known = p.s.port.look(p.s.to.Network)
	}
	return known
}

// sizeOf is about how many bytes an encoded envelope has.
func sizeOf(e *envelope.Envelope) int {
	return len(e.Frame) + len(e.Reference) + 80*len(e.To) + 64*len(e.Path) + 256
}
