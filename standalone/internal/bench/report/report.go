// Package report writes what runs came to: a table for people, and a line of JSON for
// each run for machines.
package report

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/linkerhq/linker/standalone/internal/bench/figures"
	"github.com/linkerhq/linker/standalone/internal/bench/workload"
)

// Result is one run, or the median of several, with all that it depends on.
type Result struct {
	Time       time.Time        `json:"time"` // of the end
	Version    string           `json:"version"`
	Machine    Machine          `json:"machine"`
	Command    []string         `json:"command"` // the arguments of the bench
	Workload   string           `json:"workload"`
	Server     string           `json:"server"`
	ServerArgs []string         `json:"serverArguments,omitempty"`
	Run        int              `json:"run,omitempty"` // from 1; 0: the median
	Runs       int              `json:"runs"`
	Parameters workload.Options `json:"parameters"`
	Figures    figures.Run      `json:"figures"`
}

// Machine is what the figures were measured on.
type Machine struct {
	CPU         string `json:"cpu"`
	CPUs        int    `json:"cpus"`
	MemoryBytes int64  `json:"memoryBytes"`
	Kernel      string `json:"kernel"`
	Platform    string `json:"platform"`
}

// String is the machine in one line.
func (m Machine) String() string {
	return fmt.Sprintf("%d × %s, %d GiB, %s, %s", m.CPUs, m.CPU, int(math.Round(float64(m.MemoryBytes)/(1<<30))), m.Kernel, m.Platform)
}

// WriteJSON writes results, one a line.
func WriteJSON(w io.Writer, results ...Result) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	for _, r := range results {
		if err := encoder.Encode(r); err != nil {
			return fmt.Errorf("write a result: %w", err)
		}
	}
	return nil
}

// generators is a latency that is the generator's own.
const generators = "sent late by"

// The quantiles that are shown.
const (
	p50  = "p50"
	p90  = "p90"
	p99  = "p99"
	p999 = "p99.9"
	most = "max"
)

func quantile(q figures.Quantiles, name string) float64 {
	switch name {
	case p50:
		return q.P50
	case p90:
		return q.P90
	case p99:
		return q.P99
	case p999:
		return q.P999
	default:
		return q.Max
	}
}

// row is a line of a table: a figure of each server.
type row struct {
	name   string
	value  func(r figures.Run) *float64
	format func(float64) string
	shown  func(r figures.Run) bool // nil: if it was measured
	ratio  bool                     // of the first server to the second one
}

