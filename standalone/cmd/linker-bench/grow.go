package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/linkerhq/linker/standalone/internal/bench/message"
	"github.com/linkerhq/linker/standalone/internal/bench/report"
	"github.com/linkerhq/linker/standalone/internal/bench/swarm"
	"github.com/linkerhq/linker/standalone/internal/bench/workload"
)

// growth is what is run along axes.
type growth struct {
	axes                         []string
	connections, stored, domains int // at most
	duration                     workload.Span
}

// The axes.
const (
	axisConnections = "connections"
	axisStored      = "stored"
	axisDomains     = "domains"
	axisProcesses   = "processes"
)

// axes are all of them.
func axes() []string { return []string{axisConnections, axisStored, axisDomains, axisProcesses} }

func (g *growth) flags(flags *flag.FlagSet) {
	g.axes, g.connections, g.stored, g.domains, g.duration = axes(), 50_000, 1_000_000, 16, workload.Span(4*time.Second)
	flags.Func("axes", "`axes`, separated by commas (default all: "+strings.Join(g.axes, ",")+")", func(text string) error {
		g.axes = strings.Split(text, ",")
		return nil
	})
	flags.IntVar(&g.connections, "most-connections", g.connections, "`number` of connections at most")
	flags.IntVar(&g.stored, "most-stored", g.stored, "`number` of stored messages at most")
	flags.IntVar(&g.domains, "most-domains", g.domains, "`number` of domains at most")
	spanVar(flags, &g.duration, "duration", "how `long` each step is measured")
}

// check names what cannot be used.
func (g growth) check() error {
	var mistakes []error
	for _, axis := range g.axes {
		if !slices.Contains(axes(), axis) {
			mistakes = append(mistakes, fmt.Errorf("--axes %q: expected some of %s", axis, strings.Join(axes(), ",")))
		}
	}
	if g.connections < 1 || g.stored < 1 || g.domains < 1 {
		mistakes = append(mistakes, errors.New("--most-connections, --most-stored, --most-domains: expected at least 1"))
	}
	if g.duration <= 0 {
		mistakes = append(mistakes, fmt.Errorf("--duration %s: expected more than 0s", g.duration))
	}
	return errors.Join(mistakes...)
}

// planned is a run on an axis.
type planned struct {
	label    string
	workload string
	apart    apart
	change   func(o *workload.Options)
}

// plan lists the runs of an axis.
func (g growth) plan(axis string) []planned {
	var list []planned
	both := func(p planned) {
		for _, feature := range []message.Feature{message.Fast, message.Reliable} {
			one := p
			one.change = func(o *workload.Options) {
				o.Feature = feature
				p.change(o)
			}
			list = append(list, one)
		}
	}
	switch axis {
	case axisConnections:
		for _, n := range upTo(g.connections, 100, 1000, 10_000, 50_000) {
			both(planned{label: strconv.Itoa(n), workload: "open", change: func(o *workload.Options) {
				o.Connections, o.Rate, o.Warmup, o.Duration, o.Concurrency = n, 1000, workload.Span(time.Second), g.duration, 500
				o.LoginWithin = workload.Span(5 * time.Minute)
			}})
		}
	case axisStored:
		for _, n := range upTo(g.stored, 100, 1000, 10_000, 100_000, 1_000_000) {
			list = append(list, planned{label: strconv.Itoa(n), workload: "fetch", change: func(o *workload.Options) { o.Others = n }})
		}
	case axisDomains:
		for _, n := range upTo(g.domains, 1, 2, 4, 8, 16) {
			both(planned{label: strconv.Itoa(n), workload: "hops", change: func(o *workload.Options) {
				o.Domains, o.Duration = n, min(o.Duration, g.duration)
			}})
		}
	case axisProcesses:
		for _, n := range []int{1, 2, 4} {
			both(planned{label: strconv.Itoa(n), workload: "closed", apart: apart{true, n, n}, change: func(o *workload.Options) {
				o.Warmup, o.Duration = workload.Span(time.Second), g.duration
			}})
		}
	}
	return list
}

// upTo are the numbers that are not above the most, and that itself.
func upTo(most int, numbers ...int) []int {
	numbers = slices.DeleteFunc(numbers, func(n int) bool { return n >= most })
	return append(numbers, most)
}

// grow runs everything along all axes, and writes a table for each.
func (t *trial) grow(ctx context.Context) error {
	for _, axis := range t.options.growth.axes {
		var steps []report.Step
		for _, p := range t.options.growth.plan(axis) {
			one := t.options
			var known bool
			if one.workload, known = workload.Find(p.workload); !known {
				return fmt.Errorf("there is no workload %s", p.workload)
			}
			if one.workload.Flags != nil {
				one.workload.Flags(discarded(), &one.params)
			}
			if p.apart.is {
				one.apart = p.apart
			}
			p.change(&one.params)
			if err := swarm.OpenFiles(one.params.Connections); err != nil {
				t.progress.Say("%s %s is left out: %v", p.label, axis, err)
				continue
			}
			t.progress.Say("%s %s, %s %s", p.label, axis, p.workload, one.params.Feature)
			results, err := t.workload(ctx, one)
			if err != nil {
				return fmt.Errorf("%s %s: %w", p.label, axis, err)
			}
			steps = append(steps, report.Step{Label: p.label, Result: results[0]})
		}
		fmt.Fprintln(t.process.Stdout)
		if err := report.WriteAxis(t.process.Stdout, axis, steps); err != nil {
			return err
		}
	}
	return nil
}
