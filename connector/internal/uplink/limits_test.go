package uplink

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/topology"
)

const second = int64(time.Second)

func TestAPaceLetsABurstPassAndThenItsRate(t *testing.T) {
	t.Parallel()
	p := paceOf(topology.Limit{PerSecond: 10, Burst: 5})
	var due, now int64
	send := func() (wait time.Duration) {
		due, wait = p.take(due, now)
		return wait
	}
	for n := range 5 {
		if wait := send(); wait != 0 {
			t.Fatalf("message %d of the burst has to wait %v", n, wait)
		}
	}
	for range 3 { // asking again does not make it longer
		if wait := send(); wait != 100*time.Millisecond {
			t.Fatalf("the sixth has to wait %v, want 100 ms", wait)
		}
	}
	passed := 0
	for end := now + 10*second; now < end; now += second / 1000 {
		if send() == 0 {
			passed++
		}
	}
	if passed < 99 || passed > 100 {
		t.Errorf("%d passed in 10 s, want 100", passed)
	}
	now += 3600 * second
	for passed = 0; send() == 0; passed++ {
	}
	if passed != 5 {
		t.Errorf("%d passed at once after an hour, want 5", passed)
	}
}

func TestWithoutABurstASecondsMessagesPassAtOnce(t *testing.T) {
	t.Parallel()
	p := paceOf(topology.Limit{PerSecond: 7})
	due, passed := int64(0), 0
	for {
		next, wait := p.take(due, 0)
		if wait > 0 {
			break
		}
		due = next
		passed++
	}
	if passed != 7 {
		t.Errorf("%d passed, want 7", passed)
	}
}

// A limit that was changed takes effect at once: what a slow one has put far ahead
// does not hold up a fast one.
func TestAPaceTakesOverFromAnother(t *testing.T) {
	t.Parallel()
	slow, fast := paceOf(topology.Limit{PerSecond: 1, Burst: 1000}), paceOf(topology.Limit{PerSecond: 100, Burst: 1})
	var due int64
	for range 1000 {
		due, _ = slow.take(due, 0)
	}
	due, wait := fast.take(due, 0)
	if wait != 10*time.Millisecond {
		t.Errorf("the fast one has to wait %v, want 10 ms", wait)
	}
	if _, wait = fast.take(due, int64(wait)); wait != 0 {
		t.Errorf("then %v more", wait)
	}
}

func TestManySessionsShareTheLimitOfAnApp(t *testing.T) {
	t.Parallel()
	limit := topology.Limit{PerSecond: 1000, Burst: 500}
	s := &shared{limit: limit, pace: paceOf(limit), due: new(atomic.Int64)}
	var passed atomic.Int64
	var asking sync.WaitGroup
	for range 8 {
		asking.Go(func() {
			for range 1000 {
				if s.take(42) == 0 {
					passed.Add(1)
				}
			}
		})
	}
	asking.Wait()
	if passed.Load() != 500 {
		t.Errorf("%d passed, want 500", passed.Load())
	}
}

func TestWhatAnAppHasSentCountsUnderItsNextLimit(t *testing.T) {
	t.Parallel()
	network := func(limit topology.Limit) *topology.Snapshot {
		s, err := topology.New(1, topology.Network{
			Domains: []topology.Domain{{Name: "d", URLs: []string{"ws://127.0.0.1:1"}}},
			Apps:    []topology.App{{Name: "ANZ", AppID: "a", Master: "ANZ-1", Limits: topology.Limits{App: limit}}, {Name: "BNZ", AppID: "b", Master: "BNZ-1"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	var a appLimits
	first := network(topology.Limit{PerSecond: 10})
	before := a.of("ANZ", first)
	if a.of("ANZ", first) != before || a.of("BNZ", first) != nil {
		t.Error("another limit without another network")
	}
	for before.take(0) == 0 {
	}
	after := a.of("ANZ", network(topology.Limit{PerSecond: 10, Burst: 5}))
	if after == before || after.take(0) == 0 {
		t.Error("a change of the network gives messages away")
	}
	if a.of("ANZ", network(topology.Limit{})) != nil || len(a.apps) != 0 {
		t.Error("a limit that is gone is kept")
	}
}

func TestAFloodIsTenSecondsInWhichMostIsRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		accepted, denied int // in each second
		pause            int // every so many seconds nothing is sent; 0: never
		closes           bool
	}{
		"five times too fast":        {10, 40, 0, true},
		"nothing but refusals":       {0, 5, 0, true},
		"each hint followed":         {10, 10, 0, false},
		"a little too fast":          {10, 5, 0, false},
		"in bursts of some seconds":  {10, 100, 8, false},
		"in bursts of many seconds":  {10, 100, 15, true},
		"two refused for each taken": {10, 20, 0, false},
	} {
		var f flood
		closed := 0
		for s := range 60 {
			if c.pause > 0 && s%c.pause == c.pause-1 {
				continue
			}
			for i := range c.accepted + c.denied {
				now := int64(s)*second + int64(i)*second/int64(c.accepted+c.denied)
				if i < c.accepted {
					f.taken(now)
					continue
				}
				f.refused(now)
				if f.seconds >= floodFor && closed == 0 {
					closed = s
				}
			}
		}
		if (closed > 0) != c.closes || c.closes && closed != floodFor {
			t.Errorf("%s: closed after %d s", name, closed)
		}
	}
}
