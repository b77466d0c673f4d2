package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/linkerhq/linker/pkg/run"
	"github.com/linkerhq/linker/standalone/internal/progress"
	"github.com/linkerhq/linker/standalone/internal/torture/bugs"
	"github.com/linkerhq/linker/standalone/internal/torture/history"
	"github.com/linkerhq/linker/standalone/internal/torture/load"
	"github.com/linkerhq/linker/standalone/internal/torture/nemesis"
	"github.com/linkerhq/linker/standalone/internal/torture/system"
)

const (
	leastWarm   = 2 * time.Second
	mostWarm    = 20 * time.Second
	warmPart    = 6 // the warm phase is that part of the whole
	healedFor   = 3 * time.Second
	readyTime   = 90 * time.Second // generous: with the race detector, on a busy machine
	quiesceTime = 5 * time.Minute  // far above what it takes

	historyName = "history.jsonl"

	// contentMark is with what the padding of all contents begins that package load
	// makes: no log may hold it.
	contentMark = "é漢🙂"
)

// trial is one run.
type trial struct {
	options
	process  run.Process
	progress *progress.Line

	dir     string
	history *history.Writer
	system  *system.System
	load    *load.Load
	nemesis *nemesis.Nemesis // nil: nothing is hurt
	begun   time.Time
	warm    map[string]history.Process // by name
	waiting map[string]history.Mailbox // by domain; what was seen of it while the system ran
	// settleBy is when what is observed at the end has to be as it should.
	settleBy time.Time

	mu    sync.Mutex
	phase string // guarded by mu
}

// errInterrupted says that a signal has ended the run. Errors that follow from that
// are of no use to anybody.
var errInterrupted = errors.New("interrupted: nothing can be said of a run that did not come to its end")

// run makes everything, lets it run, and judges.
func (t *trial) run(ctx context.Context) error {
	remove, err := t.makeDir()
	if err != nil {
		return err
	}
	file := filepath.Join(t.dir, historyName)
	err = t.record(ctx, file)
	if err != nil && ctx.Err() != nil {
		err = errInterrupted
	}
	if err == nil && !t.plan {
		err = judge(file, t.json, t.process.Stdout)
	}
	if err == nil && !t.plan {
		err = t.system.Clean(context.WithoutCancel(ctx))
	}
	if err != nil && !t.plan {
		t.progress.Say("history, logs and data are in %s", t.dir)
		return err
	}
	return errors.Join(err, remove())
}

// makeDir makes the directory of the run. remove removes it, unless it is to stay.
func (t *trial) makeDir() (remove func() error, err error) {
	if t.dir = t.options.dir; t.dir != "" {
		return func() error { return nil }, os.MkdirAll(t.dir, 0o750)
	}
	if t.dir, err = os.MkdirTemp("", "linker-torture-"); err != nil {
		return nil, err
	}
	return func() error {
		if t.keep {
			t.progress.Say("history, logs and data are in %s", t.dir)
			return nil
		}
		return os.RemoveAll(t.dir)
	}, nil
}

