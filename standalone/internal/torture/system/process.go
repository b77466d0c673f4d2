package system

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/linkerhq/linker/pkg/failpoint"
	"github.com/linkerhq/linker/standalone/internal/child"
)

const (
	// endPatience is how long a process may take to end that was told to: longer than
	// a drain.
	endPatience = 40 * time.Second
	// comeBack is how long a process that has ended by itself stays away.
	comeBack = 500 * time.Millisecond
)

// Role is what a process does in the network.
type Role string

// The roles.
const (
	Standalone Role = "standalone"
	Metaserver Role = "metaserver"
	Connector  Role = "connector"
	Processor  Role = "processor"
	Brokers    Role = "servers" // the embedded brokers of a domain
)

// Process is one program of the system. It can be started again after its end, and
// then listens where it did before. All methods may be called by any goroutine.
type Process struct {
	name    string
	role    Role
	domain  string   // "": of the whole network
	http    []string // where it tells its metrics, as http://HOST:PORT
	ready   string   // what answers 200 when it serves: a URL, or HOST:PORT that takes connections
	path    string
	args    []string
	environ []string
	always  string            // as LINKER_FAILPOINTS takes it: what fails in every life; none of it ends the process
	log     string            // the file of what it says
	report  func(text string) // is told what should not have happened

	mu     sync.Mutex
	cmd    *exec.Cmd     // guarded by mu; nil: never started
	ended  chan struct{} // guarded by mu; closed when the process has ended
	err    error         // guarded by mu; how it ended
	wanted bool          // guarded by mu; it may not end by itself
	closed bool          // guarded by mu; it is not started again
	held   bool          // guarded by mu; it does not run, by SIGSTOP
}

// Name is unique in the system, such as domain-01/connector-1.
func (p *Process) Name() string { return p.name }

// Role is what it does.
func (p *Process) Role() Role { return p.role }

// Domain is whose it is; "" of the whole network.
func (p *Process) Domain() string { return p.domain }

// HTTP is where it tells its metrics, as http://HOST:PORT; "": nowhere.
func (p *Process) HTTP() string {
	if len(p.http) == 0 {
		return ""
	}
	return p.http[0]
}

// Log is the file of all that it has said.
func (p *Process) Log() string { return p.log }

// PID is the id of the process that runs now, or ran last; 0 before the first start.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// Start starts the process, unless it runs; it does not wait until it serves. With
// failpoints, as LINKER_FAILPOINTS takes them, beside those of every life, it may end
// by itself.
func (p *Process) Start(failpoints string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.runsLocked() {
		return nil
	}
	log, err := os.OpenFile(p.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the process has it
	cmd := exec.CommandContext(context.Background(), p.path, p.args...)
	cmd.Env = slices.Clone(p.environ)
	if armed := strings.Trim(failpoints+","+p.always, ","); armed != "" {
		cmd.Env = append(cmd.Env, failpoint.Variable+"="+armed)
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = child.OwnGroup()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	ended := make(chan struct{})
	p.cmd, p.ended, p.err, p.wanted, p.held = cmd, ended, nil, !strings.Contains(failpoints, ":"+string(failpoint.Exit)), false
	go p.attend(cmd, ended)
	return nil
}

// attend waits for the end of one life of the process. Where nobody has asked for
// it, it is reported, and the process comes back, as an init system would have it.
func (p *Process) attend(cmd *exec.Cmd, ended chan struct{}) {
	err := cmd.Wait()
	p.mu.Lock()
	wanted := p.wanted
	p.err = err
	close(ended)
	p.mu.Unlock()
	if !wanted {
		return
	}
	p.report(fmt.Sprintf("%s ended by itself: %v; the end of its log: %s", p.name, err, p.lastWords()))
	time.AfterFunc(comeBack, func() {
		if err := p.Start(""); err != nil {
			p.report(err.Error())
		}
	})
}

// lastWords is the end of the log, in one line.
func (p *Process) lastWords() string {
	const size = 1000
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return strings.Join(strings.Fields(string(b[max(0, len(b)-size):])), " ")
}

// Ended is closed when the life of the process that runs now, or ran last, is over.
// It is nil before the first start.
func (p *Process) Ended() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended
}

func (p *Process) runsLocked() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// Running says whether the process is there, stopped by SIGSTOP or not.
func (p *Process) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.runsLocked()
}

// signal sends a signal to a process that runs, and says whether there is one.
func (p *Process) signal(s syscall.Signal) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s == syscall.SIGTERM || s == syscall.SIGKILL {
		p.wanted = false
	}
	if !p.runsLocked() {
		return false, nil
	}
	if s == syscall.SIGSTOP || s == syscall.SIGCONT {
		p.held = s == syscall.SIGSTOP
	}
	err := p.cmd.Process.Signal(s)
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return false, fmt.Errorf("%s to %s: %w", s, p.name, err)
	}
	return true, nil
}

// Kill ends the process as a crash does, and waits for its end.
func (p *Process) Kill() error {
	there, err := p.signal(syscall.SIGKILL)
	if err != nil || !there {
		return err
	}
	return p.await(endPatience)
}

// Stop freezes the process, as SIGSTOP does.
func (p *Process) Stop() error {
	_, err := p.signal(syscall.SIGSTOP)
	return err
}

// Continue lets a frozen process go on.
func (p *Process) Continue() error {
	_, err := p.signal(syscall.SIGCONT)
	return err
}

// Terminate ends the process as an operator does. A process that takes too long is
// killed, and that, like an exit code other than 0, is reported.
func (p *Process) Terminate() error {
	there, err := p.signal(syscall.SIGTERM)
	if err != nil || !there {
		return err
	}
	if p.await(endPatience) != nil {
		_, _ = p.signal(syscall.SIGQUIT) // for the stacks in its log
		_ = p.await(time.Second)
		p.report(fmt.Sprintf("%s did not end %v after SIGTERM", p.name, endPatience))
		return p.Kill()
	}
	p.mu.Lock()
	err = p.err
	p.mu.Unlock()
	if err != nil {
		p.report(fmt.Sprintf("%s ended with %v after SIGTERM; the end of its log: %s", p.name, err, p.lastWords()))
	}
	return nil
}

var errStillThere = errors.New("it does not end")

func (p *Process) await(limit time.Duration) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.Ended():
		return nil
	case <-timer.C:
		return fmt.Errorf("%s: %w", p.name, errStillThere)
	}
}

// close ends the process, in good order if it can, and keeps it from being started
// again.
func (p *Process) close(gently bool) error {
	p.mu.Lock()
	p.closed = true
	held := p.held
	p.mu.Unlock()
	if held {
		_ = p.Continue()
	}
	if gently {
		return p.Terminate()
	}
	return p.Kill()
}
