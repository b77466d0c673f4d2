package workload

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/linkerhq/linker/standalone/internal/bench/figures"
	"github.com/linkerhq/linker/standalone/internal/bench/message"
	"github.com/linkerhq/linker/standalone/internal/bench/swarm"
)

const (
	// checkedOne in so many delivered messages is read with a decoder as well.
	checkedOne = 1000
	// afterLast is how long is waited for copies when everything has come.
	afterLast = 200 * time.Millisecond
)

// shape says who sends to whom: each client gets messages from one other at most.
type shape struct {
	clients  int
	senders  []int // clients that send
	to       func(sender int) []int
	senderOf func(client int) int // as an index in senders; below 0: nobody
	group    bool
}

// sender is a client that sends.
type sender struct {
	index     int // in traffic.senders
	client    *swarm.Client
	template  *message.Template
	receivers int
	number    int64 // of its last message, from 1

	waits       bool // a closed loop waits for its last message
	remaining   int  // deliveries of that which have not come
	unconfirmed bool // nor has its confirmation
	confirmed   figures.Stream
}

// traffic is messages between the clients of a swarm: who sends to whom is its shape,
// when, its pace. All of it belongs to the thread of the swarm.
type traffic struct {
	logins
	options Options
	run     string // in all contents
	shape   shape
	pace    pace
	senders []*sender
	streams []figures.Stream // by the index of the receiver

	phase    Phase
	from, to int64 // what is measured
	quiet    int64 // since when everything has come; 0: it has not

	sent, expected, delivered    int64
	accepted, confirmed, refused int64
	damaged, late                int64
	sentMeasured                 int64 // while it was measured, as the next two
	deliveredMeasured            int64
	confirmedMeasured            int64
	latency, confirmation, delay *figures.Latencies
}

// runTraffic runs a workload of messages: in an open loop if there is a rate, else in
// a closed one.
func runTraffic(ctx context.Context, e Env, shape shape) (figures.Run, error) {
	s, err := e.newSwarm(ctx, shape.clients)
	if err != nil {
		return figures.Run{}, err
	}
	t := &traffic{
		logins: newLogins(e, s), options: e.Options, run: rand.Text()[:message.RunBytes], shape: shape, streams: make([]figures.Stream, shape.clients),
		latency: figures.NewLatencies(), confirmation: figures.NewLatencies(), delay: figures.NewLatencies(),
	}
	t.pace = &closedPace{traffic: t, pause: int64(e.Options.Pause), patience: int64(e.Options.Patience)}
	if e.Options.Rate > 0 {
		t.pace = &openPace{traffic: t, schedule: schedule{rate: e.Options.Rate}}
	}
	err = s.Run(ctx, t)
	if t.failed != nil {
		err = t.failed
	}
	if err != nil {
		return figures.Run{}, err
	}
	return t.result(), nil
}

// prepare writes the frames of all senders.
func (t *traffic) prepare() {
	o := t.options
	for i, n := range t.shape.senders {
		s := &sender{index: i, client: t.swarm.Clients()[n]}
		var to []string
		for _, receiver := range t.shape.to(n) {
			to = append(to, t.env.user(receiver))
		}
		s.receivers = len(to)
		s.template = message.NewTemplate(message.Format{
			Run: t.run, To: to, Group: t.shape.group, Size: o.Size, Feature: o.Feature, References: o.References, Confirm: o.Confirm,
		})
		t.senders = append(t.senders, s)
	}
}

// Due takes the run from phase to phase.
func (t *traffic) Due(now int64) int64 {
	switch t.phase {
	case Connecting, Settling:
		if !t.complete(now) {
			return swarm.Never
		}
		t.prepare()
		t.env.Observer.Connected()
		now = t.swarm.Now()
		t.from = now + int64(t.options.Warmup)
		t.to = t.from + int64(t.options.Duration)
		t.enter(Warming)
		t.pace.begin(now, t.to)
		return now
	case Warming:
		if now >= t.from {
			t.enter(Measuring)
			t.env.Observer.Begin()
		}
		return min(t.pace.due(now), t.from)
	case Measuring:
		if now >= t.to {
			t.enter(Draining)
			t.env.Observer.End()
		}
		return min(t.pace.due(now), t.to)
	case Draining:
		t.drain(now)
	}
	return t.pace.due(now)
}

func (t *traffic) enter(phase Phase) {
	t.phase = phase
	t.env.Progress.enter(phase)
}

// drain ends the run when everything has come, or nothing more is waited for.
func (t *traffic) drain(now int64) {
	if t.pace.unsent() > 0 || t.delivered+t.refused < t.expected || t.unconfirmed() > 0 {
		t.quiet = 0
	} else if t.quiet == 0 {
		t.quiet = now
	}
	if t.quiet > 0 && now-t.quiet >= int64(afterLast) || now-t.to >= int64(t.options.Drain) {
		t.swarm.Stop()
	}
}

func (t *traffic) unconfirmed() int64 {
	if !t.options.References || t.shape.group {
		return 0
	}
	return max(t.sent-t.confirmed-t.refused, 0)
}

