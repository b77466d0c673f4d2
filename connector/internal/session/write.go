package session

import (
	"bytes"
	"encoding/binary"
	"net"
	"time"

	"github.com/linkerhq/linker/pkg/wire"
)

// writeLoop is the writer: it ends when the session has ended and everything
// was written, or when the socket takes nothing more.
func (s *Session) writeLoop() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		buf := s.env.Buffers.get()
		l := s.gather((*buf)[:0], time.Now())
		err := s.write(l)
		*buf = l.bytes
		s.env.Buffers.put(buf)
		switch {
		case err != nil:
			s.end(nil, CausePeer)
			return
		case l.last:
			s.socket.finish()
			return
		case l.more:
			continue
		}
		if l.pingAt.IsZero() {
			<-s.wake
			continue
		}
		timer.Reset(time.Until(l.pingAt))
		select {
		case <-s.wake:
		case <-timer.C:
		}
	}
}

func (s *Session) write(l load) error {
	if len(l.bytes) > 0 {
		n, err := s.socket.Write(l.bytes)
		s.env.Metrics.bytesOut.Add(float64(n))
		if err != nil {
			return err
		}
	}
	if len(l.fetches) == 0 && !l.advanced {
		return nil
	}
	for _, request := range l.fetches {
		s.Identity().Sender.FetchDone(request)
	}
	if l.advanced {
		s.env.Proofs.Proved(s, nil)
	}
	return nil
}

// conduit is the connection that the websocket library sees. It reads from the
// socket; what the library writes, pongs and close frames only, goes through the
// session's writer, so that a client which does not read cannot stop the reader.
type conduit struct {
	net.Conn
	s *Session
}

func (c conduit) Read(p []byte) (int, error) { return c.s.socket.Read(p) }

// Write takes one control frame, which the library writes as a whole.
func (c conduit) Write(p []byte) (int, error) {
	switch payload := p[2:]; p[0] {
	case opPong:
		c.s.mu.Lock()
		c.s.pong = bytes.Clone(payload)
		c.s.mu.Unlock()
		signal(c.s.wake)
	case opClose:
		c.s.end(bytes.Clone(p), causeOf(payload))
	}
	return len(p), nil
}

// Close does nothing: the session closes the socket when the writer is done.
func (c conduit) Close() error { return nil }

// causeOf says why the library closes: it repeats the client's code, or found
// the client at fault itself.
func causeOf(payload []byte) Cause {
	if len(payload) < 2 {
		return CausePeer
	}
	switch wire.CloseCode(binary.BigEndian.Uint16(payload)) {
	case wire.CloseProtocolError:
		return CauseProtocol
	case wire.CloseTooLarge:
		return CauseTooLarge
	default:
		return CausePeer
	}
}
