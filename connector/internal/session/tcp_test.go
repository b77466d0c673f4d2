package session

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/linkerhq/linker/pkg/certs/certtest"
	"github.com/linkerhq/linker/pkg/delivery"
	"github.com/linkerhq/linker/pkg/wire"
)

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestAnOversizedFrameIsAnsweredWith1009AlthoughInputIsStillComing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, listen(t), 0)
	c, _ := w.login()
	const size = 8 << 20
	head := binary.BigEndian.AppendUint64([]byte{0x81, 0x80 | 127}, size)
	head = append(head, 0, 0, 0, 0)
	sent := make(chan error, 1)
	go func() {
		_, err := c.raw.Write(append(head, strings.Repeat("x", size)...))
		sent <- err
	}()
	if code := c.closed(); code != wire.CloseTooLarge {
		t.Errorf("closed with %d", code)
	}
	<-w.ended
	if err := <-sent; err != nil {
		t.Logf("the rest was not taken: %v", err)
	}
}

func TestAFrameOfExactlyTheLimitIsTaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, listen(t), 0)
	c, _ := w.login()
	head, tail := `{"type":"MESSAGE","data":{"to":"ANZ-1","content":"`, `"}}`
	fill := wire.DefaultFrameLimit - len(head) - len(tail)
	c.send(head + strings.Repeat("x", fill) + tail)
	if f := <-w.sender.frames; len(f.Content) != fill+2 {
		t.Errorf("content of %d bytes", len(f.Content))
	}
	c.send(head + strings.Repeat("x", fill+1) + tail)
	if code := c.closed(); code != wire.CloseTooLarge {
		t.Errorf("closed with %d", code)
	}
}

func TestTenThousandFragmentsMakeOneFrame(t *testing.T) {
	t.Parallel()
	w := newWorld(t, listen(t), 0)
	c, _ := w.login()
	text := `{"type":"MESSAGE","data":{"to":"ANZ-1","content":"` + strings.Repeat("x", 10000) + `"}}`
	var b []byte
	for i := range len(text) {
		op := byte(0)
		if i == 0 {
			op = 1
		}
		if i == len(text)-1 {
			op |= 0x80
		}
		b = append(b, op, 0x81, 0, 0, 0, 0, text[i])
	}
	if _, err := c.raw.Write(b); err != nil {
		t.Fatal(err)
	}
	if f := <-w.sender.frames; len(f.Content) != 10002 {
		t.Errorf("content of %d bytes", len(f.Content))
	}
}

func TestWhatTheKernelHoldsIsNotTakenOff(t *testing.T) {
	t.Parallel()
	l := listen(t)
	peer, err := new(net.Dialer).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	if err := peer.(*net.TCPConn).SetReadBuffer(64 << 10); err != nil {
		t.Fatal(err)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	const total = 4 << 20
	s := newSocket(conn, new(Buffers), nil)
	if s.queue == (queue{}) {
		t.Skip("this kernel does not tell what it holds")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = s.write(make([]byte, total))
	}()
	deadline := time.Now().Add(10 * time.Second)
	for s.blocked() == 0 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if _, waiting := s.takenOff(); !waiting {
		t.Error("a write is under way, and nothing waits")
	}
	if _, err := io.CopyN(io.Discard, peer, total); err != nil {
		t.Fatal(err)
	}
	<-done
	for time.Now().Before(deadline) {
		off, waiting := s.takenOff()
		if off == total && !waiting {
			return
		}
		time.Sleep(time.Millisecond)
	}
	off, waiting := s.takenOff()
	t.Errorf("taken off %d, waiting %v", off, waiting)
	_ = conn.Close()
}

func TestAThousandMessagesArriveInOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t, listen(t), 0)
	c, s := w.login()
	go func() {
		for d := range uint64(1000) {
			s.deliver(frameItem(d+1, 0, fmt.Sprintf(`{"n":%d}`, d)))
		}
	}()
	for d := range 1000 {
		if got, want := c.read(), fmt.Sprintf(`{"n":%d}`, d); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	}
}

