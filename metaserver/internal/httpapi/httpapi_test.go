package httpapi_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/metaserver/internal/catalog"
	"github.com/linkerhq/linker/metaserver/internal/httpapi"
	"github.com/linkerhq/linker/pkg/topology"
)

// source is a description that the test replaces.
type source struct {
	mu      sync.Mutex
	state   catalog.State // guarded by mu
	changed chan struct{} // guarded by mu
}

func (s *source) Current() (catalog.State, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state, s.changed
}

func (s *source) put(t *testing.T, version uint64, n topology.Network) {
	t.Helper()
	snapshot, err := topology.New(version, n)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed != nil {
		close(s.changed)
	}
	s.changed = make(chan struct{})
	s.state.Snapshot = snapshot
}

func network() topology.Network {
	return topology.Network{
		Domains: []topology.Domain{
			{Name: "domain-01", URLs: []string{"tcp://one:9089", "ws://one:8088", "wss://one"}},
			{Name: "domain-02", URLs: []string{"tcp://two:9089", "ws://two:8088"}},
			{Name: "domain-03", URLs: []string{"tcp://three:9089"}},
		},
		Links: []topology.Link{{N1: "domain-01", N2: "domain-02", Cost: 3, Key: "hunter2"}},
		Apps: []topology.App{
			{
				Name: "ANZ", AppID: "app-id-343", Master: "ANZ-123223", AuthURL: "http://hunter2:hunter2@auth:4200/auth?key=hunter2#hunter2",
				AuthEnabled: true, Distributions: []topology.Distribution{{DomainName: "domain-02", From: 5, To: topology.MaxNumber}},
			},
			{Name: "BNZ", AppID: "bnz-344", Master: "BNZ-453432"},
		},
		Distributions: []topology.Distribution{
			{DomainName: "domain-01", From: 0, To: 9},
			{DomainName: "domain-03", From: 10, To: 10},
		},
	}
}

