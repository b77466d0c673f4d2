//go:build unix

package session

import (
	"io"
	"net"
	"sync/atomic"
	"syscall"
)

// raw is a connection whose file is read and written without waiting: so an idle
// socket needs no buffer, and a write no goroutine of its own. The reader uses what
// belongs to reading, whoever writes the rest.
type raw struct {
	conn syscall.RawConn // static; nil: the connection has no file of its own, as with TLS

	readFrom func(fd uintptr) bool // static; tryRead
	buffers  *Buffers              // static
	take     func([]byte) bool     // what is read goes to
	inErr    error
	drained  atomic.Bool // everything was read; whether the end came with it was not looked at

	writeFrom func(fd uintptr) bool // static; tryWrite
	out       []byte                // what is to be written
	outN      int
	outErr    error
}

func (r *raw) init(conn net.Conn, buffers *Buffers) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	rc, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	r.conn, r.buffers = rc, buffers
	r.readFrom, r.writeFrom = r.tryRead, r.tryWrite
}

// read waits until there is something, and hands it to take in a buffer that was taken
// only then; and again, for as long as take wants more.
func (r *raw) read(take func([]byte) bool) error {
	r.take, r.inErr = take, nil
	if err := r.conn.Read(r.readFrom); err != nil {
		return err
	}
	return r.inErr
}

// tryRead reads until there is nothing more, and says whether it is not to be called
// again when there is. A read that does not fill the buffer has taken everything, and what
// comes later is reported. Only an end that had come by then is not: see hungUp.
func (r *raw) tryRead(fd uintptr) bool {
	for {
		buf := r.buffers.get()
		n, err := syscall.Read(int(fd), (*buf)[:readSize])
		more := n > 0 && r.take((*buf)[:n])
		r.buffers.put(buf)
		switch {
		case n > 0 && !more:
			return true
		case n == readSize || err == syscall.EINTR:
			continue
		case n > 0:
			r.drained.Store(true)
			return false
		case err == syscall.EAGAIN:
			return false
		case err != nil:
			r.inErr = &net.OpError{Op: "read", Net: "tcp", Err: err}
		default:
			r.inErr = io.EOF
		}
		return true
	}
}

// hungUp says whether the peer has ended the connection and read has not been told: the
// end had come with the last bytes. It costs a call of the kernel for each of those
// before which something was read.
func (r *raw) hungUp() (gone bool) {
	if r.conn == nil || !r.drained.Swap(false) {
		return false
	}
	_ = r.conn.Control(func(fd uintptr) { // a connection that is closed needs no more
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		gone = n == 0 && err == nil
	})
	return gone
}

// write hands over to the kernel what it takes at once, and returns how much that was.
func (r *raw) write(p []byte) (int, error) {
	r.out, r.outN, r.outErr = p, 0, nil
	err := r.conn.Write(r.writeFrom)
	r.out = nil
	if err == nil {
		err = r.outErr
	}
	return r.outN, err
}

func (r *raw) tryWrite(fd uintptr) bool {
	for r.outN < len(r.out) {
		n, err := syscall.Write(int(fd), r.out[r.outN:])
		switch {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return true
		case err != nil:
			r.outErr = &net.OpError{Op: "write", Net: "tcp", Err: err}
			return true
		default:
			r.outN += n
		}
	}
	return true
}
