package session

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"

	"github.com/linkerhq/linker/connector/internal/frames"
	"github.com/linkerhq/linker/pkg/wire"
)

// Accept upgrades a request to a websocket. With origins only pages from these
// hosts may connect; the patterns are those of path.Match. Whatever it refuses
// it has answered.
//
// The library makes the handshake. What follows it, frames, is ours: see
// docs/adr/0006.
func Accept(w http.ResponseWriter, r *http.Request, env *Env, origins []string) (*Session, error) {
	h := &hijacker{ResponseWriter: w, env: env}
	ws, err := websocket.Accept(h, r, &websocket.AcceptOptions{
		InsecureSkipVerify: len(origins) == 0,
		OriginPatterns:     origins,
		CompressionMode:    websocket.CompressionDisabled,
	})
	if err != nil {
		return nil, err
	}
	_ = ws.CloseNow() // closes nothing; without it the collector would keep it for a while
	return newSession(env, h.socket), nil
}

// hijacker takes the connection and gives the library none.
type hijacker struct {
	http.ResponseWriter
	env    *Env
	socket *socket
}

func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	ahead, err := buffered.Reader.Peek(buffered.Reader.Buffered())
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	h.socket = newSocket(conn, h.env.Buffers, append([]byte(nil), ahead...))
	c := handedOver{conn}
	return c, bufio.NewReadWriter(bufio.NewReaderSize(c, 1), bufio.NewWriterSize(c, 1)), nil
}

// handedOver is a connection in which the library has no part any more: it closes nothing.
type handedOver struct{ net.Conn }

func (handedOver) Close() error { return nil }

// Run serves the session until its end. It returns when all its goroutines have
// ended and the connection is closed. The end of ctx does not end the session;
// logins are cancelled with it.
func (s *Session) Run(ctx context.Context) {
	s.env.Metrics.sockets.Inc()
	defer s.env.Metrics.sockets.Dec()
	s.ctx = ctx
	// What a login needs of the stack is given back with its goroutine: this one stays as
	// small as it begins for as long as its client sends nothing more.
	greeted := make(chan struct{})
	go func() {
		defer close(greeted)
		s.readLoop(readGreeting)
	}()
	<-greeted
	s.readLoop(readOn)
	if s.reading != readClose {
		s.socket.discard()
	}
	<-s.written
	// The peer may have gone long ago; nothing depends on how the close went.
	_ = s.socket.conn.Close()
	s.tasks.Wait()
	s.env.Metrics.bytesIn.Add(float64(s.socket.received.Load()))
	s.env.Metrics.ended[s.endedBy()].Inc()
}

func (s *Session) endedBy() Cause {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cause
}

// readLoop is the reader: it ends when nothing more can be read that means anything, or
// something else than meanwhile is to be read.
func (s *Session) readLoop(meanwhile reading) {
	take := s.take
	for s.reading == meanwhile {
		if err := s.socket.read(take); err != nil && s.reading <= readOn {
			s.end(nil, CausePeer)
			s.reading = readFault
		}
	}
}

// reading says how far the reader is.
type reading uint8

const (
	readGreeting reading = iota // no login has come yet
	readOn
	readClose // the client's close frame came: nothing comes behind it
	readFault // what follows cannot be understood, or nothing does
)

// take takes what was read.
func (s *Session) take(b []byte) {
	for s.reading <= readOn {
		var kind frames.Kind
		var payload []byte
		kind, payload, b = s.frames.Next(b)
		switch kind {
		case frames.None:
			return
		case frames.Text:
			s.received(payload)
			s.waitForRoom()
		case frames.Binary:
			s.End(wire.CloseBinary, CauseProtocol)
		case frames.Ping:
			s.pinged(payload)
		case frames.Pong:
			s.ponged(payload)
		case frames.Close:
			s.reading = readClose
			s.closedBy(payload)
		case frames.TooLarge:
			s.reading = readFault
			s.End(wire.CloseTooLarge, CauseTooLarge)
		case frames.Invalid:
			s.reading = readFault
			s.End(wire.CloseProtocolError, CauseProtocol)
		}
	}
}

// closedBy takes the client's close frame, and answers it unless it is itself an answer.
func (s *Session) closedBy(payload []byte) {
	if len(payload) >= 2 {
		s.closeAnswered(wire.CloseCode(binary.BigEndian.Uint16(payload)))
	}
	s.end(frames.AppendCloseAnswer(nil, payload), CausePeer)
}

