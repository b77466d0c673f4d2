package feed_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/topology"
	"github.com/linkerhq/linker/pkg/topology/feed"
)

const token = "services only"

// metaServer answers GET /snapshot as the meta server does, without a network.
type metaServer struct {
	mu       sync.Mutex
	snapshot *topology.Snapshot // guarded by mu; nil: the server is away
	changed  chan struct{}      // guarded by mu
	requests int                // guarded by mu
}

func newMetaServer() *metaServer { return &metaServer{changed: make(chan struct{})} }

// put makes a snapshot current; nil takes the server away.
func (m *metaServer) put(s *topology.Snapshot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.snapshot = s
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *metaServer) asked() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.requests
}

func (m *metaServer) current() (*topology.Snapshot, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.snapshot, m.changed
}

func (m *metaServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/base/snapshot" || r.Header.Get("Authorization") != "Bearer "+token {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	wait, err := time.ParseDuration(r.URL.Query().Get("wait"))
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	end := time.After(wait)
	for {
		s, changed := m.current()
		if s == nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		etag := fmt.Sprintf(`"%d"`, s.Version)
		w.Header().Set("ETag", etag)
		if r.Header.Get("If-None-Match") != etag {
			if err := json.NewEncoder(w).Encode(s); err != nil {
				panic(err)
			}
			return
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		case <-end:
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
}

// RoundTrip answers in the caller's goroutine, so that a bubble's clock runs.
func (m *metaServer) RoundTrip(r *http.Request) (*http.Response, error) {
	m.mu.Lock()
	m.requests++
	away := m.snapshot == nil
	m.mu.Unlock()
	if away {
		return nil, errors.New("connection refused")
	}
	w := httptest.NewRecorder()
	m.ServeHTTP(w, r)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return w.Result(), nil
}

// version makes a snapshot whose network differs with the url.
func version(t *testing.T, v uint64, url string) *topology.Snapshot {
	t.Helper()
	s, err := topology.New(v, topology.Network{
		Domains: []topology.Domain{{Name: "domain-01", URLs: []string{url}}},
		Apps:    []topology.App{{Name: "ANZ", AppID: "app-id-343", Master: "ANZ-123223"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// follow starts a feed in a synctest bubble and lets it settle.
func follow(t *testing.T, answers http.RoundTripper, cache string) *feed.Feed {
	t.Helper()
	f, err := feed.New(feed.Config{URL: "http://meta/base/", Token: token, Cache: cache, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	f.SetTransport(answers)
	go func() {
		if err := f.Run(t.Context()); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	synctest.Wait()
	return f
}

// pass lets time go by and everybody act.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func wantVersion(t *testing.T, f *feed.Feed, want uint64) {
	t.Helper()
	got := uint64(0)
	if s := f.Current(); s != nil {
		got = s.Version
	}
	if got != want {
		t.Errorf("version %d is current, want %d", got, want)
	}
}

func TestAChangeArrivesAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMetaServer()
		m.put(version(t, 1, "ws://a"))
		f := follow(t, m, "")
		wantVersion(t, f, 1)
		pass(time.Minute)
		if n := m.asked(); n > 5 {
			t.Errorf("%d requests in a minute without changes", n)
		}
		m.put(version(t, 2, "ws://b"))
		synctest.Wait()
		wantVersion(t, f, 2)
		m.put(version(t, 3, "ws://c"))
		pass(200 * time.Millisecond)
		wantVersion(t, f, 3)
	})
}

func TestTheLastSnapshotStaysWhileTheMetaServerIsAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMetaServer()
		m.put(version(t, 1, "ws://a"))
		f := follow(t, m, "")
		m.put(nil)
		pass(time.Hour)
		wantVersion(t, f, 1)
		if n := m.asked(); n < 1800 || n > 4000 {
			t.Errorf("%d requests in an hour, want one every 1 to 2 s", n)
		}
		m.put(version(t, 2, "ws://b"))
		pass(2 * time.Second)
		wantVersion(t, f, 2)
	})
}

func TestAStartWithoutTheMetaServerUsesTheKeptCopy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cache := filepath.Join(t.TempDir(), "topology.json")
		m := newMetaServer()
		m.put(version(t, 1, "ws://a"))
		first := follow(t, m, cache)
		m.put(version(t, 2, "ws://b"))
		pass(time.Second)
		wantVersion(t, first, 2)

		m.put(nil)
		second := follow(t, m, cache)
		wantVersion(t, second, 2)
		if !second.Current().SameNetwork(first.Current()) {
			t.Errorf("got %+v", second.Current().Network())
		}
		m.put(version(t, 3, "ws://c"))
		pass(2 * time.Second)
		wantVersion(t, second, 3)
	})
}

func TestTheKeptCopyIsForItsOwnerOnlyAndAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cache := filepath.Join(t.TempDir(), "topology.json")
		if err := os.WriteFile(cache, []byte("of an older version"), 0o644); err != nil {
			t.Fatal(err)
		}
		m := newMetaServer()
		m.put(version(t, 1, "ws://a"))
		follow(t, m, cache)
		info, err := os.Stat(cache)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("got %v, %v", info.Mode(), err)
		}
		entries, err := os.ReadDir(filepath.Dir(cache))
		if err != nil || len(entries) != 1 {
			t.Errorf("got %v, %v", entries, err)
		}
	})
}

