package topology_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/linkerhq/linker/pkg/topology"
)

func network(domains int, links ...topology.Link) topology.Network {
	n := topology.Network{Links: links}
	for i := range domains {
		n.Domains = append(n.Domains, topology.Domain{Name: name(i), URLs: []string{"ws://h:1"}})
	}
	return n
}

func name(i int) string { return fmt.Sprintf("d%d", i) }

func TestNextHop(t *testing.T) {
	t.Parallel()
	square := network(
		5,
		topology.Link{N1: "d0", N2: "d2"}, topology.Link{N1: "d2", N2: "d3"},
		topology.Link{N1: "d3", N2: "d1"}, topology.Link{N1: "d1", N2: "d0"},
	)
	dear := network(3, topology.Link{N1: "d0", N2: "d2", Cost: 3}, topology.Link{N1: "d0", N2: "d1"}, topology.Link{N1: "d1", N2: "d2"})
	without := func(n1, n2 string) topology.Live {
		return func(from, to string) bool { return from != n1 || to != n2 }
	}
	for _, c := range []struct {
		name     string
		network  topology.Network
		from, to string
		live     topology.Live
		want     string
	}{
		{"the neighbour itself", square, "d0", "d1", nil, "d1"},
		{"of two equal ways the one whose name sorts first", square, "d0", "d3", nil, "d1"},
		{"the other way round a dead link", square, "d0", "d3", without("d1", "d3"), "d2"},
		{"the long way to a neighbour behind a dead link", square, "d0", "d1", without("d0", "d1"), "d2"},
		{"a link that is dead in the other direction only", square, "d0", "d1", without("d1", "d0"), "d1"},
		{"a cheap detour before a dear link", dear, "d0", "d2", nil, "d1"},
		{"no way", square, "d0", "d4", nil, ""},
		{"to itself", square, "d0", "d0", nil, ""},
		{"to an unknown domain", square, "d0", "d9", nil, ""},
		{"from an unknown domain", square, "d9", "d0", nil, ""},
		{"no link alive", square, "d0", "d1", func(string, string) bool { return false }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			hop, ok := snapshot(t, c.network).NextHop(c.from, c.to, c.live)
			if hop != c.want || ok != (c.want != "") {
				t.Errorf("NextHop(%s, %s) = %q, %v, want %q", c.from, c.to, hop, ok, c.want)
			}
		})
	}
}

// randomNetwork makes a network with links that are dead in one direction, in both
// or in none.
func randomNetwork(seed uint64) (domains int, links []topology.Link, live topology.Live) {
	random := rand.New(rand.NewPCG(seed, 1))
	domains = 2 + random.IntN(5)
	dead := make(map[[2]string]bool)
	for a := range domains {
		for b := a + 1; b < domains; b++ {
			if random.IntN(5) < 2 {
				continue
			}
			l := topology.Link{N1: name(a), N2: name(b), Cost: random.IntN(4)}
			if random.IntN(2) == 0 {
				l.N1, l.N2 = l.N2, l.N1
			}
			links = append(links, l)
			dead[[2]string{l.N1, l.N2}] = random.IntN(4) == 0
			dead[[2]string{l.N2, l.N1}] = random.IntN(4) == 0
		}
	}
	return domains, links, func(from, to string) bool { return !dead[[2]string{from, to}] }
}

func TestRoutesAgreeWithTryingEveryPath(t *testing.T) {
	t.Parallel()
	for seed := range uint64(600) {
		domains, links, live := randomNetwork(seed)
		s := snapshot(t, network(domains, links...))
		for a := range domains {
			for b := range domains {
				first, cost := "", 0
				if a != b {
					first, cost = tryEveryPath(links, live, name(a), name(b))
				}
				hop, ok := s.NextHop(name(a), name(b), live)
				if hop != first || ok != (first != "") {
					t.Fatalf("seed %d: NextHop(%s, %s) = %q, %v, want %q over %+v", seed, name(a), name(b), hop, ok, first, links)
				}
				path, pays := s.Path(name(a), name(b), live)
				if pays != cost || (path != nil) != ok {
					t.Fatalf("seed %d: Path(%s, %s) = %v, %d, want cost %d over %+v", seed, name(a), name(b), path, pays, cost, links)
				}
			}
		}
	}
}

func TestFollowingNextHopIsTheCheapestPath(t *testing.T) {
	t.Parallel()
	for seed := range uint64(600) {
		domains, links, live := randomNetwork(seed)
		s := snapshot(t, network(domains, links...))
		for a := range domains {
			for b := range domains {
				path, cost := s.Path(name(a), name(b), live)
				if path == nil {
					continue
				}
				walked, paid := []string{name(a)}, 0
				for at := name(a); at != name(b) && len(walked) <= domains; {
					hop, ok := s.NextHop(at, name(b), live)
					if !ok || !live(at, hop) {
						t.Fatalf("seed %d: NextHop(%s, %s) = %q, %v on the way from %s", seed, at, name(b), hop, ok, name(a))
					}
					l, linked := s.Link(at, hop)
					if !linked || l.Other(at) != hop || l.Other(hop) != at {
						t.Fatalf("seed %d: Link(%s, %s) = %+v, %v", seed, at, hop, l, linked)
					}
					paid += max(l.Cost, 1)
					walked = append(walked, hop)
					at = hop
				}
				if !slices.Equal(walked, path) || paid != cost {
					t.Fatalf("seed %d: walked %v for %d, Path(%s, %s) = %v for %d", seed, walked, paid, name(a), name(b), path, cost)
				}
			}
		}
	}
}

func TestThereIsNoPathToNowhere(t *testing.T) {
	t.Parallel()
	s := snapshot(t, network(3, topology.Link{N1: "d0", N2: "d1", Cost: 5}))
	for _, ends := range [][2]string{{"d0", "d0"}, {"d0", "d2"}, {"d0", "d9"}, {"d9", "d0"}, {"d9", "d9"}} {
		if path, cost := s.Path(ends[0], ends[1], nil); path != nil || cost != 0 {
			t.Errorf("Path(%s, %s) = %v, %d", ends[0], ends[1], path, cost)
		}
	}
	if l, ok := s.Link("d0", "d2"); ok {
		t.Errorf("Link(d0, d2) = %+v", l)
	}
	if l, ok := s.Link("d1", "d0"); !ok || l.Cost != 5 {
		t.Errorf("Link(d1, d0) = %+v, %v", l, ok)
	}
}

// tryEveryPath walks every path without a circle and returns the first step and the
// cost of the cheapest, of equal ones that whose first step sorts first.
func tryEveryPath(links []topology.Link, live topology.Live, from, to string) (first string, best int) {
	var walk func(path []string, cost int)
	walk = func(path []string, cost int) {
		at := path[len(path)-1]
		if at == to {
			if first == "" || cost < best || cost == best && path[1] < first {
				best, first = cost, path[1]
			}
			return
		}
		for _, l := range links {
			next := l.N2
			if l.N2 == at {
				next = l.N1
			}
			if l.N1 != at && l.N2 != at || !live(at, next) || slices.Contains(path, next) {
				continue
			}
			walk(append(slices.Clone(path), next), cost+max(l.Cost, 1))
		}
	}
	walk([]string{from}, 0)
	return first, best
}
