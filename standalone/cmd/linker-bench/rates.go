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
	"github.com/linkerhq/linker/standalone/internal/bench/workload"
)

// rates are open loops, one faster than the other.
type rates struct {
	list     []float64     // messages a second
	until    time.Duration // of 99 % of latencies: no higher rate is tried after that
	duration workload.Span
	warmup   workload.Span
}

func (r *rates) flags(flags *flag.FlagSet) {
	r.list = []float64{1000, 2000, 5000, 10_000, 15_000, 20_000, 30_000, 40_000, 50_000, 60_000, 70_000, 80_000, 100_000}
	r.until, r.duration, r.warmup = 100*time.Millisecond, workload.Span(5*time.Second), workload.Span(2*time.Second)
	flags.Func("rates", "messages a `second`, separated by commas (default 1000 to 100000)", func(text string) error {
		r.list = nil
		for part := range strings.SplitSeq(text, ",") {
			rate, err := strconv.ParseFloat(part, 64)
			if err != nil {
				return errors.New("expected numbers, separated by commas")
			}
			r.list = append(r.list, rate)
		}
		return nil
	})
	flags.DurationVar(&r.until, "until", r.until, "`latency` of 99 % beyond which no higher rate is tried")
	spanVar(flags, &r.duration, "duration", "how `long` each rate is measured")
	spanVar(flags, &r.warmup, "warmup", "how `long` the same is done before")
}

// check names what cannot be used.
func (r rates) check() error {
	var mistakes []error
	for i, rate := range r.list {
		if rate <= 0 || i > 0 && rate <= r.list[i-1] {
			mistakes = append(mistakes, fmt.Errorf("--rates %v: expected more than 0, and more than the one before", rate))
		}
	}
	if r.duration <= 0 || r.warmup < 0 {
		mistakes = append(mistakes, fmt.Errorf("--duration %s, --warmup %s: expected more than 0s, and at least 0s", r.duration, r.warmup))
	}
	return errors.Join(mistakes...)
}

// climber is a server with growing rates.
type climber struct {
	server  string
	feature message.Feature
	over    bool // it is too slow already
}

// rates runs every rate on all servers in turn, and leaves out those for which the one
// before was too high.
func (t *trial) rates(ctx context.Context) error {
	o := t.options
	open, known := workload.Find("open")
	if !known {
		return errors.New("there is no workload open")
	}
	o.workload = open
	o.params.Duration, o.params.Warmup = o.rates.duration, o.rates.warmup
	climbers := []*climber{{server: o.measured(), feature: message.Fast}, {server: o.measured(), feature: message.Reliable}, {server: serverRelay, feature: message.Fast}}
	steps := make([][]report.Step, len(climbers))
	for _, rate := range o.rates.list {
		for i, c := range climbers {
			if c.over {
				continue
			}
			one := o
			one.params.Rate, one.params.Feature = rate, c.feature
			t.progress.Say("%s %s at %v/s", c.server, c.feature, rate)
			results, err := t.on(ctx, one, c.server)
			if err != nil {
				return err
			}
			r := results[0]
			steps[i] = append(steps[i], report.Step{Label: strconv.FormatFloat(rate, 'f', -1, 64), Result: r})
			c.over = r.Figures.Latency.P99 > o.rates.until.Seconds()*1000 || r.Figures.Unsent > 0
		}
	}
	fmt.Fprintln(t.process.Stdout)
	return report.WriteAxis(t.process.Stdout, "messages/s", slices.Concat(steps...))
}
