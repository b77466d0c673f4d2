package stack_test

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/linkerhq/linker/standalone/internal/stack"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAStackServesAndStopsAndServesAgainOnItsData(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for range 2 {
		s, err := stack.New(stack.Config{Data: dir, Host: "127.0.0.1", Log: logTo(t)})
		if err != nil {
			t.Fatal(err)
		}
		stop := background(t, s.Run)
		ready(t, s)
		for _, e := range s.Endpoints() {
			if strings.HasSuffix(e.URL, ":0") {
				t.Errorf("%s listens on %s", e.Name, e.URL)
			}
		}
		stop()
	}
}

func TestTheNetworkFileIsWrittenOnceAndThenTheOperators(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := stack.New(stack.Config{Data: dir, Host: "127.0.0.1", Ports: stack.Ports{}, Log: logTo(t)})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	file := filepath.Join(dir, "network.yaml")
	written, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	edited := strings.Replace(string(written), "appName: CNZ", "appName: DNZ", 1)
	edited = strings.Replace(edited, "CNZ-213424", "DNZ-213424", 1)
	write(t, file, []byte(edited))
	s, err = stack.New(stack.Config{Data: dir, Host: "127.0.0.1", Log: logTo(t)})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if kept, err := os.ReadFile(file); err != nil || string(kept) != edited {
		t.Errorf("the operator's file was changed: %v", err)
	}
}

func TestADataDirectoryBelongsToOneProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := stack.New(stack.Config{Data: dir, Host: "127.0.0.1", Log: logTo(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, err = stack.New(stack.Config{Data: dir, Host: "127.0.0.1", Log: logTo(t)})
	if err == nil || !strings.Contains(err.Error(), "in use by another process") || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v", err)
	}
}

func TestAPortThatIsTakenIsNamed(t *testing.T) {
	t.Parallel()
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	port := taken.Addr().(*net.TCPAddr).Port
	for name, ports := range map[string]stack.Ports{
		"websocket": {Websocket: port}, "link": {Link: port}, "connector": {ConnectorHTTP: port},
		"processor": {ProcessorHTTP: port}, "meta server": {Meta: port}, "console": {Console: port},
	} {
		_, err := stack.New(stack.Config{Data: t.TempDir(), Host: "127.0.0.1", Ports: ports, Log: logTo(t)})
		if err == nil || !strings.Contains(err.Error(), strconv.Itoa(port)) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s port taken: got %v", name, err)
		}
	}
}

func logTo(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// testLog writes to a test's log as long as the test runs.
type testLog struct{ t *testing.T }

func (l testLog) Write(b []byte) (int, error) {
	if l.t.Context().Err() == nil {
		l.t.Log(strings.TrimSpace(string(b)))
	}
	return len(b), nil
}

// background runs something until stop is called or the test ends; it must end
// without an error.
func background(t *testing.T, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func ready(t *testing.T, s *stack.Stack) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := s.Ready(ctx); err != nil {
		t.Fatal(err)
	}
}

func waitReady(t *testing.T, url string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/readyz", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("not ready in time")
		}
	}
}

func write(t *testing.T, file string, content []byte) {
	t.Helper()
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
}
