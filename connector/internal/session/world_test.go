package session

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/delivery"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/wire"
)

// pipes is a listener whose connections live in memory, so that they can be used
// within a synctest bubble.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	server, client := net.Pipe()
	select {
	case p.conns <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// world serves sessions whose logins are let in by the test itself.
type world struct {
	t        *testing.T
	env      Env
	features envelope.Features
	holds    bool // logins are left for the test to answer
	sessions chan *Session
	logins   chan *Session
	ended    chan *Session
	sender   *sender
	proofs   chan []uint64
	dial     func(ctx context.Context, network, addr string) (net.Conn, error)
	url      string
}

// sender remembers what came.
type sender struct {
	submitted func() // called by the reader, if set
	frames    chan wire.Frame
	fetches   chan uint64
}

func (s *sender) Submit(frame *wire.Frame) {
	f := *frame
	if s.submitted != nil {
		s.submitted()
	}
	f.Content = append([]byte(nil), f.Content...)
	s.frames <- f
}
func (s *sender) FetchDone(request uint64) { s.fetches <- request }
func (s *sender) OwnerChanged()            {}
func (s *sender) Leave()                   {}

func (w *world) Login(_ context.Context, s *Session, f wire.Frame, _ *wire.Problem) {
	w.logins <- s
	if !w.holds {
		w.admit(s, ident.UserID(f.UserID))
	}
}

func (w *world) admit(s *Session, user ident.UserID) {
	s.Register(Identity{ID: 7, User: user, Lane: 0, Features: w.features, Sender: w.sender})
	s.Admit(wire.AppendAuthReply(nil, wire.AuthReply{AppID: "a", UserID: string(user)}))
}

func (w *world) Proved(_ *Session, tokens []uint64, _ bool) {
	select {
	case w.proofs <- tokens:
	default:
	}
}

func newMetrics(t *testing.T) *Metrics {
	t.Helper()
	m, err := NewMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// newWorld serves on l; the test ends when all sessions have.
func newWorld(t *testing.T, l net.Listener, features envelope.Features) *world {
	t.Helper()
	w := &world{
		t: t, features: features,
		sessions: make(chan *Session, 64), logins: make(chan *Session, 64), ended: make(chan *Session, 64), proofs: make(chan []uint64, 4096),
		sender: &sender{frames: make(chan wire.Frame, 4096), fetches: make(chan uint64, 64)},
		url:    "ws://" + l.Addr().String() + "/ws",
	}
	w.env = Env{Log: slog.New(slog.DiscardHandler), Metrics: newMetrics(t), Buffers: new(Buffers), Door: w, Proofs: w, FrameLimit: wire.DefaultFrameLimit}
	if p, ok := l.(*pipes); ok {
		w.dial = p.dial
		w.url = "ws://pipe/ws"
	}
	var running sync.WaitGroup
	server := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		s, err := Accept(rw, r, &w.env, nil)
		if err != nil {
			return
		}
		w.sessions <- s
		running.Go(func() {
			s.Run(context.Background())
			w.ended <- s
		})
	})}
	running.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() {
		_ = server.Close()
		running.Wait()
	})
	return w
}

// client is one websocket of the test.
type client struct {
	*websocket.Conn
	t    *testing.T
	raw  net.Conn
	mute bool // answers no pings
}

func (w *world) connect() (*client, *Session) {
	w.t.Helper()
	c := &client{t: w.t}
	dial := w.dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		c.raw = conn
		return conn, err
	}}
	ws, response, err := websocket.Dial(w.t.Context(), w.url, &websocket.DialOptions{
		HTTPClient:     &http.Client{Transport: transport},
		OnPingReceived: func(context.Context, []byte) bool { return !c.mute },
	})
	if err != nil {
		w.t.Fatalf("dial: %v", err)
	}
	if response.Body != nil {
		_ = response.Body.Close()
	}
	ws.SetReadLimit(-1)
	c.Conn = ws
	w.t.Cleanup(func() {
		_ = ws.CloseNow()
		_ = c.raw.Close()
	})
	return c, <-w.sessions
}

// login connects and logs in.
func (w *world) login() (*client, *Session) {
	w.t.Helper()
	c, s := w.connect()
	c.send(`{"type":"AUTH_CLIENT","data":{"appId":"a","userId":"ANZ-1"}}`)
	if got, want := c.read(), `{"type":"AUTH_CLIENT_REPLY","data":{"appId":"a","userId":"ANZ-1","isAuthenticated":true}}`; got != want {
		w.t.Fatalf("got %s, want %s", got, want)
	}
	return c, s
}

func (c *client) send(text string) {
	c.t.Helper()
	if err := c.Write(context.Background(), websocket.MessageText, []byte(text)); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

func (c *client) read() string {
	c.t.Helper()
	_, b, err := c.Read(context.Background())
	if err != nil {
		c.t.Fatalf("read: %v", err)
	}
	return string(b)
}

// frames reads in the background until the end, so that pings are answered.
func (c *client) frames() <-chan string {
	frames := make(chan string, 4096)
	go func() {
		for {
			_, b, err := c.Read(context.Background())
			if err != nil {
				return
			}
			frames <- string(b)
		}
	}()
	return frames
}

// closed reads to the end and returns the close code, -1 for none.
func (c *client) closed() wire.CloseCode {
	c.t.Helper()
	for {
		_, _, err := c.Read(context.Background())
		if err == nil {
			continue
		}
		var ce websocket.CloseError
		if errors.As(err, &ce) {
			return wire.CloseCode(ce.Code)
		}
		if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
			c.t.Logf("ended by %v", err)
		}
		return 0
	}
}

func frameItem(d uint64, id byte, frame string) (*delivery.Item, delivery.Target) {
	it := &delivery.Item{Kind: delivery.KindFrame, Pos: envelope.Position{Generation: 1, Offset: int64(d)}, Frame: []byte(frame)}
	it.ID[0] = id
	return it, delivery.Target{Session: 7, User: "ANZ-1", D: d}
}

// deliver is what the connector does with one delivery.
func (s *Session) deliver(it *delivery.Item, to delivery.Target) (Verdict, bool) {
	verdict, advanced := s.Deliver(it, to)
	s.Flush()
	return verdict, advanced
}
