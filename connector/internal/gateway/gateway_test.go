package gateway_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/connector/internal/gateway"
	"github.com/linkerhq/linker/connector/internal/roster"
	"github.com/linkerhq/linker/connector/internal/session"
	"github.com/linkerhq/linker/connector/internal/session/sessiontest"
	"github.com/linkerhq/linker/connector/internal/uplink"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/topology"
	"github.com/linkerhq/linker/pkg/wire"
)

const lanes = 4

// domain is everything around the gateway. Its log acknowledges at once and its
// lanes know every login, unless told otherwise.
type domain struct {
	records chan envelope.Envelope
	changes chan struct{}
	roster  *roster.Roster

	mu       sync.Mutex
	network  *topology.Snapshot
	refusing error
	mute     bool          // lanes do not answer logins
	hold     chan struct{} // the log acknowledges when it is closed; nil: at once
}

func (d *domain) Append(lane int, _ string, value []byte, done func(int64, error)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refusing != nil {
		return d.refusing
	}
	e, err := envelope.Decode(value)
	if err != nil {
		return err
	}
	d.records <- e
	mute, hold := d.mute, d.hold
	go func() {
		if hold != nil {
			<-hold
		}
		done(1, nil)
		if s := d.roster.Find(lane, e.Session); s != nil && !mute {
			s.LoggedIn(envelope.Position{Generation: 1, Offset: 1})
		}
	}()
	return nil
}

func (d *domain) Publish(string, []byte) error { return nil }

func (d *domain) Accepts(int) (heard, room bool) { return true, true }

func (d *domain) Subscribe() (changed <-chan struct{}, stop func()) { return d.changes, func() {} }

func (d *domain) Current() *topology.Snapshot {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.network
}

func (d *domain) set(change func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change()
}

type fixture struct {
	*domain
	t       *testing.T
	g       *gateway.Gateway
	addr    string
	network topology.Network
	metrics *prometheus.Registry
}

func newFixture(t *testing.T, origins ...string) *fixture {
	t.Helper()
	return newLimited(t, gateway.Limits{}, origins...)
}

func newLimited(t *testing.T, limits gateway.Limits, origins ...string) *fixture {
	t.Helper()
	f := &fixture{t: t, domain: &domain{records: make(chan envelope.Envelope, 1000), changes: make(chan struct{}, 1), roster: roster.New(lanes)}}
	f.network = topology.Network{
		Domains: []topology.Domain{{Name: "domain-01", URLs: []string{"ws://127.0.0.1:1"}}, {Name: "domain-02", URLs: []string{"tcp://127.0.0.1:3", "ws://127.0.0.1:2"}}},
		Apps:    []topology.App{{Name: "ANZ", AppID: "app-1", Master: "ANZ-1"}, {Name: "BNZ", AppID: "app-2", Master: "BNZ-1", AuthEnabled: true}},
		Distributions: []topology.Distribution{
			{DomainName: "domain-01", From: 0, To: 999}, {DomainName: "domain-02", From: 1000, To: 1999},
		},
	}
	f.setNetwork(f.network)
	metrics, log := prometheus.NewRegistry(), slog.New(slog.DiscardHandler)
	up, err := uplink.New(uplink.Config{Domain: "domain-01", Connector: ident.Connector{Name: "c-1"}, Lanes: lanes, Log: log, Metrics: metrics},
		uplink.Deps{Log: f, Plane: f, Lanes: f, Network: f})
	if err != nil {
		t.Fatal(err)
	}
	f.metrics = metrics
	f.g, err = gateway.New(gateway.Config{
		Domain: "domain-01", Lanes: lanes, FrameLimit: wire.DefaultFrameLimit, AllowedOrigins: origins, Limits: limits, Log: log, Metrics: metrics,
	}, gateway.Deps{Network: f, Roster: f.roster, Uplink: up, Proofs: &sessiontest.Proofs{}})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(f.g)
	f.addr = strings.TrimPrefix(server.URL, "http://")
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { f.g.Run(ctx) })
	t.Cleanup(func() {
		if err := f.g.Drain(ctx, session.CauseShutdown, 0); err != nil {
			t.Error(err)
		}
		cancel()
		running.Wait()
		server.Close()
	})
	return f
}

func (f *fixture) setNetwork(n topology.Network) {
	f.t.Helper()
	s, err := topology.New(1, n)
	if err != nil {
		f.t.Fatal(err)
	}
	f.set(func() { f.domain.network = s })
}

func (f *fixture) dial() *websocket.Conn {
	f.t.Helper()
	ws, response, err := websocket.Dial(f.t.Context(), "ws://"+f.addr+"/ws", nil)
	if err != nil {
		f.t.Fatalf("dial: %v", err)
	}
	if response.Body != nil {
		_ = response.Body.Close()
	}
	f.t.Cleanup(func() { _ = ws.CloseNow() })
	return ws
}

