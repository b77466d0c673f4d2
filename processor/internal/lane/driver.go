// Package lane owns partitions of the domain's log while the group assigns them
// to this process. A Driver runs one lane: it reads the log, feeds the lane's
// state (package custody) with records, answers, timers and results, and carries
// out what the state decides: deliveries over the live plane, the mailbox, records
// of the lane's own, dead letters, commits.
//
// One goroutine, the actor, touches the state; one reads the log, one works for
// the store, one measures the lag. Run ends when all have.
package lane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/linkerhq/linker/pkg/broker/kafka"
	"github.com/linkerhq/linker/pkg/broker/nats"
	"github.com/linkerhq/linker/pkg/delivery"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/failpoint"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/pkg/seldom"
	"github.com/linkerhq/linker/pkg/topology"
	"github.com/linkerhq/linker/pkg/trace"
	"github.com/linkerhq/linker/processor/internal/custody"
	"github.com/linkerhq/linker/processor/internal/roads"
)

// Limits and rhythms of a driver.
const (
	tickEvery     = 100 * time.Millisecond // also how often offsets are committed
	announceEvery = 500 * time.Millisecond
	saveEvery     = time.Second
	expireEvery   = time.Hour
	joinEvery     = 250 * time.Millisecond
	joinFor       = 2 * time.Second  // connectors that have not answered by then are waited for no longer
	unheardFor    = 10 * time.Second // a connector that says nothing for so long keeps no announcement up
	handOverFor   = time.Second      // proofs are waited for so long when a lane is given up in good order
	stopFor       = 1500 * time.Millisecond

	maxLogged    = 16 << 20 // bytes of records in the log's custody before reading pauses
	maxUnsettled = 64 << 10 // records
	heldAtOnce   = 256      // rows, or targets, that are read at once when a lane is taken
	maxInbox     = 32 << 10 // events from the live plane that wait; beyond it they are dropped
)

// errNotOwner ends a lane whose owner cannot be sure any more to be the owner.
var errNotOwner = errors.New("the group has not answered for half a session")

// errSuperseded ends a lane into which somebody else has written an epoch: connectors
// take nothing of ours any more, be that one the owner or not.
var errSuperseded = errors.New("another process has begun to serve the lane")

// errPanicked ends a lane in whose state a fault of the program has struck.
var errPanicked = errors.New("the lane has panicked")

// nothing is the offset of no record.
const nothing = -1

// Connectors tells which connectors of the domain are there.
type Connectors interface {
	// Alive returns those whose leases stand; known is false as long as the
	// registry has not been read.
	Alive() (list []ident.Connector, known bool)
	// Settled says whether every connector that is there is among them.
	Settled() bool
	// Dead says whether the connector was declared dead.
	Dead(c ident.Connector) bool
}

// Network is the current description of the network.
type Network interface{ Current() *topology.Snapshot }

// Roads are the ways to other domains.
type Roads interface {
	Table() *roads.Table
	Subscribe(changed func()) (stop func())
	Open(conn, channel uint64, receiver roads.Receiver) bool
	Send(conn, channel, first uint64, records [][]byte) bool
	Fast(conn uint64, record []byte) bool
	Close(conn, channel uint64)
}

// Deps are what lanes work with.
type Deps struct {
	Domain       string
	Lanes        int
	Generation   uint32
	BacklogBytes int64 // of one lane, from which on connectors are told to accept nothing for it; 0: no limit
	Producer     *kafka.Producer
	Plane        *nats.Conn
	Store        mailbox.Store
	Connectors   Connectors
	Network      Network
	Roads        Roads
	Limits       custody.Limits
	Trace        *trace.Log // is told what happens to messages; nil: nobody is
	Poison       *Poison
	Complaints   *Complaints
	Metrics      *Metrics
	Log          *slog.Logger
}

// Complaints are what the lanes of a process say together, now and then: the store
// is the same for all of them.
type Complaints struct{ taking, storing, room seldom.Line }

