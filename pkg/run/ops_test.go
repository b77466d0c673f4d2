package run_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/run"
)

func TestOpsTellsHealthReadinessAndMetrics(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	if err := run.RuntimeMetrics(reg); err != nil {
		t.Fatal(err)
	}
	var ready atomic.Bool
	ops, err := run.NewOps("127.0.0.1:0", reg, slog.New(slog.DiscardHandler), func() error {
		if !ready.Load() {
			return errors.New("the cat sleeps")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- ops.Run(ctx) }()
	get := func(path string, want int, part string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+ops.Addr().String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		body, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != want || !strings.Contains(string(body), part) {
			t.Errorf("%s: got %d %q, %v; want %d and %q", path, res.StatusCode, body, err, want, part)
		}
	}
	get("/healthz", http.StatusOK, "ok")
	get("/readyz", http.StatusServiceUnavailable, "the cat sleeps")
	ready.Store(true)
	get("/readyz", http.StatusOK, "ready")
	get("/metrics", http.StatusOK, "go_goroutines")
	get("/debug/pprof/", http.StatusNotFound, "") // unless it is revealed
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestWhatIsRevealedIsForThisMachineAndForThoseWithTheToken(t *testing.T) {
	t.Parallel()
	ops, err := run.NewOps("127.0.0.1:0", prometheus.NewRegistry(), slog.New(slog.DiscardHandler), func() error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	done := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	ops.Reveal("GET /v1/thing", done, "secret")
	ops.Reveal("POST /v1/thing", done, "secret")
	ops.Reveal("DELETE /v1/open", done, "")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- ops.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	const get, post = "GET /v1/thing", "POST /v1/thing"
	for what, c := range map[string]struct {
		request string
		host    string // empty: the address
		headers map[string]string
		want    int
	}{
		"a program here": {get, "", nil, http.StatusOK},
		"a program here, which changes something": {post, "", nil, http.StatusOK},
		"without a token in force":                {"DELETE /v1/open", "", nil, http.StatusOK},
		"by the name of this machine":             {post, "localhost:8081", nil, http.StatusOK},
		"by a name that leads here":               {get, "evil.example", nil, http.StatusUnauthorized},
		"for somebody else":                       {post, "", map[string]string{"X-Forwarded-For": "192.0.2.1"}, http.StatusUnauthorized},
		"a person in a browser":                   {get, "", map[string]string{"Sec-Fetch-Site": "none"}, http.StatusOK},
		"an image in a page":                      {get, "", map[string]string{"Sec-Fetch-Site": "cross-site"}, http.StatusUnauthorized},
		"a page of this machine":                  {get, "", map[string]string{"Sec-Fetch-Site": "same-site"}, http.StatusUnauthorized},
		"a page with an origin":                   {get, "", map[string]string{"Origin": "http://127.0.0.1:4400"}, http.StatusUnauthorized},
		"a form of a page":                        {post, "", map[string]string{"Origin": "https://evil.example", "Content-Type": "text/plain"}, http.StatusForbidden},
		"a form of a page without a name":         {post, "", map[string]string{"Origin": "null"}, http.StatusForbidden},
		"a form in an old browser":                {post, "", map[string]string{"Sec-Fetch-Site": "cross-site"}, http.StatusForbidden},
		"a form of a neighbour":                   {post, "", map[string]string{"Sec-Fetch-Site": "same-site"}, http.StatusForbidden},
		"a form where no token is in force":       {"DELETE /v1/open", "", map[string]string{"Sec-Fetch-Site": "cross-site"}, http.StatusForbidden},
		"with the token from elsewhere":           {post, "processor.example", map[string]string{"Authorization": "Bearer secret"}, http.StatusOK},
		"with another token":                      {post, "processor.example", map[string]string{"Authorization": "Bearer secre"}, http.StatusUnauthorized},
		"a page with the token":                   {post, "", map[string]string{"Authorization": "Bearer secret", "Origin": "https://evil.example"}, http.StatusForbidden},
		"an empty token where none is in force":   {"DELETE /v1/open", "processor.example", map[string]string{"Authorization": "Bearer "}, http.StatusUnauthorized},
	} {
		method, path, _ := strings.Cut(c.request, " ")
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+ops.Addr().String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = c.host
		for key, value := range c.headers {
			req.Header.Set(key, value)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != c.want {
			t.Errorf("%s: %d, want %d", what, res.StatusCode, c.want)
		}
	}
}
