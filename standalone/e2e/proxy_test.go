package e2e

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

// proxy stands on a way between two places and lets TCP connections through, or
// does to them what networks do. All methods may be called by any goroutine.
type proxy struct {
	listener net.Listener
	serving  sync.WaitGroup

	mu     sync.Mutex
	target func() string      // guarded by mu; HOST:PORT; "": nobody is there yet
	state  condition          // guarded by mu
	pairs  map[*pair]bool     // guarded by mu
	ended  context.Context    // static
	end    context.CancelFunc // static
}

// condition is what a network does.
type condition struct {
	refuse bool          // whoever comes is sent away
	forth  bool          // what goes to the target is swallowed
	back   bool          // what comes from the target is swallowed
	delay  time.Duration // of everything, in each direction
}

// way is a direction, as seen from who dials.
type way int

const (
	forth way = 1 << iota
	back
	bothWays = forth | back
)

// chunk is what was read at once.
type chunk struct {
	bytes []byte
	due   time.Time
}

// maxChunks may wait in one direction of a connection; then nothing is read.
const maxChunks = 1024

// newProxy listens until the test ends. It sends everybody away until it is told
// where to forward to.
func newProxy(t *testing.T) *proxy {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(context.WithoutCancel(t.Context()), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: listener, pairs: map[*pair]bool{}, target: func() string { return "" }}
	p.ended, p.end = context.WithCancel(context.Background())
	p.serving.Go(p.serve)
	t.Cleanup(func() {
		p.end()
		_ = listener.Close()
		p.drop(func(*pair) bool { return true })
		p.serving.Wait()
	})
	return p
}

// addr is where the proxy listens.
func (p *proxy) addr() string { return p.listener.Addr().String() }

// forward sets where connections go to from now on; those that are open stay.
func (p *proxy) forward(target string) { p.find(func() string { return target }) }

// find is forward to a place that is looked up for each connection; "": there is
// none yet.
func (p *proxy) find(target func() string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// cut ends all connections and sends new ones away.
func (p *proxy) cut() {
	p.become(condition{refuse: true})
	p.drop(func(*pair) bool { return true })
}

// blackhole swallows what goes that way. Connections stay open, and new ones are
// taken.
func (p *proxy) blackhole(w way) {
	p.become(condition{forth: w&forth != 0, back: w&back != 0})
}

// slow delays everything.
func (p *proxy) slow(delay time.Duration) { p.become(condition{delay: delay}) }

// heal lets everything through again. Connections of which something was swallowed
// end: the rest would make no sense.
func (p *proxy) heal() {
	p.become(condition{})
	p.drop(func(c *pair) bool { return c.lost })
}

// open is how many connections are there.
func (p *proxy) open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.pairs)
}

func (p *proxy) become(state condition) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = state
}

func (p *proxy) now() (condition, func() string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state, p.target
}

// drop ends the connections that are chosen.
func (p *proxy) drop(choose func(*pair) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.pairs {
		if choose(c) {
			c.end()
		}
	}
}

func (p *proxy) serve() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return // it is closed
		}
		p.serving.Go(func() { p.carry(conn) })
	}
}

// pair is a connection through the proxy.
type pair struct {
	dialler net.Conn
	target  net.Conn // nil while everything to it is swallowed
	gone    context.Context
	end     context.CancelFunc
	lost    bool // guarded by proxy.mu; something was swallowed
}

func (p *proxy) carry(dialler net.Conn) {
	defer dialler.Close()
	state, find := p.now()
	target := find()
	if state.refuse || target == "" {
		_ = dialler.(*net.TCPConn).SetLinger(0) // a reset, as a closed port answers
		return
	}
	c := &pair{dialler: dialler}
	c.gone, c.end = context.WithCancel(p.ended)
	defer c.end()
	if state.forth && state.back {
		c.lost = true // nobody hears that it is there
	} else {
		var err error
		if c.target, err = new(net.Dialer).DialContext(c.gone, "tcp", target); err != nil {
			return
		}
		defer c.target.Close()
	}
	p.mu.Lock()
	if p.state.refuse {
		p.mu.Unlock()
		return
	}
	p.pairs[c] = true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.pairs, c)
	}()
	var moving sync.WaitGroup
	moving.Go(func() { p.move(c, c.dialler, c.target, forth) })
	if c.target != nil {
		moving.Go(func() { p.move(c, c.target, c.dialler, back) })
	}
	<-c.gone.Done()
	_ = c.dialler.Close()
	if c.target != nil {
		_ = c.target.Close()
	}
	moving.Wait()
}

