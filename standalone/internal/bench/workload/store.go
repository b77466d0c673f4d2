package workload

import (
	"context"
	"flag"
	"math"
	"time"

	"github.com/linkerhq/linker/standalone/internal/bench/figures"
)

// sampled is how many of the users who were away fetch everything after it, so that
// losses are seen.
const sampled = 20

// store is messages to users who are away.
func store() Workload {
	return Workload{
		Name: "store", Summary: "each connection sends to users who are away, as fast as it is accepted and stored; some of them fetch it all then",
		Without: waiting(),
		Flags: func(flags *flag.FlagSet, o *Options) {
			o.Connections, o.Users = 100, 1000
			awayFlags(flags, o)
		},
		Validate: awayUsable,
		Domains:  oneDomain,
		Run:      runStore,
	}
}

// waiting are the flags that mean nothing where users are away.
func waiting() []string {
	return []string{"pause", "rate", "warmup", "feature", "references", "confirm"}
}

func runStore(ctx context.Context, e Env) (figures.Run, error) {
	quotas := make([]int64, e.Options.Users)
	for n := range quotas {
		quotas[n] = math.MaxInt32
	}
	r, p, err := fill(ctx, e, quotas, time.Duration(e.Options.Duration))
	if err != nil {
		return figures.Run{}, err
	}
	e.Observer.End()
	var users []int
	for n := range min(sampled, len(p.counts)) {
		users = append(users, n*len(p.counts)/min(sampled, len(p.counts)))
	}
	e.Observer = unseen{}
	f, err := fetchAll(ctx, e, p, users)
	if err != nil {
		return figures.Run{}, err
	}
	f.fill(&r)
	return r, nil
}

// fill sends to users who are away and waits until all of that is stored.
func fill(ctx context.Context, e Env, quotas []int64, duration time.Duration) (figures.Run, posted, error) {
	before, err := e.stored(ctx)
	if err != nil {
		return figures.Run{}, posted{}, err
	}
	p, err := sendAway(ctx, e, quotas, duration)
	if err != nil {
		return figures.Run{}, posted{}, err
	}
	if err := e.awaitStored(ctx, before, p.accepted); err != nil {
		return figures.Run{}, posted{}, err
	}
	r := p.figures
	r.Seconds = time.Since(p.begin).Seconds()
	r.AcceptedRate = figures.Of(float64(p.accepted) / p.seconds)
	r.Acceptance = &p.acceptance
	if e.Server != nil {
		r.StoredRate = figures.Of(float64(p.accepted) / r.Seconds)
	}
	return r, p, nil
}
