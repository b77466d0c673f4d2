package roads

import (
	"cmp"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"time"
)

// LinkState is what people are told about the link to a neighbour.
type LinkState struct {
	Neighbour string `json:"neighbour"`
	Cost      int    `json:"cost"`
	// State is "up" if this process has a connection, else "down".
	State string `json:"state"`
	// PeerState is what the neighbour says of its link to us: "up", "down", or
	// "unknown" if it is not heard.
	PeerState string `json:"peerState"`
	// Since is when State became what it is.
	Since time.Time `json:"since"`
	// Proof is how the two ends prove who they are: "key", "certificate",
	// "insecure" or "none"; with none the link cannot be opened.
	Proof       string      `json:"proof"`
	Connections []ConnState `json:"connections"`
	// LastError is why an address of the neighbour has no connection; empty if all
	// have one.
	LastError string `json:"lastError"`
	// Records, Bytes and Fast are what this process has sent, repetitions included,
	// since the network has the link.
	Records uint64 `json:"records"`
	Bytes   uint64 `json:"bytes"`
	Fast    uint64 `json:"fast"`
}

// ConnState is what people are told about a connection.
type ConnState struct {
	Address        string    `json:"address"` // what was dialled
	Remote         string    `json:"remote"`  // who has answered
	Since          time.Time `json:"since"`
	RecordsOut     uint64    `json:"recordsOut"`
	BytesOut       uint64    `json:"bytesOut"`
	FastOut        uint64    `json:"fastOut"`
	Queued         int       `json:"queued"` // bytes
	Unacknowledged uint64    `json:"unacknowledged"`
	RTT            float64   `json:"rttMs"`
}

// RouteState is what people are told about the way to another domain: as it is now,
// and as it would be if every link were up.
type RouteState struct {
	Domain         string   `json:"domain"`
	Reachable      bool     `json:"reachable"`
	NextHop        string   `json:"nextHop"`
	Path           []string `json:"path"`
	Cost           int      `json:"cost"`
	ConfiguredPath []string `json:"configuredPath"`
	ConfiguredCost int      `json:"configuredCost"`
}

// NetworkState is what this process knows about the links of the whole network.
type NetworkState struct {
	Domain  string        `json:"domain"` // our own
	Version uint64        `json:"version"`
	Domains []DomainState `json:"domains"`
	// Links has each link twice, once for each direction.
	Links []DirectedState `json:"links"`
}

// DomainState is a domain of the network.
type DomainState struct {
	Name string `json:"name"`
	// Heard says whether anything of its links is known.
	Heard bool `json:"heard"`
}

// DirectedState is one direction of a link, in which records of From travel to To.
type DirectedState struct {
	From  string `json:"from"`
	To    string `json:"to"`
	Cost  int    `json:"cost"`
	State string `json:"state"` // "up", "down", or "unknown" if From is not heard
}

const (
	StateUp      = "up"
	StateDown    = "down"
	stateUnknown = "unknown"
)

// stateOf is what a domain says of its link to another one.
func stateOf(live map[string]map[string]bool, from, to string) string {
	up, heard := live[from]
	switch {
	case !heard:
		return stateUnknown
	case up[to]:
		return StateUp
	default:
		return StateDown
	}
}

// instant is how people are told about a time.
func instant(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

// Links returns the state of each link of our domain, by the neighbour's name.
func (r *Roads) Links() []LinkState {
	live := r.states.Live(time.Now())
	conns := r.connections()
	list := []LinkState{}
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, n := range r.neighbours {
		s := LinkState{
			Neighbour: name, Cost: max(n.link.Cost, 1), State: StateDown, PeerState: stateOf(live, name, r.cfg.Domain),
			Since: instant(n.since), Proof: r.proof(n.link).String(), Connections: []ConnState{}, LastError: n.lastErrorLocked(),
			Records: n.totals.records.Load(), Bytes: n.totals.bytes.Load(), Fast: n.totals.fast.Load(),
		}
		if n.open > 0 {
			s.State = StateUp
		}
		for _, c := range conns {
			if c.neighbour == n {
				s.Connections = append(s.Connections, c.state())
			}
		}
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b LinkState) int { return cmp.Compare(a.Neighbour, b.Neighbour) })
	return list
}

