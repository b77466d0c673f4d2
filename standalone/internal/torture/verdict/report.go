package verdict

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/linkerhq/linker/standalone/internal/torture/history"
)

// Violation is one promise that was not kept.
type Violation struct {
	Invariant Invariant `json:"invariant"`
	At        Duration  `json:"at"` // since the start of the run
	Text      string    `json:"text"`
	// Events are the last lines of the history about the messages or the user concerned.
	Events []json.RawMessage `json:"events,omitempty"`

	subjects []subject
}

// subject is what a violation is about.
type subject struct {
	user string // the sender of the message, or the user
	n    int64  // of the message; 0: the user
}

// Counts is what became of the messages. A message to a group counts once for each
// member where receivers matter: delivered, lost, failed, dead.
type Counts struct {
	Sent     int64 `json:"sent"`
	Accepted int64 `json:"accepted"`
	Refused  int64 `json:"refused"` // and not accepted later
	Unknown  int64 `json:"unknown"` // without an answer

	Owed      int64 `json:"owed"` // accepted, by receiver
	Delivered int64 `json:"delivered"`
	Failed    int64 `json:"failed"` // reported to the sender after they were accepted
	Dead      int64 `json:"dead"`   // in the dead letters
	Lost      int64 `json:"lost"`   // nothing of that

	TwiceRaw         int64 `json:"twice_raw"`           // copies at sockets
	TwiceUnexplained int64 `json:"twice_unexplained"`   // of those, without a fault that explains them
	TwiceClient      int64 `json:"twice_client"`        // after dropping what has a known id
	DisorderRaw      int64 `json:"out_of_order_raw"`    // copies counted
	DisorderClient   int64 `json:"out_of_order_client"` // first copies only
	Late             int64 `json:"late"`

	Confirmed      int64 `json:"confirmed"`
	ConfirmedTwice int64 `json:"confirmed_twice_raw"`

	FastSent      int64 `json:"fast_sent"`
	FastDelivered int64 `json:"fast_delivered"`
	FastLost      int64 `json:"fast_lost"` // although the receiver was there
	FastTwice     int64 `json:"fast_twice"`

	Sockets  int64 `json:"sockets"`
	Broken   int64 `json:"broken"` // sockets that did not end by the will of the client
	Presence int64 `json:"presence"`
	Faults   int64 `json:"faults"`
}

// PhaseTimes are the times of the messages that were sent in one phase.
type PhaseTimes struct {
	Phase    string  `json:"phase"`
	Seconds  float64 `json:"seconds"`
	Accepted int64   `json:"accepted"`
	Accept   Times   `json:"accept"`     // from the first attempt to the acceptance
	EndToEnd Times   `json:"end_to_end"` // to receivers who were there
}

// FaultTimes is what happened after the faults of one kind.
type FaultTimes struct {
	Kind  string `json:"kind"`
	Count int64  `json:"count"`
	// Begin and End are the times from the begin and the end of a fault to the first
	// delivery of something newer, for each steady receiver concerned.
	Begin Times `json:"from_begin"`
	End   Times `json:"from_end"`
}

// ProcessGrowth compares a process with what it was when it was warm.
type ProcessGrowth struct {
	Name string          `json:"name"`
	Warm history.Process `json:"warm"`
	End  history.Process `json:"end"`
}

// Report is the verdict on a run.
type Report struct {
	Run        history.Run `json:"run"`
	Lasted     Duration    `json:"lasted"`
	Complete   bool        `json:"complete"` // the run came to its end
	Torn       bool        `json:"torn"`     // the last line was not finished
	Operations int64       `json:"operations"`

	Counts    Counts           `json:"counts"`
	Phases    []PhaseTimes     `json:"phases"`
	Faults    []FaultTimes     `json:"faults"`
	Offline   Times            `json:"offline"` // from the kill of a connector until its users were announced as gone
	Processes []ProcessGrowth  `json:"processes"`
	Codes     map[string]int64 `json:"codes"` // errors that senders were told

	Broken     map[Invariant]int64 `json:"broken"`     // how often each invariant was violated
	Violations []Violation         `json:"violations"` // the first few of each
}

// OK says that the run came to its end and kept every promise.
func (r *Report) OK() bool { return r.Complete && len(r.Broken) == 0 }

// LossBound is the share of messages that may be lost for all that this run says, with
// a confidence of 95 %, given that none was.
func (r *Report) LossBound() float64 {
	if r.Counts.Owed == 0 {
		return 1
	}
	return min(1, 3/float64(r.Counts.Owed))
}

