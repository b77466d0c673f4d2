package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/client/js"
)

const (
	scenarioCount    = 120             // numbers of each sender to each receiver, and as many groups
	scenarioPatience = 5 * time.Minute // it takes seconds; a busy machine fails no test
)

// scenario is what testdata/js/scenario.js takes.
type scenario struct {
	URL       string   `json:"url"`
	AppID     string   `json:"appId"`
	Senders   []string `json:"senders"`
	Receivers []string `json:"receivers"`
	Count     int      `json:"count"`
	Directory string   `json:"directory,omitempty"` // of the outboxes
}

func newScenario(at *proxy) scenario {
	return scenario{
		URL: "ws://" + at.addr() + "/ws", AppID: appID("ANZ"), Count: scenarioCount,
		Senders: []string{"ANZ-301", "ANZ-302"}, Receivers: []string{"ANZ-401", "ANZ-402"},
	}
}

// total is how many messages are accepted in the end, but for the last ones.
func (s scenario) total() int { return s.Count * len(s.Senders) * (len(s.Receivers) + 1) }

// check compares what came, by receiver and sender, with what was sent.
func (s scenario) check(t *testing.T, received map[string]map[string][]string) {
	t.Helper()
	for _, receiver := range s.Receivers {
		for _, sender := range s.Senders {
			got := received[receiver][sender]
			for n := range s.Count {
				for i, want := range []string{strconv.Itoa(n), "group " + strconv.Itoa(n)} {
					if at := 2*n + i; at >= len(got) || got[at] != want {
						t.Errorf("from %s to %s: message %d of %d is %.60q, want %q", sender, receiver, at, len(got), slices.Concat(got, []string{""})[min(at, len(got))], want)
						return
					}
				}
			}
			if rest := got[2*s.Count:]; len(rest) != 1 || rest[0] != "end" {
				t.Errorf("from %s to %s: after the last message came %q", sender, receiver, rest)
			}
		}
	}
}

// mortal is a domain that is killed and started again, behind one address.
type mortal struct {
	d  lasting
	at *proxy

	mu  sync.Mutex
	now life // guarded by mu; nil: dead
}

func newMortal(t *testing.T) *mortal {
	t.Helper()
	m := &mortal{d: newLasting(t), at: newProxy(t)}
	m.at.find(func() string {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.now == nil {
			return ""
		}
		u, err := url.Parse(m.now.ws())
		if err != nil {
			return ""
		}
		return u.Host
	})
	m.live(t)
	return m
}

func (m *mortal) live(t *testing.T) {
	t.Helper()
	l := launch(t, m.d)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = l
}

func (m *mortal) die() {
	m.mu.Lock()
	l := m.now
	m.now = nil
	m.mu.Unlock()
	l.kill()
}

// killed kills the domain at each quarter of what is to be accepted, and starts it again.
func (m *mortal) killed(t *testing.T, total int, await func(accepted int)) {
	t.Helper()
	for quarter := 1; quarter < 4; quarter++ {
		await(total * quarter / 4)
		m.die()
		m.live(t)
	}
}

func TestTheClientInNodeGetsEverythingOnceAndInOrderOverKills(t *testing.T) {
	t.Parallel()
	options := nodeOptions(t)
	m := newMortal(t)
	s := newScenario(m.at)
	s.Directory = t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), scenarioPatience)
	defer cancel()
	command := exec.CommandContext(ctx, "node", "testdata/js/node.js", quoted(s))
	command.Env = append(os.Environ(), options)
	var stderr bytes.Buffer
	command.Stderr = &stderr
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	var said struct {
		Accepted int
		Received map[string]map[string][]string
	}
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 16<<20)
	next := func() bool {
		if !lines.Scan() {
			return false
		}
		if err := json.Unmarshal(lines.Bytes(), &said); err != nil {
			t.Errorf("%.200q: %v", lines.Bytes(), err)
		}
		return true
	}
	m.killed(t, s.total(), func(accepted int) {
		for said.Accepted < accepted && next() { //nolint:revive // until it has come so far
		}
	})
	for next() { //nolint:revive // up to the end
	}
	if err := command.Wait(); err != nil {
		t.Fatalf("after %d of %d messages: %v\n%s", said.Accepted, s.total(), err, stderr.Bytes())
	}
	s.check(t, said.Received)
	if said.Accepted != s.total() {
		t.Errorf("%d messages were accepted, want %d", said.Accepted, s.total())
	}
}

