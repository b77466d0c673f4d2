package whereabouts_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/embedded"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/presence/redis"
	"github.com/linkerhq/linker/processor/internal/whereabouts"
)

// start returns the handler of a domain with three users, and its Redis.
func start(t *testing.T) (http.Handler, *embedded.RedisServer) {
	t.Helper()
	server, err := embedded.Redis(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	log := slog.New(slog.DiscardHandler)
	registry, err := redis.Open(redis.Config{Server: redis.Server{URL: server.URL()}, Domain: "domain-01", Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = registry.Close() })
	for name, users := range map[string]map[uint64]ident.UserID{
		"connector-1": {1: "ANZ-1", 2: "ANZ-2"},
		"connector-2": {1: "ANZ-1", 2: "BNZ-3"},
	} {
		c := ident.Connector{Name: name, Incarnation: ident.Incarnation{1}}
		if err := registry.Renew(t.Context(), c, time.Minute); err != nil {
			t.Fatal(err)
		}
		if err := registry.Put(t.Context(), c, users, nil, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	return whereabouts.Handler("domain-01", registry, log), server
}

func ask(t *testing.T, h http.Handler, method, target string) *httptest.ResponseRecorder {
	t.Helper()
	recorder := httptest.NewRecorder()
	h.ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), method, target, nil))
	return recorder
}

func TestUsersAreToldWithTheirConnectors(t *testing.T) {
	t.Parallel()
	h, _ := start(t)
	const one, two, three = `{"userId":"ANZ-1","connectors":["connector-1","connector-2"]}`,
		`{"userId":"ANZ-2","connectors":["connector-1"]}`, `{"userId":"BNZ-3","connectors":["connector-2"]}`
	for target, users := range map[string]string{
		"/v1/users":         one + "," + two + "," + three,
		"/v1/users?limit=2": one + "," + two,
	} {
		got := ask(t, h, http.MethodGet, target)
		want := `{"domain":"domain-01","total":3,"users":[` + users + "]}\n"
		if got.Code != http.StatusOK || got.Body.String() != want || got.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: got %d %s, want %s", target, got.Code, got.Body, want)
		}
	}
}

func TestBadRequestsAreNamed(t *testing.T) {
	t.Parallel()
	h, _ := start(t)
	for _, limit := range []string{"", "0", "-1", "501", "x", "1e3", "99999999999999999999"} {
		got := ask(t, h, http.MethodGet, "/v1/users?limit="+limit)
		if got.Code != http.StatusBadRequest || !strings.Contains(got.Body.String(), `"`+limit+`": expected a whole number from 1 to 500`) {
			t.Errorf("limit %q: got %d %s", limit, got.Code, got.Body)
		}
	}
	if got := ask(t, h, http.MethodPost, "/v1/users"); got.Code != http.StatusMethodNotAllowed || got.Header().Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: got %d, Allow %q", got.Code, got.Header().Get("Allow"))
	}
}

func TestARegistryThatIsAwayIsSaid(t *testing.T) {
	t.Parallel()
	h, server := start(t)
	server.Close()
	got := ask(t, h, http.MethodGet, "/v1/users")
	if got.Code != http.StatusServiceUnavailable || !strings.Contains(got.Body.String(), "does not answer") || strings.Contains(got.Body.String(), server.Addr()) {
		t.Errorf("got %d %s", got.Code, got.Body)
	}
}
