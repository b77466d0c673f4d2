package workload

import (
	"context"
	"flag"
	"fmt"
	"time"

	"github.com/linkerhq/linker/standalone/internal/bench/figures"
)

// hops is messages that go from domain to domain.
func hops() Workload {
	return Workload{
		Name: "hops", Summary: "users of the first of --domains in a line send to users of each of them, one domain after another, at --rate",
		Without: []string{"pause", "patience", "settle", "references"},
		Flags: func(flags *flag.FlagSet, o *Options) {
			o.Connections, o.Rate, o.Duration, o.Warmup = 20, 200, Span(3*time.Second), Span(500*time.Millisecond)
			flags.IntVar(&o.Domains, "domains", o.Domains, "`number` of domains")
		},
		Validate: func(o Options) error {
			if o.Rate <= 0 {
				return fmt.Errorf("--rate %v: expected more than 0 messages a second", o.Rate)
			}
			return nil
		},
		Domains: func(o Options) int { return o.Domains },
		Run:     runHops,
	}
}

// runHops measures one distance after another: what is under way over one is alone.
func runHops(ctx context.Context, e Env) (figures.Run, error) {
	if e.Server == nil || len(e.URLs) < e.Options.Domains {
		return figures.Run{}, fmt.Errorf("%d URLs: expected one of each of %d domains", len(e.URLs), e.Options.Domains)
	}
	if first, end := e.Server.Home(0); e.Options.FirstUser+2*int64(e.Options.Connections) > end-first {
		return figures.Run{}, fmt.Errorf("--first-user %d: expected 0 to %d, so that all are at home in the domains that they connect to",
			e.Options.FirstUser, end-first-2*int64(e.Options.Connections))
	}
	var all figures.Run
	seen := &enclosing{Observer: e.Observer}
	for distance := range e.Options.Domains {
		pairs := e.Options.Connections
		e.place = func(n int) (url int, user int64) {
			if n >= pairs { // receivers
				url = distance
			}
			first, _ := e.Server.Home(url)
			return url, first + e.Options.FirstUser + int64(n)
		}
		seen.last = distance == e.Options.Domains-1
		e.Observer = seen
		r, err := runTraffic(ctx, e, shape{
			clients: 2 * pairs, senders: upTo(pairs),
			to:       func(n int) []int { return []int{n + pairs} },
			senderOf: func(n int) int { return n - pairs },
		})
		if err != nil {
			return figures.Run{}, fmt.Errorf("%d domains away: %w", distance, err)
		}
		add(&all, r)
		all.Latency = r.Latency // of the last domain, in the end
		all.Hops = append(all.Hops, figures.Hop{Hops: distance, Deliveries: r.Deliveries, Lost: r.Lost, Rate: r.DeliveryRate, Latency: r.Latency})
	}
	rate := 0.0
	for _, h := range all.Hops {
		rate += *h.Rate / float64(len(all.Hops))
	}
	all.DeliveryRate = figures.Of(rate)
	return all, nil
}

// add adds the counts of a run to those of others.
func add(to *figures.Run, r figures.Run) {
	to.Seconds += r.Seconds
	to.Sent += r.Sent
	to.Deliveries += r.Deliveries
	to.Accepted += r.Accepted
	to.Unsent += r.Unsent
	to.Refused += r.Refused
	to.Lost += r.Lost
	to.Duplicates += r.Duplicates
	to.Disordered += r.Disordered
	to.Damaged += r.Damaged
	to.Connections = r.Connections
	to.ConnectionsClosed += r.ConnectionsClosed
	to.LoginFailures += r.LoginFailures
	to.LoginRetries += r.LoginRetries
	for what, n := range r.Errors {
		if to.Errors == nil {
			to.Errors = map[string]int64{}
		}
		to.Errors[what] += n
	}
}

// enclosing takes several runs for one: it tells of the first begin and the last end.
type enclosing struct {
	Observer

	begun, last bool
}

// Connected tells the first time.
func (o *enclosing) Connected() {
	if !o.begun {
		o.Observer.Connected()
	}
}

// Begin tells the first time.
func (o *enclosing) Begin() {
	if !o.begun {
		o.begun = true
		o.Observer.Begin()
	}
}

// End tells the last time.
func (o *enclosing) End() {
	if o.last {
		o.Observer.End()
	}
}
