package embedded

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// stream is one direction of a pipe.
type stream struct {
	readers, writers side

	writing sync.Mutex // held by Write: what one call writes stays together; taken before mu

	mu     sync.Mutex
	buffer []byte // guarded by mu: what was written and not read is buffer[from:]; at most pipeBytes
	from   int    // guarded by mu
	into   []byte // guarded by mu: of a reader who waits; nil if nobody does
	got    int    // guarded by mu: how much of into is filled
}

// side is those who read, or those who write, at one end.
type side struct {
	wake     sync.Cond   // on the stream's mu
	waiting  int         // guarded by mu: how many
	ended    bool        // guarded by mu: their end was closed
	deadline time.Time   // guarded by mu; zero: none
	alarm    *time.Timer // guarded by mu; nil before anybody had to wait with a deadline
	alarmAt  time.Time   // guarded by mu: when the alarm goes off, zero: not at all. A deadline that moves on leaves it, which spares most calls a timer
}

func newStream() *stream {
	s := new(stream)
	s.readers.wake.L, s.writers.wake.L = &s.mu, &s.mu
	return s
}

// read returns something as soon as there is something.
func (s *stream) read(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.readers.ended:
			return 0, net.ErrClosed
		case s.readers.lateLocked():
			return 0, os.ErrDeadlineExceeded
		case s.from < len(s.buffer), len(b) == 0:
			n := copy(b, s.buffer[s.from:])
			s.tookLocked(n)
			return n, nil
		case s.writers.ended:
			return 0, io.EOF
		}
		if n := s.receiveLocked(b); n > 0 {
			return n, nil
		}
	}
}

// receiveLocked waits for a writer, which copies straight into b if nobody else
// waits. It returns how much there is in b.
func (s *stream) receiveLocked(b []byte) int {
	if s.into != nil {
		s.waitLocked(&s.readers)
		return 0
	}
	s.into, s.got = b, 0
	s.waitLocked(&s.readers)
	s.into = nil
	return s.got
}

// tookLocked makes room.
func (s *stream) tookLocked(n int) {
	s.from += n
	if s.from == len(s.buffer) {
		s.buffer, s.from = s.buffer[:0], 0
	}
	s.writers.wakeLocked()
}

// write returns when all of b is in the buffer, or with how much of it is.
func (s *stream) write(b []byte) (int, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	written := 0
	for {
		switch {
		case s.writers.ended:
			return written, net.ErrClosed
		case s.readers.ended:
			return written, syscall.EPIPE
		case s.writers.lateLocked():
			return written, os.ErrDeadlineExceeded
		case written == len(b):
			return written, nil
		}
		if n := s.putLocked(b[written:]); n > 0 {
			written += n
			s.readers.wakeLocked()
			continue
		}
		s.waitLocked(&s.writers)
	}
}

// putLocked takes what there is room for.
func (s *stream) putLocked(b []byte) int {
	n := 0
	if s.from == len(s.buffer) {
		n = copy(s.into[min(s.got, len(s.into)):], b) // a reader who has not woken up yet may have got something before
		s.got += n
		b = b[n:]
	}
	b = b[:min(len(b), pipeBytes-(len(s.buffer)-s.from))]
	if len(s.buffer)+len(b) > cap(s.buffer) {
		s.makeRoomLocked(len(b))
	}
	s.buffer = append(s.buffer, b...)
	return n + len(b)
}

// makeRoomLocked sees to it that the buffer takes so many bytes more without growing.
func (s *stream) makeRoomLocked(more int) {
	rest := s.buffer[s.from:]
	if need := len(rest) + more; need > cap(s.buffer) {
		s.buffer = make([]byte, 0, min(pipeBytes, max(2*need, leastBytes)))
	}
	s.buffer, s.from = append(s.buffer[:0], rest...), 0
}

// finish is the end of the writer: what is in the buffer can still be read.
func (s *stream) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writers.endLocked()
	s.readers.wakeLocked()
}

// abandon is the end of the reader.
func (s *stream) abandon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buffer, s.from = nil, 0
	s.readers.endLocked()
	s.writers.wakeLocked()
}

// setDeadline is for the end that the side belongs to.
func (s *stream) setDeadline(of *side, t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if of.ended {
		return net.ErrClosed
	}
	of.deadline = t
	of.wakeLocked()
	return nil
}

// waitLocked returns when something may have changed for the side.
func (s *stream) waitLocked(of *side) {
	if !of.deadline.IsZero() && (of.alarmAt.IsZero() || of.deadline.Before(of.alarmAt)) {
		of.alarmAt = of.deadline
		if in := time.Until(of.deadline); of.alarm == nil {
			of.alarm = time.AfterFunc(in, func() { s.alarm(of) })
		} else {
			of.alarm.Reset(in)
		}
	}
	of.waiting++
	of.wake.Wait()
	of.waiting--
}

// alarm lets those who wait look at their deadline. Who still has time waits again.
func (s *stream) alarm(of *side) {
	s.mu.Lock()
	defer s.mu.Unlock()
	of.alarmAt = time.Time{}
	of.wakeLocked()
}

func (s *side) lateLocked() bool { return !s.deadline.IsZero() && time.Until(s.deadline) <= 0 }

func (s *side) wakeLocked() {
	if s.waiting > 0 {
		s.wake.Broadcast()
	}
}

func (s *side) endLocked() {
	s.ended = true
	if s.alarm != nil {
		s.alarm.Stop()
	}
	s.wakeLocked()
}
