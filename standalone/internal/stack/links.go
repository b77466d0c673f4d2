package stack

import "slices"

// MissingLinks lists the links of the network that are not up both ways, such as
// domain-01–domain-02.
func (s *Stack) MissingLinks() []string {
	neighbours := map[string][]string{}
	for _, d := range s.running() {
		neighbours[d.name] = d.neighbours()
	}
	snapshot, _ := s.metaserv.Network()
	var missing []string
	for _, l := range snapshot.Network().Links {
		if !slices.Contains(neighbours[l.N1], l.N2) || !slices.Contains(neighbours[l.N2], l.N1) {
			missing = append(missing, l.N1+"–"+l.N2)
		}
	}
	return missing
}

// neighbours returns the domains to which the domain has an open link.
func (d *domain) neighbours() []string {
	var up []string
	for _, l := range d.processor.Links() {
		if l.State == "up" {
			up = append(up, l.Neighbour)
		}
	}
	return up
}
