package client

import (
	"context"
	"iter"
	"slices"
	"strings"
	"time"
)

// What waits for the application at most. The server's window, 256 KiB or 1024
// messages that are not acknowledged, keeps RELIABLE ones far below it; FAST ones
// have no window.
const (
	maxInbox      = 8192
	maxInboxBytes = 4 << 20
	maxNotices    = 1024 // events that no frame has to be acknowledged for
)

// When acknowledgements go out: at once when nothing waits for the application,
// else after ackEvery or ackAfter, whichever is first.
const (
	ackEvery = 50 * time.Millisecond
	ackAfter = 64
)

// Message is what somebody has sent to this user.
type Message struct {
	ID        string // every copy of the message has the same
	From      string
	Content   string
	Reference string    // of the sender's making; empty: none
	CreatedAt time.Time // by the clock of the sender's server; for display
	Late      bool      // newer ones of the same sender have been delivered before
}

// Confirmation says that the receiver of a message has it.
type Confirmation struct {
	ID        string // of the confirmation
	Reference string // of the message: Sent.Reference
	CreatedAt time.Time
}

// PresenceEvent tells the master user of an app that a user has come or gone.
type PresenceEvent struct {
	ID        string // of the event
	UserID    string
	Connected bool
	CreatedAt time.Time
}

// Failure says that a message will not be delivered although Send has returned
// without an error, or that nobody waits for Send any more.
type Failure struct {
	Reference string // of the message: Sent.Reference; empty: the server does not say
	Code      string // of DELIVER_FAILED or INVALID_MESSAGE
	Message   string // for people
	Retryable bool
}

// delivered is a message that waits for the application.
type delivered struct {
	Message
	conn *conn
	seq  uint64
}

func (d *delivered) size() int { return len(d.Content) + len(d.Reference) + 128 }

// inbox holds the messages of the present connection that the application has
// not taken. The client's mutex guards it.
type inbox struct {
	queue []delivered
	bytes int
	busy  bool          // a loop takes messages
	wake  chan struct{} // capacity 1, never closed
}

func newInbox() inbox { return inbox{wake: make(chan struct{}, 1)} }

func (b *inbox) full() bool { return len(b.queue) >= maxInbox || b.bytes >= maxInboxBytes }

func (b *inbox) put(d delivered) {
	b.queue = append(b.queue, d)
	b.bytes += d.size()
	signal(b.wake)
}

func (b *inbox) putBack(d delivered) {
	b.queue = slices.Insert(b.queue, 0, d)
	b.bytes += d.size()
}

func (b *inbox) take() (delivered, bool) {
	if len(b.queue) == 0 {
		return delivered{}, false
	}
	d := b.queue[0]
	b.queue[0] = delivered{}
	b.queue = b.queue[1:]
	b.bytes -= d.size()
	if len(b.queue) == 0 {
		b.queue = nil
	}
	return d, true
}

func (b *inbox) clear() {
	b.queue, b.bytes = nil, 0
}

// event is a call of the application that waits. Those that came as a frame are
// acknowledged after it.
type event struct {
	call func()
	id   string // of the frame; empty: none
	conn *conn
	seq  uint64
}

// events are the calls that wait, in order. The client's mutex guards it. The
// server's window bounds those that are to be acknowledged, maxNotices the others.
type events struct {
	queue   []*event
	byID    map[string]*event // those with an id, the one that runs included
	notices int               // without an id
	closed  bool              // no more come
	wake    chan struct{}     // capacity 1, never closed
}

func newEvents() events { return events{byID: map[string]*event{}, wake: make(chan struct{}, 1)} }

// put appends an event and reports whether an older one had to go.
func (e *events) put(ev *event) (missed bool) {
	e.queue = append(e.queue, ev)
	signal(e.wake)
	if ev.id != "" {
		e.byID[ev.id] = ev
		return false
	}
	e.notices++
	if e.notices <= maxNotices {
		return false
	}
	oldest := slices.IndexFunc(e.queue, func(ev *event) bool { return ev.id == "" })
	e.queue = slices.Delete(e.queue, oldest, oldest+1)
	e.notices--
	return true
}

