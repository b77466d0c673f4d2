package session

import (
	"time"

	"github.com/linkerhq/linker/connector/internal/frames"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/wire"
)

// GoAway tells a client that understands it to come back after a while.
func (s *Session) GoAway(reason string, after time.Duration) {
	s.mu.Lock()
	hints := s.state == live && s.identity.Features.Has(envelope.FeatureHints)
	s.mu.Unlock()
	if hints {
		s.Reply(wire.AppendGoAway(nil, reason, int(after.Milliseconds())))
	}
}

// End closes the session: what is queued is written, then a close frame, within
// some seconds. If it is no fault of the client, the close frame waits a moment for
// the answers to what the client has sent. Only the first end counts.
func (s *Session) End(code wire.CloseCode, cause Cause) {
	s.end(frames.AppendClose(nil, uint16(code), ""), cause)
}

// end is End with the close frame; nil cuts the connection at once.
func (s *Session) end(frame []byte, cause Cause) {
	s.mu.Lock()
	if s.state == ended {
		s.mu.Unlock()
		return
	}
	s.state = ended
	s.cause = cause
	s.parting = frame
	s.endedAt = s.socket.received.Load()
	if frame != nil && s.wasLive && cause.orderly() {
		s.settleBy = time.Now().Add(settleFor)
	}
	cancel := s.cancel
	s.resumeLocked()
	s.mu.Unlock()
	close(s.gone)
	if cancel != nil {
		cancel()
	}
	if frame == nil {
		s.socket.cut()
	} else {
		s.socket.part()
	}
	s.Flush()
}

// orderlyLocked says whether the session has ended by a decision of ours, and the
// client can still prove what it has.
func (s *Session) orderlyLocked() bool { return !s.settleBy.IsZero() }
