package stack_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/linkerhq/linker/standalone/internal/stack"
)

// open binds a stack on free ports; it has to be run or closed.
func open(t *testing.T, cfg stack.Config) *stack.Stack {
	t.Helper()
	cfg.Host = "127.0.0.1"
	if cfg.Log == nil {
		cfg.Log = logTo(t)
	}
	s, err := stack.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// describe is a network file with domains at urls that nobody listens at, each home
// to a million users, without links.
func describe(names ...string) string {
	var b strings.Builder
	b.WriteString("domains:\n")
	for _, name := range names {
		fmt.Fprintf(&b, "  - {name: %s, urls: ['tcp://%s.example:9089', 'ws://%s.example:8088']}\n", name, name, name)
	}
	b.WriteString("clientApps:\n  - {appName: ANZ, appId: app-id-343, masterUserId: ANZ-123223}\nuserDistributions:\n")
	for i, name := range names {
		fmt.Fprintf(&b, "  - {domainName: %s, from: %d, to: %d}\n", name, i*1_000_000, (i+1)*1_000_000-1)
	}
	return b.String()
}

// metaFile writes a network file.
func metaFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "meta.yaml")
	write(t, file, []byte(text))
	return file
}

// ask gets a URL.
func ask(t *testing.T, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: new(http.Transport)}
	defer client.CloseIdleConnections()
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// refusedAt logs a user in where it is not at home and returns the answer.
func refusedAt(t *testing.T, url, user string) string {
	t.Helper()
	conn, _, err := websocket.Dial(t.Context(), url, nil) //nolint:bodyclose // it has none after an upgrade
	if err != nil {
		t.Fatal(err)
	}
	c := &client{conn}
	defer c.close()
	c.send(t, fmt.Sprintf(`{"type":"AUTH_CLIENT","data":{"appId":"app-id-343","userId":%q,"token":""}}`, user))
	_, data, err := conn.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestARingIsWrittenWithThePortsAtWhichItsDomainsListen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	told := func(s *stack.Stack) string {
		t.Helper()
		b, err := os.ReadFile(s.NetworkFile())
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for _, asked := range []int{3, 0} { // the second start finds the file of the first, and picks other ports
		s := open(t, stack.Config{Data: dir, Domains: asked})
		places := s.Places()
		if len(places) != 3 {
			t.Fatalf("got %d domains", len(places))
		}
		for i, p := range places {
			if want := fmt.Sprintf("domain-%02d", i+1); p.Domain != want {
				t.Errorf("got %s, want %s", p.Domain, want)
			}
			for _, url := range []string{p.Link, strings.TrimSuffix(p.Websocket, "/ws")} {
				if !strings.Contains(told(s), "- "+url) {
					t.Errorf("%s: the file does not name %s", p.Domain, url)
				}
			}
		}
		if asked != 0 {
			s.Close()
			continue
		}
		background(t, s.Run)
		ready(t, s)
		if missing := s.MissingLinks(); len(missing) > 0 {
			t.Errorf("links not up: %v", missing)
		}
		if code, body := ask(t, s.MetaURL()+"/readyz"); code != http.StatusOK || body != "ready\n" {
			t.Errorf("got %d %s", code, body)
		}
		for i, p := range s.Places() {
			dial(t, p.Websocket, fmt.Sprintf("ANZ-%d", i*1_000_000+1), "app-id-343")
		}
		if got := refusedAt(t, places[0].Websocket, "ANZ-1000000"); !strings.Contains(got, "WRONG_DOMAIN") || !strings.Contains(got, strings.TrimSuffix(places[1].Websocket, "/ws")) {
			t.Errorf("got %s", got)
		}
	}
}

func TestARingThatWasEditedIsNotTouched(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, stack.Config{Data: dir, Domains: 2})
	s.Close()
	file := filepath.Join(dir, "network.yaml")
	written, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	edited := string(written) + "# mine\n"
	write(t, file, []byte(edited))
	s = open(t, stack.Config{Data: dir})
	s.Close()
	if kept, err := os.ReadFile(file); err != nil || string(kept) != edited {
		t.Errorf("the operator's file was changed: %v", err)
	}
}

