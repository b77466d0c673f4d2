package swarm_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/linkerhq/linker/standalone/internal/bench/frame"
	"github.com/linkerhq/linker/standalone/internal/bench/message"
	"github.com/linkerhq/linker/standalone/internal/bench/swarm"
)

// reply is what lets a client in.
const reply = `{"type":"AUTH_CLIENT_REPLY","data":{"isAuthenticated":true}}`

// text is a frame of a server.
func text(s string) []byte { return ofServer(0x81, s) }

func ofServer(first byte, payload string) []byte {
	b := []byte{first, byte(len(payload))}
	if len(payload) > 125 {
		b = binary.BigEndian.AppendUint16([]byte{first, 126}, uint16(len(payload)))
	}
	return append(b, payload...)
}

// raw is one connection of a server that writes whatever a test wants.
type raw struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

// frame reads a frame of the client and returns its payload.
func (r raw) frame() (frame.Opcode, string, error) {
	var head [2]byte
	if _, err := io.ReadFull(r.in, head[:]); err != nil {
		return 0, "", err
	}
	length := int(head[1] & 0x7f)
	if length == 126 {
		var more [2]byte
		if _, err := io.ReadFull(r.in, more[:]); err != nil {
			return 0, "", err
		}
		length = int(binary.BigEndian.Uint16(more[:]))
	}
	b := make([]byte, 4+length) // the mask, which is 0, first
	if _, err := io.ReadFull(r.in, b); err != nil {
		return 0, "", err
	}
	return frame.Opcode(head[0] & 0xf), string(b[4:]), nil
}

func (r raw) write(b []byte) {
	if _, err := r.conn.Write(b); err != nil {
		r.t.Logf("write: %v", err) // the client has gone
	}
}

// enter lets the client in.
func (r raw) enter() {
	request, err := http.ReadRequest(r.in)
	if err != nil {
		return
	}
	if request.Host != "host" || request.URL.Path != "/path" {
		r.t.Errorf("got the request %s %s", request.Host, request.URL)
	}
	r.write([]byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + acceptKey(request) + "\r\n\r\n"))
	if _, login, err := r.frame(); err == nil && !strings.Contains(login, `"userId":"ANZ-`) {
		r.t.Errorf("got the login %s", login)
	}
	r.write(text(reply))
}

// acceptKey asks the library that others use what the answer to a handshake is.
func acceptKey(request *http.Request) string {
	recorder := &recorder{header: http.Header{}}
	_, _ = websocket.Accept(recorder, request, nil) // it fails behind the point that matters: this connection cannot be taken over
	return recorder.header.Get("Sec-WebSocket-Accept")
}

type recorder struct{ header http.Header }

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) Write(b []byte) (int, error) { return len(b), nil }
func (r *recorder) WriteHeader(int)             {}
func (r *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return nil, nil, errors.New("only its header is wanted")
}

// serve runs a server that does that with each connection.
func serve(t *testing.T, do func(r raw)) netip.AddrPort {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer func() { _ = conn.Close() }()
				do(raw{t, conn, bufio.NewReader(conn)})
			})
		}
	})
	t.Cleanup(func() { _ = listener.Close(); serving.Wait() })
	return listener.Addr().(*net.TCPAddr).AddrPort()
}

// handler does what a test wants.
type handler struct {
	swarm    *swarm.Swarm
	loggedIn func(c *swarm.Client)
	frame    func(c *swarm.Client, payload []byte)
	writable func(c *swarm.Client)
	ended    []string
	until    int // ends: how many there may be
}

func (h *handler) LoggedIn(c *swarm.Client, _ int64) {
	if h.loggedIn != nil {
		h.loggedIn(c)
	}
}

func (h *handler) Frame(c *swarm.Client, payload []byte, _ int64) {
	if h.frame != nil {
		h.frame(c, payload)
	}
}

func (h *handler) Writable(c *swarm.Client, _ int64) {
	if h.writable != nil {
		h.writable(c)
	}
}

