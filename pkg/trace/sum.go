package trace

import (
	"maps"
	"slices"
)

// sum adds up what many say. What is said twice counts once. It is owned by one goroutine.
type sum struct {
	asked  map[Place]bool
	absent map[string]bool
	events map[Event]bool
	list   []Event // in the order in which they came
	found  map[Found]bool
	cut    bool
}

func newSum() *sum {
	return &sum{asked: map[Place]bool{}, absent: map[string]bool{}, events: map[Event]bool{}, found: map[Found]bool{}}
}

func (s *sum) add(r Report) {
	s.cut = s.cut || r.Cut
	for _, p := range r.Asked {
		s.asked[p] = true
	}
	for _, name := range r.Missing {
		s.absent[name] = true
	}
	for _, e := range r.Events {
		if !s.events[e] {
			s.events[e] = true
			s.list = append(s.list, e)
		}
	}
	for _, f := range r.Found {
		s.found[f] = true
	}
}

func (s *sum) missing(name string) { s.absent[name] = true }

// report says it all. A domain is missing only if nobody has reached it.
func (s *sum) report() Report {
	for p := range s.asked {
		delete(s.absent, p.Domain)
	}
	r := Report{
		Missing: slices.Sorted(maps.Keys(s.absent)), Events: s.list, Found: slices.Collect(maps.Keys(s.found)), Cut: s.cut,
		Asked: slices.SortedFunc(maps.Keys(s.asked), comparePlaces),
	}
	limit(&r, maxEvents)
	return r
}

// processors says whether one of a domain's processors has answered.
func (s *sum) processors(domain string) bool {
	for p := range s.asked {
		if p.Domain == domain && p.Service == Processor {
			return true
		}
	}
	return false
}

// looks are the places in a domain's mailbox where the message may wait, as its events say.
func (s *sum) looks(domain string) []Look {
	known := map[Look]bool{}
	var looks []Look
	for _, e := range s.list {
		if e.Place.Domain != domain || e.Offset < 0 || e.Lane < 0 || e.User == "" && !e.Road {
			continue
		}
		l := Look{User: e.User, Lane: e.Lane, Offset: e.Offset}
		if e.Road {
			l = Look{Towards: e.Peer, Lane: e.Lane, Offset: e.Offset}
		}
		if known[l] {
			continue
		}
		if len(looks) == maxLooks {
			s.cut = true
			break
		}
		known[l] = true
		looks = append(looks, l)
	}
	return looks
}
