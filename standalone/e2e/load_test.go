package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The steady load: every sender writes to every receiver in turn.
const (
	loadApp       = "LOAD"
	loadSenders   = 6
	loadEvery     = 25 * time.Millisecond // of each sender
	bystanders    = 4                     // at each connector
	loginLimit    = 3 * time.Second
	silenceLimit  = 5 * time.Second // after which an impatient client tries another connector
	fetchEvery    = 2 * time.Second
	confirmEvery  = 4 // of a sender's messages
	reconnectWait = 100 * time.Millisecond
)

// kind is how a receiver takes its messages.
type kind struct {
	features []string
	restless bool // goes and comes again by itself
	seldom   bool // is away for most of the time
	patient  bool // never gives a connection up
}

// load is steady traffic, and everybody who takes part in it.
type load struct {
	t       *testing.T
	places  func() []string // where clients can connect now
	ctx     context.Context // ends the receiving …
	sendCtx context.Context // … and the sending
	ledger  *ledger
	every   time.Duration // of each sender
	senders []*sender
	steady  []string // receivers who stay connected as long as they can

	spreads     atomic.Int64 // rises when everybody is to go where they belong
	ending      atomic.Bool  // everybody stays, to get the rest
	stopSending func()
	stop        func()
	sending     sync.WaitGroup
	running     sync.WaitGroup
}

// loadNetwork describes the network of the load.
func loadNetwork() string {
	return "domains:\n  - {name: " + home + ", urls: ['ws://127.0.0.1:8088']}\nclientApps:\n" +
		"  - {appName: " + loadApp + ", appId: " + appID(loadApp) + ", masterUserId: " + masterOf(loadApp) + "}\n"
}

// newLoad is a load in which nobody takes part yet.
func newLoad(t *testing.T, places func() []string) *load {
	t.Helper()
	l := &load{t: t, places: places, ledger: newLedger(), every: loadEvery}
	l.ctx, l.stop = context.WithCancel(context.WithoutCancel(t.Context()))
	l.sendCtx, l.stopSending = context.WithCancel(l.ctx)
	t.Cleanup(func() {
		l.stop()
		l.sending.Wait()
		l.running.Wait()
	})
	return l
}

// receive lets a user take part that belongs to one of the places.
func (l *load) receive(user string, k kind, place int) {
	l.ledger.pushed[user] = slices.Contains(k.features, "push")
	if !k.restless && !k.seldom {
		l.steady = append(l.steady, user)
	}
	r := &receiver{load: l, kind: k, user: user, place: place}
	l.running.Go(func() { r.run(l.ctx) })
}

// watch lets a master take part, who only hears of others.
func (l *load) watch(master string, place int) {
	r := &receiver{load: l, kind: kind{features: []string{"push"}}, user: master, place: place}
	l.running.Go(func() { r.run(l.ctx) })
}

// send lets a user write to all the receivers in turn.
func (l *load) send(user string, receivers []string, insists bool, place int) {
	s := &sender{load: l, user: user, place: place, receivers: receivers, insists: insists}
	l.senders = append(l.senders, s)
	l.sending.Go(func() { s.run(l.ctx, l.sendCtx) })
}

func startLoad(t *testing.T, c *cluster) *load {
	t.Helper()
	l := newLoad(t, func() []string {
		var urls []string
		for _, m := range c.running("connector") {
			urls = append(urls, m.websocket())
		}
		return urls
	})
	var receivers []string
	for i, k := range []kind{
		{},
		{patient: true},
		{restless: true},
		{seldom: true},
		{features: []string{"ack"}},
		{features: []string{"ack"}, patient: true},
		{features: []string{"ack"}, restless: true},
		{features: []string{"push"}},
		{features: []string{"push"}, patient: true},
		{features: []string{"push"}, restless: true},
		{features: []string{"push"}, seldom: true},
		{features: []string{"push", "ack"}},
	} {
		user := fmt.Sprintf("%s-%d", loadApp, 200+i)
		receivers = append(receivers, user)
		l.receive(user, k, i/2)
	}
	l.watch(masterOf(loadApp), 0)
	for i := range loadSenders {
		l.send(fmt.Sprintf("%s-%d", loadApp, 100+i), receivers, i%2 == 0, i/2)
	}
	return l
}

// join opens a connection to the connector where the user belongs, or to the
// next one that takes it.
func (l *load) join(ctx context.Context, place int, user string, features []string) (*client, visit, error) {
	for ; ; place++ {
		asked := time.Now()
		list := l.places()
		err := errors.New("no connector runs")
		if len(list) > 0 {
			var c *client
			if c, err = open(ctx, l.t, list[place%len(list)], loginLimit); err == nil {
				if err = c.authenticate(user, loginLimit, features...); err == nil {
					return c, visit{asked, time.Now()}, nil
				}
				c.cut()
			}
		}
		select {
		case <-time.After(reconnectWait):
		case <-ctx.Done():
			return nil, visit{}, errors.Join(ctx.Err(), err)
		}
	}
}

