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
	// sendAgain is how long a sender pauses whose message the server does not want yet.
	sendAgain = 100 * time.Millisecond
	// lookInterval is how often is looked whether everything is in the mailbox.
	lookInterval = 50 * time.Millisecond
	// addressBits are those of a message's number that count the messages of one
	// addressee; those above say which addressee it is.
	addressBits = 32
)

// addressee is a user who is away.
type addressee struct {
	template *message.Template
	sent     int64 // number of the last message, from 1
	quota    int64 // of messages
}

// letter is a message to an addressee.
type letter struct {
	to     int // in post.addressees
	number int64
}

// poster is a client that sends to users who are away, each user to one.
type poster struct {
	client   *swarm.Client
	to       []int // in post.addressees
	next     int   // in to
	inFlight int   // messages that were not accepted
	again    []letter
	paused   int64 // until when it sends nothing; 0: it does
}

// post is clients that send to users who are away as fast as it is accepted: each has
// some messages under way. It belongs to the thread of the swarm.
type post struct {
	logins
	run        string
	addressees []addressee
	posters    []*poster
	closing    int64 // when the last message may begin; swarm.Never: when all quotas are sent
	duration   time.Duration
	total      int64 // of all quotas

	phase          Phase
	begin, end     int64 // of the first message, and when the last one was accepted
	progress       int64 // when the server last answered
	sent, accepted int64
	acceptance     *figures.Latencies
}

// posted is what post came to.
type posted struct {
	run        string
	counts     []int64 // accepted messages, by addressee
	accepted   int64
	begin      time.Time
	seconds    float64 // until the last one was accepted
	figures    figures.Run
	acceptance figures.Quantiles
}

// sendAway sends to as many users as there are quotas, until these are sent or, unless it
// is 0, for a duration. The first user has the number that follows those of the senders.
func sendAway(ctx context.Context, e Env, quotas []int64, duration time.Duration) (posted, error) {
	e.Options.Features = []string{"accept"}
	s, err := e.newSwarm(ctx, e.Options.Connections)
	if err != nil {
		return posted{}, err
	}
	p := &post{
		logins: newLogins(e, s), run: rand.Text()[:message.RunBytes], closing: swarm.Never, duration: duration,
		acceptance: figures.NewLatencies(),
	}
	for n, quota := range quotas {
		p.total += quota
		p.addressees = append(p.addressees, addressee{quota: quota, template: message.NewTemplate(message.Format{
			Run: p.run, To: []string{e.Options.user(e.Options.Connections + n)}, Size: e.Options.Size, Feature: message.Reliable, References: true,
		})})
	}
	before := time.Now()
	base := s.Now()
	err = s.Run(ctx, p)
	if p.failed != nil {
		err = p.failed
	}
	if err != nil {
		return posted{}, err
	}
	result := posted{
		run: p.run, accepted: p.accepted, begin: before.Add(time.Duration(p.begin - base)), seconds: float64(p.end-p.begin) / nanos,
		acceptance: p.acceptance.Quantiles(), figures: figures.Run{Sent: p.sent, Accepted: p.accepted, Stored: p.accepted},
	}
	for _, a := range p.addressees {
		result.counts = append(result.counts, a.sent)
	}
	p.logins.figures(&result.figures)
	return result, nil
}

// Due takes the run from phase to phase.
func (p *post) Due(now int64) int64 {
	switch p.phase {
	case Connecting, Settling:
		if p.complete(now) {
			p.start()
		}
		return swarm.Never
	case Warming, Measuring:
		if now >= p.closing {
			p.enter(Draining)
		}
	case Draining:
	}
	next := p.closing
	done := p.phase == Draining
	for _, s := range p.posters {
		if s.paused > 0 && now >= s.paused {
			s.paused = 0
			p.pump(s)
		}
		if s.paused > 0 {
			next = min(next, s.paused)
		}
		done = done && s.inFlight == 0 && len(s.again) == 0
	}
	patience := int64(p.env.Options.Patience)
	switch {
	case done:
		p.end = p.progress
		p.swarm.Stop()
	case now-p.progress > patience:
		p.fail(fmt.Errorf("nothing was accepted for %s; answers: %s", p.env.Options.Patience, listed(p.errors)))
	}
	if p.phase == Draining {
		return p.progress + patience
	}
	return next
}

// start begins to send.
func (p *post) start() {
	clients := p.swarm.Clients()
	for _, c := range clients {
		p.posters = append(p.posters, &poster{client: c})
	}
	for n := range p.addressees {
		s := p.posters[n%len(p.posters)]
		s.to = append(s.to, n)
	}
	p.env.Observer.Connected()
	p.env.Observer.Begin()
	p.begin = p.swarm.Now()
	p.progress = p.begin
	if p.duration > 0 {
		p.closing = p.begin + int64(p.duration)
	}
	p.enter(Measuring)
	for _, s := range p.posters {
		p.pump(s)
	}
}

