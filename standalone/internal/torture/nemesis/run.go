package nemesis

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/linkerhq/linker/pkg/failpoint"
	"github.com/linkerhq/linker/standalone/internal/torture/history"
)

const (
	// frozen is how long a process goes on that stopped itself at a failpoint, before
	// it is started without: time to do harm with what it believed before.
	frozen = 3 * time.Second
	// servesWithin is how long a Redis may take until it serves after its start.
	servesWithin = 10 * time.Second
	lookAgain    = 100 * time.Millisecond
	// hanging is how long what hangs does so until it is killed.
	hanging = 2 * time.Second
	// delayOfLinks is what LinkDelay adds each way.
	delayOfLinks = 200 * time.Millisecond
	// comeBack is how long a process stays away that has died at a failpoint, at least;
	// at most as much again.
	comeBack = 500 * time.Millisecond
)

// Target is a process that can be hurt.
type Target interface {
	Kill() error
	Terminate() error
	Stop() error
	Continue() error
	Start(failpoints string) error
	// Ended is closed at the end of the process that was started last.
	Ended() <-chan struct{}
}

// Link is a link between two domains.
type Link interface {
	Cut()
	Swallow()
	SwallowForth() // what the first of the two sends
	Delay(delay time.Duration)
	Heal()
}

// System is what is hurt.
type System interface {
	Target(name string) (Target, error)
	Link(a, b string) (Link, error)
	Flush(ctx context.Context, domain string) error
	Move(from, to string) error
	// Haunt delivers in the name of former owners of a domain's lanes until ctx ends.
	Haunt(ctx context.Context, domain string) error
}

// Journal takes what happens.
type Journal interface {
	Append(op history.Op)
}

// Nemesis carries out a plan.
type Nemesis struct {
	system  System
	journal Journal
	plan    []Step
	length  time.Duration
	gap     time.Duration
	random  *rand.Rand // owned by the goroutine of Run

	mu     sync.Mutex
	number int64            // guarded by mu; of the last fault
	now    map[int64]string // guarded by mu; what lasts now, by number
	counts map[Kind]int     // guarded by mu
	failed error            // guarded by mu
}

// New returns a nemesis that starts nothing.
func New(cfg Config, system System, journal Journal) (*Nemesis, error) {
	plan, err := Plan(cfg)
	if err != nil {
		return nil, err
	}
	if cfg.Gap == 0 {
		cfg.Gap = standardGap
	}
	return &Nemesis{
		system: system, journal: journal, plan: plan, length: cfg.Length, gap: cfg.Gap,
		random: rand.New(rand.NewPCG(cfg.Seed, streamOfPlans+1)), now: map[int64]string{}, counts: map[Kind]int{},
	}, nil
}

// Plan returns what will happen.
func (n *Nemesis) Plan() []Step { return n.plan }

// Now says what lasts at this moment.
func (n *Nemesis) Now() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := make([]string, 0, len(n.now))
	for number := range n.number {
		if text, is := n.now[number+1]; is {
			list = append(list, text)
		}
	}
	return list
}

// Counts returns how many faults of each kind have begun.
func (n *Nemesis) Counts() map[Kind]int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.counts)
}

// Run carries out the plan, and returns when it is over or ctx ends: then every fault
// has ended. Where steps take longer than planned, because a restart does, the next
// ones come later, and those that would not end in time any more are left out. The
// error says what could not be done.
func (n *Nemesis) Run(ctx context.Context) error {
	began := time.Now()
	var free time.Duration // when the next step may begin
	for _, step := range n.plan {
		at := max(step.At, free)
		if at+step.length() > n.length || !sleep(ctx, at-time.Since(began)) {
			break
		}
		n.step(ctx, step)
		free = time.Since(began) + n.gap
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.failed
}

// step carries out a step, and returns when all of its faults have ended.
func (n *Nemesis) step(ctx context.Context, step Step) {
	pauses := make([]time.Duration, len(step.Faults))
	for i := range pauses {
		pauses[i] = comeBack + time.Duration(n.random.Int64N(int64(comeBack)))
	}
	var running sync.WaitGroup
	for i, f := range step.Faults {
		running.Go(func() {
			if !sleep(ctx, f.After) {
				return
			}
			number := n.begin(f, step.alone(f))
			err := n.carryOut(ctx, f, pauses[i])
			n.end(f, number, err)
		})
	}
	running.Wait()
}

// alone says whether nothing but f disturbs anybody.
func (s Step) alone(f Fault) bool {
	return !f.harmless() && len(slices.DeleteFunc(slices.Clone(s.Faults), Fault.harmless)) == 1
}

// harmless says whether nobody may notice anything of the fault.
func (f Fault) harmless() bool { return f.Kind == Zombie }

// operation is what the history says of a fault.
func (f Fault) operation(number int64, end, alone bool) history.Op {
	t, _ := traitOf(f.Kind) // it is one of them
	return history.Op{Kind: history.KindFault, Fault: &history.Fault{
		Number: number, Kind: string(f.Kind), Target: f.target(), End: end, Domains: f.domains, URLs: f.urls,
		Kill:  f.Kind == ConnectorKill && alone,
		Links: t.act == actLink, Moves: t.act == actMove, Harmless: f.harmless(),
	}}
}

// target is what is hit, with what is special about it.
func (f Fault) target() string {
	if f.Failpoint != "" {
		return f.Target + " " + f.Failpoint
	}
	return f.Target
}

func (n *Nemesis) begin(f Fault, alone bool) int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.number++
	n.counts[f.Kind]++
	n.now[n.number] = f.String()
	n.journal.Append(f.operation(n.number, false, alone))
	return n.number
}

