package figures_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/linkerhq/linker/standalone/internal/bench/figures"
)

func TestAStreamCountsWhatIsMissingTwiceAndOutOfOrder(t *testing.T) {
	t.Parallel()
	var s figures.Stream
	for _, n := range []int64{1, 2, 5, 5, 3, 3, 9, 7, 2, 8, 6, 0, -1} {
		s.Take(n)
	}
	// 4 is missing; 3, 7, 8 and 6 came after higher ones; 5, 3, 2, 0 and -1 are none that was waited for.
	if s.Taken() != 8 || s.Duplicates() != 5 || s.Disordered() != 4 {
		t.Errorf("got %d taken, %d duplicates, %d out of order", s.Taken(), s.Duplicates(), s.Disordered())
	}
}

func TestAStreamCountsAsASetDoes(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		var s figures.Stream
		seen := map[int64]bool{}
		var highest, duplicates, disordered int64
		for range 300 {
			n := max(1, highest-10+random.Int64N(16))
			isNew := s.Take(n)
			if isNew == seen[n] {
				t.Fatalf("seed %d: %d was taken as %v", seed, n, isNew)
			}
			switch {
			case seen[n]:
				duplicates++
			case n < highest:
				disordered++
			}
			seen[n] = true
			highest = max(highest, n)
		}
		if s.Taken() != int64(len(seen)) || s.Duplicates() != duplicates || s.Disordered() != disordered {
			t.Fatalf("seed %d: got %d, %d, %d, expected %d, %d, %d", seed, s.Taken(), s.Duplicates(), s.Disordered(), len(seen), duplicates, disordered)
		}
	}
}

// near says whether a histogram of three digits may have that value.
func near(got, want float64) bool { return math.Abs(got-want) <= want/500+0.002 }

func TestLatenciesHaveTheirQuantiles(t *testing.T) {
	t.Parallel()
	l := figures.NewLatencies()
	for n := int64(1); n <= 1000; n++ {
		l.Record(n * int64(time.Millisecond))
	}
	q := l.Quantiles()
	for name, c := range map[string]struct{ got, want float64 }{
		"p50": {q.P50, 500}, "p90": {q.P90, 900}, "p99": {q.P99, 990}, "p99.9": {q.P999, 999}, "max": {q.Max, 1000}, "mean": {q.Mean, 500.5},
	} {
		if !near(c.got, c.want) {
			t.Errorf("%s: got %v, expected %v", name, c.got, c.want)
		}
	}
	l.Record(-1)
	l.Record(math.MaxInt64)
	if q := l.Quantiles(); q.Count != 1002 || !near(q.Max, 600_000) {
		t.Errorf("got %+v", q)
	}
	if q := figures.NewLatencies().Quantiles(); q != (figures.Quantiles{}) {
		t.Errorf("of nothing: got %+v", q)
	}
}

func TestMergedLatenciesAreThoseOfBoth(t *testing.T) {
	t.Parallel()
	one, other, both := figures.NewLatencies(), figures.NewLatencies(), figures.NewLatencies()
	random := rand.New(rand.NewPCG(1, 2))
	for n := range 10_000 {
		value := random.Int64N(int64(time.Second))
		both.Record(value)
		if n%3 == 0 {
			one.Record(value)
		} else {
			other.Record(value)
		}
	}
	one.Merge(other)
	if one.Quantiles() != both.Quantiles() {
		t.Errorf("got %+v, expected %+v", one.Quantiles(), both.Quantiles())
	}
}

func TestTheMedianHidesNoFault(t *testing.T) {
	t.Parallel()
	run := func(rate, p99 float64, sent, lost int64, errors map[string]int64) figures.Run {
		return figures.Run{DeliveryRate: figures.Of(rate), Latency: &figures.Quantiles{P99: p99}, Sent: sent, Lost: lost, Errors: errors}
	}
	m := figures.Median([]figures.Run{
		run(100, 9, 10, 0, nil), run(300, 1, 30, 2, map[string]int64{"a": 1}), run(200, 5, 20, 1, map[string]int64{"a": 2, "b": 1}),
	})
	if *m.DeliveryRate != 200 || m.Latency.P99 != 5 || m.Sent != 20 {
		t.Errorf("got %v/s, %v ms, %d sent", *m.DeliveryRate, m.Latency.P99, m.Sent)
	}
	if m.Lost != 3 || m.Errors["a"] != 3 || m.Errors["b"] != 1 {
		t.Errorf("got %d lost, %v", m.Lost, m.Errors)
	}
	if m.Confirmation != nil || m.ServerCPU != nil {
		t.Error("there is a figure that was not measured")
	}
	even := figures.Median([]figures.Run{run(100, 1, 1, 0, nil), run(200, 2, 2, 0, nil)})
	if *even.DeliveryRate != 150 || even.Latency.P99 != 1.5 {
		t.Errorf("of two: got %v, %v", *even.DeliveryRate, even.Latency.P99)
	}
	if figures.Median(nil).Sent != 0 {
		t.Error("of none there is something")
	}
}

func TestWhatCannotBeSaidIsNoFigure(t *testing.T) {
	t.Parallel()
	if figures.Of(math.NaN()) != nil || figures.Of(math.Inf(1)) != nil || *figures.Of(0) != 0 {
		t.Error("got another answer")
	}
}

func TestTheMedianOfDistancesIsThatOfEach(t *testing.T) {
	t.Parallel()
	at := func(near, far float64) figures.Run {
		return figures.Run{
			Parts:  []figures.Part{{Name: "connector", Processes: 2, CPUPer1000: figures.Of(far)}},
			Stored: int64(near), StoredRate: figures.Of(near), Recovery: &figures.Quantiles{Count: 1, Max: far}, Stuck: 1,
			Hops: []figures.Hop{
				{Hops: 0, Deliveries: 10, Lost: 1, Rate: figures.Of(10), Latency: &figures.Quantiles{Count: 10, P50: near}},
				{Hops: 1, Deliveries: 20, Rate: figures.Of(20), Latency: &figures.Quantiles{Count: 20, P50: far}},
			},
		}
	}
	m := figures.Median([]figures.Run{at(1, 5), at(3, 4), at(2, 9)})
	if len(m.Hops) != 2 || m.Hops[0].Latency.P50 != 2 || m.Hops[1].Latency.P50 != 5 || m.Hops[0].Lost != 3 || m.Hops[1].Hops != 1 || *m.Hops[1].Rate != 20 {
		t.Errorf("got %+v", m.Hops)
	}
	if len(m.Parts) != 1 || m.Parts[0].Name != "connector" || m.Parts[0].Processes != 2 || *m.Parts[0].CPUPer1000 != 5 || m.Parts[0].Bytes != nil {
		t.Errorf("got %+v", m.Parts)
	}
	if m.Stored != 2 || *m.StoredRate != 2 || m.Recovery.Max != 5 || m.Stuck != 3 {
		t.Errorf("got %+v", m)
	}
}