type reply struct {
	Type string
	Data struct {
		AppID, UserID   string
		IsAuthenticated bool
		Reason          wire.Reason
		Domain          string
		URLs            []string
	}
}

func (f *fixture) login(ws *websocket.Conn, data string) reply {
	f.t.Helper()
	if err := ws.Write(f.t.Context(), websocket.MessageText, []byte(`{"type":"AUTH_CLIENT","data":`+data+`}`)); err != nil {
		f.t.Fatal(err)
	}
	return f.reply(ws)
}

func (f *fixture) reply(ws *websocket.Conn) reply {
	f.t.Helper()
	_, b, err := ws.Read(f.t.Context())
	if err != nil {
		f.t.Fatalf("read: %v", err)
	}
	var r reply
	if err := json.Unmarshal(b, &r); err != nil || r.Type != "AUTH_CLIENT_REPLY" {
		f.t.Fatalf("got %s, %v", b, err)
	}
	return r
}

func (f *fixture) closed(ws *websocket.Conn) wire.CloseCode {
	f.t.Helper()
	_, b, err := ws.Read(f.t.Context())
	var ce websocket.CloseError
	if !errors.As(err, &ce) {
		f.t.Fatalf("got %q, %v, want the end", b, err)
	}
	return wire.CloseCode(ce.Code)
}

func (f *fixture) next(kind envelope.Kind) envelope.Envelope {
	f.t.Helper()
	select {
	case e := <-f.records:
		if e.Kind != kind {
			f.t.Fatalf("got %s, want %s", e.Kind, kind)
		}
		return e
	case <-time.After(10 * time.Second):
		f.t.Fatalf("no %s came", kind)
		return envelope.Envelope{}
	}
}

const goodLogin = `{"appId":"app-1","userId":"ANZ-5","token":"t","features":[]}`

func TestOnlyWebsocketsAreServed(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	upgrade := "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	for request, want := range map[string]int{
		"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n":                                                    http.StatusUpgradeRequired,
		"GET /other HTTP/1.1\r\nHost: x\r\n\r\n":                                                 http.StatusNotFound,
		"GET /other HTTP/1.1\r\nHost: x\r\n" + upgrade + "\r\n":                                  http.StatusNotFound,
		"GET /ws HTTP/1.1\r\nHost: x\r\n" + upgrade + "\r\n":                                     http.StatusSwitchingProtocols,
		"GET /ws HTTP/1.1\r\nHost: x\r\nOrigin: http://y\r\n" + upgrade + "\r\n":                 http.StatusSwitchingProtocols,
		"GET /ws HTTP/1.1\r\nHost: x\r\n" + strings.Replace(upgrade, "13", "12", 1) + "\r\n":     http.StatusBadRequest,
		"GET /ws HTTP/1.1\r\nHost: x\r\n" + strings.Replace(upgrade, "dGhl", "!!!!", 1) + "\r\n": http.StatusBadRequest,
	} {
		if got := f.status(request); got != want {
			t.Errorf("%q: got %d, want %d", request, got, want)
		}
	}
}

func TestAllowedOriginsNarrowWhoMayConnect(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "good.example", "*.better.example")
	for origin, want := range map[string]int{
		"": 101, "http://good.example": 101, "https://a.better.example": 101, "http://evil.example": 403, "null": 403,
	} {
		header := ""
		if origin != "" {
			header = "Origin: " + origin + "\r\n"
		}
		got := f.status("GET /ws HTTP/1.1\r\nHost: x\r\n" + header + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		if got != want {
			t.Errorf("origin %q: got %d, want %d", origin, got, want)
		}
	}
}

func (f *fixture) status(request string) int {
	f.t.Helper()
	conn, err := new(net.Dialer).DialContext(f.t.Context(), "tcp", f.addr)
	if err != nil {
		f.t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		f.t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		f.t.Fatal(err)
	}
	_ = response.Body.Close()
	return response.StatusCode
}

func TestALoginIsInTheLogBeforeItIsAnsweredAndEndsWithALogout(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ws := f.dial()
	r := f.login(ws, `{"appId":"app-1","userId":"ANZ-5","features":["accept","push"]}`)
	if !r.Data.IsAuthenticated || r.Data.Reason != "" || r.Data.AppID != "app-1" || r.Data.UserID != "ANZ-5" {
		t.Errorf("got %+v", r)
	}
	in := f.next(envelope.KindLogin)
	if in.User() != "ANZ-5" || in.Features != envelope.FeatureAccept|envelope.FeaturePush|envelope.FeatureHints || in.Session == 0 {
		t.Errorf("got %+v", in)
	}
	_ = ws.CloseNow()
	if out := f.next(envelope.KindLogout); out.Session != in.Session || out.User() != "ANZ-5" {
		t.Errorf("got %+v", out)
	}
}

