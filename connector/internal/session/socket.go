package session

import (
	"encoding/binary"
	"net"
	"sync/atomic"
	"time"

	"github.com/linkerhq/linker/pkg/wire"
)

const (
	// sendBuffer keeps little hidden in the kernel: what lies there is neither
	// proved nor could be taken back.
	sendBuffer = 64 << 10
	// writePiece is the least that a client has to take within the time after
	// which it counts as reading too slowly.
	writePiece = 16 << 10
	// partingTime is how long a socket that is being closed may take to get the
	// close frame and to stop sending.
	partingTime = 5 * time.Second
	// settleFor is how long the close frame may wait for the answers to what the
	// client has sent.
	settleFor = time.Second
	// partingBytes is how much is read and thrown away meanwhile.
	partingBytes = 64 << 20
)

// socket is the connection under a websocket. It knows when the peer last gave
// a sign of life: bytes that came, or bytes of ours that its stack took off.
type socket struct {
	conn  net.Conn  // static
	queue queue     // static; how many written bytes the kernel still holds
	start time.Time // static; times below count from here

	ahead    []byte       // owned by Read: what was read ahead of the upgrade
	lastRead atomic.Int64 // nanoseconds
	received atomic.Int64 // bytes
	written  atomic.Int64 // bytes handed to the kernel
	writing  atomic.Int64 // nanoseconds at which the write under way began; 0: none is
}

func newSocket(conn net.Conn, ahead []byte) *socket {
	under := conn
	if secure, ok := conn.(interface{ NetConn() net.Conn }); ok { // TLS
		under = secure.NetConn()
	}
	if tcp, ok := under.(*net.TCPConn); ok {
		// A refused option costs precision, not correctness.
		_ = tcp.SetNoDelay(true)
		_ = tcp.SetWriteBuffer(sendBuffer)
	}
	return &socket{conn: conn, queue: newQueue(under), start: time.Now(), ahead: ahead}
}

func (s *socket) now() int64 { return int64(time.Since(s.start)) + 1 }

func (s *socket) Read(p []byte) (int, error) {
	if len(s.ahead) > 0 {
		n := copy(p, s.ahead)
		s.ahead = s.ahead[n:]
		s.received.Add(int64(n))
		return n, nil
	}
	n, err := s.conn.Read(p)
	if n > 0 {
		s.lastRead.Store(s.now())
		s.received.Add(int64(n))
	}
	return n, err
}

// Write is called by the session's writer only. It hands over one piece after
// another, so that the progress of a slow client can be seen.
func (s *socket) Write(p []byte) (int, error) {
	total := 0
	for len(p) > 0 {
		s.writing.Store(s.now())
		n, err := s.conn.Write(p[:min(len(p), writePiece)])
		s.writing.Store(0)
		s.written.Add(int64(n))
		total += n
		if err != nil {
			return total, err
		}
		p = p[n:]
	}
	return total, nil
}

// quiet is how long no byte has come.
func (s *socket) quiet() time.Duration { return time.Duration(s.now() - s.lastRead.Load()) }

// blocked is how long the write under way has taken.
func (s *socket) blocked() time.Duration {
	since := s.writing.Load()
	if since == 0 {
		return 0
	}
	return time.Duration(s.now() - since)
}

// takenOff returns how many bytes the peer's stack has acknowledged, and whether
// more wait for it. It asks the kernel. With TLS the kernel holds a little more
// than was written, so that the first is too low while something waits.
func (s *socket) takenOff() (bytes int64, waiting bool) {
	held := int64(s.queue.held())
	return s.written.Load() - held, held > 0 || s.writing.Load() != 0
}

// part gives the peer a last while to take what is on its way and to stop.
func (s *socket) part() { _ = s.conn.SetDeadline(time.Now().Add(partingTime)) }

// cut ends everything under way, at once.
func (s *socket) cut() { _ = s.conn.SetDeadline(time.Now().Add(-time.Second)) }

// finish says that nothing more will be written; what the peer sends can still
// be read, so that no reset destroys what is on its way to it.
func (s *socket) finish() {
	if half, ok := s.conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}

// discard reads and throws away what the peer still sends, until it stops or the
// parting time is over.
func (s *socket) discard(buf []byte) {
	for limit := s.received.Load() + partingBytes; s.received.Load() < limit; {
		if _, err := s.Read(buf); err != nil {
			return
		}
	}
}

// Opcodes of RFC 6455, in a single frame.
const (
	opText  = 0x81
	opClose = 0x88
	opPing  = 0x89
	opPong  = 0x8a
)

// appendFrame appends a frame of the server: whole, not masked.
func appendFrame[T ~string | ~[]byte](b []byte, op byte, payload T) []byte {
	return append(appendHeader(b, op, len(payload)), payload...)
}

func appendHeader(b []byte, op byte, n int) []byte {
	switch {
	case n < 126:
		return append(b, op, byte(n))
	case n < 1<<16:
		return append(b, op, 126, byte(n>>8), byte(n))
	default:
		return binary.BigEndian.AppendUint64(append(b, op, 127), uint64(n))
	}
}

func appendClose(b []byte, code wire.CloseCode, reason string) []byte {
	payload := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(reason)), uint16(code))
	return appendFrame(b, opClose, append(payload, reason...))
}
