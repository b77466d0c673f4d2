package console_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"

	"github.com/linkerhq/linker/standalone/internal/console"
)

func config() console.Config {
	return console.Config{
		Domains: []console.Domain{{Name: "domain-01", Port: 8088}, {Name: "domain-02", URL: "wss://example.org/ws"}},
		Apps: func() []console.App {
			return []console.App{{Name: "ANZ", AppID: "app-id-343", Master: "ANZ-123223"}}
		},
		Log: slog.New(slog.DiscardHandler),
	}
}

func get(t *testing.T, method, target string, header http.Header) *http.Response {
	t.Helper()
	handler, err := console.Handler(config())
	if err != nil {
		t.Fatal(err)
	}
	request := httptest.NewRequestWithContext(t.Context(), method, target, nil)
	maps.Copy(request.Header, header)
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, request)
	return recorder.Result()
}

func TestFilesAreServedWithTheirContentType(t *testing.T) {
	t.Parallel()
	for target, contentType := range map[string]string{
		"/":            "text/html; charset=utf-8",
		"/console.css": "text/css; charset=utf-8",
		"/console.js":  "text/javascript; charset=utf-8",
		"/pane.js":     "text/javascript; charset=utf-8",
		"/linker.js":   "text/javascript; charset=utf-8",
		"/network.js":  "text/javascript; charset=utf-8",
		"/facts.js":    "text/javascript; charset=utf-8",
		"/layout.js":   "text/javascript; charset=utf-8",
		"/favicon.svg": "image/svg+xml",
		"/config.json": "application/json",
		"/api/network": "application/json",
	} {
		t.Run(target, func(t *testing.T) {
			t.Parallel()
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				response := get(t, method, target, nil)
				if response.StatusCode != http.StatusOK {
					t.Errorf("%s: status %d", method, response.StatusCode)
				}
				if got := response.Header.Get("Content-Type"); got != contentType {
					t.Errorf("%s: content type %q, want %q", method, got, contentType)
				}
			}
		})
	}
}

func TestEveryAnswerCarriesThePolicy(t *testing.T) {
	t.Parallel()
	for _, target := range []string{"/", "/linker.js", "/config.json", "/api/network", "/nothing"} {
		header := get(t, http.MethodGet, target, nil).Header
		policy := header.Get("Content-Security-Policy")
		for _, part := range []string{"default-src 'self'", "connect-src 'self' ws: wss:", "require-trusted-types-for 'script'"} {
			if !strings.Contains(policy, part) {
				t.Errorf("%s: policy %q lacks %q", target, policy, part)
			}
		}
		if strings.Contains(policy, "unsafe") {
			t.Errorf("%s: policy %q is unsafe", target, policy)
		}
		if got := header.Get("X-Content-Type-Options"); got != "nosniff" {
			t.Errorf("%s: X-Content-Type-Options %q", target, got)
		}
	}
}

func TestOtherPathsAreNotFoundAndOtherMethodsNotAllowed(t *testing.T) {
	t.Parallel()
	for _, target := range []string{"/nothing", "/static/linker.js", "/index.html", "/..%2fconsole.go", "/linker.d.ts", "/embed.go", "/linker-node.js", "/readyz"} {
		if got := get(t, http.MethodGet, target, nil).StatusCode; got != http.StatusNotFound {
			t.Errorf("%s: status %d, want 404", target, got)
		}
	}
	for _, target := range []string{"/", "/linker.js", "/config.json", "/api/network"} {
		response := get(t, http.MethodPost, target, nil)
		if response.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("POST %s: status %d, want 405", target, response.StatusCode)
		}
		if got := response.Header.Get("Allow"); got != "GET, HEAD" {
			t.Errorf("POST %s: Allow %q", target, got)
		}
	}
}

func TestBrowsersAskAgainAndKeepWhatHasNotChanged(t *testing.T) {
	t.Parallel()
	first := get(t, http.MethodGet, "/", nil)
	if got := first.Header.Get("Cache-Control"); got != "no-cache" {
		t.Errorf("Cache-Control %q", got)
	}
	again := get(t, http.MethodGet, "/", http.Header{"If-None-Match": {first.Header.Get("Etag")}})
	if again.StatusCode != http.StatusNotModified {
		t.Errorf("status %d, want 304", again.StatusCode)
	}
}

func TestConfigNamesDomainsAndApps(t *testing.T) {
	t.Parallel()
	body, err := io.ReadAll(get(t, http.MethodGet, "/config.json", nil).Body)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"domains":[{"name":"domain-01","port":8088},{"name":"domain-02","url":"wss://example.org/ws"}],` +
		`"apps":[{"name":"ANZ","appId":"app-id-343","masterUserId":"ANZ-123223","authEnabled":false}]}`
	if string(body) != want {
		t.Errorf("got  %s\nwant %s", body, want)
	}
	if !json.Valid(body) {
		t.Error("not JSON")
	}
}

func TestConfigMistakesAreRefused(t *testing.T) {
	t.Parallel()
	for want, domains := range map[string][]console.Domain{
		"no domains":             nil,
		"neither a url nor a po": {{Name: "domain-01"}},
		"from 1 to 65535":        {{Name: "domain-01", Port: 70000}},
	} {
		_, err := console.New("127.0.0.1:0", console.Config{Domains: domains, Log: slog.New(slog.DiscardHandler)})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

func TestServerServesUntilItsContextEnds(t *testing.T) {
	t.Parallel()
	server, err := console.New("127.0.0.1:0", config())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()

	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+server.Addr().String()+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("status %d", response.StatusCode)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	// Whoever may have the port by now, it is not the console.
	response, err = http.DefaultClient.Do(request)
	if err == nil {
		response.Body.Close()
		if response.Header.Get("Content-Security-Policy") != "" {
			t.Error("it still serves")
		}
	}
}

func TestATakenPortIsNamed(t *testing.T) {
	t.Parallel()
	server, err := console.New("127.0.0.1:0", config())
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	_, err = console.New(server.Addr().String(), config())
	if err == nil || !strings.Contains(err.Error(), server.Addr().String()) {
		t.Errorf("error %v, want one that names %s", err, server.Addr())
	}
}

func TestTheModulesKeepTheirPromises(t *testing.T) {
	t.Parallel()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("facts.js and layout.js are not tested: no node in PATH")
	}
	output, err := exec.CommandContext(t.Context(), node, "--test", "testdata/").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, output)
	}
}