func (n *Nemesis) end(f Fault, number int64, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.now, number)
	n.journal.Append(f.operation(number, true, false))
	if err != nil {
		n.failed = errors.Join(n.failed, fmt.Errorf("%s: %w", f, err))
	}
}

// carryOut does it, waits, and undoes it, even if ctx ends meanwhile.
func (n *Nemesis) carryOut(ctx context.Context, f Fault, pause time.Duration) error {
	t, err := traitOf(f.Kind)
	if err != nil {
		return err
	}
	switch t.act {
	case actKill:
		return n.during(ctx, f, Target.Kill, startAgain)
	case actStop:
		return n.during(ctx, f, Target.Stop, Target.Continue)
	case actHang:
		return n.during(ctx, f, hang, startAgain)
	case actRestart:
		return n.during(ctx, f, Target.Terminate, startAgain)
	case actFailpoint:
		return n.failpoint(ctx, f, pause)
	case actLink:
		return n.links(ctx, f)
	case actFlush:
		return n.flush(ctx, f.Target)
	case actHaunt:
		ctx, cancel := context.WithTimeout(ctx, f.Hold)
		defer cancel()
		return n.system.Haunt(ctx, f.Target)
	case actMove:
		err := n.system.Move(f.move[0], f.move[1])
		sleep(ctx, f.Hold)
		return errors.Join(err, n.system.Move(f.move[0], f.move[0]))
	default:
		return fmt.Errorf("nobody knows how to do that: %d", t.act)
	}
}

func startAgain(t Target) error { return t.Start("") }

// hang freezes a process, and kills it without ever letting it go on. It takes its
// time: what waits after it is less by that.
func hang(t Target) error {
	err := t.Stop()
	sleep(context.Background(), hanging)
	return errors.Join(err, t.Kill())
}

// during does something to all processes of a fault at once, waits, and undoes it.
func (n *Nemesis) during(ctx context.Context, f Fault, do, undo func(Target) error) error {
	var targets []Target
	for _, name := range f.processes {
		t, err := n.system.Target(name)
		if err != nil {
			return err
		}
		targets = append(targets, t)
	}
	began := time.Now()
	err := all(targets, do)
	if f.Kind == ServersHang {
		f.Hold -= time.Since(began)
	}
	sleep(ctx, f.Hold)
	return errors.Join(err, all(targets, undo))
}

func all(targets []Target, do func(Target) error) error {
	failed := make([]error, len(targets))
	var doing sync.WaitGroup
	for i, t := range targets {
		doing.Go(func() { failed[i] = do(t) })
	}
	doing.Wait()
	return errors.Join(failed...)
}

// failpoint starts a process so that it fails by itself, and at the end without.
func (n *Nemesis) failpoint(ctx context.Context, f Fault, pause time.Duration) error {
	t, err := n.system.Target(f.Target)
	if err != nil {
		return err
	}
	failures, err := failpoint.Parse(f.Failpoint)
	if err != nil {
		return err
	}
	if err := t.Kill(); err != nil {
		return err
	}
	if err := t.Start(f.Failpoint); err != nil {
		return err
	}
	timer := time.NewTimer(f.Hold)
	defer timer.Stop()
	select {
	case <-t.Ended():
		sleep(ctx, pause)
	case <-timer.C:
	case <-ctx.Done():
	}
	if failures[0].Action == failpoint.Stop {
		err = t.Continue()
		sleep(ctx, frozen)
	}
	return errors.Join(err, t.Kill(), t.Start(""))
}

// flush empties a Redis, which may be on its way back from an earlier fault.
func (n *Nemesis) flush(ctx context.Context, domain string) error {
	for began := time.Now(); ; {
		err := n.system.Flush(ctx, domain)
		if err == nil || time.Since(began) > servesWithin {
			return err
		}
		if !sleep(ctx, lookAgain) {
			return nil // nobody needs it any more
		}
	}
}

func (n *Nemesis) links(ctx context.Context, f Fault) error {
	var links []Link
	for _, pair := range f.links {
		l, err := n.system.Link(pair[0], pair[1])
		if err != nil {
			return err
		}
		links = append(links, l)
	}
	for _, l := range links {
		switch {
		case f.Kind == LinkPull:
			l.Swallow()
		case f.Kind == LinkDeaf:
			l.SwallowForth()
		case f.Kind == LinkDelay:
			l.Delay(delayOfLinks)
		default: // LinkCut and LinkShut
			l.Cut()
		}
	}
	sleep(ctx, f.Hold)
	for _, l := range links {
		l.Heal()
	}
	return nil
}

// sleep waits, and says whether ctx is still live.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