// move carries one direction until either end is gone.
func (p *proxy) move(c *pair, from io.Reader, to io.Writer, w way) {
	defer c.end()
	queue := make(chan chunk, maxChunks)
	var delivering sync.WaitGroup
	delivering.Go(func() {
		defer c.end()
		for next := range queue {
			if !p.deliver(c, next, to, w) {
				c.end()
			}
		}
	})
	defer delivering.Wait()
	defer close(queue)
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		state, _ := p.now()
		select {
		case queue <- chunk{bytes.Clone(buffer[:n]), time.Now().Add(state.delay)}:
		case <-c.gone.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// deliver writes what is due, or swallows it.
func (p *proxy) deliver(c *pair, next chunk, to io.Writer, w way) bool {
	if wait := time.Until(next.due); wait > 0 {
		select {
		case <-time.After(wait):
		case <-c.gone.Done():
			return false
		}
	}
	p.mu.Lock()
	swallowed := c.lost && c.target == nil || w == forth && p.state.forth || w == back && p.state.back
	c.lost = c.lost || swallowed && len(next.bytes) > 0
	p.mu.Unlock()
	if swallowed {
		return true
	}
	_, err := to.Write(next.bytes)
	return err == nil
}

func TestAProxyDoesWhatNetworksDo(t *testing.T) {
	t.Parallel()
	echo, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var echoing sync.WaitGroup
	t.Cleanup(func() { _ = echo.Close(); echoing.Wait() })
	echoing.Go(func() {
		for {
			conn, err := echo.Accept()
			if err != nil {
				return
			}
			echoing.Go(func() { _, _ = io.Copy(conn, conn); _ = conn.Close() })
		}
	})
	p := newProxy(t)
	dial := func() net.Conn {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", p.addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	// answer sends a word and returns what comes back within the time.
	answer := func(conn net.Conn, within time.Duration) (string, error) {
		_, _ = conn.Write([]byte("hello"))
		_ = conn.SetReadDeadline(time.Now().Add(within))
		var got [5]byte
		n, err := io.ReadFull(conn, got[:])
		return string(got[:n]), err
	}
	works := func(conn net.Conn) {
		t.Helper()
		if got, err := answer(conn, patience); got != "hello" {
			t.Errorf("got %q, %v", got, err)
		}
	}
	ends := func(conn net.Conn) {
		t.Helper()
		if got, err := answer(conn, patience); got != "" || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %q, %v", got, err)
		}
	}
	silent := func(conn net.Conn) {
		t.Helper()
		if got, err := answer(conn, 200*time.Millisecond); got != "" || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %q, %v", got, err)
		}
	}
	refused := func() {
		t.Helper()
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", p.addr())
		if err != nil {
			return // so soon
		}
		defer conn.Close()
		ends(conn)
	}
	refused() // nobody is there yet
	p.forward(echo.Addr().String())
	first := dial()
	works(first)
	p.cut()
	ends(first)
	refused()
	p.heal()
	second := dial()
	works(second)
	for _, w := range []way{forth, back, bothWays} {
		p.blackhole(w)
		silent(second)
		silent(dial())
		p.heal()
		ends(second)
		second = dial()
		works(second)
	}
	p.slow(300 * time.Millisecond)
	began := time.Now()
	works(second)
	if took := time.Since(began); took < 600*time.Millisecond {
		t.Errorf("there and back took %v", took)
	}
	p.heal()
	works(second)
	eventually(t, "only one connection left", func() bool { return p.open() <= 1 })
}
