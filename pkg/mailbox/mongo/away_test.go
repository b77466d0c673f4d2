package mongo_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/internal/porttest"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/pkg/mailbox/mongo"
)

// patience is what a method may take when there is no server: one time limit,
// and what a busy machine adds.
const patience = 6 * time.Second

func TestEveryMethodFailsSoonWithoutAServerAndKeepsThePassword(t *testing.T) {
	t.Parallel()
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(porttest.Lasting(t)))
	s, err := mongo.Open(mongo.Config{
		URL: "mongodb://linker:secret-word@" + address + "/?authMechanism=SCRAM-SHA-256", Database: "domain-01", Log: slog.New(slog.DiscardHandler),
	})
	noError(t, err)
	var wg sync.WaitGroup
	for name, call := range map[string]func(context.Context) error{
		"Ping":     s.Ping,
		"Put":      func(ctx context.Context) error { return s.Put(ctx, []mailbox.Row{row(1)}) },
		"Usage":    func(ctx context.Context) error { _, err := s.Usage(ctx, "A-1"); return err },
		"SaveLane": func(ctx context.Context) error { return s.SaveLane(ctx, 1, change(1)) },
		"LoadLane": func(ctx context.Context) error { _, _, err := s.LoadLane(ctx, 1); return err },
	} {
		wg.Go(func() {
			began := time.Now()
			err := call(t.Context())
			if err == nil || strings.Contains(err.Error(), "secret") || time.Since(began) > patience {
				t.Errorf("%s reports %v after %v", name, err, time.Since(began))
			}
		})
		wg.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(50*time.Millisecond, cancel)
			if err := call(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("%s, given up, reports %v", name, err)
			}
		})
	}
	wg.Wait()
	noError(t, s.Close())
}

func TestAServerThatComesLateOrGoesForAWhileIsFoundAgain(t *testing.T) {
	t.Parallel()
	name := database(t)
	p := newProxy(t)
	s := openAt(t, p.url, name)
	defer func() { noError(t, s.Close()) }()
	for n := range int64(3) {
		if s.Put(t.Context(), []mailbox.Row{row(n)}) == nil {
			t.Error("Put reports success without a server")
		}
		p.start()
		within(t, func() error { return s.Put(t.Context(), []mailbox.Row{row(n)}) })
		within(t, func() error { return s.SaveLane(t.Context(), 7, change(n)) })
		p.stop()
	}
	p.start()
	within(t, func() error { return s.Ping(t.Context()) })
	wantCount(t, s, 3)
	wantLane(t, s, 7, 2)
}

func TestAnAnswerThatIsLostMakesNoDifference(t *testing.T) {
	t.Parallel()
	name := database(t)
	p := newProxy(t)
	p.start()
	s := openAt(t, p.url, name)
	defer func() { noError(t, s.Close()) }()
	noError(t, s.SaveLane(t.Context(), 7, change(1)))

	lost := change(2)
	lost.Windows[mailbox.WindowKey{User: "A-2"}] = mailbox.Window{High: 2}
	p.lost.Store(true)
	if s.SaveLane(t.Context(), 7, lost) == nil || s.Put(t.Context(), []mailbox.Row{row(1)}) == nil {
		t.Error("success without an answer")
	}
	p.stop()
	p.lost.Store(false)
	p.start()
	next := change(3)
	within(t, func() error { return s.SaveLane(t.Context(), 7, next) })
	within(t, func() error { return s.Put(t.Context(), []mailbox.Row{row(1), row(2)}) })
	wantCount(t, s, 2)
	next.Windows[mailbox.WindowKey{User: "A-2"}] = mailbox.Window{High: 2}
	wantState(t, s, 7, next)
	wantTaken(t, func() error { // what the owner before saves is refused as ever
		wantState(t, open(t, name), 7, next)
		return s.SaveLane(t.Context(), 7, change(4))
	}())
}

// within repeats a call until it succeeds.
func within(t *testing.T, call func() error) {
	t.Helper()
	began := time.Now()
	for err := call(); err != nil; err = call() {
		if time.Since(began) > 3*patience {
			t.Fatal(err)
		}
	}
}

// proxy is a way to the server that can be closed and opened again.
type proxy struct {
	t       *testing.T
	url     string      // static
	address string      // static
	server  string      // static
	lost    atomic.Bool // whether answers are thrown away

	listener net.Listener // owned by the test's goroutine
	wg       sync.WaitGroup
	mu       sync.Mutex
	open     bool       // guarded by mu
	conns    []net.Conn // guarded by mu
}

// newProxy returns a proxy that is closed.
func newProxy(t *testing.T) *proxy {
	t.Helper()
	u, err := url.Parse(serverURL(t))
	if err != nil || u.Scheme != "mongodb" || strings.Contains(u.Host, ",") {
		t.Skip("this test wants the URL of one server")
	}
	p := &proxy{t: t, server: u.Host}
	if u.Port() == "" {
		p.server = net.JoinHostPort(u.Hostname(), "27017")
	}
	p.address = net.JoinHostPort("127.0.0.1", strconv.Itoa(porttest.Lasting(t)))
	u.Host = p.address
	q := u.Query()
	q.Set("directConnection", "true")
	q.Del("replicaSet")
	u.RawQuery = q.Encode()
	p.url = u.String()
	t.Cleanup(p.stop)
	return p
}

func (p *proxy) start() {
	p.t.Helper()
	var err error
	p.listener, err = new(net.ListenConfig).Listen(p.t.Context(), "tcp", p.address)
	noError(p.t, err)
	p.mu.Lock()
	p.open = true
	p.mu.Unlock()
	listener := p.listener
	p.wg.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", p.server)
			if err != nil || !p.keep(client, server) {
				_ = client.Close()
				continue
			}
			p.wg.Go(func() { p.carry(server, client, nil) })
			p.wg.Go(func() { p.carry(client, server, &p.lost) })
		}
	})
}

func (p *proxy) keep(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open {
		p.conns = append(p.conns, conns...)
	}
	return p.open
}

func (p *proxy) carry(to, from net.Conn, lost *atomic.Bool) {
	defer func() { _, _ = to.Close(), from.Close() }()
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if lost == nil || !lost.Load() {
			_, werr := to.Write(b[:n])
			err = errors.Join(err, werr)
		}
		if err != nil {
			return
		}
	}
}

// stop closes the way and all that is on it.
func (p *proxy) stop() {
	if p.listener == nil {
		return
	}
	_ = p.listener.Close()
	p.mu.Lock()
	p.open = false
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
	p.mu.Unlock()
	p.wg.Wait()
}
