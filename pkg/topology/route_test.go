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
	without := func(n1, n2 string) func(topology.Link) bool {
		return func(l topology.Link) bool { return l.N1 != n1 || l.N2 != n2 }
	}
	for _, c := range []struct {
		name     string
		network  topology.Network
		from, to string
		live     func(topology.Link) bool
		want     string
	}{
		{"the neighbour itself", square, "d0", "d1", nil, "d1"},
		{"of two equal ways the one whose name sorts first", square, "d0", "d3", nil, "d1"},
		{"the other way round a dead link", square, "d0", "d3", without("d3", "d1"), "d2"},
		{"the long way to a neighbour behind a dead link", square, "d0", "d1", without("d1", "d0"), "d2"},
		{"a cheap detour before a dear link", dear, "d0", "d2", nil, "d1"},
		{"no way", square, "d0", "d4", nil, ""},
		{"to itself", square, "d0", "d0", nil, ""},
		{"to an unknown domain", square, "d0", "d9", nil, ""},
		{"from an unknown domain", square, "d9", "d0", nil, ""},
		{"no link alive", square, "d0", "d1", func(topology.Link) bool { return false }, ""},
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

func TestNextHopAgreesWithTryingEveryPath(t *testing.T) {
	t.Parallel()
	for seed := range uint64(400) {
		random := rand.New(rand.NewPCG(seed, 1))
		domains := 2 + random.IntN(5)
		var links []topology.Link
		dead := make(map[topology.Link]bool)
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
				dead[l] = random.IntN(4) == 0
			}
		}
		live := func(l topology.Link) bool { return !dead[l] }
		s := snapshot(t, network(domains, links...))
		for a := range domains {
			for b := range domains {
				got, _ := s.NextHop(name(a), name(b), live)
				want := ""
				if a != b {
					want = tryEveryPath(links, live, name(a), name(b))
				}
				if got != want {
					t.Fatalf("seed %d: NextHop(%s, %s) = %q, want %q over %+v, dead %v", seed, name(a), name(b), got, want, links, dead)
				}
			}
		}
	}
}

// tryEveryPath walks every path without a circle and returns the first step of
// the cheapest, of equal ones that whose first step sorts first.
func tryEveryPath(links []topology.Link, live func(topology.Link) bool, from, to string) string {
	best, first := 0, ""
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
			if l.N1 != at && l.N2 != at || !live(l) || slices.Contains(path, next) {
				continue
			}
			walk(append(slices.Clone(path), next), cost+max(l.Cost, 1))
		}
	}
	walk([]string{from}, 0)
	return first
}
