package lane

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"github.com/linkerhq/linker/pkg/broker/kafka"
	"github.com/linkerhq/linker/pkg/delivery"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/failpoint"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/pkg/route"
	"github.com/linkerhq/linker/processor/internal/custody"
)

// serve is the actor: it alone touches the state. It ends when ctx does, after
// giving the lane up in good order, or with the error that ended work.
func (d *Driver) serve(ctx, work context.Context, handle int64) error {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	committer := newCommitter(d.lane)
	defer committer.wait()
	var announced, saved, expired time.Time
	expired = time.Now()
	for {
		records := d.records
		if d.state.Logged() > maxLogged || d.state.Unsettled() > maxUnsettled {
			records = nil // goes on when the mailbox or the sockets have taken some
		}
		select {
		case batch := <-records:
			d.now = time.Now()
			// What was reported before these were written may be why they were.
			d.takeInbox()
			d.handle(batch, handle)
		case <-d.inbox.wake:
			runtime.Gosched() // let what else has just arrived come along
			d.now = time.Now()
		case now := <-tick.C:
			d.now = time.Now()
			d.tick()
			if err := d.periodic(now, committer); err != nil {
				return err
			}
			if now.Sub(announced) >= announceEvery || d.full() != d.toldFull {
				d.announce(false)
				d.publishMetrics()
				d.out.tidy()
				announced = now
			}
			if now.Sub(saved) >= saveEvery {
				d.save(now, now.Sub(expired) >= expireEvery)
				saved = now
				if now.Sub(expired) >= expireEvery {
					expired = now
				}
			}
		case <-work.Done():
			return context.Cause(work)
		case <-ctx.Done():
			return d.giveUp(work, committer)
		}
		d.followNetwork()
		d.takeInbox()
		d.followRoads()
		d.execute()
		if d.superseded {
			return errSuperseded
		}
	}
}

// takeInbox feeds what has come from elsewhere than the log.
func (d *Driver) takeInbox() {
	for _, event := range d.inbox.take() {
		d.step(event)
	}
}

// step feeds one event to the state. Within a round no time passes.
func (d *Driver) step(event custody.Event) { d.state.Step(d.now, event, &d.fx) }

// handle feeds a batch of records.
func (d *Driver) handle(batch []kafka.Record, handle int64) {
	_ = failpoint.Hit(failpoint.LaneBeforeHandling)
	d.followNetwork()
	d.lag.seen(batch)
	poisoned := d.Poison.any(d.lane.Number())
	for i := range batch {
		r := &batch[i]
		d.handling = r.Offset
		d.record = custody.RecordRead{Offset: r.Offset, Fill: r.Offset < handle}
		e, err := envelope.DecodeNew(r.Value)
		switch {
		case poisoned && d.Poison.holds(d.lane.Number(), r.Offset):
			d.log.Error("record that made the lane panic becomes a dead letter", "offset", r.Offset)
			d.record.Raw = r.Value
		case err != nil:
			d.log.Error("undecodable record becomes a dead letter", "offset", r.Offset, "error", err)
			d.record.Raw = r.Value
		default:
			d.record.Envelope = e
			d.superseded = d.superseded || e.Kind == envelope.KindEpoch && r.Offset > d.epoch
		}
		d.step(&d.record)
	}
	d.record = custody.RecordRead{}
	d.handling = nothing
}

// contained runs what touches the state. A panic ends the lane and not the
// process; the record that caused it, if it was one, is remembered.
func (d *Driver) contained(run func() error) (err error) {
	defer func() {
		reason := recover()
		if reason == nil {
			return
		}
		d.log.Error("the lane has panicked", "offset", d.handling, "reason", reason, "stack", string(debug.Stack()))
		d.Metrics.panics.Inc()
		offset := d.handling
		if d.state != nil && offset == nothing {
			offset = d.state.Resuming() // one that has waited, and was taken up by a tick
		}
		if offset != nothing {
			d.Poison.add(d.lane.Number(), offset)
		}
		err = errPanicked
	}()
	return run()
}

// followNetwork takes a new description of the network before anything is judged
// by the old one: what connectors have accepted may rest on the new one.
func (d *Driver) followNetwork() {
	if network := d.Network.Current(); network != d.network {
		d.network = network
		d.step(&custody.NetworkChanged{Network: network})
	}
}

