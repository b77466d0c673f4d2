package embedded

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func pair(t *testing.T) (one, other net.Conn) {
	t.Helper()
	one, other = newPipe(&net.TCPAddr{})
	t.Cleanup(func() { _, _ = one.Close(), other.Close() })
	return one, other
}

func TestWhatIsWrittenIntoAPipeArrivesInOrderBothWays(t *testing.T) {
	t.Parallel()
	one, other := pair(t)
	var wg sync.WaitGroup
	transfer := func(from, to net.Conn, seed uint64) {
		sent := make([]byte, 5*pipeBytes+17)
		for i, random := 0, rand.New(rand.NewPCG(seed, 1)); i < len(sent); i++ {
			sent[i] = byte(random.Uint32())
		}
		wg.Go(func() {
			for rest, random := sent, rand.New(rand.NewPCG(seed, 2)); len(rest) > 0; {
				n, err := from.Write(rest[:min(len(rest), random.IntN(3*pipeBytes))])
				if err != nil {
					t.Error(err)
					return
				}
				rest = rest[n:]
			}
		})
		wg.Go(func() {
			var got []byte
			for random := rand.New(rand.NewPCG(seed, 3)); len(got) < len(sent); {
				part := make([]byte, 1+random.IntN(2*pipeBytes))
				n, err := to.Read(part)
				if err != nil {
					t.Error(err)
					return
				}
				got = append(got, part[:n]...)
			}
			if !bytes.Equal(got, sent) {
				t.Error("something else arrived")
			}
		})
	}
	transfer(one, other, 1)
	transfer(other, one, 2)
	wg.Wait()
}

func TestWritersAndReadersAtTheSameTimeLoseNothing(t *testing.T) {
	t.Parallel()
	one, other := pair(t)
	const writers, each, length = 4, 500, 300
	var writing, reading sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			for range each {
				if _, err := one.Write(bytes.Repeat([]byte{byte(w)}, length)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	var mu sync.Mutex
	counts := make([]int, writers)
	for range 3 {
		reading.Go(func() {
			part := make([]byte, 1000)
			for {
				n, err := other.Read(part)
				mu.Lock()
				for _, b := range part[:n] {
					counts[b]++
				}
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	writing.Wait()
	_ = one.Close()
	reading.Wait()
	for w, n := range counts {
		if n != each*length {
			t.Errorf("%d bytes of writer %d arrived, want %d", n, w, each*length)
		}
	}
}

func TestWhatOneWriteSaysStaysTogether(t *testing.T) {
	t.Parallel()
	one, other := pair(t)
	const length = 2 * pipeBytes // more than the buffer takes
	var wg sync.WaitGroup
	for w := range byte(2) {
		wg.Go(func() {
			if _, err := one.Write(bytes.Repeat([]byte{w}, length)); err != nil {
				t.Error(err)
			}
		})
	}
	got := make([]byte, 2*length)
	if _, err := io.ReadFull(other, got); err != nil {
		t.Fatal(err)
	}
	for i := range 2 * length {
		if got[i] != got[i/length*length] {
			t.Fatalf("byte %d is of the other write", i)
		}
	}
	wg.Wait()
}

func TestWhatWasWrittenBeforeTheEndCanBeReadAfterIt(t *testing.T) {
	t.Parallel()
	one, other := pair(t)
	if _, err := one.Write([]byte("last words")); err != nil {
		t.Fatal(err)
	}
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(other); err != nil || string(got) != "last words" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := other.Write([]byte("anybody?")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("write to an end that was closed: %v", err)
	}
	for name, call := range map[string]func() error{
		"read":         func() error { _, err := one.Read(make([]byte, 1)); return err },
		"write":        func() error { _, err := one.Write(make([]byte, 1)); return err },
		"set deadline": func() error { return one.SetDeadline(time.Now()) },
	} {
		if err := call(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s at an end that was closed here: %v", name, err)
		}
	}
}

func TestTheEndOfAPipeEndsCallsUnderWay(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		close func(one, other net.Conn) error
		read  error
		write error
	}{
		{"here", func(one, _ net.Conn) error { return one.Close() }, net.ErrClosed, net.ErrClosed},
		{"there", func(_, other net.Conn) error { return other.Close() }, io.EOF, syscall.EPIPE},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				one, other := pair(t)
				var read, write error
				go func() { _, read = one.Read(make([]byte, 1)) }()
				go func() { _, write = one.Write(make([]byte, 2*pipeBytes)) }()
				synctest.Wait()
				if read != nil || write != nil {
					t.Fatalf("they did not wait: %v, %v", read, write)
				}
				if err := c.close(one, other); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if !errors.Is(read, c.read) || !errors.Is(write, c.write) {
					t.Errorf("got %v and %v", read, write)
				}
			})
		})
	}
}

func TestDeadlinesHoldForCallsUnderWayAndCanBeMoved(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		call func(net.Conn) error
		set  func(net.Conn, time.Time) error
	}{
		"read":  {func(c net.Conn) error { _, err := c.Read(make([]byte, 1)); return err }, net.Conn.SetReadDeadline},
		"write": {func(c net.Conn) error { _, err := c.Write(make([]byte, 2*pipeBytes)); return err }, net.Conn.SetWriteDeadline},
		"both":  {func(c net.Conn) error { _, err := c.Read(make([]byte, 1)); return err }, net.Conn.SetDeadline},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				conn, _ := pair(t)
				set := func(in time.Duration) {
					t.Helper()
					if err := c.set(conn, time.Now().Add(in)); err != nil {
						t.Fatal(err)
					}
				}
				began := time.Now()
				set(10 * time.Second)
				ended := make(chan error, 1)
				go func() { ended <- c.call(conn) }()
				time.Sleep(5 * time.Second)
				set(10 * time.Second) // later than before
				time.Sleep(6 * time.Second)
				set(time.Second) // sooner
				if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("got %v", err)
				}
				if took := time.Since(began); took != 12*time.Second {
					t.Errorf("took %v", took)
				}
				if err := c.call(conn); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("after the deadline: %v", err)
				}
				if err := c.set(conn, time.Time{}); err != nil {
					t.Fatal(err)
				}
				go func() { ended <- c.call(conn) }()
				time.Sleep(time.Hour)
				set(0)
				if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("without a deadline first: %v", err)
				}
			})
		})
	}
}

func TestAConnectionComesInOverTheNetworkOrThroughMemory(t *testing.T) {
	t.Parallel()
	network, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := newDoor(network)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := d.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			})
		}
	})
	for name, dial := range map[string]func() (net.Conn, error){
		"memory": func() (net.Conn, error) { return d.dial(t.Context()) },
		"network": func() (net.Conn, error) {
			return new(net.Dialer).DialContext(t.Context(), "tcp", network.Addr().String())
		},
	} {
		conn, err := dial()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := conn.RemoteAddr().String(); got != network.Addr().String() {
			t.Errorf("%s: the other end is at %s", name, got)
		}
		got := make([]byte, 5)
		if _, err := io.WriteString(conn, "hello"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != "hello" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		_ = conn.Close()
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	serving.Wait()
	if _, err := d.dial(t.Context()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("after the end: %v", err)
	}
}

func TestWhoWaitsInVainToBeLetInGivesUp(t *testing.T) {
	t.Parallel()
	network, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := newDoor(network)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.dial(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	// One that came over the network and that nobody takes does not keep it open.
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", network.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("a connection that nobody has taken is still open")
	}
}
