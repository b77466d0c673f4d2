package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/linkerhq/linker/pkg/embedded"
)

// apart starts a domain of processes of its own, so that each can be looked at and
// ended alone: on the servers that the environment names, or else on embedded ones in
// this process. It is ready when it is returned.
func apart(t *testing.T, s setup, connectors, processors int) *cluster {
	t.Helper()
	on, given := givenServers()
	if !given {
		on = embeddedServers(t)
	}
	c, err := newCluster(t.TempDir(), on, s)
	if err != nil {
		t.Fatal(err)
	}
	for program, most := range map[string]int{"connector": connectors, "processor": processors, "console": 0} {
		for _, m := range c.all(program)[most:] {
			c.remove(m)
		}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the domain ended with %v", err)
		}
	})
	awaitCluster(t, c)
	return c
}

func awaitCluster(t *testing.T, c *cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), readyPatience)
	defer cancel()
	if err := c.Ready(ctx); err != nil {
		t.Fatal(err)
	}
}

// embeddedServers runs the brokers and stores of a domain in this process.
func embeddedServers(t *testing.T) servers {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	kafka, err := embedded.Kafka("", 0, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(kafka.Close)
	nats, err := embedded.NATS(0, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nats.Close)
	redis, err := embedded.Redis(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(redis.Close)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- redis.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	mailbox := url.URL{Scheme: "file", Opaque: filepath.Join(t.TempDir(), "mailbox"), RawQuery: "shared=true"}
	return servers{kafka: kafka.Addr(), nats: nats.URL(), redis: redis.URL(), mongo: mailbox.String()}
}

// memory is what the process holds now, in bytes.
func (m *member) memory(t *testing.T) int {
	t.Helper()
	m.mu.Lock()
	pid := m.cmd.Process.Pid
	m.mu.Unlock()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Skipf("the memory of processes cannot be seen here: %v", err)
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	line, _, _ := strings.Cut(rest, "\n")
	kib, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(line), "kB")))
	if err != nil {
		t.Fatalf("memory of %q: %v", line, err)
	}
	return kib << 10
}

// metric sums up what a process counts under this name, with these labels if any.
func (m *member) metric(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	_, page := get(t, m.ops()+"/metrics")
	sum := 0.0
	for line := range strings.Lines(page) {
		rest, found := strings.CutPrefix(line, name)
		if !found || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		for _, label := range labels {
			found = found && strings.Contains(rest, label)
		}
		if !found {
			continue
		}
		fields := strings.Fields(rest)
		n, err := strconv.ParseFloat(fields[len(fields)-1], 64)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		sum += n
	}
	return sum
}

// slowly says how long the tests of overload take: with LINKER_OVERLOAD=long as long
// as the promises say, else some seconds.
func slowly() bool { return os.Getenv("LINKER_OVERLOAD") == "long" }

// alone keeps a test that overloads the machine from the others: it is not parallel to
// them. What it measures is the edge, which is the same on any servers, and figures mean
// nothing in programs that look for data races.
func alone(t *testing.T) {
	t.Helper()
	_, given := givenServers()
	if !slowly() && (given || !judged()) {
		t.Skip("judges figures: runs with the embedded servers and without the race detector, or with LINKER_OVERLOAD=long")
	}
}

// judged says whether figures of memory and time are judged: not in programs that
// look for data races.
func judged() bool { return len(buildFlags()) == 0 }
