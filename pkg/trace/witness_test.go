package trace_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/linkerhq/linker/pkg/broker/nats"
	"github.com/linkerhq/linker/pkg/embedded"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/polltest"
	"github.com/linkerhq/linker/pkg/trace"
)

// lost is the message that everybody is asked about.
var lost = message(9, 9)

// plane is the live plane of a domain in memory. A subscription has a goroutine of its own, as
// in the real one.
type plane struct {
	running sync.WaitGroup

	mu   sync.Mutex
	away bool                            // guarded by mu
	subs map[string]map[chan []byte]bool // guarded by mu
}

var errAway = errors.New("away")

func (p *plane) Publish(subject string, data []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.away {
		return errAway
	}
	for sub := range p.subs[subject] {
		select {
		case sub <- slices.Clone(data):
		default:
			panic("the test has no room")
		}
	}
	return nil
}

func (p *plane) Subscribe(subject string, handle func([]byte)) (func() error, error) {
	sub := make(chan []byte, 10000)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.subs == nil {
		p.subs = map[string]map[chan []byte]bool{}
	}
	if p.subs[subject] == nil {
		p.subs[subject] = map[chan []byte]bool{}
	}
	p.subs[subject][sub] = true
	p.running.Go(func() {
		for data := range sub {
			handle(data)
		}
	})
	return sync.OnceValue(func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.subs[subject], sub)
		close(sub)
		return nil
	}), nil
}

// rows is a mailbox.
type rows struct {
	found []trace.Found
	err   error
	slow  time.Duration

	mu    sync.Mutex
	looks [][]trace.Look   // guarded by mu
	scans [][]ident.UserID // guarded by mu

	scanning, most int // guarded by mu; scans at once, now and at most
}

