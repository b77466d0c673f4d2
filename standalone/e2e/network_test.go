package e2e

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/topology"
	"github.com/linkerhq/linker/standalone/internal/stack"
)

// network is several domains in this process, with embedded brokers.
//
// On every way from a domain to a neighbour stands a proxy of its own: what a
// domain is told of its neighbours' tcp:// urls is not what the file says but the
// address of that proxy. So a test can cut one link and leave the others alone.
type network struct {
	*stack.Stack
	t *testing.T

	mu   sync.Mutex
	ways map[[2]string]*proxy // guarded by mu; by who dials and who is dialled
}

// networkSetup is what a test wants of its network.
type networkSetup struct {
	yaml   string       // describeNetwork makes one
	direct bool         // domains dial what the file says: no proxies
	log    *slog.Logger // nil: none
}

// ownRange is how many users are at home in each domain of describeNetwork.
const ownRange = 1_000_000

// edge is a link between two domains, by their numbers from 1.
type edge struct {
	a, b int
	more string // YAML, such as ", cost: 3"
}

// ringOf links each domain to the next, and the last to the first.
func ringOf(domains int) []edge {
	edges := lineOf(domains)
	if domains > 2 {
		edges = append(edges, edge{a: domains, b: 1})
	}
	return edges
}

// lineOf links each domain to the next.
func lineOf(domains int) []edge {
	var edges []edge
	for n := 1; n < domains; n++ {
		edges = append(edges, edge{a: n, b: n + 1})
	}
	return edges
}

// backOff is how long a domain may wait at most before it dials a neighbour again
// from which it has heard nothing, and then some.
const backOff = 30*time.Second + patience

// patiently is eventually, for as long as it is told.
func patiently(t *testing.T, what string, limit time.Duration, look func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(limit); !look(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("after %v: not %s", limit, what)
		}
	}
}

// domainName is the name of the n-th domain.
func domainName(n int) string { return fmt.Sprintf("domain-%02d", n) }

// clientURL is what clients are told of the n-th domain; nobody listens there.
func clientURL(n int) string { return fmt.Sprintf("ws://%s.example:8088", domainName(n)) }

// userAt returns a user of ANZ that is at home in the n-th domain, another one for
// each number.
func userAt(n, number int) string { return fmt.Sprintf("ANZ-%d", (n-1)*ownRange+number) }

// describeNetwork describes a network with the apps ANZ and BNZ.
func describeNetwork(domains int, edges []edge) string {
	var b strings.Builder
	b.WriteString("domains:\n")
	for n := 1; n <= domains; n++ {
		fmt.Fprintf(&b, "  - {name: %s, urls: ['tcp://%s.example:9089', '%s']}\n", domainName(n), domainName(n), clientURL(n))
	}
	b.WriteString("domainLinks:\n")
	for _, e := range edges {
		fmt.Fprintf(&b, "  - {n1: %s, n2: %s%s}\n", domainName(e.a), domainName(e.b), e.more)
	}
	b.WriteString("clientApps:\n")
	for _, app := range []string{"ANZ", "BNZ"} {
		fmt.Fprintf(&b, "  - {appName: %s, appId: %s, masterUserId: %s}\n", app, appID(app), masterOf(app))
	}
	b.WriteString("userDistributions:\n")
	for n := 1; n <= domains; n++ {
		fmt.Fprintf(&b, "  - {domainName: %s, from: %d, to: %d}\n", domainName(n), (n-1)*ownRange, n*ownRange-1)
	}
	return b.String()
}

// startNetwork runs a network for one test and waits until it is ready.
func startNetwork(t *testing.T, setup networkSetup) *network {
	t.Helper()
	n := openNetwork(t, setup)
	n.run()
	return n
}