func (e *events) take() *event {
	if len(e.queue) == 0 {
		return nil
	}
	ev := e.queue[0]
	e.queue = slices.Delete(e.queue, 0, 1)
	if ev.id == "" {
		e.notices--
	}
	return ev
}

// close lets go of what will come again after the next login, and takes no more.
func (e *events) close() {
	e.queue = slices.DeleteFunc(e.queue, func(ev *event) bool { return ev.id != "" })
	e.closed = true
	signal(e.wake)
}

func signal(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// acks knows what of one connection is to be acknowledged. The client's mutex
// guards it.
type acks struct {
	open []uint64  // received and not taken, growing
	got  uint64    // the highest received
	sent uint64    // acknowledged up to here
	due  time.Time // when to acknowledge what is not; zero: there is nothing
}

func (a *acks) received(seq uint64) {
	if seq > a.got {
		a.got = seq
		a.open = append(a.open, seq)
	}
}

// taken notes that the application has a frame; all is over, nothing else waits
// for it, if idle.
func (a *acks) taken(seq uint64, idle bool, now time.Time) {
	if i, is := slices.BinarySearch(a.open, seq); is {
		a.open = slices.Delete(a.open, i, i+1)
	}
	switch behind := a.upTo() - a.sent; {
	case behind == 0:
	case idle || behind >= ackAfter:
		a.due = now
	case a.due.IsZero():
		a.due = now.Add(ackEvery)
	}
}

// upTo returns up to which number everything is taken.
func (a *acks) upTo() uint64 {
	if len(a.open) > 0 {
		return a.open[0] - 1
	}
	return a.got
}

// Messages yields what is sent to the user: each message once, in the order
// sent. A message counts as received when the loop asks for the next one or is
// left with break or return; only then the server hears of it. If the body
// panics it does not count. What is not taken stays with the server, and comes
// again after a restart of the program.
//
// The last pair has an error and no message: that of ctx, or the one that Err
// returns. There is one loop at a time: a second one gets ErrBusy.
func (c *Client) Messages(ctx context.Context) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		c.mu.Lock()
		busy := c.inbox.busy
		c.inbox.busy = true
		c.mu.Unlock()
		if busy {
			yield(Message{}, ErrBusy)
			return
		}
		defer func() {
			c.mu.Lock()
			c.inbox.busy = false
			c.mu.Unlock()
		}()
		for {
			d, err := c.nextMessage(ctx)
			if err != nil {
				yield(Message{}, err)
				return
			}
			if !c.hand(d, yield) {
				return
			}
		}
	}
}

// nextMessage waits for a message that is not a copy of one that was taken.
func (c *Client) nextMessage(ctx context.Context) (delivered, error) {
	for {
		if ctx.Err() != nil {
			return delivered{}, context.Cause(ctx)
		}
		c.mu.Lock()
		err := c.err
		d, is := delivered{}, false
		if err == nil {
			d, is = c.inbox.take()
		}
		again := is && c.seen.has(d.ID)
		if again {
			c.stats.Duplicates++
			c.takenLocked(d.conn, d.seq)
		}
		c.mu.Unlock()
		switch {
		case err != nil:
			return delivered{}, err
		case again:
			continue
		case is:
			return d, nil
		}
		select {
		case <-c.inbox.wake:
		case <-c.final:
		case <-ctx.Done():
		}
	}
}

// hand gives a message to the body of the loop.
func (c *Client) hand(d delivered, yield func(Message, error) bool) bool {
	ended := false
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		switch {
		case ended:
			c.seen.add(d.ID, time.Now())
			c.stats.Received++
			c.takenLocked(d.conn, d.seq)
		case c.conn == d.conn:
			c.inbox.putBack(d)
		}
	}()
	more := yield(d.Message, nil)
	ended = true
	return more
}

// takenLocked notes that a frame of a connection needs nobody any more.
func (c *Client) takenLocked(cn *conn, seq uint64) {
	if cn != c.conn || cn == nil || seq == 0 {
		return
	}
	idle := len(c.inbox.queue)+len(c.events.queue) == 0
	cn.acks.taken(seq, idle, time.Now())
	if cn.overflow && len(cn.acks.open) == 0 {
		cn.retireLocked(errOverflow, time.Now())
	}
	signal(cn.wake)
}

