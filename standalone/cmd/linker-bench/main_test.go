package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/polltest"
	"github.com/linkerhq/linker/pkg/run"
	"github.com/linkerhq/linker/standalone/internal/bench/relay"
	"github.com/linkerhq/linker/standalone/internal/bench/report"
	"github.com/linkerhq/linker/standalone/internal/bench/workload"
	"github.com/linkerhq/linker/standalone/internal/stack"
	"github.com/linkerhq/linker/standalone/internal/torture/system"
)

// TestMain is the program itself if it is called as the yardstick, or for the embedded
// brokers, which the program does.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == runRelay || os.Args[1] == system.ServersCommand) {
		main()
	}
	dir, err := os.MkdirTemp("", "linker-bench-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	built.dir, built.once = dir, sync.OnceValue(func() error {
		root, err := system.Root(".")
		if err != nil {
			return err
		}
		return system.Build{Root: root}.Into(context.Background(), dir)
	})
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// built is where the programs are built that are measured.
var built struct {
	dir  string
	once func() error
}

// call runs the program and returns what it says on its standard output.
func call(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	err := bench(t.Context(), run.Process{Args: args, Stdout: &stdout, Stderr: &stderr}, false)
	if t.Failed() || err != nil {
		t.Logf("%v said %s", args, stderr.String())
	}
	return stdout.String(), err
}

func TestMistakesInTheCommandLineAreNamed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args string
		want []string
	}{
		"nothing to do":               {"", []string{"expected the name of a workload"}},
		"an unknown workload":         {"fly", []string{`workload "fly": expected one that there is`}},
		"an unknown flag":             {"closed --fly", []string{"-fly", "--help lists the flags"}},
		"a flag of another workload":  {"closed --rate 5", []string{"-rate"}},
		"connections of a group":      {"group --connections 5", []string{"-connections"}},
		"an argument":                 {"closed now", []string{`unexpected argument "now"`}},
		"no number":                   {"closed --connections many", []string{`"many"`, "connections"}},
		"an odd pair":                 {"pairs --connections 3", []string{"--connections 3: expected an even number"}},
		"no rate":                     {"open --rate 0", []string{"--rate 0: expected more than 0"}},
		"several":                     {"closed --connections 0 --feature SLOW --runs 0", []string{"--connections 0", `--feature "SLOW": expected FAST or RELIABLE`, "--runs 0: expected 1 to 1000"}},
		"no process ids":              {"closed --url ws://h/ --pid 1,x", []string{`"1,x"`, "expected process ids"}},
		"processes of nobody":         {"closed --pid 1", []string{"--pid without --url"}},
		"a server and another one":    {"closed --url ws://h/ --server x", []string{"--url and --server"}},
		"no websocket":                {"closed --url http://h/", []string{`--url "http://h/": expected ws://HOST:PORT/PATH`}},
		"no such profile":             {"closed --profile flat", []string{`--profile "flat": expected one of cpu, heap`}},
		"a profile from nowhere":      {"closed --url ws://h/ --pprof x", []string{"expected --pprof-url as well"}},
		"no such server":              {"closed --server /nowhere/standalone", []string{"--server /nowhere/standalone: expected a program"}},
		"no such data":                {"closed --data /nowhere", []string{"--data"}},
		"a file that cannot be":       {"closed --json /nowhere/x", []string{"--json", "/nowhere/x"}},
		"an address that is none":     {"relay --listen nowhere:x", []string{"--listen nowhere:x"}},
		"an argument of the relay":    {"relay now", []string{`unexpected argument "now"`}},
		"a flag of one in a set":      {"set --size 5", []string{"-size"}},
		"features that there are not": {"closed --features accept,fly", []string{`--features "fly"`}},
		"nobody to fetch":             {"fetch --users 0 --stored 0 --others -1 --in-flight 65", []string{"--users 0: expected 1", "--stored 0: expected 1", "--others -1: expected 0", "--in-flight 65: expected 1 to 64"}},
		"fetching what is pushed":     {"fetch --features push", []string{`--features "push"`, "nothing would be left to fetch"}},
		"a relay that stores":         {"store --baseline", []string{"--baseline: expected a workload that a relay can do, and store is none"}},
		"too many domains":            {"hops --domains 17", []string{"--domains 17: expected 1 to 16"}},
		"hops without a rate":         {"hops --rate 0", []string{"--rate 0: expected more than 0"}},
		"hops between processes":      {"hops --apart", []string{"--apart with hops: expected one domain"}},
		"a victim that there is not":  {"recover --victim metaserver --crashes 0", []string{`--victim "metaserver": expected connector or processor`, "--crashes 0: expected 1"}},
		"recovery without a rate":     {"recover --rate 0", []string{"--rate 0: expected more than 0"}},
		"killing a stranger":          {"recover --url ws://127.0.0.1:1/ws", []string{"expected a server that can be killed"}},
		"processes of a server":       {"closed --url ws://h/ --apart", []string{"--url and --apart"}},
		"too many processes":          {"closed --apart --connectors 11 --processors 0", []string{"--connectors 11: expected 1 to 10", "--processors 0: expected 1 to 10"}},
		"further flags of processes":  {"fetch --server-args --x", []string{"--server-args: expected none with --apart, nor with fetch"}},
		"programs that are not built": {"closed --apart --server /nowhere/standalone", []string{"expected connector in /nowhere"}},
		"rates that fall":             {"rates --rates 1000,500 --duration 0s", []string{"--rates 500: expected more than 0, and more than the one before", "--duration 0s"}},
		"rates that are none":         {"rates --rates many", []string{"expected numbers"}},
		"an axis that there is not":   {"grow --axes height --most-stored 0", []string{`--axes "height": expected some of connections,stored`, "expected at least 1"}},
		"growth elsewhere":            {"grow --url ws://h/", []string{"--url, --baseline and --apart: expected none of them with grow"}},
		"nothing to draw":             {"plot --out /nowhere", []string{"expected a file of --json"}},
		"no such results":             {"plot /nowhere.jsonl", []string{"/nowhere.jsonl"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := call(t, strings.Fields(c.args)...)
			for _, want := range c.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("nothing says %s in: %v", want, err)
				}
			}
		})
	}
}

