package link

import (
	"errors"
	"fmt"
	"os"
	"time"
)

const (
	// writeSize is from which size on what is encoded is written; a frame that
	// has begun is finished.
	writeSize = 256 << 10
	// keepSize is how large a buffer or a queue may be that is kept for the next
	// burst, in bytes and in messages.
	keepSize, keepMessages = 512 << 10, 4096
)

// writeLoop writes what is queued, in few large pieces, until the connection ends. Pings and
// pongs go before everything else.
func (c *Conn) writeLoop() {
	var batch, spare []Message // batch: taken from the queue, from next on not written
	next := 0
	defer func() { c.countLost(batch[next:]) }()
	var buf []byte
	for {
		if len(batch) > 0 && next == len(batch) {
			clear(batch)
			if cap(batch) <= keepMessages {
				spare = batch[:0]
			}
			batch, next = nil, 0
		}
		c.mu.Lock()
		buf = c.appendHeartbeatLocked(buf[:0])
		if len(batch) == 0 && len(c.queue) > 0 {
			batch, c.queue, spare = c.queue, spare, nil
		}
		c.mu.Unlock()
		begin, cost := next, 0
		for ; next < len(batch) && len(buf) < writeSize; next++ {
			buf = appendFrame(buf, batch[next])
			cost += size(batch[next])
		}
		if len(buf) == 0 {
			select {
			case <-c.wake:
				continue
			case <-c.done:
				return
			}
		}
		if _, err := c.tls.Write(buf); err != nil {
			next = begin
			c.end(c.writeError(err))
			return
		}
		c.written(batch[begin:next], len(buf), cost)
		if cap(buf) > keepSize {
			buf = nil
		}
	}
}

func (c *Conn) writeError(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%w: a write made no progress for %s", ErrSilent, c.timing.silence)
	}
	return fmt.Errorf("%w: %w", ErrGone, err)
}

// written counts what was written.
func (c *Conn) written(list []Message, bytes, cost int) {
	c.counters.bytesOut.Add(uint64(bytes))
	for _, m := range list {
		switch m := m.(type) {
		case Records:
			c.counters.recordsOut.Add(uint64(len(m.Records)))
		case Fast:
			c.counters.fastOut.Add(1)
		}
	}
	c.mu.Lock()
	c.queued -= cost
	c.mu.Unlock()
}

// appendHeartbeatLocked appends the pong and the ping that are due.
func (c *Conn) appendHeartbeatLocked(b []byte) []byte {
	if c.ponging > 0 {
		b = appendFrame(b, pong{n: c.ponging})
		c.ponging = 0
	}
	if c.pinging {
		b = appendFrame(b, ping{n: c.pulse.ping(time.Now())})
		c.pinging = false
	}
	return b
}
