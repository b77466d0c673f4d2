package load_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/linkerhq/linker/pkg/polltest"
	"github.com/linkerhq/linker/standalone/internal/proxy"
	"github.com/linkerhq/linker/standalone/internal/stack"
	"github.com/linkerhq/linker/standalone/internal/torture/history"
	"github.com/linkerhq/linker/standalone/internal/torture/load"
	"github.com/linkerhq/linker/standalone/internal/torture/verdict"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// network is a network of domains in this process, which can be stopped and started
// again: its users know it by proxies, which stay.
type network struct {
	t       *testing.T
	data    string
	domains int
	proxies []*proxy.Proxy
	stop    func() // stops it; owned by the test

	mu    sync.Mutex
	stack *stack.Stack // guarded by mu; nil: none runs
}

func newNetwork(t *testing.T, domains int) *network {
	t.Helper()
	n := &network{t: t, data: filepath.Join(t.TempDir(), "data"), domains: domains}
	for i := range domains {
		p, err := proxy.New("127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		p.Find(func() string { return n.address(i) })
		background(t, p.Run)
		n.proxies = append(n.proxies, p)
	}
	n.start()
	return n
}

// address is where a domain takes sockets now; "": nowhere.
func (n *network) address(domain int) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stack == nil {
		return ""
	}
	return strings.TrimSuffix(strings.TrimPrefix(n.stack.Places()[domain].Websocket, "ws://"), "/ws")
}