// WriteTable writes the report for people.
func (r *Report) WriteTable(out io.Writer) error {
	b := &strings.Builder{}
	fmt.Fprintf(b, "seed %d, %s, %d operations, %s\n", r.Run.Seed, time.Duration(r.Lasted).Round(time.Second), r.Operations, r.Run.System)
	if r.Run.Bug != "" {
		fmt.Fprintf(b, "with the bug %s\n", r.Run.Bug)
	}
	if err := r.tables(b); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	for _, v := range r.Violations {
		fmt.Fprintf(b, "\n%s at %s: %s\n  %s\n", v.Invariant, time.Duration(v.At).Round(time.Millisecond), v.Text, v.Invariant.Promise())
		for _, line := range v.Events {
			fmt.Fprintf(b, "    %s\n", line)
		}
	}
	b.WriteString("\n")
	switch {
	case r.OK():
		fmt.Fprintf(b, "No promise was broken. Of %d deliveries owed none was lost: with a confidence of 95 %% fewer than one in %.0f are.\n",
			r.Counts.Owed, 1/r.LossBound())
	case len(r.Broken) == 0:
		b.WriteString("The run did not come to its end: nothing can be said of what was lost.\n")
	default:
		for _, i := range slices.Sorted(maps.Keys(r.Broken)) {
			fmt.Fprintf(b, "%s was violated %d times: %s\n", i, r.Broken[i], i.Promise())
		}
	}
	if r.Run.Command != "" && !r.OK() {
		fmt.Fprintf(b, "To repeat it: %s\n", r.Run.Command)
	}
	_, err := io.WriteString(out, b.String())
	if err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	return nil
}

func (r *Report) tables(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	row := func(cells ...any) {
		texts := make([]string, len(cells))
		for i, c := range cells {
			texts[i] = fmt.Sprint(c)
		}
		fmt.Fprintln(w, strings.Join(texts, "\t")) // the buffer of a tabwriter takes everything
	}
	c := r.Counts
	row("\nmessages", "", "", "")
	row("  sent", c.Sent, "owed to receivers", c.Owed)
	row("  accepted", c.Accepted, "delivered", c.Delivered)
	row("  refused", c.Refused, "reported as failed", c.Failed)
	row("  without an answer", c.Unknown, "dead letters", c.Dead)
	row("  confirmed", c.Confirmed, "lost", c.Lost)
	row("  twice, raw", c.TwiceRaw, "out of order, raw", c.DisorderRaw)
	row("  twice, unexplained", c.TwiceUnexplained, "out of order, client", c.DisorderClient)
	row("  twice, client", c.TwiceClient, "late", c.Late)
	row("  FAST sent", c.FastSent, "FAST delivered", c.FastDelivered)
	row("  FAST twice", c.FastTwice, "FAST lost", c.FastLost)
	row("  sockets", c.Sockets, "broken", c.Broken)
	for _, code := range slices.Sorted(maps.Keys(r.Codes)) {
		row("  "+code, r.Codes[code])
	}
	row("\nphase", "seconds", "accepted", "accept p50", "p99", "max", "end to end p50", "p99", "max")
	for _, p := range r.Phases {
		row("  "+p.Phase, fmt.Sprintf("%.1f", p.Seconds), p.Accepted, p.Accept.P50, p.Accept.P99, p.Accept.Max, p.EndToEnd.P50, p.EndToEnd.P99, p.EndToEnd.Max)
	}
	if len(r.Faults) > 0 {
		row("\nfault", "times", "first delivery from begin p50", "max", "from end p50", "max")
	}
	for _, f := range r.Faults {
		row("  "+f.Kind, f.Count, f.Begin.P50, f.Begin.Max, f.End.P50, f.End.Max)
	}
	if r.Offline.Count > 0 {
		row("\nusers of killed connectors announced as gone", r.Offline.Count, "p50", r.Offline.P50, "max", r.Offline.Max)
	}
	if len(r.Processes) > 0 {
		row("\nprocess, warm and at the end", "goroutines", "", "files", "", "heap MiB", "", "resident MiB", "")
	}
	for _, p := range r.Processes {
		row("  "+p.Name, p.Warm.Goroutines, p.End.Goroutines, p.Warm.Files, p.End.Files, p.Warm.Heap>>20, p.End.Heap>>20, p.Warm.Resident>>20, p.End.Resident>>20)
	}
	return w.Flush()
}
