package system_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/linkerhq/linker/pkg/embedded"
	"github.com/linkerhq/linker/pkg/polltest"
	"github.com/linkerhq/linker/pkg/run"
	"github.com/linkerhq/linker/standalone/internal/torture/system"
)

// readyTime is generous: with the race detector, on a machine with much to do.
const readyTime = 90 * time.Second

// binaries is where the programs are built, once.
var binaries = struct {
	dir   string
	build func() error
}{}

// TestMain is the embedded servers if it is called so, as linker-torture is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == system.ServersCommand {
		process := run.Process{Args: os.Args[2:], Stderr: os.Stderr}
		os.Exit(run.Main("servers", process, func(ctx context.Context, p run.Process) error {
			return system.RunServers(ctx, p.Args, p.Stderr)
		}))
	}
	dir, err := os.MkdirTemp("", "linker-torture-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binaries.dir = dir
	binaries.build = sync.OnceValue(func() error {
		root, err := system.Root(".")
		if err != nil {
			return err
		}
		return system.Build{Root: root}.Into(context.Background(), dir)
	})
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// trouble collects what a system reports.
type trouble struct {
	mu    sync.Mutex
	texts []string // guarded by mu
}

func (r *trouble) add(process, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.texts = append(r.texts, process+": "+text)
}

func (r *trouble) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.texts
}

// start runs a system until the test, or the function that it returns, ends it.
func start(t *testing.T, cfg system.Config) (*system.System, func()) {
	t.Helper()
	if testing.Short() {
		t.Skip("builds and starts all programs")
	}
	if err := binaries.build(); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	reported := &trouble{}
	cfg.Dir, cfg.Bin, cfg.Self, cfg.Report = t.TempDir(), binaries.dir, []string{self, system.ServersCommand}, reported.add
	s, err := system.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	end := sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if texts := reported.all(); len(texts) > 0 {
			t.Errorf("it reported %q", texts)
		}
	})
	t.Cleanup(end)
	ready(t, s)
	return s, end
}

func ready(t *testing.T, s *system.System) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), readyTime)
	defer cancel()
	if err := s.Ready(ctx); err != nil {
		t.Fatal(err)
	}
}

