package roads_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/link"
	"github.com/linkerhq/linker/pkg/linkstate"
	"github.com/linkerhq/linker/pkg/logtest"
	"github.com/linkerhq/linker/pkg/topology"
	"github.com/linkerhq/linker/processor/internal/roads"
)

// bus is a live plane without a network; one goroutine at a time hears it.
type bus struct {
	mu     sync.Mutex
	handle func(data []byte) // guarded by mu; of the one subscription
	said   []said            // guarded by mu
	away   bool              // guarded by mu
}

// said is an entry that was published, and when.
type said struct {
	linkstate.Entry

	at time.Time
}

func (b *bus) Publish(_ string, data []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.away {
		return errors.New("away")
	}
	entries, err := linkstate.Decode(data)
	for _, e := range entries {
		b.said = append(b.said, said{e, time.Now()})
	}
	return err
}

func (b *bus) Subscribe(_ string, handle func(data []byte)) (stop func() error, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.away {
		return nil, errors.New("away")
	}
	b.handle = handle
	return func() error { return nil }, nil
}

// say has entries heard inside the domain.
func (b *bus) say(entries ...linkstate.Entry) {
	b.mu.Lock()
	handle := b.handle
	b.mu.Unlock()
	handle(linkstate.Append(nil, entries))
}

// of returns what a domain's speakers have said.
func (b *bus) of(domain string) []said {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []said
	for _, s := range b.said {
		if s.Domain == domain {
			list = append(list, s)
		}
	}
	return list
}

// call is a link without a network.
type call struct {
	in   chan link.Message // what the other side says
	done chan struct{}
	stop func()
	old  bool // knows no questions

	mu   sync.Mutex
	sent []link.Message // guarded by mu
}

func newCall() *call {
	c := &call{in: make(chan link.Message), done: make(chan struct{})}
	c.stop = sync.OnceFunc(func() { close(c.done) })
	return c
}

func (c *call) RemoteAddr() net.Addr { return &net.TCPAddr{} }
func (c *call) Close()               { c.stop() }
func (c *call) Stats() link.Stats    { return link.Stats{} }
func (c *call) Asks() bool           { return !c.old }

func (c *call) Send(m link.Message) bool {
	select {
	case <-c.done:
		return false
	default:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent = append(c.sent, m)
	return true
}

func (c *call) Run(ctx context.Context, handle func(link.Message) error) error {
	defer c.stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.done:
			return link.ErrClosed
		case m := <-c.in:
			if err := handle(m); err != nil {
				return err
			}
		}
	}
}

// exchange is where links are dialled: what it answers, and when it was asked.
type exchange struct {
	mu     sync.Mutex
	answer func() (*call, error) // guarded by mu
	asked  []time.Time           // guarded by mu
	calls  []*call               // guarded by mu
	to     map[string]*call      // guarded by mu; the last one, by address
}

func (x *exchange) dial(_ context.Context, address string, _ topology.Link) (roads.Connection, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.asked = append(x.asked, time.Now())
	c, err := x.answer()
	if err != nil {
		return nil, err
	}
	x.calls = append(x.calls, c)
	x.to[address] = c
	return c, nil
}

func (x *exchange) set(answer func() (*call, error)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.answer = answer
}

// since returns when it was asked after a time.
func (x *exchange) since(t time.Time) []time.Time {
	x.mu.Lock()
	defer x.mu.Unlock()
	var list []time.Time
	for _, at := range x.asked {
		if at.After(t) {
			list = append(list, at)
		}
	}
	return list
}

func (x *exchange) last() *call {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.calls[len(x.calls)-1]
}

var errNobody = errors.New("nobody there")

func nobody() (*call, error)   { return nil, errNobody }
func somebody() (*call, error) { return newCall(), nil }

// timed is a Roads of domain a, whose neighbour is b; behind b lies c.
type timed struct {
	*roads.Roads

	bus      *bus
	exchange *exchange
	network  *described
	log      *logtest.Log
	stop     func()
}

