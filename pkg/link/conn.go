package link

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// maxChannels is how many channels one connection may have seen, each way; then it
// ends, and with the next one all begin anew.
const maxChannels = 64 << 10

// Conn is an open link. It belongs to whoever has opened it, who calls Run or
// Close.
type Conn struct {
	peer   string        // static
	proof  Proof         // static
	asks   bool          // static: both sides know questions and answers
	line   *line         // static
	tls    *tls.Conn     // static: read by the reader, written by the writer
	in     frames        // owned by the reader
	pulse  *pulse        // static
	inbox  *inbox        // static
	timing timing        // static
	log    logger        // static
	wake   chan struct{} // capacity 1, never closed: the writer has something to do
	done   chan struct{} // closed by end

	running   atomic.Bool
	abandoned atomic.Bool // what was read is not handed over any more

	mu       sync.Mutex
	cause    error              // guarded by mu: why it has ended; nil: it has not
	queue    []Message          // guarded by mu: to be written, in order
	queued   int                // guarded by mu: bytes of what is not written yet, about
	sent     map[uint64]handing // guarded by mu: by channel
	pinging  bool               // guarded by mu: a ping is to be written
	ponging  uint64             // guarded by mu: number of the pong to be written; 0: none
	loggedIt bool               // guarded by mu: a message that cannot be sent was logged

	received map[uint64]uint64 // owned by the reader: the last number of each channel
	counters counters
}

// logger is the part of a log that is used.
type logger interface {
	Error(msg string, args ...any)
}

// handing is how far a channel's records were sent and acknowledged.
type handing struct{ last, acked uint64 }

type counters struct {
	recordsOut, recordsIn, bytesOut, bytesIn, fastOut, fastIn, fastLost atomic.Uint64
}

// Stats is what a connection has carried.
type Stats struct {
	RecordsOut, RecordsIn uint64
	BytesOut, BytesIn     uint64 // of frames, within TLS
	FastOut, FastIn       uint64
	FastLost              uint64        // queued or read, but dropped at the end of the connection
	Queued                int           // bytes that wait to be written
	RTT                   time.Duration // of the last ping; 0: none was answered yet
}

// line is the TCP connection below TLS. Each write to it, of at most one record of
// TLS, gets the time stall.
type line struct {
	net.Conn
	stall time.Duration // set before Run starts its goroutines; 0: the deadlines of the handshake hold
}

// Write implements net.Conn.
func (l *line) Write(b []byte) (int, error) {
	if l.stall > 0 {
		if err := l.SetWriteDeadline(time.Now().Add(l.stall)); err != nil {
			return 0, err
		}
	}
	return l.Conn.Write(b)
}

func newConn(e *End, line *line, conn *tls.Conn, in *bufio.Reader, peer string, proof Proof) *Conn {
	return &Conn{
		peer: peer, proof: proof, asks: conn.ConnectionState().NegotiatedProtocol == asking, line: line, tls: conn, in: frames{r: in}, timing: e.timing, log: e.log,
		pulse: &pulse{silence: e.timing.silence}, inbox: newInbox(),
		wake: make(chan struct{}, 1), done: make(chan struct{}),
		sent: make(map[uint64]handing), received: make(map[uint64]uint64),
	}
}

// Peer is the domain at the other end.
func (c *Conn) Peer() string { return c.peer }

// Proof is how both ends have proved who they are.
func (c *Conn) Proof() Proof { return c.proof }

// Asks says whether the other side knows questions and answers; older versions do not.
func (c *Conn) Asks() bool { return c.asks }

// RemoteAddr is the address of the other end.
func (c *Conn) RemoteAddr() net.Addr { return c.line.RemoteAddr() }

// Done is closed when the connection has ended: a handler that waits for something
// need not wait any longer.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Stats returns what the connection has carried until now.
func (c *Conn) Stats() Stats {
	c.mu.Lock()
	queued := c.queued
	c.mu.Unlock()
	return Stats{
		RecordsOut: c.counters.recordsOut.Load(), RecordsIn: c.counters.recordsIn.Load(),
		BytesOut: c.counters.bytesOut.Load(), BytesIn: c.counters.bytesIn.Load(),
		FastOut: c.counters.fastOut.Load(), FastIn: c.counters.fastIn.Load(), FastLost: c.counters.fastLost.Load(),
		Queued: queued, RTT: c.pulse.roundTrip(),
	}
}