func TestTheClientInABrowserGetsEverythingOnceAndInOrderOverKills(t *testing.T) {
	findChromium(t)
	m := newMortal(t)
	s := newScenario(m.at)
	site := newSite(t)
	p := openPage(t, site)
	p.waitFor(t, "window.start !== undefined")
	p.eval(t, fmt.Sprintf("start(%s)", quoted(s)), nil)
	end := time.Now().Add(scenarioPatience)
	await := func(condition string) {
		t.Helper()
		var holds bool
		pause := time.NewTicker(20 * time.Millisecond)
		defer pause.Stop()
		for !holds && time.Now().Before(end) {
			p.eval(t, fmt.Sprintf("window.problem !== '' || (%s)", condition), &holds)
			<-pause.C
		}
		var problem string
		p.eval(t, "window.problem", &problem)
		if !holds || problem != "" {
			t.Fatalf("%s: %v, %s", condition, holds, problem)
		}
	}
	m.killed(t, s.total(), func(accepted int) { await(fmt.Sprintf("window.accepted >= %d", accepted)) })
	await("window.received !== null")
	var received map[string]map[string][]string
	p.eval(t, "window.received", &received)
	s.check(t, received)

	// What was written while nobody was there goes out when the page comes back.
	m.die()
	of := map[string]any{"url": s.URL, "appId": s.AppID, "user": "ANZ-501", "contents": []string{"a", "b", "c"}, "count": 3}
	var contents []string
	p.eval(t, fmt.Sprintf("writeDown(%s)", quoted(of)), &contents)
	if want := of["contents"]; !slices.Equal(contents, want.([]string)) {
		t.Errorf("the outbox holds %q, want %q", contents, want)
	}
	p.call(t, "Page.navigate", map[string]any{"url": site + "/?again"}, nil)
	p.waitFor(t, "location.search === '?again' && window.takeUp !== undefined")
	m.live(t)
	p.eval(t, fmt.Sprintf("takeUp(%s)", quoted(of)), &contents)
	if want := of["contents"]; !slices.Equal(contents, want.([]string)) {
		t.Errorf("after the page was loaded anew came %q, want %q", contents, want)
	}
}

// newSite serves a page with the client and the scenario.
func newSite(t *testing.T) string {
	t.Helper()
	script := func(w http.ResponseWriter, body []byte, err error) {
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "text/javascript; charset=utf-8")
		_, _ = w.Write(body)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte(`<!doctype html><title>client</title><link rel="icon" href="data:,"><script type="module" src="/page.js"></script>`))
	})
	mux.HandleFunc("GET /{file}", func(w http.ResponseWriter, r *http.Request) {
		body, err := fs.ReadFile(js.Files(), r.PathValue("file"))
		if err != nil {
			body, err = fs.ReadFile(os.DirFS("testdata/js"), r.PathValue("file"))
		}
		script(w, body, err)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

// nodeOptions is what Node must be told to have a WebSocket. The test is skipped where
// it cannot have one.
func nodeOptions(t *testing.T) string {
	t.Helper()
	output, err := exec.CommandContext(t.Context(), "node", "--version").Output()
	if err != nil {
		t.Skipf("the client for Node is not tested: node: %v", err)
	}
	version := strings.TrimSpace(string(output))
	var major, minor int
	if _, err := fmt.Sscanf(version, "v%d.%d", &major, &minor); err != nil {
		t.Fatalf("node is of version %q: %v", version, err)
	}
	switch {
	case major >= 22:
		return "NODE_OPTIONS="
	case major > 20 || major == 20 && minor >= 10:
		return "NODE_OPTIONS=--experimental-websocket"
	default:
		t.Skipf("the client for Node is not tested: node is of version %s, 20.10 is the first with a WebSocket", version)
		return ""
	}
}