func (r *rows) Look(ctx context.Context, message ident.MessageID, looks []trace.Look) ([]trace.Found, error) {
	r.mu.Lock()
	r.looks = append(r.looks, looks)
	r.mu.Unlock()
	if message != lost {
		return nil, nil
	}
	select {
	case <-time.After(r.slow):
		return r.found, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (r *rows) Scan(_ context.Context, _ ident.MessageID, users []ident.UserID) ([]trace.Found, bool, error) {
	r.mu.Lock()
	r.scans = append(r.scans, users)
	r.scanning++
	r.most = max(r.most, r.scanning)
	r.mu.Unlock()
	time.Sleep(r.slow)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.scanning--
	return r.found, r.err == nil, r.err
}

func (r *rows) looked() [][]trace.Look {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.looks)
}

// process is a process with its witness.
type process struct {
	*trace.Witness
	log     *trace.Log
	metrics *prometheus.Registry
}

// country is several domains, joined by links.
type country struct {
	t       *testing.T
	links   map[string][]string
	planes  map[string]*plane
	rows    map[string]*rows
	doors   map[string][]*process // the connectors of each domain
	running sync.WaitGroup
	ctx     context.Context

	mu    sync.Mutex
	asked []string                                         // guarded by mu; who was asked by whom
	mute  map[string]func(context.Context) ([]byte, error) // guarded by mu; domains that say something else
}

// newCountry joins domains; links are pairs of them.
func newCountry(t *testing.T, links ...[2]string) *country {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c := &country{
		t: t, ctx: ctx, links: map[string][]string{}, planes: map[string]*plane{}, rows: map[string]*rows{}, doors: map[string][]*process{},
		mute: map[string]func(context.Context) ([]byte, error){},
	}
	for _, l := range links {
		c.links[l[0]] = append(c.links[l[0]], l[1])
		c.links[l[1]] = append(c.links[l[1]], l[0])
	}
	t.Cleanup(func() {
		cancel()
		c.running.Wait()
		for _, p := range c.planes {
			p.running.Wait()
		}
	})
	return c
}

// neighbours are the links of one domain.
type neighbours struct {
	c      *country
	domain string
}

func (n neighbours) Neighbours() []string { return slices.Clone(n.c.links[n.domain]) }

// Ask asks the connectors of the neighbour in turn.
func (n neighbours) Ask(ctx context.Context, neighbour string, question []byte) ([]byte, error) {
	n.c.mu.Lock()
	n.c.asked = append(n.c.asked, n.domain+" "+neighbour)
	turn, mute := len(n.c.asked), n.c.mute[neighbour]
	n.c.mu.Unlock()
	if mute != nil {
		return mute(ctx)
	}
	doors := n.c.doors[neighbour]
	return doors[turn%len(doors)].Asked(ctx, n.domain, question), nil
}

// add starts a process; a processor is one with rows.
func (c *country) add(domain, service, name string, change ...func(*trace.Config)) *process {
	c.t.Helper()
	if c.planes[domain] == nil {
		c.planes[domain], c.rows[domain] = &plane{}, &rows{}
	}
	place := trace.Place{Domain: domain, Service: service, Name: name}
	p := &process{log: trace.NewLog(place, 1, nil), metrics: prometheus.NewRegistry()}
	cfg := trace.Config{Place: place, Log: p.log, Plane: c.planes[domain], Logger: slog.New(slog.DiscardHandler), Metrics: p.metrics}
	if service == trace.Processor {
		cfg.Rows, cfg.Neighbours = c.rows[domain], neighbours{c, domain}
	}
	for _, f := range change {
		f(&cfg)
	}
	var err error
	if p.Witness, err = trace.NewWitness(cfg); err != nil {
		c.t.Fatal(err)
	}
	if service == trace.Connector {
		c.doors[domain] = append(c.doors[domain], p)
	}
	c.running.Go(func() {
		if err := p.Run(c.ctx); err != nil {
			c.t.Error(err)
		}
	})
	synctest.Wait()
	return p
}

// domain starts two connectors and two processors, each of which knows something.
func (c *country) domain(name string) (processors []*process) {
	for i := range 2 {
		c.add(name, trace.Connector, fmt.Sprintf("c%d", i)).log.Add(c.event(trace.Received, i))
		p := c.add(name, trace.Processor, fmt.Sprintf("p%d", i))
		p.log.Add(c.event(trace.Taken, i))
		processors = append(processors, p)
	}
	return processors
}

func (c *country) event(kind trace.Kind, n int) trace.Event {
	return trace.Event{At: at, Kind: kind, Message: lost, User: "ANZ-1", Lane: n, Offset: int64(n)}
}

// said is a report in words: how many events of each domain, and who is missing.
func said(r trace.Report) string {
	events := map[string]int{}
	for _, e := range r.Events {
		events[e.Place.Domain]++
	}
	asked := map[string]int{}
	for _, p := range r.Asked {
		asked[p.Domain]++
	}
	return fmt.Sprintf("events %v asked %v missing %v", events, asked, r.Missing)
}

func (c *country) want(what string, r trace.Report, want string) {
	c.t.Helper()
	if got := said(r); got != want {
		c.t.Errorf("%s:\n got %s\nwant %s", what, got, want)
	}
}

func TestEverybodyOfADomainIsAskedOverNATS(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	server, err := embedded.NATS(0, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	t.Cleanup(running.Wait)
	t.Cleanup(cancel)
	start := func(service, name string) *process {
		conn, err := nats.Connect(nats.Config{Server: nats.Server{URL: server.URL()}, Name: name, Log: log, Metrics: prometheus.NewRegistry()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(conn.Close)
		polltest.Eventually(t, "there is a live plane", conn.Connected)
		p := &process{log: trace.NewLog(trace.Place{Domain: "d", Service: service, Name: name}, 1, nil)}
		if p.Witness, err = trace.NewWitness(trace.Config{
			Place: trace.Place{Domain: "d", Service: service, Name: name}, Log: p.log, Plane: nats.Plane{Conn: conn}, Logger: log, Metrics: prometheus.NewRegistry(),
			Rows: &rows{}, Expected: func() []string { return []string{"c0", "c1", "gone"} },
		}); err != nil {
			t.Fatal(err)
		}
		running.Go(func() {
			if err := p.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		return p
	}
	var want []trace.Event
	var asker *process
	for i, service := range []string{trace.Connector, trace.Connector, trace.Processor, trace.Processor} {
		p := start(service, fmt.Sprintf("%c%d", service[0], i%2))
		e := trace.Event{At: at, Kind: trace.Taken, Message: lost, User: "ANZ-1", Lane: i, Offset: int64(i)}
		p.log.Add(e)
		e.Place = trace.Place{Domain: "d", Service: service, Name: fmt.Sprintf("%c%d", service[0], i%2)}
		want = append(want, e)
		asker = p
	}
	var r trace.Report
	polltest.Eventually(t, "all have subscribed and answer", func() bool {
		r = asker.Ask(ctx, lost, nil)
		return len(r.Asked) == 4
	})
	slices.SortFunc(r.Events, func(a, b trace.Event) int { return a.Lane - b.Lane })
	if !reflect.DeepEqual(r.Events, want) || !slices.Equal(r.Missing, []string{"d/gone"}) {
		t.Errorf("got\n%+v\nwant\n%+v; missing %v", r.Events, want, r.Missing)
	}
}

func TestNeighboursAskTheirNeighbours(t *testing.T) {
	t.Parallel()
	for name, links := range map[string][][2]string{
		"a line": {{"a", "b"}, {"b", "c"}},
		"a ring": {{"a", "b"}, {"b", "c"}, {"c", "a"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := newCountry(t, links...)
			asker := c.domain("a")[1]
			c.domain("b")
			c.domain("c")
			began := time.Now()
			r := asker.Ask(t.Context(), lost, nil)
			c.want(name, r, "events map[a:4 b:4 c:4] asked map[a:4 b:4 c:4] missing []")
			if took := time.Since(began); took > 400*time.Millisecond {
				t.Errorf("%s: it took %v", name, took)
			}
			for domain, r := range c.rows {
				looks := r.looked()
				if len(looks) == 0 || len(looks[0]) != 2 || looks[0][0].User != "ANZ-1" {
					t.Errorf("%s: in the mailbox of %s was looked at %v", name, domain, looks)
				}
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			if len(c.asked) > 3*4 { // each of two processors asks each neighbour at most
				t.Errorf("%s: %v", name, c.asked)
			}
		})
	}
}

func TestWhatWaitsIsFoundInEveryDomain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCountry(t, [2]string{"a", "b"})
		asker := c.domain("a")[0]
		c.domain("b")
		here, there := trace.Found{Domain: "a", User: "ANZ-1", Wait: trace.OnRoad, Towards: "b"}, trace.Found{Domain: "b", User: "ANZ-1", Wait: trace.InMailbox, Since: 5}
		c.rows["a"].found, c.rows["b"].found = []trace.Found{here}, []trace.Found{there}
		r := asker.Ask(t.Context(), lost, nil)
		if len(r.Found) != 2 || !slices.Contains(r.Found, here) || !slices.Contains(r.Found, there) {
			t.Errorf("found %+v", r.Found)
		}
		r = asker.Ask(t.Context(), message(1, 1), []ident.UserID{"ANZ-5"})
		c.rows["b"].mu.Lock()
		defer c.rows["b"].mu.Unlock()
		if len(r.Events) != 0 || len(r.Found) != 2 || len(c.rows["b"].scans) < 2 || c.rows["b"].scans[0][0] != "ANZ-5" {
			t.Errorf("a message of which nothing is remembered: found %+v, %v", r.Found, c.rows["b"].scans)
		}
	})
}

func TestFewMailboxesAreLookedThroughAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCountry(t)
		asker := c.add("a", trace.Processor, "p")
		c.rows["a"].slow = 600 * time.Millisecond
		var all sync.WaitGroup
		var cut atomic.Int32
		for range 7 {
			all.Go(func() {
				if asker.Ask(t.Context(), message(1, 1), []ident.UserID{"ANZ-5"}).Cut {
					cut.Add(1)
				}
			})
		}
		all.Wait()
		if most, cut := c.rows["a"].most, cut.Load(); most != 2 || cut != 3 { // two and two in the second that each may take
			t.Errorf("%d at once, %d questions without", most, cut)
		}
	})
}

func TestWhoDoesNotAnswerIsMissing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCountry(t, [2]string{"a", "b"}, [2]string{"b", "c"}, [2]string{"a", "d"})
		asker := c.domain("a")[0]
		c.domain("b")
		c.domain("c")
		c.domain("d")
		began := time.Now()
		c.mute["c"] = func(ctx context.Context) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() }
		c.mute["d"] = func(context.Context) ([]byte, error) { return nil, errAway }
		c.want("one that says nothing, and one that cannot be reached", asker.Ask(t.Context(), lost, nil), "events map[a:4 b:4] asked map[a:4 b:4] missing [c d]")
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("it took %v", took)
		}
		c.mute["c"] = func(context.Context) ([]byte, error) { return []byte("nonsense"), nil }
		delete(c.mute, "d")
		c.want("one that talks nonsense", asker.Ask(t.Context(), lost, nil), "events map[a:4 b:4 d:4] asked map[a:4 b:4 d:4] missing [c]")
	})
}

