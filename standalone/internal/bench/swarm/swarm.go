// Package swarm is many websocket clients on one thread. They log in, answer pings
// and, if they are to, acknowledge; what else they do is their Handler's to say.
//
// All of them, and the Handler, live in the goroutine that runs Run, which has a
// thread of its own: nothing is locked, and a frame costs no allocation. Time is in
// ns since New.
package swarm

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/linkerhq/linker/standalone/internal/bench/frame"
	"github.com/linkerhq/linker/standalone/internal/bench/message"
)

const (
	bufferBytes = 1 << 20 // the longest frame, and what is read at once
	// maxOut is how much waits for a socket that takes nothing: answers to pings, and
	// what has stuck of a frame. A server that fills it is cut off.
	maxOut = 4 << 20
	// attention is the longest time between two looks at what else there is to do.
	attention = 50 * time.Millisecond
	// retryPause is how long a client waits that could not get in.
	retryPause = 500 * time.Millisecond
	// perAddress is how many connections one address of this machine has: it has some
	// 28,000 ports for them, of which kernels are ready to take every second one.
	perAddress = 10_000
	// spareFiles are the open files that have nothing to do with clients.
	spareFiles = 1000
)

// Never is when nothing is due.
const Never = math.MaxInt64

// Target is where a client connects.
type Target struct {
	Addr netip.AddrPort
	Host string // as the request names it
	Path string
}

// Config says who the clients are. All fields are needed.
type Config struct {
	Connections int
	Target      func(client int) Target // static for each of them
	Login       func(client int) message.Login
	Concurrency int           // connections on their way in at once
	LoginWithin time.Duration // of each; who takes longer has failed
	// ComeBack is how long after the loss of its connection, or an attempt to get in that
	// failed, a client connects again. 0: who was in does not come back, and who was not
	// tries again after half a second.
	ComeBack time.Duration
}

// Handler says what clients do. Its methods are called by the one thread.
type Handler interface {
	// LoggedIn is called when a client may send.
	LoggedIn(c *Client, now int64)
	// Frame is called with each text frame that a client gets after that. The payload
	// is good until it returns.
	Frame(c *Client, payload []byte, now int64)
	// Writable is called when a client can send that could not.
	Writable(c *Client, now int64)
	// Ended is called when a client that was logged in has lost its connection.
	Ended(c *Client, why string, now int64)
	// Due does what is due, and says when it wants to be called again at the latest.
	Due(now int64) int64
}

// Swarm is many clients. But for Stop, and Entered, its methods belong to its thread.
type Swarm struct {
	cfg     Config
	begin   time.Time
	clients []*Client
	handler Handler
	kernel  *kernel
	buffer  []byte
	control []byte // answers of one read
	next    int64  // when the handler wants to be called

	undialled int       // index of the first client that has never dialled
	onTheWay  int       // clients that have a socket and are not in
	entrants  []entrant // attempts to get in, in their order
	waiting   []entrant // those that dial again, in the order of their time
	failures  Failures
	retries   int64
	failed    error // ends Run

	entered atomic.Int64
	stopped atomic.Bool
}

// New prepares the clients; none of them connects before Run.
func New(cfg Config) (*Swarm, error) {
	if err := OpenFiles(cfg.Connections); err != nil {
		return nil, err
	}
	s := &Swarm{cfg: cfg, begin: time.Now(), buffer: make([]byte, bufferBytes), failures: Failures{}}
	for n := range cfg.Connections {
		if to := cfg.Target(n).Addr; n == perAddress && !(to.Addr().Is4() && to.Addr().IsLoopback()) {
			return nil, fmt.Errorf("--connections %d: expected at most %d to %s, since only a loopback address can be reached from several ones",
				cfg.Connections, perAddress, to)
		}
		login := cfg.Login(n)
		s.clients = append(s.clients, &Client{Index: n, User: login.UserID, swarm: s, fd: -1, acks: slices.Contains(login.Features, "ack")})
	}
	return s, nil
}

// OpenFiles lets this process, and those that it starts after that, have so many
// connections.
func OpenFiles(connections int) error { return openFiles(uint64(connections) + spareFiles) }

// Now is the time in ns since New.
func (s *Swarm) Now() int64 { return int64(time.Since(s.begin)) }

// Clients are all of them.
func (s *Swarm) Clients() []*Client { return s.clients }

// Stop ends Run. Any goroutine may call it.
func (s *Swarm) Stop() { s.stopped.Store(true) }

// Entered is how many clients have logged in. Any goroutine may call it.
func (s *Swarm) Entered() int64 { return s.entered.Load() }

// Failures says why clients did not get in, by reason.
func (s *Swarm) Failures() Failures { return s.failures }

// Retries is how often a client tried again that was told to.
func (s *Swarm) Retries() int64 { return s.retries }

// Run lets all clients in and goes on until Stop, or until ctx ends. Then all
// connections are closed.
func (s *Swarm) Run(ctx context.Context, h Handler) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var err error
	if s.kernel, err = newKernel(); err != nil {
		return err
	}
	defer s.kernel.close()
	defer s.leave()
	defer context.AfterFunc(ctx, s.Stop)()
	s.handler = h
	for !s.stopped.Load() && s.failed == nil {
		now := s.Now()
		s.dial(now)
		s.expire(now)
		s.next = h.Due(now)
		if s.stopped.Load() {
			break
		}
		wake := s.next
		if len(s.waiting) > 0 && s.onTheWay < s.cfg.Concurrency {
			wake = min(wake, s.waiting[0].at)
		}
		if err := s.kernel.wait(min(wake-s.Now(), int64(attention)), s.take); err != nil {
			return err
		}
	}
	return errors.Join(s.failed, ctx.Err())
}

// leave closes all connections.
func (s *Swarm) leave() {
	bye := frame.Append(nil, frame.Close, []byte{0x03, 0xe8})
	for _, c := range s.clients {
		if c.fd < 0 {
			continue
		}
		if c.state == in && len(c.out) == 0 {
			_, _ = s.kernel.write(c.fd, bye) // it goes anyway
		}
		s.kernel.drop(c.fd)
	}
}

// take handles what can be done with one socket.
func (s *Swarm) take(e event) {
	c := s.clients[e.client]
	if c.fd != e.fd {
		return // it was closed meanwhile
	}
	if e.writable {
		s.writable(c)
	}
	if e.readable && c.fd == e.fd {
		s.readable(c)
	}
	if now := s.Now(); s.next <= now {
		s.next = s.handler.Due(now)
	}
}