func rows() []row {
	var list []row
	add := func(ratio bool, name string, format func(float64) string, value func(r figures.Run) *float64) {
		list = append(list, row{name: name, value: value, format: format, ratio: ratio})
	}
	quantiles := func(of string, get func(r figures.Run) *figures.Quantiles, names ...string) {
		for _, name := range names {
			add(of != generators, of+" "+name+", ms", millis, func(r figures.Run) *float64 {
				if get(r) == nil || get(r).Count == 0 {
					return nil
				}
				v := quantile(*get(r), name)
				return &v
			})
		}
	}
	all, few := []string{p50, p90, p99, p999, most}, []string{p50, p99, most}
	count := func(name string, get func(r figures.Run) int64) {
		list = append(list, row{
			name: name, format: whole, shown: func(r figures.Run) bool { return get(r) != 0 },
			value: func(r figures.Run) *float64 { v := float64(get(r)); return &v },
		})
	}
	add(true, "deliveries/s", whole, func(r figures.Run) *float64 { return r.DeliveryRate })
	add(true, "accepted/s", whole, func(r figures.Run) *float64 { return r.AcceptedRate })
	add(true, "stored/s", whole, func(r figures.Run) *float64 { return r.StoredRate })
	add(true, "confirmations/s", whole, func(r figures.Run) *float64 { return r.ConfirmationRate })
	quantiles("latency", func(r figures.Run) *figures.Quantiles { return r.Latency }, all...)
	quantiles("confirmation", func(r figures.Run) *figures.Quantiles { return r.Confirmation }, all...)
	quantiles("acceptance", func(r figures.Run) *figures.Quantiles { return r.Acceptance }, few...)
	quantiles("fetch", func(r figures.Run) *figures.Quantiles { return r.Fetch }, few...)
	quantiles("recovery", func(r figures.Run) *figures.Quantiles { return r.Recovery }, few...)
	quantiles(generators, func(r figures.Run) *figures.Quantiles { return r.Delay }, few...)
	quantiles("login", func(r figures.Run) *figures.Quantiles { return r.Login }, few...)
	add(true, "all logged in after, s", seconds, func(r figures.Run) *float64 { return &r.LoginSeconds })
	list = append(list,
		row{name: "lost", format: whole, value: func(r figures.Run) *float64 { v := float64(r.Lost); return &v }, shown: sentAny},
		row{name: "duplicates", format: whole, value: func(r figures.Run) *float64 { v := float64(r.Duplicates); return &v }, shown: sentAny},
		row{name: "out of order", format: whole, value: func(r figures.Run) *float64 { v := float64(r.Disordered); return &v }, shown: sentAny},
	)
	count("refused", func(r figures.Run) int64 { return r.Refused })
	count("not confirmed", func(r figures.Run) int64 { return r.Unconfirmed })
	count("damaged", func(r figures.Run) int64 { return r.Damaged })
	count("got nothing after a crash", func(r figures.Run) int64 { return r.Stuck })
	count("given up", func(r figures.Run) int64 { return r.GivenUp })
	count("due but not sent", func(r figures.Run) int64 { return r.Unsent })
	count("accepted", func(r figures.Run) int64 { return r.Accepted })
	count("connections lost", func(r figures.Run) int64 { return r.ConnectionsClosed })
	count("logins that failed", func(r figures.Run) int64 { return r.LoginFailures })
	count("logins told to try again", func(r figures.Run) int64 { return r.LoginRetries })
	add(true, "server CPU s per 1000", fine, func(r figures.Run) *float64 { return r.ServerCPUPer1000 })
	add(false, "server CPU, % of one", whole, func(r figures.Run) *float64 { return r.ServerCPUPercent })
	add(true, "server memory, MiB", mebibytes, func(r figures.Run) *float64 { return r.ServerBytes })
	add(true, "server memory per connection, KiB", kibibytes, func(r figures.Run) *float64 { return r.BytesPerClient })
	add(false, "generator CPU µs per message", tenths, func(r figures.Run) *float64 { return r.GeneratorMicros })
	add(false, "generator CPU, % of one", whole, func(r figures.Run) *float64 { return r.GeneratorPercent })
	return list
}

func sentAny(r figures.Run) bool { return r.Sent > 0 }

// WriteTable writes the results of one workload, a column for each server. Of two it
// writes the ratio as well.
func WriteTable(w io.Writer, results []Result) error {
	if len(results) == 0 {
		return nil
	}
	fmt.Fprintln(w, Title(results[0]))
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	head := []string{""}
	for _, r := range results {
		head = append(head, r.Server)
	}
	if len(results) == 2 {
		head = append(head, "ratio")
	}
	fmt.Fprintln(table, strings.Join(head, "\t")+"\t")
	for _, row := range rows() {
		if line, is := row.line(results); is {
			fmt.Fprintln(table, strings.Join(line, "\t")+"\t")
		}
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("write a table: %w", err)
	}
	for _, r := range results {
		for _, code := range slices.Sorted(maps.Keys(r.Figures.Errors)) {
			fmt.Fprintf(w, "  %s: %s × %s\n", r.Server, whole(float64(r.Figures.Errors[code])), code)
		}
	}
	return errors.Join(writeHops(w, results), writeParts(w, results))
}

