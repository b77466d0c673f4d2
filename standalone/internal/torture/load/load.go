// Package load is the traffic of linker-torture: users of three kinds (a raw socket, a
// socket that acknowledges, the Go client) who send to each other, come and go, and
// write down in a history what they did and what they saw.
//
// It judges nothing. It comes back after every failure of the system, it never sends
// what could rightly arrive in another order than its number says without writing
// down why, and it writes a delivery down before the system can know of it.
package load

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/linkerhq/linker/standalone/internal/torture/history"
)

// App is a client app. Its users are distributed like those of all apps.
type App struct {
	Name   string // what its user ids begin with
	ID     string
	Master string // hears who comes and goes
}

// Domain is where users can be at home.
type Domain struct {
	Name  string
	URLs  []string // of its connectors' websockets, ws://HOST:PORT, with /ws or without
	First int64    // the first number of users who are at home here; there is room for 1000
}

// Config is who sends what to whom. A zero field has the default that it names.
type Config struct {
	Seed    uint64
	Apps    []App    // at least one
	Domains []Domain // at least one

	Senders   int     // in all domains together; 0: 12
	Receivers int     // in all domains together; 0: 24
	Rate      float64 // RELIABLE messages a second, of all senders together; 0: 200
	FastRate  float64 // FAST messages a second; 0: 50; negative: none
	MaxSize   int     // bytes of a content; 0: 60000
	Groups    float64 // share of messages that go to groups; 0: 0.1; negative: none
	Cross     float64 // share of receivers that are chosen without regard to domains; 0: 0.5; negative: none
	Confirm   float64 // share of messages with a confirmation; 0: 0.25; negative: none
	Again     float64 // share of messages that are sent again although they were accepted; 0: 0.05; negative: none
	// MaxLife is how old a message may be when its sender gives it up that was refused
	// or not answered; 0: no limit. The system remembers the ids of clients for a time
	// (10 minutes), and takes what comes later for another message.
	MaxLife time.Duration

	History *history.Writer
	Log     *slog.Logger // nil: none
}

const (
	minSize     = 100
	maxMaxSize  = 60_000
	roomOfRoles = 200 // numbers for users of one role in one domain
)

func (c Config) complete() Config {
	defaultTo(&c.Senders, 12)
	defaultTo(&c.Receivers, 24)
	defaultTo(&c.Rate, 200)
	defaultTo(&c.FastRate, 50)
	defaultTo(&c.MaxSize, maxMaxSize)
	defaultTo(&c.Groups, 0.1)
	defaultTo(&c.Cross, 0.5)
	defaultTo(&c.Confirm, 0.25)
	defaultTo(&c.Again, 0.05)
	defaultTo(&c.MaxLife, 9*time.Minute)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// defaultTo gives a field that nobody has set its default, and takes a negative one
// for none.
func defaultTo[N int | float64 | time.Duration](field *N, value N) {
	switch {
	case *field == 0:
		*field = value
	case *field < 0:
		*field = 0
	}
}

// Validate names every setting that cannot be used.
func (c Config) Validate() error {
	c = c.complete()
	var mistakes []error
	expect := func(ok bool, format string, args ...any) {
		if !ok {
			mistakes = append(mistakes, fmt.Errorf(format, args...))
		}
	}
	expect(c.History != nil, "History: none, expected a writer")
	expect(len(c.Apps) > 0, "Apps: none, expected at least one")
	expect(len(c.Domains) > 0, "Domains: none, expected at least one")
	for _, d := range c.Domains {
		expect(len(d.URLs) > 0, "Domains: %s has no URLs, expected at least one", d.Name)
	}
	for _, a := range c.Apps {
		expect(strings.HasPrefix(a.Master, a.Name+"-"), "Apps: the master %q, expected a user of %s", a.Master, a.Name)
	}
	expect(c.Senders > 0, "Senders: %d, expected at least 1", c.Senders)
	expect(c.Receivers > 0, "Receivers: %d, expected at least 1", c.Receivers)
	room := roomOfRoles * max(len(c.Domains), 1)
	expect(c.Senders <= room, "Senders: %d, expected at most %d", c.Senders, room)
	expect(c.Receivers <= room, "Receivers: %d, expected at most %d", c.Receivers, room)
	expect(c.Rate > 0, "Rate: %v, expected more than 0", c.Rate)
	expect(c.MaxSize >= minSize && c.MaxSize <= maxMaxSize, "MaxSize: %d, expected %d to %d", c.MaxSize, minSize, maxMaxSize)
	for _, share := range []struct {
		name  string
		value float64
	}{{"Groups", c.Groups}, {"Cross", c.Cross}, {"Confirm", c.Confirm}, {"Again", c.Again}} {
		expect(share.value <= 1, "%s: %v, expected at most 1", share.name, share.value)
	}
	return errors.Join(mistakes...)
}

// Load is the traffic of one run.
type Load struct {
	cfg    Config
	ledger *ledger
	table  string // what contents are cut from

	senders []participant
	takers  []participant
	masters []participant
	users   []*user         // everybody, masters too
	fast    map[string]bool // whose messages are FAST

	sessions atomic.Int64 // the number given last
	broken   atomic.Int64 // sockets that did not end by the will of their users
	unproved atomic.Int64 // when somebody went last of whom the system may not know what it had received, in the time of the history

	stopping  once // nothing new is sent
	staying   once // receivers do not go by themselves any more
	leaving   once // everybody but the masters goes for good
	collected once // everybody has fetched what was left
}

// participant is somebody who takes part until ctx ends, or leaving is done.
type participant interface{ run(ctx context.Context) }

// New prepares a load and starts nothing.
func New(cfg Config) (*Load, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	l := &Load{
		cfg: cfg.complete(), ledger: newLedger(), fast: map[string]bool{},
		stopping: newOnce(), staying: newOnce(), leaving: newOnce(), collected: newOnce(),
	}
	l.table = padding(cfg.Seed)
	l.people()
	return l, nil
}

// Run lets everybody take part until ctx ends, and returns when all have gone. Its
// error says that the history could not be written.
func (l *Load) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, u := range l.users {
		l.write(history.Op{Kind: history.KindUser, User: u.id, Role: u.role, Domain: u.domain, App: u.app.Name, Steady: u.steady})
	}
	var masters, others, collecting sync.WaitGroup
	for _, p := range l.masters {
		masters.Go(func() { p.run(ctx) })
	}
	for _, p := range slices.Concat(l.takers, l.senders) {
		others.Go(func() { p.run(ctx) })
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		others.Wait()
		l.collect(ctx, &collecting)
		collecting.Wait()
		masters.Wait()
	}()
	var err error
	select {
	case <-l.cfg.History.Failed():
		err = errors.New("the history cannot be written")
		cancel()
	case <-ended:
	}
	<-ended
	return err
}