func serve(t *testing.T) (http.Handler, *source) {
	t.Helper()
	s := &source{state: catalog.State{
		LoadedAt: time.Date(2026, 11, 21, 3, 34, 0, 0, time.UTC),
		Mistakes: []catalog.Problem{{Line: 12, Text: "domainLinks[1].n2: domain \"domain-9\" is not defined"}},
	}}
	s.put(t, 7, network())
	h, err := httpapi.New(httpapi.Config{Source: s, Token: "services only", File: "meta.yaml", Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	return h, s
}

// ask sends a request whose headers are given as name, value, name, value.
func ask(ctx context.Context, h http.Handler, method, target string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(ctx, method, target, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	h, _ := serve(t)
	for _, c := range []struct {
		target string
		code   int
		body   string
	}{
		{"/domains", 200, `[{"name":"domain-01","urls":["tcp://one:9089","ws://one:8088","wss://one"]},{"name":"domain-02","urls":["tcp://two:9089","ws://two:8088"]},{"name":"domain-03","urls":["tcp://three:9089"]}]`},
		{"/domains/links", 200, `[{"n1":"domain-01","n2":"domain-02"}]`},
		{"/domains/graph", 200, `{"domains":["domain-01","domain-02","domain-03"],"links":[{"n1":"domain-01","n2":"domain-02"}]}`},
		{"/clientApps", 200, `[{"appName":"ANZ","appId":"app-id-343","masterUserId":"ANZ-123223","authUrl":"http://auth:4200/auth","authEnabled":true,` +
			`"userDistributions":[{"domainName":"domain-02","from":5}]},` +
			`{"appName":"BNZ","appId":"bnz-344","masterUserId":"BNZ-453432","authEnabled":false,"userDistributions":[]}]`},
		{"/resolve?userId=ANZ-5", 200, `{"userId":"ANZ-5","app":"ANZ","domain":"domain-02","urls":["ws://two:8088"]}`},
		{"/resolve?userId=ANZ-4", 200, `{"userId":"ANZ-4","app":"ANZ","domain":"","urls":["ws://one:8088","wss://one","ws://two:8088"]}`},
		{"/resolve?userId=BNZ-5", 200, `{"userId":"BNZ-5","app":"BNZ","domain":"domain-01","urls":["ws://one:8088","wss://one"]}`},
		{"/resolve?userId=BNZ-10", 200, `{"userId":"BNZ-10","app":"BNZ","domain":"domain-03","urls":[]}`},
		{"/resolve?userId=BNZ-11", 200, `{"userId":"BNZ-11","app":"BNZ","domain":"","urls":["ws://one:8088","wss://one","ws://two:8088"]}`},
		{"/resolve?userId=CNZ-5", 404, `{"error":"app CNZ is not defined","field":"userId","value":"CNZ-5","expected":"a user of a defined app"}`},
		{"/resolve?userId=ANZ-007", 400, `{"error":"userId is \"ANZ-007\", expected \u003cappName\u003e-\u003cnumber\u003e, such as ANZ-123223",` +
			`"field":"userId","value":"ANZ-007","expected":"\u003cappName\u003e-\u003cnumber\u003e, such as ANZ-123223"}`},
		{"/resolve", 400, `{"error":"userId is \"\", expected \u003cappName\u003e-\u003cnumber\u003e, such as ANZ-123223",` +
			`"field":"userId","value":"","expected":"\u003cappName\u003e-\u003cnumber\u003e, such as ANZ-123223"}`},
		{"/status", 200, `{"version":7,"loadedAt":"2026-11-21T03:34:00Z","file":"meta.yaml",` +
			`"problems":[{"line":12,"text":"domainLinks[1].n2: domain \"domain-9\" is not defined"}],"warnings":[]}`},
		{"/healthz", 200, `{"status":"ok"}`},
		{"/readyz", 200, `{"status":"ok"}`},
		{"/", 404, `{"error":"there is nothing at this path"}`},
		{"/domains/", 404, `{"error":"there is nothing at this path"}`},
		{"/debug/pprof/", 404, `{"error":"there is nothing at this path"}`},
	} {
		t.Run(c.target, func(t *testing.T) {
			t.Parallel()
			w := ask(t.Context(), h, http.MethodGet, c.target)
			if got := strings.TrimSpace(w.Body.String()); w.Code != c.code || got != c.body {
				t.Errorf("got  %d %s\nwant %d %s", w.Code, got, c.code, c.body)
			}
			if got := w.Header().Get("Content-Type"); got != "application/json" {
				t.Errorf("got content type %q", got)
			}
		})
	}
}

func TestSecretsAreInTheSnapshotOnly(t *testing.T) {
	t.Parallel()
	h, _ := serve(t)
	for _, path := range []string{"/domains", "/domains/links", "/domains/graph", "/clientApps", "/resolve?userId=ANZ-1", "/resolve?userId=ANZ-9", "/status", "/snapshot", "/metrics"} {
		w := ask(t.Context(), h, http.MethodGet, path)
		if strings.Contains(w.Body.String(), "hunter2") {
			t.Errorf("%s shows a secret: %s", path, w.Body)
		}
	}
}

func TestOnlyGetAndHeadAreAllowed(t *testing.T) {
	t.Parallel()
	h, _ := serve(t)
	for _, path := range []string{"/domains", "/clientApps", "/snapshot", "/metrics", "/healthz"} {
		w := ask(t.Context(), h, http.MethodPost, path)
		if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET, HEAD" || !json.Valid(w.Body.Bytes()) {
			t.Errorf("POST %s: got %d, Allow %q, %s", path, w.Code, w.Header().Get("Allow"), w.Body)
		}
	}
	if w := ask(t.Context(), h, http.MethodHead, "/domains"); w.Code != http.StatusOK {
		t.Errorf("HEAD /domains: got %d", w.Code)
	}
}

func TestOnlyPublicAnswersAreForEveryOrigin(t *testing.T) {
	t.Parallel()
	h, _ := serve(t)
	for path, want := range map[string]string{"/domains": "*", "/resolve?userId=x": "*", "/snapshot": "", "/status": "", "/metrics": ""} {
		w := ask(t.Context(), h, http.MethodGet, path, "Origin", "http://elsewhere", "Authorization", "Bearer services only")
		if got := w.Header().Get("Access-Control-Allow-Origin"); got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
}

func TestTheSnapshotNeedsTheToken(t *testing.T) {
	t.Parallel()
	h, _ := serve(t)
	for _, shown := range []string{"", "Bearer", "Bearer ", "Bearer services", "Basic services only", "services only"} {
		w := ask(t.Context(), h, http.MethodGet, "/snapshot", "Authorization", shown)
		if w.Code != http.StatusUnauthorized || w.Header().Get("WWW-Authenticate") != "Bearer" || w.Header().Get("ETag") != "" {
			t.Errorf("%q: got %d %v", shown, w.Code, w.Header())
		}
	}
	w := ask(t.Context(), h, http.MethodGet, "/snapshot", "Authorization", "bearer services only")
	if w.Code != http.StatusOK || !strings.HasPrefix(w.Header().Get("ETag"), `"7-`) {
		t.Fatalf("got %d %v", w.Code, w.Header())
	}
	got, err := topology.Decode(w.Body.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if got.Version != 7 || got.Network().Links[0].Key != "hunter2" {
		t.Errorf("got %+v", got)
	}
}

func TestABadWaitIsRefused(t *testing.T) {
	t.Parallel()
	h, _ := serve(t)
	for _, wait := range []string{"x", "5", "-1s", "31s"} {
		w := ask(t.Context(), h, http.MethodGet, "/snapshot?wait="+wait, "Authorization", "Bearer services only")
		if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), `"field":"wait","value":"`+wait+`"`) {
			t.Errorf("%s: got %d %s", wait, w.Code, w.Body)
		}
	}
}

func TestWaitingForTheNextVersion(t *testing.T) {
	t.Parallel()
	const token = "Bearer services only"
	for _, c := range []struct {
		name, wait, has string
		change          time.Duration // 0: none
		code            int
		after           time.Duration
	}{
		{"another version is answered at once", "25s", `"6"`, 0, 200, 0},
		{"no version is answered at once", "25s", "", 0, 200, 0},
		{"the version of another network is answered at once", "25s", `"7-0"`, 0, 200, 0},
		{"the same version without waiting", "", "TAG", 0, 304, 0},
		{"the same version in a list of weak ones", "", `"5", W/TAG`, 0, 304, 0},
		{"nothing new until the end", "25s", "TAG", 0, 304, 25 * time.Second},
		{"something new in between", "25s", "TAG", 4 * time.Second, 200, 4 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h, s := serve(t)
				if c.change > 0 {
					time.AfterFunc(c.change, func() { s.put(t, 8, network()) })
				}
				tag := ask(t.Context(), h, http.MethodGet, "/snapshot", "Authorization", token).Header().Get("ETag")
				start := time.Now()
				has := strings.ReplaceAll(c.has, "TAG", tag)
				w := ask(t.Context(), h, http.MethodGet, "/snapshot?wait="+c.wait, "Authorization", token, "If-None-Match", has)
				if w.Code != c.code || time.Since(start) != c.after {
					t.Errorf("got %d after %v, want %d after %v", w.Code, time.Since(start), c.code, c.after)
				}
				if w.Code == http.StatusNotModified && w.Body.Len() > 0 {
					t.Errorf("304 has a body: %s", w.Body)
				}
			})
		})
	}
}

func TestWaitingEndsWithTheRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, _ := serve(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		tag := ask(ctx, h, http.MethodGet, "/snapshot", "Authorization", "Bearer services only").Header().Get("ETag")
		start := time.Now()
		ask(ctx, h, http.MethodGet, "/snapshot?wait=25s", "Authorization", "Bearer services only", "If-None-Match", tag)
		if time.Since(start) != time.Second {
			t.Errorf("ended after %v", time.Since(start))
		}
	})
}

func TestRequestsAreCounted(t *testing.T) {
	t.Parallel()
	h, _ := serve(t)
	ask(t.Context(), h, http.MethodGet, "/domains")
	ask(t.Context(), h, http.MethodGet, "/made/up")
	w := ask(t.Context(), h, http.MethodGet, "/metrics")
	for _, want := range []string{
		`linker_httpapi_requests_total{code="200",path="/domains"} 1`,
		`linker_httpapi_requests_total{code="404",path="other"} 1`,
		`linker_httpapi_waiting_requests 0`,
	} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s is not in\n%s", want, w.Body)
		}
	}
}
