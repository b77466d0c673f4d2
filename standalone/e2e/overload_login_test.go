package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// crowdOf logs in so many users at once, as fast as this machine can, and returns how
// each login has ended, how long it took, and the connections, which stay open.
func crowdOf(t *testing.T, url string, count int, user func(n int) string) (ends map[string]int, took []time.Duration) {
	t.Helper()
	var mu sync.Mutex
	ends = map[string]int{}
	var logins sync.WaitGroup
	for n := range count {
		logins.Go(func() {
			began := time.Now()
			end := quickLogin(t, url, user(n))
			mu.Lock()
			defer mu.Unlock()
			ends[end]++
			took = append(took, time.Since(began))
		})
	}
	logins.Wait()
	return ends, took
}

// quickLogin opens a websocket, logs in, and says how that has ended. The connection
// costs this process next to nothing, and stays open until the test ends.
func quickLogin(t *testing.T, url, user string) string {
	host := strings.TrimSuffix(strings.TrimPrefix(url, "ws://"), "/ws")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", host)
	if err != nil {
		return "not connected"
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	r := &rawSocket{conn: conn, in: bufio.NewReaderSize(conn, 512)}
	_, err = conn.Write([]byte("GET /ws HTTP/1.1\r\nHost: " + host + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"))
	if err != nil {
		return "cut"
	}
	res, err := http.ReadResponse(r.in, nil)
	if err != nil {
		return "cut"
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusSwitchingProtocols {
		return res.Status
	}
	if _, err := conn.Write(masked(fin|opText, []byte(auth(user)))); err != nil {
		return "cut"
	}
	op, payload, err := r.read()
	if err != nil || op != opText {
		return "cut"
	}
	f, err := parseFrame(payload)
	switch {
	case err != nil:
		return err.Error()
	case f.Data.IsAuthenticated != nil && *f.Data.IsAuthenticated:
		return "in"
	}
	code, err := r.tryCloseCode()
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%s %d", f.Data.Reason, code)
}

// persistentLogin logs in as a client has to: told to try again, it does so after
// growing pauses. It returns how often it was told what.
func persistentLogin(t *testing.T, url, user string) (told []string, in bool) {
	pause := 200 * time.Millisecond
	for range 12 {
		end := quickLogin(t, url, user)
		if end == "in" {
			return told, true
		}
		told = append(told, end)
		if !slices.Contains([]string{"AUTH_UNAVAILABLE 4503", "503 Service Unavailable", "cut", "not connected"}, end) {
			return told, false
		}
		time.Sleep(pause/2 + rand.N(pause/2)) // what the protocol asks for
		pause = min(2*pause, 5*time.Second)
	}
	return told, false
}

// persistentCrowd is crowdOf for users who try again; it counts all that they are told.
func persistentCrowd(t *testing.T, url string, count int, user func(n int) string) (ends map[string]int, took []time.Duration) {
	t.Helper()
	var mu sync.Mutex
	ends = map[string]int{}
	var logins sync.WaitGroup
	for n := range count {
		logins.Go(func() {
			began := time.Now()
			told, in := persistentLogin(t, url, user(n))
			mu.Lock()
			defer mu.Unlock()
			took = append(took, time.Since(began))
			for _, end := range told {
				ends[end]++
			}
			if in {
				ends["in"]++
			}
		})
	}
	logins.Wait()
	return ends, took
}

// A crowd that comes at once is let in, all of it, and nobody else notices much.
func TestACrowdMayLogInAtOnce(t *testing.T) {
	alone(t)
	count := 500
	if slowly() {
		count = 10_000
	}
	c := apart(t, setup{network: loadNetwork()}, 1, 1)
	connector := c.all("connector")[0]
	side := watchSide(t, connector)
	began := time.Now()
	ends, took := persistentCrowd(t, connector.websocket(), count, func(n int) string { return fmt.Sprintf("%s-%d", loadApp, 10_000+n) })
	all := time.Since(began)
	grown, before, during := side.end()
	t.Logf("%d logins in %v, %v; half of them within %v, 99 %% within %v; the connector grew by %.1f MiB, %d KiB for each; p99 of others %v before, %v meanwhile",
		count, all.Round(time.Millisecond), ends, percentile(took, 50).Round(time.Millisecond), percentile(took, 99).Round(time.Millisecond),
		float64(grown)/(1<<20), grown>>10/count, before.Round(time.Millisecond), during.Round(time.Millisecond))
	if ends["in"] != count {
		t.Errorf("%d of %d are in: %v", ends["in"], count, ends)
	}
	side.from.works()
}

// slowAuth is the service of an app that lets everybody in, after a while.
func slowAuth(t *testing.T, after time.Duration) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var question struct{ AppID, UserID string }
		if err := json.NewDecoder(r.Body).Decode(&question); err != nil {
			http.Error(w, "no JSON", http.StatusBadRequest)
			return
		}
		select {
		case <-time.After(after):
		case <-r.Context().Done():
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"appId": question.AppID, "userId": question.UserID, "isAuthenticated": true})
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// An app whose logins take long, or whose service hangs, delays nobody else's; its own
// users are told to try again where there is no hope.
func TestAnAuthServiceThatIsSlowOrHangsDelaysNobodyElse(t *testing.T) {
	alone(t)
	slow, hangs, free := 200, 200, 200
	if slowly() {
		slow, hangs, free = 3000, 3000, 2000
	}
	app := func(name, more string) string {
		return fmt.Sprintf("  - {appName: %s, appId: %s, masterUserId: %s%s}\n", name, appID(name), masterOf(name), more)
	}
	asks := func(after time.Duration) string {
		return ", authEnabled: true, authUrl: '" + slowAuth(t, after) + "'"
	}
	c := apart(t, setup{network: "domains:\n  - {name: " + home + ", urls: ['ws://127.0.0.1:8088']}\nclientApps:\n" +
		app("SLOW", asks(200*time.Millisecond)) + app("HANGS", asks(time.Hour)) + app("FREE", "")}, 1, 1)
	url := c.all("connector")[0].websocket()
	storm := func(name string, count int) (ends map[string]int, took []time.Duration) {
		user := func(n int) string { return fmt.Sprintf("%s-%d", name, 1000+n) }
		if name == "FREE" {
			ends, took = persistentCrowd(t, url, count, user) // the log may refuse some for a moment
		} else {
			ends, took = crowdOf(t, url, count, user)
		}
		t.Logf("%d of %s: %v; half within %v, all within %v", count, name, ends, percentile(took, 50).Round(time.Millisecond), slices.Max(took).Round(time.Millisecond))
		return ends, took
	}
	var storms sync.WaitGroup
	var mu sync.Mutex
	all := map[string]map[string]int{}
	longest := map[string]time.Duration{}
	for name, count := range map[string]int{"SLOW": slow, "HANGS": hangs, "FREE": free} {
		storms.Go(func() {
			ends, took := storm(name, count)
			mu.Lock()
			defer mu.Unlock()
			all[name], longest[name] = ends, slices.Max(took)
		})
	}
	storms.Wait()
	if all["FREE"]["in"] != free {
		t.Errorf("of an app that asks nobody: %v", all["FREE"])
	}
	if all["HANGS"]["AUTH_UNAVAILABLE 4503"] != hangs {
		t.Errorf("of an app whose service hangs: %v", all["HANGS"])
	}
	// 64 calls at once and 1000 that wait are served; whoever comes beyond is told so.
	if got := all["SLOW"]; got["in"]+got["AUTH_UNAVAILABLE 4503"] != slow || got["in"] < min(slow, 1064) {
		t.Errorf("of an app whose service is slow: %v", got)
	}
	if longest["HANGS"] > patience {
		t.Errorf("it took %v to be told that a service hangs", longest["HANGS"])
	}
}