func (h *handler) Ended(_ *swarm.Client, why string, _ int64) {
	if h.ended = append(h.ended, why); len(h.ended) == h.until {
		h.swarm.Stop()
	}
}

func (h *handler) Due(int64) int64 { return swarm.Never }

// newSwarm prepares clients of a server.
func newSwarm(t *testing.T, clients int, at netip.AddrPort, features ...string) *swarm.Swarm {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("the load generator needs Linux")
	}
	s, err := swarm.New(swarm.Config{
		Connections: clients, Concurrency: 3, LoginWithin: 20 * time.Second,
		Target: func(int) swarm.Target { return swarm.Target{Addr: at, Host: "host", Path: "/path"} },
		Login:  func(int) message.Login { return message.Login{AppID: "app", UserID: "ANZ-1", Features: features} },
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFramesAreReadHoweverTheyAreCut(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("long", 200)
	var stream []byte
	var want []string
	for range 20 {
		stream = append(stream, text("short")...)
		stream = append(stream, ofServer(0x89, "ping")...)
		stream = append(stream, text(long)...)
		want = append(want, "short", long)
	}
	pongs := make(chan int, 4)
	at := serve(t, func(r raw) {
		r.enter()
		for rest := stream; len(rest) > 0; {
			n := min(len(rest), 1+(len(rest)*7)%97)
			r.write(rest[:n])
			rest = rest[n:]
			runtime.Gosched()
		}
		count := 0
		for count < 20 {
			op, payload, err := r.frame()
			if err != nil || op != frame.Pong || payload != "ping" {
				break
			}
			count++
		}
		pongs <- count
		r.write(ofServer(0x88, "\x11\x3a"))
	})
	const clients = 4
	s := newSwarm(t, clients, at)
	got := map[int][]string{}
	h := &handler{swarm: s, until: clients, frame: func(c *swarm.Client, payload []byte) { got[c.Index] = append(got[c.Index], string(payload)) }}
	if err := s.Run(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	for n := range clients {
		if !slices.Equal(got[n], want) {
			t.Errorf("client %d got %d frames, expected %d", n, len(got[n]), len(want))
		}
		if got := <-pongs; got != 20 {
			t.Errorf("a server got %d pongs", got)
		}
	}
	if !slices.Equal(h.ended, slices.Repeat([]string{"closed-4410"}, clients)) {
		t.Errorf("got the ends %v", h.ended)
	}
}

func TestASocketThatTakesNothingBlocksItsClientOnly(t *testing.T) {
	t.Parallel()
	go1, received := make(chan struct{}), make(chan string, 1)
	at := serve(t, func(r raw) {
		r.enter()
		<-go1
		for {
			_, payload, err := r.frame()
			if err != nil {
				return
			}
			if payload == "last" {
				received <- payload
				r.write(ofServer(0x88, ""))
			}
		}
	})
	s := newSwarm(t, 1, at)
	piece := frame.Append(nil, frame.Text, bytes.Repeat([]byte("x"), 60_000))
	last := frame.Append(nil, frame.Text, []byte("last"))
	h := &handler{swarm: s, until: 1}
	sent := 0
	h.loggedIn = func(c *swarm.Client) {
		for c.Send(piece) {
			if sent++; sent > 1000 {
				t.Error("60 MB fit into a socket that nobody reads")
				s.Stop()
				return
			}
		}
		if !c.Blocked() || c.Send(last) {
			t.Error("the client is not blocked")
		}
		close(go1)
	}
	h.writable = func(c *swarm.Client) {
		if c.Blocked() || !c.Send(last) {
			t.Error("the client is still blocked")
		}
	}
	if err := s.Run(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	if got := <-received; got != "last" || h.ended[0] != "closed-1005" {
		t.Errorf("got %s, %v", got, h.ended)
	}
}

func TestWhatAServerDoesNotDoEndsTheConnection(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		write []byte
		want  string
	}{
		"a message in parts": {ofServer(0x01, "part"), "a message in several frames"},
		"the rest of one":    {ofServer(0x80, "part"), "a message in several frames"},
		"a binary frame":     {ofServer(0x82, "part"), "a binary frame"},
		"a masked frame":     {[]byte{0x81, 0x80, 1, 2, 3, 4}, "a masked frame of a server"},
		"nothing at all":     {nil, "closed-without-code"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at := serve(t, func(r raw) {
				r.enter()
				r.write(c.write)
				if c.write != nil {
					_, _, _ = r.frame() // until the client ends it
				}
			})
			s := newSwarm(t, 1, at)
			h := &handler{swarm: s, until: 1}
			if err := s.Run(t.Context(), h); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(h.ended, []string{c.want}) {
				t.Errorf("got %v, expected %s", h.ended, c.want)
			}
		})
	}
}

func TestAClientThatIsToComeBackDoes(t *testing.T) {
	t.Parallel()
	var connections atomic.Int64
	at := serve(t, func(r raw) {
		if connections.Add(1)%2 == 0 {
			return // without a word
		}
		r.enter()
	})
	if runtime.GOOS != "linux" {
		t.Skip("the load generator needs Linux")
	}
	s, err := swarm.New(swarm.Config{
		Connections: 2, Concurrency: 1, LoginWithin: 20 * time.Second, ComeBack: time.Millisecond,
		Target: func(int) swarm.Target { return swarm.Target{Addr: at, Host: "host", Path: "/path"} },
		Login:  func(int) message.Login { return message.Login{AppID: "app", UserID: "ANZ-1"} },
	})
	if err != nil {
		t.Fatal(err)
	}
	entered := 0
	h := &handler{swarm: s, until: 6, loggedIn: func(*swarm.Client) { entered++ }}
	if err := s.Run(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	failed := int64(0)
	for _, n := range s.Failures() {
		failed += n
	}
	if entered != 6 || failed < 5 {
		t.Errorf("got in %d times; attempts that failed: %v", entered, s.Failures())
	}
}

func TestOneAcknowledgementIsForAllOfARead(t *testing.T) {
	t.Parallel()
	acked := make(chan string, 1)
	at := serve(t, func(r raw) {
		r.enter()
		r.write(slices.Concat(text(`{"seq":1}`), text(`{"seq":2}`), text(`{"seq":3}`)))
		_, payload, _ := r.frame()
		acked <- payload
	})
	s := newSwarm(t, 1, at, "ack")
	h := &handler{swarm: s, until: 1}
	if err := s.Run(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	if got := <-acked; got != `{"type":"MESSAGE_ACK","data":{"upTo":3}}` {
		t.Errorf("got %s", got)
	}
}

func TestASwarmEndsWithItsContext(t *testing.T) {
	defer goleak.VerifyNone(t)
	t.Run("", func(t *testing.T) {
		at := serve(t, func(r raw) {
			r.enter()
			_, _, _ = r.frame()
		})
		s := newSwarm(t, 3, at)
		ctx, cancel := context.WithCancel(t.Context())
		h := &handler{swarm: s}
		h.loggedIn = func(*swarm.Client) {
			if s.Entered() == 3 {
				cancel()
			}
		}
		if err := s.Run(ctx, h); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

func TestOnlyLoopbackHasMoreAddresses(t *testing.T) {
	t.Parallel()
	if err := swarm.OpenFiles(10_001); err != nil {
		t.Skip(err)
	}
	_, err := swarm.New(swarm.Config{
		Connections: 10_001,
		Target:      func(int) swarm.Target { return swarm.Target{Addr: netip.MustParseAddrPort("192.0.2.1:80")} },
		Login:       func(int) message.Login { return message.Login{} },
	})
	if err == nil || !strings.Contains(err.Error(), "--connections 10001: expected at most 10000 to 192.0.2.1:80") {
		t.Errorf("got %v", err)
	}
}

func TestALimitOfOpenFilesThatCannotBeRaisedIsAClearError(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("the load generator needs Linux")
	}
	err := swarm.OpenFiles(1 << 40)
	if err == nil || !strings.Contains(err.Error(), "open files: 1099511628776 are needed") {
		t.Errorf("got %v", err)
	}
}
