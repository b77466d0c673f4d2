package topology

import "sync"

// Behind says whether what a domain sends can come to here through its neighbour peer:
// whether peer is that domain or reaches it without passing through here. It does not
// matter which links are up. It is false if here and peer have no link.
func (s *Snapshot) Behind(here, peer, domain string) bool {
	if _, linked := s.Link(here, peer); !linked || domain == here {
		return false
	}
	parts := s.without.of(here, s.partsWithout)
	i, known := parts[peer]
	j, alsoKnown := parts[domain]
	return known && alsoKnown && i == j
}

// partsWithout numbers the parts into which the network falls without one domain.
func (s *Snapshot) partsWithout(here string) map[string]int {
	parts := make(map[string]int, len(s.domains))
	for i, d := range s.network.Domains {
		if _, done := parts[d.Name]; done || d.Name == here {
			continue
		}
		parts[d.Name] = i
		for open := []string{d.Name}; len(open) > 0; {
			near := open[len(open)-1]
			open = open[:len(open)-1]
			for _, l := range s.links[near] {
				far := l.Other(near)
				if _, done := parts[far]; !done && far != here {
					parts[far] = i
					open = append(open, far)
				}
			}
		}
	}
	return parts
}

// remembered is what was found out about a snapshot, which does not change: a
// process asks again and again about the one domain that it is of.
type remembered struct {
	mu     sync.Mutex
	parts  map[string]int // guarded by mu; a map that was handed out does not change
	domain string         // guarded by mu; which one parts are without
}

func (r *remembered) of(domain string, find func(string) map[string]int) map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.parts == nil || r.domain != domain {
		r.parts, r.domain = find(domain), domain
	}
	return r.parts
}