func (n *network) start() {
	n.t.Helper()
	s, err := stack.New(stack.Config{Data: n.data, Domains: n.domains, Host: "127.0.0.1", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		n.t.Fatal(err)
	}
	stop := background(n.t, s.Run)
	n.mu.Lock()
	n.stack = s
	n.mu.Unlock()
	n.stop = func() {
		n.mu.Lock()
		n.stack = nil
		n.mu.Unlock()
		stop()
	}
	ctx, cancel := context.WithTimeout(n.t.Context(), time.Minute)
	defer cancel()
	if err := s.Ready(ctx); err != nil {
		n.t.Fatal(err)
	}
}

// background runs something until the test ends, or its caller stops it.
func background(t *testing.T, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("it ended with %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// config is a load for the network that a stack describes for itself.
func (n *network) config(seed uint64) load.Config {
	cfg := load.Config{
		Seed: seed, Receivers: 32, Rate: 150, FastRate: 40,
		Apps: []load.App{{Name: "ANZ", ID: "app-id-343", Master: "ANZ-123223"}},
	}
	for i, p := range n.proxies {
		n.mu.Lock()
		name := n.stack.Places()[i].Domain
		n.mu.Unlock()
		cfg.Domains = append(cfg.Domains, load.Domain{Name: name, URLs: []string{"ws://" + p.Addr()}, First: int64(i) * 1_000_000})
	}
	return cfg
}

// drive runs a load, lets something happen while messages flow, and returns what
// could not be accounted for and the verdict.
func drive(t *testing.T, cfg load.Config, during func(*history.Writer, *load.Load)) (load.Rest, *verdict.Report) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "history.jsonl")
	w, err := history.Create(path, history.Run{Seed: cfg.Seed})
	if err != nil {
		t.Fatal(err)
	}
	cfg.History = w
	l, err := load.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.Phase(history.PhaseWarm)
	stop := background(t, l.Run)
	flows(t, l, 600)
	during(w, l)
	w.Phase(history.PhaseQuiesce)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	rest, err := l.Quiesce(ctx)
	if err != nil {
		t.Error(err)
	}
	open := l.Sockets()
	for user, sockets := range open {
		if sockets != 1 {
			t.Errorf("at the end %s has %d sockets", user, sockets)
		}
	}
	if len(open) < cfg.Receivers {
		t.Errorf("at the end only %d users have sockets", len(open))
	}
	w.Phase(history.PhaseEnd)
	stop()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := verdict.Check(path)
	if err != nil {
		t.Fatal(err)
	}
	return rest, r
}

// flows waits until so many messages more have been delivered.
func flows(t *testing.T, l *load.Load, more int64) {
	t.Helper()
	before := l.Counts().Delivered
	polltest.Within(t, time.Minute, "messages flowed", func() bool { return l.Counts().Delivered >= before+more })
}

func table(t *testing.T, r *verdict.Report) string {
	t.Helper()
	var b strings.Builder
	if err := r.WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestALoadOnASystemWithoutFaultsIsClean(t *testing.T) {
	t.Parallel()
	rest, r := drive(t, newNetwork(t, 2).config(7), func(_ *history.Writer, l *load.Load) { flows(t, l, 600) })
	if !r.OK() || rest != (load.Rest{}) || r.Counts.DisorderRaw > 0 || r.Counts.Refused+r.Counts.Unknown > 0 {
		t.Errorf("left are %+v, and the verdict is\n%s", rest, table(t, r))
	}
	if c := r.Counts; c.Accepted < 500 || c.Confirmed == 0 || c.FastDelivered == 0 || c.Sockets < 60 || c.Presence < 60 {
		t.Errorf("too little has happened:\n%s", table(t, r))
	}
}

func TestALoadComesBackAfterEveryFault(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, 1)
	number := int64(0)
	rest, r := drive(t, n.config(8), func(w *history.Writer, l *load.Load) {
		w.Phase(history.PhaseFaults)
		for kind, fault := range map[string]func(){
			"sockets-cut":     n.proxies[0].Cut, // accepts none, too
			"sockets-swallow": func() { n.proxies[0].Swallow(proxy.Both) },
			"stack-restart":   n.stop,
		} {
			number++
			f := history.Fault{Number: number, Kind: kind}
			w.Append(history.Op{Kind: history.KindFault, Fault: &f})
			before := l.Counts().Broken
			fault()
			polltest.Eventually(t, "sockets broke", func() bool { return l.Counts().Broken > before+5 })
			n.proxies[0].Heal()
			if kind == "stack-restart" {
				n.start()
			}
			end := f
			end.End = true
			w.Append(history.Op{Kind: history.KindFault, Fault: &end})
			flows(t, l, 600)
		}
	})
	if !r.OK() || rest != (load.Rest{}) {
		t.Errorf("left are %+v, and the verdict is\n%s", rest, table(t, r))
	}
	if len(r.Faults) != 3 || r.Counts.Broken == 0 {
		t.Errorf("too little has happened:\n%s", table(t, r))
	}
}

func TestALoadFindsWhatASystemHasLost(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for what never comes")
	}
	n := newNetwork(t, 1)
	rest, r := drive(t, n.config(9), func(w *history.Writer, l *load.Load) {
		w.Phase(history.PhaseFaults)
		polltest.Eventually(t, "something waits for somebody", func() bool { return l.Counts().Owed > 20 })
		f := history.Fault{Number: 1, Kind: "amnesia"}
		w.Append(history.Op{Kind: history.KindFault, Fault: &f})
		n.stop()
		if err := os.RemoveAll(n.data); err != nil {
			t.Fatal(err)
		}
		n.start()
		f.End = true
		w.Append(history.Op{Kind: history.KindFault, Fault: &f})
		flows(t, l, 300)
	})
	if rest.Owed == 0 || r.Broken[verdict.I1] == 0 || r.Counts.Lost == 0 || len(r.Violations) == 0 {
		t.Fatalf("left are %+v, and the verdict is\n%s", rest, table(t, r))
	}
	for _, v := range r.Violations {
		if v.Invariant == verdict.I1 && len(v.Events) < 2 {
			t.Errorf("it tells nothing of %s", v.Text)
		}
	}
}

func TestAConfigThatCannotBeUsedNamesEveryMistake(t *testing.T) {
	t.Parallel()
	_, err := load.New(load.Config{
		Apps: []load.App{{Name: "ANZ", Master: "BNZ-1"}}, Domains: []load.Domain{{Name: "domain-01"}},
		Senders: 201, Rate: -1, MaxSize: 1, Groups: 2,
	})
	for _, want := range []string{
		"History: none", "domain-01 has no URLs", `the master "BNZ-1", expected a user of ANZ`, "Senders: 201, expected at most 200",
		"Rate: 0, expected more than 0", "MaxSize: 1, expected 100 to 60000", "Groups: 2, expected at most 1",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
