package httpapi

import (
	"net/http"
	"net/url"
	"time"

	"github.com/linkerhq/linker/metaserver/internal/catalog"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/topology"
)

// api answers what anybody may ask.
type api struct {
	source Source
	file   string
}

func (a *api) snapshot() *topology.Snapshot {
	state, _ := a.source.Current()
	return state.Snapshot
}

func (a *api) domains(w http.ResponseWriter, _ *http.Request) {
	write(w, http.StatusOK, a.snapshot().Network().Domains)
}

// ends is a link as the public sees it: its key is a secret.
type ends struct {
	N1 string `json:"n1"`
	N2 string `json:"n2"`
}

func endsOf(links []topology.Link) []ends {
	out := make([]ends, len(links))
	for i, l := range links {
		out[i] = ends{N1: l.N1, N2: l.N2}
	}
	return out
}

func (a *api) links(w http.ResponseWriter, _ *http.Request) {
	write(w, http.StatusOK, endsOf(a.snapshot().Network().Links))
}

func (a *api) graph(w http.ResponseWriter, _ *http.Request) {
	network := a.snapshot().Network()
	names := make([]string, len(network.Domains))
	for i, d := range network.Domains {
		names[i] = d.Name
	}
	write(w, http.StatusOK, struct {
		Domains []string `json:"domains"`
		Links   []ends   `json:"links"`
	}{names, endsOf(network.Links)})
}

// publicApp is an app as the public sees it.
type publicApp struct {
	Name          string                  `json:"appName"`
	AppID         string                  `json:"appId"`
	Master        ident.UserID            `json:"masterUserId"`
	AuthURL       string                  `json:"authUrl,omitempty"`
	AuthEnabled   bool                    `json:"authEnabled"`
	Distributions []topology.Distribution `json:"userDistributions"`
}

func (a *api) apps(w http.ResponseWriter, _ *http.Request) {
	apps := a.snapshot().Network().Apps
	out := make([]publicApp, len(apps))
	for i, app := range apps {
		out[i] = publicApp{
			Name: app.Name, AppID: app.AppID, Master: app.Master,
			AuthURL: withoutSecrets(app.AuthURL), AuthEnabled: app.AuthEnabled,
			Distributions: append([]topology.Distribution{}, app.Distributions...),
		}
	}
	write(w, http.StatusOK, out)
}

// withoutSecrets leaves of a callback's URL what is no password or key: scheme,
// host and path.
func withoutSecrets(callback string) string {
	u, err := url.Parse(callback)
	if err != nil {
		return ""
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String()
}

// resolve says where a user must connect. A user of no distribution is at home
// wherever it connects: no domain is named to it, and it may take any url.
func (a *api) resolve(w http.ResponseWriter, r *http.Request) {
	asked := r.URL.Query().Get("userId")
	user, err := ident.ParseUserID(asked)
	if err != nil {
		badParameter(w, "userId", asked, "<appName>-<number>, such as ANZ-123223")
		return
	}
	snapshot := a.snapshot()
	_, ok := snapshot.App(user.App())
	if !ok {
		write(w, http.StatusNotFound, problem{
			Error: "app " + user.App() + " is not defined", Field: "userId", Value: &asked, Expected: "a user of a defined app",
		})
		return
	}
	home := snapshot.HomeOf(user, "")
	write(w, http.StatusOK, struct {
		User   ident.UserID `json:"userId"`
		App    string       `json:"app"`
		Domain string       `json:"domain"`
		URLs   []string     `json:"urls"`
	}{user, user.App(), home, clientURLs(snapshot, home)})
}

// clientURLs are those of the home domain, or of all domains if there is none.
func clientURLs(snapshot *topology.Snapshot, home string) []string {
	urls := []string{}
	for _, d := range snapshot.Network().Domains {
		if home == "" || d.Name == home {
			urls = append(urls, d.ClientURLs()...)
		}
	}
	return urls
}

// status says which version is in force and what is wrong with the file.
func (a *api) status(w http.ResponseWriter, _ *http.Request) {
	state, _ := a.source.Current()
	write(w, http.StatusOK, struct {
		Version  uint64            `json:"version"`
		LoadedAt time.Time         `json:"loadedAt"`
		File     string            `json:"file"`
		Problems []catalog.Problem `json:"problems"`
		Warnings []catalog.Problem `json:"warnings"`
	}{
		state.Snapshot.Version, state.LoadedAt.UTC(), a.file,
		append([]catalog.Problem{}, state.Mistakes...), append([]catalog.Problem{}, state.Warnings...),
	})
}