// spread brings everybody back to where they belong: half of them to each of two
// connectors, and senders not to the connector of all whom they write to.
func (l *load) spread(t *testing.T) {
	t.Helper()
	l.spreads.Add(1)
	l.flows(t, time.Now().Add(silenceLimit/10), healLimit)
}

// sender sends numbered messages. One that insists gives them ids of its own and
// sends those again of which it has not heard; the others go on.
type sender struct {
	load      *load
	user      string
	place     int
	receivers []string
	insists   bool

	// Owned by run.
	last    int
	waiting []numbered // no answer yet, in order
}

// run sends until sending ends, waits for the answers, and takes confirmations
// until ctx ends.
func (s *sender) run(ctx, sending context.Context) {
	for ctx.Err() == nil {
		c, _, err := s.load.join(ctx, s.place, s.user, []string{"accept", "push"})
		if err != nil {
			return
		}
		s.serve(ctx, sending, c)
		c.cutAndTake(s.take)
	}
}

func (s *sender) serve(ctx, sending context.Context, c *client) {
	again := s.waiting
	s.waiting = nil
	if s.insists {
		for _, m := range again {
			s.waiting = append(s.waiting, m)
			if s.write(c, m) != nil {
				return
			}
		}
	}
	tick := time.NewTicker(s.load.every)
	defer tick.Stop()
	heard, spreads := time.Now(), s.load.spreads.Load()
	for s.load.spreads.Load() == spreads {
		for f, err := c.receive(0); !errors.Is(err, errNothing); f, err = c.receive(0) {
			if err != nil {
				return
			}
			heard = time.Now()
			s.take(f)
		}
		if len(s.waiting) == 0 {
			heard = time.Now()
		} else if time.Since(heard) > silenceLimit {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if sending.Err() != nil || len(s.waiting) > 50 {
			continue
		}
		s.last++
		m := numbered{s.user, s.last}
		s.load.ledger.sending(m, s.to(m), m.n%confirmEvery == 0)
		s.waiting = append(s.waiting, m)
		if s.write(c, m) != nil {
			return
		}
	}
}

func (s *sender) to(m numbered) string { return s.receivers[m.n%len(s.receivers)] }

func (s *sender) write(c *client, m numbered) error {
	id := ""
	if s.insists {
		id = fmt.Sprintf(`,"id":"%s/%d"`, m.from, m.n)
	}
	return c.write(fmt.Sprintf(`{"type":"MESSAGE","data":{"to":%s,"content":%s},"reference":"%d","confirmationEnabled":%t%s}`,
		quoted(s.to(m)), quoted(m.content(s.to(m))), m.n, m.n%confirmEvery == 0, id))
}

func (s *sender) take(f *frame) {
	reference := f.Data.Reference
	if f.Type == "DELIVER_FAILED" {
		reference = f.reference()
	}
	n, err := strconv.Atoi(reference)
	m := numbered{s.user, n}
	switch {
	case f.Type == "GO_AWAY" || f.Type == "MISSING_MESSAGES_AVAILABLE":
		return
	case err != nil || n < 1 || n > s.last:
		s.load.ledger.problem("%s got %v", s.user, f)
		return
	case f.Type == "MESSAGE_CONFIRMATION":
		s.load.ledger.confirmed(m, f.ID)
		return
	case f.Type == "MESSAGE_ACCEPTED":
		s.load.ledger.accept(m, f.Data.ID)
	case f.Type == "DELIVER_FAILED":
		s.load.ledger.refuse(m, f)
	default:
		s.load.ledger.problem("%s got %v", s.user, f)
	}
	if i := slices.Index(s.waiting, m); i >= 0 {
		s.waiting = slices.Delete(s.waiting, i, i+1)
	}
}

// receiver takes messages, or, as the master, presence.
type receiver struct {
	load  *load
	kind  kind
	user  string
	place int
}

func (r *receiver) run(ctx context.Context) {
	for ctx.Err() == nil {
		c, v, err := r.load.join(ctx, r.place, r.user, r.kind.features)
		if err != nil {
			return
		}
		connection := r.load.ledger.visit(r.user, v)
		r.serve(ctx, c, connection)
		c.cutAndTake(func(f *frame) { r.take(c, connection, f) })
		if r.kind.seldom && !r.load.ending.Load() {
			select {
			case <-time.After(4*time.Second + rand.N(8*time.Second)):
			case <-ctx.Done():
			}
		}
	}
}

func (r *receiver) serve(ctx context.Context, c *client, connection int) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if (r.kind.restless || r.kind.seldom) && !r.load.ending.Load() {
		ctx, cancel = context.WithTimeout(ctx, 2*time.Second+rand.N(4*time.Second))
		defer cancel()
	}
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel() // before the wait: it ends the watch
	if !r.kind.patient {
		watching.Go(func() { watch(ctx, c) })
	}
	fetch := time.NewTicker(fetchEvery)
	defer fetch.Stop()
	fetching := false
	ask := func() error {
		fetching = true
		return c.write(`{"type":"FETCH_MISSING_MESSAGES_REQUEST","data":{"count":200}}`)
	}
	pushed := slices.Contains(r.kind.features, "push")
	if !pushed && ask() != nil {
		return
	}
	spreads := r.load.spreads.Load()
	for ctx.Err() == nil && r.load.spreads.Load() == spreads {
		f, err := c.receive(reconnectWait)
		switch {
		case errors.Is(err, errNothing):
		case err != nil:
			return
		case f.Type == "FETCH_MISSING_MESSAGES_COMPLETE":
			fetching = false
			if f.Data.LeftMissingCount == nil || *f.Data.LeftMissingCount > 0 && ask() != nil {
				return
			}
		default:
			fetching = fetching && f.Type != "DELIVER_FAILED"
			if !r.take(c, connection, f) {
				return
			}
		}
		select {
		case <-fetch.C:
			if !pushed && !fetching && ask() != nil {
				return
			}
		default:
		}
	}
}

