package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

const (
	// pipeBytes is how much one direction of a connection in memory holds. A
	// writer that finds it full waits for the reader, like one of a socket.
	pipeBytes = 128 << 10
	// leastBytes is how much room it begins with, once it needs any.
	leastBytes = 4 << 10
	// acceptAgain is the time after which the network is asked again that could let
	// nobody in.
	acceptAgain = 50 * time.Millisecond
)

// door listens at an address of the network, and lets clients of this process in
// through memory: the same bytes without a system call.
type door struct {
	net.Listener // static; closed by Close

	incoming chan net.Conn // never closed; without room: a client waits until it is let in
	closing  sync.Once     // of closed
	closed   chan struct{} // closed by Close
	broken   chan struct{} // closed by admit when the network lets nobody in any more
	refused  error         // why; readable once broken is closed
}

func newDoor(network net.Listener) *door {
	d := &door{Listener: network, incoming: make(chan net.Conn), closed: make(chan struct{}), broken: make(chan struct{})}
	go d.admit() // until the listener ends
	return d
}

// admit lets in who comes over the network.
func (d *door) admit() {
	for {
		conn, err := d.Listener.Accept()
		if err != nil && !errors.Is(err, net.ErrClosed) && d.rest() {
			continue // there may be no file for it now; who comes through memory needs none
		}
		if err != nil {
			d.refused = err
			close(d.broken)
			return
		}
		select {
		case d.incoming <- conn:
		case <-d.closed:
			_ = conn.Close() // nobody has heard of it
		}
	}
}

// rest waits a little, and reports false when the door is closed meanwhile.
func (d *door) rest() bool {
	select {
	case <-time.After(acceptAgain):
		return true
	case <-d.closed:
		return false
	}
}

// Accept implements net.Listener.
func (d *door) Accept() (net.Conn, error) {
	select {
	case conn := <-d.incoming:
		return conn, nil
	case <-d.broken:
		return nil, d.refused
	}
}

// Close implements net.Listener. Connections stay.
func (d *door) Close() error {
	d.closing.Do(func() { close(d.closed) })
	err := d.Listener.Close()
	<-d.broken
	return err
}

// dial returns a connection in memory.
func (d *door) dial(ctx context.Context) (net.Conn, error) {
	client, server := newPipe(d.Addr())
	select {
	case d.incoming <- server:
		return client, nil
	case <-d.broken:
		return nil, &net.OpError{Op: "dial", Net: d.Addr().Network(), Addr: d.Addr(), Err: syscall.ECONNREFUSED}
	case <-ctx.Done():
		return nil, fmt.Errorf("dial in memory: %w", ctx.Err())
	}
}

// newPipe returns the two ends of a connection in memory. It behaves like one of
// TCP: what is written waits in a buffer, what was written before an end was
// closed can be read at the other one, and deadlines hold for calls under way,
// too. Its ends have an address in common.
func newPipe(addr net.Addr) (client, server net.Conn) {
	there, back := newStream(), newStream()
	return &pipeEnd{in: back, out: there, addr: addr}, &pipeEnd{in: there, out: back, addr: addr}
}

// pipeEnd is one end of a pipe.
type pipeEnd struct {
	in, out *stream  // static
	addr    net.Addr // static
}

// Read implements net.Conn.
func (e *pipeEnd) Read(b []byte) (int, error) {
	n, err := e.in.read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		err = e.failed("read", err)
	}
	return n, err
}

// Write implements net.Conn.
func (e *pipeEnd) Write(b []byte) (int, error) {
	n, err := e.out.write(b)
	if err != nil {
		err = e.failed("write", err)
	}
	return n, err
}

// failed says what failed, as other connections do.
func (e *pipeEnd) failed(what string, err error) error {
	return &net.OpError{Op: what, Net: e.addr.Network(), Addr: e.addr, Err: err}
}

// Close implements net.Conn. The other end reads what was written before, then
// EOF; what it writes from now on is refused.
func (e *pipeEnd) Close() error {
	e.out.finish()
	e.in.abandon()
	return nil
}

// LocalAddr implements net.Conn.
func (e *pipeEnd) LocalAddr() net.Addr { return e.addr }

// RemoteAddr implements net.Conn.
func (e *pipeEnd) RemoteAddr() net.Addr { return e.addr }

// SetDeadline implements net.Conn.
func (e *pipeEnd) SetDeadline(t time.Time) error {
	return errors.Join(e.SetReadDeadline(t), e.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (e *pipeEnd) SetReadDeadline(t time.Time) error { return e.in.setDeadline(&e.in.readers, t) }

// SetWriteDeadline implements net.Conn.
func (e *pipeEnd) SetWriteDeadline(t time.Time) error { return e.out.setDeadline(&e.out.writers, t) }