func newTimed(t *testing.T, answer func() (*call, error)) *timed {
	t.Helper()
	x := &timed{bus: &bus{}, exchange: &exchange{answer: answer, to: map[string]*call{}}, network: &described{}, log: &logtest.Log{}}
	x.network.set(t, network([]topology.Link{insecure("a", "b"), insecure("b", "c")}, map[string][]string{"b": {"b.example:1"}}))
	var err error
	x.Roads, err = roads.New(roads.Config{Domain: "a", Network: x.network, Plane: x.bus, Log: x.log.Logger(), Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	x.DialBy(x.exchange.dial)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- x.Run(ctx) }()
	x.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(x.stop)
	synctest.Wait()
	return x
}

func TestTheBackOffGrows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := newTimed(t, nobody)
		began := time.Now()
		time.Sleep(time.Hour)
		asked := x.exchange.since(began)
		for i := range asked[1:] {
			pause := asked[i+1].Sub(asked[i])
			if pause < 500*time.Millisecond || pause > 30*time.Second {
				t.Errorf("pause %d is %s", i, pause)
			}
		}
		// On average 15 s, so 240 attempts; with a deviation of about 9.
		if len(asked) < 180 || len(asked) > 320 {
			t.Errorf("%d attempts in an hour", len(asked))
		}
		if lines := strings.Count(x.log.String(), "link not opened"); lines < 10 || lines > 13 {
			t.Errorf("the same error was logged %d times in an hour", lines)
		}
		x.exchange.set(func() (*call, error) { return nil, errors.New("another error") })
		time.Sleep(time.Minute)
		if lines := strings.Count(x.log.String(), "another error"); lines != 1 {
			t.Errorf("another error was logged %d times", lines)
		}
	})
}

func TestWhoTakesConnectionsAndDropsThemIsDialledSeldom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		version := uint64(0)
		x := newTimed(t, func() (*call, error) {
			c := newCall()
			version++
			b := linkstate.Append(nil, []linkstate.Entry{{Domain: "b", Speaker: 1, Version: version}})
			go func() {
				select {
				case c.in <- link.States{Entries: b}:
				case <-c.done:
				}
				time.Sleep(time.Second)
				c.stop()
			}()
			return c, nil
		})
		began := time.Now()
		time.Sleep(time.Hour)
		if asked := x.exchange.since(began); len(asked) < 160 || len(asked) > 320 {
			t.Errorf("%d attempts in an hour", len(asked))
		}
	})
}

func TestTheBackOffStartsOverAtASignOfLife(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := newTimed(t, nobody)
		for round := range uint64(20) {
			time.Sleep(5 * time.Minute)
			now := time.Now()
			x.bus.say(linkstate.Entry{Domain: "c", Speaker: 1, Version: round + 1}) // not the neighbour
			if round%2 == 0 {
				x.bus.say(linkstate.Entry{Domain: "b", Speaker: 1, Version: round + 1})
			} else {
				n := x.network.Current().Network()
				n.Links = slices.Clone(n.Links)
				n.Links[0].Cost = int(round) + 1
				x.network.set(t, n)
			}
			time.Sleep(3 * time.Second)
			// Soon, and then with a back-off that begins anew.
			asked := x.exchange.since(now)
			if len(asked) < 2 || asked[0].Sub(now) > 750*time.Millisecond {
				t.Errorf("round %d: asked at %v after %v", round, asked, now)
			}
		}
	})
}

func TestManySignsOfLifeAreNoReasonToHurry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := newTimed(t, nobody)
		began := time.Now()
		for i := range uint64(6000) {
			x.bus.say(linkstate.Entry{Domain: "b", Speaker: 1, Version: i + 1})
			time.Sleep(10 * time.Millisecond)
		}
		asked := x.exchange.since(began)
		for i := range asked[1:] {
			if pause := asked[i+1].Sub(asked[i]); pause < 500*time.Millisecond {
				t.Errorf("pause %d is %s", i, pause)
			}
		}
		if len(asked) < 60 {
			t.Errorf("%d attempts in a minute full of signs", len(asked))
		}
		// A repetition is no sign of life, nor is what is old.
		time.Sleep(5 * time.Minute)
		now := time.Now()
		for range 100 {
			x.bus.say(linkstate.Entry{Domain: "b", Speaker: 1, Version: 6000})
			time.Sleep(100 * time.Millisecond)
		}
		if asked := x.exchange.since(now); len(asked) > 8 {
			t.Errorf("%d attempts in 10 s without a sign", len(asked))
		}
	})
}