// take handles one frame; false: the connection is of no use any more.
func (r *receiver) take(c *client, connection int, f *frame) bool {
	switch f.Type {
	case "MESSAGE":
		r.load.ledger.arrive(r.user, connection, f)
	case "USER_CONNECTED", "USER_DISCONNECTED":
		r.load.ledger.heard(event{f.Data.UserID, strings.TrimPrefix(f.Type, "USER_"), f.ID, time.Now()})
	case "MISSING_MESSAGES_AVAILABLE", "FETCH_MISSING_MESSAGES_COMPLETE":
	case "GO_AWAY":
		return false
	default:
		if f.Type != "DELIVER_FAILED" || f.Data.Code != "QUEUE_UNAVAILABLE" { // about a fetch, while the log was away
			r.load.ledger.problem("%s got %v", r.user, f)
		}
	}
	if f.Seq > 0 {
		return c.write(fmt.Sprintf(`{"type":"MESSAGE_ACK","data":{"upTo":%d}}`, f.Seq)) == nil
	}
	return true
}

// watch cuts a connection on which the server does not answer.
func watch(ctx context.Context, c *client) {
	tick := time.NewTicker(silenceLimit / 2)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		bounded, cancel := context.WithTimeout(ctx, silenceLimit)
		err := c.ws.Ping(bounded)
		cancel()
		if err != nil {
			_ = c.ws.CloseNow()
			return
		}
	}
}

// cutAndTake cuts the connection and takes what had come before: the server knows
// that it has, by the pongs.
func (c *client) cutAndTake(take func(*frame)) {
	c.cut()
	for {
		f, err := c.receive(0)
		if err != nil {
			return
		}
		take(f)
	}
}

// flows waits until a message that was sent since then has come from every sender
// to every steady receiver, and returns how long that has taken.
func (l *load) flows(t *testing.T, since time.Time, limit time.Duration) time.Duration {
	t.Helper()
	all := len(l.senders) * len(l.steady)
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		got := l.ledger.pairs(since, l.steady)
		if got == all {
			return time.Since(since)
		}
		if time.Now().After(end) {
			t.Fatalf("after %v messages flow between %d pairs of %d only", limit, got, all)
		}
	}
}

// first waits until every steady receiver has got a message that was sent since
// then, and returns how long each has waited, in order.
func (l *load) first(t *testing.T, since time.Time, limit time.Duration) []time.Duration {
	t.Helper()
	for end := since.Add(limit); ; time.Sleep(20 * time.Millisecond) {
		got := l.ledger.firsts(since, l.steady)
		if len(got) == len(l.steady) {
			list := make([]time.Duration, 0, len(got))
			for _, d := range got {
				list = append(list, d.Round(10*time.Millisecond))
			}
			slices.Sort(list)
			return list
		}
		if time.Now().After(end) {
			t.Fatalf("after %v only %d of %d receivers have got anything: %v", limit, len(got), len(l.steady), got)
		}
	}
}

// finish ends the sending, waits for what is under way, and checks everything.
func (l *load) finish(t *testing.T) {
	t.Helper()
	l.stopSending()
	l.ending.Store(true)
	const limit = time.Minute
	began := time.Now()
	for {
		messages, confirmations := l.ledger.missing()
		if len(messages)+len(confirmations) == 0 || time.Since(began) > limit {
			t.Logf("everything has come %v after the last was sent", time.Since(began).Round(time.Millisecond))
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	l.stop()
	l.sending.Wait()
	l.running.Wait()
	l.ledger.check(t)
}
