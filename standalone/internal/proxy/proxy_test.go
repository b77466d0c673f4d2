package proxy_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/polltest"
	"github.com/linkerhq/linker/standalone/internal/proxy"
)

// patience is how long anything may take on a machine with much to do.
const patience = 20 * time.Second

// start runs a proxy until the test ends.
func start(t *testing.T) *proxy.Proxy {
	t.Helper()
	p, err := proxy.New("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return p
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
	p := start(t)
	dial := func() net.Conn {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", p.Addr())
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
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", p.Addr())
		if err != nil {
			return // so soon
		}
		defer conn.Close()
		ends(conn)
	}
	refused() // nobody is there yet
	p.Forward(echo.Addr().String())
	first := dial()
	works(first)
	p.Cut()
	ends(first)
	refused()
	p.Heal()
	second := dial()
	works(second)
	for _, w := range []proxy.Way{proxy.Forth, proxy.Back, proxy.Both} {
		p.Swallow(w)
		silent(second)
		silent(dial())
		p.Heal()
		ends(second)
		second = dial()
		works(second)
	}
	p.Delay(300 * time.Millisecond)
	began := time.Now()
	works(second)
	if took := time.Since(began); took < 600*time.Millisecond {
		t.Errorf("there and back took %v", took)
	}
	p.Heal()
	works(second)
	p.Throttle(20)
	began = time.Now()
	works(second)
	if took := time.Since(began); took < 250*time.Millisecond {
		t.Errorf("5 bytes took %v at 20 in a second", took)
	}
	p.Freeze()
	silent(second)
	third := dial()
	silent(third)
	p.Heal()
	for _, conn := range []net.Conn{second, third} { // what was held up comes
		var got [5]byte
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.ReadFull(conn, got[:]); err != nil || string(got[:]) != "hello" {
			t.Errorf("got %q, %v", got, err)
		}
		works(conn)
	}
	_ = third.Close()
	polltest.Eventually(t, "only one connection left", func() bool { return p.Open() <= 1 })
}