// Driver runs one lane for as long as this process owns it.
type Driver struct {
	Deps
	lane  *kafka.Lane
	label string // the lane's number in metrics
	log   *slog.Logger
	epoch int64

	inbox   *inbox
	records chan []kafka.Record // closed by nobody; read only while there is room in memory

	// Owned by the actor.
	state      *custody.State
	now        time.Time          // when this round began
	record     custody.RecordRead // the one that is being handled
	fx         custody.Effects
	out        outgoing
	over       overLinks
	retry      []custody.Produce // that the log could not take
	network    *topology.Snapshot
	table      *roads.Table
	routed     *topology.Snapshot // by which table was read
	lag        lagMeter
	handling   int64     // the offset of the record that is being handled, or nothing
	superseded bool      // an epoch behind our own was read
	toldFull   bool      // connectors were last told to accept nothing
	unsure     time.Time // when it was last not certain that all connectors could be heard

	store *storeQueue
}

// NewDriver prepares a lane that was just assigned to this process.
func NewDriver(deps Deps, lane *kafka.Lane) *Driver {
	d := &Driver{
		Deps:     deps,
		lane:     lane,
		label:    fmt.Sprint(lane.Number()),
		log:      deps.Log.With("lane", lane.Number()),
		inbox:    newInbox(),
		records:  make(chan []kafka.Record),
		handling: nothing,
	}
	d.store = newStoreQueue(deps, lane, d.log, d.inbox)
	return d
}

// Own serves a lane for as long as this process owns it: until ctx ends, when it is
// given up in good order, or until the group no longer counts this process in, which
// is an error. What else keeps a lane from being served, such as a log that was cut
// or a fault of the program, is tried again: the other lanes are not to suffer from it.
func Own(ctx context.Context, deps Deps, lane *kafka.Lane) error {
	for pause := retryAtFirst; ; pause = min(2*pause, retryAtMost) {
		begun := time.Now()
		err := NewDriver(deps, lane).Run(ctx)
		if err == nil || ctx.Err() != nil || errors.Is(err, errNotOwner) || errors.Is(err, kafka.ErrFenced) || !lane.Healthy() {
			return err
		}
		deps.Metrics.failures.Inc()
		deps.Log.Error("the lane cannot be served; trying again", "lane", lane.Number(), "error", err)
		if time.Since(begun) > joinFor+retryAtMost {
			pause = retryAtFirst
		}
		select {
		case <-time.After(rand.N(pause) + retryAtFirst):
		case <-ctx.Done():
			return nil
		}
	}
}

// Run takes the lane, serves it until ctx ends, and gives it up in good order.
// An error means that the lane was lost or could not be taken.
func (d *Driver) Run(ctx context.Context) error {
	cfg, handle, err := d.take(ctx)
	if err != nil {
		return stopped(ctx, err)
	}
	answers, err := d.Plane.Subscribe(delivery.LaneSubject(d.Domain, d.lane.Number()), d.inbox.answers(d.Metrics))
	if err != nil {
		return fmt.Errorf("listen for answers: %w", err)
	}
	defer d.stopListening(answers)
	fast, err := d.Plane.Subscribe(delivery.FastSubject(d.Domain, d.lane.Number()), d.inbox.fast(d.Metrics))
	if err != nil {
		return fmt.Errorf("listen for FAST messages: %w", err)
	}
	defer d.stopListening(fast)
	defer d.Metrics.forget(d.label)

	d.now = time.Now()
	d.state = custody.New(cfg, d.Metrics.Custody, d.now)
	d.over = overLinks{roads: d.Roads, receiver: receiver{d.inbox}, channels: map[uint64]uint64{}}
	defer d.over.end()
	defer d.Roads.Subscribe(d.inbox.signal)()
	d.followRoads()
	d.out = newOutgoing(d.Domain, d.lane.Number(), envelope.Position{Generation: d.Generation, Offset: d.epoch}, d.Plane)
	if err := d.contained(func() error { return d.join(ctx) }); err != nil {
		return stopped(ctx, err)
	}
	d.log.Info("lane taken", "epoch", d.epoch, "from", cfg.Next, "handle_from", handle, "sessions", d.state.Sessions())

	work, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	var wg sync.WaitGroup
	wg.Go(func() { d.store.run(work, stop) })
	reading, stopReading := context.WithCancel(ctx)
	defer stopReading()
	wg.Go(func() {
		if err := d.lane.Read(reading, cfg.Next, d.pass(reading)); err != nil && reading.Err() == nil {
			stop(fmt.Errorf("read: %w", err))
		}
	})
	wg.Go(func() { d.measure(reading) })
	err = d.contained(func() error { return d.serve(ctx, work, handle) })
	stopReading()
	stop(nil)
	wg.Wait()
	return err
}

