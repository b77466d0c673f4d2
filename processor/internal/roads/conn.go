package roads

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/linkerhq/linker/pkg/link"
)

const (
	// stuckAfter is how long nothing may be acknowledged while something is waited for.
	stuckAfter = 15 * time.Second
	// maxChannels is how many channels are opened over one connection in its life;
	// the other side remembers each. Then another connection is opened.
	maxChannels = 60_000
)

// end is why a connection has ended. The list is closed.
type end string

const (
	endClosed    end = "closed"    // by the neighbour, or on the way
	endSilent    end = "silent"    // no sign of life
	endFailed    end = "failed"    // a fault of ours
	endStuck     end = "stuck"     // nothing is acknowledged
	endMalformed end = "malformed" // the neighbour says what it may not
	endWorn      end = "worn"      // it has had as many channels as it can
	endRemoved   end = "removed"   // from the network, or changed there
	endStopped   end = "stopped"   // with this process
)

func ends() []end {
	return []end{endClosed, endSilent, endFailed, endStuck, endMalformed, endWorn, endRemoved, endStopped}
}

// describe is what people are told about the end of a connection.
func describe(why end, err error) string {
	switch why {
	case endStuck:
		return fmt.Sprintf("nothing was acknowledged for %s: the neighbour's log takes nothing", stuckAfter)
	case endWorn:
		return "as many channels as a connection can have: another one is opened"
	case endRemoved:
		return errRemoved.Error()
	case endStopped:
		return errStopped.Error()
	case endClosed, endSilent, endFailed, endMalformed:
	}
	if err == nil {
		return "closed"
	}
	return err.Error()
}

// errMalformed ends a connection whose other side says what it may not.
var errMalformed = errors.New("malformed")

// Receiver hears of what was sent in its channels. The methods are called by one
// goroutine for each connection, in the order in which the neighbour said it. They
// must not block.
type Receiver interface {
	// HandedOver says that the neighbour has taken custody of every record of the
	// channel up to a number, but for those that it has refused before.
	HandedOver(channel, upTo uint64)
	// Refused says that the neighbour cannot take a record and never will. The
	// HandedOver that covers it follows.
	Refused(channel, n uint64, code string)
}

// conn is an open connection to a neighbour.
type conn struct {
	id        uint64     // static
	neighbour *neighbour // static
	address   string     // static; what was dialled
	raw       connection // static
	since     time.Time  // static

	mu             sync.Mutex
	channels       map[uint64]*channel // guarded by mu; nil after the end
	used           map[uint64]struct{} // guarded by mu; channels so far: the other side remembers each
	unacknowledged uint64              // guarded by mu; records of open channels
	progress       time.Time           // guarded by mu; the last Ack, or when there began to be something to wait for
	acknowledged   bool                // guarded by mu; something was
	why            end                 // guarded by mu; set if we have ended it
}

// channel is a lane's way to one destination over a connection.
type channel struct {
	receiver Receiver
	sent     uint64 // the last number
	upTo     uint64 // what was acknowledged
}

func newConn(raw connection, d *dialler) *conn {
	return &conn{
		id: rand.Uint64(), neighbour: d.neighbour, address: d.address, raw: raw, since: time.Now(),
		channels: make(map[uint64]*channel), used: make(map[uint64]struct{}),
	}
}

// Open begins a channel over a connection; its records have the numbers 1, 2, 3, ….
// It is false if the connection has ended or has had too many channels (then it is
// ended), or if it has had this channel before.
func (r *Roads) Open(conn, channel uint64, receiver Receiver) bool {
	c := r.conn(conn)
	return c != nil && c.open(channel, receiver)
}

func (c *conn) open(id uint64, receiver Receiver) bool {
	c.mu.Lock()
	_, taken := c.used[id]
	worn := len(c.used) >= maxChannels
	ok := c.channels != nil && !taken && !worn
	if ok {
		c.channels[id] = &channel{receiver: receiver}
		c.used[id] = struct{}{}
	}
	c.mu.Unlock()
	if worn {
		c.endFor(endWorn)
	}
	return ok
}

// Send sends records of an open channel, numbered from first, which follows the last
// one that was sent. The records belong to the connection from then on. It is false
// if nothing was sent: the connection has ended, the channel is not open, first is
// not the next number, or a record is empty or longer than link.MaxRecord, which
// whoever sends has to see to. It does not block; the window of the sender bounds
// what waits. One goroutine at a time may send in a channel.
func (r *Roads) Send(conn, channel, first uint64, records [][]byte) bool {
	size := 0
	for i, record := range records {
		if len(record) == 0 || len(record) > link.MaxRecord {
			if r.unsendable.Due() {
				r.cfg.Log.Error("a record cannot travel over a link", "number", first+uint64(i), "bytes", len(record), "expected", link.MaxRecord)
			}
			return false
		}
		size += len(record)
	}
	c := r.conn(conn)
	if c == nil || !c.reserve(channel, first, uint64(len(records))) {
		return false
	}
	if len(records) == 0 {
		return true
	}
	if !c.raw.Send(link.Records{Channel: channel, First: first, Records: records}) {
		return false
	}
	c.neighbour.countRecords(len(records), size)
	return true
}

