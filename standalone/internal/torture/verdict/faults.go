package verdict

import (
	"maps"
	"slices"

	"github.com/linkerhq/linker/standalone/internal/torture/history"
)

// watchTime is how long a first delivery is waited for after a fault.
const watchTime = 120_000_000 // microseconds

// faults knows what has failed, and what had to happen then.
type faults struct {
	first    int64            // when the first one began; 0: none has
	moved    bool             // users have moved
	deep     []*fault         // all that do not touch links only, oldest first
	open     map[int64]*fault // by number
	past     []*fault         // ended or not, oldest first, as long as they matter
	count    int64
	byKind   map[string]*faultTimes
	watches  []*watch
	vanished []*vanished
}

// fault is one fault.
type fault struct {
	history.Fault

	begin, end int64 // end 0: it goes on
	concerned  []*person
}

// faultTimes collects the times of one kind.
type faultTimes struct {
	count      int64
	begin, end distribution
}

// watch waits for the first deliveries after a moment.
type watch struct {
	since   int64
	pending map[*person]bool
	times   *distribution
}

func newFaults() faults {
	return faults{open: map[int64]*fault{}, byKind: map[string]*faultTimes{}}
}

func (c *check) fault(op *history.Op) {
	f := &c.faults
	kind := f.byKind[op.Fault.Kind]
	if kind == nil {
		kind = &faultTimes{}
		f.byKind[op.Fault.Kind] = kind
	}
	f.moved = f.moved || op.Fault.Moves
	if op.Fault.End {
		f.ended(op, kind)
		return
	}
	f.count++
	kind.count++
	if op.Fault.Harmless {
		return
	}
	if f.first == 0 {
		f.first = max(op.At, 1)
	}
	fresh := &fault{Fault: *op.Fault, begin: op.At}
	for _, p := range c.people {
		if p.steady && p.role != roleMaster && concerned(op.Fault, p) {
			fresh.concerned = append(fresh.concerned, p)
		}
	}
	f.open[op.Fault.Number] = fresh
	f.past = append(f.past, fresh)
	if !op.Fault.Links {
		f.deep = append(f.deep, fresh)
	}
	f.watch(op.At, fresh.concerned, &kind.begin)
	if op.Fault.Kill {
		c.vanish(op)
	}
}

func (f *faults) ended(op *history.Op, kind *faultTimes) {
	began := f.open[op.Fault.Number]
	if began == nil {
		return
	}
	delete(f.open, op.Fault.Number)
	began.end = op.At
	f.watch(op.At, began.concerned, &kind.end)
}

// explain says whether something more than a link was broken between two moments, or
// shortly before.
func (f *faults) explain(from, to int64) bool {
	return slices.ContainsFunc(f.deep, func(d *fault) bool { return d.begin <= to && (d.end == 0 || d.end+settleTime >= from) })
}

// watch waits for the first delivery of something newer to everybody who never goes
// and whom a fault concerns.
func (f *faults) watch(since int64, people []*person, times *distribution) {
	if len(people) == 0 {
		return
	}
	w := &watch{since: since, pending: map[*person]bool{}, times: times}
	for _, p := range people {
		w.pending[p] = true
	}
	f.watches = append(f.watches, w)
}

// concerned says whether a fault is one for a user: at home in one of its domains, or
// with a socket at one of its addresses; where neither is named it is one for all.
func concerned(f *history.Fault, p *person) bool {
	if len(f.Domains) == 0 && len(f.URLs) == 0 {
		return true
	}
	return slices.Contains(f.Domains, p.domain) && len(f.URLs) == 0 ||
		slices.ContainsFunc(p.open, func(s *session) bool { return slices.Contains(f.URLs, s.url) })
}

// arrived notes a first delivery.
func (f *faults) arrived(p *person, sent, at int64) {
	if !p.steady {
		return
	}
	f.watches = slices.DeleteFunc(f.watches, func(w *watch) bool {
		if w.pending[p] && sent > w.since {
			delete(w.pending, p)
			w.times.add(at - w.since)
		}
		return len(w.pending) == 0 || at-w.since > watchTime
	})
}

// vanish notes who has to be announced as gone.
func (c *check) vanish(op *history.Op) {
	for _, id := range sortedIDs(c.people) {
		p := c.people[id]
		if p.role == roleMaster || len(p.open) == 0 || !p.online.on {
			continue
		}
		elsewhere := slices.ContainsFunc(p.open, func(s *session) bool { return !slices.Contains(op.Fault.URLs, s.url) })
		if !elsewhere {
			c.faults.vanished = append(c.faults.vanished, &vanished{user: p, fault: op.Fault.Number, at: op.At})
		}
	}
}

// look judges who had to be announced as gone by now. Who has come back before need
// not be.
func (f *faults) look(c *check, at int64) {
	for len(f.vanished) > 0 && at > f.vanished[0].at+offlineTime {
		v := f.vanished[0]
		f.vanished = f.vanished[1:]
		back := slices.ContainsFunc(v.user.open, func(s *session) bool { return s.opened > v.at }) || v.user.tried > v.at
		if !v.heard && !back && f.calm(v) {
			c.violated(I9, at, subject{user: v.user.id}, "%s was not announced as gone within %d s after its connector was killed", v.user.id, offlineTime/1_000_000)
		}
	}
	f.past = slices.DeleteFunc(f.past, func(past *fault) bool { return past.end != 0 && past.end+calmBefore+offlineTime < at })
}

// calm says whether nothing else was wrong around a kill.
func (f *faults) calm(v *vanished) bool {
	return !slices.ContainsFunc(f.past, func(other *fault) bool {
		return other.Number != v.fault && other.begin < v.at+offlineTime && (other.end == 0 || other.end > v.at-calmBefore)
	})
}

func (f *faults) times() []FaultTimes {
	var list []FaultTimes
	for _, kind := range slices.Sorted(maps.Keys(f.byKind)) {
		t := f.byKind[kind]
		list = append(list, FaultTimes{Kind: kind, Count: t.count, Begin: t.begin.times(), End: t.end.times()})
	}
	return list
}

func sortedIDs(people map[string]*person) []string { return slices.Sorted(maps.Keys(people)) }