// record runs the system, and everything that happens to it, into a history.
func (t *trial) record(ctx context.Context, file string) (err error) {
	bin := t.bin
	if bin == "" && !t.plan {
		if bin, err = t.build(ctx); err != nil {
			return err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cfg := t.systemConfig()
	cfg.Dir, cfg.Bin, cfg.Self, cfg.Environ, cfg.Report = t.dir, bin, []string{self, system.ServersCommand}, inherited(t.process.Environ), t.report
	if t.system, err = system.New(cfg); err != nil {
		return err
	}
	if t.plan {
		return errors.Join(t.printPlan(), t.system.Close())
	}
	t.system.AddSecret(contentMark)
	t.history, err = history.Create(file, history.Run{
		Seed: t.seed, Command: t.command(t.process.Args), System: fmt.Sprintf("%d domains, %s", t.domains, t.options.system), Bug: t.bug,
	})
	if err != nil {
		return errors.Join(err, t.system.Close())
	}
	t.progress.Say("seed %d: to repeat what is done and sent: %s", t.seed, t.command(t.process.Args))
	err = t.live(ctx)
	if err == nil {
		err = t.after(context.WithoutCancel(ctx))
	}
	return errors.Join(err, t.history.Close())
}

// inherited are the variables of the environment that the processes are given: what
// programs need to run at all, and nothing that sets them up.
func inherited(environ []string) []string {
	var list []string
	for _, entry := range environ {
		switch name, _, _ := strings.Cut(entry, "="); name {
		case "PATH", "HOME", "TMPDIR", "GORACE", "GOMAXPROCS":
			list = append(list, entry)
		}
	}
	return list
}

// build builds the programs from the checkout that this is run in.
func (t *trial) build(ctx context.Context) (string, error) {
	here, err := os.Getwd()
	if err != nil {
		return "", err
	}
	root, err := system.Root(here)
	if err != nil {
		return "", fmt.Errorf("the programs cannot be built: %w; --bin names a directory of built ones", err)
	}
	bin := filepath.Join(t.dir, "bin")
	if err := os.MkdirAll(bin, 0o750); err != nil {
		return "", err
	}
	b := system.Build{Root: root, Race: t.race, Programs: t.systemConfig().Programs()}
	if t.bug != "" {
		if b.Overlay, err = bugs.Overlay(t.bug, root, t.dir); err != nil {
			return "", err
		}
	}
	t.progress.Say("building the programs")
	return bin, b.Into(ctx, bin)
}

// report writes down what should not have happened.
func (t *trial) report(process, text string) {
	t.progress.Say("%s", text)
	t.history.Append(history.Op{Kind: history.KindLog, Name: process, Code: history.LogMistake, Note: text})
}

// live runs the system until all observations of it are made.
func (t *trial) live(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// The system outlives those who use it.
	base, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var serving sync.WaitGroup
	var systemErr error
	serving.Go(func() {
		if systemErr = t.system.Run(base); systemErr != nil {
			cancel(systemErr)
		}
	})
	err := t.phases(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = errors.Join(err, cause)
	}
	t.progress.Draw("ending the system")
	stop()
	serving.Wait()
	return errors.Join(err, systemErr)
}

// phases is the course of a run, while the system runs.
func (t *trial) phases(ctx context.Context) error {
	t.progress.Draw("starting the system")
	if err := t.ready(ctx); err != nil {
		return err
	}
	if err := t.makeLoad(); err != nil {
		return err
	}
	warm := min(max(t.duration/warmPart, leastWarm), mostWarm)
	if err := t.makeNemesis(t.duration - warm); err != nil {
		return err
	}
	using, leave := context.WithCancel(ctx)
	defer leave()
	var users sync.WaitGroup
	defer users.Wait()
	defer leave()
	loaded := make(chan error, 1)
	users.Go(func() { loaded <- t.load.Run(using) })
	users.Go(func() { t.watchOffsets(using) })
	users.Go(func() { t.watchMetrics(using) })
	users.Go(func() { t.showProgress(using) })

	t.begun = time.Now()
	t.enter(history.PhaseWarm)
	if err := pause(ctx, warm); err != nil {
		return err
	}
	t.warmFigures(ctx)
	t.enter(history.PhaseFaults)
	if err := t.hurt(ctx, t.duration-warm); err != nil {
		return err
	}
	t.enter(history.PhaseHealed)
	if err := pause(ctx, healedFor); err != nil {
		return err
	}
	t.enter(history.PhaseQuiesce)
	quiescing, cancel := context.WithTimeout(ctx, quiesceTime)
	defer cancel()
	rest, err := t.load.Quiesce(quiescing)
	if err != nil {
		return err
	}
	if rest != (load.Rest{}) {
		t.progress.Say("not accounted for: %d messages, %d confirmations, %d without an answer", rest.Owed, rest.Confirms, rest.Unanswered)
	}
	if err := t.observe(ctx); err != nil {
		return err
	}
	t.enter(history.PhaseEnd)
	leave()
	return <-loaded
}

// enter begins a phase.
func (t *trial) enter(phase string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.phase = phase
	t.history.Phase(phase)
}

func (t *trial) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	return t.system.Ready(ctx)
}

func (t *trial) makeLoad() error {
	cfg := load.Config{
		Seed: t.seed, Senders: t.senders, Receivers: t.receivers, Rate: t.rate, FastRate: t.fastRate, MaxSize: t.maxSize,
		History: t.history, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	for _, d := range t.system.Domains() {
		cfg.Domains = append(cfg.Domains, load.Domain{Name: d.Name, URLs: d.URLs, First: d.First})
	}
	for _, a := range t.system.Apps() {
		cfg.Apps = append(cfg.Apps, load.App{Name: a.Name, ID: a.ID, Master: string(a.Master)})
	}
	var err error
	t.load, err = load.New(cfg)
	return err
}

func (t *trial) plans(length time.Duration) nemesis.Config {
	return nemesis.Config{Seed: t.seed, Length: length, Kinds: t.faults, Shape: nemesis.ShapeOf(t.system), Gap: t.gap}
}

func (t *trial) makeNemesis(length time.Duration) error {
	if t.quiet {
		return nil
	}
	var err error
	t.nemesis, err = nemesis.New(t.plans(length), nemesis.Of(t.system), t.history)
	return err
}

// hurt hurts the system for a time, and waits until it is whole again.
func (t *trial) hurt(ctx context.Context, length time.Duration) error {
	if t.nemesis == nil {
		return pause(ctx, length)
	}
	err := t.nemesis.Run(ctx)
	if err = errors.Join(err, t.system.Heal(), ctx.Err()); err != nil {
		return err
	}
	if err := t.ready(ctx); err != nil && ctx.Err() == nil {
		t.report("the system", fmt.Sprintf("not whole %v after the last fault: %v", readyTime, err))
	}
	return ctx.Err()
}

// printPlan says what would happen when.
func (t *trial) printPlan() error {
	if t.quiet {
		return nil
	}
	warm := min(max(t.duration/warmPart, leastWarm), mostWarm)
	steps, err := nemesis.Plan(t.plans(t.duration - warm))
	if err != nil {
		return err
	}
	fmt.Fprintf(t.process.Stdout, "seed %d\n", t.seed)
	for _, step := range steps {
		for _, f := range step.Faults {
			fmt.Fprintf(t.process.Stdout, "%8.1fs  %s\n", (warm + step.At + f.After).Seconds(), f)
		}
	}
	return nil
}

// pause waits, and returns an error if ctx ends before.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// showProgress tells every second how far it is.
func (t *trial) showProgress(ctx context.Context) {
	ticker := time.NewTicker(progress.Often)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		t.mu.Lock()
		phase, begun := t.phase, t.begun
		t.mu.Unlock()
		if phase == "" {
			continue
		}
		counts := t.load.Counts()
		line := fmt.Sprintf("%s of %s  %s  accepted %d  delivered %d", clock(time.Since(begun)), clock(t.duration), phase, counts.Accepted, counts.Delivered)
		if counts.Unanswered > 0 {
			line += fmt.Sprintf("  unanswered %d", counts.Unanswered)
		}
		if t.nemesis != nil {
			faults := 0
			for _, n := range t.nemesis.Counts() {
				faults += n
			}
			line += fmt.Sprintf("  faults %d", faults)
			if now := t.nemesis.Now(); len(now) > 0 {
				line += "  " + strings.Join(now, ", ")
			}
		}
		t.progress.Draw(line)
	}
}

// clock writes a duration as minutes and seconds.
func clock(d time.Duration) string {
	s := int(d.Seconds())
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}