func TestHelpAndVersion(t *testing.T) {
	t.Parallel()
	help, err := call(t, "--help")
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range workload.All() {
		if !strings.Contains(help, "  "+w.Name+" ") {
			t.Errorf("the help does not name %s", w.Name)
		}
		flags, err := call(t, w.Name, "--help")
		if err != nil || !strings.Contains(flags, w.Summary) || !strings.Contains(flags, "  -runs ") {
			t.Errorf("%s: got %s, %v", w.Name, flags, err)
		}
		own, o := discarded(), workload.Defaults()
		if w.Flags != nil {
			w.Flags(own, &o)
		}
		for _, without := range w.Without {
			if own.Lookup(without) != nil {
				continue // it has one of its own, in place of that of all others
			}
			if strings.Contains(flags, "  -"+without+" ") {
				t.Errorf("%s has the flag --%s, which means nothing to it", w.Name, without)
			}
		}
	}
	if text, err := call(t, "--version"); err != nil || !strings.HasPrefix(text, "linker-bench ") {
		t.Errorf("got %s, %v", text, err)
	}
}

func TestFeaturesMayBeAnEmptyListOrAbsent(t *testing.T) {
	t.Parallel()
	for args, want := range map[string][]string{"": nil, "--features=": {}, "--features=ack,push": {"ack", "push"}} {
		o, err := parse("closed", strings.Fields(args), io.Discard)
		if err != nil || !slices.Equal(o.params.Features, want) || (o.params.Features == nil) != (want == nil) {
			t.Errorf("%q: got %#v, %v", args, o.params.Features, err)
		}
	}
}

func TestATokenIsNotShown(t *testing.T) {
	t.Parallel()
	for _, args := range []string{"--token secret --size 50", "-token secret", "--token=secret", "--size 50 --token"} {
		if shown := strings.Join(withoutToken(strings.Fields(args)), " "); strings.Contains(shown, "secret") || strings.Contains(args, "50") != strings.Contains(shown, "50") {
			t.Errorf("%s is shown as %s", args, shown)
		}
	}
}