func TestWithoutServerAndWithoutGoodCopyThereIsNoSnapshot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cache := filepath.Join(t.TempDir(), "topology.json")
		if err := os.WriteFile(cache, []byte(`{"version":1`), 0o600); err != nil {
			t.Fatal(err)
		}
		m := newMetaServer()
		f := follow(t, m, cache)
		pass(time.Minute)
		if s := f.Current(); s != nil {
			t.Errorf("got %+v", s)
		}
		m.put(version(t, 1, "ws://a"))
		pass(2 * time.Second)
		wantVersion(t, f, 1)
	})
}

func TestAKeptCopyThatCannotBeWrittenIsNoObstacle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMetaServer()
		m.put(version(t, 1, "ws://a"))
		f := follow(t, m, filepath.Join(t.TempDir(), "not", "there", "topology.json"))
		wantVersion(t, f, 1)
	})
}

func TestALowerVersionIsTakenOnlyWithAnotherNetwork(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMetaServer()
		m.put(version(t, 9, "ws://a"))
		f := follow(t, m, "")
		before := m.asked()
		m.put(version(t, 5, "ws://a"))
		pass(20 * time.Second)
		wantVersion(t, f, 9)
		if n := m.asked() - before; n > 2 {
			t.Errorf("%d requests since, want the one that waits", n)
		}
		m.put(version(t, 6, "ws://b"))
		pass(time.Second)
		wantVersion(t, f, 6)
	})
}

func TestAnAnswerThatIsNoSnapshotIsNotTaken(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"", "<html>", "{}", `{"version":5,"domains":[{"name":"NO","urls":["ws://h"]}]}`} {
		synctest.Test(t, func(t *testing.T) {
			m := newMetaServer()
			m.put(version(t, 1, "ws://a"))
			f := follow(t, roundTrip(func(r *http.Request) (*http.Response, error) {
				if m.asked() == 0 {
					return m.RoundTrip(r)
				}
				w := httptest.NewRecorder()
				w.Body.WriteString(body)
				return w.Result(), nil
			}), "")
			pass(time.Minute)
			wantVersion(t, f, 1)
		})
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestEverySubscriberHearsOfChangesButNotOfEachOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMetaServer()
		m.put(version(t, 1, "ws://a"))
		f := follow(t, m, "")
		first, stopFirst := f.Subscribe()
		second, stopSecond := f.Subscribe()
		defer stopSecond()
		for _, ch := range []<-chan struct{}{first, second} {
			wantTold(t, ch, true)  // of the one that is there
			wantTold(t, ch, false) // once
		}
		for v := range uint64(3) {
			m.put(version(t, v+2, fmt.Sprintf("ws://h%d", v)))
			pass(time.Second)
		}
		for _, ch := range []<-chan struct{}{first, second} {
			wantTold(t, ch, true)
			wantTold(t, ch, false)
		}
		stopFirst()
		stopFirst()
		m.put(version(t, 9, "ws://z"))
		pass(time.Second)
		wantTold(t, first, false)
		wantTold(t, second, true)
	})
}

func wantTold(t *testing.T, ch <-chan struct{}, want bool) {
	t.Helper()
	select {
	case <-ch:
		if !want {
			t.Error("told of a change that is none")
		}
	default:
		if want {
			t.Error("not told of a change")
		}
	}
}

func TestOverARealConnection(t *testing.T) {
	t.Parallel()
	m := newMetaServer()
	m.put(version(t, 1, "ws://a"))
	server := httptest.NewServer(m)
	t.Cleanup(server.Close)
	f, err := feed.New(feed.Config{URL: server.URL + "/base", Token: token, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	changed, stop := f.Subscribe()
	defer stop()
	var running sync.WaitGroup
	running.Go(func() {
		if err := f.Run(t.Context()); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(running.Wait) // t.Context has ended by then
	<-changed
	wantVersion(t, f, 1)
	m.put(version(t, 2, "ws://b"))
	<-changed
	wantVersion(t, f, 2)
}

func TestARedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, roundTrip(func(r *http.Request) (*http.Response, error) {
			if r.URL.Host != "meta" {
				t.Errorf("the request went to %s", r.URL.Host)
			}
			w := httptest.NewRecorder()
			w.Header().Set("Location", "http://elsewhere/snapshot")
			w.WriteHeader(http.StatusFound)
			return w.Result(), nil
		}), "")
		pass(time.Minute)
		if s := f.Current(); s != nil {
			t.Errorf("got %+v", s)
		}
	})
}

func TestNewNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	for want, cfg := range map[string]feed.Config{
		"URL":    {URL: "meta:9000", Token: token, Log: log},
		"token":  {URL: "http://meta:9000", Log: log},
		"logger": {URL: "http://meta:9000", Token: token},
	} {
		_, err := feed.New(cfg)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want one about the %s", err, want)
		}
	}
}
