package topology

import (
	"cmp"
	"container/heap"
	"slices"
)

// Live says whether the link between two neighbours can be used in the direction
// from one to the other. Nil accepts all links. It may be asked about a link more
// than once and must not change its mind meanwhile.
type Live = func(from, to string) bool

// NextHop returns the neighbour of from that the cheapest path to another domain
// begins with, over the links that are live in the direction of the path. Of paths
// that cost the same it takes the one whose first neighbour's name sorts first,
// so that everybody who sees the same links answers alike. Every hop comes
// strictly nearer, so domains that see the same links never send in a circle.
//
// It is false if there is no path, if either domain is unknown, and from a domain
// to itself.
func (s *Snapshot) NextHop(from, to string, live Live) (string, bool) {
	if from == to {
		return "", false
	}
	return s.towards(to, live).hop(from)
}

// Path returns the domains of the path that messages take if every domain on it
// sees the same links, both ends included, and what it costs. It is nil where
// NextHop is false.
func (s *Snapshot) Path(from, to string, live Live) (path []string, cost int) {
	if from == to {
		return nil, 0
	}
	costs := s.towards(to, live)
	if _, reached := costs.settled[from]; !reached {
		return nil, 0
	}
	path = []string{from}
	for at := from; at != to; {
		hop, ok := costs.hop(at)
		if !ok {
			return nil, 0 // live has changed its mind
		}
		path = append(path, hop)
		at = hop
	}
	return path, costs.settled[from]
}

// costs are what each domain pays for its cheapest path to one destination.
type costs struct {
	snapshot *Snapshot
	live     Live
	settled  map[string]int // no entry for a domain without a path
}

// towards is Dijkstra's algorithm from the destination outwards, against the
// direction of the links.
func (s *Snapshot) towards(to string, live Live) costs {
	c := costs{snapshot: s, live: live, settled: make(map[string]int, len(s.domains))}
	open := &frontier{{domain: to}}
	for open.Len() > 0 {
		near := heap.Pop(open).(reached)
		if _, done := c.settled[near.domain]; done {
			continue
		}
		c.settled[near.domain] = near.cost
		for _, l := range s.links[near.domain] {
			far := l.Other(near.domain)
			if _, done := c.settled[far]; done || !c.open(far, near.domain) {
				continue
			}
			heap.Push(open, reached{domain: far, cost: near.cost + l.cost()})
		}
	}
	return c
}

func (c costs) open(from, to string) bool { return c.live == nil || c.live(from, to) }

// hop is where the cheapest path of a domain goes first.
func (c costs) hop(from string) (string, bool) {
	best, hop := 0, ""
	for _, l := range c.snapshot.links[from] {
		neighbour := l.Other(from)
		rest, reached := c.settled[neighbour]
		if !reached || !c.open(from, neighbour) {
			continue
		}
		total := l.cost() + rest
		if hop == "" || cmp.Or(cmp.Compare(total, best), cmp.Compare(neighbour, hop)) < 0 {
			best, hop = total, neighbour
		}
	}
	return hop, hop != ""
}

// Link returns the link between two domains.
func (s *Snapshot) Link(a, b string) (Link, bool) {
	i := slices.IndexFunc(s.links[a], func(l Link) bool { return l.Other(a) == b })
	if i < 0 {
		return Link{}, false
	}
	return s.links[a][i], true
}

// Other is the domain at the other end of the link.
func (l Link) Other(end string) string {
	if l.N1 == end {
		return l.N2
	}
	return l.N1
}

// reached is a domain and the cost of one path to it.
type reached struct {
	domain string
	cost   int
}

// frontier is a heap.Interface with the cheapest path at its top.
type frontier []reached

func (f frontier) Len() int           { return len(f) }
func (f frontier) Less(i, j int) bool { return f[i].cost < f[j].cost }
func (f frontier) Swap(i, j int)      { f[i], f[j] = f[j], f[i] }
func (f *frontier) Push(x any)        { *f = append(*f, x.(reached)) }

func (f *frontier) Pop() any {
	last := len(*f) - 1
	r := (*f)[last]
	*f = (*f)[:last]
	return r
}
