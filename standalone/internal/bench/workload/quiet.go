package workload

import (
	"context"
	"flag"

	"github.com/linkerhq/linker/standalone/internal/bench/figures"
	"github.com/linkerhq/linker/standalone/internal/bench/message"
	"github.com/linkerhq/linker/standalone/internal/bench/swarm"
)

// idle is many connections on which nothing happens.
func idle() Workload {
	return Workload{
		Name: "idle", Summary: "connections that log in and say nothing: what they cost",
		Without: silent(),
		Run:     func(ctx context.Context, e Env) (figures.Run, error) { return runQuiet(ctx, e, true) },
	}
}

// storm is many that come at once.
func storm() Workload {
	return Workload{
		Name: "storm", Summary: "all connections log in as fast as they get in",
		Without: append(silent(), "duration", "settle"),
		Flags:   func(_ *flag.FlagSet, o *Options) { o.Concurrency = 500 },
		Run:     func(ctx context.Context, e Env) (figures.Run, error) { return runQuiet(ctx, e, false) },
	}
}

// silent are the flags that mean nothing where nothing is sent.
func silent() []string {
	return []string{"pause", "rate", "warmup", "drain", "patience", "feature", "size", "references", "confirm"}
}

// quiet are clients that send nothing. It belongs to the thread of the swarm.
type quiet struct {
	logins
	stays bool // else the run is over when all are in
	phase Phase
	from  int64 // begin of what is measured
	until int64 // end of the phase
}

// runQuiet lets all clients in, and measures that, or what comes after it.
func runQuiet(ctx context.Context, e Env, stays bool) (figures.Run, error) {
	s, err := e.newSwarm(ctx, e.Options.Connections)
	if err != nil {
		return figures.Run{}, err
	}
	q := &quiet{logins: newLogins(e, s), stays: stays}
	if !stays {
		e.Observer.Begin()
	}
	err = s.Run(ctx, q)
	if q.failed != nil {
		err = q.failed
	}
	if err != nil {
		return figures.Run{}, err
	}
	r := figures.Run{Seconds: float64(q.until-q.from) / nanos}
	q.logins.figures(&r)
	return r, nil
}

// Frame counts what should not come.
func (q *quiet) Frame(_ *swarm.Client, payload []byte, _ int64) {
	if kind := message.KindOf(payload); kind != message.Other {
		q.errors["got: "+kind.String()]++
	}
}

// Due takes the run from phase to phase.
func (q *quiet) Due(now int64) int64 {
	o := q.env.Options
	switch {
	case q.phase == Connecting:
		if !q.complete(now) {
			return swarm.Never
		}
		if !q.stays {
			q.from, q.until = q.begun, q.last
			q.env.Observer.End()
			q.swarm.Stop()
			return swarm.Never
		}
		q.enter(Settling, now+int64(o.Settle))
	case q.phase == Settling && now >= q.until:
		q.env.Observer.Connected()
		q.env.Observer.Begin()
		q.from = q.swarm.Now()
		q.enter(Measuring, q.from+int64(o.Duration))
	case q.phase == Measuring && now >= q.until:
		q.env.Observer.End()
		q.swarm.Stop()
	}
	return q.until
}

func (q *quiet) enter(phase Phase, until int64) {
	q.phase, q.until = phase, until
	q.env.Progress.enter(phase)
}