// stopped hides the error of an operation that ended because ctx did.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (d *Driver) stopListening(s *nats.Subscription) {
	if err := s.Stop(); err != nil {
		d.log.Warn("unsubscribe", "error", err)
	}
}

// take loads what the lane must remember and writes the epoch record. handle is
// the offset from which records are handled; those from cfg.Next up to it only
// fill the windows.
func (d *Driver) take(ctx context.Context) (cfg custody.Config, handle int64, err error) {
	lane := d.lane.Number()
	first, next, err := d.lane.Bounds(ctx)
	if err != nil {
		return cfg, 0, fmt.Errorf("read the log's bounds: %w", err)
	}
	var saved mailbox.LaneState
	var found bool
	err = d.await(ctx, "load the lane's windows", func() (err error) {
		saved, found, err = d.Store.LoadLane(ctx, lane)
		return err
	})
	if err != nil {
		return cfg, 0, err
	}
	from, handle, err := startAt(startFacts{
		first: first, next: next, committed: d.lane.Committed(), saved: saved.Position, found: found, generation: d.Generation,
	})
	if err != nil {
		return cfg, 0, err
	}
	var held []mailbox.Row
	err = d.await(ctx, "load what is held back", func() (err error) {
		held, err = d.loadHeld(ctx)
		return err
	})
	if err != nil {
		return cfg, 0, err
	}
	var announced []mailbox.Announced
	err = d.await(ctx, "load what was announced", func() (err error) {
		announced, err = d.Store.ListAnnounced(ctx, lane, envelope.Position{Generation: d.Generation, Offset: handle})
		return err
	})
	if err != nil {
		return cfg, 0, err
	}
	// An epoch of somebody who slept makes the connectors refuse the owner.
	if !d.lane.Healthy() {
		return cfg, 0, errNotOwner
	}
	d.epoch, err = d.appendEpoch(ctx)
	if err != nil {
		return cfg, 0, err
	}
	if !d.lane.Healthy() {
		return cfg, 0, errNotOwner
	}
	d.network = d.Network.Current()
	return custody.Config{
		Domain: d.Domain, Lane: lane, Lanes: d.Lanes, Generation: d.Generation, Epoch: d.epoch, Next: from,
		Saved: saved, Announced: announced, Held: held, Channels: rand.Uint64(), Network: d.network, Limits: d.Limits, Trace: d.Trace,
	}, handle, nil
}

// loadHeld reads what earlier owners of the lane have held back.
func (d *Driver) loadHeld(ctx context.Context) ([]mailbox.Row, error) {
	var held []mailbox.Row
	for after := custody.HoldPrefix; ; {
		targets, err := d.Store.Targets(ctx, d.lane.Number(), after, heldAtOnce)
		if err != nil {
			return nil, err
		}
		for _, target := range targets {
			if !strings.HasPrefix(target, custody.HoldPrefix) {
				return held, nil
			}
			rows, err := d.allRows(ctx, target)
			if err != nil {
				return nil, err
			}
			held = append(held, rows...)
			after = target
		}
		if len(targets) < heldAtOnce {
			return held, nil
		}
	}
}

func (d *Driver) allRows(ctx context.Context, target string) ([]mailbox.Row, error) {
	var list []mailbox.Row
	q := mailbox.Query{To: target, Limit: heldAtOnce}
	for {
		rows, more, err := d.Store.Read(ctx, q)
		if err != nil {
			return nil, err
		}
		list = append(list, rows...)
		if !more || len(rows) == 0 {
			return list, nil
		}
		q.After = rows[len(rows)-1].Pos
	}
}

