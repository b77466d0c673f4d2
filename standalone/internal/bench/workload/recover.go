package workload

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"slices"
	"time"

	"github.com/linkerhq/linker/standalone/internal/bench/figures"
	"github.com/linkerhq/linker/standalone/internal/bench/message"
	"github.com/linkerhq/linker/standalone/internal/bench/swarm"
)

const (
	// comeBack is how long a client waits that was cut off: little, since the server is
	// measured, and not the client's patience.
	comeBack = 50 * time.Millisecond
	// steady is how long all goes well before a crash.
	steady = 2 * time.Second
	// recoverWithin is how long is waited for those who have got nothing after a crash.
	recoverWithin = time.Minute
	// dying is the time of the end of a process that is being killed.
	dying = -1
)

// recovery is crashes under load.
func recovery() Workload {
	return Workload{
		Name: "recover", Summary: "messages at --rate, each to its sender, while a process of the server is killed, --crashes times; clients come back and send again what was not accepted",
		Without: []string{"pause", "patience", "settle", "warmup", "duration", "feature", "references", "confirm", "features"},
		Flags: func(flags *flag.FlagSet, o *Options) {
			o.Connections, o.Rate = 50, 500
			flags.IntVar(&o.Crashes, "crashes", o.Crashes, "`number` of crashes")
			flags.Func("victim", "what is killed of a server of several processes, `connector or processor` (default connector)", func(text string) error {
				o.Victim = Victim(text)
				return nil
			})
		},
		Validate: func(o Options) error {
			if o.Rate <= 0 {
				return fmt.Errorf("--rate %v: expected more than 0 messages a second", o.Rate)
			}
			return nil
		},
		Domains: oneDomain, Kills: true,
		Run: runRecovery,
	}
}

// owed is a message that is not accepted.
type owed struct{ number, due int64 }

// survivor is a client that sends to itself, whatever happens.
type survivor struct {
	client   *swarm.Client
	template *message.Template
	url      int // where it connects: another one after each loss
	number   int64
	owed     []owed // oldest first
	written  int    // of these, on this connection
	again    int64  // when it sends again what was refused; 0: nothing was
	stream   figures.Stream
	served   bool // has got something since the crash
}

// crash is what became of an attempt to kill a process.
type crash struct {
	back func() error // starts it again
	err  error
}

// crashes is clients, and a server that is killed under them. It belongs to the thread
// of the swarm.
type crashes struct {
	logins
	kill      func() (back func() error, err error)
	run       string
	survivors []*survivor
	schedule  schedule
	next      int64 // number of the message that is due next, from 0

	phase    Phase
	end      int64      // when the last message was due; 0: there are more
	crashAt  int64      // of the crash under way, or to come
	deadAt   int64      // when it had ended; 0: it has not; or dying
	crashed  chan crash // gets one, for each crash
	returned chan error // gets one, for each process that serves again
	back     func() error
	waits    bool // for a process to serve again
	done     int64

	sent, accepted, delivered, stuck, damaged int64
	recoveries, latency                       *figures.Latencies
}

func runRecovery(ctx context.Context, e Env) (figures.Run, error) {
	if e.Server == nil {
		return figures.Run{}, errors.New("expected a server that can be killed; this one was not started here")
	}
	o := e.Options
	e.Options.Features = []string{"accept", "push"}
	c := &crashes{
		kill: func() (func() error, error) { return e.Server.Crash(ctx, o.Victim) },
		run:  rand.Text()[:message.RunBytes], crashed: make(chan crash, 1), returned: make(chan error, 1),
		recoveries: figures.NewLatencies(), latency: figures.NewLatencies(),
	}
	for n := range o.Connections {
		c.survivors = append(c.survivors, &survivor{url: n, template: message.NewTemplate(message.Format{
			Run: c.run, To: []string{o.user(n)}, Size: o.Size, Feature: message.Reliable, References: true, IDs: true,
		})})
	}
	e.comeBack = comeBack
	e.place = func(n int) (int, int64) { return c.survivors[n].url, o.FirstUser + int64(n) }
	s, err := e.newSwarm(ctx, o.Connections)
	if err != nil {
		return figures.Run{}, err
	}
	c.logins = newLogins(e, s)
	for n, client := range s.Clients() {
		c.survivors[n].client = client
	}
	err = s.Run(ctx, c)
	if c.failed != nil {
		err = c.failed
	}
	if c.deadAt == dying {
		<-c.crashed
	}
	if c.waits {
		err = errors.Join(err, <-c.returned)
	}
	if err != nil {
		return figures.Run{}, err
	}
	return c.result(), nil
}

// Due takes the run from phase to phase.
func (c *crashes) Due(now int64) int64 {
	switch c.phase {
	case Connecting, Settling, Warming:
		if !c.complete(now) {
			return swarm.Never
		}
		c.env.Observer.Connected()
		c.env.Observer.Begin()
		now = c.swarm.Now()
		c.schedule = schedule{begin: now, end: swarm.Never, rate: c.env.Options.Rate}
		c.crashAt = now + int64(steady)
		c.enter(Measuring)
	case Measuring:
		c.follow(now)
	case Draining:
		if c.delivered == c.sent && now-c.end >= int64(afterLast) || now-c.end >= int64(c.env.Options.Drain) {
			c.swarm.Stop()
		}
		return now + int64(lookInterval)
	}
	return min(c.send(now), now+int64(lookInterval))
}

func (c *crashes) enter(phase Phase) {
	c.phase = phase
	c.env.Progress.enter(phase)
}

