package client

import (
	"testing"
	"time"
)

func TestPausesAreDrawnUpToALimitThatDoubles(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		shortest, longest time.Duration
		failures          int
		limit             time.Duration
	}{
		{time.Second, 30 * time.Second, 0, time.Second},
		{time.Second, 30 * time.Second, 3, 8 * time.Second},
		{time.Second, 30 * time.Second, 5, 30 * time.Second},
		{time.Second, 30 * time.Second, 1 << 40, 30 * time.Second},
		{1, 1<<63 - 1, 1 << 40, 1<<63 - 1},
		{1 << 62, 1<<63 - 1, 2, 1<<63 - 1},
		{time.Hour, time.Hour, 7, time.Hour},
	} {
		most := time.Duration(0)
		for range 1000 {
			d := jitter(c.shortest, c.longest, c.failures)
			if d <= 0 || d > c.limit {
				t.Fatalf("%+v: got %v", c, d)
			}
			most = max(most, d)
		}
		if c.limit > time.Second && most < c.limit/2 {
			t.Errorf("%+v: of 1000 pauses the longest was %v", c, most)
		}
	}
}