func TestEveryRefusalHasItsReasonAndCode(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, test := range []struct {
		data   string
		reason wire.Reason
		code   wire.CloseCode
	}{
		{`{}`, wire.ReasonInvalidRequest, 4403},
		{`{"appId":"app-1"}`, wire.ReasonInvalidRequest, 4403},
		{`{"appId":7,"userId":"ANZ-5"}`, wire.ReasonInvalidRequest, 4403},
		{`null`, wire.ReasonInvalidRequest, 4403},
		{`{"appId":"app-1","userId":"ANZ-5","token":5}`, wire.ReasonInvalidRequest, 4403},
		{`{"appId":"app-1","userId":"ANZ-007"}`, wire.ReasonInvalidUserID, 4403},
		{`{"appId":"app-1","userId":"ANZ--5"}`, wire.ReasonInvalidUserID, 4403},
		{`{"appId":"app-1","userId":""}`, wire.ReasonInvalidUserID, 4403},
		{`{"appId":"app-1","userId":"connector-1"}`, wire.ReasonUnknownApp, 4403},
		{`{"appId":"app-9","userId":"ANZ-5"}`, wire.ReasonRefused, 4403},
		{`{"appId":"app-1","userId":"ANZ-1500"}`, wire.ReasonWrongDomain, 4403},
		{`{"appId":"app-2","userId":"BNZ-5"}`, wire.ReasonAuthMissing, 4403},
	} {
		ws := f.dial()
		r := f.login(ws, test.data)
		if r.Data.IsAuthenticated || r.Data.Reason != test.reason {
			t.Errorf("%s: got %+v", test.data, r)
		}
		if test.reason == wire.ReasonWrongDomain && (r.Data.Domain != "domain-02" || len(r.Data.URLs) != 1 || r.Data.URLs[0] != "ws://127.0.0.1:2") {
			t.Errorf("%s: got %+v", test.data, r)
		}
		if code := f.closed(ws); code != test.code {
			t.Errorf("%s: closed with %d", test.data, code)
		}
	}
	if len(f.records) != 0 {
		t.Error("a refused login is in the log")
	}
}

// authenticate makes ANZ ask a service, which the test answers.
func (f *fixture) authenticate(handle http.HandlerFunc) {
	service := httptest.NewServer(handle)
	f.t.Cleanup(service.Close)
	n := f.network
	n.Apps = append([]topology.App(nil), n.Apps...)
	n.Apps[0].AuthEnabled, n.Apps[0].AuthURL = true, service.URL
	f.setNetwork(n)
}

func TestTheAppDecidesAboutItsUsers(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		status int
		body   string
		reason wire.Reason
		code   wire.CloseCode
	}{
		"yes":        {200, `{"appId":"app-1","userId":"ANZ-5","isAuthenticated":true}`, "", 0},
		"no":         {200, `{"appId":"app-1","userId":"ANZ-5","isAuthenticated":false}`, wire.ReasonRefused, 4403},
		"other echo": {200, `{"appId":"app-1","userId":"ANZ-6","isAuthenticated":true}`, wire.ReasonRefused, 4403},
		"401":        {401, ``, wire.ReasonRefused, 4403},
		"503":        {503, ``, wire.ReasonAuthUnavailable, 4503},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.authenticate(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(test.status)
				_, _ = io.WriteString(w, test.body)
			})
			ws := f.dial()
			if r := f.login(ws, goodLogin); r.Data.Reason != test.reason || r.Data.IsAuthenticated != (test.reason == "") {
				t.Errorf("got %+v", r)
			}
			if test.code != 0 && f.closed(ws) != test.code {
				t.Error("another close code")
			}
		})
	}
}

func TestASocketThatEndsDuringTheCallbackLeavesNoTrace(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	asked, ended := make(chan struct{}), make(chan struct{})
	f.authenticate(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		close(asked)
		<-r.Context().Done() // the call is given up with the socket
		close(ended)
	})
	ws := f.dial()
	if err := ws.Write(t.Context(), websocket.MessageText, []byte(`{"type":"AUTH_CLIENT","data":`+goodLogin+`}`)); err != nil {
		t.Fatal(err)
	}
	<-asked
	_ = ws.CloseNow()
	<-ended
	if err := f.g.Drain(t.Context(), session.CauseShutdown, 0); err != nil {
		t.Fatal(err)
	}
	if len(f.records) != 0 {
		t.Errorf("%d records", len(f.records))
	}
}

