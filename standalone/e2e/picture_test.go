package e2e

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/linkerhq/linker/standalone/internal/console"
)

// world is what all processors of a network say; each domain has one of its own URL.
type world struct {
	mu    sync.Mutex
	links map[string]string   // guarded by mu: state by "from to"
	users map[string][]string // guarded by mu: by domain; these are all domains
}

func (w *world) change(do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	do()
}

// processor answers as a processor of the domain.
func (w *world) processor(domain string) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		defer w.mu.Unlock()
		var list []string
		switch r.URL.Path {
		case "/v1/links":
			for link, state := range w.links {
				if from, to, _ := strings.Cut(link, " "); from == domain {
					list = append(list, fmt.Sprintf(`{"neighbour":%q,"cost":3,"state":%q,"peerState":%q}`, to, state, w.links[to+" "+from]))
				}
			}
			fmt.Fprintf(rw, "[%s]", strings.Join(list, ","))
		case "/v1/network":
			for name := range w.users {
				list = append(list, fmt.Sprintf(`{"name":%q}`, name))
			}
			fmt.Fprintf(rw, `{"domain":%q,"domains":[%s],"links":[]}`, domain, strings.Join(list, ","))
		case "/v1/users":
			for _, user := range w.users[domain] {
				list = append(list, fmt.Sprintf(`{"userId":%q,"connectors":["connector-1"]}`, user))
			}
			fmt.Fprintf(rw, `{"domain":%q,"total":%d,"users":[%s]}`, domain, len(list), strings.Join(list, ","))
		}
	})
}

// TestThePictureFollowsTheNetwork changes a network under the eyes of a browser.
func TestThePictureFollowsTheNetwork(t *testing.T) {
	const hostile = `<b onclick="x">&amp;`
	w := &world{
		links: map[string]string{"domain-01 domain-02": "up", "domain-02 domain-01": "up"},
		users: map[string][]string{"domain-01": {hostile, "ANZ-2", "ANZ-3", "ANZ-4", "ANZ-5", "ANZ-6", "ANZ-7"}, "domain-02": nil},
	}
	var domains []console.Domain
	servers := map[string]*httptest.Server{}
	for i, name := range []string{"domain-01", "domain-02", "domain-03"} {
		servers[name] = httptest.NewServer(w.processor(name))
		t.Cleanup(servers[name].Close)
		domains = append(domains, console.Domain{Name: name, Port: 1 + i, Processor: servers[name].URL})
	}
	handler, err := console.Handler(console.Config{Find: func() []console.Domain { return domains }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)

	p := openPage(t, server.URL)
	texts := func(selector string) string {
		return fmt.Sprintf("Array.from(document.querySelectorAll('#network %s'), (node) => node.textContent).join('|')", selector)
	}
	shows := func(selector, want string) {
		t.Helper()
		p.waitFor(t, fmt.Sprintf("%s === %q", texts(selector), want))
	}
	shows(".name", "domain-01|domain-02")
	shows("summary [data-part=summary]", "2 domains, 7 users, 1 link, all up")
	shows(".crowd", "7 users|nobody here")
	shows(".user", hostile+"|ANZ-2|ANZ-3|ANZ-4|ANZ-5")
	shows(".more", "+ 2 more")
	shows(".cost", "cost 3")
	shows(".links .way[data-state=up] .line", "|") // two lines without a text
	shows(".traffic", "→ 0/s|← 0/s")

	w.change(func() { w.links["domain-01 domain-02"] = "down" })
	shows(".traffic", "→ down|← 0/s")
	shows("summary [data-part=summary]", "2 domains, 7 users, 1 link, 1 one way only")
	shows(".problems li", "domain-01 → domain-02 is down: no connection")
	w.change(func() { w.links["domain-02 domain-01"] = "down" })
	shows(".traffic", "→ down|← down")

	w.change(func() {
		w.links = map[string]string{"domain-01 domain-02": "up", "domain-02 domain-01": "up", "domain-03 domain-02": "up", "domain-02 domain-03": "up"}
		w.users = map[string][]string{"domain-01": nil, "domain-02": {"ANZ-2"}, "domain-03": {"ANZ-3"}}
	})
	shows(".name", "domain-01|domain-02|domain-03")
	shows("summary [data-part=summary]", "3 domains, 2 users, 2 links, all up")
	shows(".user", "ANZ-2|ANZ-3")
	shows("[data-part=ways] td:nth-child(2)", "domain-02|domain-01|domain-03|domain-02")
	shows("[data-part=places] td:nth-child(3)", "–|ANZ-2 (connector-1)|ANZ-3 (connector-1)")
	for _, scheme := range []string{"light", "dark"} {
		p.look(t, 1280, 1400, scheme)
		p.screenshot(t, "network-"+scheme)
		p.look(t, 390, 1400, scheme)
		p.screenshot(t, "network-narrow-"+scheme)
		var overflow bool
		p.eval(t, `document.documentElement.scrollWidth > innerWidth`, &overflow)
		if overflow {
			t.Errorf("%s: a narrow screen has to be scrolled sideways", scheme)
		}
	}

	servers["domain-03"].Close()
	shows(".domain[data-state=unknown] .name", "domain-03")
	shows(".domain[data-state=unknown] .crowd", "state unknown")
	w.change(func() {
		w.links = map[string]string{}
		w.users = map[string][]string{"domain-01": nil}
	})
	shows(".name", "domain-01")
	shows(".line", "")
	p.noProblems(t)
	server.Close()
	p.waitFor(t, `document.getElementById('network').dataset.state === 'stale'`)
}

func TestThePictureShowsARunningNetwork(t *testing.T) {
	findChromium(t) // before anything is started
	n := startNetwork(t, networkSetup{yaml: describeNetwork(3, ringOf(3))})
	first, second := userAt(1, 1), userAt(2, 1)
	n.login(t, 1, first)
	n.login(t, 2, second)
	p := openPage(t, n.ConsoleURL())
	all := func(selector, want string) {
		t.Helper()
		p.waitFor(t, fmt.Sprintf("Array.from(document.querySelectorAll('#network %s'), (node) => node.textContent).join('|') === %q", selector, want))
	}
	all(".name", "domain-01|domain-02|domain-03")
	all(".user", first+"|"+second)
	all("summary [data-part=summary]", "3 domains, 2 users, 3 links, all up")
	n.way("domain-01", "domain-02").cut()
	all("summary [data-part=summary]", "3 domains, 2 users, 3 links, 1 one way only")
	n.cut(1, 2)
	all("summary [data-part=summary]", "3 domains, 2 users, 3 links, 1 down")
	all(".way[data-state=down] .traffic", "→ down|← down")
	p.noProblems(t)
}
