package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Step is a result somewhere on an axis, such as that with 1000 connections.
type Step struct {
	Label  string
	Result Result
}

// WriteAxis writes how figures change along an axis: a line for each step.
func WriteAxis(w io.Writer, name string, steps []Step) error {
	results := make([]Result, 0, len(steps))
	head, lines := []string{name, "server", "feature"}, make([][]string, len(steps))
	for i, s := range steps {
		results = append(results, s.Result)
		lines[i] = []string{s.Label, s.Result.Server, string(s.Result.Parameters.Feature)}
	}
	for _, row := range rows() {
		if !slices.Contains(alongAxis(), row.name) {
			continue
		}
		values, any := row.line(results)
		if !any {
			continue
		}
		head = append(head, row.name)
		for i := range lines {
			lines[i] = append(lines[i], values[1+i])
		}
	}
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	for _, line := range append([][]string{head}, lines...) {
		fmt.Fprintln(table, strings.Join(line, "\t")+"\t")
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("write a table: %w", err)
	}
	return nil
}

// alongAxis are the figures that are shown of each step.
func alongAxis() []string {
	return []string{
		"deliveries/s", "accepted/s", "stored/s", "latency p50, ms", "latency p99, ms", "fetch p50, ms", "fetch max, ms",
		"all logged in after, s", "lost", "server CPU s per 1000", "server memory, MiB", "server memory per connection, KiB",
	}
}

// writeHops writes a line for each distance.
func writeHops(w io.Writer, results []Result) error {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	for _, r := range results {
		if len(r.Figures.Hops) == 0 {
			continue
		}
		fmt.Fprintln(table, "domains further\tserver\tdeliveries/s\tp50, ms\tp99, ms\tmax, ms\tlost\t")
		for _, h := range r.Figures.Hops {
			line := []string{whole(float64(h.Hops)), r.Server, orNone(h.Rate, whole), "–", "–", "–", whole(float64(h.Lost))}
			if h.Latency != nil && h.Latency.Count > 0 {
				line[3], line[4], line[5] = millis(h.Latency.P50), millis(h.Latency.P99), millis(h.Latency.Max)
			}
			fmt.Fprintln(table, strings.Join(line, "\t")+"\t")
		}
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("write a table: %w", err)
	}
	return nil
}

// writeParts writes a line for each kind of process.
func writeParts(w io.Writer, results []Result) error {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	for _, r := range results {
		if len(r.Figures.Parts) == 0 {
			continue
		}
		fmt.Fprintln(table, "part of "+r.Server+"\tprocesses\tCPU s per 1000\tmemory, MiB\tper connection, KiB\t")
		for _, p := range r.Figures.Parts {
			fmt.Fprintln(table, strings.Join([]string{
				p.Name, whole(float64(p.Processes)), orNone(p.CPUPer1000, fine), orNone(p.Bytes, mebibytes), orNone(p.BytesPerClient, kibibytes),
			}, "\t")+"\t")
		}
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("write a table: %w", err)
	}
	return nil
}
