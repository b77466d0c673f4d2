// Package sessiontest makes live sessions for the tests of the packages around
// them: each with a client at the other end of a real connection.
package sessiontest

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/connector/internal/session"
	"github.com/linkerhq/linker/pkg/wire"
)

// Proofs receives what sessions prove; the zero value drops it.
type Proofs struct{ Target session.Proofs }

// Proved passes on.
func (p *Proofs) Proved(s *session.Session, tokens []uint64, urgent bool) {
	if p.Target != nil {
		p.Target.Proved(s, tokens, urgent)
	}
}

// Client is the client's end.
type Client struct {
	*websocket.Conn
	t *testing.T
}

// New returns a session that is logged in, made by identify, and its client. The
// test ends when the session has ended.
func New(t *testing.T, proofs session.Proofs, identify func(*session.Session) session.Identity) (*session.Session, *Client) {
	t.Helper()
	metrics, err := session.NewMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	env := &session.Env{
		Log: slog.New(slog.DiscardHandler), Metrics: metrics, Buffers: new(session.Buffers),
		Door: door(identify), Proofs: proofs, FrameLimit: wire.DefaultFrameLimit,
	}
	sessions := make(chan *session.Session, 1)
	var running sync.WaitGroup
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s, err := session.Accept(w, r, env, nil)
		if err != nil {
			t.Errorf("accept: %v", err)
			return
		}
		sessions <- s
		running.Go(func() { s.Run(context.WithoutCancel(r.Context())) })
	}))
	ws, response, err := websocket.Dial(t.Context(), "ws"+strings.TrimPrefix(server.URL, "http"), nil)
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	if response.Body != nil {
		_ = response.Body.Close()
	}
	t.Cleanup(func() {
		_ = ws.CloseNow()
		server.Close()
		running.Wait()
	})
	c := &Client{ws, t}
	c.Send(`{"type":"AUTH_CLIENT","data":{"appId":"a","userId":"ANZ-1"}}`)
	c.Read()
	return <-sessions, c
}

type door func(*session.Session) session.Identity

func (d door) Login(_ context.Context, s *session.Session, _ wire.Frame, _ *wire.Problem) {
	s.Register(d(s))
	s.Admit([]byte(`{"type":"AUTH_CLIENT_REPLY"}`))
}

// Send sends a text frame.
func (c *Client) Send(text string) {
	c.t.Helper()
	if err := c.Write(c.t.Context(), websocket.MessageText, []byte(text)); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

// Read returns the next frame; it fails the test if none comes within seconds.
func (c *Client) Read() string {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 10*time.Second)
	defer cancel()
	_, b, err := c.Conn.Read(ctx)
	if err != nil {
		c.t.Fatalf("read: %v", err)
	}
	return string(b)
}

// Drain reads and throws away, so that pings are answered, until the end of the
// connection.
func (c *Client) Drain() {
	ctx := context.WithoutCancel(c.t.Context())
	go func() {
		for {
			if _, _, err := c.Conn.Read(ctx); err != nil {
				return
			}
		}
	}()
}
