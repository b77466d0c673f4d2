package gateway_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/linkerhq/linker/connector/internal/gateway"
	"github.com/linkerhq/linker/connector/internal/session"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/wire"
)

// turnedAway tries to come in and expects 503, counted under this result.
func (f *fixture) turnedAway(result string) {
	f.t.Helper()
	before := f.handshakes(result)
	ws, response, err := websocket.Dial(f.t.Context(), "ws://"+f.addr+"/ws", nil)
	if err == nil {
		_ = ws.CloseNow()
		f.t.Errorf("let in, want %s", result)
		return
	}
	if response == nil || response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") != "1" {
		f.t.Errorf("got %v, %v", response, err)
	}
	if got := f.handshakes(result); got != before+1 {
		f.t.Errorf("counted %v as %s, want %v", got, result, before+1)
	}
}

func (f *fixture) handshakes(result string) float64 {
	f.t.Helper()
	families, err := f.metrics.Gather()
	if err != nil {
		f.t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != "linker_gateway_handshakes_total" {
			continue
		}
		for _, m := range family.GetMetric() {
			if m.GetLabel()[0].GetValue() == result {
				return m.GetCounter().GetValue()
			}
		}
	}
	f.t.Fatalf("%s is not counted", result)
	return 0
}

func TestWithASpreadSessionsGoOneAfterAnotherAndWorkUntilThen(t *testing.T) {
	t.Parallel()
	const count, spread, tolerance = 20, 2 * time.Second, 800 * time.Millisecond
	f := newFixture(t)
	var all []*websocket.Conn
	for i := range count {
		ws := f.dial()
		f.login(ws, fmt.Sprintf(`{"appId":"app-1","userId":"ANZ-%d","features":[]}`, i))
		f.next(envelope.KindLogin)
		all = append(all, ws)
	}
	waiting := f.dial() // not logged in
	began := time.Now()
	told, ended := make([]time.Duration, count), make([]time.Duration, count)
	var reading sync.WaitGroup
	for i, ws := range all {
		reading.Go(func() {
			_, b, err := ws.Read(t.Context())
			told[i] = time.Since(began)
			if err != nil || !strings.HasPrefix(string(b), `{"type":"GO_AWAY","data":{"reason":"shutting_down","reconnectInMs":`) {
				t.Errorf("got %s, %v", b, err)
				return
			}
			// It can still be heard.
			if err := ws.Write(t.Context(), websocket.MessageText, []byte(`{"type":"MESSAGE","data":{"to":"ANZ-500","content":"x"}}`)); err != nil {
				t.Error(err)
			}
			if code := f.closed(ws); code != wire.CloseRestarting {
				t.Errorf("closed with %d", code)
			}
			ended[i] = time.Since(began)
		})
	}
	drained := make(chan error)
	go func() { drained <- f.g.Drain(t.Context(), session.CauseShutdown, spread) }()
	if code := f.closed(waiting); code != wire.CloseRestarting || time.Since(began) > spread/2 {
		t.Errorf("who was not logged in was closed with %d after %v", code, time.Since(began))
	}
	f.turnedAway("draining")
	reading.Wait()
	if err := <-drained; err != nil {
		t.Error(err)
	}
	first, last := told[0], told[0]
	for i := range count {
		first, last = min(first, told[i]), max(last, told[i])
		if ended[i]-told[i] < time.Second-tolerance {
			t.Errorf("told after %v, ended after %v", told[i], ended[i])
		}
	}
	if last-first < spread-tolerance {
		t.Errorf("the first was told after %v, the last after %v, want them spread over %v", first, last, spread)
	}
	seen := map[envelope.Kind]int{}
	for len(f.records) > 0 {
		seen[(<-f.records).Kind]++
	}
	if seen[envelope.KindMessage] != count || seen[envelope.KindLogout] != count {
		t.Errorf("the log has %v, want %d messages and logouts", seen, count)
	}
}

func TestADrainIsOverWhenEverybodyHasGone(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ws := f.dial()
	f.login(ws, goodLogin)
	drained := make(chan error)
	began := time.Now()
	go func() { drained <- f.g.Drain(t.Context(), session.CauseShutdown, time.Hour) }()
	_ = ws.CloseNow()
	if err := <-drained; err != nil || time.Since(began) > 10*time.Second {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
}

func TestADrainThatRunsOutOfTimeSaysSo(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for i := range 5 {
		f.login(f.dial(), fmt.Sprintf(`{"appId":"app-1","userId":"ANZ-%d"}`, i))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := f.g.Drain(ctx, session.CauseShutdown, time.Hour); err == nil {
		t.Error("no error")
	}
	if got := f.g.Sessions(); got == 0 {
		t.Error("nobody is left")
	}
}

func TestNoMoreSocketsThanMay(t *testing.T) {
	t.Parallel()
	f := newLimited(t, gateway.Limits{Sockets: 20})
	var in []*websocket.Conn
	for i := range 18 { // one after another: two of them may be without a login
		ws := f.dial()
		f.login(ws, fmt.Sprintf(`{"appId":"app-1","userId":"ANZ-%d"}`, i))
		in = append(in, ws)
	}
	first, second := f.dial(), f.dial()
	f.turnedAway("full")
	_ = in[0].CloseNow()
	f.next(envelope.KindLogin)
	for range 17 {
		f.next(envelope.KindLogin)
	}
	f.next(envelope.KindLogout)
	f.turnedAway("full") // there is room, but two have not logged in
	f.login(first, `{"appId":"app-1","userId":"ANZ-50"}`)
	f.login(second, `{"appId":"app-1","userId":"ANZ-51"}`)
	third := f.await()
	f.turnedAway("full")
	_ = third.CloseNow()
	f.login(f.await(), `{"appId":"app-1","userId":"ANZ-52"}`)
}

// await dials until there is room: sockets go a moment after their logout.
func (f *fixture) await() *websocket.Conn {
	f.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); <-tick.C {
		ws, response, err := websocket.Dial(f.t.Context(), "ws://"+f.addr+"/ws", nil)
		if err == nil {
			if response.Body != nil {
				_ = response.Body.Close()
			}
			f.t.Cleanup(func() { _ = ws.CloseNow() })
			return ws
		}
	}
	f.t.Fatal("there is no room")
	return nil
}

func TestNoMoreSocketsOfAUserAndOfAnAddressThanMay(t *testing.T) {
	t.Parallel()
	f := newLimited(t, gateway.Limits{PerUser: 2, PerAddress: 4})
	first := f.dial()
	f.login(first, goodLogin)
	f.login(f.dial(), goodLogin)
	third := f.dial()
	if r := f.login(third, goodLogin); r.Data.Reason != wire.ReasonTooManySockets {
		t.Errorf("got %+v", r)
	}
	if code := f.closed(third); code != wire.CloseTryAgain {
		t.Errorf("closed with %d", code)
	}
	_ = first.CloseNow()
	for range 2 {
		f.next(envelope.KindLogin)
	}
	f.next(envelope.KindLogout)
	var reply reply
	for range 1000 { // it counts until it is gone altogether
		if reply = f.login(f.await(), goodLogin); reply.Data.IsAuthenticated {
			break
		}
	}
	if !reply.Data.IsAuthenticated {
		t.Errorf("got %+v", reply)
	}
	for range 2 {
		f.login(f.await(), fmt.Sprintf(`{"appId":"app-1","userId":"ANZ-%d"}`, 30+f.g.Sessions()))
	}
	f.turnedAway("address_full")
}
