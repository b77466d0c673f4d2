package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/linkerhq/linker/pkg/run"
	"github.com/linkerhq/linker/standalone/internal/torture/bugs"
	"github.com/linkerhq/linker/standalone/internal/torture/history"
	"github.com/linkerhq/linker/standalone/internal/torture/system"
	"github.com/linkerhq/linker/standalone/internal/torture/verdict"
)

// asProgram is a variable of the environment that makes a test the program.
const asProgram = "LINKER_TEST_AS_TORTURE"

// TestMain is the program itself if it is called as such, or for the embedded servers.
func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" || len(os.Args) > 1 && os.Args[1] == system.ServersCommand {
		main()
	}
	dir, err := os.MkdirTemp("", "linker-torture-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	built.dir = dir
	built.once = sync.OnceValue(func() error {
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

// built is where the programs are built for those tests that are not about that.
var built struct {
	dir  string
	once func() error
}

// programs returns the directory of the programs.
func programs(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("builds and starts all programs")
	}
	if err := built.once(); err != nil {
		t.Fatal(err)
	}
	return built.dir
}

// call runs the program and returns its exit code and what it printed.
func call(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = start(run.Process{Args: args, Environ: os.Environ(), Stdout: &out, Stderr: &errs}, false)
	return code, out.String(), errs.String()
}

func TestTheWholeOfItKeepsEveryPromise(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("runs for a minute")
	}
	dir := filepath.Join(t.TempDir(), "run")
	code, stdout, stderr := call("--duration", "16s", "--domains", "2", "--rate", "60", "--fast-rate", "15", "--gap", "1s", "--seed", "1", "--dir", dir,
		"--faults", "connector-kill,processor-kill,redis-flush,link-cut,processor-failpoint")
	if code != exitKept {
		t.Fatalf("exit code %d\n%s\n%s", code, stdout, stderr)
	}
	if !strings.Contains(stdout, "No promise was broken") || !strings.Contains(stderr, "--seed 1") {
		t.Errorf("it said\n%s\n%s", stdout, stderr)
	}
	again, repeated, _ := call("--check", filepath.Join(dir, historyName))
	if again != exitKept || repeated != stdout {
		t.Errorf("the history says\n%s\nand the run said\n%s", repeated, stdout)
	}
	if code, text, _ := call("--json", "--check", filepath.Join(dir, historyName)); code != exitKept || !strings.HasPrefix(text, "{") {
		t.Errorf("exit code %d, %.100s", code, text)
	}
}

// trialOf is one short run, with faults that fit what it is to find.
type trialOf struct {
	domains  string
	duration string
	faults   string
}

// The runs for seeded bugs: each is clean without one.
func killed() trialOf      { return trialOf{"2", "25s", "connector-kill,processor-kill,zombie"} }
func brokersLost() trialOf { return trialOf{"2", "18s", "servers-hang,servers-kill"} }
func linksLost() trialOf   { return trialOf{"3", "25s", "link-deaf,link-pull,link-cut"} }

// seeded are the bugs: in which run each is found, and what it has to break.
func seeded() map[string]struct {
	trial trialOf
	broke []verdict.Invariant // one of them, whatever else is broken
} {
	return map[string]struct {
		trial trialOf
		broke []verdict.Invariant
	}{
		"settle-before-proof":  {killed(), []verdict.Invariant{verdict.I1, verdict.I8}},
		"commit-before-settle": {killed(), []verdict.Invariant{verdict.I1, verdict.I11}},
		"acks-none":            {brokersLost(), []verdict.Invariant{verdict.I1}},
		"delete-before-proof":  {killed(), []verdict.Invariant{verdict.I1, verdict.I8}},
		"no-epoch-check":       {killed(), []verdict.Invariant{verdict.I2, verdict.I3, verdict.I6}},
		"live-while-rows-wait": {killed(), []verdict.Invariant{verdict.I4}},
		"duplicates-not-known": {linksLost(), []verdict.Invariant{verdict.I2, verdict.I3}},
	}
}

// judged runs it with the programs of a directory, and returns what was broken, and
// what it said.
func (run trialOf) judged(t *testing.T, bin string, seed int) (map[verdict.Invariant]int64, string) {
	t.Helper()
	code, stdout, stderr := call("--bin", bin, "--json", "--seed", fmt.Sprint(seed), "--dir", filepath.Join(t.TempDir(), "run"),
		"--duration", run.duration, "--gap", "1s", "--rate", "100", "--fast-rate", "20", "--domains", run.domains, "--faults", run.faults)
	var report struct {
		Broken     map[verdict.Invariant]int64 `json:"broken"`
		Violations json.RawMessage             `json:"violations"`
	}
	if err := json.Unmarshal([]byte(stdout), &report); err != nil || code == exitFailed || (code == exitKept) != (len(report.Broken) == 0) {
		t.Fatalf("exit code %d, %v\n%s\n%.3000s", code, err, stderr, stdout)
	}
	return report.Broken, string(report.Violations)
}

// attempts is how many runs may miss a bug: what goes wrong is often a matter of
// milliseconds.
const attempts = 3

// TestSeededBugsAreFound builds each mistake into the programs and runs them: what it
// breaks must be found. The same runs with the programs as they are must find nothing.
func TestSeededBugsAreFound(t *testing.T) { //nolint:paralleltest // the others wait, so that these runs have the machine
	if os.Getenv("LINKER_TEST_BUGS") == "" {
		t.Skip("takes five minutes: set LINKER_TEST_BUGS")
	}
	clean := programs(t)
	for _, run := range []trialOf{killed(), brokersLost(), linksLost()} {
		t.Run("none in "+run.faults, func(t *testing.T) {
			t.Parallel()
			if broken, said := run.judged(t, clean, 1); len(broken) > 0 {
				t.Errorf("got %v\n%s", broken, said)
			}
		})
	}
	expected := seeded()
	for _, bug := range bugs.All() {
		t.Run(bug.Name, func(t *testing.T) {
			t.Parallel()
			want, known := expected[bug.Name]
			if !known {
				t.Fatal("nobody says what it breaks")
			}
			bin := buildBug(t, bug, clean)
			for seed := range attempts {
				broken, _ := want.trial.judged(t, bin, seed+1)
				t.Logf("seed %d: %v", seed+1, broken)
				if slices.ContainsFunc(want.broke, func(i verdict.Invariant) bool { return broken[i] > 0 }) {
					return
				}
			}
			t.Errorf("none of %v was broken", want.broke)
		})
	}
}

// buildBug builds the programs that a bug touches, and takes the others from a
// directory of clean ones.
func buildBug(t *testing.T, bug bugs.Bug, clean string) string {
	t.Helper()
	root, err := system.Root(".")
	if err != nil {
		t.Fatal(err)
	}
	b := system.Build{Root: root}
	if b.Overlay, err = bugs.Overlay(bug.Name, root, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	for _, program := range (system.Config{}).Programs() {
		module, _, _ := strings.Cut(program, "/")
		if slices.ContainsFunc(bug.Edits, func(e bugs.Edit) bool {
			return strings.HasPrefix(e.File, module+"/") || strings.HasPrefix(e.File, "pkg/")
		}) {
			b.Programs = append(b.Programs, program)
		} else if err := os.Symlink(filepath.Join(clean, filepath.Base(program)), filepath.Join(bin, filepath.Base(program))); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Into(t.Context(), bin); err != nil {
		t.Fatal(err)
	}
	return bin
}

// write writes a history and returns its file.
func write(t *testing.T, complete bool, ops ...history.Op) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), historyName)
	h, err := history.Create(file, history.Run{Seed: 5, Command: "linker-torture --seed 5"})
	if err != nil {
		t.Fatal(err)
	}
	h.Phase(history.PhaseWarm)
	for _, op := range ops {
		h.Append(op)
	}
	if complete {
		h.Phase(history.PhaseEnd)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestTheExitCodeSaysWhetherPromisesWereKept(t *testing.T) {
	t.Parallel()
	bad := history.Op{Kind: history.KindLog, Name: "connector-1", Code: history.LogPanic, Note: "panic: x"}
	for name, c := range map[string]struct {
		file string
		want int
		says string
	}{
		"kept":         {write(t, true), exitKept, "No promise was broken"},
		"violated":     {write(t, true, bad), exitViolated, "linker-torture --seed 5"},
		"not finished": {write(t, false), exitFailed, ""},
		"no file":      {filepath.Join(t.TempDir(), "none"), exitFailed, ""},
	} {
		if code, stdout, stderr := call("--check", c.file); code != c.want || !strings.Contains(stdout, c.says) {
			t.Errorf("%s: exit code %d, want %d\n%s\n%s", name, code, c.want, stdout, stderr)
		}
	}
}

func TestQuestionsAreAnswered(t *testing.T) {
	t.Parallel()
	for arg, want := range map[string]string{
		"--help": "-duration", "--version": "linker-torture ", "--list-faults": "connector-kill", "--list-bugs": bugs.Names()[0],
	} {
		if code, stdout, stderr := call(arg); code != exitKept || !strings.Contains(stdout, want) || stderr != "" {
			t.Errorf("%s: exit code %d, %q, %q", arg, code, stdout, stderr)
		}
	}
}

func TestTheDocumentNamesEveryFaultAndEveryBug(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "torture.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, arg := range []string{"--list-faults", "--list-bugs"} {
		_, list, _ := call(arg)
		for line := range strings.Lines(list) {
			name, what, _ := strings.Cut(strings.TrimSpace(line), " ")
			if row := fmt.Sprintf("| `%s` | %s |", name, strings.TrimSpace(what)); !strings.Contains(string(text), row) {
				t.Errorf("docs/torture.md lacks %s", row)
			}
		}
	}
}

func TestAPlanIsTheSameForASeed(t *testing.T) {
	t.Parallel()
	plan := func(seed string) string {
		code, stdout, stderr := call("--plan", "--seed", seed)
		if code != exitKept || strings.Count(stdout, "\n") < 10 {
			t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
		}
		return stdout
	}
	if first := plan("3"); first != plan("3") || first == plan("4") {
		t.Errorf("got\n%s", first)
	}
}

func TestMistakesInTheCommandLineAreNamed(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"--duration 1s":          {"--duration", "1s"},
		"0 domains":              {"--domains", "0"},
		"--system":               {"--system", "cloud"},
		"earthquake":             {"--faults", "earthquake"},
		"--quiet and --faults":   {"--quiet", "--faults", "link"},
		"--bin and --bug":        {"--bin", "x", "--bug", "y"},
		"--bin and --race":       {"--bin", "x", "--race"},
		"--rate":                 {"--rate", "-1"},
		"--gap":                  {"--gap", "0s"},
		"belong together":        {"--kafka", "k:9092"},
		"unexpected argument":    {"now"},
		"seed":                   {"--seed", "many"},
		"colour":                 {"--colour"},
		"script":                 {"--control", "x"},
		"standalone has its own": nil,
	} {
		if args == nil {
			want, args = "in itself", []string{"--system", "standalone", "--kafka", "k", "--nats", "n", "--redis", "r", "--mongodb", "m"}
		}
		if code, _, stderr := call(args...); code != exitFailed || !strings.Contains(stderr, want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%v: exit code %d, %q, want it to say %q", args, code, stderr, want)
		}
	}
}

