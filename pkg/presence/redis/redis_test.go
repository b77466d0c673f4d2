package redis_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/embedded"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/internal/porttest"
	"github.com/linkerhq/linker/pkg/polltest"
	"github.com/linkerhq/linker/pkg/presence"
	"github.com/linkerhq/linker/pkg/presence/redis"
)

const ttl = 5 * time.Second

func startServer(t *testing.T, port int) *embedded.RedisServer {
	t.Helper()
	server, err := embedded.Redis(port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	return server
}

// open returns a registry against the Redis named in REDIS_URL, or else
// the embedded one. Each test has a domain of its own.
func open(t *testing.T) *redis.Registry {
	t.Helper()
	url := os.Getenv("REDIS_URL")
	if url == "" {
		url = startServer(t, 0).URL()
	}
	return openAt(t, url)
}

func openAt(t *testing.T, url string) *redis.Registry {
	t.Helper()
	domain := fmt.Sprintf("%x", time.Now().UnixNano()) + strings.ToLower(t.Name())
	r, err := redis.Open(redis.Config{Server: redis.Server{URL: url}, Domain: domain[:min(len(domain), 63)], Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func connector(name string, incarnation byte) ident.Connector {
	return ident.Connector{Name: name, Incarnation: ident.Incarnation{incarnation, 0xff}}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func leases(t *testing.T, r *redis.Registry) []ident.Connector {
	t.Helper()
	list, err := r.Leases(t.Context())
	must(t, err)
	return list
}

func TestALeaseCanBeRenewedByItsHolderOnly(t *testing.T) {
	t.Parallel()
	r := open(t)
	first, second, third := connector("c1", 1), connector("c1", 2), connector("c1", 3)
	must(t, r.Renew(t.Context(), first, ttl))
	must(t, r.Renew(t.Context(), first, ttl))
	if err := r.Renew(t.Context(), second, ttl); !errors.Is(err, redis.ErrTaken) {
		t.Errorf("another incarnation: %v, want %v", err, redis.ErrTaken)
	}
	must(t, r.Release(t.Context(), second))
	if got := leases(t, r); !slices.Equal(got, []ident.Connector{first}) {
		t.Errorf("leases after a foreign release: %v", got)
	}
	must(t, r.Release(t.Context(), first))
	if got := leases(t, r); len(got) != 0 {
		t.Errorf("leases after the release: %v", got)
	}
	must(t, r.Renew(t.Context(), third, ttl))
	if got := leases(t, r); !slices.Equal(got, []ident.Connector{third}) {
		t.Errorf("leases of the successor: %v", got)
	}
}

func TestWhoIsDeclaredDeadLearnsOfIt(t *testing.T) {
	t.Parallel()
	r := open(t)
	first, second := connector("c1", 1), connector("c1", 2)
	must(t, r.Renew(t.Context(), first, ttl))
	bury := func(c ident.Connector, wantDead, wantNews bool) {
		t.Helper()
		dead, news, err := r.Bury(t.Context(), c)
		must(t, err)
		if dead != wantDead || news != wantNews {
			t.Errorf("burying %v: dead %v, news %v; want %v, %v", c, dead, news, wantDead, wantNews)
		}
	}
	bury(first, false, false) // its lease stands
	must(t, r.Renew(t.Context(), first, 30*time.Millisecond))
	polltest.Eventually(t, "its lease has run out", func() bool { return len(leases(t, r)) == 0 })
	bury(first, true, true)
	bury(first, true, false)
	if err := r.Renew(t.Context(), first, ttl); !errors.Is(err, redis.ErrBuried) {
		t.Errorf("renewed after the burial: %v, want %v", err, redis.ErrBuried)
	}
	must(t, r.Renew(t.Context(), second, ttl))
	bury(first, true, false)
	if got := leases(t, r); !slices.Equal(got, []ident.Connector{second}) {
		t.Errorf("leases of the successor: %v", got)
	}
	must(t, r.Release(t.Context(), second))
	bury(second, true, false) // it said goodbye
	if err := r.Renew(t.Context(), second, ttl); !errors.Is(err, redis.ErrBuried) {
		t.Errorf("renewed after the release: %v, want %v", err, redis.ErrBuried)
	}
}

func TestALeaseEndsByItself(t *testing.T) {
	t.Parallel()
	r := open(t)
	first, second := connector("c1", 1), connector("c1", 2)
	must(t, r.Renew(t.Context(), first, 30*time.Millisecond))
	polltest.Eventually(t, "the lease has ended", func() bool { return len(leases(t, r)) == 0 })
	must(t, r.Renew(t.Context(), second, ttl))
	if got := leases(t, r); !slices.Equal(got, []ident.Connector{second}) {
		t.Errorf("leases of the successor: %v", got)
	}
}

func TestLeasesAreSortedAndThoseOfTheDomainOnly(t *testing.T) {
	t.Parallel()
	url := startServer(t, 0).URL()
	r := openAt(t, url)
	other, err := redis.Open(redis.Config{Server: redis.Server{URL: url}, Domain: "other", Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	defer other.Close()
	must(t, r.Renew(t.Context(), connector("c2", 1), ttl))
	must(t, r.Renew(t.Context(), connector("c1", 1), ttl))
	must(t, other.Renew(t.Context(), connector("c3", 1), ttl))
	if got, want := leases(t, r), []ident.Connector{connector("c1", 1), connector("c2", 1)}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestTheMarkerStaysUntilRedisForgets(t *testing.T) {
	t.Parallel()
	port := porttest.Lasting(t)
	server := startServer(t, port)
	r := openAt(t, server.URL())
	var markers []string
	look := func() {
		t.Helper()
		view, err := r.View(t.Context())
		must(t, err)
		markers = append(markers, view.Marker)
	}
	look()
	look()
	server.Close()
	if _, err := r.View(t.Context()); err == nil {
		t.Error("a view without a Redis")
	}
	startServer(t, port)
	look()
	if markers[0] == "" || markers[0] != markers[1] || markers[1] == markers[2] {
		t.Errorf("got markers %q", markers)
	}
}

func TestAWatchSeesAConnectorDieOnTheRealStore(t *testing.T) {
	t.Parallel()
	r := open(t)
	alive, dying := connector("c1", 1), connector("c2", 1)
	must(t, r.Renew(t.Context(), alive, time.Minute))
	must(t, r.Renew(t.Context(), dying, time.Minute))
	var w presence.Watch
	now := time.Now()
	look := func(after time.Duration) []ident.Connector {
		view, err := r.View(t.Context())
		return w.Observe(now.Add(after), view, err)
	}
	look(0)
	must(t, r.Release(t.Context(), dying))
	look(time.Second)
	if died := look(3 * time.Second); !slices.Equal(died, []ident.Connector{dying}) || w.State(alive) != presence.Alive {
		t.Errorf("died: %v; the other is %v", died, w.State(alive))
	}
}

func TestAUserIsLocatedOnEveryLiveConnector(t *testing.T) {
	t.Parallel()
	r := open(t)
	const user = ident.UserID("ANZ-1")
	c1, c2, c3 := connector("c1", 1), connector("c2", 1), connector("c3", 1)
	must(t, r.Renew(t.Context(), c1, ttl))
	must(t, r.Renew(t.Context(), c2, ttl))
	must(t, r.Put(t.Context(), c1, map[uint64]ident.UserID{1: user, 2: user, 3: "ANZ-2"}, nil, ttl))
	must(t, r.Put(t.Context(), c2, map[uint64]ident.UserID{4: user}, nil, ttl))
	must(t, r.Put(t.Context(), c3, map[uint64]ident.UserID{5: user}, nil, ttl)) // no lease
	locate := func(want ...ident.Connector) {
		t.Helper()
		got, err := r.Locate(t.Context(), user)
		must(t, err)
		if !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	locate(c1, c2)
	must(t, r.Put(t.Context(), c1, nil, []uint64{1}, ttl))
	locate(c1, c2)
	must(t, r.Put(t.Context(), c1, nil, []uint64{2, 77}, ttl))
	locate(c2)
	must(t, r.Put(t.Context(), c1, map[uint64]ident.UserID{1: user}, nil, ttl))
	must(t, r.Put(t.Context(), c1, map[uint64]ident.UserID{1: user}, nil, ttl))
	locate(c1, c2)
	must(t, r.Release(t.Context(), c2))
	locate(c1)
	if got, err := r.Locate(t.Context(), "ANZ-99"); err != nil || len(got) != 0 {
		t.Errorf("an unknown user: %v, %v", got, err)
	}
}

func TestThousandsOfSessionsArePutAtOnce(t *testing.T) {
	t.Parallel()
	r := open(t)
	c := connector("c1", 1)
	must(t, r.Renew(t.Context(), c, time.Minute))
	sessions := make(map[uint64]ident.UserID)
	for i := range uint64(1203) {
		sessions[i] = ident.UserID(fmt.Sprintf("ANZ-%d", i))
	}
	must(t, r.Put(t.Context(), c, sessions, nil, time.Minute))
	for _, user := range []ident.UserID{"ANZ-0", "ANZ-777", "ANZ-1202"} {
		got, err := r.Locate(t.Context(), user)
		must(t, err)
		if !slices.Equal(got, []ident.Connector{c}) {
			t.Errorf("%s: %v", user, got)
		}
	}
}

func TestPlacesEndByThemselves(t *testing.T) {
	t.Parallel()
	server := startServer(t, 0)
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- server.Run(ctx) }()
	defer func() {
		cancel()
		<-ran
	}()
	r := openAt(t, server.URL())
	c := connector("c1", 1)
	must(t, r.Renew(t.Context(), c, time.Minute))
	must(t, r.Put(t.Context(), c, map[uint64]ident.UserID{1: "ANZ-1"}, nil, 400*time.Millisecond))
	polltest.Eventually(t, "the place is forgotten", func() bool {
		got, err := r.Locate(t.Context(), "ANZ-1")
		must(t, err)
		return len(got) == 0
	})
}

func TestAMissingRedisIsAnErrorSoon(t *testing.T) {
	t.Parallel()
	server := startServer(t, 0)
	r := openAt(t, server.URL())
	server.Close()
	begin := time.Now()
	if err := r.Renew(t.Context(), connector("c1", 1), ttl); err == nil || errors.Is(err, redis.ErrTaken) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestABadURLDoesNotGetIntoTheError(t *testing.T) {
	t.Parallel()
	_, err := redis.Open(redis.Config{Server: redis.Server{URL: "redis://:secret@host:port/x"}, Domain: "domain-01", Log: slog.New(slog.DiscardHandler)})
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
}
