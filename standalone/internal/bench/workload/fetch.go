package workload

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"

	"github.com/linkerhq/linker/standalone/internal/bench/figures"
	"github.com/linkerhq/linker/standalone/internal/bench/message"
	"github.com/linkerhq/linker/standalone/internal/bench/swarm"
)

const (
	// maxFetch is how many messages one request brings at most.
	maxFetch = 2000
	// eachOther is how many messages wait for each of the others.
	eachOther = 1000
)

// fetch is users who come back to what they have missed.
func fetch() Workload {
	return Workload{
		Name: "fetch", Summary: "users come back and fetch --stored messages, one user after another, while --others wait for others",
		Without: append(waiting(), "duration"),
		Flags: func(flags *flag.FlagSet, o *Options) {
			o.Connections = 100
			awayFlags(flags, o)
			flags.IntVar(&o.Stored, "stored", o.Stored, "`number` of messages that wait for each user who comes back")
			flags.IntVar(&o.Others, "others", o.Others, "`number` of messages that wait for others, who stay away")
		},
		Validate: awayUsable,
		Domains:  oneDomain,
		Run:      runFetch,
	}
}

// awayFlags are those of workloads with users who are away.
func awayFlags(flags *flag.FlagSet, o *Options) {
	flags.IntVar(&o.Users, "users", o.Users, "`number` of users who are away and are sent messages")
	flags.IntVar(&o.InFlight, "in-flight", o.InFlight, "`number` of messages of a connection that are sent and not accepted yet")
}

// awayUsable says what such a workload cannot use.
func awayUsable(o Options) error {
	if slices.Contains(o.Features, "push") {
		return errors.New(`--features "push": expected accept and ack at most; nothing would be left to fetch`)
	}
	return nil
}

func oneDomain(Options) int { return 1 }

// unseen observes nothing.
type unseen struct{}

// Connected does nothing.
func (unseen) Connected() {}

// Begin does nothing.
func (unseen) Begin() {}

// End does nothing.
func (unseen) End() {}

func runFetch(ctx context.Context, e Env) (figures.Run, error) {
	o := e.Options
	var quotas []int64
	for range o.Users {
		quotas = append(quotas, int64(o.Stored))
	}
	for left := o.Others; left > 0; left -= eachOther {
		quotas = append(quotas, int64(min(left, eachOther)))
	}
	filling := e
	filling.Observer = unseen{}
	r, p, err := fill(ctx, filling, quotas, 0)
	if err != nil {
		return figures.Run{}, err
	}
	f, err := fetchAll(ctx, e, p, upTo(o.Users))
	if err != nil {
		return figures.Run{}, err
	}
	f.fill(&r)
	r.Seconds = f.seconds
	r.DeliveryRate = figures.Of(float64(f.fetched) / f.seconds)
	return r, nil
}

// fetcher is users who log in and fetch all that waits for them, one after another. It
// belongs to the thread of the swarm.
type fetcher struct {
	logins
	post    posted
	users   []int // in post.counts, by client
	streams []figures.Stream

	current   int // client that fetches; -1: none yet
	begun     int64
	asked     int64
	fetches   *figures.Latencies
	fetched   int64
	seconds   float64
	strange   int64
	damaged   int64
	resending bool // the order is not that of the first attempts
}

// fetchAll lets some of the users who were away fetch what was sent to them.
func fetchAll(ctx context.Context, e Env, p posted, users []int) (*fetcher, error) {
	first := e.Options.FirstUser + int64(e.Options.Connections)
	e.place = func(n int) (int, int64) { return n, first + int64(users[n]) }
	s, err := e.newSwarm(ctx, len(users))
	if err != nil {
		return nil, err
	}
	f := &fetcher{
		logins: newLogins(e, s), post: p, users: users, streams: make([]figures.Stream, len(users)), current: -1,
		fetches: figures.NewLatencies(), resending: len(p.figures.Errors) > 0,
	}
	e.Progress.Delivered.Store(0)
	err = s.Run(ctx, f)
	if f.failed != nil {
		err = f.failed
	}
	return f, err
}

// Due begins when all are there, and gives up when no answer comes.
func (f *fetcher) Due(now int64) int64 {
	patience := int64(f.env.Options.Patience)
	switch {
	case f.current < 0:
		if !f.complete(now) {
			return swarm.Never
		}
		f.env.Progress.enter(Measuring)
		f.env.Observer.Connected()
		f.env.Observer.Begin()
		f.current, f.begun = 0, f.swarm.Now()
		f.ask()
	case now-f.asked >= patience:
		f.fail(fmt.Errorf("a fetch is not complete after %s: %d of %d messages have come", f.env.Options.Patience, f.streams[f.current].Taken(), f.post.counts[f.users[f.current]]))
	}
	return f.asked + patience
}

// ask sends a request of the user whose turn it is.
func (f *fetcher) ask() {
	f.asked = f.swarm.Now()
	if !f.swarm.Clients()[f.current].Send(message.AppendFetch(nil, maxFetch)) {
		f.fail(fmt.Errorf("%s cannot send", f.swarm.Clients()[f.current].User))
	}
}

// Frame takes what was stored, and the end of a fetch.
func (f *fetcher) Frame(c *swarm.Client, payload []byte, now int64) {
	switch message.KindOf(payload) {
	case message.Delivered:
		f.take(c, payload)
	case message.Fetched:
		if c.Index != f.current {
			f.errors["fetched-without-being-asked"]++
			return
		}
		f.fetches.Record(now - f.asked)
		left, is := message.ScanLeft(payload)
		if !is {
			f.damaged++
		}
		if left == 0 {
			f.current++
		}
		if f.current < len(f.users) {
			f.ask()
			return
		}
		f.seconds = float64(now-f.begun) / nanos
		f.env.Observer.End()
		f.swarm.Stop()
	case message.Failed:
		f.fail(fmt.Errorf("a fetch was refused: %s", codeOf(payload)))
	case message.Other, message.Confirmed, message.Accepted, message.LoggedIn, message.Going:
	}
}

func (f *fetcher) take(c *swarm.Client, payload []byte) {
	h, err := message.ScanMessage(payload, f.post.run, f.env.Options.Size)
	switch {
	case errors.Is(err, message.ErrStranger):
		f.strange++
	case err != nil || h.Number>>addressBits != int64(f.users[c.Index]):
		f.damaged++
	case f.streams[c.Index].Take(h.Number & (1<<addressBits - 1)):
		f.fetched++
		f.env.Progress.Delivered.Store(f.fetched)
	}
}

// Writable changes nothing: there is one request at a time.
func (f *fetcher) Writable(*swarm.Client, int64) {}

// fill adds what was fetched to a run.
func (f *fetcher) fill(r *figures.Run) {
	for i, n := range f.users {
		r.Lost += f.post.counts[n] - f.streams[i].Taken()
		r.Duplicates += f.streams[i].Duplicates()
		if !f.resending {
			r.Disordered += f.streams[i].Disordered()
		}
	}
	r.Deliveries, r.Damaged = f.fetched, r.Damaged+f.damaged
	q := f.fetches.Quantiles()
	r.Fetch = &q
	r.ConnectionsClosed += f.closed
	errors := f.errors
	if f.strange > 0 {
		errors["message-of-another-run"] = f.strange
	}
	for what, n := range errors {
		if r.Errors == nil {
			r.Errors = map[string]int64{}
		}
		r.Errors[what] += n
	}
}
