package session

import (
	"bytes"
	"slices"
	"time"

	"github.com/linkerhq/linker/connector/internal/frames"
	"github.com/linkerhq/linker/pkg/delivery"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/wire"
)

const (
	// writeSize is how much one write takes out of the outbox; it may exceed it
	// by one frame.
	writeSize = 64 << 10
	// maxFast bounds the FAST frames that wait for a client which is slow: one
	// that has kept a write waiting for fastPatience. A client that takes them may
	// have maxBurst frames and maxBurstBytes waiting. Beyond, the oldest go.
	maxFast       = 128
	fastPatience  = 100 * time.Millisecond
	maxBurst      = 4096
	maxBurstBytes = 1 << 20
	// sharedFrames is how many waiting frames may keep the message alive that
	// brought them; further ones are copied out of it.
	sharedFrames = 8
)

// outgoing is one delivery in the outbox. The numbered ones are bounded by the
// ledger.
type outgoing struct {
	d       uint64 // 0: FAST
	token   uint64 // of FAST: wants proof; else the fetch that this frame ends
	counted bool   // came from a message: has an id, and a seq for clients that count
	late    bool
	urgent  bool
	frame   []byte
}

// acceptLocked puts a delivery that was taken into the outbox.
func (s *Session) acceptLocked(it *delivery.Item, d uint64, verdict Verdict) {
	counted := it.ID != (ident.MessageID{})
	switch {
	case !counted:
	case !s.identity.Features.Has(envelope.FeaturePush) && it.Pos.Before(s.login):
		s.before++
	case s.last.Before(it.Pos):
		s.last = it.Pos
	}
	if verdict == Duplicate {
		s.env.Metrics.duplicates.Inc()
		return
	}
	if it.Kind == delivery.KindClose {
		s.ledger.passed(d)
		s.ledger.settle(0)
		s.dismissed = true
		return
	}
	frame := it.Frame
	if len(s.numbered) >= sharedFrames {
		frame = bytes.Clone(frame)
	}
	s.numbered = append(s.numbered, outgoing{d: d, token: it.Token, counted: counted, late: it.Late, urgent: it.Urgent, frame: frame})
}

func (s *Session) pushFastLocked(it *delivery.Item) {
	slow := s.socket.blocked() >= fastPatience
	drop := 0
	for n := len(s.fast); drop < n && (n-drop >= maxBurst || slow && n-drop >= maxFast || s.fastBytes+len(it.Frame) > maxBurstBytes); drop++ {
		s.fastBytes -= len(s.fast[drop].frame)
	}
	s.fast = dropFront(s.fast, drop)
	s.env.Metrics.fastDrops.Add(float64(drop))
	frame := it.Frame
	if len(s.fast) >= sharedFrames {
		frame = bytes.Clone(frame)
	}
	s.fastBytes += len(frame)
	s.fast = append(s.fast, outgoing{token: it.Token, counted: true, urgent: it.Token != 0, frame: frame})
}

// load is what one write carries.
type load struct {
	bytes    []byte
	fetches  []uint64  // whose ends are in it
	advanced bool      // proofs moved on: frames that need no proof are in it
	more     bool      // the outbox holds more
	frames   int       // how many deliveries are in it
	last     bool      // the session has ended and nothing is left
	cut      bool      // … because its connection was cut
	pingAt   time.Time // when a ping is due, or the close frame; zero: none is
}

// gather takes out of the outbox what fits one write, appended to b: answers to
// the client first, then numbered deliveries, then FAST ones, then a ping if one
// is due.
func (s *Session) gather(b []byte, now time.Time) load {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := load{bytes: b}
	s.again = false
	if s.state == ended && s.parting == nil {
		s.leaveLocked()
		l.last, l.cut = true, true
		return l
	}
	asked := s.proof.asked
	if s.pong != nil {
		l.bytes = frames.AppendPong(l.bytes, s.pong)
		s.pong = nil
	}
	s.gatherReplies(&l)
	if s.wasLive {
		s.gatherFrames(&l, now)
		s.gatherFast(&l)
	}
	l.more = len(s.replies) > 0 || s.wasLive && len(s.numbered)+len(s.fast) > 0
	if s.state == ended {
		switch {
		case l.more:
		case s.flow.count > 0 && now.Before(s.settleBy):
			l.pingAt = s.settleBy
		default:
			l.bytes = append(l.bytes, s.parting...)
			l.last = true
			s.parted = true
			s.leaveLocked()
		}
		return l
	}
	l.bytes, l.pingAt = s.proof.ride(l.bytes, now, s.ledger.seq)
	s.env.Metrics.pings.Add(float64(s.proof.asked - asked))
	s.resumeLocked()
	return l
}

func (s *Session) gatherReplies(l *load) {
	n := 0
	for n < len(s.replies) && len(l.bytes) < writeSize {
		frame := s.replies[n]
		l.bytes = frames.AppendText(l.bytes, frame)
		s.env.Metrics.countOut(frame)
		s.waiting -= len(frame)
		n++
	}
	s.replies = dropFront(s.replies, n)
}

func (s *Session) gatherFrames(l *load, now time.Time) {
	n := 0
	for n < len(s.numbered) && len(l.bytes) < writeSize {
		o := &s.numbered[n]
		endsFetch := !o.counted && o.token != 0
		if endsFetch {
			l.bytes = s.proof.precede(l.bytes, now, s.ledger.seq)
		}
		if o.counted || !s.proof.byAck {
			s.ledger.written(o.d)
			s.proof.owe(s.ledger.seq, o.urgent)
		} else { // a client that counts has no number to acknowledge it with
			s.ledger.passed(o.d)
			l.advanced = s.ledger.settle(0) || l.advanced
		}
		l.bytes = s.appendDelivery(l.bytes, o, s.ledger.seq)
		if endsFetch {
			l.fetches = append(l.fetches, o.token)
		}
		n++
	}
	l.frames += n
	s.numbered = dropFront(s.numbered, n)
}

func (s *Session) gatherFast(l *load) {
	n := 0
	for n < len(s.fast) && len(l.bytes) < writeSize {
		o := &s.fast[n]
		s.fastBytes -= len(o.frame)
		s.ledger.seq++
		if o.token != 0 {
			s.proof.want(o.token, s.ledger.seq)
		}
		l.bytes = s.appendDelivery(l.bytes, o, s.ledger.seq)
		n++
	}
	l.frames += n
	s.fast = dropFront(s.fast, n)
}

// appendDelivery appends the finished frame of a message, with what is known
// only here beside its type.
func (s *Session) appendDelivery(b []byte, o *outgoing, seq uint64) []byte {
	s.env.Metrics.countOut(o.frame)
	numbered := o.counted && s.proof.byAck
	if !o.late && !numbered {
		return frames.AppendText(b, o.frame)
	}
	var late, numberedAndLate [48]byte
	tail := append(late[:0], '}')
	if o.late {
		tail = wire.AppendLate(late[:0], []byte{'}'})
	}
	if numbered {
		tail = wire.AppendSeq(numberedAndLate[:0], tail, seq)
	}
	b = frames.AppendTextHeader(b, len(o.frame)-1+len(tail))
	b = append(b, o.frame[:len(o.frame)-1]...)
	return append(b, tail...)
}

// dropFront removes the first n elements and lets go of what they refer to.
func dropFront[T any](list []T, n int) []T {
	if n == len(list) && cap(list) > 64 {
		return nil
	}
	return slices.Delete(list, 0, n)
}
