package e2e

import (
	"context"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestEveryServiceTellsHowItIs(t *testing.T) {
	t.Parallel()
	for _, e := range shared.Endpoints() {
		name, url := e.Name, e.URL
		if !strings.HasPrefix(url, "http://") || name == "console" {
			continue
		}
		for _, path := range []string{"/healthz", "/readyz"} {
			if code, body := get(t, url+path); code != http.StatusOK {
				t.Errorf("%s%s: got %d %s", name, path, code, body)
			}
		}
		code, body := get(t, url+"/metrics")
		if code != http.StatusOK || !strings.Contains(body, "\nlinker_") || !strings.Contains(body, "\ngo_goroutines ") {
			t.Errorf("%s/metrics: got %d and %d bytes", name, code, len(body))
		}
		if code, _ := get(t, url+"/debug/vars"); code == http.StatusOK {
			t.Errorf("%s/debug/vars is open", name)
		}
		if name != "meta server" {
			profiles(t, url)
		}
	}
	code, page := get(t, shared.ConsoleURL())
	if code != http.StatusOK || !strings.Contains(page, "<html") {
		t.Errorf("the console: got %d and %d bytes", code, len(page))
	}
}

// profiles are shown on the machine itself, and to nobody who only comes through it.
func profiles(t *testing.T, url string) {
	t.Helper()
	if code, body := get(t, url+"/debug/pprof/goroutine?debug=1"); code != http.StatusOK || !strings.Contains(body, "goroutine profile") {
		t.Errorf("%s/debug/pprof/goroutine: got %d and %d bytes", url, code, len(body))
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/debug/pprof/", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-Forwarded-For", "192.0.2.1")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusUnauthorized {
		t.Errorf("%s/debug/pprof/ answers a proxy with %d", url, response.StatusCode)
	}
}

func TestTheLinkPortIsNoWayInForClients(t *testing.T) {
	t.Parallel()
	for _, e := range shared.Endpoints() {
		if e.Name != "link" {
			continue
		}
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(e.URL, "tcp://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		_, _ = conn.Write([]byte("GET /ws HTTP/1.1\r\nHost: x\r\n\r\n" + auth(newUser())))
		var buf [1024]byte
		n, err := conn.Read(buf[:])
		if n > 0 || err == nil {
			t.Errorf("it answered %q", buf[:n])
		}
	}
}

// readyz returns the status of a readiness check, 0 if there was no answer.
func readyz(ctx context.Context, url string) int {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/readyz", nil)
	if err != nil {
		return 0
	}
	transport := new(http.Transport)
	defer transport.CloseIdleConnections()
	res, err := transport.RoundTrip(req)
	if err != nil {
		return 0
	}
	_ = res.Body.Close()
	return res.StatusCode
}

// firstAnswer asks until a readiness check is answered, and returns its status.
func firstAnswer(ctx context.Context, url string) int {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if got := readyz(ctx, url); got != 0 {
			return got
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0
		}
	}
}

func TestReadinessComesWithTheLanesAndGoesWithTheDrain(t *testing.T) {
	t.Parallel()
	s, err := newSystem(t.TempDir(), setup{})
	if err != nil {
		t.Fatal(err)
	}
	release := func() {}
	if c, apart := s.running.(*cluster); apart {
		release = c.hold("processor")
	}
	defer release()
	first := make(chan int, 1)
	go func() { first <- firstAnswer(t.Context(), s.endpoint("connector")) }() // in one process the check waits until somebody serves
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	if got := <-first; got != http.StatusServiceUnavailable {
		t.Errorf("at first: got %d, want 503", got)
	}
	release()
	eventually(t, "ready", func() bool { return readyz(t.Context(), s.endpoint("connector")) == http.StatusOK })
	if err := s.awaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := readyz(t.Context(), s.endpoint("processor")); got != http.StatusOK {
		t.Errorf("the processor: got %d while the connector is ready", got)
	}
	login(t, s.endpoint("websocket"), "ANZ-1").works()
	stubborn := loginRaw(t, s.endpoint("websocket"), "ANZ-2") // does not answer the close frame
	cancel()
	eventually(t, "draining", func() bool { return readyz(t.Context(), s.endpoint("connector")) == http.StatusServiceUnavailable })
	if got := stubborn.closeCode(t); got != 1012 {
		t.Errorf("got close code %d, want 1012", got)
	}
	_ = stubborn.conn.Close()
	if err := <-ended; err != nil {
		t.Errorf("the end: %v", err)
	}
}

func TestPagesOfOtherOriginsStayOutWhereOriginsAreSet(t *testing.T) {
	t.Parallel()
	s := start(t, setup{origins: []string{"good.example"}, frameLimit: 2048})
	headers := map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg=="}
	for origin, want := range map[string]int{"https://good.example": 101, "https://evil.example": 403, "null": 403} {
		headers["Origin"] = origin
		if got := handshake(t, s, "/ws", headers); got != want {
			t.Errorf("%s: got %d, want %d", origin, got, want)
		}
	}
	c := s.login(t, "ANZ-1") // without any Origin
	c.say("ANZ-1", strings.Repeat("x", 1500), "")
	c.expect("MESSAGE")
	c.say("ANZ-1", strings.Repeat("x", 2048), "")
	c.expectClosed(1009)
}

func TestTwoUsersTalkInABrowser(t *testing.T) {
	browserTest(t, shared.ConsoleURL(), shared.WebsocketURL())
}