// Send queues a message and says whether it was queued: not after the connection
// has ended, nor a Fast, Question or Answer while more than MaxFastQueued bytes wait, nor
// the last two where the other side does not know them, nor what is too long, which is
// logged. It never blocks; what waits is
// bounded by the windows of those who send. Messages are written in the order of the calls; the
// slices in them belong to the connection from then on.
//
// Records whose numbers do not continue those of their channel, and a channel too
// many, end the connection.
func (c *Conn) Send(m Message) bool {
	err := fits(m)
	c.mu.Lock()
	if c.cause != nil {
		c.mu.Unlock()
		return false
	}
	if err != nil {
		first := !c.loggedIt
		c.loggedIt = true
		c.mu.Unlock()
		if first {
			c.log.Error("a message does not fit into a frame of the link and is not sent", "peer", c.peer, "error", err)
		}
		return false
	}
	ok, err := c.queueLocked(m)
	c.mu.Unlock()
	if err != nil {
		c.abandon(err)
		return false
	}
	if ok {
		signal(c.wake)
	}
	return ok
}

// queueLocked queues a message that fits.
func (c *Conn) queueLocked(m Message) (bool, error) {
	switch m := m.(type) {
	case Records:
		if len(m.Records) == 0 {
			return true, nil
		}
		was, known := c.sent[m.Channel]
		if m.First != was.last+1 {
			return false, fmt.Errorf("%w: records of channel %x begin with %d, expected %d", ErrMisuse, m.Channel, m.First, was.last+1)
		}
		if !known && len(c.sent) >= maxChannels {
			return false, fmt.Errorf("%w: more than %d channels were opened", ErrMisuse, maxChannels)
		}
		was.last += uint64(len(m.Records))
		c.sent[m.Channel] = was
		for _, part := range split(m) {
			c.queue = append(c.queue, part)
			c.queued += size(part)
		}
		return true, nil
	case Fast:
		if c.queued > MaxFastQueued {
			return false, nil
		}
	case Question, Answer:
		if !c.asks || c.queued > MaxFastQueued {
			return false, nil
		}
	}
	c.queue = append(c.queue, m)
	c.queued += size(m)
	return true, nil
}

// Close ends the connection; Run returns.
func (c *Conn) Close() { c.abandon(ErrClosed) }

// abandon ends the connection from this side: what was read is not handed over any
// more.
func (c *Conn) abandon(err error) {
	c.abandoned.Store(true)
	c.end(err)
}

// end ends the connection. The first cause is the one that counts.
func (c *Conn) end(err error) {
	c.mu.Lock()
	if c.cause != nil {
		c.mu.Unlock()
		return
	}
	c.cause = err
	c.mu.Unlock()
	close(c.done)
	_ = c.line.Close() // ends reads and writes; there is nobody to tell of its error
}

// Run reads and writes until ctx ends, the other side is gone or shows no sign of life, or
// handle returns an error; it returns why when all its goroutines have ended and the connection is
// closed. handle is called by one goroutine, in the order in which the messages were
// sent. What a message aliases may be kept. A handle that waits for something waits for
// Done as well.
//
// While handle blocks, the heartbeat goes on, and up to 64 messages or 4 MiB are read
// ahead. When these are full nothing more is read: TCP holds the other side back, and
// if there is no room for 14 s, the connection ends with ErrStuck; the other side,
// whose pings are not read either, sees the same as silence.
//
// What was read before the other side ended the connection, or its silence did, is
// still handed over. Run is called once.
func (c *Conn) Run(ctx context.Context, handle func(Message) error) error {
	if c.running.Swap(true) {
		return errors.New("the link runs already, or has run")
	}
	c.line.stall = c.timing.silence
	c.pulse.begin(time.Now())
	var parts sync.WaitGroup
	parts.Go(func() {
		select {
		case <-ctx.Done():
			c.abandon(context.Cause(ctx))
		case <-c.done:
		}
	})
	parts.Go(func() {
		c.end(c.readLoop())
		c.inbox.close()
	})
	parts.Go(c.writeLoop)
	parts.Go(c.beatLoop)
	c.handleLoop(ctx, handle)
	parts.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.countLost(c.queue)
	c.queue, c.queued = nil, 0
	return c.cause
}

// handleLoop hands over what was read, until the reader has ended and all is handed over, or
// this side has ended the connection.
func (c *Conn) handleLoop(ctx context.Context, handle func(Message) error) {
	for {
		m, ok := c.inbox.take()
		if !ok {
			return
		}
		if c.abandoned.Load() || ctx.Err() != nil {
			c.countLost([]Message{m})
			continue // the reader ends soon, and closes the inbox
		}
		if err := handle(m); err != nil {
			c.abandon(err)
		}
	}
}

