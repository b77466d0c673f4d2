package verdict

import (
	"math/bits"
	"strconv"
	"time"
)

// Times describes a set of durations. Percentiles are exact to 2 %.
type Times struct {
	Count int64    `json:"count"`
	P50   Duration `json:"p50"`
	P99   Duration `json:"p99"`
	Max   Duration `json:"max"`
}

// Duration is written in milliseconds.
type Duration time.Duration

// String returns it with as many digits as are of use.
func (d Duration) String() string {
	switch t := time.Duration(d); {
	case t == 0:
		return "-"
	case t < 10*time.Millisecond:
		return t.Round(10 * time.Microsecond).String()
	case t < 10*time.Second:
		return t.Round(time.Millisecond).String()
	default:
		return t.Round(100 * time.Millisecond).String()
	}
}

// micros makes a duration of what a history counts in.
func micros(v int64) Duration { return Duration(time.Duration(v) * time.Microsecond) }

// MarshalJSON writes milliseconds.
func (d Duration) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, float64(time.Duration(d).Microseconds())/1000, 'f', -1, 64), nil
}

const (
	// Each power of two of microseconds is divided into so many buckets.
	bucketBits = 6
	buckets    = (64 - bucketBits + 1) << bucketBits
)

// distribution collects durations in microseconds.
type distribution struct {
	counts []int64 // nil: none yet
	total  int64
	max    int64
}

func (d *distribution) add(micros int64) {
	micros = max(micros, 0)
	if d.counts == nil {
		d.counts = make([]int64, buckets)
	}
	d.counts[bucket(uint64(micros))]++
	d.total++
	d.max = max(d.max, micros)
}

func bucket(v uint64) int {
	shift := max(bits.Len64(v)-bucketBits-1, 0)
	return shift<<bucketBits + int(v>>shift)
}

// value is the highest that falls into a bucket.
func value(bucket int) int64 {
	shift := max(bucket>>bucketBits-1, 0)
	return int64(bucket-shift<<bucketBits+1)<<shift - 1
}

func (d *distribution) percentile(p float64) int64 {
	wanted, seen := int64(float64(d.total)*p+0.9999), int64(0)
	for i, n := range d.counts {
		if seen += n; n > 0 && seen >= wanted {
			return min(value(i), d.max)
		}
	}
	return d.max
}

func (d *distribution) times() Times {
	if d.total == 0 {
		return Times{}
	}
	return Times{Count: d.total, P50: micros(d.percentile(0.5)), P99: micros(d.percentile(0.99)), Max: micros(d.max)}
}