// await repeats what the store has to do before the lane can be served. To leave
// the group while the store is away would disturb all the others.
func (d *Driver) await(ctx context.Context, what string, run func() error) error {
	for {
		err := run()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case !d.lane.Healthy():
			return fmt.Errorf("%s: %w: %w", what, errNotOwner, err)
		}
		if d.Complaints.taking.Due() {
			d.log.Warn("the mailbox does not answer: lanes cannot be taken yet", "what", what, "error", err)
		}
		select {
		case <-time.After(rand.N(retryAtMost)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// startFacts is what decides where a lane begins to read.
type startFacts struct {
	first, next int64 // the log's bounds
	committed   int64 // -1: never
	saved       envelope.Position
	found       bool
	generation  uint32
}

// startAt returns the first offset to read and the first to handle. A position
// outside the log means that records are gone: an alarm for the operator, never
// something to skip.
func startAt(f startFacts) (from, handle int64, err error) {
	if f.found && f.saved.Generation > f.generation {
		return 0, 0, fmt.Errorf("this lane was served under generation %d of the log, and ours is %d: kafka-generation is never lowered, and the same for all", f.saved.Generation, f.generation)
	}
	handle = max(f.committed, f.first)
	if f.committed < 0 {
		handle = f.first
	} else if f.committed < f.first {
		return 0, 0, fmt.Errorf("the log begins at offset %d, but this lane has handled it up to %d only: records were removed before they were handled", f.first, f.committed)
	}
	from = handle
	if f.found && f.saved.Generation == f.generation {
		from = f.saved.Offset
		handle = max(handle, from)
	}
	if handle > f.next {
		return 0, 0, fmt.Errorf("the log ends at offset %d, but this lane has handled it up to %d: the topic was made anew; raise the generation above %d to begin again", f.next, handle, f.generation)
	}
	return max(min(from, handle), f.first), handle, nil
}

// appendEpoch writes this owner's first record; its offset is the epoch.
func (d *Driver) appendEpoch(ctx context.Context) (int64, error) {
	type result struct {
		offset int64
		err    error
	}
	_ = failpoint.Hit(failpoint.LaneBeforeEpoch)
	record := envelope.Envelope{Kind: envelope.KindEpoch}
	for {
		done := make(chan result, 1)
		err := d.Producer.Append(d.lane.Number(), "", record.Append(nil), func(offset int64, err error) { done <- result{offset, err} })
		if err == nil {
			select {
			case r := <-done:
				if r.err != nil {
					return 0, fmt.Errorf("write the epoch: %w", r.err)
				}
				return r.offset, nil
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}
		select {
		case <-time.After(tickEvery):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// join collects the sessions that connectors already have in this lane, so that
// nobody who is connected is thought to be away.
func (d *Driver) join(ctx context.Context) error {
	deadline := time.After(joinFor)
	again := time.NewTicker(joinEvery)
	defer again.Stop()
	d.announce(true)
	for !d.allJoined() {
		select {
		case <-again.C:
			d.announce(true)
		case <-deadline:
			return nil
		case <-d.inbox.wake:
			d.now = time.Now()
			d.takeInbox()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (d *Driver) allJoined() bool {
	alive, known := d.Connectors.Alive()
	return known && len(d.state.Unheard(alive)) == 0
}

func (d *Driver) announce(joining bool) {
	alive, _ := d.Connectors.Alive()
	if !joining {
		joining = slices.ContainsFunc(d.state.Unadopted(), func(c ident.Connector) bool { return slices.Contains(alive, c) })
	}
	d.toldFull = d.full()
	a := delivery.Announcement{
		Lane:    d.lane.Number(),
		Epoch:   envelope.Position{Generation: d.Generation, Offset: d.epoch},
		Joining: joining,
		Full:    d.toldFull,
		Lag:     d.lag.records(),
		Ask:     d.state.Unheard(alive),
	}
	// Not heard while the plane is away; it is said again in a second.
	_ = d.Plane.Publish(delivery.EpochSubject(d.Domain), a.Append(nil))
}

// roomy is a store that knows when its room comes to an end.
type roomy interface{ Room() error }

// full says whether senders had better wait: too much of the log is not settled, or
// the store has little room left for what would come. Logins and fetches are
// taken all the same: they are how the store gets rid of something.
func (d *Driver) full() bool {
	if d.BacklogBytes > 0 && d.lag.bytes() > d.BacklogBytes {
		return true
	}
	store, knows := d.Store.(roomy)
	if !knows {
		return false
	}
	err := store.Room()
	if err != nil && d.Complaints.room.Due() {
		d.log.Warn("the mailbox has little room left; new messages are refused", "error", err)
	}
	return err != nil
}

// pass hands what was read to the actor, which takes it when it has room.
func (d *Driver) pass(ctx context.Context) func([]kafka.Record) error {
	return func(batch []kafka.Record) error {
		select {
		case d.records <- batch:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// measure keeps the lag up to date.
func (d *Driver) measure(ctx context.Context) {
	tick := time.NewTicker(announceEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if _, next, err := d.lane.Bounds(ctx); err == nil {
				d.lag.next.Store(next)
			}
		case <-ctx.Done():
			return
		}
	}
}