// lastErrorLocked is the newest reason why one of the addresses has no connection.
func (n *neighbour) lastErrorLocked() string {
	if len(n.diallers) == 0 {
		return "the neighbour has no tcp:// URL"
	}
	var last string
	var at time.Time
	for _, d := range n.diallers {
		if text, when := d.lastFailure(); text != "" && when.After(at) {
			last, at = text, when
		}
	}
	return last
}

func (c *conn) state() ConnState {
	stats := c.raw.Stats()
	return ConnState{
		Address: c.address, Remote: c.raw.RemoteAddr().String(), Since: instant(c.since),
		RecordsOut: stats.RecordsOut, BytesOut: stats.BytesOut, FastOut: stats.FastOut,
		Queued: stats.Queued, Unacknowledged: c.waiting(), RTT: float64(stats.RTT.Microseconds()) / 1000,
	}
}

// Routes returns the way to every other domain of the network, by name.
func (r *Roads) Routes() []RouteState {
	s := r.look(time.Now())
	list := []RouteState{}
	if s.network == nil {
		return list
	}
	here := r.cfg.Domain
	for _, d := range s.network.Network().Domains {
		if d.Name == here {
			continue
		}
		route := RouteState{Domain: d.Name}
		route.Path, route.Cost = s.network.Path(here, d.Name, s.isLive(here))
		route.ConfiguredPath, route.ConfiguredCost = s.network.Path(here, d.Name, nil)
		if len(route.Path) > 1 {
			route.Reachable, route.NextHop = true, route.Path[1]
		}
		route.Path = append([]string{}, route.Path...)
		route.ConfiguredPath = append([]string{}, route.ConfiguredPath...)
		list = append(list, route)
	}
	slices.SortFunc(list, func(a, b RouteState) int { return cmp.Compare(a.Domain, b.Domain) })
	return list
}

// Network returns what is known about the links of the whole network, in the order
// of its description.
func (r *Roads) Network() NetworkState {
	live := r.states.Live(time.Now())
	state := NetworkState{Domain: r.cfg.Domain, Domains: []DomainState{}, Links: []DirectedState{}}
	s := r.cfg.Network.Current()
	if s == nil {
		return state
	}
	state.Version = s.Version
	for _, d := range s.Network().Domains {
		_, heard := live[d.Name]
		state.Domains = append(state.Domains, DomainState{Name: d.Name, Heard: heard})
	}
	for _, l := range s.Network().Links {
		for _, from := range []string{l.N1, l.N2} {
			to := l.Other(from)
			state.Links = append(state.Links, DirectedState{From: from, To: to, Cost: max(l.Cost, 1), State: stateOf(live, from, to)})
		}
	}
	return state
}

// Handler serves GET /v1/links, /v1/routes and /v1/network as JSON. It holds no
// secrets, but addresses: whoever mounts it says who may ask.
func (r *Roads) Handler() http.Handler {
	mux := http.NewServeMux()
	serve := func(path string, state func() any) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(state()) // whoever has gone needs no answer
		})
	}
	serve("/v1/links", func() any { return r.Links() })
	serve("/v1/routes", func() any { return r.Routes() })
	serve("/v1/network", func() any { return r.Network() })
	return mux
}

// neighbourNames returns the domains that the network has a link with.
func (r *Roads) neighbourNames() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.neighbours))
}

// otherDomains is how many other domains the network has.
func (r *Roads) otherDomains() uint64 {
	s := r.cfg.Network.Current()
	if s == nil {
		return 0
	}
	others := uint64(0)
	for _, d := range s.Network().Domains {
		if d.Name != r.cfg.Domain {
			others++
		}
	}
	return others
}