func TestWithoutTheLogNobodyLogsIn(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.set(func() { f.refusing = errors.New("away") })
	ws := f.dial()
	if r := f.login(ws, goodLogin); r.Data.Reason != wire.ReasonAuthUnavailable {
		t.Errorf("got %+v", r)
	}
	if code := f.closed(ws); code != wire.CloseTryAgain {
		t.Errorf("closed with %d", code)
	}
}

func TestWithoutANetworkNobodyLogsIn(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.set(func() { f.domain.network = nil })
	if r := f.login(f.dial(), goodLogin); r.Data.Reason != wire.ReasonAuthUnavailable {
		t.Errorf("got %+v", r)
	}
}

func TestALaneThatDoesNotAnswerHoldsTheReplyForASecond(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.set(func() { f.mute = true })
	began := time.Now()
	if r := f.login(f.dial(), goodLogin); !r.Data.IsAuthenticated {
		t.Errorf("got %+v", r)
	}
	if took := time.Since(began); took < 900*time.Millisecond || took > 3*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestSessionsOfARemovedAppAreClosed(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ws := f.dial()
	f.login(ws, goodLogin)
	n := f.network
	n.Apps = n.Apps[1:]
	f.setNetwork(n)
	f.changes <- struct{}{}
	if code := f.closed(ws); code != wire.CloseRefused {
		t.Errorf("closed with %d", code)
	}
	if r := f.login(f.dial(), goodLogin); r.Data.Reason != wire.ReasonUnknownApp {
		t.Errorf("got %+v", r)
	}
}

func TestSessionsOfAMovedUserAreSentAway(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ws := f.dial()
	f.login(ws, goodLogin)
	n := f.network
	n.Distributions = []topology.Distribution{{DomainName: "domain-02", From: 0, To: 999}}
	f.setNetwork(n)
	f.changes <- struct{}{}
	_, b, err := ws.Read(t.Context())
	if err != nil || !strings.HasPrefix(string(b), `{"type":"GO_AWAY","data":{"reason":"domain_moved","reconnectInMs":`) {
		t.Errorf("got %s, %v", b, err)
	}
	if code := f.closed(ws); code != wire.CloseDomainMoved {
		t.Errorf("closed with %d", code)
	}
}

func TestDrainingTellsEverybodyAndLogsThemOut(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var all []*websocket.Conn
	for i := range 20 {
		ws := f.dial()
		f.login(ws, fmt.Sprintf(`{"appId":"app-1","userId":"ANZ-%d","features":[]}`, i))
		f.next(envelope.KindLogin)
		all = append(all, ws)
	}
	waiting := f.dial() // not logged in
	drained := make(chan error)
	go func() { drained <- f.g.Drain(t.Context(), session.CauseShutdown, 0) }()
	for _, ws := range all {
		_, b, err := ws.Read(t.Context())
		if err != nil || !strings.HasPrefix(string(b), `{"type":"GO_AWAY","data":{"reason":"shutting_down","reconnectInMs":`) {
			t.Errorf("got %s, %v", b, err)
		}
		if code := f.closed(ws); code != wire.CloseRestarting {
			t.Errorf("closed with %d", code)
		}
	}
	if code := f.closed(waiting); code != wire.CloseRestarting {
		t.Errorf("closed with %d", code)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
	for range all {
		f.next(envelope.KindLogout)
	}
	f.turnedAway("draining")
	if sockets := f.roster.Sockets(); len(sockets) != 0 {
		t.Errorf("%d sockets left", len(sockets))
	}
}

// A crowd does not bury the log: so many logins are in it without an acknowledgement,
// the others wait for their turn.
func TestACrowdWaitsForItsTurnAtTheLog(t *testing.T) {
	t.Parallel()
	const count, most = 300, 256
	f := newFixture(t)
	hold := make(chan struct{})
	f.set(func() { f.hold = hold })
	var all []*websocket.Conn
	for i := range count {
		ws := f.dial()
		if err := ws.Write(t.Context(), websocket.MessageText, fmt.Appendf(nil, `{"type":"AUTH_CLIENT","data":{"appId":"app-1","userId":"ANZ-%d"}}`, i)); err != nil {
			t.Fatal(err)
		}
		all = append(all, ws)
	}
	for range most {
		f.next(envelope.KindLogin)
	}
	select {
	case e := <-f.records:
		t.Errorf("one login too many is in the log: %+v", e)
	case <-time.After(50 * time.Millisecond):
	}
	gone := all[count-1]
	_ = gone.CloseNow() // perhaps while it waits
	close(hold)
	for _, ws := range all[:count-1] {
		if r := f.reply(ws); !r.Data.IsAuthenticated {
			t.Errorf("got %+v", r)
		}
	}
}
