package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// binaryDir is where the real binary is built, once; it is set before the first
// test and removed after the last.
var binaryDir string

var buildBinary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(binaryDir, "standalone")
	out, err := exec.Command("go", "build", "-o", path, "..").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build the binary: %w: %s", err, out)
	}
	return path, nil
})

// freePorts lets the system pick all ports.
var freePorts = []string{
	"--host", "127.0.0.1", "--websocket-port", "0", "--link-port", "0", "--connector-http-port", "0",
	"--processor-http-port", "0", "--meta-port", "0", "--console-port", "0",
}

// process is the real program, run as an operator runs it.
type process struct {
	cmd       *exec.Cmd
	urls      map[string]string // by what is printed before them
	stderr    *bytes.Buffer     // to be read when it has ended
	listening chan struct{}     // closed when it has said where; then urls can be read
	ready     chan struct{}     // closed when it says so
	ended     chan struct{}     // closed when it has; then err can be read
	err       error
}

// begin starts the program with free ports on a data directory.
func begin(t *testing.T, data string, more ...string) *process {
	t.Helper()
	path, err := buildBinary()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{
		cmd:  exec.Command(path, slices.Concat([]string{"--data", data}, freePorts, more)...),
		urls: map[string]string{}, stderr: new(bytes.Buffer),
		listening: make(chan struct{}), ready: make(chan struct{}), ended: make(chan struct{}),
	}
	p.cmd.Stderr = p.stderr
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	go p.listen(stdout)
	return p
}

// listen takes what the program prints: where it listens, then that it is ready.
func (p *process) listen(stdout io.Reader) {
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		switch last := len(fields) - 1; {
		case last < 0:
		case fields[0] == "network": // the last of what it says at the start
			close(p.listening)
		case fields[0] == "ready":
			close(p.ready)
		case strings.Contains(fields[last], "://"):
			p.urls[strings.Join(fields[:last], " ")] = fields[last]
		}
	}
	p.err = p.cmd.Wait()
	close(p.ended)
}

// ws is where clients connect.
func (p *process) ws() string { return p.urls["websocket"] }

// kill ends the process as a crash does.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// ready says whether the process says so in time.
func (p *process) isReady(t *testing.T, within time.Duration) bool {
	t.Helper()
	select {
	case <-p.ready:
		return true
	case <-p.ended:
		t.Fatalf("it ended before it was ready: %v: %s", p.err, p.stderr)
	case <-time.After(within):
	}
	return false
}

// interrupt ends the process as Ctrl-C does, and returns what was wrong with it.
func (p *process) interrupt(t *testing.T) error {
	t.Helper()
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.ended:
	case <-time.After(patience):
		_ = p.cmd.Process.Signal(syscall.SIGQUIT) // for the stacks
		<-p.ended
		t.Fatalf("it does not end: %s", p.stderr)
	}
	if p.err != nil {
		return fmt.Errorf("%w: %s", p.err, p.stderr)
	}
	return nil
}

func TestCtrlCDrainsAndExitsWithZero(t *testing.T) {
	t.Parallel()
	d := newLasting(t)
	p := launch(t, d)
	if one, is := p.(*process); is && (len(one.urls) < 6 || p.ws() == "" || one.urls["console"] == "" || one.urls["meta server"] == "") {
		t.Errorf("it says that it listens on %v", one.urls)
	}
	plain, hinted := login(t, p.ws(), "ANZ-1"), login(t, p.ws(), "ANZ-2", "accept")
	hinted.say("ANZ-3", "for later", "")
	hinted.expect("MESSAGE_ACCEPTED")
	began := time.Now()
	if err := p.interrupt(t); err != nil {
		t.Errorf("it ended with %v", err)
	}
	within(t, "the drain", 3*time.Second, began)
	plain.expectClosed(1012)
	if f := hinted.expect("GO_AWAY"); f.Data.Reason != "shutting_down" {
		t.Errorf("got %v", f)
	}
	hinted.expectClosed(1012)

	p = launch(t, d)
	master := login(t, p.ws(), "ANZ-123223", "push")
	seen := map[string]bool{}
	for len(seen) < 4 { // both came and went, in whatever order of users
		f := master.next()
		if f.Type != "MISSING_MESSAGES_AVAILABLE" {
			seen[f.Type+" "+f.Data.UserID] = true
		}
	}
	for _, want := range []string{"USER_CONNECTED ANZ-1", "USER_DISCONNECTED ANZ-1", "USER_CONNECTED ANZ-2", "USER_DISCONNECTED ANZ-2"} {
		if !seen[want] {
			t.Errorf("the master heard of %v, not of %s", seen, want)
		}
	}
	if got, _ := login(t, p.ws(), "ANZ-3").fetch(10); len(got) != 1 || got[0].Data.Content != "for later" {
		t.Errorf("got %v", got)
	}
	if err := p.interrupt(t); err != nil {
		t.Errorf("it ended with %v", err)
	}
}

