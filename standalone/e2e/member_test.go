package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// buildPrograms builds the programs of a domain once, and returns where they are.
var buildPrograms = sync.OnceValues(func() (string, error) {
	args := append([]string{"build", "-o", binaryDir + string(filepath.Separator)}, buildFlags()...)
	for _, program := range []string{"connector/cmd/connector", "processor/cmd/processor", "metaserver/cmd/metaserver", "standalone/cmd/console"} {
		args = append(args, "github.com/linkerhq/linker/"+program)
	}
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the programs: %w: %s", err, out)
	}
	return binaryDir, nil
})

// endPatience is how long a process may take to end that was told to: longer
// than a drain.
const endPatience = 40 * time.Second

// member is one process of a cluster. It can be started again after its end,
// and then listens where it did before.
type member struct {
	program string
	host    string   // of its own: on it, every program has the ports that the documentation names
	args    []string // static
	log     string   // the file
	environ []string // static; beside the usual

	mu     sync.Mutex
	cmd    *exec.Cmd     // guarded by mu; nil: not started
	ended  chan struct{} // guarded by mu; closed when the process has ended
	err    error         // guarded by mu; how it ended
	wanted bool          // guarded by mu; it may not end by itself
}

// start starts the process; it does not wait until it serves.
func (m *member) start() error {
	dir, err := buildPrograms()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(m.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(dir, m.program), m.args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}, m.environ...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = ownGroup()
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	m.cmd, m.ended, m.err, m.wanted = cmd, ended, nil, true
	go func() {
		err := cmd.Wait()
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.wanted {
			err = fmt.Errorf("it ended by itself: %w", errors.Join(err, errTooEarly))
		}
		m.err = err
		close(ended)
	}()
	return nil
}

var errTooEarly = errors.New("nobody told it to end")

// runs says whether the process is there, and has not ended by itself.
func (m *member) runs() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cmd == nil {
		return false
	}
	select {
	case <-m.ended:
		return false
	default:
		return true
	}
}

// signal sends a signal to a process that runs.
func (m *member) signal(s syscall.Signal) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cmd == nil {
		return errors.New("it was never started")
	}
	if s == syscall.SIGTERM || s == syscall.SIGKILL {
		m.wanted = false
	}
	return m.cmd.Process.Signal(s)
}

// kill ends the process as a crash does.
func (m *member) kill() error {
	if err := m.signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return m.named(err)
	}
	if err := m.awaitEnd(endPatience); errors.Is(err, errTooEarly) {
		return m.named(err)
	}
	return nil
}

// terminate ends the process as an operator does, and returns what was wrong
// with its end.
func (m *member) terminate() error {
	if err := m.signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return m.named(err)
	}
	err := m.awaitEnd(endPatience)
	if errors.Is(err, errNoEnd) {
		_ = m.signal(syscall.SIGQUIT) // for the stacks in its log
		_ = m.awaitEnd(time.Second)
		_ = m.signal(syscall.SIGKILL)
	}
	return m.named(err)
}

var errNoEnd = errors.New("it does not end")

func (m *member) awaitEnd(limit time.Duration) error {
	m.mu.Lock()
	ended := m.ended
	m.mu.Unlock()
	select {
	case <-ended:
	case <-time.After(limit):
		return errNoEnd
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

func (m *member) named(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w; the end of its log:\n%s", filepath.Base(m.log), err, m.lastLines(2000))
}

// lastLines returns the end of the log.
func (m *member) lastLines(size int) []byte {
	b, err := os.ReadFile(m.log)
	if err != nil {
		return nil
	}
	return b[max(0, len(b)-size):]
}

// peakMemory returns the most memory that the process has used, as Linux says it.
func (m *member) peakMemory() string {
	m.mu.Lock()
	pid := m.cmd.Process.Pid
	m.mu.Unlock()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return "an unknown amount"
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(line)
}

// mistakes returns what no log may hold: secrets, races, panics.
func (m *member) mistakes() error {
	b, err := os.ReadFile(m.log)
	if errors.Is(err, os.ErrNotExist) {
		return nil // never started
	}
	if err != nil {
		return err
	}
	var found []error
	for _, bad := range []string{secretToken, secretContent, "WARNING: DATA RACE", "panic: ", "fatal error: "} {
		if i := bytes.Index(b, []byte(bad)); i >= 0 {
			found = append(found, fmt.Errorf("the log of %s says %s", filepath.Base(m.log), b[max(0, i-500):min(len(b), i+4000)]))
		}
	}
	return errors.Join(found...)
}