func TestARunCanBeRepeated(t *testing.T) {
	t.Parallel()
	o := options{seed: 9}
	got := o.command([]string{"--duration", "1m", "--seed=3", "--dir", "x", "--quiet", "-seed", "4", "--dir=y"})
	if got != "linker-torture --duration 1m --quiet --seed 9" {
		t.Errorf("got %q", got)
	}
}

func TestARunThatIsInterruptedLeavesNothing(t *testing.T) {
	t.Parallel()
	bin := programs(t)
	dir := filepath.Join(t.TempDir(), "run")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	reader, writer := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := torture(ctx, run.Process{
			Args: []string{"--domains", "1", "--duration", "10m", "--bin", bin, "--dir", dir}, Environ: os.Environ(), Stdout: io.Discard, Stderr: writer,
		}, true)
		_ = writer.Close()
		ended <- err
	}()
	var said bytes.Buffer
	buffer := make([]byte, 1000)
	for cancelled := false; ; {
		n, err := reader.Read(buffer)
		said.Write(buffer[:n])
		if !cancelled && strings.Contains(said.String(), " of 10:00  ") {
			cancel()
			cancelled = true
		}
		if err != nil {
			break
		}
	}
	if err := <-ended; !errors.Is(err, errInterrupted) {
		t.Errorf("got %v\n%s", err, said.String())
	}
	if _, err := os.Stat(filepath.Join(dir, historyName)); err != nil {
		t.Error(err)
	}
}
