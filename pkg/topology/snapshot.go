package topology

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/linkerhq/linker/pkg/ident"
)

// Snapshot is one version of the network, without mistakes. It does not change
// and may be used by any number of goroutines; what its methods return belongs
// to it and must not be changed.
type Snapshot struct {
	// Version rises with every change of the description, so that of two
	// snapshots of one meta server the greater is the newer. Read only.
	Version uint64

	network Network
	domains map[string]Domain
	apps    map[string]*App
	links   map[string][]Link // by either end
	parts   map[string]int    // domains that links join have the same number
	without remembered
}

// New makes a snapshot of a network, which it copies. The error names every
// mistake in the network; warnings are no mistakes.
func New(version uint64, network Network) (*Snapshot, error) {
	var mistakes []error
	for _, p := range network.Validate() {
		if !p.Warning {
			mistakes = append(mistakes, p)
		}
	}
	if len(mistakes) > 0 {
		return nil, fmt.Errorf("check network: %w", errors.Join(mistakes...))
	}
	network = network.clone()
	s := &Snapshot{
		Version: version,
		network: network,
		domains: make(map[string]Domain, len(network.Domains)),
		apps:    make(map[string]*App, len(network.Apps)),
		links:   make(map[string][]Link),
	}
	for _, d := range network.Domains {
		s.domains[d.Name] = d
	}
	for i := range network.Apps {
		s.apps[network.Apps[i].Name] = &network.Apps[i]
	}
	for _, l := range network.Links {
		s.links[l.N1] = append(s.links[l.N1], l)
		s.links[l.N2] = append(s.links[l.N2], l)
	}
	s.parts = make(map[string]int, len(network.Domains))
	for i, d := range network.Domains {
		s.join(d.Name, i)
	}
	return s, nil
}

// join gives a number to a domain without one, and to all that links join with it.
func (s *Snapshot) join(domain string, part int) {
	if _, done := s.parts[domain]; done {
		return
	}
	s.parts[domain] = part
	for _, l := range s.links[domain] {
		s.join(l.Other(domain), part)
	}
}

// Joined says whether there is a path between two domains, whatever links are up.
func (s *Snapshot) Joined(a, b string) bool {
	i, known := s.parts[a]
	j, alsoKnown := s.parts[b]
	return known && alsoKnown && i == j
}

// Network returns the description itself, in the order in which it was written.
func (s *Snapshot) Network() Network { return s.network }

// Domain returns the domain of that name.
func (s *Snapshot) Domain(name string) (Domain, bool) {
	d, ok := s.domains[name]
	return d, ok
}

// LinksOf returns the links that have a domain at one of their ends.
func (s *Snapshot) LinksOf(domain string) []Link { return s.links[domain] }

// App returns the client app of that name.
func (s *Snapshot) App(name string) (App, bool) {
	a, ok := s.apps[name]
	if !ok {
		return App{}, false
	}
	return *a, true
}

// Knows says whether there is a client app of that name.
func (s *Snapshot) Knows(app string) bool {
	_, ok := s.apps[app]
	return ok
}

// HomeOf returns the name of the domain that a user is at home in: the first
// distribution that holds its number, of its app if that has any of its own, else
// of the network. A user of no distribution is at home where it is connected.
func (s *Snapshot) HomeOf(user ident.UserID, connectedTo string) string {
	return s.HomesOf(user.App()).Of(user, connectedTo)
}

// HomesOf returns where the users of an app are at home, to ask for many of them.
func (s *Snapshot) HomesOf(app string) Homes {
	if a, ok := s.apps[app]; ok && len(a.Distributions) > 0 {
		return a.Distributions
	}
	return s.network.Distributions
}

// Homes says where the users of one app are at home. It belongs to its snapshot.
type Homes []Distribution

// Of is HomeOf for a user of the app.
func (h Homes) Of(user ident.UserID, connectedTo string) string {
	if len(h) == 0 {
		return connectedTo
	}
	number := user.Number()
	for i := range h {
		if d := &h[i]; d.From <= number && number <= d.To {
			return d.DomainName
		}
	}
	return connectedTo
}

// MayReach says whether users of one app may write to users of another: within
// one app, or if both apps list each other in allowedApps. It does not say that
// the apps exist; App does.
func (s *Snapshot) MayReach(fromApp, toApp string) bool {
	if fromApp == toApp {
		return true
	}
	from, to := s.apps[fromApp], s.apps[toApp]
	return from != nil && to != nil && slices.Contains(from.AllowedApps, toApp) && slices.Contains(to.AllowedApps, fromApp)
}

// SameNetwork says whether two snapshots describe the same network, whatever
// their versions are.
func (s *Snapshot) SameNetwork(other *Snapshot) bool {
	return reflect.DeepEqual(s.network, other.network)
}

// snapshotJSON is the body of GET /snapshot.
type snapshotJSON struct {
	Version uint64 `json:"version"`
	Network
}

// MarshalJSON encodes version and network, secrets included.
func (s *Snapshot) MarshalJSON() ([]byte, error) {
	return json.Marshal(snapshotJSON{Version: s.Version, Network: s.network})
}

// Decode reads what MarshalJSON wrote and checks it as New does. Fields that it
// does not know are ignored: a newer meta server may send them.
func Decode(b []byte) (*Snapshot, error) {
	var in snapshotJSON
	if err := json.Unmarshal(b, &in); err != nil {
		return nil, fmt.Errorf("decode snapshot: %w", err)
	}
	return New(in.Version, in.Network)
}
