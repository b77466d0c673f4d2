package topology

import (
	"cmp"
	"container/heap"
)

// NextHop returns the neighbour of from that the cheapest path to another domain
// begins with, over the links that live accepts; a nil live accepts all. live may
// be asked about a link more than once and must not change its mind. Of paths
// that cost the same it takes the one whose first neighbour's name sorts first,
// so that everybody who sees the same links answers alike. Every hop comes
// strictly nearer, so domains that see the same links never send in a circle.
//
// It is false if there is no path, if either domain is unknown, and from a domain
// to itself.
func (s *Snapshot) NextHop(from, to string, live func(Link) bool) (string, bool) {
	if from == to {
		return "", false
	}
	costs := s.costsTo(to, live)
	best, hop := 0, ""
	for _, l := range s.links[from] {
		neighbour := l.other(from)
		rest, reached := costs[neighbour]
		if !reached || live != nil && !live(l) {
			continue
		}
		total := l.cost() + rest
		if hop == "" || cmp.Or(cmp.Compare(total, best), cmp.Compare(neighbour, hop)) < 0 {
			best, hop = total, neighbour
		}
	}
	return hop, hop != ""
}

// costsTo is Dijkstra's algorithm from the destination outwards: what each domain
// that has a path pays for it.
func (s *Snapshot) costsTo(to string, live func(Link) bool) map[string]int {
	settled := make(map[string]int, len(s.domains))
	open := &frontier{{domain: to}}
	for open.Len() > 0 {
		near := heap.Pop(open).(reached)
		if _, done := settled[near.domain]; done {
			continue
		}
		settled[near.domain] = near.cost
		for _, l := range s.links[near.domain] {
			far := l.other(near.domain)
			if _, done := settled[far]; done || live != nil && !live(l) {
				continue
			}
			heap.Push(open, reached{domain: far, cost: near.cost + l.cost()})
		}
	}
	return settled
}

func (l Link) other(end string) string {
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
