package console

import (
	"cmp"
	"maps"
	"slices"
)

// Picture is the network as the page draws it.
type Picture struct {
	Domains []Place `json:"domains"` // by name
	Links   []Link  `json:"links"`   // by n1 and n2
}

// Place is a domain in the picture, with the users who are there.
type Place struct {
	Name string `json:"name"`
	// Problem is why something about the domain is not known; empty if it is.
	Problem string `json:"problem,omitempty"`
	// Total is how many users are connected; nil: not known. Users are some of them.
	Total *int   `json:"total"`
	Users []User `json:"users"`
}

// User is somebody who is logged in.
type User struct {
	UserID     string   `json:"userId"`
	Connectors []string `json:"connectors"`
}

// LinkState is how it goes on a link, or on one way of it.
type LinkState string

// The states. Only a whole link can be oneWay.
const (
	linkUp      LinkState = "up"
	linkDown    LinkState = "down"
	linkOneWay  LinkState = "oneWay"
	linkUnknown LinkState = "unknown" // nobody who answers knows
)

// Link joins two domains.
type Link struct {
	N1    string    `json:"n1"` // before N2
	N2    string    `json:"n2"`
	Cost  int       `json:"cost,omitempty"` // 0: not known
	State LinkState `json:"state"`
	Ways  [2]Way    `json:"ways"` // from N1 to N2, and back
}

// Way is one direction of a link. What it carries is known only if a processor of From
// answers; what is not known is absent.
type Way struct {
	From             string    `json:"from"`
	To               string    `json:"to"`
	State            LinkState `json:"state"`
	Problem          string    `json:"problem,omitempty"` // why it is not up, or not everywhere
	Since            string    `json:"since,omitempty"`   // RFC 3339
	Proof            string    `json:"proof,omitempty"`
	Connections      int       `json:"connections"`
	Unacknowledged   int64     `json:"unacknowledged"` // records on their way
	RTT              *float64  `json:"rttMs,omitempty"`
	RecordsPerSecond *float64  `json:"recordsPerSecond,omitempty"`
	FastPerSecond    *float64  `json:"fastPerSecond,omitempty"`
	BytesPerSecond   *float64  `json:"bytesPerSecond,omitempty"`
}

// way names a direction.
type way struct{ from, to string }

// compose makes one picture out of what all processors have said. domains are those
// that the console was told of. pace says how fast the figures of a processor for a
// neighbour move.
func compose(domains []Domain, reports []report, pace func(r report, neighbour string) (flow, bool)) Picture {
	names := namesIn(domains, reports)
	picture := Picture{Domains: []Place{}, Links: []Link{}}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		picture.Domains = append(picture.Domains, placeOf(name, domains, reports))
	}
	links := map[way]bool{}
	for _, r := range reports {
		for _, l := range r.links {
			links[sorted(r.domain, l.Neighbour)] = true
		}
		if r.network != nil {
			for _, l := range r.network.Links {
				links[sorted(l.From, l.To)] = true
			}
		}
	}
	for l := range links {
		if names[l.from] && names[l.to] && l.from != l.to {
			picture.Links = append(picture.Links, linkOf(l, reports, pace))
		}
	}
	slices.SortFunc(picture.Links, func(a, b Link) int { return cmp.Or(cmp.Compare(a.N1, b.N1), cmp.Compare(a.N2, b.N2)) })
	return picture
}

func sorted(a, b string) way {
	if a > b {
		a, b = b, a
	}
	return way{a, b}
}

// namesIn are the domains of the network: those that processors name, since they follow
// the description; those that the console was told of while no processor names any.
func namesIn(domains []Domain, reports []report) map[string]bool {
	names := map[string]bool{}
	for _, r := range reports {
		if r.network != nil {
			for _, d := range r.network.Domains {
				names[d.Name] = true
			}
		}
	}
	if len(names) > 0 {
		return names
	}
	for _, d := range domains {
		names[d.Name] = true
	}
	for _, r := range reports {
		for _, l := range r.links {
			names[l.Neighbour] = true
		}
	}
	return names
}

