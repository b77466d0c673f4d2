package topology_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/linkerhq/linker/pkg/topology"
)

// joined is a network of domains a, b, c, … with links written as "ab".
func joined(t *testing.T, domains string, links ...string) *topology.Snapshot {
	t.Helper()
	var n topology.Network
	for _, d := range domains {
		n.Domains = append(n.Domains, topology.Domain{Name: string(d), URLs: []string{"tcp://127.0.0.1:1", "ws://127.0.0.1:2"}})
	}
	for _, l := range links {
		n.Links = append(n.Links, topology.Link{N1: l[:1], N2: l[1:], Key: strings.Repeat("a long key ", 4)})
	}
	s, err := topology.New(1, n)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestBehindANeighbourLiesWhatItReachesWithoutUs(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		domains    string
		links      []string
		here, peer string
		want       string
	}{
		"line, to the right":         {"abcd", []string{"ab", "bc", "cd"}, "b", "c", "cd"},
		"line, to the left":          {"abcd", []string{"ab", "bc", "cd"}, "b", "a", "a"},
		"ring: everybody but us":     {"abcd", []string{"ab", "bc", "cd", "da"}, "a", "b", "bcd"},
		"star, from the middle":      {"abcd", []string{"ab", "ac", "ad"}, "a", "c", "c"},
		"star, from a ray":           {"abcd", []string{"ab", "ac", "ad"}, "b", "a", "acd"},
		"another component is apart": {"abcd", []string{"ab", "cd"}, "a", "b", "b"},
		"no link between the two":    {"abc", []string{"ab", "bc"}, "a", "c", ""},
		"an unknown neighbour":       {"ab", []string{"ab"}, "a", "x", ""},
		"ourselves":                  {"ab", []string{"ab"}, "a", "a", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := joined(t, c.domains, c.links...)
			var got strings.Builder
			for _, d := range c.domains + "x" {
				if s.Behind(c.here, c.peer, string(d)) {
					got.WriteString(string(d))
				}
			}
			if got.String() != c.want {
				t.Errorf("got %q, want %q", got.String(), c.want)
			}
		})
	}
}

func TestBehindIsAskedByManyForDifferentDomains(t *testing.T) {
	t.Parallel()
	s := joined(t, "abcd", "ab", "bc", "cd")
	var running sync.WaitGroup
	for range 4 {
		running.Go(func() {
			for range 100 {
				if !s.Behind("b", "c", "d") || s.Behind("b", "a", "d") || !s.Behind("a", "b", "d") || s.Behind("d", "c", "d") {
					t.Error("a wrong answer")
				}
			}
		})
	}
	running.Wait()
}
