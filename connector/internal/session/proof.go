package session

import (
	"encoding/binary"
	"strconv"
	"time"

	"github.com/linkerhq/linker/connector/internal/frames"
	"github.com/linkerhq/linker/pkg/failpoint"
	"github.com/linkerhq/linker/pkg/wire"
)

const (
	// pingEvery is how far apart pings are for which no confirmation waits. The
	// first frame after a pause takes its ping along at once.
	pingEvery = 100 * time.Millisecond
	// rideAfter is how far apart they are if there is a frame to ride with.
	rideAfter = pingEvery / 2
	// maxTokens bounds the FAST deliveries whose proof is wanted; the oldest
	// goes, and is then never proved.
	maxTokens = 1024
)

// proof decides when to ask a client whether it has read what was written. At
// most one ping is under way, none while nothing is unproved. Clients that
// acknowledge by themselves (byAck) are never asked.
type proof struct {
	byAck bool

	asked    uint64    // the number of the last ping; its payload
	askedAt  time.Time // when it was written
	mark     uint64    // the seq up to which its pong proves
	underWay bool
	idle     bool // ask in any case: the socket has been silent

	owed   uint64 // the highest seq that needs proof
	urgent bool   // a confirmation waits
	hurry  bool   // a confirmation waits for the pong of the ping under way

	tokens []token
}

// token is a FAST delivery whose proof is wanted.
type token struct {
	token uint64
	seq   uint64
}

// owe notes that the frame with this seq needs proof.
func (p *proof) owe(seq uint64, urgent bool) {
	p.owed = seq
	p.urgent = p.urgent || urgent
}

// want is owe for a FAST delivery.
func (p *proof) want(t, seq uint64) {
	if len(p.tokens) == maxTokens {
		p.tokens = dropFront(p.tokens, 1)
	}
	p.tokens = append(p.tokens, token{t, seq})
	p.owe(seq, true)
}

// ride appends a ping to what is written now, if one is due, or returns when it
// will be. seq is that of the frame written last.
func (p *proof) ride(b []byte, now time.Time, seq uint64) ([]byte, time.Time) {
	if !p.idle {
		if p.byAck || p.underWay || p.owed <= p.mark {
			return b, time.Time{}
		}
		wait := pingEvery
		if len(b) > 0 {
			wait = rideAfter
		}
		if !p.urgent && now.Sub(p.askedAt) < wait {
			return b, p.askedAt.Add(pingEvery)
		}
	}
	return p.ask(b, now, seq), time.Time{}
}

// ask appends a ping whose pong proves everything up to seq.
func (p *proof) ask(b []byte, now time.Time, seq uint64) []byte {
	p.asked++
	p.askedAt = now
	p.mark = seq
	p.hurry = p.urgent || p.hurry && p.underWay
	p.underWay = true
	p.idle, p.urgent = false, false
	var payload [20]byte
	return frames.AppendPing(b, strconv.AppendUint(payload[:0], p.asked, 10))
}

// precede appends a ping in front of a frame that tells the client that it has
// everything, unless one is written already: a client that has read this frame
// has answered, even if it goes at once. It takes the place of a ping under way.
func (p *proof) precede(b []byte, now time.Time, seq uint64) []byte {
	if p.byAck || p.owed <= p.mark {
		return b
	}
	return p.ask(b, now, seq)
}

// answered reports up to which seq a pong proves; ok is false for a pong that
// nobody asked for.
func (p *proof) answered(payload []byte) (seq uint64, ok bool) {
	var asked [20]byte
	if !p.underWay || string(payload) != string(strconv.AppendUint(asked[:0], p.asked, 10)) {
		return 0, false
	}
	p.underWay = false
	return p.mark, true
}

// take removes the tokens that are proved up to seq.
func (p *proof) take(seq uint64) []uint64 {
	n := 0
	for n < len(p.tokens) && p.tokens[n].seq <= seq {
		n++
	}
	if n == 0 {
		return nil
	}
	proved := make([]uint64, n)
	for i := range proved {
		proved[i] = p.tokens[i].token
	}
	p.tokens = dropFront(p.tokens, n)
	return proved
}

// ponged is called by the reader with every pong.
func (s *Session) ponged(payload []byte) {
	s.mu.Lock()
	seq, ok := s.proof.answered(payload)
	ok = ok && !s.proof.byAck
	urgent := s.proof.hurry
	s.mu.Unlock()
	if ok {
		s.prove(seq, urgent)
		s.Flush() // what was written meanwhile may want a ping
	}
}

// closeAnswered takes the client's close frame. One that repeats ours answers it:
// the client has read everything before.
func (s *Session) closeAnswered(code wire.CloseCode) {
	s.mu.Lock()
	answers := s.parted && !s.proof.byAck && len(s.parting) >= 4 && binary.BigEndian.Uint16(s.parting[2:]) == uint16(code)
	seq := s.ledger.seq
	s.mu.Unlock()
	if answers {
		s.prove(seq, true)
	}
}

// acknowledgedLate takes a MESSAGE_ACK that comes after we have ended the session,
// before the client's close frame: what it has read it need not get again.
func (s *Session) acknowledgedLate(b []byte) {
	s.mu.Lock()
	listens := s.wasLive && s.proof.byAck && s.parting != nil
	s.mu.Unlock()
	if !listens {
		return
	}
	f, problem := wire.Decode(b)
	if problem == nil && f.Type == wire.TypeMessageAck {
		_ = s.acknowledge(&f) // nobody can be told any more
	}
}

// acknowledge takes a MESSAGE_ACK.
func (s *Session) acknowledge(f *wire.Frame) *wire.Problem {
	s.mu.Lock()
	byAck, seq := s.proof.byAck, s.ledger.seq
	s.mu.Unlock()
	switch {
	case !byAck:
		return &wire.Problem{Code: wire.CodeInvalidField, Message: `type: MESSAGE_ACK without the feature "ack", expected it in data.features of AUTH_CLIENT`}
	case f.UpTo > seq:
		return &wire.Problem{Code: wire.CodeInvalidField, Message: "data.upTo: beyond what was sent, expected at most " + strconv.FormatUint(seq, 10)}
	}
	s.prove(f.UpTo, true) // whatever waits for it
	return nil
}

// prove settles everything written up to seq and tells.
func (s *Session) prove(seq uint64, urgent bool) {
	s.mu.Lock()
	advanced := s.ledger.settle(seq)
	tokens := s.proof.take(seq)
	s.mu.Unlock()
	if advanced || len(tokens) > 0 {
		_ = failpoint.Hit(failpoint.ConnectorBeforeProof)
		s.env.Metrics.proofs.Inc()
		s.env.Proofs.Proved(s, tokens, urgent || len(tokens) > 0)
	}
}
