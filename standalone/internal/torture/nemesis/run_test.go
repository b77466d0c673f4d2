package nemesis_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/linkerhq/linker/standalone/internal/torture/history"
	"github.com/linkerhq/linker/standalone/internal/torture/nemesis"
)

// hurtable is a system that only notes what is done to it.
type hurtable struct {
	mu      sync.Mutex
	targets map[string]*target
	links   map[string]*link
	moved   map[string]string
	flushed int
	haunted int
	ops     []history.Op
	broken  bool // nothing can be started
}

func newHurtable(shape nemesis.Shape) *hurtable {
	h := &hurtable{targets: map[string]*target{}, links: map[string]*link{}, moved: map[string]string{}}
	for _, list := range [][]nemesis.Place{shape.Connectors, shape.Processors, shape.Servers, {{Name: shape.Metaserver}}} {
		for _, p := range list {
			h.targets[p.Name] = &target{system: h, ended: make(chan struct{}), runs: true}
		}
	}
	for _, l := range shape.Links {
		h.links[l[0]+l[1]] = &link{system: h}
	}
	return h
}

func (h *hurtable) Append(op history.Op) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, op)
}

func (h *hurtable) Target(name string) (nemesis.Target, error) {
	if t := h.targets[name]; t != nil {
		return t, nil
	}
	return nil, fmt.Errorf("no target %q", name)
}

func (h *hurtable) Link(a, b string) (nemesis.Link, error) {
	for _, name := range []string{a + b, b + a} {
		if l := h.links[name]; l != nil {
			return l, nil
		}
	}
	return nil, fmt.Errorf("no link between %s and %s", a, b)
}

func (h *hurtable) Flush(context.Context, string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.flushed++
	return nil
}

func (h *hurtable) Move(from, to string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if delete(h.moved, from); from != to {
		h.moved[from] = to
	}
	return nil
}

func (h *hurtable) Haunt(ctx context.Context, _ string) error {
	h.mu.Lock()
	h.haunted++
	h.mu.Unlock()
	<-ctx.Done()
	return nil
}

// whole says what is not whole.
func (h *hurtable) whole() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var wrong []error
	for name, t := range h.targets {
		if !t.runs || t.frozen || t.armed != "" {
			wrong = append(wrong, fmt.Errorf("%s: runs %t, frozen %t, armed %q", name, t.runs, t.frozen, t.armed))
		}
	}
	for name, l := range h.links {
		if l.hurt {
			wrong = append(wrong, fmt.Errorf("link %s is not healed", name))
		}
	}
	if len(h.moved) > 0 {
		wrong = append(wrong, fmt.Errorf("moved: %v", h.moved))
	}
	return errors.Join(wrong...)
}

type target struct {
	system *hurtable
	ended  chan struct{}
	runs   bool
	frozen bool
	armed  string
	starts int
}

func (t *target) lock() func() {
	t.system.mu.Lock()
	return t.system.mu.Unlock
}

func (t *target) end() {
	if t.runs {
		close(t.ended)
	}
	t.runs, t.frozen, t.armed = false, false, ""
}

func (t *target) Kill() error {
	defer t.lock()()
	t.end()
	return nil
}

func (t *target) Terminate() error {
	defer t.lock()()
	t.end()
	return nil
}

func (t *target) Stop() error {
	defer t.lock()()
	t.frozen = true
	return nil
}

func (t *target) Continue() error {
	defer t.lock()()
	t.frozen = false
	return nil
}

func (t *target) Start(failpoints string) error {
	defer t.lock()()
	if t.system.broken {
		return errors.New("it cannot be started")
	}
	if t.runs {
		return nil
	}
	t.runs, t.armed, t.ended, t.starts = true, failpoints, make(chan struct{}), t.starts+1
	if t.starts%2 == 0 && failpoints != "" { // some die of it
		t.end()
	}
	return nil
}

func (t *target) Ended() <-chan struct{} {
	defer t.lock()()
	return t.ended
}

type link struct {
	system *hurtable
	hurt   bool
	times  int
}

