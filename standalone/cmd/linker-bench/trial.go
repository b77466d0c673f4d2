package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/linkerhq/linker/pkg/run"
	"github.com/linkerhq/linker/standalone/internal/bench/figures"
	"github.com/linkerhq/linker/standalone/internal/bench/report"
	"github.com/linkerhq/linker/standalone/internal/bench/swarm"
	"github.com/linkerhq/linker/standalone/internal/bench/target"
	"github.com/linkerhq/linker/standalone/internal/bench/workload"
	"github.com/linkerhq/linker/standalone/internal/progress"
)

// defaultData is where data is on a disk on most systems.
const defaultData = "/var/tmp"

// The servers, as results name them.
const (
	serverLinker = "linker" // that was started
	serverGiven  = "server" // that runs already
	serverRelay  = "relay"
)

// trial is one call of the program: all runs of one workload, or of the set.
type trial struct {
	options  options
	process  run.Process
	progress *progress.Line

	dir     string // of the servers that are started; removed at the end
	started int    // servers, for the names of their directories
	json    io.Writer
	machine report.Machine
}

// discarded takes flags that nobody sets.
func discarded() *flag.FlagSet { return flag.NewFlagSet("", flag.ContinueOnError) }

func (t *trial) run(ctx context.Context) (err error) {
	close, err := t.prepare()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, close()) }()
	fmt.Fprintln(t.process.Stdout, t.machine)
	switch t.options.name {
	case runRates:
		return t.rates(ctx)
	case runGrow:
		return t.grow(ctx)
	}
	list, err := t.options.runsOf()
	if err != nil {
		return err
	}
	var sets [][]report.Result
	for i, o := range list {
		if t.options.set {
			t.progress.Say("%d of %d: %s", i+1, len(list), o.workload.Name)
		}
		results, err := t.workload(ctx, o)
		if err != nil {
			return err
		}
		sets = append(sets, results)
		fmt.Fprintln(t.process.Stdout)
		if err := report.WriteTable(t.process.Stdout, results); err != nil {
			return err
		}
	}
	if t.options.set {
		fmt.Fprintln(t.process.Stdout)
		return report.WriteSummary(t.process.Stdout, sets)
	}
	return nil
}

