package run

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
)

func TestTheCollectorIsPacedByWhatTheProcessDoes(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	for name, c := range map[string]struct {
		rate, inUse uint64
		headroom    uint64
	}{
		"small and idle":   {0, 20 * mib, 8 * mib},
		"large and idle":   {0, 800 * mib, 200 * mib},
		"small and busy":   {30 * mib, 40 * mib, 30 * mib},
		"small, too busy":  {600 * mib, 10 * mib, 96 * mib},
		"too busy for any": {9000 * mib, 2000 * mib, 2000 * mib},
		"large and busy":   {600 * mib, 2000 * mib, 600 * mib},
		"just begun":       {0, 0, 8 * mib},
	} {
		p := pace{}
		p.percent(1, c.inUse)
		percent := p.percent(1+c.rate/10, c.inUse)
		got := float64(percent) / 100 * float64(max(c.inUse, 4*mib))
		if got < 0.9*float64(c.headroom) || got > 1.1*float64(c.headroom) {
			t.Errorf("%s: %d %%, %.0f MiB, want about %d", name, percent, got/mib, c.headroom/mib)
		}
	}
}

func TestTheHeadroomFallsWhenAProcessComesToRest(t *testing.T) {
	t.Parallel()
	p := pace{}
	p.percent(1, 40<<20)
	busy := p.percent(20<<20, 40<<20)
	var idle int
	for range 50 {
		idle = p.percent(20<<20, 40<<20)
	}
	if busy <= 2*idle || idle != 25 {
		t.Errorf("busy %d %%, at rest %d %%", busy, idle)
	}
}

// Not parallel: it changes the process.
func TestAnOperatorsGOGCStays(t *testing.T) {
	before := debug.SetGCPercent(77)
	defer debug.SetGCPercent(before)
	PaceCollector([]string{"GOGC=77"})()
	PaceCollector(nil)()
	if now := debug.SetGCPercent(77); now != 77 {
		t.Errorf("GOGC is %d", now)
	}
}

func TestAProcessAtRestGivesBackWhatItDoesNotNeedNowAndThen(t *testing.T) {
	t.Parallel()
	p := pace{sample: make([]metrics.Sample, 7), sinceGiven: giveEvery}
	if p.gives() {
		t.Error("there is nothing to give") // a runtime that tells nothing
	}
	p.sample[4] = freeMemory(t, 64<<20)
	p.rate = 2 * restRate
	if p.gives() {
		t.Error("it is busy")
	}
	p.rate = 0
	given := 0
	for range 3 * giveEvery / paceEvery {
		if p.gives() {
			given++
		}
	}
	if given != 3 {
		t.Errorf("given %d times", given)
	}
}

// freeMemory is a sample of at least so many bytes.
func freeMemory(t *testing.T, least uint64) metrics.Sample {
	t.Helper()
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}}
	hold := make([]byte, least)
	metrics.Read(s)
	runtime.KeepAlive(hold)
	return s[0]
}