func (l *link) set(hurt bool) {
	l.system.mu.Lock()
	defer l.system.mu.Unlock()
	l.hurt = hurt
	l.times++
}

func (l *link) Cut()                { l.set(true) }
func (l *link) Swallow()            { l.set(true) }
func (l *link) SwallowForth()       { l.set(true) }
func (l *link) Delay(time.Duration) { l.set(true) }
func (l *link) Heal()               { l.set(false) }

func TestEveryFaultIsWrittenDownAndUndone(t *testing.T) {
	t.Parallel()
	kinds := make([]nemesis.Kind, 0, len(nemesis.Descriptions()))
	for _, d := range nemesis.Descriptions() {
		kinds = append(kinds, d.Kind)
	}
	for seed := range uint64(3) {
		synctest.Test(t, func(t *testing.T) {
			shape := three()
			h := newHurtable(shape)
			const length = 30 * time.Minute
			n, err := nemesis.New(nemesis.Config{Seed: seed, Length: length, Shape: shape, Kinds: kinds}, h, h)
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			if err := n.Run(t.Context()); err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took > length {
				t.Errorf("it took %v", took)
			}
			if err := h.whole(); err != nil {
				t.Error(err)
			}
			lasting := map[int64]string{}
			seen := map[string]bool{}
			for _, op := range h.ops {
				f := op.Fault
				if f.End {
					if lasting[f.Number] != f.Kind {
						t.Errorf("%+v ends, and it was %q that began", f, lasting[f.Number])
					}
					delete(lasting, f.Number)
					continue
				}
				lasting[f.Number] = f.Kind
				seen[f.Kind] = true
				if f.Kill != (f.Kind == string(nemesis.ConnectorKill)) && f.Kill || f.Kill && len(f.URLs) != 1 {
					t.Errorf("got %+v", f)
				}
			}
			if len(lasting) > 0 || len(n.Now()) > 0 {
				t.Errorf("%v, %v did not end", lasting, n.Now())
			}
			for _, d := range nemesis.Descriptions() {
				if possible := d.Kind != nemesis.StandaloneKill && d.Kind != nemesis.StandaloneStop && d.Kind != nemesis.StandaloneRestart && d.Kind != nemesis.StandaloneFailpoint; seen[string(d.Kind)] != possible {
					t.Errorf("%s was seen: %t", d.Kind, seen[string(d.Kind)])
				}
			}
			if h.flushed == 0 || h.haunted == 0 || h.links["domain-01domain-02"].times == 0 {
				t.Error("no flush, no zombie, or nothing done to a link")
			}
		})
	}
}

func TestWhatIsInterruptedIsUndone(t *testing.T) {
	t.Parallel()
	for _, kind := range []nemesis.Kind{
		nemesis.ConnectorKill, nemesis.ProcessorStop, nemesis.ProcessorFailpoint, nemesis.LinkShut, nemesis.RangeMove, nemesis.NetworkKill, nemesis.DomainKill,
	} {
		synctest.Test(t, func(t *testing.T) {
			shape := three()
			h := newHurtable(shape)
			n, err := nemesis.New(nemesis.Config{Length: time.Hour, Shape: shape, Kinds: []nemesis.Kind{kind}}, h, h)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond) // the first fault begins after 1 s
			defer cancel()
			if err := n.Run(ctx); err != nil {
				t.Error(err)
			}
			if err := h.whole(); err != nil {
				t.Error(err)
			}
			if len(h.ops) == 0 || len(h.ops)%2 != 0 {
				t.Errorf("%s: got %d operations", kind, len(h.ops))
			}
		})
	}
}

func TestWhatCannotBeUndoneIsSaid(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		shape := three()
		h := newHurtable(shape)
		h.broken = true
		n, err := nemesis.New(nemesis.Config{Length: 10 * time.Second, Shape: shape, Kinds: []nemesis.Kind{nemesis.MetaserverKill}}, h, h)
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Run(t.Context()); err == nil {
			t.Error("no error")
		}
		if !slices.ContainsFunc(h.ops, func(op history.Op) bool { return op.Fault.End }) {
			t.Error("the fault did not end")
		}
	})
}
