package authcall_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/connector/internal/authcall"
)

const yes = `{"appId":"app-1","userId":"ANZ-1","isAuthenticated":true}`

func newCaller(t *testing.T) *authcall.Caller {
	t.Helper()
	c, err := authcall.New(slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func request(url string) authcall.Request {
	return authcall.Request{App: "ANZ", URL: url, AppID: "app-1", UserID: "ANZ-1", Token: "to\nken", Waiting: func(bool) {}}
}

func serve(t *testing.T, handle http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(handle)
	t.Cleanup(s.Close)
	return s.URL
}

func TestTheAnswerDecides(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		status int
		body   string
		want   authcall.Answer
	}{
		"yes":                      {200, yes, authcall.Allowed},
		"yes with more":            {201, `{"appId":"app-1","userId":"ANZ-1","isAuthenticated":true,"more":[1]}`, authcall.Allowed},
		"no":                       {200, `{"appId":"app-1","userId":"ANZ-1","isAuthenticated":false}`, authcall.Refused},
		"isAuthenticated missing":  {200, `{"appId":"app-1","userId":"ANZ-1"}`, authcall.Refused},
		"isAuthenticated in caps":  {200, `{"appId":"app-1","userId":"ANZ-1","ISAUTHENTICATED":true}`, authcall.Refused},
		"another user":             {200, `{"appId":"app-1","userId":"ANZ-2","isAuthenticated":true}`, authcall.Refused},
		"another app":              {200, `{"appId":"app-2","userId":"ANZ-1","isAuthenticated":true}`, authcall.Refused},
		"no echo":                  {200, `{"isAuthenticated":true}`, authcall.Refused},
		"isAuthenticated a string": {200, `{"appId":"app-1","userId":"ANZ-1","isAuthenticated":"true"}`, authcall.Unavailable},
		"not JSON":                 {200, `yes`, authcall.Unavailable},
		"an array":                 {200, `[]`, authcall.Unavailable},
		"null":                     {200, `null`, authcall.Unavailable},
		"two objects":              {200, yes + yes, authcall.Unavailable},
		"empty":                    {204, ``, authcall.Unavailable},
		"too large":                {200, yes + strings.Repeat(" ", 16<<10), authcall.Unavailable},
		"400":                      {400, yes, authcall.Refused},
		"401":                      {401, ``, authcall.Refused},
		"403":                      {403, ``, authcall.Refused},
		"404":                      {404, ``, authcall.Refused},
		"408":                      {408, ``, authcall.Unavailable},
		"429":                      {429, ``, authcall.Unavailable},
		"500":                      {500, yes, authcall.Unavailable},
		"503":                      {503, ``, authcall.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(test.status)
				_, _ = io.WriteString(w, test.body)
			})
			if got := newCaller(t).Ask(t.Context(), request(url)); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestTheQuestionIsTheDocumentedOne(t *testing.T) {
	t.Parallel()
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var got map[string]any
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil || r.Method != http.MethodPost {
			t.Errorf("%s, %v", r.Method, err)
		}
		if len(got) != 3 || got["appId"] != "app-1" || got["userId"] != "ANZ-1" || got["token"] != "to\nken" {
			t.Errorf("got %v", got)
		}
		_, _ = io.WriteString(w, yes)
	})
	if got := newCaller(t).Ask(t.Context(), request(url)); got != authcall.Allowed {
		t.Errorf("got %v", got)
	}
}

func TestARedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	var followed atomic.Bool
	target := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		followed.Store(true)
		_, _ = io.WriteString(w, yes)
	})
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, target, http.StatusTemporaryRedirect)
	})
	if got := newCaller(t).Ask(t.Context(), request(url)); got != authcall.Unavailable || followed.Load() {
		t.Errorf("got %v, followed %v", got, followed.Load())
	}
}

func TestASlowServiceIsGivenUp(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	url := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	defer close(release)
	began := time.Now()
	if got := newCaller(t).Ask(t.Context(), request(url)); got != authcall.Unavailable {
		t.Errorf("got %v", got)
	}
	if took := time.Since(began); took < 2*time.Second || took > 5*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestTheEndOfTheContextEndsTheCall(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan struct{})
	url := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		cancel()
		<-r.Context().Done()
		close(gone)
	})
	if got := newCaller(t).Ask(ctx, request(url)); got != authcall.Unavailable {
		t.Errorf("got %v", got)
	}
	<-gone
}

func TestBeyondTheLimitCallsWaitAndAreTold(t *testing.T) {
	t.Parallel()
	var now, most atomic.Int64
	release := make(chan struct{})
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		<-release
		now.Add(-1)
		_, _ = io.WriteString(w, yes)
	})
	c := newCaller(t)
	var queued, left atomic.Int64
	waiting := make(chan struct{}, 100)
	var calls sync.WaitGroup
	for range 70 {
		calls.Go(func() {
			r := request(url)
			r.Waiting = func(begins bool) {
				if begins {
					queued.Add(1)
					waiting <- struct{}{}
				} else {
					left.Add(1)
				}
			}
			if got := c.Ask(t.Context(), r); got != authcall.Allowed {
				t.Errorf("got %v", got)
			}
		})
	}
	for range 6 {
		<-waiting
	}
	close(release)
	calls.Wait()
	if most.Load() > 64 || queued.Load() != 6 || left.Load() != 6 {
		t.Errorf("%d at once, %d queued, %d left the queue", most.Load(), queued.Load(), left.Load())
	}
}

func TestFiveFailuresInARowKeepFurtherCallsAway(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.WriteHeader(http.StatusBadGateway)
	})
	c := newCaller(t)
	for range 20 {
		if got := c.Ask(t.Context(), request(url)); got != authcall.Unavailable {
			t.Errorf("got %v", got)
		}
	}
	if asked.Load() != 5 {
		t.Errorf("asked %d times, want 5", asked.Load())
	}
	other := request(serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, yes) }))
	other.App = "BNZ"
	if got := c.Ask(t.Context(), other); got != authcall.Allowed {
		t.Errorf("another app: got %v", got)
	}
}