func (p *post) enter(phase Phase) {
	p.phase = phase
	p.env.Progress.enter(phase)
}

// pump sends as much as may be under way.
func (p *post) pump(s *poster) {
	for s.paused == 0 && s.inFlight < p.env.Options.InFlight {
		l, is := p.nextLetter(s)
		now := p.swarm.Now()
		if !is || !s.client.Send(p.addressees[l.to].template.Frame(message.Header{Number: int64(l.to)<<addressBits | l.number, Time: now})) {
			break
		}
		s.inFlight++
		if len(s.again) > 0 {
			s.again = s.again[1:]
			continue
		}
		p.addressees[l.to].sent = l.number
		s.next = (s.next + 1) % len(s.to)
		p.sent++
		p.env.Progress.Sent.Store(p.sent)
	}
	if p.phase == Measuring && p.duration == 0 && p.sent == p.total {
		p.enter(Draining)
	}
}

// nextLetter is what a sender has to send next; false if there is nothing.
func (p *post) nextLetter(s *poster) (letter, bool) {
	if len(s.again) > 0 {
		return s.again[0], true
	}
	if p.phase != Measuring {
		return letter{}, false
	}
	for range s.to {
		n := s.to[s.next]
		if a := &p.addressees[n]; a.sent < a.quota {
			return letter{n, a.sent + 1}, true
		}
		s.next = (s.next + 1) % len(s.to)
	}
	return letter{}, false
}

// Frame takes the answers.
func (p *post) Frame(c *swarm.Client, payload []byte, now int64) {
	kind := message.KindOf(payload)
	if kind != message.Accepted && kind != message.Failed || p.phase == Connecting {
		return
	}
	s := p.posters[c.Index]
	h, is := message.ScanReference(payload)
	if to := h.Number >> addressBits; !is || to < 0 || to >= int64(len(p.addressees)) || s.inFlight == 0 {
		p.fail(fmt.Errorf("an answer to nothing that was sent: %s", codeOf(payload)))
		return
	}
	s.inFlight--
	p.progress = now
	if kind == message.Accepted {
		p.accepted++
		p.env.Progress.Delivered.Store(p.accepted)
		p.acceptance.Record(now - h.Time)
	} else {
		p.errors[codeOf(payload)]++
		s.again = append(s.again, letter{int(h.Number >> addressBits), h.Number & (1<<addressBits - 1)})
		s.paused = now + int64(sendAgain)
	}
	p.pump(s)
}

// Writable lets a sender go on.
func (p *post) Writable(c *swarm.Client, _ int64) {
	if p.phase > Settling {
		p.pump(p.posters[c.Index])
	}
}

// Ended fails the run: nobody would know what was accepted.
func (p *post) Ended(c *swarm.Client, why string, now int64) {
	p.logins.Ended(c, why, now)
	p.fail(fmt.Errorf("the connection of %s has ended: %s", c.User, why))
}

// codeOf is why a server does not take a frame.
func codeOf(payload []byte) string {
	a, err := message.ReadAnswer(payload)
	switch {
	case err != nil:
		return "unreadable"
	case a.Code == "":
		return a.Type
	default:
		return a.Code
	}
}

// What the processors count.
const (
	metricStored = "linker_lane_stored_total"
	metricLag    = "linker_lane_lag_records"
)

// stored is how many messages have ever gone into the mailbox; 0 if nobody says it.
func (e Env) stored(ctx context.Context) (float64, error) {
	if e.Server == nil {
		return 0, nil
	}
	return e.Server.Metric(ctx, metricStored)
}

var errNotStored = errors.New("the mailbox does not get them")

// awaitStored waits until the mailbox has so many messages more than before, and the
// lanes wait for nothing. Of a server that says nothing it is taken for granted after a
// while.
func (e Env) awaitStored(ctx context.Context, before float64, messages int64) error {
	ticker := time.NewTicker(lookInterval)
	defer ticker.Stop()
	last, since := -1.0, time.Now()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		if e.Server == nil {
			if time.Since(since) >= time.Duration(e.Options.Settle) {
				return nil
			}
			continue
		}
		now, err := e.stored(ctx)
		if err != nil {
			return err
		}
		lag, err := e.Server.Metric(ctx, metricLag)
		if err != nil {
			return err
		}
		if lag == 0 && now-before >= float64(messages) {
			return nil
		}
		if progress := now - lag; progress != last {
			last, since = progress, time.Now()
		} else if time.Since(since) > time.Duration(e.Options.Drain) {
			return fmt.Errorf("%v of %d messages are stored, and lanes have %v records to do: %w", now-before, messages, lag, errNotStored)
		}
	}
}