func TestWhatTheKernelHoldsOfATLSConnectionIsNotTakenOff(t *testing.T) {
	t.Parallel()
	authority := certtest.NewAuthority(t)
	l := listen(t)
	dialed := make(chan *tls.Conn, 1)
	go func() {
		defer close(dialed)
		dialer := tls.Dialer{Config: &tls.Config{RootCAs: authority.Pool()}}
		conn, err := dialer.DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		dialed <- conn.(*tls.Conn)
	}()
	raw, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	conn := tls.Server(raw, authority.Server())
	defer conn.Close()
	if err := conn.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	peer := <-dialed
	if peer == nil {
		t.FailNow()
	}
	defer peer.Close()
	s := newSocket(conn, new(Buffers), nil)
	if s.queue == (queue{}) {
		t.Skip("this kernel does not tell what it holds")
	}
	const total = 4 << 20
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = s.write(make([]byte, total))
	}()
	deadline := time.Now().Add(10 * time.Second)
	for s.blocked() == 0 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if _, waiting := s.takenOff(); !waiting {
		t.Error("a write is under way, and nothing waits")
	}
	if _, err := io.CopyN(io.Discard, peer, total); err != nil {
		t.Fatal(err)
	}
	<-done
	for time.Now().Before(deadline) {
		off, waiting := s.takenOff()
		if off == total && !waiting {
			return
		}
		time.Sleep(time.Millisecond)
	}
	off, waiting := s.takenOff()
	t.Errorf("taken off %d, waiting %v", off, waiting)
}

// The kernel reports an end only once, and together with bytes that came just before:
// whoever has read those has to look again.
func TestAnEndThatCameWithTheLastBytesIsNoticedAtOnce(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*net.TCPConn) error{
		"closed": func(*net.TCPConn) error { return nil },
		"reset":  func(c *net.TCPConn) error { return c.SetLinger(0) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, listen(t), 0)
			reading, goOn := make(chan struct{}), make(chan struct{})
			w.sender.submitted = sync.OnceFunc(func() {
				close(reading)
				<-goOn
			})
			c, _ := w.login()
			const message = `{"type":"MESSAGE","data":{"to":"ANZ-1","content":"x"}}`
			c.send(message)
			<-reading
			c.send(message)
			if err := errors.Join(end(c.raw.(*net.TCPConn)), c.raw.Close()); err != nil {
				t.Fatal(err)
			}
			close(goOn)
			select {
			case <-w.ended:
			case <-time.After(10 * time.Second):
				t.Fatal("the session goes on")
			}
		})
	}
}

func TestWhatAResetConnectionDidNotTakeIsCounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, listen(t), 0)
	c, s := w.login()
	const n, size = 3000, 5000
	frame := []byte(strings.Repeat("x", size))
	for range n {
		s.deliver(&delivery.Item{Kind: delivery.KindFast, Frame: frame}, delivery.Target{Session: 7, User: "ANZ-1"})
	}
	if err := c.raw.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	_ = c.raw.Close()
	<-w.ended
	m := w.env.Metrics
	written, dropped, unsent := testutil.ToFloat64(m.bytesOut)/size, testutil.ToFloat64(m.fastDrops), testutil.ToFloat64(m.unsent)
	if sum := written + dropped + unsent; sum < n {
		t.Errorf("of %d frames %.0f were written, %.0f dropped, %.0f not sent", n, written, dropped, unsent)
	}
}

// Whoever ends a session does not wait for its client, not even with TLS, which says
// goodbye.
func TestToEndASessionTakesNoTime(t *testing.T) {
	t.Parallel()
	authority := certtest.NewAuthority(t)
	a, b := net.Pipe()
	server := tls.Server(a, authority.Server())
	go func() {
		_ = tls.Client(b, &tls.Config{RootCAs: authority.Pool(), ServerName: "127.0.0.1"}).HandshakeContext(t.Context())
	}()
	if err := server.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	env := &Env{Metrics: newMetrics(t), Buffers: new(Buffers)}
	s := newSession(env, newSocket(server, env.Buffers, nil))
	began := time.Now()
	s.end(nil, CauseSilent)
	if took := time.Since(began); took > partingTime/2 {
		t.Errorf("it took %v", took)
	}
}
