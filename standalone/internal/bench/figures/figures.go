// Package figures counts and measures: the numbers of messages, latencies, and what
// a run as a whole comes to. It knows nothing of sockets and processes.
package figures

import (
	"math"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	leastLatency   = int64(time.Microsecond)
	mostLatency    = int64(10 * time.Minute)
	significant    = 3 // digits
	nanosPerMillis = 1e6
)

// Latencies is a distribution of durations. It belongs to one goroutine.
type Latencies struct{ h *hdrhistogram.Histogram }

// NewLatencies returns an empty distribution.
func NewLatencies() *Latencies {
	return &Latencies{hdrhistogram.New(leastLatency, mostLatency, significant)}
}

// Record takes a duration in ns. One longer than ten minutes counts as ten minutes.
func (l *Latencies) Record(nanos int64) {
	_ = l.h.RecordValue(min(max(nanos, 0), mostLatency)) // in range, so it is taken
}

// Merge adds what another distribution has.
func (l *Latencies) Merge(other *Latencies) { l.h.Merge(other.h) }

// Quantiles are what people read of a distribution, in ms.
type Quantiles struct {
	Count int64   `json:"count"`
	Mean  float64 `json:"mean"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p999"`
	Max   float64 `json:"max"`
}

// Quantiles sums the distribution up; all zero if it is empty.
func (l *Latencies) Quantiles() Quantiles {
	if l.h.TotalCount() == 0 {
		return Quantiles{}
	}
	at := func(quantile float64) float64 { return float64(l.h.ValueAtQuantile(quantile)) / nanosPerMillis }
	return Quantiles{
		Count: l.h.TotalCount(), Mean: l.h.Mean() / nanosPerMillis,
		P50: at(50), P90: at(90), P99: at(99), P999: at(99.9), Max: float64(l.h.Max()) / nanosPerMillis,
	}
}

// Run is what one run of a workload comes to. A figure that was not measured is nil.
type Run struct {
	Seconds float64 `json:"seconds"` // that were measured

	Sent        int64 `json:"sent"`       // of the whole run, as everything up to GivenUp
	Deliveries  int64 `json:"deliveries"` // different ones
	Confirmed   int64 `json:"confirmed"`
	Accepted    int64 `json:"accepted"`
	Unsent      int64 `json:"unsent"` // were due and could not be written
	Refused     int64 `json:"refused"`
	Lost        int64 `json:"lost"` // not delivered when the time after the last one was over, and not refused
	Unconfirmed int64 `json:"unconfirmed"`
	Duplicates  int64 `json:"duplicates"`
	Disordered  int64 `json:"disordered"`
	Damaged     int64 `json:"damaged"`
	GivenUp     int64 `json:"givenUp"` // closed loops only: their sender did not wait any longer

	SentRate         *float64 `json:"sentPerSecond,omitempty"`
	DeliveryRate     *float64 `json:"deliveriesPerSecond,omitempty"`
	ConfirmationRate *float64 `json:"confirmationsPerSecond,omitempty"`

	Latency      *Quantiles `json:"latencyMs,omitempty"`
	Confirmation *Quantiles `json:"confirmationMs,omitempty"`
	Delay        *Quantiles `json:"sendDelayMs,omitempty"` // of the generator: from when a message was due until it was written
	Login        *Quantiles `json:"loginMs,omitempty"`     // from the first byte of a connection until the reply

	Stored       int64      `json:"stored"`                      // messages to users who were away
	AcceptedRate *float64   `json:"acceptedPerSecond,omitempty"` // of these
	StoredRate   *float64   `json:"storedPerSecond,omitempty"`   // from the first one until the mailbox had all
	Acceptance   *Quantiles `json:"acceptanceMs,omitempty"`
	Fetch        *Quantiles `json:"fetchMs,omitempty"`    // from a request until it is complete
	Recovery     *Quantiles `json:"recoveryMs,omitempty"` // of each user, from the end of a process until the first delivery after that
	Crashes      int64      `json:"crashes"`
	Stuck        int64      `json:"stuck"` // users who got nothing after a crash
	Hops         []Hop      `json:"hops,omitempty"`

	LoginSeconds  float64 `json:"loginSeconds"` // from the first connection until all were in
	LoginFailures int64   `json:"loginFailures"`
	LoginRetries  int64   `json:"loginRetries"` // after being told to try again

	Errors map[string]int64 `json:"errors,omitempty"` // by code

	ServerCPU         *float64 `json:"serverCpuSeconds,omitempty"` // while it was measured
	ServerCPUPer1000  *float64 `json:"serverCpuSecondsPer1000,omitempty"`
	ServerCPUPercent  *float64 `json:"serverCpuPercent,omitempty"` // of one processor
	ServerBytes       *float64 `json:"serverResidentBytes,omitempty"`
	BytesPerClient    *float64 `json:"serverBytesPerConnection,omitempty"`
	Parts             []Part   `json:"serverParts,omitempty"` // of a server of several processes
	GeneratorMicros   *float64 `json:"generatorCpuMicrosPerMessage,omitempty"`
	GeneratorPercent  *float64 `json:"generatorCpuPercent,omitempty"` // of one processor
	Connections       int      `json:"connections"`
	ConnectionsClosed int64    `json:"connectionsClosed"` // that were ended by the server or broke
}