// line is a row with the figures of all servers; false if none has one.
func (row row) line(results []Result) ([]string, bool) {
	line := []string{row.name}
	var values []float64
	any := false
	for _, r := range results {
		v := row.value(r.Figures)
		if v == nil {
			line = append(line, "–")
			continue
		}
		any = any || row.shown == nil || row.shown(r.Figures)
		values = append(values, *v)
		line = append(line, row.format(*v))
	}
	if row.ratio && len(results) == 2 && len(values) == 2 && values[1] != 0 {
		line = append(line, strconv.FormatFloat(values[0]/values[1], 'f', 2, 64))
	} else if len(results) == 2 {
		line = append(line, "")
	}
	return line, any
}

// Title says what was run.
func Title(r Result) string {
	o := r.Parameters
	words := []string{r.Workload}
	if r.Workload != "idle" && r.Workload != "storm" {
		words = append(words, string(o.Feature))
	}
	words = append(words, whole(float64(r.Figures.Connections))+" connections")
	if r.Figures.Sent > 0 {
		words = append(words, whole(float64(o.Size))+" characters")
		if n := len(r.Figures.Hops); n > 0 {
			words = append(words, whole(float64(n))+" domains")
		}
		if r.Figures.Crashes > 0 {
			words = append(words, "crashes: "+whole(float64(r.Figures.Crashes)))
		}
		switch {
		case r.Figures.Stored > 0:
			words = append(words, whole(float64(r.Figures.Stored))+" stored")
		case o.Rate > 0:
			words = append(words, whole(o.Rate)+"/s")
		default:
			words = append(words, "pause "+o.Pause.String())
		}
		if o.References {
			words = append(words, "references")
		}
		if !o.Confirm {
			words = append(words, "no confirmations")
		}
	}
	if o.Features != nil {
		words = append(words, "features ["+strings.Join(o.Features, ",")+"]")
	}
	words = append(words, seconds(r.Figures.Seconds)+" s")
	if r.Runs > 1 {
		words = append(words, fmt.Sprintf("median of %d", r.Runs))
	}
	return strings.Join(words, " · ")
}

// WriteSummary writes one line for each workload of a set: what matters most.
func WriteSummary(w io.Writer, sets [][]Result) error {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "\tserver\tdeliveries/s\tp50 ms\tp99 ms\tlost\tCPU s/1000\tKiB/connection\tlogins s\t")
	for _, results := range sets {
		for i, r := range results {
			f, title := r.Figures, ""
			if i == 0 {
				title = Title(r)
			}
			middle, high, lost := "–", "–", "–"
			if f.Sent > 0 {
				lost = whole(float64(f.Lost))
			}
			if q := cmp.Or(f.Recovery, f.Latency, f.Fetch); q != nil { // what the workload is about
				middle, high = millis(q.P50), millis(q.P99)
			}
			fmt.Fprintln(table, strings.Join([]string{
				title, r.Server, orNone(cmp.Or(f.DeliveryRate, f.StoredRate), whole), middle, high, lost,
				orNone(f.ServerCPUPer1000, fine), orNone(f.BytesPerClient, kibibytes), seconds(f.LoginSeconds),
			}, "\t")+"\t")
		}
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("write a table: %w", err)
	}
	return nil
}

func orNone(value *float64, format func(float64) string) string {
	if value == nil {
		return "–"
	}
	return format(*value)
}

// whole is a number with commas between its thousands.
func whole(v float64) string {
	digits := strconv.FormatFloat(math.Abs(math.Round(v)), 'f', 0, 64)
	var b strings.Builder
	if v <= -0.5 {
		b.WriteByte('-')
	}
	for i, digit := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(digit)
	}
	return b.String()
}

func millis(v float64) string {
	switch {
	case v < 1:
		return strconv.FormatFloat(v, 'f', 3, 64)
	case v < 100:
		return strconv.FormatFloat(v, 'f', 2, 64)
	default:
		return whole(v)
	}
}

func tenths(v float64) string    { return strconv.FormatFloat(v, 'f', 1, 64) }
func seconds(v float64) string   { return strconv.FormatFloat(v, 'f', 1, 64) }
func fine(v float64) string      { return strconv.FormatFloat(v, 'f', 4, 64) }
func mebibytes(v float64) string { return whole(v / (1 << 20)) }
func kibibytes(v float64) string { return tenths(v / (1 << 10)) }
