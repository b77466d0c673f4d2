package session

import (
	"net"
	"sync/atomic"
	"time"
)

const (
	// sendBuffer keeps little hidden in the kernel: what lies there is neither
	// proved nor could be taken back.
	sendBuffer = 64 << 10
	// readSize is how much is read at once, and ownSize from a connection whose buffer
	// cannot be taken only when it is needed.
	readSize = 8 << 10
	ownSize  = 1 << 10
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
	conn    net.Conn  // static
	buffers *Buffers  // static
	queue   queue     // static; how many written bytes the kernel still holds
	start   time.Time // static; times below count from here

	raw  raw
	own  []byte // owned by read: the buffer of a connection without a file of its own
	head []byte // owned by read: what was read ahead of the upgrade

	lastRead atomic.Int64 // nanoseconds
	received atomic.Int64 // bytes
	written  atomic.Int64 // bytes handed to the kernel
	writing  atomic.Int64 // nanoseconds since when a write waits for the peer; 0: none does
}

func newSocket(conn net.Conn, buffers *Buffers, head []byte) *socket {
	under := conn
	if secure, ok := conn.(interface{ NetConn() net.Conn }); ok { // TLS
		under = secure.NetConn()
	}
	if tcp, ok := under.(*net.TCPConn); ok {
		// A refused option costs precision, not correctness.
		_ = tcp.SetNoDelay(true)
		_ = tcp.SetWriteBuffer(sendBuffer)
	}
	s := &socket{conn: conn, buffers: buffers, queue: newQueue(under), start: time.Now(), head: head}
	s.raw.init(conn, buffers)
	return s
}

func (s *socket) now() int64 { return int64(time.Since(s.start)) + 1 }

// read waits for bytes and hands them to take, which may keep none of them.
func (s *socket) read(take func([]byte)) error {
	if len(s.head) > 0 {
		head := s.head
		s.head = nil
		s.received.Add(int64(len(head)))
		take(head)
		return nil
	}
	if s.raw.conn == nil {
		if s.own == nil {
			s.own = make([]byte, ownSize)
		}
		n, err := s.conn.Read(s.own)
		s.came(n)
		if n > 0 {
			take(s.own[:n])
		}
		return err
	}
	buf, err := s.raw.read()
	if err != nil {
		return err
	}
	s.came(len(*buf))
	take(*buf)
	s.buffers.put(buf)
	return nil
}

func (s *socket) came(n int) {
	if n > 0 {
		s.lastRead.Store(s.now())
		s.received.Add(int64(n))
	}
}

// try writes what the kernel takes at once. Only one goroutine at a time writes.
func (s *socket) try(p []byte) (int, error) {
	if s.raw.conn == nil {
		return 0, nil
	}
	n, err := s.raw.write(p)
	s.written.Add(int64(n))
	return n, err
}

// write waits until the kernel has taken everything. It hands over one piece after
// another, so that the progress of a slow client can be seen. Only one goroutine at
// a time writes.
func (s *socket) write(p []byte) (int, error) {
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
func (s *socket) discard() {
	for limit := s.received.Load() + partingBytes; s.received.Load() < limit; {
		if err := s.read(func([]byte) {}); err != nil {
			return
		}
	}
}