// send sends what is due.
func (c *crashes) send(now int64) int64 {
	for _, s := range c.survivors {
		if s.again > 0 && now >= s.again {
			s.again, s.written = 0, 0
			c.flush(s)
		}
	}
	for {
		at, _ := c.schedule.at(c.next)
		if at > now {
			return at
		}
		s := c.survivors[c.next%int64(len(c.survivors))]
		c.next++
		s.number++
		s.owed = append(s.owed, owed{s.number, at})
		c.sent++
		c.env.Progress.Sent.Store(c.sent)
		c.flush(s)
	}
}

// flush writes what is owed and was not written on this connection.
func (c *crashes) flush(s *survivor) {
	for s.again == 0 && s.written < len(s.owed) {
		o := s.owed[s.written]
		if !s.client.Send(s.template.Frame(message.Header{Number: o.number, Time: o.due})) {
			return
		}
		s.written++
	}
}

// follow begins a crash, sees to its end, and begins the next one.
func (c *crashes) follow(now int64) {
	select {
	case died := <-c.crashed:
		if died.err != nil {
			c.fail(died.err)
			return
		}
		c.back, c.deadAt = died.back, now
	case err := <-c.returned:
		c.waits = false
		if err != nil {
			c.fail(err)
			return
		}
		c.crashAt = now + int64(steady)
		if c.done == int64(c.env.Options.Crashes) {
			c.end = now
			c.env.Observer.End()
			c.enter(Draining)
			return
		}
	default:
	}
	switch {
	case c.waits || c.crashAt == 0:
	case c.deadAt == 0 && now >= c.crashAt:
		c.begin(now)
	case c.deadAt > 0 && (!slices.ContainsFunc(c.survivors, func(s *survivor) bool { return !s.served }) || now-c.crashAt >= int64(recoverWithin)):
		c.finish()
	}
}

// begin kills a process.
func (c *crashes) begin(now int64) {
	for _, s := range c.survivors {
		s.served = false
	}
	c.crashAt = now
	c.deadAt = dying
	go func() {
		back, err := c.kill()
		c.crashed <- crash{back, err}
	}()
}

// finish counts those who have got nothing, and brings the process back.
func (c *crashes) finish() {
	c.done++
	for _, s := range c.survivors {
		if !s.served {
			c.stuck++
		}
	}
	c.deadAt, c.waits = 0, true
	back := c.back
	go func() { c.returned <- back() }()
}

// LoggedIn sends again what was not accepted.
func (c *crashes) LoggedIn(client *swarm.Client, now int64) {
	if c.phase == Connecting {
		c.logins.LoggedIn(client, now)
	}
	s := c.survivors[client.Index]
	s.written, s.again = 0, 0
	if c.phase > Connecting {
		c.flush(s)
	}
}

// Ended lets a client go to another connector, if there is one.
func (c *crashes) Ended(client *swarm.Client, why string, _ int64) {
	c.closed++
	c.errors[why]++
	s := c.survivors[client.Index]
	s.url++
	s.written = 0
}

// Writable lets a client go on.
func (c *crashes) Writable(client *swarm.Client, _ int64) {
	if c.phase > Connecting {
		c.flush(c.survivors[client.Index])
	}
}

// Frame takes what a client gets.
func (c *crashes) Frame(client *swarm.Client, payload []byte, now int64) {
	s := c.survivors[client.Index]
	switch message.KindOf(payload) {
	case message.Delivered:
		c.take(s, payload, now)
	case message.Accepted:
		if h, is := message.ScanReference(payload); is {
			c.accept(s, h.Number)
		}
	case message.Failed:
		c.errors[codeOf(payload)]++
		s.again = now + int64(sendAgain)
	case message.Going:
		c.errors["going-away"]++
	case message.Other, message.Confirmed, message.LoggedIn, message.Fetched:
	}
}

// accept takes a message from those that are owed.
func (c *crashes) accept(s *survivor, number int64) {
	for i, o := range s.owed {
		if o.number != number {
			continue
		}
		s.owed = slices.Delete(s.owed, i, i+1)
		if i < s.written {
			s.written--
		}
		c.accepted++
		return
	}
}

func (c *crashes) take(s *survivor, payload []byte, now int64) {
	h, err := message.ScanMessage(payload, c.run, c.env.Options.Size)
	switch {
	case errors.Is(err, message.ErrStranger):
		c.errors["message-of-another-run"]++
		return
	case err != nil || h.Number > s.number:
		c.damaged++
		return
	}
	if !s.stream.Take(h.Number) {
		return
	}
	c.delivered++
	c.env.Progress.Delivered.Store(c.delivered)
	c.latency.Record(now - h.Time)
	if c.deadAt > 0 && !s.served && h.Time >= c.deadAt {
		s.served = true
		c.recoveries.Record(now - c.crashAt)
	}
}

// result is what the run came to.
func (c *crashes) result() figures.Run {
	recovered, latency := c.recoveries.Quantiles(), c.latency.Quantiles()
	r := figures.Run{
		Seconds: float64(c.end-c.schedule.begin) / nanos, Sent: c.sent, Accepted: c.accepted, Deliveries: c.delivered, Lost: c.sent - c.delivered,
		Damaged: c.damaged, Recovery: &recovered, Crashes: c.done, Stuck: c.stuck, Latency: &latency,
	}
	for _, s := range c.survivors {
		r.Duplicates += s.stream.Duplicates()
		r.Disordered += s.stream.Disordered()
	}
	r.DeliveryRate = figures.Of(float64(c.delivered) / r.Seconds)
	closed := c.closed
	c.logins.figures(&r)
	r.ConnectionsClosed, r.LoginFailures, r.LoginRetries = 0, 0, 0 // as it has to be; the reasons are below the table
	if closed > 0 {
		r.Errors["connections that ended"] = closed
	}
	return r
}
