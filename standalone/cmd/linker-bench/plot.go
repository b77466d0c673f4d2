package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/linkerhq/linker/standalone/internal/bench/figures"
	"github.com/linkerhq/linker/standalone/internal/bench/plot"
	"github.com/linkerhq/linker/standalone/internal/bench/report"
)

// longestLine is the longest line of a file of results.
const longestLine = 1 << 20

// drawFiles draws what files of results have: latency against the rate, and against the
// number of domains on the way. Of several results at one place the last one counts.
func drawFiles(args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet(runPlot, flag.ContinueOnError)
	out := flags.String("out", ".", "`directory` for the pictures")
	files := args
	if n := slices.IndexFunc(args, func(arg string) bool { return strings.HasPrefix(arg, "-") }); n >= 0 {
		files, args = args[:n], args[n:]
	} else {
		args = nil
	}
	err := parseFlags(flags, args, stdout, "Usage: linker-bench plot FILE… [flags]\n\nDraws what rates and hops have written to files of --json.")
	switch {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return err
	case len(files) == 0:
		return errors.New("nothing to draw: expected a file of --json")
	}
	var results []report.Result
	for _, file := range files {
		more, err := readResults(file)
		if err != nil {
			return err
		}
		results = append(results, more...)
	}
	drawn := 0
	for _, picture := range []struct {
		name  string
		chart plot.Chart
	}{
		{"latency-rate.svg", overRates(results)},
		{"latency-hops-p50.svg", overHops(results, "p50")},
		{"latency-hops-p99.svg", overHops(results, "p99")},
	} {
		if len(picture.chart.Series) == 0 {
			continue
		}
		file := filepath.Join(*out, picture.name)
		if err := draw(file, picture.chart); err != nil {
			return err
		}
		fmt.Fprintln(stdout, file)
		drawn++
	}
	if drawn == 0 {
		return fmt.Errorf("nothing to draw in %s: expected results of open, rates or hops", strings.Join(files, ", "))
	}
	return nil
}

// readResults reads a file of --json.
func readResults(file string) ([]report.Result, error) {
	in, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = in.Close() }() // it was read only
	var list []report.Result
	scanner := bufio.NewScanner(in)
	scanner.Buffer(nil, longestLine)
	for n := 1; scanner.Scan(); n++ {
		var r report.Result
		if err := json.Unmarshal(scanner.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("%s, line %d: expected a result of --json: %w", file, n, err)
		}
		list = append(list, r)
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return list, nil
}

func draw(file string, chart plot.Chart) error {
	out, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	return errors.Join(chart.WriteSVG(out), out.Close())
}

// overRates is latency against the rate of open loops.
func overRates(results []report.Result) plot.Chart {
	lines := &lines{}
	for _, r := range results {
		if r.Workload == "open" {
			lines.add(r, r.Parameters.Rate, r.Figures.Latency)
		}
	}
	return plot.Chart{
		Title: "How long a message takes, by the rate", X: plot.Axis{Name: "messages a second", Log: true}, Y: plot.Axis{Name: "latency, ms", Log: true},
		Series: lines.series("p50", "p99"),
	}
}

// overHops is a quantile of latency against the number of domains on the way. Each has
// a picture of its own: the scales are too different.
func overHops(results []report.Result, quantile string) plot.Chart {
	lines := &lines{}
	for _, r := range results {
		for _, h := range r.Figures.Hops {
			lines.add(r, float64(h.Hops), h.Latency)
		}
	}
	return plot.Chart{
		Title: "How long a message takes, by the domains it has to go", X: plot.Axis{Name: "domains further"}, Y: plot.Axis{Name: "latency " + quantile + ", ms"},
		Series: lines.series(quantile),
	}
}

// lines gathers what was measured, by server and feature.
type lines struct {
	names  []string // in their order
	points map[string]map[float64]figures.Quantiles
}

func (l *lines) add(r report.Result, x float64, q *figures.Quantiles) {
	if q == nil || q.Count == 0 {
		return
	}
	name := r.Server
	if r.Server != serverRelay {
		name += " " + string(r.Parameters.Feature)
	}
	if l.points == nil {
		l.points = map[string]map[float64]figures.Quantiles{}
	}
	if l.points[name] == nil {
		l.points[name] = map[float64]figures.Quantiles{}
		l.names = append(l.names, name)
	}
	l.points[name][x] = *q
}

// series are the lines of some quantiles: p50, p99.
func (l *lines) series(quantiles ...string) []plot.Series {
	var list []plot.Series
	for n, name := range l.names {
		for i, quantile := range quantiles {
			s := plot.Series{Name: name + " " + quantile, Colour: n, Dashed: i > 0}
			for x, q := range l.points[name] {
				y := q.P50
				if quantile == "p99" {
					y = q.P99
				}
				s.Points = append(s.Points, plot.Point{X: x, Y: y})
			}
			slices.SortFunc(s.Points, func(a, b plot.Point) int { return cmp.Compare(a.X, b.X) })
			list = append(list, s)
		}
	}
	return list
}