func TestAMailboxThatIsAwayIsMissing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCountry(t, [2]string{"a", "b"})
		asker := c.domain("a")[0]
		c.domain("b")
		c.rows["a"].err = errAway
		c.rows["b"].slow = time.Minute
		began := time.Now()
		r := asker.Ask(t.Context(), lost, nil)
		if !slices.Equal(r.Missing, []string{"a/mailbox", "b/mailbox"}) || len(r.Events) != 8 {
			t.Errorf("%s", said(r))
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestWithoutTheLivePlaneAProcessSaysWhatItKnowsItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCountry(t)
		asker := c.domain("a")[0]
		c.rows["a"].found = []trace.Found{{Domain: "a", User: "ANZ-1", Wait: trace.InMailbox}}
		c.planes["a"].mu.Lock()
		c.planes["a"].away = true
		c.planes["a"].mu.Unlock()
		r := asker.Ask(t.Context(), lost, nil)
		c.want("alone", r, "events map[a:1] asked map[a:1] missing [a/live plane]")
		if len(r.Found) != 1 {
			t.Errorf("found %+v", r.Found)
		}
	})
}

func TestAProcessThatIsSlowIsWaitedForAndOneThatIsSilentIsNot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCountry(t, [2]string{"a", "b"})
		slow := trace.Found{Domain: "b", User: "ANZ-1", Wait: trace.InMailbox}
		asker := c.add("a", trace.Processor, "p")
		c.domain("b")
		c.rows["b"].slow, c.rows["b"].found = 800*time.Millisecond, []trace.Found{slow}
		began := time.Now()
		r := asker.Ask(t.Context(), lost, nil)
		if took := time.Since(began); took < time.Second || took > 1500*time.Millisecond || !slices.Contains(r.Found, slow) {
			t.Errorf("after %v: %s, found %+v", took, said(r), r.Found)
		}
		began = time.Now()
		alone := newCountry(t)
		alone.add("x", trace.Processor, "p").Ask(t.Context(), lost, nil)
		if took := time.Since(began); took != 300*time.Millisecond {
			t.Errorf("nobody else is there: it took %v", took)
		}
	})
}