// prepare makes what all runs need. The function that it returns takes it away.
func (t *trial) prepare() (close func() error, err error) {
	t.machine = report.Machine{
		CPU: target.CPUModel(), CPUs: runtime.NumCPU(), MemoryBytes: target.Memory(), Kernel: target.Kernel(), Platform: run.Platform(),
	}
	close = func() error { return nil }
	t.json = io.Discard
	switch t.options.json {
	case "":
	case "-":
		t.json = t.process.Stdout
	default:
		file, err := os.OpenFile(t.options.json, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
		if err != nil {
			return nil, fmt.Errorf("--json: %w", err)
		}
		t.json, close = file, file.Close
	}
	parent := t.options.data
	if parent == "" {
		parent = defaultData
	}
	if t.dir, err = os.MkdirTemp(parent, "linker-bench-"); err != nil {
		return nil, errors.Join(fmt.Errorf("--data: %w", err), close())
	}
	finish := close
	close = func() error { return errors.Join(os.RemoveAll(t.dir), finish()) }
	if err := target.OnDisk(t.dir); err != nil {
		return nil, errors.Join(fmt.Errorf("--data: %w", err), close())
	}
	return close, nil
}

// workload runs one workload as often as is asked for, on all servers in turn, and
// returns the median of each.
func (t *trial) workload(ctx context.Context, o options) ([]report.Result, error) {
	servers := []string{o.measured()}
	if o.baseline {
		servers = append(servers, serverRelay)
	}
	return t.on(ctx, o, servers...)
}

// measured is the server that is measured, beside a yardstick.
func (o options) measured() string {
	if len(o.urls) > 0 {
		return serverGiven
	}
	return serverLinker
}

// on runs a workload on some servers in turn.
func (t *trial) on(ctx context.Context, o options, servers ...string) ([]report.Result, error) {
	runs := map[string][]figures.Run{}
	for n := range o.runs {
		for _, server := range servers {
			r, err := t.once(ctx, o, server, n+1)
			if err != nil {
				return nil, fmt.Errorf("%s on %s: %w", o.workload.Name, server, err)
			}
			runs[server] = append(runs[server], r)
			if err := report.WriteJSON(t.json, t.result(o, server, n+1, r)); err != nil {
				return nil, err
			}
		}
	}
	var results []report.Result
	for _, server := range servers {
		result := t.result(o, server, 0, figures.Median(runs[server]))
		if o.runs > 1 {
			if err := report.WriteJSON(t.json, result); err != nil {
				return nil, err
			}
		}
		results = append(results, result)
	}
	return results, nil
}

func (t *trial) result(o options, server string, n int, r figures.Run) report.Result {
	result := report.Result{
		Time: time.Now(), Version: run.Version(version), Machine: t.machine, Command: slices.Clone(t.options.args), Workload: o.workload.Name,
		Server: server, Run: n, Runs: o.runs, Parameters: o.params, Figures: r,
	}
	if server == serverLinker {
		result.ServerArgs = o.serverArgs
		if o.apart.is {
			result.Server = fmt.Sprintf("%s-%dx%d", server, o.apart.connectors, o.apart.processors)
		}
	}
	return result
}

// once runs a workload once on a server.
func (t *trial) once(ctx context.Context, o options, server string, n int) (r figures.Run, err error) {
	// Now, so that a server that is started may have as many as well.
	if err := swarm.OpenFiles(max(o.params.Connections, o.params.Members+1)); err != nil {
		return figures.Run{}, err
	}
	what := fmt.Sprintf("%s on %s, run %d of %d", o.workload.Name, server, n, o.runs)
	t.progress.Draw(what + ": starting")
	on, err := t.serve(ctx, o, server)
	if err != nil {
		return figures.Run{}, err
	}
	defer func() { err = errors.Join(err, on.stop()) }()
	if o.workload.Kills {
		on.PIDs, on.Parts = nil, nil
	}
	meter, err := target.NewMeter(on.PIDs, on.Parts...)
	if err != nil {
		return figures.Run{}, err
	}
	observer := &observer{Meter: meter}
	if server != serverRelay && o.pprof != "" {
		observer.fetch = func() error {
			return target.Profile(ctx, on.HTTP, target.Kind(o.profile), time.Duration(o.params.Duration), o.pprof)
		}
	}
	env := workload.Env{Options: on.params, Server: on.control, URLs: on.URLs, Observer: observer, Progress: &workload.Progress{}}
	watched := watch(t.progress, what, env.Progress)
	r, err = o.workload.Run(ctx, env)
	watched()
	err = errors.Join(err, observer.wait())
	if err != nil {
		return figures.Run{}, err
	}
	err = meter.Fill(&r)
	if o.workload.Domains != nil {
		r.BytesPerClient = nil // connections are not what memory is used for
		for i := range r.Parts {
			r.Parts[i].BytesPerClient = nil
		}
	}
	return r, err
}

// observer measures, and fetches a profile meanwhile.
type observer struct {
	*target.Meter
	fetch  func() error // nil: no profile
	finish chan error   // gets how that went, once; nil: it has not begun
}

// Begin begins what is measured.
func (o *observer) Begin() {
	o.Meter.Begin()
	if o.fetch != nil {
		o.finish = make(chan error, 1)
		go func() { o.finish <- o.fetch() }()
	}
}

// wait waits for the profile.
func (o *observer) wait() error {
	if o.finish == nil {
		return nil
	}
	return <-o.finish
}

// served is a server that serves.
type served struct {
	target.Target

	params  workload.Options // with an app that it knows
	control workload.Server  // nil: it can be connected to, and that is all
	stop    func() error     // ends what was started
}

// serve starts a server, or finds the one that runs.
func (t *trial) serve(ctx context.Context, o options, server string) (served, error) {
	on := served{params: o.params, stop: func() error { return nil }}
	if server == serverGiven {
		on.Target = target.Target{Name: server, URLs: o.urls, HTTP: o.pprofURL, PIDs: o.pids}
		return on, nil
	}
	t.started++
	dir := filepath.Join(t.dir, fmt.Sprint(t.started))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return on, err
	}
	if server == serverLinker && o.startsNetwork() {
		n, err := t.startNetwork(ctx, o, dir)
		if err != nil {
			return on, errors.Join(err, os.RemoveAll(dir))
		}
		n.adopt(&on.params)
		on.Target, on.control, on.stop = n.target(), n, func() error { return errors.Join(n.stop(), os.RemoveAll(dir)) }
		on.HTTP = cmp.Or(o.pprofURL, on.HTTP)
		return on, nil
	}
	command, err := t.command(o, server, dir)
	if err != nil {
		return on, err
	}
	p, err := target.Start(ctx, command)
	if err != nil {
		return on, errors.Join(err, os.RemoveAll(dir))
	}
	on.Target, on.stop = p.Target, func() error { return errors.Join(p.Stop(), os.RemoveAll(dir)) }
	on.HTTP = cmp.Or(o.pprofURL, on.HTTP)
	return on, nil
}

// command is how to start a server.
func (t *trial) command(o options, server, dir string) (target.Command, error) {
	self, err := os.Executable()
	if err != nil {
		return target.Command{}, fmt.Errorf("find this program: %w", err)
	}
	if server == serverRelay {
		return target.Command{Name: server, Path: self, Args: []string{runRelay}, Log: filepath.Join(dir, "server.log")}, nil
	}
	path := o.server
	if path == "" {
		path = filepath.Join(filepath.Dir(self), "standalone")
	}
	if _, err := os.Stat(path); err != nil {
		return target.Command{}, fmt.Errorf("--server %s: expected a program: %w", path, err)
	}
	return target.Standalone(path, dir, o.serverArgs), nil
}