func TestWhatKeepsItFromStartingIsSaidInOneLine(t *testing.T) {
	t.Parallel()
	ofStandalone(t)
	path, err := buildBinary()
	if err != nil {
		t.Fatal(err)
	}
	used := t.TempDir()
	p := launch(t, dataDir(used))
	taken := p.ws()[strings.LastIndex(p.ws(), ":")+1 : strings.LastIndex(p.ws(), "/")]
	write := func(text string) string {
		file := filepath.Join(t.TempDir(), "network.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args  []string
		names []string
	}{
		"websocket port taken":       {[]string{"--websocket-port", taken}, []string{taken, "in use"}},
		"link port taken":            {[]string{"--link-port", taken}, []string{taken, "in use"}},
		"connector HTTP port taken":  {[]string{"--connector-http-port", taken}, []string{taken, "in use"}},
		"processor HTTP port taken":  {[]string{"--processor-http-port", taken}, []string{taken, "in use"}},
		"meta port taken":            {[]string{"--meta-port", taken}, []string{taken, "in use"}},
		"console port taken":         {[]string{"--console-port", taken}, []string{taken, "in use"}},
		"data in use":                {[]string{"--data", used}, []string{used, "in use"}},
		"data is a file":             {[]string{"--data", file}, []string{file}},
		"an unknown flag":            {[]string{"--colour", "red"}, []string{"colour"}},
		"a flag with a bad value":    {[]string{"--websocket-port", "many"}, []string{"websocket-port", "many"}},
		"a port that cannot be":      {[]string{"--meta-port", "70000"}, []string{"meta-port", "70000"}},
		"an argument too many":       {[]string{"start"}, []string{"start"}},
		"a frame limit that is tiny": {[]string{"--frame-limit", "1"}, []string{"frame limit", "1024"}},
		"a broken origin":            {[]string{"--allowed-origins", "a.example, ["}, []string{"allowed origin", "["}},
		"a network without domains":  {[]string{"--meta", write("domains: []\n")}, []string{"network.yaml", "domain"}},
		"no such file":               {[]string{"--meta", "/nowhere/network.yaml"}, []string{"/nowhere/network.yaml"}},
		"a file that is not YAML":    {[]string{"--meta", write("domains: [[[")}, []string{"network.yaml", "line "}},
		"a file with two mistakes": {
			[]string{"--meta", write("domains:\n  - name: Domain 1\n    urls: ['ws://h:1']\nnonsense: 7\n")}, []string{"network.yaml", "line 2", "line 4"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var stderr bytes.Buffer
			cmd := exec.CommandContext(t.Context(), path, append(append([]string{"--data", t.TempDir()}, freePorts...), c.args...)...)
			cmd.Stderr = &stderr
			err := cmd.Run()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 1 {
				t.Errorf("it ended with %v, want exit code 1", err)
			}
			said := stderr.String()
			if strings.Count(said, "\n") != 1 || strings.Contains(said, "goroutine") {
				t.Errorf("it said %q, want one line", said)
			}
			for _, name := range c.names {
				if !strings.Contains(said, name) {
					t.Errorf("it said %q, which does not name %q", said, name)
				}
			}
		})
	}
}
