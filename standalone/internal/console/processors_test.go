package console_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/linkerhq/linker/standalone/internal/console"
)

// processor is the HTTP port of a processor that says what it is told to say.
type processor struct {
	server *httptest.Server
	asked  atomic.Int64

	mu      sync.Mutex
	answers map[string]string // guarded by mu: by path; a path without one is 404
	token   string            // guarded by mu: that is wanted, if any
}

func startProcessor(t *testing.T, links, network, users string) *processor {
	t.Helper()
	p := &processor{}
	p.say(links, network, users)
	p.server = httptest.NewServer(p)
	t.Cleanup(p.server.Close)
	return p
}

func (p *processor) say(links, network, users string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answers = map[string]string{"/v1/links": links, "/v1/network": network, "/v1/users": users}
}

func (p *processor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.asked.Add(1)
	p.mu.Lock()
	answer, token := p.answers[r.URL.Path], p.token
	p.mu.Unlock()
	switch {
	case token != "" && r.Header.Get("Authorization") != "Bearer "+token:
		w.WriteHeader(http.StatusUnauthorized)
	case answer == "":
		http.NotFound(w, r)
	case answer == "500":
		w.WriteHeader(http.StatusInternalServerError)
	default:
		fmt.Fprint(w, answer)
	}
}

// links is an answer; each link is "neighbour state peerState".
func links(list ...string) string {
	entries := make([]string, len(list))
	for i, l := range list {
		var neighbour, state, peer string
		if _, err := fmt.Sscan(l, &neighbour, &state, &peer); err != nil {
			panic(err)
		}
		trouble, connections := "", `{"unacknowledged":3,"rttMs":0.4},{"unacknowledged":1,"rttMs":0.6}`
		if state == "down" {
			trouble, connections = "connection refused", ""
		}
		entries[i] = fmt.Sprintf(`{"neighbour":%q,"cost":2,"state":%q,"peerState":%q,"since":"2026-01-02T03:04:05Z","lastError":%q,"proof":"key","connections":[%s],"records":100,"bytes":5000,"fast":10}`,
			neighbour, state, peer, trouble, connections)
	}
	return "[" + strings.Join(entries, ",") + "]"
}

// network is the answer of a domain; each link is "from to state".
func network(domain string, domains []string, list ...string) string {
	entries := make([]string, len(list))
	for i, l := range list {
		var from, to, state string
		if _, err := fmt.Sscan(l, &from, &to, &state); err != nil {
			panic(err)
		}
		entries[i] = fmt.Sprintf(`{"from":%q,"to":%q,"cost":5,"state":%q}`, from, to, state)
	}
	names := make([]string, len(domains))
	for i, name := range domains {
		names[i] = fmt.Sprintf(`{"name":%q,"heard":true}`, name)
	}
	return fmt.Sprintf(`{"domain":%q,"domains":[%s],"links":[%s]}`, domain, strings.Join(names, ","), strings.Join(entries, ","))
}

func users(domain string, total int, ids ...string) string {
	entries := make([]string, len(ids))
	for i, id := range ids {
		entries[i] = fmt.Sprintf(`{"userId":%q,"connectors":["connector-1"]}`, id)
	}
	return fmt.Sprintf(`{"domain":%q,"total":%d,"users":[%s]}`, domain, total, strings.Join(entries, ","))
}