// reserve notes records before they are sent, so that no acknowledgement comes
// before that.
func (c *conn) reserve(id, first, count uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := c.channels[id]
	if ch == nil || first != ch.sent+1 {
		return false
	}
	if c.unacknowledged == 0 {
		c.progress = time.Now()
	}
	ch.sent += count
	c.unacknowledged += count
	return true
}

// Fast sends a record at most once. It is false if it was not sent: the connection
// has ended, or too much waits.
func (r *Roads) Fast(conn uint64, record []byte) bool {
	c := r.conn(conn)
	if c == nil || !c.raw.Send(link.Fast{Record: record}) {
		return false
	}
	c.neighbour.countFast(len(record))
	return true
}

// Close ends a channel: nothing is waited for in it any more. A call of its receiver
// may still be under way.
func (r *Roads) Close(conn, channel uint64) {
	if c := r.conn(conn); c != nil {
		c.closeChannel(channel)
	}
}

func (c *conn) closeChannel(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ch := c.channels[id]; ch != nil {
		c.unacknowledged -= ch.sent - ch.upTo
		delete(c.channels, id)
	}
}

// handle takes what the neighbour says.
func (r *Roads) handle(c *conn, m link.Message) error {
	switch m := m.(type) {
	case link.Ack:
		return c.handedOver(m)
	case link.Refusal:
		return c.refused(m)
	case link.States:
		r.heardFrom(c, m.Entries)
		return nil
	case link.Answer:
		r.questions.answered(c, m)
		return nil
	case link.Records, link.Fast, link.Question:
		return fmt.Errorf("%w: the neighbour sends %T over a link that we have dialled", errMalformed, m)
	default:
		return fmt.Errorf("%w: %T is not expected", errMalformed, m)
	}
}

func (c *conn) handedOver(m link.Ack) error {
	c.mu.Lock()
	c.progress = time.Now()
	ch := c.channels[m.Channel]
	if ch == nil || m.UpTo <= ch.upTo {
		c.mu.Unlock()
		return nil // the channel was closed meanwhile, or it is said twice
	}
	if m.UpTo > ch.sent {
		c.mu.Unlock()
		return fmt.Errorf("%w: record %d of a channel is acknowledged, %d were sent", errMalformed, m.UpTo, ch.sent)
	}
	c.unacknowledged -= m.UpTo - ch.upTo
	ch.upTo = m.UpTo
	c.acknowledged = true
	c.mu.Unlock()
	ch.receiver.HandedOver(m.Channel, m.UpTo)
	return nil
}

func (c *conn) refused(m link.Refusal) error {
	c.mu.Lock()
	ch := c.channels[m.Channel]
	if ch == nil {
		c.mu.Unlock()
		return nil
	}
	sent, upTo := ch.sent, ch.upTo
	c.mu.Unlock()
	if m.N <= upTo || m.N > sent {
		return fmt.Errorf("%w: record %d of a channel is refused, %d were acknowledged and %d sent", errMalformed, m.N, upTo, sent)
	}
	c.neighbour.counts.refuse(m.Code)
	ch.receiver.Refused(m.Channel, m.N, m.Code)
	return nil
}

// states sends encodings of link states. They may be shared by several connections.
func (c *conn) states(batches [][]byte) {
	for _, batch := range batches {
		c.raw.Send(link.States{Entries: slices.Clone(batch)}) // one that has ended needs none
	}
}

// stuck says whether the neighbour takes nothing, although it lives.
func (c *conn) stuck(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.unacknowledged > 0 && now.Sub(c.progress) > stuckAfter
}

// delivered says whether anything was handed over.
func (c *conn) delivered() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.acknowledged
}

// waiting is how many records are not acknowledged.
func (c *conn) waiting() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.unacknowledged
}

// endFor ends the connection for a reason of our own.
func (c *conn) endFor(why end) {
	c.mu.Lock()
	if c.why == "" {
		c.why = why
	}
	c.mu.Unlock()
	c.raw.Close()
}

// end forgets the channels of a connection that has ended.
func (c *conn) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.channels, c.unacknowledged = nil, 0
}

// endOf says why the connection has ended, of which Run has returned err.
func (c *conn) endOf(ctx context.Context, err error) end {
	c.mu.Lock()
	why := c.why
	c.mu.Unlock()
	switch {
	case why != "":
		return why
	case errors.Is(context.Cause(ctx), errRemoved):
		return endRemoved
	case ctx.Err() != nil:
		return endStopped
	case errors.Is(err, link.ErrSilent):
		return endSilent
	case errors.Is(err, errMalformed), errors.Is(err, link.ErrProtocol):
		return endMalformed
	case errors.Is(err, link.ErrMisuse), errors.Is(err, link.ErrStuck):
		return endFailed
	default:
		return endClosed
	}
}
