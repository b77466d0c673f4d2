package console

import "time"

// rateOver is the time over which traffic is averaged, and how old a look may be to
// be compared with. A look at processors that do not answer takes 2 s.
const rateOver = 3500 * time.Millisecond

// flow is how much goes over a way in a second.
type flow struct{ records, bytes, fast float64 }

func (f flow) addTo(w *Way) {
	for _, sum := range []struct {
		to    **float64
		value float64
	}{{&w.RecordsPerSecond, f.records}, {&w.BytesPerSecond, f.bytes}, {&w.FastPerSecond, f.fast}} {
		value := sum.value
		if *sum.to != nil {
			value += **sum.to
		}
		*sum.to = &value
	}
}

// meter names the figures of one processor for one neighbour.
type meter struct{ url, neighbour string }

type sample struct {
	at                   time.Time
	records, bytes, fast uint64
}

// rates remember the figures of the last looks: at most those within rateOver, of
// the links that the last look showed.
type rates map[meter][]sample

// observe takes in the reports of one look.
func (r rates) observe(now time.Time, reports []report) {
	seen := map[meter]bool{}
	for _, said := range reports {
		for _, l := range said.links {
			m := meter{said.url, l.Neighbour}
			seen[m] = true
			r[m] = append(still(r[m], now, l), sample{now, l.Records, l.Bytes, l.Fast})
		}
	}
	for m := range r {
		if !seen[m] {
			delete(r, m)
		}
	}
}

// still returns the samples that a new one can be compared with: none, if the
// processor has begun to count anew.
func still(samples []sample, now time.Time, l linkReport) []sample {
	for len(samples) > 0 && now.Sub(samples[0].at) > rateOver {
		samples = samples[1:]
	}
	if len(samples) == 0 {
		return nil
	}
	if last := samples[len(samples)-1]; l.Records < last.records || l.Bytes < last.bytes || l.Fast < last.fast {
		return nil
	}
	return samples
}

// of returns the flow between the oldest and the newest sample; there is none before
// the second look.
func (r rates) of(said report, neighbour string) (flow, bool) {
	samples := r[meter{said.url, neighbour}]
	if len(samples) < 2 {
		return flow{}, false
	}
	first, last := samples[0], samples[len(samples)-1]
	seconds := last.at.Sub(first.at).Seconds()
	if seconds <= 0 {
		return flow{}, false
	}
	return flow{
		records: float64(last.records-first.records) / seconds,
		bytes:   float64(last.bytes-first.bytes) / seconds,
		fast:    float64(last.fast-first.fast) / seconds,
	}, true
}