func TestTheStandardSetCanBeRun(t *testing.T) {
	t.Parallel()
	o, err := parse(runSet, []string{"--baseline"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	list, err := o.runsOf()
	if err != nil || len(list) < 8 {
		t.Fatalf("got %d, %v", len(list), err)
	}
	seen := map[string]bool{}
	var took time.Duration
	for _, one := range list {
		one.set = false
		if err := one.validate(); err != nil {
			t.Errorf("%s: %v", one.workload.Name, err)
		}
		b, err := json.Marshal(one.params)
		if err != nil || seen[one.workload.Name+string(b)] {
			t.Errorf("%s %s is there twice, %v", one.workload.Name, b, err)
		}
		seen[one.workload.Name+string(b)] = true
		took += 2 * time.Duration(one.params.Warmup+one.params.Duration)
	}
	if took > 5*time.Minute {
		t.Errorf("it takes %s at least", took)
	}
}

// startRelay runs a relay in this process.
func startRelay(t *testing.T) string {
	t.Helper()
	r, err := relay.New("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	running(t, r.Run)
	return r.URL()
}

// running runs something up to the end of the test.
func running(t *testing.T, do func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- do(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// measure runs a short run, and returns its results and the text for people.
func measure(t *testing.T, args ...string) ([]report.Result, string) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("the load generator needs Linux")
	}
	text, err := call(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	var results []report.Result
	for line := range strings.Lines(text) {
		var r report.Result
		if strings.HasPrefix(line, "{") {
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatal(err)
			}
			results = append(results, r)
		}
	}
	return results, text
}

// plausible looks at figures that a server without faults has.
func plausible(t *testing.T, r report.Result) {
	t.Helper()
	f := r.Figures
	if f.Sent == 0 || f.DeliveryRate == nil || *f.DeliveryRate <= 0 || f.Latency == nil || f.Latency.Count == 0 || f.Latency.P50 <= 0 || f.Latency.P50 > f.Latency.Max {
		t.Errorf("%s on %s: got %+v", r.Workload, r.Server, f)
	}
	if f.Lost+f.Duplicates+f.Disordered+f.Damaged+f.Refused+f.Unsent+f.ConnectionsClosed > 0 || len(f.Errors) > 0 {
		t.Errorf("%s on %s: there are faults: %+v", r.Workload, r.Server, f)
	}
	if f.GeneratorMicros == nil || *f.GeneratorMicros <= 0 || r.Machine.CPUs < 1 || r.Version == "" {
		t.Errorf("%s on %s: got %+v", r.Workload, r.Server, r)
	}
}

func TestWorkloadsRunOnARelay(t *testing.T) {
	t.Parallel()
	url := startRelay(t)
	for name, more := range map[string][]string{ // a relay knows the last connection of a user only: each has others
		"closed": {"--connections", "20", "--references", "--first-user", "600000"},
		"open":   {"--connections", "20", "--rate", "500", "--first-user", "700000"},
		"pairs":  {"--connections", "20", "--rate", "500", "--first-user", "400000"},
		"group":  {"--members", "20", "--rate", "50", "--first-user", "500000"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			results, text := measure(t, append([]string{name, "--url", url, "--warmup", "200ms", "--duration", "800ms", "--json", "-", "--data", t.TempDir()}, more...)...)
			if len(results) != 1 || !strings.Contains(text, "deliveries/s") {
				t.Fatalf("got %d results in\n%s", len(results), text)
			}
			plausible(t, results[0])
			if f := results[0].Figures; name == "group" && f.Deliveries != 20*f.Sent || name == "closed" && f.Confirmed != f.Sent {
				t.Errorf("got %+v", f)
			}
		})
	}
}

func TestAStandaloneIsComparedWithTheYardstick(t *testing.T) {
	t.Parallel()
	s, err := stack.New(stack.Config{Data: t.TempDir(), Host: "127.0.0.1", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	running(t, s.Run)
	if err := s.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "cpu")
	results, text := measure(t, "closed", "--url", s.WebsocketURL(), "--pid", strconv.Itoa(os.Getpid()), "--warmup", "100ms", "--duration", "1s", "--connections", "20",
		"--references", "--features", "accept,ack", "--baseline", "--runs", "2", "--json", "-", "--data", t.TempDir(),
		"--pprof", file, "--profile", "goroutine", "--pprof-url", s.ConnectorURL())
	if len(results) != 6 {
		t.Fatalf("got %d results in\n%s", len(results), text)
	}
	var order []string
	for _, r := range results {
		plausible(t, r)
		order = append(order, r.Server+strconv.Itoa(r.Run))
		if r.Figures.Confirmed != r.Figures.Sent || r.Figures.ServerBytes == nil || *r.Figures.ServerBytes < 1<<20 {
			t.Errorf("got %+v", r.Figures)
		}
		if r.Server == serverGiven && r.Figures.Accepted == 0 {
			t.Errorf("nothing was accepted: %+v", r.Figures)
		}
	}
	if want := []string{"server1", "relay1", "server2", "relay2", "server0", "relay0"}; !slices.Equal(order, want) {
		t.Errorf("got the runs %v", order)
	}
	if !regexp.MustCompile(`server +relay +ratio`).MatchString(text) || !strings.Contains(text, "median of 2") {
		t.Errorf("got\n%s", text)
	}
	if info, err := os.Stat(file); err != nil || info.Size() == 0 {
		t.Errorf("the profile: %v", err)
	}
}

func TestTheRelayRunsByItself(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	reader, writer := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- bench(ctx, run.Process{Args: []string{runRelay, "--listen", "127.0.0.1:0"}, Stdout: writer, Stderr: io.Discard}, false)
	}()
	said := make([]byte, 200)
	n, err := reader.Read(said)
	if err != nil || !regexp.MustCompile(`websocket +ws://127\.0\.0\.1:\d+/ws\nready`).Match(said[:n]) {
		t.Errorf("got %s, %v", said[:n], err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestARunThatIsInterruptedEndsAndCleansUp(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("the load generator needs Linux")
	}
	data, url := t.TempDir(), startRelay(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		args := []string{"closed", "--url", url, "--duration", "1h", "--data", data}
		ended <- bench(ctx, run.Process{Args: args, Stdout: io.Discard, Stderr: io.Discard}, false)
	}()
	entries := func() []os.DirEntry {
		list, err := os.ReadDir(data)
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	polltest.Eventually(t, "it has begun", func() bool { return len(entries()) > 0 })
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if left := entries(); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
}
