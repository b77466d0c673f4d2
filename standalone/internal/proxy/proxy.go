// Package proxy stands on a way between two places and lets TCP connections
// through, or does to them what networks do: it cuts them, swallows what goes one
// way or both ways, delays it, holds it up, or lets little
// through.
package proxy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Way is a direction, as seen from who dials. Ways can be joined with |.
type Way int

// The directions.
const (
	Forth Way = 1 << iota // to the target
	Back                  // from the target
	Both  = Forth | Back
)

// maxChunks may wait in one direction of a connection; then nothing is read.
const maxChunks = 1024

// pieces is how many reads make up a second where there is a rate.
const pieces = 20

// Proxy listens at one place and forwards to another. All methods may be called by
// any goroutine.
type Proxy struct {
	listener net.Listener

	mu     sync.Mutex
	target func() string  // guarded by mu; HOST:PORT; "": nobody is there yet
	state  condition      // guarded by mu
	pairs  map[*pair]bool // guarded by mu
}

// condition is what a network does.
type condition struct {
	refuse bool          // whoever comes is sent away
	forth  bool          // what goes to the target is swallowed
	back   bool          // what comes from the target is swallowed
	delay  time.Duration // of everything, in each direction
	rate   int           // bytes in a second, of each connection and direction; 0: no limit
	frozen chan struct{} // closed when what comes meanwhile goes on; nil: it is not held up
}

// New listens on addr, HOST:PORT; port 0 picks a free one. Nobody is served before
// Run, and whoever comes then is sent away until Forward or Find says where to go.
func New(addr string) (*Proxy, error) {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for a proxy: %w", err)
	}
	return &Proxy{listener: listener, pairs: map[*pair]bool{}, target: func() string { return "" }}, nil
}

// Addr is where the proxy listens.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Close releases a proxy that is never run.
func (p *Proxy) Close() error { return p.listener.Close() }

// Run serves until ctx ends, and returns when all connections have ended.
func (p *Proxy) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = p.listener.Close() })
	defer stop()
	var serving sync.WaitGroup
	defer serving.Wait()
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			cancel()
			return fmt.Errorf("proxy %s: %w", p.Addr(), err)
		}
		serving.Go(func() { p.carry(ctx, conn) })
	}
}

// Forward sets where connections go to from now on; those that are open stay.
func (p *Proxy) Forward(target string) { p.Find(func() string { return target }) }

// Find is Forward to a place that is looked up for each connection; "": there is
// none yet.
func (p *Proxy) Find(target func() string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// Cut ends all connections and sends new ones away.
func (p *Proxy) Cut() {
	p.become(condition{refuse: true})
	p.drop(func(*pair) bool { return true })
}

// Swallow swallows what goes that way. Connections stay open, and new ones are
// taken.
func (p *Proxy) Swallow(w Way) { p.become(condition{forth: w&Forth != 0, back: w&Back != 0}) }

// Delay delays everything, each way.
func (p *Proxy) Delay(delay time.Duration) { p.become(condition{delay: delay}) }

// Throttle lets so many bytes through in a second, of each connection and each way.
func (p *Proxy) Throttle(rate int) { p.become(condition{rate: rate}) }

// Freeze takes everything, new connections too, and lets nothing through before the
// next change: the target seems to sleep.
func (p *Proxy) Freeze() { p.become(condition{frozen: make(chan struct{})}) }

// Heal lets everything through again. Connections of which something was swallowed
// end: the rest would make no sense.
func (p *Proxy) Heal() {
	p.become(condition{})
	p.drop(func(c *pair) bool { return c.lost })
}

// Open is how many connections are there.
func (p *Proxy) Open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.pairs)
}

func (p *Proxy) become(state condition) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state.frozen != nil {
		close(p.state.frozen)
	}
	p.state = state
}

func (p *Proxy) now() (condition, func() string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state, p.target
}

// drop ends the connections that are chosen.
func (p *Proxy) drop(choose func(*pair) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.pairs {
		if choose(c) {
			c.end()
		}
	}
}

// pair is a connection through the proxy.
type pair struct {
	dialler net.Conn
	target  net.Conn           // nil while everything to it is swallowed
	gone    context.Context    //nolint:containedctx // it is the life of the pair
	end     context.CancelFunc // ends the pair
	lost    bool               // guarded by Proxy.mu; something was swallowed
}

func (p *Proxy) carry(ctx context.Context, dialler net.Conn) {
	defer func() { _ = dialler.Close() }()
	state, find := p.now()
	target := find()
	if state.refuse || target == "" {
		reset(dialler)
		return
	}
	c := &pair{dialler: dialler}
	c.gone, c.end = context.WithCancel(ctx)
	defer c.end()
	if state.forth && state.back {
		c.lost = true // nobody hears that it is there
	} else {
		conn, err := new(net.Dialer).DialContext(c.gone, "tcp", target)
		if err != nil {
			reset(dialler)
			return
		}
		defer func() { _ = conn.Close() }()
		c.target = conn
	}
	if !p.enter(c) {
		return
	}
	defer p.leave(c)
	var moving sync.WaitGroup
	defer moving.Wait()
	moving.Go(func() { p.move(c, c.dialler, c.target, Forth) })
	if c.target != nil {
		moving.Go(func() { p.move(c, c.target, c.dialler, Back) })
	}
	<-c.gone.Done()
	_ = c.dialler.Close()
	if c.target != nil {
		_ = c.target.Close()
	}
}

// reset ends a connection as a closed port does.
func reset(conn net.Conn) {
	if tcp, is := conn.(*net.TCPConn); is {
		_ = tcp.SetLinger(0)
	}
}

// enter notes a pair, unless it was cut meanwhile.
func (p *Proxy) enter(c *pair) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state.refuse {
		return false
	}
	p.pairs[c] = true
	return true
}

func (p *Proxy) leave(c *pair) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.pairs, c)
}

// chunk is what was read at once.
type chunk struct {
	bytes []byte
	due   time.Time
}

// move carries one direction until either end is gone.
func (p *Proxy) move(c *pair, from io.Reader, to io.Writer, w Way) {
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
		state, _ := p.now()
		part := buffer
		if state.rate > 0 {
			part = buffer[:min(len(buffer), state.rate/pieces+1)]
		}
		n, err := from.Read(part)
		state, _ = p.now()
		takes := time.Duration(0)
		if state.rate > 0 {
			takes = time.Duration(n) * time.Second / time.Duration(state.rate)
		}
		select {
		case queue <- chunk{bytes.Clone(part[:n]), time.Now().Add(state.delay + takes)}:
		case <-c.gone.Done():
			return
		}
		if err != nil {
			return
		}
		if !c.pause(takes) {
			return
		}
	}
}

// pause waits, and says whether the pair is still there.
func (c *pair) pause(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.gone.Done():
		return false
	}
}

// deliver writes what is due, or swallows it. It says whether the pair can go on.
func (p *Proxy) deliver(c *pair, next chunk, to io.Writer, w Way) bool {
	if !c.pause(time.Until(next.due)) {
		return false
	}
	for state, _ := p.now(); state.frozen != nil; state, _ = p.now() {
		select {
		case <-state.frozen:
		case <-c.gone.Done():
			return false
		}
	}
	p.mu.Lock()
	swallowed := c.target == nil || w == Forth && p.state.forth || w == Back && p.state.back
	c.lost = c.lost || swallowed && len(next.bytes) > 0
	p.mu.Unlock()
	if swallowed {
		return true
	}
	_, err := to.Write(next.bytes)
	return err == nil
}
