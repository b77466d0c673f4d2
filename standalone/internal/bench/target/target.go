// Package target is the server that is measured: one that runs already, or a process
// of its own that is started for a run and ended after it. It says what the server
// uses, and fetches its profiles.
package target

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/linkerhq/linker/standalone/internal/child"
)

const (
	readyTime = time.Minute
	endTime   = 40 * time.Second // longer than a drain
	lastWords = 1000             // bytes
)

// Target is a server. Its fields do not change while it runs.
type Target struct {
	Name  string   // for people
	URLs  []string // of its websockets, one for each domain
	HTTP  string   // http://HOST:PORT, where it shows its profiles; "": nowhere
	PIDs  []int    // of its processes; none: nobody knows
	Parts []Part   // of these, if it consists of several
}

// Command is a program that is a server. When it serves it has written the URLs of its
// websockets, ws://…, and maybe one of its HTTP, http://…, and then a line that begins
// with "ready", to its standard output.
type Command struct {
	Name string
	Path string
	Args []string
	Log  string // file of what it writes to its standard error; it is made
}

// Process is a server that was started. Stop ends it.
type Process struct {
	Target

	command *exec.Cmd
	log     string
	read    sync.WaitGroup // of its output
}

// Start starts a server and waits until it serves.
func Start(ctx context.Context, c Command) (*Process, error) {
	log, err := os.OpenFile(c.Log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the process has it
	p := &Process{Target: Target{Name: c.Name}, log: c.Log, command: exec.CommandContext(context.WithoutCancel(ctx), c.Path, c.Args...)}
	p.command.Stderr = log
	p.command.SysProcAttr = child.OwnGroup()
	out, err := p.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Path, err)
	}
	p.PIDs = []int{p.command.Process.Pid}
	ready := make(chan Target, 1) // closed when the output ends; gets the target once
	p.read.Go(func() { listen(out, p.Target, ready) })
	timer := time.NewTimer(readyTime)
	defer timer.Stop()
	var is bool
	select {
	case p.Target, is = <-ready:
	case <-timer.C:
	case <-ctx.Done():
	}
	switch {
	case is && len(p.URLs) > 0:
		return p, nil
	case ctx.Err() != nil:
		return nil, errors.Join(ctx.Err(), p.Kill())
	default:
		_ = p.Kill()
		return nil, fmt.Errorf("%s does not serve; the end of its log: %s", c.Name, p.lastWords())
	}
}

// listen reads what a server says of itself, up to its end.
func listen(out io.Reader, t Target, ready chan<- Target) {
	defer close(ready)
	told := false
	for scanner := bufio.NewScanner(out); scanner.Scan(); {
		line := scanner.Text()
		if strings.HasPrefix(line, "ready") && !told {
			ready <- t
			told = true
		}
		if told {
			continue
		}
		for word := range strings.FieldsSeq(line) {
			switch {
			case strings.HasPrefix(word, "ws://"):
				t.URLs = append(t.URLs, word)
			case strings.HasPrefix(word, "http://") && t.HTTP == "":
				t.HTTP = strings.TrimSuffix(word, "/")
			}
		}
	}
}

// Stop ends the server as an operator does. It fails if the server had not run well to
// its end.
func (p *Process) Stop() error {
	if err := p.command.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end %s: %w", p.Name, err)
	}
	killer := time.AfterFunc(endTime, func() { _ = p.command.Process.Kill() })
	defer killer.Stop()
	if err := p.wait(); err != nil {
		return fmt.Errorf("%s ended with %w; the end of its log: %s", p.Name, err, p.lastWords())
	}
	return nil
}

// Kill ends the server as a crash does.
func (p *Process) Kill() error {
	if err := p.command.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", p.Name, err)
	}
	_ = p.wait() // says only that it was killed
	return nil
}

func (p *Process) wait() error {
	p.read.Wait()
	return p.command.Wait()
}

// lastWords is the end of the log, in one line.
func (p *Process) lastWords() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return strings.Join(strings.Fields(string(b[max(0, len(b)-lastWords):])), " ")
}

// Standalone is the command that runs the standalone program with everything on free
// ports of this machine, and its data in a directory.
func Standalone(path, dir string, args []string) Command {
	all := []string{"--data", filepath.Join(dir, "data"), "--host", "127.0.0.1"}
	for _, port := range []string{"websocket", "link", "connector-http", "processor-http", "meta", "console"} {
		all = append(all, "--"+port+"-port", "0")
	}
	return Command{Name: "linker", Path: path, Args: append(all, args...), Log: filepath.Join(dir, "server.log")}
}
