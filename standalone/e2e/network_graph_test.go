package e2e

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// costOf is the cost of a link as its YAML says.
func costOf(e edge) int {
	_, text, found := strings.Cut(e.more, "cost: ")
	cost, err := strconv.Atoi(text)
	if !found || err != nil {
		return 1
	}
	return cost
}

// withCost is a link with a cost.
func withCost(a, b, cost int) edge { return edge{a: a, b: b, more: fmt.Sprint(", cost: ", cost)} }

// cheapest returns the cost of the cheapest way between any two domains, by number;
// -1: there is none.
func cheapest(domains int, edges []edge) [][]int {
	costs := make([][]int, domains+1)
	for i := range costs {
		costs[i] = slices.Repeat([]int{-1}, domains+1)
		costs[i][i] = 0
	}
	for _, e := range edges {
		costs[e.a][e.b], costs[e.b][e.a] = costOf(e), costOf(e)
	}
	for via := 1; via <= domains; via++ {
		for a := 1; a <= domains; a++ {
			for b := 1; b <= domains; b++ {
				if costs[a][via] < 0 || costs[via][b] < 0 {
					continue
				}
				if sum := costs[a][via] + costs[via][b]; costs[a][b] < 0 || sum < costs[a][b] {
					costs[a][b] = sum
				}
			}
		}
	}
	return costs
}

// gridOf links each domain of a square to those beside and below it, with costs that
// differ.
func gridOf(side int) []edge {
	random := rand.New(rand.NewPCG(3, 3)) // the same each time
	var edges []edge
	for n := 1; n <= side*side; n++ {
		if n%side != 0 {
			edges = append(edges, withCost(n, n+1, 1+random.IntN(9)))
		}
		if n+side <= side*side {
			edges = append(edges, withCost(n, n+side, 1+random.IntN(9)))
		}
	}
	return edges
}

// TestPathsTakenAreTheCheapest sends messages through graphs of all shapes and
// counts which links carry them.
func TestPathsTakenAreTheCheapest(t *testing.T) {
	t.Parallel()
	for name, g := range map[string]struct {
		domains int
		edges   []edge
		pairs   [][2]int // between whom messages go
	}{
		"a line of 8":   {8, lineOf(8), [][2]int{{1, 8}, {8, 1}, {3, 6}}},
		"a grid of 3×3": {9, gridOf(3), [][2]int{{1, 9}, {9, 1}, {3, 7}, {7, 3}, {2, 8}, {4, 6}, {5, 1}}},
		"a star":        {5, []edge{{a: 1, b: 2}, {a: 1, b: 3}, {a: 1, b: 4}, {a: 1, b: 5}}, [][2]int{{2, 3}, {3, 4}, {4, 5}, {5, 2}, {1, 4}, {4, 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := startNetwork(t, networkSetup{yaml: describeNetwork(g.domains, g.edges)})
			n.settle(t, g.domains)
			costs := cheapest(g.domains, g.edges)
			direct := map[[2]int]int{}
			for _, e := range g.edges {
				direct[[2]int{e.a, e.b}], direct[[2]int{e.b, e.a}] = costOf(e), costOf(e)
			}
			for from := 1; from <= g.domains; from++ {
				for _, r := range n.routes(t, from) {
					to := numberOf(r.Domain)
					checkRoute(t, r, from, costs[from][to], direct)
				}
			}
			users := map[int]*client{}
			for domain := 1; domain <= g.domains; domain++ {
				users[domain] = n.login(t, domain, userIn(domain))
			}
			before := n.rest(t, g.edges)
			for _, pair := range g.pairs {
				from, to := users[pair[0]], users[pair[1]]
				from.say(to.user, "along the cheapest way", "")
				to.expectMessage(from.user, "along the cheapest way")
				after := n.rest(t, g.edges)
				more := moreThan(before, after)
				before = after
				cost := 0
				for way, count := range more {
					cost += count * direct[way]
				}
				if cost != costs[pair[0]][pair[1]] {
					t.Errorf("from domain %d to %d: the links carried %v, at a cost of %d, want %d", pair[0], pair[1], more, cost, costs[pair[0]][pair[1]])
				}
			}
			for _, pair := range g.pairs {
				from, to := users[pair[0]], users[pair[1]]
				from.sayFast(to.user, "fast", "r")
				to.expectMessage(from.user, "fast")
				from.expectConfirmation("r")
			}
		})
	}
}

// numberOf is the number of a domain; 0: it is none of ours.
func numberOf(domain string) int {
	n, err := strconv.Atoi(strings.TrimPrefix(domain, "domain-"))
	if err != nil {
		return 0
	}
	return n
}

// checkRoute compares what a domain tells of a way with what it should cost.
func checkRoute(t *testing.T, r routeView, from, cost int, direct map[[2]int]int) {
	t.Helper()
	sum, here := 0, from
	for _, name := range r.Path[min(1, len(r.Path)):] {
		next := numberOf(name)
		if direct[[2]int{here, next}] == 0 {
			t.Fatalf("domain %d: the path of %+v is no path", from, r)
		}
		sum, here = sum+direct[[2]int{here, next}], next
	}
	if domainName(here) != r.Domain || !r.Reachable || r.Cost != cost || sum != cost || r.ConfiguredCost != cost || r.NextHop != r.Path[1] {
		t.Errorf("domain %d: got %+v, along which the costs are %d, want %d", from, r, sum, cost)
	}
}

func TestDomainsWithoutAPathCannotReachEachOther(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, networkSetup{yaml: describeNetwork(4, []edge{{a: 1, b: 2}, {a: 3, b: 4}})})
	n.settle(t, 4)
	var users [5]*client
	for domain := 1; domain <= 4; domain++ {
		users[domain] = n.login(t, domain, userIn(domain))
	}
	for _, pair := range [][2]int{{1, 2}, {2, 1}, {3, 4}, {4, 3}} {
		from, to := users[pair[0]], users[pair[1]]
		from.say(to.user, "neighbour", "r")
		to.expectMessage(from.user, "neighbour")
		from.expectConfirmation("r")
	}
	for _, pair := range [][2]int{{1, 3}, {1, 4}, {2, 3}, {3, 1}, {4, 2}} {
		from, to := users[pair[0]], users[pair[1]]
		for _, feature := range []string{"RELIABLE", "FAST"} {
			from.send("%s", message(to.user, "into the void", "r", feature))
			from.expectFailure("DELIVER_FAILED", "NO_ROUTE", "r", to.user)
			from.send("%s", group([]string{to.user, users[pair[0]].user}, "into the void", "r", feature))
			from.expectFailure("DELIVER_FAILED", "NO_ROUTE", "r", to.user)
		}
		if r := n.route(t, pair[0], pair[1]); r.Reachable || len(r.Path)+len(r.ConfiguredPath) > 0 {
			t.Errorf("domain %d routes %+v", pair[0], r)
		}
	}
	for _, c := range users[1:] {
		c.works()
	}
}
