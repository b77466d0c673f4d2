package swarm

import (
	"errors"

	"github.com/linkerhq/linker/standalone/internal/bench/frame"
	"github.com/linkerhq/linker/standalone/internal/bench/message"
)

type state int

const (
	idle       state = iota // has no socket
	connecting              // has one that is not connected
	shaking                 // has sent the handshake
	entering                // has sent its login
	in                      // is logged in
	gone                    // was logged in, and is not any more
)

// Client is one connection. It belongs to the swarm's thread.
type Client struct {
	Index int
	User  string

	swarm    *Swarm
	acks     bool // it acknowledges what it gets
	state    state
	fd       int
	begun    int64 // of the first attempt to get in
	attempt  int64 // begin of the last one
	partial  []byte
	out      []byte // what the socket has not taken
	watching bool   // for room in the socket
}

func (s *Swarm) writable(c *Client) {
	if c.state == connecting {
		if err := s.kernel.connected(c.fd); err != nil {
			s.lose(c, err)
			return
		}
		c.state = shaking
		to := s.cfg.Target(c.Index)
		c.out = frame.AppendHandshake(c.out, to.Host, to.Path)
	}
	s.flush(c)
	if c.state == in && len(c.out) == 0 {
		s.handler.Writable(c, s.Now())
	}
}

// flush writes what waits for a socket, and watches for room if it does not take all.
func (s *Swarm) flush(c *Client) {
	if len(c.out) > 0 {
		n, err := s.kernel.write(c.fd, c.out)
		if err != nil && !errors.Is(err, errAgain) {
			s.lose(c, err)
			return
		}
		if c.out = c.out[n:]; len(c.out) == 0 {
			c.out = nil
		}
	}
	if blocked := len(c.out) > 0; blocked != c.watching {
		c.watching = blocked
		if err := s.kernel.watch(c.Index, c.fd, blocked); err != nil {
			s.lose(c, err)
		}
	}
}

// Blocked says whether the socket of the client takes nothing. Writable is called
// when it does again.
func (c *Client) Blocked() bool { return len(c.out) > 0 }

// In says whether the client is logged in.
func (c *Client) In() bool { return c.state == in }

// Begun is when the client first tried to get in.
func (c *Client) Begun() int64 { return c.begun }

// Send writes a frame. It is false, and nothing is written, if the client is not
// logged in, or blocked.
func (c *Client) Send(f []byte) bool {
	if c.state != in || len(c.out) > 0 {
		return false
	}
	c.swarm.put(c, f)
	return true
}

// put writes bytes, and keeps what the socket does not take.
func (s *Swarm) put(c *Client, b []byte) {
	if len(c.out) > 0 {
		if c.out = append(c.out, b...); len(c.out) > maxOut {
			s.lose(c, errStuck)
		}
		return
	}
	n, err := s.kernel.write(c.fd, b)
	switch {
	case err != nil && !errors.Is(err, errAgain):
		s.lose(c, err)
	case n < len(b):
		c.out = append(c.out, b[n:]...)
		s.flush(c)
	}
}

var errStuck = errors.New("the server does not read")

// readable reads what a socket has, once, and handles the frames in it.
func (s *Swarm) readable(c *Client) {
	have := copy(s.buffer, c.partial)
	n, err := s.kernel.read(c.fd, s.buffer[have:])
	if errors.Is(err, errAgain) {
		return
	}
	if err != nil {
		s.lose(c, err)
		return
	}
	fd := c.fd
	rest, err := s.consume(c, s.buffer[:have+n], s.Now())
	if c.fd != fd {
		return // lost on the way
	}
	if err != nil {
		s.lose(c, err)
		return
	}
	if c.partial = append(c.partial[:0], rest...); len(rest) == 0 {
		c.partial = nil
	}
}

// consume handles all that is there as a whole and returns the rest.
func (s *Swarm) consume(c *Client, b []byte, now int64) ([]byte, error) {
	if c.state == shaking {
		n, err := frame.ReadAnswer(b)
		if err != nil || n == 0 {
			return b, err
		}
		b = b[n:]
		hello, err := message.AppendLogin(nil, s.cfg.Login(c.Index))
		if err != nil {
			return nil, err
		}
		c.state = entering
		s.put(c, hello)
	}
	s.control = s.control[:0]
	var upTo int64
	fd := c.fd
	for c.fd == fd {
		f, n, err := frame.Read(b, bufferBytes)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			break
		}
		b = b[n:]
		if f.Opcode == frame.Text && c.acks {
			if seq, is := message.ScanSeq(f.Payload); is {
				upTo = seq
			}
		}
		if err := s.handle(c, f, now); err != nil {
			return nil, err
		}
	}
	if c.fd != fd {
		return nil, nil
	}
	if upTo > 0 {
		s.control = message.AppendAck(s.control, upTo)
	}
	if len(s.control) > 0 {
		s.put(c, s.control)
	}
	return b, nil
}

// handle takes one frame.
func (s *Swarm) handle(c *Client, f frame.Frame, now int64) error {
	switch f.Opcode {
	case frame.Text:
		if !f.Final {
			return errInParts
		}
		return s.text(c, f.Payload, now)
	case frame.Ping:
		s.control = frame.Append(s.control, frame.Pong, f.Payload)
		return nil
	case frame.Pong:
		return nil
	case frame.Close:
		return closeError{frame.CloseCode(f.Payload)}
	case frame.Continuation:
		return errInParts
	case frame.Binary:
		return errBinary
	}
	return frame.ErrOpcode
}

// What a server does not do.
var (
	errInParts = errors.New("a message in several frames")
	errBinary  = errors.New("a binary frame")
)

func (s *Swarm) text(c *Client, payload []byte, now int64) error {
	if c.state == in {
		s.handler.Frame(c, payload, now)
		return nil
	}
	a, err := message.ReadAnswer(payload)
	switch {
	case err != nil:
		return err
	case a.Type != "AUTH_CLIENT_REPLY":
		return nil
	case !a.IsAuthenticated:
		return refusedError{a.Reason}
	}
	c.state = in
	s.onTheWay--
	s.entered.Add(1)
	s.handler.LoggedIn(c, now)
	return nil
}
