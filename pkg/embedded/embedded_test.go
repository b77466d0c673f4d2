package embedded_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/embedded"
	"github.com/linkerhq/linker/pkg/internal/porttest"
)

type server interface {
	Addr() string
	Run(ctx context.Context) error
	Close()
}

type starter struct {
	name  string
	start func(t *testing.T, port int) (server, error)
}

func starters() []starter {
	log := slog.New(slog.DiscardHandler)
	return []starter{
		{"kafka in memory", func(_ *testing.T, port int) (server, error) { return embedded.Kafka("", port, log) }},
		{"kafka on disk", func(t *testing.T, port int) (server, error) { return embedded.Kafka(t.TempDir(), port, log) }},
		{"nats", func(_ *testing.T, port int) (server, error) { return embedded.NATS(port, log) }},
		{"redis", func(_ *testing.T, port int) (server, error) { return embedded.Redis(port) }},
	}
}

func portOf(t *testing.T, s server) int {
	t.Helper()
	host, text, err := net.SplitHostPort(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	if host != "127.0.0.1" {
		t.Errorf("listens on %s, want loopback", host)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func TestAServerRunsUntilItsContextEndsAndItsPortIsFreeAfterClose(t *testing.T) {
	t.Parallel()
	for _, s := range starters() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			port := porttest.Lasting(t)
			first, err := s.start(t, port)
			if err != nil {
				t.Fatal(err)
			}
			if got := portOf(t, first); got != port {
				t.Errorf("listens on port %d, want %d", got, port)
			}
			ctx, cancel := context.WithCancel(t.Context())
			ran := make(chan error, 1)
			go func() { ran <- first.Run(ctx) }()
			cancel()
			if err := <-ran; err != nil {
				t.Errorf("run: %v", err)
			}
			first.Close()
			second, err := s.start(t, port)
			if err != nil {
				t.Fatalf("start on the same port: %v", err)
			}
			second.Close()
		})
	}
}

func TestAPortThatIsTakenIsAnError(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	for _, s := range starters() {
		t.Run(s.name, func(t *testing.T) {
			if got, err := s.start(t, port); err == nil {
				got.Close()
				t.Error("it started")
			}
		})
	}
}

func TestKafkaForgetsTheMembersOfTheLastRun(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "session_state.json")
	if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	broker, err := embedded.Kafka(dir, 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the file is still there: %v", err)
	}
}

func TestLifetimesPassInRedisWhileItRuns(t *testing.T) {
	t.Parallel()
	redis, err := embedded.Redis(0)
	if err != nil {
		t.Fatal(err)
	}
	defer redis.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- redis.Run(ctx) }()
	defer func() {
		cancel()
		<-ran
	}()
	conn, err := net.Dial("tcp", redis.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	ask := func(answer string, command ...string) bool {
		t.Helper()
		var request strings.Builder
		fmt.Fprintf(&request, "*%d\r\n", len(command))
		for _, word := range command {
			fmt.Fprintf(&request, "$%d\r\n%s\r\n", len(word), word)
		}
		if _, err := io.WriteString(conn, request.String()); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(answer))
		if _, err := io.ReadFull(conn, got); err != nil {
			t.Fatal(err)
		}
		return string(got) == answer
	}
	if !ask("+OK\r\n", "SET", "k", "v", "PX", "100") {
		t.Fatal("the key was not set")
	}
	for !ask(":0\r\n", "EXISTS", "k") { // until the deadline of the connection
	}
}

// What a client asks while the server goes is answered or not; it harms nobody.
func TestRedisIsAskedWhileItIsClosed(t *testing.T) {
	t.Parallel()
	for range 5 {
		redis, err := embedded.Redis(0)
		if err != nil {
			t.Fatal(err)
		}
		var asking sync.WaitGroup
		for range 4 {
			conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", redis.Addr())
			if err != nil {
				t.Fatal(err)
			}
			asking.Go(func() {
				_, _ = io.Copy(io.Discard, conn) // until the server goes
			})
			asking.Go(func() {
				defer conn.Close()
				for err := error(nil); err == nil; {
					_, err = conn.Write([]byte("*1\r\n$4\r\nINFO\r\n"))
				}
			})
		}
		redis.Close()
		asking.Wait()
	}
}