// tick lets time pass and looks for what has no event of its own.
func (d *Driver) tick() {
	d.followNetwork()
	for _, c := range d.state.Connectors() {
		if d.Connectors.Dead(c) {
			d.step(&custody.ConnectorDied{Connector: c})
		}
	}
	if !d.state.Assembled() && d.assembled() {
		d.step(&custody.Assembled{})
	}
	retry := d.retry
	d.retry = nil
	for _, p := range retry {
		d.produce(p)
	}
	d.step(&custody.Ticked{})
}

// assembled says whether all connectors that are there have told their sessions.
func (d *Driver) assembled() bool {
	now := d.now
	if d.unsure.IsZero() || !d.Connectors.Settled() || !d.Plane.Connected() {
		d.unsure = now
		return false
	}
	alive, _ := d.Connectors.Alive()
	return len(d.state.Unheard(alive)) == 0 || now.Sub(d.unsure) >= unheardFor
}

// periodic commits what is settled, as long as this process is the owner.
func (d *Driver) periodic(now time.Time, c *committer) error {
	d.lag.settledTo(d.state.Low())
	if !d.lane.Healthy() {
		return errNotOwner
	}
	d.state.SettleWindows(now)
	if err := c.commit(d.state.Low()); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// save makes durable what the windows have learnt, up to the lowest unsettled
// offset.
func (d *Driver) save(now time.Time, expire bool) {
	change := d.state.Change(now)
	if expire {
		change.Expired = append(change.Expired, d.state.ExpireWindows(now)...)
	}
	d.store.add(func(j *storeJob) { j.save = merge(j.save, change) })
}

// execute carries the effects out.
func (d *Driver) execute() {
	fx := &d.fx
	for i := range fx.Deliveries {
		d.out.add(&fx.Deliveries[i])
	}
	d.out.flush()
	d.over.execute(fx, d.Metrics)
	for i := range fx.Failures {
		e := &fx.Failures[i]
		// At most once, like everything of the live plane.
		_ = d.Plane.Publish(delivery.FastSubject(d.Domain, e.User().Lane(d.Lanes)), delivery.AppendFast(nil, e.Encode()))
	}
	for _, p := range fx.Produce {
		d.produce(p)
	}
	for i := range fx.Bury {
		d.Metrics.bury(fx.Bury[i].Reason)
	}
	d.store.effects(fx)
	fx.Reset()
}

// produce gives a record of the lane's own to the log, behind those that it has not taken
// yet.
func (d *Driver) produce(p custody.Produce) {
	if len(d.retry) > 0 {
		d.retry = append(d.retry, p)
		return
	}
	lane, key := d.lane.Number(), ""
	if len(p.Envelope.To) > 0 {
		// What goes to another domain stays in the lane that has sent it.
		user := p.Envelope.User()
		key = string(user)
		if route.Answer(user, p.Envelope.Home, d.Domain, d.network).Verdict == route.Here {
			lane = user.Lane(d.Lanes)
		}
	}
	token := p.Token
	err := d.Producer.Append(lane, key, p.Envelope.Encode(), func(_ int64, err error) {
		if err == nil && token != (custody.Token{}) {
			_ = failpoint.Hit(failpoint.LaneAfterConfirm)
			d.inbox.put(&custody.Produced{Token: token})
		}
	})
	if err != nil {
		d.retry = append(d.retry, p)
	}
}

// giveUp ends the lane in good order: proofs are waited for a little, the rest
// goes to the mailbox, and what is settled is saved and committed.
func (d *Driver) giveUp(work context.Context, c *committer) error {
	deadline := time.Now().Add(handOverFor)
	stop := deadline.Add(stopFor)
	tick := time.NewTicker(tickEvery / 4)
	defer tick.Stop()
	spilled := false
	for !d.state.Idle() && time.Now().Before(stop) {
		if !spilled && time.Now().After(deadline) {
			d.state.SpillAll(&d.fx)
			spilled = true
		}
		select {
		case <-d.inbox.wake:
		case <-tick.C:
			d.now = time.Now()
			d.tick()
		case <-work.Done():
			return context.Cause(work)
		}
		d.now = time.Now()
		d.takeInbox()
		d.execute()
	}
	if !d.lane.Healthy() {
		return errNotOwner
	}
	d.save(time.Now(), false)
	d.store.drain(stop)
	if err := c.finish(d.state.Low()); err != nil {
		return fmt.Errorf("commit at the end: %w", err)
	}
	d.log.Info("lane given up", "settled_to", d.state.Low(), "unsettled", d.state.Unsettled())
	return nil
}

func (d *Driver) publishMetrics() {
	m := d.Metrics
	m.lag.WithLabelValues(d.label).Set(float64(d.lag.records()))
	m.backlog.WithLabelValues(d.label).Set(float64(d.lag.bytes()))
	m.unsettled.WithLabelValues(d.label).Set(float64(d.state.Unsettled()))
	m.behind.WithLabelValues(d.label).Set(float64(d.state.Behind()))
	m.sessions.WithLabelValues(d.label).Set(float64(d.state.Sessions()))
	m.oldest.WithLabelValues(d.label).Set(d.state.Oldest().Seconds())
	for domain, waits := range d.state.Waiting() {
		m.roadRows.WithLabelValues(d.label, domain).Set(float64(waits.Rows))
		m.roadBytes.WithLabelValues(d.label, domain).Set(float64(waits.Bytes))
	}
}

// lagMeter knows how much of the log is not settled: exactly for what was read,
// and by the size of the latest records for what was not.
type lagMeter struct {
	next    atomic.Int64 // the log's end
	settled atomic.Int64
	read    atomic.Int64 // the offset behind the last record that was read
	size    atomic.Int64 // of a record, smoothed
	held    atomic.Int64 // bytes of the records that were read and are not settled

	sizes []recordSize // of those records, in order; owned by the actor
}

type recordSize struct {
	offset int64
	bytes  int
}

// seen notes what was read.
func (l *lagMeter) seen(batch []kafka.Record) {
	const weight = 64
	size, held := l.size.Load(), int64(0)
	for i := range batch {
		r := &batch[i]
		bytes := len(r.Key) + len(r.Value)
		size += (int64(bytes) - size) / weight
		held += int64(bytes)
		l.sizes = append(l.sizes, recordSize{r.Offset, bytes})
	}
	l.size.Store(size)
	l.held.Add(held)
	l.read.Store(batch[len(batch)-1].Offset + 1)
}

// settledTo notes that every record below low is settled.
func (l *lagMeter) settledTo(low int64) {
	n, settled := 0, int64(0)
	for n < len(l.sizes) && l.sizes[n].offset < low {
		settled += int64(l.sizes[n].bytes)
		n++
	}
	l.held.Add(-settled)
	l.sizes = slices.Delete(l.sizes, 0, n)
	l.settled.Store(low)
}

func (l *lagMeter) records() int64 { return max(l.next.Load()-l.settled.Load(), 0) }

func (l *lagMeter) bytes() int64 {
	unread := max(l.next.Load()-max(l.read.Load(), l.settled.Load()), 0)
	return l.held.Load() + unread*max(l.size.Load(), 1)
}

// committer commits offsets one after another, off the actor's path.
type committer struct {
	lane    *kafka.Lane
	done    chan error // of the commit under way; nil: none
	offset  int64      // last asked for
	pending bool
}

func newCommitter(lane *kafka.Lane) *committer {
	return &committer{lane: lane, done: make(chan error, 1), offset: lane.Committed()}
}

// commit begins to commit an offset unless one is under way, and returns the
// error of the one before it.
func (c *committer) commit(low int64) error {
	if c.pending {
		select {
		case err := <-c.done:
			c.pending = false
			if err != nil {
				return err
			}
			c.offset = c.lane.Committed() // one that was not known to succeed is made again
		default:
			return nil
		}
	}
	if low <= c.offset {
		return nil
	}
	c.offset, c.pending = low, true
	go func() { c.done <- c.do(low) }()
	return nil
}

func (c *committer) do(low int64) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopFor)
	defer cancel()
	if err := failpoint.Hit(failpoint.LaneBeforeCommit); err != nil {
		return err
	}
	err := c.lane.Commit(ctx, low)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil // not known; the next one says more
	}
	return err
}

// finish commits an offset for good.
func (c *committer) finish(low int64) error {
	c.wait()
	if low <= c.lane.Committed() {
		return nil
	}
	return c.do(low)
}

func (c *committer) wait() {
	if c.pending {
		<-c.done
		c.pending = false
	}
}

// merge adds a later change of a lane to an earlier one that is not saved yet.
func merge(earlier *mailbox.LaneChange, later mailbox.LaneChange) *mailbox.LaneChange {
	if earlier == nil {
		return &later
	}
	for key, win := range earlier.Windows {
		if _, newer := later.Windows[key]; !newer {
			later.Windows[key] = win
		}
	}
	for _, key := range later.Expired {
		delete(later.Windows, key)
	}
	later.IDs = append(earlier.IDs, later.IDs...)
	for _, key := range earlier.Expired {
		if _, again := later.Windows[key]; !again {
			later.Expired = append(later.Expired, key)
		}
	}
	return &later
}