func TestDomainsListenOnTheirOwnPortsWhateverTheFileSays(t *testing.T) {
	t.Parallel()
	s := open(t, stack.Config{Data: t.TempDir(), Meta: metaFile(t, describe("north", "south"))})
	background(t, s.Run)
	ready(t, s)
	places := s.Places()
	dial(t, places[0].Websocket, "ANZ-1", "app-id-343")
	dial(t, places[1].Websocket, "ANZ-1000001", "app-id-343")
	if got := refusedAt(t, places[1].Websocket, "ANZ-1"); !strings.Contains(got, `"urls":["ws://north.example:8088"]`) {
		t.Errorf("got %s", got)
	}
	var names []string
	for _, e := range s.Endpoints() {
		names = append(names, strings.TrimSpace(e.Domain+" "+e.Name))
	}
	const want = "north websocket, north link, north connector, north processor, south websocket, south link, south connector, south processor, meta server, console"
	if got := strings.Join(names, ", "); got != want {
		t.Errorf("got %s", got)
	}
	for i, p := range places {
		for _, url := range []string{p.Connector, p.Processor} {
			if code, body := ask(t, url+"/readyz"); code != http.StatusOK {
				t.Errorf("domain %d: got %d %s", i, code, body)
			}
		}
	}
}

// linesLog keeps what is logged.
type linesLog struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (l *linesLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *linesLog) await(t *testing.T, text string) {
	t.Helper()
	until(t, "a log record with "+text, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return strings.Contains(l.text.String(), text)
	})
}

