package session

import (
	"math"
	"time"

	"github.com/linkerhq/linker/pkg/wire"
)

// maxLoads is how many loads whoever calls Flush writes: others may add as fast as it does.
const maxLoads = 16

// Flush writes what waits in the outbox. Somebody who is at it already does it as well;
// what the peer does not take at once is left to a goroutine. So it never blocks, but it
// calls the session's Sender and Proofs: the caller holds no lock of theirs.
func (s *Session) Flush() {
	s.mu.Lock()
	if s.dismissed && s.state != ended {
		s.mu.Unlock()
		s.End(wire.CloseByMaster, CauseMaster)
		return
	}
	busy := s.writing
	s.writing, s.again = true, busy
	s.mu.Unlock()
	if !busy {
		s.writeOn(maxLoads)
	}
}

// writeOn writes until nothing is left, or the peer takes nothing more, or so many loads
// are written: then a goroutine goes on. Whoever has begun to write calls it.
func (s *Session) writeOn(loads int) {
	for range loads {
		buf := s.env.Buffers.get()
		l := s.gather((*buf)[:0], time.Now())
		*buf = l.bytes
		n, err := s.socket.try(l.bytes)
		if err == nil && n < len(l.bytes) {
			s.pressLater(buf, l, n)
			return
		}
		s.env.Buffers.put(buf)
		if !s.wrote(&l, n, err) {
			return
		}
	}
	s.tasks.Go(func() { s.writeOn(math.MaxInt) })
}

func (s *Session) pressLater(buf *[]byte, l load, n int) {
	s.tasks.Go(func() { s.press(buf, l, n) })
}

// press waits until the peer takes the rest of a load, and then goes on writing.
func (s *Session) press(buf *[]byte, l load, n int) {
	for {
		m, err := s.socket.write(l.bytes[n:])
		s.env.Buffers.put(buf)
		if !s.wrote(&l, n+m, err) {
			return
		}
		buf = s.env.Buffers.get()
		l, n = s.gather((*buf)[:0], time.Now()), 0
		*buf = l.bytes
	}
}

// wrote notes what became of a load, and says whether to go on writing.
func (s *Session) wrote(l *load, n int, err error) (more bool) {
	if n > 0 {
		s.env.Metrics.bytesOut.Add(float64(n))
	}
	if err != nil {
		s.env.Metrics.unsent.Add(float64(l.frames)) // or at least not known to be written
		s.end(nil, CausePeer)
		s.writeNoMore()
		return false
	}
	for _, request := range l.fetches {
		s.Identity().Sender.FetchDone(request)
	}
	if l.advanced {
		s.env.Proofs.Proved(s, nil, false)
	}
	if l.last {
		if !l.cut {
			s.socket.finish()
		}
		s.writeNoMore()
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.more || s.again {
		return true
	}
	s.writing = false
	s.remindLocked(l.pingAt)
	return false
}

// writeNoMore ends the writing for good: nobody begins again.
func (s *Session) writeNoMore() {
	s.mu.Lock()
	s.leaveLocked()
	if s.alarm != nil {
		s.alarm.Stop()
	}
	s.mu.Unlock()
	close(s.written)
}

// remindLocked makes sure that the outbox is looked at by then.
func (s *Session) remindLocked(at time.Time) {
	switch {
	case at.IsZero() || s.reminded:
		return // an earlier time brings the next one
	case s.alarm == nil:
		s.alarm = time.AfterFunc(time.Until(at), s.remind)
	default:
		s.alarm.Reset(time.Until(at))
	}
	s.reminded = true
}

func (s *Session) remind() {
	s.mu.Lock()
	s.reminded = false
	s.mu.Unlock()
	s.Flush()
}
