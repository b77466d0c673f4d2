package session

import (
	"time"

	"github.com/linkerhq/linker/pkg/wire"
)

const (
	// maxPending and maxPendingBytes bound what of one socket is under way and
	// not yet accepted; then its reader stops, and TCP tells the client.
	maxPending      = 64
	maxPendingBytes = 1 << 20
	// maxReplies bounds the bytes of answers that wait for a client which sends
	// and does not read; then its reader stops as well.
	maxReplies = 256 << 10
)

// flow is what the session has under way.
type flow struct {
	count  int
	bytes  int
	paused bool // the reader waits
}

// Begin notes that a message of so many bytes is under way.
func (s *Session) Begin(size int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flow.count++
	s.flow.bytes += size
}

// Finish ends a Begin. reply is queued, if there is one.
func (s *Session) Finish(size int, reply []byte) {
	s.mu.Lock()
	s.flow.count--
	s.flow.bytes -= size
	s.resumeLocked()
	if reply != nil {
		// In one step with the count: the close frame waits for the last of them.
		s.answerLocked(reply)
	}
	wake := reply != nil || s.state == ended && s.flow.count == 0
	s.mu.Unlock()
	if wake {
		s.Flush()
	}
}

// resumeLocked lets the reader go on if it waits for room and there is some.
func (s *Session) resumeLocked() {
	if s.flow.paused && s.roomLocked() {
		signal(s.resume)
	}
}

func (s *Session) roomLocked() bool {
	return s.flow.count < maxPending && s.flow.bytes < maxPendingBytes && s.waiting < maxReplies || s.state == ended
}

// Rest lets nothing more of this client be read for a while, and TCP tells it. Only
// Submit calls it.
func (s *Session) Rest(d time.Duration) { s.restUntil = time.Now().Add(d) }

// rest blocks the reader for a while, or until the session ends.
func (s *Session) rest(d time.Duration) {
	s.mu.Lock()
	s.flow.paused = true
	s.mu.Unlock()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.gone:
	}
}

// waitForRoom blocks the reader while too much is under way, or it has to rest.
func (s *Session) waitForRoom() {
	if !s.restUntil.IsZero() {
		s.rest(time.Until(s.restUntil))
		s.restUntil = time.Time{}
	}
	for {
		s.mu.Lock()
		room := s.roomLocked()
		s.flow.paused = !room
		if !room && s.resume == nil {
			s.resume = make(chan struct{}, 1)
		}
		resume := s.resume
		s.mu.Unlock()
		if room {
			return
		}
		<-resume
	}
}

// lookAfter is how long a socket may be quiet before it is looked at closely.
const lookAfter = 2 * time.Second

// watch is what the regular look at a session remembers. Times are on the
// socket's clock.
type watch struct {
	looking bool
	written int64         // bytes written when the kernel was asked
	off     int64         // bytes taken off by then
	waiting bool          // more were waiting
	since   time.Duration // when they began to wait
	moved   time.Duration // when off last changed
	pinged  time.Duration // when silence last caused a ping
}

// Tick looks after the time limits of a session. One goroutine calls it, about
// twice a second.
func (s *Session) Tick() {
	s.mu.Lock()
	at, patience, held, paused := s.state, s.patience, !s.heldSince.IsZero(), s.flow.paused
	s.mu.Unlock()
	now := time.Duration(s.socket.now())
	switch {
	case at == ended:
		return
	case at != live && !held && now >= wire.LoginTimeout+patience:
		s.End(wire.CloseLoginTimeout, CauseLoginTimeout)
		return
	}
	quiet := s.socket.quiet()
	if quiet < lookAfter && s.socket.blocked() < time.Second {
		s.watch = watch{pinged: s.watch.pinged}
		return
	}
	s.look(now, quiet)
	s.judge(now, quiet, paused)
}

// look finds out what the peer has taken off since the last look. The kernel is
// asked only if there can be something new.
func (s *Session) look(now, quiet time.Duration) {
	w := &s.watch
	if written := s.socket.written.Load(); w.looking && !w.waiting && w.written == written && s.socket.blocked() == 0 {
		return
	}
	w.written = s.socket.written.Load()
	off, waiting := s.socket.takenOff()
	switch {
	case w.looking && off == w.off:
	case w.looking || waiting:
		w.moved = now
	default:
		w.moved = now - quiet
	}
	if waiting && !w.waiting {
		w.since = now
	}
	w.looking, w.off, w.waiting = true, off, waiting
}

// judge ends a session that takes nothing or is silent, or asks it for a sign
// of life.
func (s *Session) judge(now, quiet time.Duration, paused bool) {
	silence := min(quiet, now-s.watch.moved)
	switch {
	case s.watch.waiting && now-max(s.watch.moved, s.watch.since) >= wire.ReadingTooSlowAfter:
		s.End(wire.CloseReadingSlowly, CauseSlow)
	case paused: // it is we who do not read
	case silence >= wire.DropAfter:
		s.end(nil, CauseSilent)
	case silence >= wire.PingAfter && now-s.watch.pinged >= wire.PingAfter:
		s.watch.pinged = now
		s.mu.Lock()
		s.proof.idle = true
		s.mu.Unlock()
		s.Flush()
	}
}