func until(t *testing.T, what string, look func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !look(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func TestADomainThatIsAddedStartsAndARemovedOneRunsOn(t *testing.T) {
	t.Parallel()
	log := new(linesLog)
	file := metaFile(t, describe("north", "south"))
	s := open(t, stack.Config{Data: t.TempDir(), Meta: file, Log: slog.New(slog.NewTextHandler(log, nil))})
	background(t, s.Run)
	ready(t, s)

	// It takes the next ports, wherever it stands in the file.
	write(t, file, []byte(describe("north", "middle", "south")))
	until(t, "three domains", func() bool { return len(s.Places()) == 3 })
	added := s.Places()[2]
	if added.Domain != "middle" {
		t.Errorf("got %s", added.Domain)
	}
	log.await(t, "added to the network")
	waitReady(t, added.Connector)
	until(t, "the whole is ready", func() bool { code, _ := ask(t, s.MetaURL()+"/readyz"); return code == http.StatusOK })
	dial(t, added.Websocket, "ANZ-1000001", "app-id-343")

	write(t, file, []byte(describe("north", "middle")))
	log.await(t, "removed from the network")
	if len(s.Places()) != 3 {
		t.Errorf("got %v", s.Places())
	}
	if code, _ := ask(t, s.Places()[1].Processor+"/healthz"); code != http.StatusOK {
		t.Errorf("the removed domain: got %d", code)
	}
	until(t, "the rest is ready", func() bool { code, _ := ask(t, s.MetaURL()+"/readyz"); return code == http.StatusOK })
	dial(t, s.WebsocketURL(), "ANZ-1", "app-id-343")
}

func TestADomainThatCannotBeAddedIsToldAndTriedAgain(t *testing.T) {
	t.Parallel()
	log := new(linesLog)
	file := metaFile(t, describe("north"))
	data := t.TempDir()
	s := open(t, stack.Config{Data: data, Meta: file, Log: slog.New(slog.NewTextHandler(log, nil))})
	background(t, s.Run)
	ready(t, s)
	inTheWay := filepath.Join(data, "south")
	write(t, inTheWay, []byte("not a directory"))
	write(t, file, []byte(describe("north", "south")))
	log.await(t, "domain of the network cannot be started")
	if code, body := ask(t, s.MetaURL()+"/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "south: not started") {
		t.Errorf("got %d %s", code, body)
	}
	dial(t, s.WebsocketURL(), "ANZ-1", "app-id-343") // the other is not disturbed
	if err := os.Remove(inTheWay); err != nil {
		t.Fatal(err)
	}
	until(t, "a second domain", func() bool { return len(s.Places()) == 2 })
}

func TestWhatWaitsInADomainIsThereAfterARestart(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	names := []string{"south", "domain-01", "kafka"} // one that keeps its mailbox in the data directory itself, one like a directory there
	text := describe(names...)
	file := metaFile(t, text)
	for _, again := range []bool{false, true} {
		s := open(t, stack.Config{Data: data, Meta: file})
		stop := background(t, s.Run)
		ready(t, s)
		for _, p := range s.Places() {
			home := slices.Index(names, p.Domain) * 1_000_000
			from, to := fmt.Sprintf("ANZ-%d", home+1), fmt.Sprintf("ANZ-%d", home+2)
			if !again {
				sender := dial(t, p.Websocket, from, "app-id-343", "accept")
				sender.send(t, fmt.Sprintf(`{"type":"MESSAGE","data":{"to":%q,"content":"for %s"},"reference":"r"}`, to, p.Domain))
				sender.expect(t, "MESSAGE_ACCEPTED")
				sender.close()
				continue
			}
			receiver := dial(t, p.Websocket, to, "app-id-343")
			receiver.send(t, `{"type":"FETCH_MISSING_MESSAGES_REQUEST"}`)
			if got := receiver.expect(t, "MESSAGE").Data.Content; got != "for "+p.Domain {
				t.Errorf("got %q at %s", got, p.Domain)
			}
			receiver.close()
		}
		stop()
		// The order in the file decides on ports, and never on whose mailbox it is.
		lines := strings.SplitAfter(text, "\n")
		slices.Reverse(lines[1 : 1+len(names)])
		write(t, file, []byte(strings.Join(lines, "")))
	}
	for _, dir := range []string{"mailbox", "south/mailbox", "kafka.domain/mailbox"} {
		if info, err := os.Stat(filepath.Join(data, dir)); err != nil || !info.IsDir() {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

func TestANumberOfDomainsThatTheFileDoesNotHaveIsAnError(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, stack.Config{Data: dir, Domains: 2})
	s.Close()
	names := make([]string, 65)
	for i := range names {
		names[i] = fmt.Sprintf("d-%d", i)
	}
	for name, c := range map[string]struct {
		cfg  stack.Config
		want []string
	}{
		"an earlier ring": {stack.Config{Data: dir, Domains: 4}, []string{"--domains 4", "describes 2 domains", "remove the file", "--data", dir}},
		"--meta":          {stack.Config{Data: t.TempDir(), Domains: 2, Meta: metaFile(t, describe("north"))}, []string{"--domains 2", "describes 1 domain;", "leave --domains out"}},
		"too many":        {stack.Config{Data: t.TempDir(), Domains: 17}, []string{"--domains 17", "expected 1 to 16"}},
		"too many in it":  {stack.Config{Data: t.TempDir(), Meta: metaFile(t, describe(names...))}, []string{"65 domains", "at most 64"}},
		"no port left":    {stack.Config{Data: t.TempDir(), Domains: 3, Ports: stack.Ports{Link: 65400}}, []string{"--link-port 65400", "domain 3", "65600"}},
		"no such port":    {stack.Config{Data: t.TempDir(), Ports: stack.Ports{Link: 65536, Meta: -1}}, []string{"--link-port 65536", "--meta-port -1", "0 to 65535"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.cfg.Host, c.cfg.Log = "127.0.0.1", slog.New(slog.DiscardHandler)
			s, err := stack.New(c.cfg)
			if err == nil {
				s.Close()
				t.Fatal("it was taken")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
	s = open(t, stack.Config{Data: dir, Domains: 2})
	s.Close()
}

func TestReadinessWaitsForLinksAndThenNamesThoseThatAreMissing(t *testing.T) {
	t.Parallel()
	links := "domainLinks:\n  - {n1: north, n2: south}\nclientApps:"
	file := metaFile(t, strings.Replace(strings.ReplaceAll(describe("north", "south"), ".example:9089", ".invalid:9089"), "clientApps:", links, 1))
	s := open(t, stack.Config{Data: t.TempDir(), Meta: file, Log: slog.New(slog.DiscardHandler)})
	background(t, s.Run)
	for _, url := range []string{s.MetaURL(), strings.TrimSuffix(s.ConsoleURL(), "/")} {
		until(t, "it waits for the link", func() bool {
			code, body := ask(t, url+"/readyz")
			return code == http.StatusServiceUnavailable && body == "not ready: links not up: north–south\n"
		})
	}
	if code, body := ask(t, s.ConnectorURL()+"/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "north–south") {
		t.Errorf("got %d %s", code, body)
	}
	ready(t, s)
	for _, url := range []string{s.MetaURL(), strings.TrimSuffix(s.ConsoleURL(), "/")} {
		if code, body := ask(t, url+"/readyz"); code != http.StatusOK || body != "ready; links not up: north–south\n" {
			t.Errorf("got %d %s", code, body)
		}
	}
	if code, _ := ask(t, s.ConnectorURL()+"/readyz"); code != http.StatusOK {
		t.Errorf("got %d", code)
	}
	if got := s.MissingLinks(); len(got) != 1 || got[0] != "north–south" {
		t.Errorf("got %v", got)
	}
}