// received takes one message of the client. After the end it is ignored, unless it
// acknowledges something.
func (s *Session) received(b []byte) {
	if !utf8.Valid(b) {
		s.End(wire.CloseNotUTF8, CauseProtocol)
		return
	}
	s.mu.Lock()
	at, enough := s.state, s.state == ended && s.socket.received.Load() > s.endedAt+partingBytes
	s.mu.Unlock()
	switch {
	case enough:
		s.socket.cut()
		return
	case at == ended:
		s.acknowledgedLate(b)
		return
	}
	// Not on the stack: that of a reader is not to outgrow 4 KB, else each collection of
	// garbage takes off it what the next message needs again.
	f := s.env.Buffers.getFrame()
	defer s.env.Buffers.putFrame(f)
	problem := wire.DecodeInto(b, f)
	s.env.Metrics.countIn(f.Type)
	s.handle(at, f, problem)
}

func (s *Session) handle(at state, f *wire.Frame, problem *wire.Problem) {
	switch {
	case at != live:
		s.beforeLogin(at, f, problem)
	case f.Type == wire.TypeAuthClient:
		s.Refuse(f.Reference, alreadyAuthenticated())
	case problem != nil:
		s.Refuse(f.Reference, problem)
	case f.Type == wire.TypeMessageAck:
		if problem := s.acknowledge(f); problem != nil {
			s.Refuse(f.Reference, problem)
		}
	default:
		s.identity.Sender.Submit(f)
	}
}

// beforeLogin takes a frame of a client that is not logged in. Nothing but a
// login is looked at, and nothing is queued.
func (s *Session) beforeLogin(at state, f *wire.Frame, problem *wire.Problem) {
	unreadable := problem != nil && (problem.Code == wire.CodeBadJSON || problem.Code == wire.CodeDuplicateKey)
	switch {
	case unreadable || f.Type == "":
		s.Refuse(f.Reference, problem)
	case f.Type != wire.TypeAuthClient:
		s.Reply(wire.AppendAuthRequired(nil))
	case at != pending:
		s.Refuse(f.Reference, alreadyAuthenticated())
	default:
		s.startLogin(*f, problem)
	}
}

func (s *Session) startLogin(f wire.Frame, problem *wire.Problem) {
	ctx, cancel := context.WithCancel(s.ctx)
	s.reading = readOn
	s.mu.Lock()
	over := s.state == ended
	if !over {
		s.state = authenticating
		s.cancel = cancel
	}
	s.mu.Unlock()
	if over {
		cancel()
		return
	}
	s.tasks.Go(func() {
		s.env.Door.Login(ctx, s, f, problem)
		s.mu.Lock()
		s.cancel = nil
		s.mu.Unlock()
		cancel()
	})
}

func alreadyAuthenticated() *wire.Problem {
	return &wire.Problem{Code: wire.CodeAlreadyAuthenticated, Message: "type: a second AUTH_CLIENT on one socket, expected at most one"}
}

// Refuse answers a frame that cannot be taken. Too many of them end the session.
// Only the reader calls it.
func (s *Session) Refuse(reference string, p *wire.Problem) {
	if c, known := s.env.Metrics.invalid[p.Code]; known {
		c.Inc()
	}
	if p.Code == wire.CodeForbiddenType {
		id := s.Identity()
		s.env.Log.Warn("client sent a frame type of servers", "user", id.User, "session", id.ID)
	}
	s.Reply(wire.AppendInvalidMessage(nil, wire.Failure{Code: p.Code, Message: p.Message, Reference: reference}))
	if s.badFrames.add(time.Now(), time.Minute) > wire.MaxBadFramesPerMin {
		s.End(wire.CloseBadFrames, CauseBadFrames)
	}
}

// pinged answers a ping; of several that came before an answer was written the last.
func (s *Session) pinged(payload []byte) {
	if s.pingsIn.add(time.Now(), time.Second) > wire.MaxPingsPerSecond {
		s.End(wire.CloseSendingFast, CauseFast)
		return
	}
	s.mu.Lock()
	s.pong = append([]byte{}, payload...)
	s.mu.Unlock()
	s.Flush()
}
