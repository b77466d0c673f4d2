package run

import (
	"context"
	"math"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"sync"
	"time"
)

const (
	// Often: what is in use may double in a moment, and what may be allocated with it.
	paceEvery = 100 * time.Millisecond
	// What may be allocated between two collections: what comes in so much time, but at
	// least leastHeadroom bytes or a quarter of what is in use, and at most mostHeadroom
	// bytes or as much again as is in use.
	headroomFor   = 1   // second
	rateFalls     = 0.9 // what is left of an earlier rate after paceEvery
	leastHeadroom = 8 << 20
	mostHeadroom  = 96 << 20
	leastShare    = 4
	leastPercent  = 10
	// A process at rest gives back what it does not need any more, if that is much and it
	// has not done so for a while: it takes a collection.
	restRate  = 4 << 20 // bytes in a second
	giveBack  = 8 << 20
	giveEvery = 30 * time.Second
)

// PaceCollector sets how often the garbage collector works by what the process does, until
// stop is called: by Go's own measure, a multiple of what is in use, a busy process with
// little in use collects many times a second, and an idle one with tens of thousands of
// sockets keeps as much memory again for nothing. An operator's GOGC in the environment
// stays as it is, and so does every limit of memory.
func PaceCollector(environ []string) (stop func()) {
	for _, entry := range environ {
		if strings.HasPrefix(entry, "GOGC=") {
			return func() {}
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { paceCollector(ctx) })
	return func() {
		cancel()
		running.Wait()
	}
}

func paceCollector(ctx context.Context) {
	p := pace{sample: []metrics.Sample{
		{Name: "/gc/heap/allocs:bytes"},
		{Name: "/gc/heap/live:bytes"},
		{Name: "/gc/scan/stack:bytes"},
		{Name: "/gc/scan/globals:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
	}}
	p.sinceGiven = giveEvery
	last := p.percent(p.read())
	before := debug.SetGCPercent(last)
	defer debug.SetGCPercent(before)
	tick := time.NewTicker(paceEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if percent := p.percent(p.read()); percent != last {
				debug.SetGCPercent(percent) // stops the world for some microseconds
				last = percent
			}
			if p.gives() {
				debug.FreeOSMemory()
			}
		case <-ctx.Done():
			return
		}
	}
}

// pace is what a process allocates.
type pace struct {
	sample     []metrics.Sample
	allocated  uint64  // since the process began
	rate       float64 // bytes in a second, falling slowly
	sinceGiven time.Duration
}

func (p *pace) read() (allocated, inUse uint64) {
	metrics.Read(p.sample)
	return p.at(0), p.at(1) + p.at(2) + p.at(3)
}

func (p *pace) at(i int) uint64 {
	if p.sample[i].Value.Kind() != metrics.KindUint64 {
		return 0 // a runtime that does not tell
	}
	return p.sample[i].Value.Uint64()
}

// gives says whether it is time to give back what the process does not need.
func (p *pace) gives() bool {
	p.sinceGiven += paceEvery
	garbage := max(p.at(6), p.at(1)) - p.at(1)
	if p.rate > restRate || p.sinceGiven < giveEvery || p.at(4)+p.at(5)+garbage < giveBack {
		return false
	}
	p.sinceGiven = 0
	return true
}

// percent is the GOGC for a process that has allocated so much since it began, and uses so
// much of it.
func (p *pace) percent(allocated, inUse uint64) int {
	if p.allocated > 0 && allocated >= p.allocated {
		p.rate = max(float64(allocated-p.allocated)/paceEvery.Seconds(), p.rate*rateFalls)
	}
	p.allocated = allocated
	least, most := max(leastHeadroom, float64(inUse)/leastShare), max(mostHeadroom, float64(inUse))
	headroom := min(max(headroomFor*p.rate, least), most)
	percent := math.Round(100 * headroom / float64(max(inUse, 4<<20)))
	// In steps of a tenth or so: each change stops the world.
	step := math.Pow(10, math.Floor(math.Log10(max(percent, 1))-1))
	return max(int(math.Round(percent/step)*step), leastPercent)
}