func TestASpeakerRepeatsItselfAndSaysGoodbye(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := newTimed(t, nobody)
		time.Sleep(time.Minute)
		if l := x.Links()[0]; l.State != "down" || l.LastError != "nobody there" {
			t.Errorf("before there was a link it is %+v", l)
		}
		list := x.bus.of("a")
		if len(list) < 12 || len(list) > 13 {
			t.Errorf("%d entries in a minute", len(list))
		}
		x.exchange.set(somebody)
		n := x.network.Current().Network()
		n.Links = slices.Clone(n.Links)
		n.Links[0].Cost = 2
		x.network.set(t, n)
		before := len(x.exchange.since(time.Time{}))
		for len(x.exchange.since(time.Time{})) == before {
			time.Sleep(time.Millisecond)
			synctest.Wait()
		}
		if l := x.Links()[0]; l.State != "up" || l.LastError != "" || time.Since(l.Since) > 2*time.Millisecond {
			t.Errorf("the link is %+v", l)
		}
		list = x.bus.of("a")
		if last := list[len(list)-1]; time.Since(last.at) > 2*time.Millisecond || !slices.Equal(last.Up, []string{"b"}) {
			t.Errorf("%s after the link came up the last entry is %+v", time.Since(last.at), last)
		}
		x.stop()
		list = x.bus.of("a")
		for i := range list[1:] {
			if list[i+1].Version <= list[i].Version || list[i+1].Speaker != list[0].Speaker {
				t.Errorf("after %+v comes %+v", list[i], list[i+1])
			}
		}
		last := list[len(list)-1]
		if len(last.Up) > 0 || !last.at.Equal(time.Now()) {
			t.Errorf("the last entry is %+v at %s", last, last.at)
		}
		told := x.exchange.last().sent
		entries, err := linkstate.Decode(told[len(told)-1].(link.States).Entries)
		if err != nil || len(entries) != 1 || entries[0].Version != last.Version {
			t.Errorf("the neighbour was told %+v, %v", entries, err)
		}
		if x.Table().Len() > 0 {
			t.Error("there are roads after the end")
		}
	})
}

// told returns what was said of a domain over a call.
func (c *call) told(t *testing.T, domain string) []linkstate.Entry {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []linkstate.Entry
	for _, m := range c.sent {
		entries, err := linkstate.Decode(m.(link.States).Entries)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Domain == domain {
				list = append(list, e)
			}
		}
	}
	return list
}

func TestWhatIsHeardIsPassedOnToEverybodyElse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := newTimed(t, somebody)
		x.bus.say(linkstate.Entry{Domain: "z", Speaker: 1, Version: 1})
		time.Sleep(3 * time.Second)
		x.network.set(t, network([]topology.Link{insecure("a", "b"), insecure("a", "c")}, map[string][]string{"b": {"b.example:1"}, "c": {"c.example:1"}}))
		synctest.Wait()
		b, c := x.exchange.to["b.example:1"], x.exchange.to["c.example:1"]
		if list := b.told(t, "z"); len(list) != 1 || list[0].Age != 0 {
			t.Errorf("b was told %+v", list)
		}
		if list := c.told(t, "z"); len(list) != 1 || list[0].Age != 3*time.Second {
			t.Errorf("c was told at the start %+v", list)
		}
		if list := c.told(t, "a"); len(list) != 2 || !slices.Equal(list[1].Up, []string{"b", "c"}) {
			t.Errorf("c was told of us %+v", list)
		}
		news := linkstate.Append(nil, []linkstate.Entry{{Domain: "z", Speaker: 1, Version: 2, Up: []string{"y"}}})
		b.in <- link.States{Entries: news}
		synctest.Wait()
		c.in <- link.States{Entries: news} // it comes back
		synctest.Wait()
		if list := b.told(t, "z"); len(list) != 1 {
			t.Errorf("b was told what it has said: %+v", list)
		}
		if list := c.told(t, "z"); len(list) != 2 || list[1].Version != 2 {
			t.Errorf("c was told %+v", list)
		}
		if list := x.bus.of("z"); len(list) != 1 || list[0].Version != 2 {
			t.Errorf("inside was told %+v", list)
		}
	})
}

func TestWhatIsHeardNoMoreIsNoRoad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := newTimed(t, somebody)
		road := func(to string) bool { _, ok := x.Table().Road(to); return ok }
		if !road("b") || road("c") {
			t.Errorf("roads to b: %v, to c: %v", road("b"), road("c"))
		}
		x.bus.say(linkstate.Entry{Domain: "b", Speaker: 1, Version: 1, Up: []string{"c"}, Age: 4 * time.Second})
		synctest.Wait()
		if !road("c") {
			t.Error("no road to c")
		}
		table := x.Table()
		var changes atomic.Int64
		stop := x.Subscribe(func() { changes.Add(1) })
		defer stop()
		x.bus.say(linkstate.Entry{Domain: "b", Speaker: 2, Version: 1, Up: []string{"z"}, Age: 4 * time.Second})
		time.Sleep(linkstate.Life - 4*time.Second - time.Millisecond)
		synctest.Wait()
		if x.Table() != table || changes.Load() > 0 {
			t.Errorf("another table, or %d changes, although nothing has changed", changes.Load())
		}
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		if road("c") || !road("b") || changes.Load() != 1 {
			t.Errorf("roads to b: %v, to c: %v, %d changes", road("b"), road("c"), changes.Load())
		}
		stop()
		x.stop()
		if changes.Load() != 1 {
			t.Error("who does not listen any more is told")
		}
	})
}