func placeOf(name string, domains []Domain, reports []report) Place {
	place := Place{Name: name, Users: []User{}, Problem: "the console was not told where its processors are"}
	if slices.ContainsFunc(domains, func(d Domain) bool { return d.Name == name && len(d.processors()) > 0 }) {
		place.Problem = ""
	}
	for _, r := range reports {
		if r.domain != name {
			continue
		}
		place.Problem = cmp.Or(place.Problem, r.problem)
		if r.users != nil && place.Total == nil {
			place.Total = &r.users.Total
			place.Users = append(place.Users, r.users.Users...)
		}
	}
	return place
}

func linkOf(l way, reports []report, pace func(r report, neighbour string) (flow, bool)) Link {
	link := Link{N1: l.from, N2: l.to, Ways: [2]Way{
		wayOf(l, reports, pace),
		wayOf(way{l.to, l.from}, reports, pace),
	}}
	for _, r := range reports {
		for _, neighbour := range []string{l.from, l.to} {
			if said, is := r.link(neighbour); is && sorted(r.domain, neighbour) == l {
				link.Cost = said.Cost
			}
		}
		if r.network == nil {
			continue
		}
		for _, said := range r.network.Links {
			if link.Cost == 0 && sorted(said.From, said.To) == l {
				link.Cost = said.Cost
			}
		}
	}
	there, back := link.Ways[0].State, link.Ways[1].State
	switch {
	case there == linkUnknown || back == linkUnknown:
		link.State = linkUnknown
	case there == back:
		link.State = there
	default:
		link.State = linkOneWay
	}
	return link
}

// wayOf believes whoever is nearest: the domain where the way begins, then the one where
// it ends, then the others, who may be cut off themselves, so that one who has it up is
// enough.
func wayOf(w way, reports []report, pace func(r report, neighbour string) (flow, bool)) Way {
	out := Way{From: w.from, To: w.to, State: linkUnknown, Problem: "no processor that answers knows"}
	if out.begins(reports, pace) {
		return out
	}
	for _, r := range reports {
		if r.domain != w.to {
			continue
		}
		if said, is := r.link(w.from); is && said.PeerState != linkUnknown && out.State != linkUp {
			out.says(said.PeerState)
		}
	}
	if out.State != linkUnknown {
		return out
	}
	for _, r := range reports {
		if r.network == nil {
			continue
		}
		for _, l := range r.network.Links {
			if l.From == w.from && l.To == w.to && out.State != linkUp {
				out.says(l.State)
			}
		}
	}
	return out
}

// says takes what another domain has heard.
func (w *Way) says(state LinkState) {
	switch state {
	case linkUp:
		w.State, w.Problem = linkUp, ""
	case linkDown:
		w.State, w.Problem = linkDown, "so the other domains have heard"
	case linkOneWay, linkUnknown:
	}
}

// begins sums up what the processors of the domain say where the way begins: it is up if
// one of them has it up. It says whether any of them knows.
func (w *Way) begins(reports []report, pace func(r report, neighbour string) (flow, bool)) bool {
	known, up, trouble := 0, 0, ""
	for _, r := range reports {
		said, is := r.link(w.To)
		if !is || r.domain != w.From || said.State == linkUnknown {
			continue
		}
		known++
		if said.State == linkUp {
			up++
		}
		trouble = cmp.Or(trouble, said.LastError)
		w.add(said)
		if f, known := pace(r, w.To); known {
			f.addTo(w)
		}
	}
	switch {
	case known == 0:
		return false
	case up == 0:
		w.State, w.Problem = linkDown, cmp.Or(trouble, "no connection")
	case up < known:
		w.State, w.Problem = linkUp, "not all processors have a connection"
	case trouble != "":
		w.State, w.Problem = linkUp, "not every address has a connection"
	default:
		w.State, w.Problem = linkUp, ""
	}
	if up > 0 && trouble != "" {
		w.Problem += ": " + trouble
	}
	return true
}

func (w *Way) add(said linkReport) {
	w.Since, w.Proof = cmp.Or(w.Since, said.Since), cmp.Or(w.Proof, said.Proof)
	w.Connections += len(said.Connections)
	for _, c := range said.Connections {
		w.Unacknowledged += c.Unacknowledged
		if c.RTT > 0 && (w.RTT == nil || *w.RTT < c.RTT) {
			w.RTT = &c.RTT
		}
	}
}
