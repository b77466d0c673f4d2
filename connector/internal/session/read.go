package session

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"

	"github.com/linkerhq/linker/pkg/wire"
)

const (
	readAhead  = 1 << 10 // bytes of the library's read buffer
	controlBuf = 160     // bytes: holds any control frame, so that each is one Write
)

// Accept upgrades a request to a websocket. With origins only pages from these
// hosts may connect; the patterns are those of path.Match. Whatever it refuses
// it has answered.
func Accept(w http.ResponseWriter, r *http.Request, env *Env, origins []string) (*Session, error) {
	h := &hijacker{ResponseWriter: w, env: env}
	ws, err := websocket.Accept(h, r, &websocket.AcceptOptions{
		InsecureSkipVerify: len(origins) == 0,
		OriginPatterns:     origins,
		CompressionMode:    websocket.CompressionDisabled,
		OnPingReceived:     func(context.Context, []byte) bool { return h.session.pinged() },
		OnPongReceived:     func(_ context.Context, payload []byte) { h.session.ponged(payload) },
	})
	if err != nil {
		return nil, err
	}
	ws.SetReadLimit(int64(env.FrameLimit))
	h.session.ws = ws
	return h.session, nil
}

// hijacker makes the library use our connection and small buffers.
type hijacker struct {
	http.ResponseWriter
	env     *Env
	session *Session
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
	h.session = newSession(h.env, newSocket(conn, append([]byte(nil), ahead...)))
	c := conduit{Conn: conn, s: h.session}
	return c, bufio.NewReadWriter(bufio.NewReaderSize(c, readAhead), bufio.NewWriterSize(c, controlBuf)), nil
}

// Run serves the session until its end. It returns when all its goroutines have
// ended and the connection is closed. The end of ctx does not end the session;
// logins are cancelled with it.
func (s *Session) Run(ctx context.Context) {
	s.env.Metrics.sockets.Inc()
	defer s.env.Metrics.sockets.Dec()
	written := make(chan struct{})
	go func() {
		defer close(written)
		s.writeLoop()
	}()

	if !s.readLoop(ctx) {
		buf := s.env.Buffers.get()
		s.socket.discard((*buf)[:cap(*buf)])
		s.env.Buffers.put(buf)
	}
	<-written
	// The peer may have gone long ago; nothing depends on how the close went.
	_ = s.ws.CloseNow()
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

// readLoop is the reader: it ends when the library has nothing more to read, and
// reports whether that is because the peer has sent a close frame.
func (s *Session) readLoop(ctx context.Context) (closed bool) {
	for {
		s.waitForRoom()
		// Without a deadline: the library would need a timer for each read. The
		// deadlines of the socket end it.
		kind, r, err := s.ws.Reader(context.Background())
		if err != nil {
			return s.broken(err)
		}
		buf := s.env.Buffers.get()
		b, err := readAll(r, (*buf)[:0])
		if err == nil {
			s.received(ctx, kind, b)
		}
		*buf = b
		s.env.Buffers.put(buf)
		if err != nil {
			return s.broken(err)
		}
	}
}

func readAll(r io.Reader, b []byte) ([]byte, error) {
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if errors.Is(err, io.EOF) {
			return b, nil
		}
		if err != nil {
			return b, err
		}
	}
}

// broken ends the session after an error of the library, which has written a
// close frame itself for most faults of the client. It reports whether the
// error is the client's close frame.
func (s *Session) broken(err error) (closed bool) {
	if code := websocket.CloseStatus(err); code != -1 {
		s.closeAnswered(wire.CloseCode(code))
		return true
	}
	var op *net.OpError
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &op) {
		s.end(nil, CausePeer)
		return false
	}
	s.End(wire.CloseProtocolError, CauseProtocol)
	return false
}

// received takes one message of the client. After the end it is ignored, unless it
// acknowledges something.
func (s *Session) received(ctx context.Context, kind websocket.MessageType, b []byte) {
	switch {
	case kind != websocket.MessageText:
		s.End(wire.CloseBinary, CauseProtocol)
		return
	case !utf8.Valid(b):
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
	f, problem := wire.Decode(b)
	s.env.Metrics.countIn(f.Type)
	switch {
	case at != live:
		s.beforeLogin(ctx, at, f, problem)
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
func (s *Session) beforeLogin(ctx context.Context, at state, f wire.Frame, problem *wire.Problem) {
	unreadable := problem != nil && (problem.Code == wire.CodeBadJSON || problem.Code == wire.CodeDuplicateKey)
	switch {
	case unreadable || f.Type == "":
		s.Refuse(f.Reference, problem)
	case f.Type != wire.TypeAuthClient:
		s.Reply(wire.AppendAuthRequired(nil))
	case at != pending:
		s.Refuse(f.Reference, alreadyAuthenticated())
	default:
		s.startLogin(ctx, f, problem)
	}
}

func (s *Session) startLogin(ctx context.Context, f wire.Frame, problem *wire.Problem) {
	ctx, cancel := context.WithCancel(ctx)
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
		defer cancel()
		s.env.Door.Login(ctx, s, f, problem)
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

// pinged is called by the library with every ping; it says whether to answer.
func (s *Session) pinged() bool {
	if s.pingsIn.add(time.Now(), time.Second) > wire.MaxPingsPerSecond {
		s.End(wire.CloseSendingFast, CauseFast)
		return false
	}
	return true
}