// countLost counts the messages that nobody will hear of again; all others are
// sent once more over another connection.
func (c *Conn) countLost(list []Message) {
	for _, m := range list {
		if _, is := m.(Fast); is {
			c.counters.fastLost.Add(1)
		}
	}
}

// readLoop reads until the connection ends, and returns why.
func (c *Conn) readLoop() error {
	for {
		k, body, err := c.in.next(MaxFrame)
		switch {
		case errors.Is(err, ErrProtocol):
			return err
		case err != nil:
			return fmt.Errorf("%w: %w", ErrGone, err)
		}
		c.counters.bytesIn.Add(uint64(headerSize + 1 + len(body)))
		m, err := decode(k, body)
		if err != nil {
			return err
		}
		pass, err := c.receive(m)
		if err != nil {
			return err
		}
		if pass && !c.deliver(m, len(body)) {
			return ErrClosed // it has ended: the cause is known
		}
	}
}

// receive checks a message and does what concerns the connection itself. It says
// whether the message is to be handed over.
func (c *Conn) receive(m Message) (bool, error) {
	switch m := m.(type) {
	case ping:
		c.mu.Lock()
		c.ponging = max(c.ponging, m.n)
		c.mu.Unlock()
		signal(c.wake)
		return false, nil
	case pong:
		return false, c.pulse.pong(m.n, time.Now())
	case Records:
		return true, c.receiveRecords(m)
	case Ack:
		return c.receiveAck(m)
	case Refusal:
		c.mu.Lock()
		defer c.mu.Unlock()
		if last := c.sent[m.Channel].last; m.N == 0 || m.N > last {
			return false, fmt.Errorf("%w: it refuses record %d of channel %x, of which %d were sent", ErrProtocol, m.N, m.Channel, last)
		}
		return true, nil
	case Fast:
		c.counters.fastIn.Add(1)
	case Question, Answer:
		if !c.asks {
			return false, fmt.Errorf("%w: %T, which the handshake has not agreed on", ErrProtocol, m)
		}
	}
	return true, nil
}

func (c *Conn) receiveRecords(m Records) error {
	last, known := c.received[m.Channel]
	if m.First != last+1 {
		return fmt.Errorf("%w: records of channel %x begin with %d, expected %d", ErrProtocol, m.Channel, m.First, last+1)
	}
	if !known && len(c.received) >= maxChannels {
		return fmt.Errorf("%w: more than %d channels were opened", ErrProtocol, maxChannels)
	}
	c.received[m.Channel] = last + uint64(len(m.Records))
	c.counters.recordsIn.Add(uint64(len(m.Records)))
	return nil
}

// receiveAck takes an acknowledgement, which proves the round trip. One that says
// nothing new is not handed over.
func (c *Conn) receiveAck(m Ack) (bool, error) {
	c.mu.Lock()
	was := c.sent[m.Channel]
	news := m.UpTo > was.acked
	if m.UpTo <= was.last && news {
		c.sent[m.Channel] = handing{last: was.last, acked: m.UpTo}
	}
	c.mu.Unlock()
	if m.UpTo > was.last {
		return false, fmt.Errorf("%w: it acknowledges record %d of channel %x, of which %d were sent", ErrProtocol, m.UpTo, m.Channel, was.last)
	}
	if news {
		c.pulse.prove(time.Now())
	}
	return news, nil
}

// deliver puts a message into the inbox, and waits while that is full. It says
// whether it did: not after the connection has ended.
func (c *Conn) deliver(m Message, bytes int) bool {
	if c.inbox.put(m, bytes) {
		return true
	}
	c.pulse.block(time.Now())
	for {
		select {
		case <-c.inbox.room:
		case <-c.done:
			c.countLost([]Message{m})
			return false
		}
		if c.inbox.put(m, bytes) {
			c.pulse.unblock(time.Now())
			return true
		}
	}
}

// beatLoop asks for signs of life and ends the connection when there are none.
func (c *Conn) beatLoop() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	next := time.Now()
	for {
		select {
		case <-timer.C:
		case <-c.done:
			return
		}
		now := time.Now()
		until, err := c.pulse.verdict(now)
		switch {
		case errors.Is(err, ErrStuck):
			c.abandon(err)
			return
		case err != nil:
			c.end(err)
			return
		}
		if !now.Before(next) {
			next = now.Add(c.timing.ping)
			c.mu.Lock()
			c.pinging = true
			c.mu.Unlock()
			signal(c.wake)
		}
		if until.After(next) {
			until = next
		}
		timer.Reset(until.Sub(now))
	}
}
