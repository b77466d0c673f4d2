package relay_test

import (
	"context"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/linkerhq/linker/standalone/internal/bench/relay"
)

// start runs a relay up to the end of the test, and returns its URL.
func start(t *testing.T) string {
	t.Helper()
	r, err := relay.New("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return r.URL()
}

// client is a raw websocket.
type client struct {
	t  *testing.T
	ws *websocket.Conn
}

func login(t *testing.T, url, user string) client {
	t.Helper()
	ws, _, err := websocket.Dial(t.Context(), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := client{t, ws}
	t.Cleanup(func() { _ = ws.CloseNow() })
	c.send(`{"type":"AUTH_CLIENT","data":{"appId":"app","userId":"` + user + `","token":"t"}}`)
	c.expect(`{"type":"AUTH_CLIENT_REPLY","data":{"appId":"app","userId":"` + user + `","isAuthenticated":true}}`)
	return c
}

func (c client) send(text string) {
	c.t.Helper()
	if err := c.ws.Write(c.t.Context(), websocket.MessageText, []byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

func (c client) expect(want string) {
	c.t.Helper()
	_, b, err := c.ws.Read(c.t.Context())
	if err != nil || string(b) != want {
		c.t.Fatalf("got %s, %v\nexpected %s", b, err, want)
	}
}

func TestMessagesAndConfirmationsArePassedOn(t *testing.T) {
	defer goleak.VerifyNone(t)
	t.Run("", func(t *testing.T) {
		url := start(t)
		one, two, three := login(t, url, "A-1"), login(t, url, "A-2"), login(t, url, "A-3")
		one.send(`{"type":"MESSAGE","data":{"to":"A-2","content":"hi"},"reference":"r"}`)
		two.expect(`{"type":"MESSAGE","data":{"from":"A-1","content":"hi"},"reference":"r"}`)
		one.expect(`{"type":"MESSAGE_CONFIRMATION","data":{"reference":"r"}}`)
		one.send(`{"type":"MESSAGE","data":{"to":"A-9","content":"nobody"},"reference":"lost"}`)
		one.send(`{"type":"MESSAGE","data":{"to":"A-1","content":"self"},"reference":"r","confirmationEnabled":false}`)
		one.expect(`{"type":"MESSAGE","data":{"from":"A-1","content":"self"},"reference":"r"}`)
		one.send(`{"type":"GROUP_MESSAGE","data":{"to":["A-2","A-9","A-3"],"content":"all"},"reference":"g"}`)
		two.expect(`{"type":"MESSAGE","data":{"from":"A-1","content":"all"},"reference":"g"}`)
		three.expect(`{"type":"MESSAGE","data":{"from":"A-1","content":"all"},"reference":"g"}`)
		one.send(`{"type":"MESSAGE","data":{"to":"A-1","content":"last"}}`)
		one.expect(`{"type":"MESSAGE","data":{"from":"A-1","content":"last"}}`) // and no confirmation before it
	})
}

func TestWhoSpeaksAnotherLanguageIsCutOff(t *testing.T) {
	t.Parallel()
	url := start(t)
	for _, first := range []string{`{"type":"MESSAGE","data":{"to":"A-2"}}`, `no JSON`, `{"type":"AUTH_CLIENT","data":{}}`} {
		ws, _, err := websocket.Dial(t.Context(), url, nil)
		if err != nil {
			t.Fatal(err)
		}
		c := client{t, ws}
		c.send(first)
		if _, b, err := ws.Read(t.Context()); err == nil {
			t.Errorf("%s was answered with %s", first, b)
		}
	}
}

func TestAnAddressThatCannotBeListenedAtIsAnError(t *testing.T) {
	t.Parallel()
	if _, err := relay.New("127.0.0.1:99999"); err == nil || !strings.Contains(err.Error(), "99999") {
		t.Errorf("got %v", err)
	}
}
