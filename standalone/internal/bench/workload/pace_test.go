package workload

import (
	"math/rand/v2"
	"testing"
)

func TestAScheduleIsFixedAndDoesNotDrift(t *testing.T) {
	t.Parallel()
	s := schedule{begin: 1000, end: 1000 + 10*nanos, rate: 3}
	for k, want := range map[int64]int64{0: 1000, 1: 333_334_333, 3: nanos + 1000, 29: 9_666_667_666} {
		if at, is := s.at(k); !is || at < want-1 || at > want+1 {
			t.Errorf("message %d: got %d, %v, expected %d", k, at, is, want)
		}
	}
	if at, is := s.at(30); is {
		t.Errorf("the first one after the end is due at %d", at)
	}
	// After a million seconds it is still on time.
	long := schedule{end: 1 << 62, rate: 12345}
	if at, _ := long.at(12345 * 1_000_000); at != 1_000_000*nanos {
		t.Errorf("got %d", at)
	}
}

func TestAQueueKeepsItsOrderWhileItGrows(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 1))
	var f fifo
	var in, out int64
	for range 100_000 {
		if random.IntN(100) < 52 {
			f.push(entry{at: in})
			in++
			continue
		}
		if f.len() == 0 {
			continue
		}
		if first, popped := f.first(), f.pop(); first != popped || popped.at != out {
			t.Fatalf("got %d and %d, expected %d", first.at, popped.at, out)
		}
		out++
	}
	if int64(f.len()) != in-out || f.len() == 0 {
		t.Errorf("%d are left of %d", f.len(), in-out)
	}
}
