package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/linkerhq/linker/standalone/internal/bench/target"
	"github.com/linkerhq/linker/standalone/internal/bench/workload"
	"github.com/linkerhq/linker/standalone/internal/torture/system"
)

const (
	networkReady = 90 * time.Second
)

// network is a server of which is known what processes it consists of: they tell what
// they count, and can be killed.
type network struct {
	*system.System

	cancel context.CancelFunc
	ended  chan error // gets one, when all processes have ended

	mu      sync.Mutex
	trouble []error // guarded by mu; what should not have happened
}

// Where the services are, and how many there are, if they are processes of their own.
type apart struct {
	is                     bool
	connectors, processors int
}

// startNetwork starts domains in a line: in one process, or services of one domain apart.
func (t *trial) startNetwork(ctx context.Context, o options, dir string) (*network, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	bin := filepath.Dir(self)
	if o.server != "" {
		bin = filepath.Dir(o.server)
	}
	n := &network{ended: make(chan error, 1)}
	cfg := system.Config{
		Dir: dir, Bin: bin, Domains: 1, Line: true, Unhurt: true, Standalone: !o.apart.is, Connectors: o.apart.connectors, Processors: o.apart.processors,
		Self: []string{self, system.ServersCommand}, Report: n.report,
	}
	if o.workload.Domains != nil {
		cfg.Domains = o.workload.Domains(o.params)
	}
	for _, program := range cfg.Programs() {
		if _, err := os.Stat(filepath.Join(bin, filepath.Base(program))); err != nil {
			return nil, fmt.Errorf("expected %s in %s, where make build puts it: %w", filepath.Base(program), bin, err)
		}
	}
	if n.System, err = system.New(cfg); err != nil {
		return nil, err
	}
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	n.cancel = cancel
	go func() { n.ended <- n.Run(base) }()
	if err := n.ready(ctx); err != nil {
		return nil, errors.Join(err, n.stop())
	}
	return n, nil
}

func (n *network) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, networkReady)
	defer cancel()
	return n.Ready(ctx)
}

func (n *network) report(process, text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.trouble = append(n.trouble, fmt.Errorf("%s: %s", process, text))
}

// stop ends all processes. It fails if one had not run well.
func (n *network) stop() error {
	n.cancel()
	err := <-n.ended
	n.mu.Lock()
	defer n.mu.Unlock()
	return errors.Join(append(n.trouble, err)...)
}

// target is where clients connect, and what is measured. Its processes have other ids
// once they were killed.
func (n *network) target() target.Target {
	t := target.Target{Name: serverLinker}
	for _, d := range n.Domains() {
		t.URLs = append(t.URLs, d.URLs...)
	}
	for _, p := range n.Processes("", "") {
		t.PIDs = append(t.PIDs, p.PID())
		if len(t.Parts) == 0 || t.Parts[len(t.Parts)-1].Name != string(p.Role()) {
			t.Parts = append(t.Parts, target.Part{Name: string(p.Role())})
		}
		part := &t.Parts[len(t.Parts)-1]
		part.PIDs = append(part.PIDs, p.PID())
		if p.Role() == system.Standalone || p.Role() == system.Connector && t.HTTP == "" {
			t.HTTP = p.HTTP()
		}
	}
	if len(t.Parts) == 1 {
		t.Parts = nil // it is everything
	}
	return t
}

// adopt makes clients those of an app that the network has.
func (n *network) adopt(o *workload.Options) {
	app := n.Apps()[0]
	o.App, o.AppID = app.Name, app.ID
}

// Metric sums up a metric over all processes.
func (n *network) Metric(ctx context.Context, name string) (float64, error) {
	sum := 0.0
	for _, p := range n.Processes("", "") {
		samples, err := p.Metrics(ctx)
		if err != nil {
			return 0, err
		}
		sum += system.Sum(samples, name)
	}
	return sum, nil
}

// Crash kills the one process that is everything, and starts it again at once, or the
// first one that does what the victim does.
func (n *network) Crash(ctx context.Context, victim workload.Victim) (back func() error, err error) {
	list := n.Processes(system.Role(victim), "")
	alone := n.Processes(system.Standalone, "")
	list = slices.Concat(alone, list)
	if len(list) == 0 {
		return nil, fmt.Errorf("there is no %s to kill", victim)
	}
	p := list[0]
	if err := p.Kill(); err != nil {
		return nil, err
	}
	start := func() error {
		if err := p.Start(""); err != nil {
			return err
		}
		return n.ready(ctx)
	}
	if len(list) > 1 {
		return start, nil
	}
	if err := p.Start(""); err != nil {
		return nil, err
	}
	return func() error { return n.ready(ctx) }, nil
}

// Home says which users are at home in a domain. The last of its numbers is a master's.
func (n *network) Home(domain int) (first, end int64) {
	first = n.Domains()[domain].First
	return first, first + system.HomeRange - 1
}