// Part is what processes of the server used that do the same.
type Part struct {
	Name           string   `json:"name"`
	Processes      int      `json:"processes"`
	CPUPer1000     *float64 `json:"cpuSecondsPer1000,omitempty"`
	Bytes          *float64 `json:"residentBytes,omitempty"`
	BytesPerClient *float64 `json:"bytesPerConnection,omitempty"`
}

// Hop is what messages came to that had so many domains to go from that of their sender.
type Hop struct {
	Hops       int        `json:"hops"`
	Deliveries int64      `json:"deliveries"`
	Lost       int64      `json:"lost"`
	Rate       *float64   `json:"deliveriesPerSecond,omitempty"`
	Latency    *Quantiles `json:"latencyMs,omitempty"`
}

// Of makes a figure that was measured. What cannot be said, such as a part of
// nothing, is none.
func Of(value float64) *float64 {
	if math.IsNaN(value) || math.IsInf(value, 0) {
		return nil
	}
	return &value
}

// Median returns what is in the middle of several runs, figure by figure. Counts of
// what went wrong are summed up: none may hide.
func Median(runs []Run) Run {
	if len(runs) == 0 {
		return Run{}
	}
	m := runs[0]
	count := func(of func(r *Run) *int64) {
		*of(&m) = int64(math.Round(middle(each(runs, func(r *Run) float64 { return float64(*of(r)) }))))
	}
	sum := func(of func(r *Run) *int64) {
		*of(&m) = 0
		for i := range runs {
			*of(&m) += *of(&runs[i])
		}
	}
	figure := func(of func(r *Run) **float64) {
		var known []float64
		for i := range runs {
			if v := *of(&runs[i]); v != nil {
				known = append(known, *v)
			}
		}
		*of(&m) = nil
		if len(known) > 0 {
			*of(&m) = Of(middle(known))
		}
	}
	m.Seconds = middle(each(runs, func(r *Run) float64 { return r.Seconds }))
	m.LoginSeconds = middle(each(runs, func(r *Run) float64 { return r.LoginSeconds }))
	count(func(r *Run) *int64 { return &r.Sent })
	count(func(r *Run) *int64 { return &r.Deliveries })
	count(func(r *Run) *int64 { return &r.Confirmed })
	count(func(r *Run) *int64 { return &r.Accepted })
	count(func(r *Run) *int64 { return &r.Stored })
	count(func(r *Run) *int64 { return &r.Crashes })
	for _, of := range faults() {
		sum(of)
	}
	for _, of := range measured() {
		figure(of)
	}
	m.Latency = medianQuantiles(runs, func(r *Run) *Quantiles { return r.Latency })
	m.Confirmation = medianQuantiles(runs, func(r *Run) *Quantiles { return r.Confirmation })
	m.Delay = medianQuantiles(runs, func(r *Run) *Quantiles { return r.Delay })
	m.Login = medianQuantiles(runs, func(r *Run) *Quantiles { return r.Login })
	m.Acceptance = medianQuantiles(runs, func(r *Run) *Quantiles { return r.Acceptance })
	m.Fetch = medianQuantiles(runs, func(r *Run) *Quantiles { return r.Fetch })
	m.Recovery = medianQuantiles(runs, func(r *Run) *Quantiles { return r.Recovery })
	m.Hops = medianHops(runs)
	m.Parts = medianParts(runs)
	m.Errors = nil
	for _, r := range runs {
		for code, n := range r.Errors {
			if m.Errors == nil {
				m.Errors = map[string]int64{}
			}
			m.Errors[code] += n
		}
	}
	return m
}