// forged is a question as a neighbour might put it.
func forged(t *testing.T, change func(*trace.Question)) []byte {
	t.Helper()
	q := trace.Question{Message: lost, Within: time.Second, Path: []string{"b"}}
	q.ID[0] = byte(time.Now().UnixNano())
	change(&q)
	return trace.AppendQuestion(q)
}

func TestANeighbourIsAnsweredOnlyAsOftenAsIsFair(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCountry(t)
		door := c.add("a", trace.Connector, "c")
		door.log.Add(c.event(trace.Accepted, 1))
		n := 0
		ask := func(neighbour string) bool {
			n++
			return len(door.Asked(t.Context(), neighbour, forged(t, func(q *trace.Question) {
				q.ID[1], q.ID[2], q.Path[0] = byte(n), byte(n>>8), neighbour
			}))) > 0
		}
		answered := 0
		for range 50 { // each takes 300 ms, in which one and a half more are allowed
			if ask("b") {
				answered++
			}
		}
		if answered != 50 {
			t.Errorf("who asks one question after another gets %d answers", answered)
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		answered = 0
		for range 50 {
			question := forged(t, func(q *trace.Question) { n++; q.ID[1], q.ID[2], q.Path[0] = byte(n), byte(n>>8), "z" })
			wg.Go(func() {
				if len(door.Asked(t.Context(), "z", question)) > 0 {
					mu.Lock()
					answered++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if answered != 8 {
			t.Errorf("who asks 50 at once gets %d answers, want as many as may be under way", answered)
		}
		if got := counter(t, door, "linker_trace_refused_total", "busy") + counter(t, door, "linker_trace_refused_total", "rate"); got != 42 {
			t.Errorf("%v refusals are counted", got)
		}
		if got := counter(t, door, "linker_trace_questions_total", "neighbour"); got != 58 {
			t.Errorf("%v answers are counted", got)
		}
		if problems, err := testutil.GatherAndLint(door.metrics); err != nil || len(problems) > 0 {
			t.Errorf("metrics: %v, %v", problems, err)
		}
	})
}

func counter(t *testing.T, p *process, name, label string) float64 {
	t.Helper()
	families, err := p.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && m.GetLabel()[0].GetValue() == label {
				return m.GetCounter().GetValue()
			}
		}
	}
	return -1
}

func TestAQuestionIsAnsweredOnceAndOnlyIfItIsOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCountry(t)
		door := c.add("a", trace.Connector, "c")
		good := forged(t, func(*trace.Question) {})
		if len(door.Asked(t.Context(), "b", good)) == 0 {
			t.Fatal("a good question is not answered")
		}
		first := len(door.Asked(t.Context(), "b", forged(t, func(q *trace.Question) { q.ID[5] = 1 })))
		if again := len(door.Asked(t.Context(), "b", good)); again == 0 || again >= first {
			t.Errorf("a question that is known gets %d bytes, one that is not %d", again, first)
		}
		for what, question := range map[string][]byte{
			"nonsense":                    []byte("x"),
			"it comes from somebody else": forged(t, func(q *trace.Question) { q.ID[6], q.Path[0] = 1, "d" }),
			"it comes from nowhere":       forged(t, func(q *trace.Question) { q.ID[6], q.Path = 2, nil }),
			"it has been here":            forged(t, func(q *trace.Question) { q.ID[6], q.Path = 3, []string{"a", "b"} }),
			"it has come too far":         forged(t, func(q *trace.Question) { q.ID[6], q.Path = 4, append(slices.Repeat([]string{"x"}, 15), "b") }),
			"it says where to look":       forged(t, func(q *trace.Question) { q.ID[6], q.Looks = 5, []trace.Look{{User: "ANZ-1"}} }),
			"it says where to answer":     forged(t, func(q *trace.Question) { q.ID[6], q.Inbox = 6, 7 }),
		} {
			if answer := door.Asked(t.Context(), "b", question); len(answer) != 0 {
				t.Errorf("%s: answered with %d bytes", what, len(answer))
			}
		}
		if got := counter(t, door, "linker_trace_refused_total", "malformed"); got != 7 {
			t.Errorf("%v refusals are counted", got)
		}
	})
}
