package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// A connector that is told to end sends its users away one after another; until
// then they talk as ever, and nobody new comes in.
func TestAConnectorThatEndsSendsItsUsersAwayOneAfterAnother(t *testing.T) {
	t.Parallel()
	const count, spread, tolerance = 30, 4 * time.Second, time.Second
	c := apart(t, setup{network: loadNetwork(), drainSpread: spread}, 1, 1)
	connector := c.all("connector")[0]
	var users []*client
	for n := range count {
		users = append(users, login(t, connector.websocket(), fmt.Sprintf("%s-%d", loadApp, 100+n), []string{}...))
	}
	waiting := dial(t, connector.websocket()) // not logged in
	began := time.Now()
	ended := make(chan error, 1)
	go func() { ended <- connector.terminate() }()
	waiting.expectClosed(1012)
	within(t, "the end of who is not logged in", time.Second, began)
	if got := readyz(t.Context(), connector.ops()); got != http.StatusServiceUnavailable {
		t.Errorf("ready while it drains: %d", got)
	}
	if _, res, err := websocket.Dial(t.Context(), connector.websocket(), nil); err == nil || res == nil || res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("somebody new: got %v, %v, want 503", res, err)
	}
	told, over := make([]time.Duration, count), make([]time.Duration, count)
	var talked atomic.Int64
	var reading sync.WaitGroup
	for n, user := range users {
		reading.Go(func() {
			for {
				f, err := user.receive(patience)
				switch {
				case err != nil:
					over[n] = time.Since(began)
					if code := websocket.CloseStatus(err); code != websocket.StatusServiceRestart {
						t.Errorf("closed with %d: %v", code, err)
					}
					return
				case f.Type == "GO_AWAY" && f.Data.Reason == "shutting_down" && f.Data.ReconnectInMs >= 0 && f.Data.ReconnectInMs <= 1000:
					told[n] = time.Since(began)
					if err := user.write(message(user.user, "still here", "", "RELIABLE")); err != nil {
						t.Error(err)
					}
				case f.Type == "MESSAGE" && f.Data.Content == "still here":
					talked.Add(1)
				default:
					t.Errorf("got %v", f)
				}
			}
		})
	}
	reading.Wait()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	within(t, "the drain", spread+2*time.Second, began)
	if first, last := slices.Min(told), slices.Max(told); first == 0 || last-first < spread-tolerance {
		t.Errorf("they were told from %v to %v on, want it spread over %v", first, last, spread)
	}
	for n := range count {
		if over[n]-told[n] < time.Second-tolerance/2 {
			t.Errorf("told after %v, closed after %v", told[n], over[n])
		}
	}
	if talked.Load() < count*9/10 {
		t.Errorf("%d of %d could talk until the end", talked.Load(), count)
	}
}