// StopSending makes everybody send nothing new. What was not answered is asked for
// until it is.
func (l *Load) StopSending() { l.stopping.do() }

// Rest is what could not be accounted for.
type Rest struct {
	Owed       int // messages, by receiver, that were accepted and did not come
	Confirms   int // confirmations that did not come of messages that did
	Unanswered int // messages without an answer
}

const (
	// quiet is how long nothing may have come before nothing is expected any more:
	// twice a lease and a session of the log.
	quiet     = 22 * time.Second
	lookEvery = 20 * time.Millisecond
)

// Quiesce stops the sending, waits until everything is accounted for or nothing has
// come for 22 s, lets everybody go, and then fetch what is left. When it returns,
// every user has a socket that stays open until Run's context ends.
func (l *Load) Quiesce(ctx context.Context) (Rest, error) {
	l.StopSending()
	l.staying.do()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for progress, since := int64(-1), time.Now(); ; {
		rest, now := l.ledger.rest()
		if rest == (Rest{}) {
			break
		}
		if now != progress {
			progress, since = now, time.Now()
		}
		if time.Since(since) > quiet {
			l.cfg.Log.Warn("not everything is accounted for", "owed", rest.Owed, "confirmations", rest.Confirms, "unanswered", rest.Unanswered)
			l.unproved.Store(l.cfg.History.Now())
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return rest, fmt.Errorf("wait until everything is accounted for: %w", ctx.Err())
		}
	}
	l.leaving.do()
	select {
	case <-l.collected.done:
	case <-ctx.Done():
		rest, _ := l.ledger.rest()
		return rest, fmt.Errorf("fetch what is left: %w", ctx.Err())
	}
	rest, _ := l.ledger.rest()
	return rest, l.awaitPresence(ctx)
}

// awaitPresence waits until the masters know that everybody is there, at most as long
// as a connector's lease lasts.
func (l *Load) awaitPresence(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, quiet/2)
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if l.ledger.online() == len(l.users)-len(l.masters) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil // the verdict says what is wrong
		}
	}
}

// Counts is how far the load has come.
type Counts struct {
	Sent, Accepted, Delivered, Owed, Unanswered int64

	Broken int64 // sockets that did not end by the will of their users
}

// Counts may be called at any time.
func (l *Load) Counts() Counts {
	c := l.ledger.counts()
	c.Broken = l.broken.Load()
	return c
}

// Sockets is how many sockets each user has now whom somebody could find.
func (l *Load) Sockets() map[string]int { return l.ledger.sockets() }

func (l *Load) write(op history.Op) { l.cfg.History.Append(op) }

// once is something that happens once.
type once struct {
	first *sync.Once
	done  chan struct{} // closed by do
}

func newOnce() once { return once{new(sync.Once), make(chan struct{})} }

func (o once) do() { o.first.Do(func() { close(o.done) }) }

func (o once) over() bool {
	select {
	case <-o.done:
		return true
	default:
		return false
	}
}