// openNetwork binds all ports of a network and starts nothing, so that a test can
// use them first. run has to be called.
func openNetwork(t *testing.T, setup networkSetup) *network {
	t.Helper()
	ofStandalone(t)
	admit(t, strings.Count(setup.yaml, "- {name: "))
	n := &network{t: t, ways: map[[2]string]*proxy{}}
	dir := t.TempDir()
	cfg := stack.Config{
		Data: filepath.Join(dir, "data"), Meta: filepath.Join(dir, "network.yaml"), Host: "127.0.0.1",
		Log: cmp.Or(setup.log, slog.New(slog.DiscardHandler)),
	}
	if err := os.WriteFile(cfg.Meta, []byte(setup.yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	if !setup.direct {
		views := httptest.NewServer(n.views())
		t.Cleanup(views.Close)
		cfg.MetaURL = func(domain string) string { return views.URL + "/" + domain }
	}
	var err error
	n.Stack, err = stack.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// run runs the network until the test ends, and waits until it is ready.
func (n *network) run() {
	n.t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(n.t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	n.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			n.t.Errorf("the network ended with %v", err)
		}
	})
	patient, stop := context.WithTimeout(n.t.Context(), readyPatience)
	defer stop()
	if err := n.Ready(patient); err != nil {
		n.t.Fatalf("the network is not ready: %v", err)
	}
}

// place is where the n-th domain listens.
func (n *network) place(number int) stack.Place { return n.Places()[number-1] }

// login logs a user in at the n-th domain.
func (n *network) login(t *testing.T, number int, user string, features ...string) *client {
	t.Helper()
	return login(t, n.place(number).Websocket, user, features...)
}

// way is the proxy through which a domain dials a neighbour.
func (n *network) way(from, to string) *proxy {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.ways[[2]string{from, to}]
	if p == nil {
		p = newProxy(n.t)
		p.find(func() string { return n.linkPort(to) })
		n.ways[[2]string{from, to}] = p
	}
	return p
}

// linkPort is where a domain listens for its neighbours; "" if it does not run.
func (n *network) linkPort(domain string) string {
	for _, p := range n.Places() {
		if p.Domain == domain {
			return strings.TrimPrefix(p.Link, "tcp://")
		}
	}
	return ""
}

// link returns the two proxies of a link, to cut and heal.
func (n *network) link(a, b int) [2]*proxy {
	return [2]*proxy{n.way(domainName(a), domainName(b)), n.way(domainName(b), domainName(a))}
}

// cut ends a link at once, as both ends can see.
func (n *network) cut(a, b int) {
	for _, p := range n.link(a, b) {
		p.cut()
	}
}

// pull pulls the cable of a link: nothing arrives any more, and nobody is told.
func (n *network) pull(a, b int) {
	for _, p := range n.link(a, b) {
		p.blackhole(bothWays)
	}
}

// heal makes a link whole again.
func (n *network) heal(a, b int) {
	for _, p := range n.link(a, b) {
		p.heal()
	}
}

// viewerHeader carries the name of the domain that asks.
const viewerHeader = "X-Viewer"

// views passes what the meta server says on to the services of each domain, with
// the addresses of proxies in place of those of its neighbours.
func (n *network) views() http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			viewer, path, _ := strings.Cut(strings.TrimPrefix(r.In.URL.Path, "/"), "/")
			meta, err := url.Parse(n.MetaURL())
			if err != nil {
				return // it stays as it is, and fails
			}
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.URL.Path = meta.Scheme, meta.Host, "/"+path
			r.Out.Header.Set(viewerHeader, viewer)
		},
		ModifyResponse: func(r *http.Response) error {
			if r.StatusCode != http.StatusOK || r.Request.URL.Path != "/snapshot" {
				return nil
			}
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return err
			}
			if body, err = n.view(r.Request.Header.Get(viewerHeader), body); err != nil {
				return err
			}
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			r.Header.Set("Content-Length", strconv.Itoa(len(body)))
			return nil
		},
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
}

// view is the description of the network as one domain is to see it.
func (n *network) view(viewer string, snapshot []byte) ([]byte, error) {
	s, err := topology.Decode(snapshot)
	if err != nil {
		return nil, err
	}
	described := s.Network()
	described.Domains = slices.Clone(described.Domains)
	for i, d := range described.Domains {
		if !slices.ContainsFunc(s.LinksOf(viewer), func(l topology.Link) bool { return l.N1 == d.Name || l.N2 == d.Name }) || d.Name == viewer {
			continue
		}
		described.Domains[i].URLs = append(d.ClientURLs(), "tcp://"+n.way(viewer, d.Name).addr())
	}
	seen, err := topology.New(s.Version, described)
	if err != nil {
		return nil, err
	}
	return seen.MarshalJSON()
}

func TestEveryDomainOfARingLetsItsUsersInAndSendsTheOthersHome(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, networkSetup{yaml: describeNetwork(4, ringOf(4))})
	for here := 1; here <= 4; here++ {
		n.login(t, here, userAt(here, 1)).works()
		for there := 1; there <= 4; there++ {
			if there == here {
				continue
			}
			c := dial(t, n.place(here).Websocket)
			c.send("%s", auth(userAt(there, 1)))
			f := c.expect("AUTH_CLIENT_REPLY")
			if f.Data.Reason != "WRONG_DOMAIN" || f.Data.Domain != domainName(there) || !slices.Equal(f.Data.URLs, []string{clientURL(there)}) {
				t.Errorf("a user of domain %d at domain %d: got %v", there, here, f)
			}
			if got := c.closed(); got != 4403 {
				t.Errorf("got close code %d, want 4403", got)
			}
		}
	}
}

func TestALinkThatIsCutIsMissingUntilItIsHealed(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, networkSetup{yaml: describeNetwork(3, ringOf(3))})
	if missing := n.MissingLinks(); len(missing) > 0 {
		t.Fatalf("links not up: %v", missing)
	}
	for how, down := range map[string]func(){
		"cut":               func() { n.cut(1, 2) },
		"pulled":            func() { n.pull(1, 2) },
		"open one way only": func() { n.link(1, 2)[0].blackhole(back) },
	} {
		down()
		patiently(t, how, backOff, func() bool { return slices.Equal(n.MissingLinks(), []string{"domain-01–domain-02"}) })
		code, body := get(t, n.MetaURL()+"/readyz")
		if code != http.StatusOK || body != "ready; links not up: domain-01–domain-02\n" {
			t.Errorf("%s: got %d %s", how, code, body)
		}
		n.heal(1, 2)
		began := time.Now()
		patiently(t, "healed after "+how, backOff, func() bool { return len(n.MissingLinks()) == 0 })
		t.Logf("up again %v after it was %s", time.Since(began).Round(time.Millisecond), how)
	}
}

func TestDomainsDialWhatTheFileSays(t *testing.T) {
	t.Parallel()
	one, two := newProxy(t), newProxy(t)
	yaml := describeNetwork(2, lineOf(2))
	for n, p := range []*proxy{one, two} {
		yaml = strings.Replace(yaml, domainName(n+1)+".example:9089", p.addr(), 1)
	}
	n := openNetwork(t, networkSetup{yaml: yaml, direct: true})
	one.forward(strings.TrimPrefix(n.place(1).Link, "tcp://"))
	two.forward(strings.TrimPrefix(n.place(2).Link, "tcp://"))
	n.run()
	if missing := n.MissingLinks(); len(missing) > 0 || one.open() != 1 || two.open() != 1 {
		t.Errorf("links not up: %v; %d and %d connections through the proxies", missing, one.open(), two.open())
	}
}
