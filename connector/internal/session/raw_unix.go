//go:build unix

package session

import (
	"io"
	"net"
	"syscall"
)

// raw is a connection whose file is read and written without waiting: so an idle
// socket needs no buffer, and a write no goroutine of its own. The reader uses what
// belongs to reading, whoever writes the rest.
type raw struct {
	conn syscall.RawConn // static; nil: the connection has no file of its own, as with TLS

	readInto func(fd uintptr) bool // static; tryRead
	buffers  *Buffers              // static
	in       *[]byte               // what was read
	inErr    error

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
	r.readInto, r.writeFrom = r.tryRead, r.tryWrite
}

// read waits until there is something, and returns it in a buffer that was taken only
// then.
func (r *raw) read() (*[]byte, error) {
	if err := r.conn.Read(r.readInto); err != nil {
		return nil, err
	}
	in, err := r.in, r.inErr
	r.in, r.inErr = nil, nil
	return in, err
}

// tryRead says whether there is something, be it the end.
func (r *raw) tryRead(fd uintptr) bool {
	buf := r.buffers.get()
	for {
		n, err := syscall.Read(int(fd), (*buf)[:readSize])
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			r.buffers.put(buf)
			return false
		case err != nil:
			r.inErr = &net.OpError{Op: "read", Net: "tcp", Err: err}
		case n == 0:
			r.inErr = io.EOF
		default:
			*buf = (*buf)[:n]
			r.in = buf
			return true
		}
		r.buffers.put(buf)
		return true
	}
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