func process(t *testing.T, s *system.System, name string) *system.Process {
	t.Helper()
	p, err := s.Process(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestASystemOfProcessesIsHurtAndHeals(t *testing.T) {
	t.Parallel()
	s, end := start(t, system.Config{Domains: 2})
	ctx := t.Context()
	for role, want := range map[system.Role]int{system.Metaserver: 1, system.Brokers: 2, system.Connector: 4, system.Processor: 4, system.Standalone: 0, "": 11} {
		if got := len(s.Processes(role, "")); got != want {
			t.Errorf("%d processes of the role %q, want %d", got, role, want)
		}
	}
	serves := func(p *system.Process) bool { return p.Serves(ctx) == nil }

	connector := process(t, s, "domain-01/connector-1")
	must(t, connector.Kill())
	if connector.Running() || serves(connector) {
		t.Error("a killed connector serves")
	}
	processor := process(t, s, "domain-02/processor-1")
	must(t, processor.Stop())
	if !processor.Running() {
		t.Error("a frozen processor does not run")
	}
	// Its threads stop one after another, in a moment.
	polltest.Within(t, readyTime, "a frozen processor serves nobody", func() bool { return !serves(processor) })
	servers := process(t, s, "domain-01/servers")
	must(t, servers.Kill())
	l, err := s.Link("domain-02", "domain-01")
	must(t, err)
	l.Cut()
	must(t, s.Heal())
	ready(t, s)

	for what, hurt := range map[string]func(){"cut": l.Cut, "swallowing": l.Swallow, "deaf": l.SwallowForth} {
		hurt()
		one, two := process(t, s, "domain-01/processor-1"), process(t, s, "domain-02/processor-1")
		polltest.Within(t, readyTime, "a link is seen to be "+what, func() bool { return !serves(one) || !serves(two) })
		l.Heal()
		ready(t, s)
	}

	must(t, connector.Terminate())
	must(t, connector.Start(""))
	must(t, s.Flush(ctx, "domain-02"))
	must(t, s.Move("domain-01", "domain-02"))
	must(t, s.Move("domain-01", "domain-01"))
	ready(t, s)

	samples, err := processor.Metrics(ctx)
	if err != nil || system.Sum(samples, "go_goroutines") == 0 || system.Most(samples, "process_resident_memory_bytes") == 0 {
		t.Errorf("got %d figures, %v", len(samples), err)
	}
	if users, err := s.Whereabouts(ctx); err != nil || len(users) > 0 {
		t.Errorf("got %v, %v", users, err)
	}
	if letters, err := s.DeadLetters(ctx); err != nil && !system.NotServed(err) || len(letters) > 0 {
		t.Errorf("got %v, %v", letters, err)
	}
	if waiting, err := s.RoadWaiting(ctx, "domain-01"); err != nil || waiting != 0 {
		t.Errorf("got %d, %v", waiting, err)
	}
	for _, r := range s.Offsets() {
		offsets, err := r.Read(ctx)
		r.Close()
		if err != nil || len(offsets) != 4 {
			t.Errorf("got %v, %v", offsets, err)
		}
	}
	end()
	if findings, err := s.ScanLogs(); err != nil || len(findings) > 0 {
		t.Errorf("got %v, %v", findings, err)
	}
	if waiting, err := s.Waiting(ctx); err != nil || len(waiting) != 2 || waiting["domain-01"] != 0 {
		t.Errorf("got %v, %v", waiting, err)
	}
}

func TestAStandaloneIsKilledAndComesBackAtTheSamePlace(t *testing.T) {
	t.Parallel()
	s, end := start(t, system.Config{Domains: 2, Standalone: true})
	all := process(t, s, "standalone")
	must(t, all.Kill())
	must(t, all.Start(""))
	ready(t, s)
	if users, err := s.Whereabouts(t.Context()); err != nil || len(users) > 0 {
		t.Errorf("got %v, %v", users, err)
	}
	if len(s.Offsets()) != 0 {
		t.Error("its Kafka can be reached")
	}
	if _, err := s.Link("domain-01", "domain-02"); err == nil {
		t.Error("its links can be cut")
	}
	if err := s.Flush(t.Context(), "domain-01"); err == nil {
		t.Error("its Redis can be emptied")
	}
	end()
	if waiting, err := s.Waiting(t.Context()); err != nil || len(waiting) != 2 {
		t.Errorf("got %v, %v", waiting, err)
	}
}

func TestSecretsRacesAndPanicsAreFoundInLogs(t *testing.T) {
	t.Parallel()
	s, err := system.New(system.Config{Dir: t.TempDir(), Domains: 1, Self: []string{"x"}})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	secret, err := s.Secret()
	must(t, err)
	s.AddSecret("the content")
	lines := map[string]system.FindingCode{
		`msg="begins" token=` + secret:     system.FoundSecret,
		`level=WARN got="the content"`:     system.FoundSecret,
		"WARNING: DATA RACE":               system.FoundRace,
		"panic: runtime error":             system.FoundPanic,
		"fatal error: concurrent map read": system.FoundPanic,
		`level=INFO msg="all is well"`:     "",
		"failpoint lane-before-commit":     "",
	}
	var text strings.Builder
	want := 0
	for line, code := range lines {
		if got, bad := s.FindIn(line); got != code || bad != (code != "") {
			t.Errorf("%s: got %q", line, got)
		}
		if code != "" {
			want++
		}
		text.WriteString(line + "\n")
	}
	p := s.Processes("", "")[0]
	must(t, os.WriteFile(p.Log(), []byte(text.String()), 0o600))
	findings, err := s.ScanLogs()
	if err != nil || len(findings) != want {
		t.Errorf("got %v, %v, want %d", findings, err, want)
	}
	for _, f := range findings {
		if strings.Contains(f.Line, secret) || f.Process != p.Name() {
			t.Errorf("got %+v", f)
		}
	}
}

func TestWhatCannotBeRunIsNamed(t *testing.T) {
	t.Parallel()
	for want, cfg := range map[string]system.Config{
		"0 domains":       {},
		"9 domains":       {Domains: 9},
		"17 domains":      {Domains: 17, Standalone: true},
		"11 connectors":   {Domains: 1, Connectors: 11},
		"-1 processors":   {Domains: 1, Processors: -1},
		"belong together": {Domains: 1, Servers: system.Servers{Kafka: "k:1"}},
		"in itself":       {Domains: 1, Standalone: true, Servers: system.Servers{Kafka: "k:1", NATS: "n", Redis: "r", MongoDB: "m"}},
		"script":          {Domains: 1, Control: "/bin/true"},
	} {
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to say %q", err, want)
		}
	}
	for _, args := range [][]string{{}, {"--data"}, {"--data", "x", "more"}, {"--colour"}} {
		if err := system.RunServers(t.Context(), args, nil); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}

func TestPortsBelongToOneRun(t *testing.T) {
	t.Parallel()
	taken := map[int]bool{}
	for range 5 {
		first, free, err := system.Reserve(3)
		must(t, err)
		t.Cleanup(func() { must(t, free()) })
		for i, port := range first {
			if taken[port] || i > 0 && port != first[i-1]+100 {
				t.Errorf("got %v, and %v were taken", first, taken)
			}
			taken[port] = true
		}
	}
}

func TestAProcessThatEndsByItselfIsReportedAndComesBack(t *testing.T) {
	t.Parallel()
	reported := make(chan string, 100)
	p := system.NewProcess("short", filepath.Join(t.TempDir(), "log"), "/bin/sh", []string{"-c", "echo its last words; exit 3"}, func(text string) { reported <- text })
	must(t, p.Start(""))
	for range 2 {
		if text := <-reported; !strings.Contains(text, "exit status 3") || !strings.Contains(text, "its last words") {
			t.Errorf("got %q", text)
		}
	}
	must(t, p.Close())
	<-p.Ended()
	must(t, p.Start("")) // which does nothing any more
	if p.Running() {
		t.Error("it runs")
	}
}

func TestAProcessEndsAsItIsTold(t *testing.T) {
	t.Parallel()
	reported := make(chan string, 100)
	p := system.NewProcess("patient", filepath.Join(t.TempDir(), "log"), "/bin/sh", []string{"-c", "trap 'exit 4' TERM; while :; do sleep 0.01; done"}, func(text string) { reported <- text })
	t.Cleanup(func() { must(t, p.Close()) })
	must(t, errors.Join(p.Start(""), p.Kill(), p.Kill(), p.Start("")))
	if len(reported) > 0 {
		t.Errorf("a kill is reported: %q", <-reported)
	}
	must(t, errors.Join(p.Stop(), p.Continue(), p.Kill()))
	must(t, p.Start("lane-before-commit:exit")) // so it may end by itself
	must(t, p.Kill())
	if len(reported) > 0 {
		t.Errorf("it is reported: %q", <-reported)
	}
}

func TestOnlyTheKeysOfADomainAreRemovedFromARealRedis(t *testing.T) {
	t.Parallel()
	server, err := embedded.Redis(0)
	must(t, err)
	t.Cleanup(server.Close)
	for n := range 25 {
		_, err = system.AskRedis(t.Context(), server.URL(), "SET", fmt.Sprintf("linker:{d}:%d", n), "x")
		must(t, err)
	}
	_, err = system.AskRedis(t.Context(), server.URL(), "SET", "linker:{e}:1", "x")
	must(t, err)
	must(t, system.RemoveKeys(t.Context(), server.URL(), "linker:{d}:*"))
	left, err := system.AskRedis(t.Context(), server.URL(), "KEYS", "*")
	if err != nil || len(left) != 1 || left[0] != "linker:{e}:1" {
		t.Errorf("got %v, %v", left, err)
	}
	if _, err := system.AskRedis(t.Context(), server.URL(), "NONSENSE"); err == nil {
		t.Error("no error")
	}
	if _, err := system.AskRedis(t.Context(), "http://127.0.0.1", "PING"); err == nil {
		t.Error("no error")
	}
}

func TestAnAnswerOfRedisThatIsNoneIsAnError(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{"", "\r\n", "$x\r\n", "$99999999999\r\n", "*2\r\n+a\r\n", "*1\r\n*1\r\n*1\r\n*1\r\n+a\r\n", "!\r\n"} {
		listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		must(t, err)
		var serving sync.WaitGroup
		serving.Go(func() {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte(answer))
			_ = conn.(*net.TCPConn).CloseWrite()
			_, _ = conn.Read(make([]byte, 100))
			_ = conn.Close()
		})
		if got, err := system.AskRedis(t.Context(), "redis://"+listener.Addr().String(), "PING"); err == nil {
			t.Errorf("%q is read as %q", answer, got)
		}
		serving.Wait()
		_ = listener.Close()
	}
}

func TestFiguresAreReadAsServicesTellThem(t *testing.T) {
	t.Parallel()
	got := system.ParseMetrics("# HELP a b\n# TYPE a counter\na 1\nb{lane=\"1\"} 2.5\nb{lane=\"2\"} 4\nc 1e3\n\nnonsense\nd x\n")
	if len(got) != 4 || system.Sum(got, "b") != 6.5 || system.Most(got, "b") != 4 || system.Sum(got, "c") != 1000 || got[1].Labels != `lane="1"` {
		t.Errorf("got %+v", got)
	}
}

func TestACheckoutIsFoundFromInside(t *testing.T) {
	t.Parallel()
	root, err := system.Root(".")
	must(t, err)
	if _, err := os.Stat(filepath.Join(root, "go.work")); err != nil {
		t.Error(err)
	}
	if _, err := system.Root(t.TempDir()); !errors.Is(err, system.ErrNoCheckout) {
		t.Errorf("got %v", err)
	}
}