func TestANeighbourThatTakesNothingIsLeftAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := newTimed(t, somebody)
		live := func(version uint64) {
			x.bus.say(linkstate.Entry{Domain: "b", Speaker: 1, Version: version})
		}
		conn := func() uint64 { road, _ := x.Table().Road("b"); return road.Conns[0] }
		up := func() bool { _, ok := x.Table().Road("b"); return ok }

		// Nothing to wait for, or acknowledgements now and then: all is well.
		time.Sleep(time.Hour)
		r := newReceiver()
		first := conn()
		if !x.Open(first, 1, r) {
			t.Fatal("not opened")
		}
		for n := range uint64(10) {
			// From the second round on something is always waited for.
			x.Send(first, 1, n+1, records("r"))
			time.Sleep(14 * time.Second)
			if n < 9 {
				x.exchange.last().in <- link.Ack{Channel: 1, UpTo: max(n, 1)}
			}
			synctest.Wait()
		}
		if !up() || conn() != first || r.handedOver(1) != 8 {
			t.Fatalf("the connection has ended, or up to %d was handed over", r.handedOver(1))
		}
		time.Sleep(900 * time.Millisecond)
		synctest.Wait()
		if !up() {
			t.Fatal("it is given up too early")
		}
		time.Sleep(1200 * time.Millisecond)
		synctest.Wait()
		if up() {
			t.Error("it is not given up")
		}
		if text := x.Links()[0].LastError; text != "nothing was acknowledged for 15s: the neighbour's log takes nothing" {
			t.Errorf("last error %q", text)
		}
		// Whatever signs of life there are, it is left alone for a while.
		for i := range uint64(50) {
			live(i + 1)
			time.Sleep(100 * time.Millisecond)
		}
		if up() {
			t.Error("it is dialled at once")
		}
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if !up() {
			t.Error("it is not dialled any more")
		}
		// If that is in vain, for a longer while.
		if !x.Open(conn(), 1, r) || !x.Send(conn(), 1, 1, records("r")) {
			t.Fatal("not sent")
		}
		time.Sleep(17 * time.Second)
		synctest.Wait()
		now := time.Now()
		for i := range uint64(130) {
			live(i + 51)
			time.Sleep(100 * time.Millisecond)
		}
		if asked := x.exchange.since(now); len(asked) > 0 || up() {
			t.Errorf("it is dialled after %s", asked[0].Sub(now))
		}
		time.Sleep(17 * time.Second)
		synctest.Wait()
		if !up() {
			t.Error("it is not dialled any more")
		}
	})
}

func TestAConnectionThatHadTooManyChannelsIsReplaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := newTimed(t, somebody)
		road, _ := x.Table().Road("b")
		r := newReceiver()
		for i := range uint64(roads.MaxChannels) {
			if !x.Open(road.Conns[0], i, r) {
				t.Fatalf("channel %d cannot be opened", i)
			}
			x.Close(road.Conns[0], i)
		}
		if x.Open(road.Conns[0], roads.MaxChannels, r) {
			t.Error("there is no limit")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		again, ok := x.Table().Road("b")
		if !ok || again.Conns[0] == road.Conns[0] || !x.Open(again.Conns[0], 1, r) {
			t.Errorf("road %+v", again)
		}
	})
}

func TestALivePlaneThatIsAwayIsCountedAndNoEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := newTimed(t, somebody)
		x.bus.mu.Lock()
		x.bus.away = true
		x.bus.mu.Unlock()
		time.Sleep(time.Minute)
		if _, ok := x.Table().Road("b"); !ok {
			t.Error("there is no road")
		}
		x.stop()

		r, err := roads.New(roads.Config{Domain: "a", Network: x.network, Plane: x.bus, Log: (&logtest.Log{}).Logger(), Metrics: prometheus.NewRegistry()})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Run(t.Context()); err == nil {
			t.Error("it runs without a subscription")
		}
	})
}

func TestACertificateThatCannotBeReadIsSaidAtTheStart(t *testing.T) {
	t.Parallel()
	_, err := roads.New(roads.Config{
		Domain: "a", Certificates: link.Certificates{CertFile: "/nowhere"}, Network: &described{}, Plane: &bus{},
		Log: (&logtest.Log{}).Logger(), Metrics: prometheus.NewRegistry(),
	})
	if err == nil {
		t.Error("no error")
	}
}
