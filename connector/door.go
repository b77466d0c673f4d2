package connector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/linkerhq/linker/pkg/seldom"
)

const (
	acceptAgainFirst = 5 * time.Millisecond
	acceptAgainMost  = time.Second
)

// door is the websocket port. It outlives the lives of a connector: who knocks
// between two of them waits a moment.
type door struct {
	listener net.Listener
	conns    chan net.Conn // closed by nobody
	log      *slog.Logger
	refused  seldom.Line
}

func newDoor(listener net.Listener, log *slog.Logger) *door {
	return &door{listener: listener, conns: make(chan net.Conn), log: log}
}

// run accepts connections until ctx ends; the port is closed then.
func (d *door) run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { _ = d.listener.Close() })()
	pause := acceptAgainFirst
	for {
		conn, err := d.listener.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept connections: %w", err)
		case err != nil: // such as too many open files
			if d.refused.Due() {
				d.log.Error("connections cannot be taken", "error", err)
			}
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			pause = min(2*pause, acceptAgainMost)
			continue
		}
		pause = acceptAgainFirst
		select {
		case d.conns <- conn:
		case <-ctx.Done():
			_ = conn.Close()
		}
	}
}

// open returns a listener for one life; closing it leaves the port open.
func (d *door) open() net.Listener { return &entrance{door: d, closed: make(chan struct{})} }

// entrance is the door as one life sees it.
type entrance struct {
	door   *door
	once   sync.Once
	closed chan struct{} // closed by Close
}

// Accept returns the next connection.
func (e *entrance) Accept() (net.Conn, error) {
	select {
	case conn := <-e.door.conns:
		return conn, nil
	case <-e.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (e *entrance) Close() error {
	e.once.Do(func() { close(e.closed) })
	return nil
}

// Addr is the address of the port.
func (e *entrance) Addr() net.Addr { return e.door.listener.Addr() }
