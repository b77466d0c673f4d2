package main

import (
	"fmt"
	"time"

	"github.com/linkerhq/linker/standalone/internal/bench/message"
	"github.com/linkerhq/linker/standalone/internal/bench/workload"
)

// item is one workload of the standard set.
type item struct {
	workload string
	change   func(o *workload.Options)
	baseline bool // a relay can do the same
}

// standardSet is what make bench runs.
func standardSet() []item {
	fast := func(o *workload.Options) { o.Feature = message.Fast }
	short := func(o *workload.Options) {
		o.Duration, o.Warmup = workload.Span(5*time.Second), workload.Span(time.Second)
	}
	with := func(changes ...func(o *workload.Options)) func(o *workload.Options) {
		return func(o *workload.Options) {
			for _, change := range append([]func(*workload.Options){short}, changes...) {
				change(o)
			}
		}
	}
	connections := func(n int) func(o *workload.Options) {
		return func(o *workload.Options) { o.Connections = n }
	}
	rate := func(r float64) func(o *workload.Options) {
		return func(o *workload.Options) { o.Rate = r }
	}
	few := func(o *workload.Options) { o.Duration = workload.Span(2 * time.Second) } // for each distance
	references := func(o *workload.Options) { o.References = true }
	return []item{
		{"closed", with(fast), true},
		{"closed", with(), true},
		{"closed", with(references), true},
		{"closed", with(connections(4000)), true},
		{"open", with(fast, rate(5000)), true},
		{"open", with(rate(5000)), true},
		{"open", with(fast, rate(10000)), true},
		{"open", with(rate(10000)), true},
		{"pairs", with(), true},
		{"group", with(fast), true},
		{"group", with(), true},
		{"idle", with(connections(10_000)), true},
		{"storm", with(connections(10_000)), true},
		{"store", with(), false},
		{"fetch", with(), false},
		{"hops", with(fast, few), false},
		{"hops", with(few), false},
		{"recover", with(), false},
	}
}

// runsOf are the runs of the standard set, each with its parameters.
func (o options) runsOf() ([]options, error) {
	if !o.set {
		return []options{o}, nil
	}
	var list []options
	for _, item := range standardSet() {
		one := o
		var known bool
		if one.workload, known = workload.Find(item.workload); !known {
			return nil, fmt.Errorf("the standard set has a workload %q, which there is not", item.workload)
		}
		if of := one.workload.Domains; of != nil && (len(o.urls) > 0 || o.apart.is && of(o.params) > 1) {
			continue // it needs a server that was started for it, with all domains in one process
		}
		one.params = o.params
		if one.workload.Flags != nil {
			one.workload.Flags(discarded(), &one.params)
		}
		item.change(&one.params)
		one.baseline = o.baseline && item.baseline
		list = append(list, one)
	}
	return list, nil
}