// faults are the counts of what should not be.
func faults() []func(*Run) *int64 {
	return []func(*Run) *int64{
		func(r *Run) *int64 { return &r.Unsent },
		func(r *Run) *int64 { return &r.Refused },
		func(r *Run) *int64 { return &r.Lost },
		func(r *Run) *int64 { return &r.Unconfirmed },
		func(r *Run) *int64 { return &r.Duplicates },
		func(r *Run) *int64 { return &r.Disordered },
		func(r *Run) *int64 { return &r.Damaged },
		func(r *Run) *int64 { return &r.GivenUp },
		func(r *Run) *int64 { return &r.LoginFailures },
		func(r *Run) *int64 { return &r.LoginRetries },
		func(r *Run) *int64 { return &r.ConnectionsClosed },
		func(r *Run) *int64 { return &r.Stuck },
	}
}

// measured are the figures of a run that are one number.
func measured() []func(*Run) **float64 {
	return []func(*Run) **float64{
		func(r *Run) **float64 { return &r.AcceptedRate },
		func(r *Run) **float64 { return &r.StoredRate },
		func(r *Run) **float64 { return &r.SentRate },
		func(r *Run) **float64 { return &r.DeliveryRate },
		func(r *Run) **float64 { return &r.ConfirmationRate },
		func(r *Run) **float64 { return &r.ServerCPU },
		func(r *Run) **float64 { return &r.ServerCPUPer1000 },
		func(r *Run) **float64 { return &r.ServerCPUPercent },
		func(r *Run) **float64 { return &r.ServerBytes },
		func(r *Run) **float64 { return &r.BytesPerClient },
		func(r *Run) **float64 { return &r.GeneratorMicros },
		func(r *Run) **float64 { return &r.GeneratorPercent },
	}
}

// medianParts is the median of each part. All runs have the same parts.
func medianParts(runs []Run) []Part {
	var list []Part
	for i, first := range runs[0].Parts {
		part := make([]Run, 0, len(runs))
		for _, r := range runs {
			if i < len(r.Parts) {
				p := r.Parts[i]
				part = append(part, Run{ServerCPUPer1000: p.CPUPer1000, ServerBytes: p.Bytes, BytesPerClient: p.BytesPerClient})
			}
		}
		m := Median(part)
		list = append(list, Part{first.Name, first.Processes, m.ServerCPUPer1000, m.ServerBytes, m.BytesPerClient})
	}
	return list
}

// medianHops is the median of each distance. All runs have the same distances.
func medianHops(runs []Run) []Hop {
	var list []Hop
	for i, first := range runs[0].Hops {
		distance := make([]Run, 0, len(runs))
		for _, r := range runs {
			if i < len(r.Hops) {
				h := r.Hops[i]
				distance = append(distance, Run{Deliveries: h.Deliveries, Lost: h.Lost, DeliveryRate: h.Rate, Latency: h.Latency})
			}
		}
		m := Median(distance)
		list = append(list, Hop{Hops: first.Hops, Deliveries: m.Deliveries, Lost: m.Lost, Rate: m.DeliveryRate, Latency: m.Latency})
	}
	return list
}

func medianQuantiles(runs []Run, of func(*Run) *Quantiles) *Quantiles {
	var known []Quantiles
	for i := range runs {
		if q := of(&runs[i]); q != nil {
			known = append(known, *q)
		}
	}
	if len(known) == 0 {
		return nil
	}
	at := func(value func(Quantiles) float64) float64 {
		var list []float64
		for _, q := range known {
			list = append(list, value(q))
		}
		return middle(list)
	}
	return &Quantiles{
		Count: int64(at(func(q Quantiles) float64 { return float64(q.Count) })),
		Mean:  at(func(q Quantiles) float64 { return q.Mean }),
		P50:   at(func(q Quantiles) float64 { return q.P50 }),
		P90:   at(func(q Quantiles) float64 { return q.P90 }),
		P99:   at(func(q Quantiles) float64 { return q.P99 }),
		P999:  at(func(q Quantiles) float64 { return q.P999 }),
		Max:   at(func(q Quantiles) float64 { return q.Max }),
	}
}

func each(runs []Run, of func(*Run) float64) []float64 {
	var list []float64
	for i := range runs {
		list = append(list, of(&runs[i]))
	}
	return list
}

// middle is the median; of an even number of values the mean of the two in the middle.
func middle(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}