// receivedLocked takes a frame that came from a message.
func (c *Client) receivedLocked(cn *conn, f *incoming) {
	if f.Seq > 0 {
		if cn.overflow || c.inbox.full() || len(c.events.queue) >= maxInbox {
			cn.overflow = true
			c.stats.Overflow++
			if len(cn.acks.open) == 0 {
				cn.retireLocked(errOverflow, time.Now())
				signal(cn.wake)
			}
			return
		}
		cn.acks.received(f.Seq)
	} else if c.inbox.full() || len(c.events.queue) >= maxInbox {
		c.stats.Overflow++
		return
	}
	if c.seen.has(f.ID) {
		c.stats.Duplicates++
		c.takenLocked(cn, f.Seq)
		return
	}
	switch f.Type {
	case typeMessage:
		m := Message{ID: f.ID, From: f.Data.From, Content: f.Data.Content, Reference: f.Reference, CreatedAt: f.createdAt(), Late: f.Late}
		if strings.HasPrefix(m.Reference, ownReference) {
			m.Reference = ""
		}
		c.inbox.put(delivered{Message: m, conn: cn, seq: f.Seq})
	case typeConfirmation:
		if c.events.byID[f.ID] == nil {
			c.unproved.confirmed(f.Data.Reference)
		}
		if call := c.cfg.Confirmed; call != nil {
			it := Confirmation{ID: f.ID, Reference: f.Data.Reference, CreatedAt: f.createdAt()}
			c.notifyLocked(cn, f, func() { call(it) })
			return
		}
		c.needlessLocked(cn, f)
	case typeConnected, typeDisconnected:
		if call := c.cfg.Presence; call != nil {
			it := PresenceEvent{ID: f.ID, UserID: f.Data.UserID, Connected: f.Type == typeConnected, CreatedAt: f.createdAt()}
			c.notifyLocked(cn, f, func() { call(it) })
			return
		}
		c.needlessLocked(cn, f)
	default: // of a newer protocol; nobody waits for it
		c.takenLocked(cn, f.Seq)
	}
}

// notifyLocked queues a call. If it waits already, since it came over an earlier
// connection, it will be acknowledged over this one.
func (c *Client) notifyLocked(cn *conn, f *incoming, call func()) {
	if ev := c.events.byID[f.ID]; ev != nil && f.ID != "" {
		c.stats.Duplicates++
		if ev.conn != cn {
			ev.conn, ev.seq = cn, f.Seq
			return
		}
		c.takenLocked(cn, f.Seq)
		return
	}
	c.events.put(&event{call: call, id: f.ID, conn: cn, seq: f.Seq})
}

// needlessLocked takes an event that the application does not want.
func (c *Client) needlessLocked(cn *conn, f *incoming) {
	c.seen.add(f.ID, time.Now())
	c.takenLocked(cn, f.Seq)
}

// noticeLocked queues a call that nothing has to be acknowledged for.
func (c *Client) noticeLocked(call func()) {
	if c.events.put(&event{call: call}) {
		c.stats.MissedEvents++
	}
}

func (c *Client) failedLocked(f Failure) {
	if call := c.cfg.Failed; call != nil {
		c.noticeLocked(func() { call(f) })
	}
}

func (c *Client) stateLocked(s State) {
	if call := c.cfg.State; call != nil {
		c.noticeLocked(func() { call(s) })
	}
}

// dispatch makes the calls, one after another, until no more come.
func (c *Client) dispatch() {
	for {
		c.mu.Lock()
		ev := c.events.take()
		over := ev == nil && c.events.closed
		c.mu.Unlock()
		switch {
		case over:
			return
		case ev == nil:
			<-c.events.wake
			continue
		}
		ev.call()
		if ev.id == "" {
			continue
		}
		c.mu.Lock()
		delete(c.events.byID, ev.id)
		c.seen.add(ev.id, time.Now())
		c.takenLocked(ev.conn, ev.seq)
		c.mu.Unlock()
	}
}
