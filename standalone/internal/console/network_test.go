package console_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/linkerhq/linker/standalone/internal/console"
)

func TestTheNetworkIsWhatTheMetaServerSays(t *testing.T) {
	t.Parallel()
	meta := http.NewServeMux()
	meta.HandleFunc("GET /domains", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `[{"name":"domain-01","urls":["tcp://a:1","wss://a/ws","ws://b/ws"]},{"name":"domain-02","urls":["tcp://c:1"]}]`)
	})
	meta.HandleFunc("GET /clientApps", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `[{"appName":"ANZ","appId":"id","masterUserId":"ANZ-1","authEnabled":true,"userDistributions":[]}]`)
	})
	server := httptest.NewServer(meta)
	defer server.Close()
	network := console.NewNetwork(server.URL + "/")
	if got, want := network.Domains(), []console.Domain{{Name: "domain-01", URL: "wss://a/ws"}}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, want := network.Apps(), []console.App{{Name: "ANZ", AppID: "id", Master: "ANZ-1", AuthEnabled: true}}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestAMetaServerThatIsAwayOrBrokenKnowsNothing(t *testing.T) {
	t.Parallel()
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/domains" {
			w.WriteHeader(http.StatusInternalServerError)
		}
		fmt.Fprint(w, "[")
	}))
	defer broken.Close()
	for _, url := range []string{"http://127.0.0.1:1", broken.URL, "http://[::1"} {
		network := console.NewNetwork(url)
		if got := network.Domains(); len(got) > 0 {
			t.Errorf("%s: got %v", url, got)
		}
		if got := network.Apps(); len(got) > 0 {
			t.Errorf("%s: got %v", url, got)
		}
	}
}

func TestThePageIsToldThatNoDomainIsKnown(t *testing.T) {
	t.Parallel()
	var found []console.Domain
	handler, err := console.Handler(console.Config{Find: func() []console.Domain { return found }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ask := func() *httptest.ResponseRecorder {
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/config.json", nil))
		return recorder
	}
	if got := ask(); got.Code != http.StatusServiceUnavailable {
		t.Errorf("got %d", got.Code)
	}
	found = []console.Domain{{Name: "domain-01", URL: "ws://a/ws"}}
	if got := ask(); got.Code != http.StatusOK || !strings.Contains(got.Body.String(), "ws://a/ws") {
		t.Errorf("got %d %s", got.Code, got.Body)
	}
}