// look asks a console that was told of these domains for the picture.
func look(t *testing.T, cfg console.Config) console.Picture {
	t.Helper()
	cfg.Log = slog.New(slog.DiscardHandler)
	handler, err := console.Handler(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return see(t, handler)
}

func see(t *testing.T, handler http.Handler) console.Picture {
	t.Helper()
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/network", nil))
	if recorder.Code != http.StatusOK || recorder.Header().Get("Cache-Control") != "no-store" {
		t.Fatalf("status %d, Cache-Control %q", recorder.Code, recorder.Header().Get("Cache-Control"))
	}
	var picture console.Picture
	if err := json.Unmarshal(recorder.Body.Bytes(), &picture); err != nil {
		t.Fatal(err)
	}
	return picture
}

// text is the picture in short: domains with their users, links with the states of the
// link and of both its ways.
func text(p console.Picture) string {
	var b strings.Builder
	for _, d := range p.Domains {
		fmt.Fprintf(&b, "%s:", d.Name)
		for _, u := range d.Users {
			fmt.Fprintf(&b, "%s,", u.UserID)
		}
		if d.Total == nil {
			b.WriteString("?")
		} else {
			fmt.Fprint(&b, *d.Total)
		}
		b.WriteString(" ")
	}
	for _, l := range p.Links {
		fmt.Fprintf(&b, "%s-%s:%s(%s %s) ", l.N1, l.N2, l.State, l.Ways[0].State, l.Ways[1].State)
	}
	return strings.TrimSpace(b.String())
}

func TestThePictureShowsDomainsUsersAndLinks(t *testing.T) {
	t.Parallel()
	all := []string{"a", "b", "c"}
	a := startProcessor(t, links("b up up", "c down down"), network("a", all), users("a", 7, "ANZ-1", "ANZ-2"))
	b := startProcessor(t, links("a up up", "c up down"), network("b", all), users("b", 0))
	c := startProcessor(t, links("a down down", "b down up"), network("c", all), users("c", 1, "BNZ-1"))
	picture := look(t, console.Config{Domains: []console.Domain{
		{Name: "a", Port: 1, Processor: a.server.URL + "/"}, {Name: "b", Port: 2, Processor: b.server.URL}, {Name: "c", Processor: c.server.URL},
	}})
	const want = "a:ANZ-1,ANZ-2,7 b:0 c:BNZ-1,1 a-b:up(up up) a-c:down(down down) b-c:oneWay(up down)"
	if got := text(picture); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	up, down := picture.Links[0].Ways[0], picture.Links[1].Ways[0]
	if up.Connections != 2 || up.Unacknowledged != 4 || up.RTT == nil || *up.RTT != 0.6 || up.Proof != "key" || up.Since != "2026-01-02T03:04:05Z" || up.Problem != "" {
		t.Errorf("the way that is up: %+v", up)
	}
	if down.Problem != "connection refused" || picture.Links[0].Cost != 2 {
		t.Errorf("the way that is down: %+v, cost %d", down, picture.Links[0].Cost)
	}
}

func TestWhatADomainDoesNotSayOthersMayKnow(t *testing.T) {
	t.Parallel()
	all := []string{"a", "b", "c"}
	for name, c := range map[string]struct{ links, network, want string }{
		"its neighbour knows": {
			links("a up down", "c up up"), network("b", all, "a b up"),
			"a-b:oneWay(down up) b-c:up(up up)",
		},
		"its neighbour has heard nothing, but others have": {
			links("a up unknown", "c up unknown"), network("b", all, "a b up", "c b down", "a c up", "c a unknown", "c d up"),
			"a-b:up(up up) a-c:unknown(up unknown) b-c:oneWay(up down)",
		},
		"nobody knows": {
			links("a up unknown"), network("b", all),
			"a-b:unknown(unknown up)",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := startProcessor(t, c.links, c.network, users("b", 0))
			got := text(look(t, console.Config{Domains: []console.Domain{{Name: "a", Port: 1}, {Name: "b", Processor: b.server.URL}}}))
			if want := "a:? b:0 c:? " + c.want; got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

func TestWhyADomainIsUnknownIsSaid(t *testing.T) {
	t.Parallel()
	good := func(domain string) (string, string, string) {
		return links(), network(domain, []string{"a"}), users(domain, 1, "ANZ-1")
	}
	away := startProcessor(t, "", "", "")
	away.server.Close()
	refusing := startProcessor(t, "", "", "")
	refusing.token = "secret"
	foreign := startProcessor(t, "", "", "")
	foreign.say(good("b"))
	old := startProcessor(t, "", "", "")
	broken := startProcessor(t, "{", "{", "{")
	failing := startProcessor(t, "500", "500", "500")
	moved := httptest.NewServer(http.RedirectHandler(away.server.URL, http.StatusFound))
	t.Cleanup(moved.Close)
	for want, url := range map[string]string{
		"connection refused":                    away.server.URL,
		"it wants a token":                      refusing.server.URL,
		`says that it belongs to "b"`:           foreign.server.URL,
		"knows no /v1/links":                    old.server.URL,
		"is not what was expected":              broken.server.URL,
		"answers 500 Internal Server Error":     failing.server.URL,
		"answers 302 Found":                     moved.URL,
		"the URL of its processor is not valid": "http://user:hush@[::1",
		"unsupported protocol scheme":           "ftp://user:hush@127.0.0.1",
		"was not told where its processors are": "",
	} {
		picture := look(t, console.Config{Domains: []console.Domain{{Name: "a", Port: 1, Processor: url}}})
		if got := text(picture); got != "a:?" {
			t.Errorf("%s: got %s", want, got)
			continue
		}
		if got := picture.Domains[0].Problem; !strings.Contains(got, want) || strings.Contains(got, "hush") {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	// The rest is shown when only a part of it fails.
	part := startProcessor(t, links(), network("a", []string{"a"}), "500")
	picture := look(t, console.Config{Domains: []console.Domain{{Name: "a", Port: 1, Processor: part.server.URL}}})
	if text(picture) != "a:?" || !strings.Contains(picture.Domains[0].Problem, "/v1/users") {
		t.Errorf("got %+v", picture)
	}
}

func TestSeveralProcessorsOfADomainAreOne(t *testing.T) {
	t.Parallel()
	all := []string{"a", "b"}
	one := startProcessor(t, links("b up up"), network("a", all), users("a", 1, "ANZ-1"))
	two := startProcessor(t, links("b down up"), network("a", all), users("a", 1, "ANZ-1"))
	b := startProcessor(t, links("a up up"), network("b", all), users("b", 0))
	cfg := console.Config{Domains: []console.Domain{
		{Name: "a", Processor: one.server.URL + ", " + two.server.URL}, {Name: "b", Processor: b.server.URL},
	}}
	picture := look(t, cfg)
	if got := text(picture); got != "a:ANZ-1,1 b:0 a-b:up(up up)" {
		t.Errorf("got %s", got)
	}
	if got := picture.Links[0]; got.Cost != 2 {
		t.Errorf("cost %d", got.Cost)
	}
	if got := picture.Links[0].Ways[0]; got.Problem != "not all processors have a connection: connection refused" || got.Connections != 2 {
		t.Errorf("got %+v", got)
	}
	one.server.Close()
	picture = look(t, cfg)
	if got := text(picture); got != "a:ANZ-1,1 b:0 a-b:oneWay(down up)" || !strings.Contains(picture.Domains[0].Problem, "cannot be asked") {
		t.Errorf("one is away: got %s, %+v", got, picture.Domains[0])
	}
}

func TestALinkWithoutAllItsConnectionsIsUpWithARemark(t *testing.T) {
	t.Parallel()
	a := startProcessor(t, `[{"neighbour":"b","state":"up","connections":[{}],"lastError":"tcp://h:1: refused"}]`, network("a", []string{"a", "b"}, "a b up", "b a up"), users("a", 0))
	picture := look(t, console.Config{Domains: []console.Domain{{Name: "a", Processor: a.server.URL}}})
	link := picture.Links[0]
	if link.State != "up" || link.Cost != 5 || link.Ways[0].Problem != "not every address has a connection: tcp://h:1: refused" || link.Ways[0].RTT != nil {
		t.Errorf("got %+v", link)
	}
}

func TestAProcessorThatHangsDoesNotHoldUpTheOthers(t *testing.T) {
	t.Parallel()
	hanging := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(hanging.Close)
	b := startProcessor(t, links("a up up"), network("b", []string{"a", "b"}), users("b", 0))
	picture := look(t, console.Config{Domains: []console.Domain{{Name: "a", Processor: hanging.URL}, {Name: "b", Processor: b.server.URL}}})
	if got := text(picture); got != "a:? b:0 a-b:up(up up)" || picture.Domains[0].Problem != "its processor does not answer within 2s" {
		t.Errorf("got %s, %q", got, picture.Domains[0].Problem)
	}
}

func TestWhoStopsLookingChangesNothingForTheOthers(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{}, 3)
	answers := make(chan struct{})
	a := startProcessor(t, links(), network("a", []string{"a"}), users("a", 0))
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case asked <- struct{}{}:
		default:
		}
		select {
		case <-answers:
			a.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(slow.Close)
	handler, err := console.Handler(console.Config{Domains: []console.Domain{{Name: "a", Port: 1, Processor: slow.URL}}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(t.Context())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodGet, "/api/network", nil))
	}()
	<-asked
	leave()
	<-gone
	close(answers)
	if got := text(see(t, handler)); got != "a:0" {
		t.Errorf("got %s", got)
	}
}

func TestTheTokenIsShownToProcessorsAndToNobodyElse(t *testing.T) {
	t.Parallel()
	a := startProcessor(t, links(), network("a", []string{"a"}), users("a", 1, "ANZ-1"))
	a.token = "secret"
	cfg := console.Config{Domains: []console.Domain{{Name: "a", Port: 1, Processor: a.server.URL}}, Token: "secret"}
	if got := text(look(t, cfg)); got != "a:ANZ-1,1" {
		t.Errorf("got %s", got)
	}
	var shown atomic.Value
	thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { shown.Store(r.Header.Get("Authorization")) }))
	defer thief.Close()
	sender := httptest.NewServer(http.RedirectHandler(thief.URL, http.StatusTemporaryRedirect))
	defer sender.Close()
	cfg.Domains = []console.Domain{{Name: "a", Port: 1, Processor: sender.URL}}
	look(t, cfg)
	if got := shown.Load(); got != nil {
		t.Errorf("a redirect was followed, with %q", got)
	}
}

func TestBrowsersLearnNeitherTheProcessorsNorTheDomainsThatTheyCannotReach(t *testing.T) {
	t.Parallel()
	handler, err := console.Handler(console.Config{Domains: []console.Domain{
		{Name: "a", Port: 1, Processor: "http://10.0.0.1:8081"}, {Name: "b", Processor: "http://10.0.0.2:8081"},
	}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/config.json", nil))
	if got, want := recorder.Body.String(), `{"domains":[{"name":"a","port":1}],"apps":[]}`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestAnswersOfHugeProcessorsAreCut(t *testing.T) {
	t.Parallel()
	a := startProcessor(t, links(), network("a", []string{"a"}), `{"domain":"a","total":1,"users":[`+strings.Repeat(`{"userId":"ANZ-1"},`, 300_000)+`{}]}`)
	picture := look(t, console.Config{Domains: []console.Domain{{Name: "a", Port: 1, Processor: a.server.URL}}})
	if got := text(picture); got != "a:?" || !strings.Contains(picture.Domains[0].Problem, "not what was expected") {
		t.Errorf("got %s, %q", got, picture.Domains[0].Problem)
	}
}

func TestDomainsComeAndGoByThemselves(t *testing.T) {
	t.Parallel()
	a := startProcessor(t, links(), network("a", []string{"a"}), users("a", 0))
	b := startProcessor(t, links("a up up"), network("b", []string{"a", "b"}), users("b", 2, "ANZ-5"))
	one := console.Domain{Name: "a", Port: 1, Processor: a.server.URL}
	two := console.Domain{Name: "b", Port: 2, Processor: b.server.URL}
	var found []console.Domain
	find := func() []console.Domain { return found }
	picture := func() string { return text(look(t, console.Config{Find: find})) }
	if got := picture(); got != "" {
		t.Errorf("no domain: got %s", got)
	}
	found = []console.Domain{one}
	if got := picture(); got != "a:0" {
		t.Errorf("one domain: got %s", got)
	}
	a.say(links("b up up"), network("a", []string{"a", "b"}), users("a", 0))
	if got := picture(); got != "a:0 b:? a-b:up(up up)" {
		t.Errorf("a domain that the console was not told of: got %s", got)
	}
	found = []console.Domain{one, two}
	if got := picture(); got != "a:0 b:ANZ-5,2 a-b:up(up up)" {
		t.Errorf("two domains: got %s", got)
	}
	// A removed domain runs on, but nobody describes it any more.
	a.say(links(), network("a", []string{"a"}), users("a", 0))
	b.say(links(), network("b", []string{"a"}), users("b", 2, "ANZ-5"))
	if got := picture(); got != "a:0" {
		t.Errorf("after the removal: got %s", got)
	}
}

func TestOneLookIsEnoughForAllWhoLook(t *testing.T) {
	t.Parallel()
	a := startProcessor(t, links(), network("a", []string{"a"}), users("a", 1, "ANZ-1"))
	handler, err := console.Handler(console.Config{Domains: []console.Domain{{Name: "a", Port: 1, Processor: a.server.URL}}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if got := a.asked.Load(); got != 0 {
		t.Errorf("it is asked %d times while nobody looks", got)
	}
	const people = 20
	var looking sync.WaitGroup
	for range people {
		looking.Go(func() {
			if got := text(see(t, handler)); got != "a:ANZ-1,1" {
				t.Errorf("got %s", got)
			}
		})
	}
	looking.Wait()
	if got := a.asked.Load(); got < 3 || got >= 3*people {
		t.Errorf("it was asked %d times for %d people", got, people)
	}
}

func TestTheDomainsThatWereFoundLastStay(t *testing.T) {
	t.Parallel()
	a := startProcessor(t, links(), network("a", []string{"a"}), users("a", 0))
	found := []console.Domain{{Name: "a", Port: 1, Processor: a.server.URL}}
	console.Looks(t, func() []console.Domain { return found }, func(next func() console.Picture) {
		first := text(next())
		found = nil // the meta server is away
		if second := text(next()); first != "a:0" || second != first {
			t.Errorf("got %s, then %s", first, second)
		}
	})
}

func TestTrafficIsWhatTheFiguresMoveInASecond(t *testing.T) {
	t.Parallel()
	say := func(records, bytes, fast int) string {
		return fmt.Sprintf(`[{"neighbour":"b","cost":1,"state":"up","records":%d,"bytes":%d,"fast":%d}]`, records, bytes, fast)
	}
	all := network("a", []string{"a", "b"})
	a := startProcessor(t, say(1000, 5000, 10), all, users("a", 0))
	console.Looks(t, func() []console.Domain { return []console.Domain{{Name: "a", Processor: a.server.URL}} }, func(next func() console.Picture) {
		if got := next().Links[0].Ways[0]; got.RecordsPerSecond != nil || got.FastPerSecond != nil || got.BytesPerSecond != nil {
			t.Errorf("after one look: %+v", got)
		}
		// Looks are a second apart.
		for _, c := range []struct {
			records, bytes, fast int
			want                 []float64
		}{
			{1100, 6000, 10, []float64{100, 1000, 0}},
			{1100, 6000, 30, []float64{50, 500, 10}},
			{1400, 6000, 40, []float64{133, 333, 10}},
			{1400, 6000, 40, []float64{100, 0, 10}}, // the first look is forgotten
			{5, 6, 7, nil},                          // it was started again
			{15, 26, 7, []float64{10, 20, 0}},
		} {
			a.say(say(c.records, c.bytes, c.fast), all, users("a", 0))
			way := next().Links[0].Ways[0]
			var got []float64
			for _, rate := range []*float64{way.RecordsPerSecond, way.BytesPerSecond, way.FastPerSecond} {
				if rate != nil {
					got = append(got, float64(int(*rate)))
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("at %d records: got %v, want %v", c.records, got, c.want)
			}
		}
	})
}
