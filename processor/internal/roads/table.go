package roads

import (
	"maps"
	"slices"
	"time"

	"github.com/linkerhq/linker/pkg/topology"
)

// Road is how another domain is reached now.
type Road struct {
	Neighbour string // the next hop
	// Conns are the open connections to it, the oldest first; never empty. They
	// must not be changed.
	Conns []uint64
}

// Table says how the other domains are reached now. It does not change.
type Table struct {
	roads map[string]Road // by destination; no entry for one that is cut off
}

// Road returns how a domain is reached; false if there is no path of live links.
func (t *Table) Road(domain string) (Road, bool) {
	road, ok := t.roads[domain]
	return road, ok
}

// Len is how many domains are reached.
func (t *Table) Len() int { return len(t.roads) }

func (t *Table) equal(other *Table) bool {
	return maps.EqualFunc(t.roads, other.roads, func(a, b Road) bool {
		return a.Neighbour == b.Neighbour && slices.Equal(a.Conns, b.Conns)
	})
}

// Table returns what is known now. A connection that has ended is in it until its
// last HandedOver was called.
func (r *Roads) Table() *Table { return r.table.Load() }

// Subscribe has changed called whenever Table returns another table: from any
// goroutine, so it must not block. After stop has returned a call may still be under
// way; stop may be called more than once.
func (r *Roads) Subscribe(changed func()) (stop func()) {
	s := &subscriber{}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.subscribers[s] = changed
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.subscribers, s)
	}
}

// seen is what a table is made of.
type seen struct {
	network *topology.Snapshot
	open    map[string][]uint64        // own connections by neighbour, the oldest first
	live    map[string]map[string]bool // what domains say
}

func (a seen) equal(b seen) bool {
	return a.network == b.network && maps.EqualFunc(a.open, b.open, slices.Equal) && maps.EqualFunc(a.live, b.live, maps.Equal)
}

// isLive says whether a link can be used in a direction: of our own links only those
// with a connection of this process, of others' what they say.
func (a seen) isLive(domain string) topology.Live {
	return func(from, to string) bool {
		if from == domain {
			return len(a.open[to]) > 0
		}
		return a.live[from][to]
	}
}

// look returns what is to be seen now.
func (r *Roads) look(now time.Time) seen {
	s := seen{network: r.cfg.Network.Current(), open: make(map[string][]uint64), live: r.states.Live(now)}
	for _, c := range r.connections() {
		s.open[c.neighbour.name] = append(s.open[c.neighbour.name], c.id)
	}
	return s
}

// update makes a new table if what it is made of has changed, and tells those who
// asked if it says anything else than the last one.
func (r *Roads) update(now time.Time) {
	s := r.look(now)
	if s.network == nil || s.equal(r.seen) {
		return
	}
	r.seen = s
	t := &Table{roads: make(map[string]Road)}
	for _, d := range s.network.Network().Domains {
		hop, ok := s.network.NextHop(r.cfg.Domain, d.Name, s.isLive(r.cfg.Domain))
		if ok {
			t.roads[d.Name] = Road{Neighbour: hop, Conns: s.open[hop]}
		}
	}
	if t.equal(r.Table()) {
		return
	}
	r.table.Store(t)
	r.mu.Lock()
	subscribers := slices.Collect(maps.Values(r.subscribers))
	r.mu.Unlock()
	for _, changed := range subscribers {
		changed()
	}
}