// send sends the next message of a sender, whose latency counts from at. It is false
// if the sender cannot send.
func (t *traffic) send(s *sender, at, now int64) bool {
	if !s.client.Send(s.template.Frame(message.Header{Number: s.number + 1, Time: at})) {
		return false
	}
	s.number++
	s.waits, s.remaining, s.unconfirmed = true, s.receivers, t.options.References && !t.shape.group
	t.sent++
	t.expected += int64(s.receivers)
	t.env.Progress.Sent.Store(t.sent)
	if t.measured(at) {
		t.sentMeasured++
		t.delay.Record(now - at)
	}
	return true
}

func (t *traffic) measured(at int64) bool { return at >= t.from && at < t.to }

// Writable lets a sender go on.
func (t *traffic) Writable(c *swarm.Client, now int64) {
	if s := t.senderAt(c); s != nil && t.phase > Settling {
		t.pace.writable(s, now)
	}
}

// senderAt is what a client is as a sender; nil if it does not send.
func (t *traffic) senderAt(c *swarm.Client) *sender {
	if c.Index < len(t.senders) && t.senders[c.Index].client == c {
		return t.senders[c.Index]
	}
	return nil
}

// Frame takes what a client gets.
func (t *traffic) Frame(c *swarm.Client, payload []byte, now int64) {
	switch kind := message.KindOf(payload); kind {
	case message.Delivered:
		t.deliver(c, payload, now)
	case message.Confirmed:
		t.confirm(c, payload, now)
	case message.Accepted:
		t.accepted++
	case message.Failed:
		t.refuse(c, payload, now)
	case message.Going:
		t.errors["going-away"]++
	case message.Other, message.LoggedIn, message.Fetched:
	}
}

func (t *traffic) deliver(c *swarm.Client, payload []byte, now int64) {
	h, err := message.ScanMessage(payload, t.run, t.options.Size)
	if errors.Is(err, message.ErrStranger) {
		t.errors["message-of-another-run"]++
		return
	}
	from := t.shape.senderOf(c.Index)
	if err != nil || from < 0 || from >= len(t.senders) || h.Number > t.senders[from].number {
		t.damage(fmt.Errorf("%s got %w", c.User, message.ErrDamaged))
		return
	}
	s := t.senders[from]
	if !t.streams[c.Index].Take(h.Number) {
		return
	}
	t.delivered++
	t.env.Progress.Delivered.Store(t.delivered)
	if t.delivered%checkedOne == 0 {
		if err := message.Check(payload, h, s.client.User, t.options.Size); err != nil {
			t.damage(err)
		}
	}
	if t.measured(now) {
		t.deliveredMeasured++
	}
	if t.measured(h.Time) {
		t.latency.Record(now - h.Time)
	}
	if s.waits && s.number == h.Number {
		s.remaining--
		t.answer(s, now)
	}
}

func (t *traffic) damage(err error) {
	t.damaged++
	if t.damaged == 1 {
		t.errors["first damage: "+err.Error()]++
	}
}

func (t *traffic) confirm(c *swarm.Client, payload []byte, now int64) {
	h, is := message.ScanReference(payload)
	s := t.senderAt(c)
	if !is || s == nil || h.Number > s.number {
		t.errors["confirmation-of-nothing-sent"]++
		return
	}
	if !s.confirmed.Take(h.Number) {
		return
	}
	t.confirmed++
	if t.measured(now) {
		t.confirmedMeasured++
	}
	if t.measured(h.Time) {
		t.confirmation.Record(now - h.Time)
	}
	if s.waits && s.number == h.Number {
		s.unconfirmed = false
		t.answer(s, now)
	}
}

// answer ends a message of which nothing more is expected.
func (t *traffic) answer(s *sender, now int64) {
	if s.remaining > 0 || s.unconfirmed {
		return
	}
	s.waits = false
	t.pace.answered(s, now)
}

// refuse takes a message back that the server does not want.
func (t *traffic) refuse(c *swarm.Client, payload []byte, now int64) {
	t.errors[codeOf(payload)]++
	s := t.senderAt(c)
	if s == nil {
		return
	}
	t.refused += int64(s.receivers)
	if s.waits && t.phase > Settling {
		s.remaining, s.unconfirmed = 0, false
		t.answer(s, now)
	}
}

// result is what the run came to.
func (t *traffic) result() figures.Run {
	r := figures.Run{
		Seconds: float64(t.to-t.from) / nanos, Sent: t.sent, Deliveries: t.delivered, Confirmed: t.confirmed, Accepted: t.accepted,
		Unsent: t.pace.unsent(), Refused: t.refused, Lost: max(t.expected-t.delivered-t.refused, 0), Unconfirmed: t.unconfirmed(),
		Damaged: t.damaged, GivenUp: t.late,
	}
	for i := range t.streams {
		r.Duplicates += t.streams[i].Duplicates()
		r.Disordered += t.streams[i].Disordered()
	}
	for _, s := range t.senders {
		r.Duplicates += s.confirmed.Duplicates()
	}
	r.SentRate = figures.Of(float64(t.sentMeasured) / r.Seconds)
	r.DeliveryRate = figures.Of(float64(t.deliveredMeasured) / r.Seconds)
	latency := t.latency.Quantiles()
	r.Latency = &latency
	if t.options.References && !t.shape.group {
		q := t.confirmation.Quantiles()
		r.Confirmation = &q
		r.ConfirmationRate = figures.Of(float64(t.confirmedMeasured) / r.Seconds)
	}
	if t.options.Rate > 0 {
		q := t.delay.Quantiles()
		r.Delay = &q
	}
	t.logins.figures(&r)
	return r
}
