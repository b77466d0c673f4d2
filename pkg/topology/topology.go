// Package topology describes the network as pure data: its domains, the links
// between them, the client apps, and which user is at home where. It reads no
// file, opens no socket and knows no clock; package feed brings snapshots from
// the meta server.
//
// The names of the JSON fields are those of the operators' YAML file.
package topology

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"

	"github.com/linkerhq/linker/pkg/ident"
)

const (
	// MaxNumber is the largest number a user id can carry, and therefore the
	// bound of a distribution that names none.
	MaxNumber = 999_999_999_999_999_999
	// MaxCost is the largest cost of a link.
	MaxCost = 1_000_000
	// MaxPerSecond is the largest rate that a limit can have.
	MaxPerSecond = 1_000_000
	// MaxBurst is the largest burst that a limit can have.
	MaxBurst = 10_000_000
)

// Network is what operators describe. It may hold mistakes; Validate names
// them. A Snapshot holds one that has none.
type Network struct {
	Domains       []Domain       `json:"domains"`
	Links         []Link         `json:"domainLinks"`
	Apps          []App          `json:"clientApps"`
	Distributions []Distribution `json:"userDistributions"`
}

// Domain is one group of connectors and processors.
type Domain struct {
	Name string `json:"name"`
	// URLs are where the domain is reached: tcp:// by its neighbours, ws:// and
	// wss:// by clients.
	URLs []string `json:"urls"`
}

// ClientURLs returns the URLs that clients connect to.
func (d Domain) ClientURLs() []string { return d.urls("ws", "wss") }

// LinkURLs returns the URLs that neighbouring domains dial.
func (d Domain) LinkURLs() []string { return d.urls("tcp") }

func (d Domain) urls(schemes ...string) []string {
	urls := make([]string, 0, len(d.URLs))
	for _, s := range d.URLs {
		u, err := url.Parse(s)
		if err == nil && slices.Contains(schemes, u.Scheme) {
			urls = append(urls, s)
		}
	}
	return urls
}

// Link joins two domains, both ways.
type Link struct {
	N1 string `json:"n1"`
	N2 string `json:"n2"`
	// Cost is what a message pays for crossing, from 1 to MaxCost; 0 stands for
	// the default of 1.
	Cost int `json:"cost,omitempty"`
	// Key is the secret that both ends prove to know; empty if they prove who
	// they are by certificate. It never leaves through a public endpoint.
	Key string `json:"key,omitempty"`
	// Insecure allows the link without any proof of who is at the other end.
	Insecure bool `json:"insecure,omitempty"`
}

func (l Link) cost() int { return max(l.Cost, 1) }

// App is one client app, a tenant: its users' ids begin with its name.
type App struct {
	Name  string `json:"appName"`
	AppID string `json:"appId"`
	// Master is the user that hears of the presence of the others and may close
	// their connections.
	Master ident.UserID `json:"masterUserId"`
	// AuthURL is asked about logins if AuthEnabled. It may carry secrets.
	AuthURL     string `json:"authUrl,omitempty"`
	AuthEnabled bool   `json:"authEnabled"`
	// MasterOne sends each message for the master to one of its sockets; without
	// it every socket gets a copy, as for any other user.
	MasterOne bool `json:"masterOne,omitempty"`
	// AllowedApps are the apps whose users and the users of this one may write to
	// each other, if those apps list this one as well.
	AllowedApps []string `json:"allowedApps,omitempty"`
	// Limits bound how many messages its users may send; the zero value bounds
	// nothing.
	Limits Limits `json:"limits,omitzero"`
	// Distributions, if there are any, stand in place of those of the network.
	Distributions []Distribution `json:"userDistributions,omitempty"`
}

// Limits bound what the users of an app may send.
type Limits struct {
	Socket Limit `json:"socket,omitzero"` // of each socket
	App    Limit `json:"app,omitzero"`    // of all sockets of the app at one connector together
}

// Limit is how many messages may be sent; the zero value is any number.
type Limit struct {
	// PerSecond is how many in the long run, from 1 to MaxPerSecond; 0: any number.
	PerSecond int `json:"messagesPerSecond"`
	// Burst is how many at once after a pause, from 1 to MaxBurst; 0: PerSecond.
	Burst int `json:"burst,omitempty"`
}

// AtOnce is how many messages may be sent at once after a pause.
func (l Limit) AtOnce() int { return cmp.Or(l.Burst, l.PerSecond) }

// Distribution says that the users with numbers From to To, both included, are
// at home in a domain.
type Distribution struct {
	DomainName string
	From       int64
	To         int64 // MaxNumber for no limit
}

// distributionJSON leaves `to` out where there is no limit.
type distributionJSON struct {
	DomainName string `json:"domainName"`
	From       int64  `json:"from"`
	To         *int64 `json:"to,omitempty"`
}

// MarshalJSON leaves out `to` where the distribution has no upper limit.
func (d Distribution) MarshalJSON() ([]byte, error) {
	out := distributionJSON{DomainName: d.DomainName, From: d.From}
	if d.To != MaxNumber {
		out.To = &d.To
	}
	return json.Marshal(out)
}

// UnmarshalJSON reads an absent `from` as 0 and an absent `to` as no limit.
func (d *Distribution) UnmarshalJSON(b []byte) error {
	var in distributionJSON
	if err := json.Unmarshal(b, &in); err != nil {
		return fmt.Errorf("decode distribution: %w", err)
	}
	*d = Distribution{DomainName: in.DomainName, From: in.From, To: MaxNumber}
	if in.To != nil {
		d.To = *in.To
	}
	return nil
}

// clone copies everything that a caller could change behind our back. Lists that
// JSON always shows become empty ones where they are absent, lists that it leaves
// out become absent where they are empty: equal networks are deeply equal.
func (n Network) clone() Network {
	domains := append([]Domain{}, n.Domains...)
	for i := range domains {
		domains[i].URLs = append([]string{}, domains[i].URLs...)
	}
	apps := append([]App{}, n.Apps...)
	for i := range apps {
		apps[i].AllowedApps = append([]string(nil), apps[i].AllowedApps...)
		apps[i].Distributions = append([]Distribution(nil), apps[i].Distributions...)
	}
	return Network{
		Domains:       domains,
		Links:         append([]Link{}, n.Links...),
		Apps:          apps,
		Distributions: append([]Distribution{}, n.Distributions...),
	}
}
