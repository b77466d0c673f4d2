package embedded

import (
	"errors"
	"net"
	"time"
)

const (
	// pumpBytes is how much is handed on at once.
	pumpBytes = 32 << 10
	// linger is how long an end that was closed still hands on what it holds.
	linger = time.Second
)

// buffered is the client's end of a connection that has no memory of its own, where
// a write waits for its reader: what is written waits in a buffer instead. Two that
// write to each other before they read would wait for ever otherwise.
type buffered struct {
	net.Conn // static; read by the client, written by pump

	out *stream // static
}

func newBuffered(conn net.Conn) *buffered {
	b := &buffered{Conn: conn, out: newStream()}
	go b.pump() // until either end is closed
	return b
}

// pump hands on what was written.
func (b *buffered) pump() {
	defer b.Conn.Close()
	defer b.out.abandon()
	part := make([]byte, pumpBytes)
	for {
		n, err := b.out.read(part)
		if n > 0 {
			if _, err := b.Conn.Write(part[:n]); err != nil {
				return // the client hears of it when it reads, or writes again
			}
		}
		if err != nil {
			return
		}
	}
}

// Write implements net.Conn.
func (b *buffered) Write(data []byte) (int, error) {
	n, err := b.out.write(data)
	if err != nil {
		err = &net.OpError{Op: "write", Net: b.LocalAddr().Network(), Addr: b.RemoteAddr(), Err: err}
	}
	return n, err
}

// Close implements net.Conn. What was written before is still handed on.
func (b *buffered) Close() error {
	b.out.finish()
	now := time.Now()
	return errors.Join(b.Conn.SetReadDeadline(now), b.Conn.SetWriteDeadline(now.Add(linger)))
}

// SetDeadline implements net.Conn.
func (b *buffered) SetDeadline(t time.Time) error {
	return errors.Join(b.SetReadDeadline(t), b.SetWriteDeadline(t))
}

// SetWriteDeadline implements net.Conn.
func (b *buffered) SetWriteDeadline(t time.Time) error { return b.out.setDeadline(&b.out.writers, t) }
