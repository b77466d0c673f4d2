package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	// maxPayload lets a group of 4096 members travel with its frame.
	maxPayload = 8 << 20

	natsStart = 10 * time.Second
)

// NATSServer is a NATS server in this process.
type NATSServer struct {
	server *server.Server
	log    *natsLog
}

// NATS starts a server.
func NATS(port int, log *slog.Logger) (*NATSServer, error) {
	if port == 0 {
		port = server.RANDOM_PORT
	}
	s, err := server.NewServer(&server.Options{
		ServerName: "linker",
		Host:       "127.0.0.1",
		Port:       port,
		MaxPayload: maxPayload,
		NoSigs:     true, // signals belong to the process
	})
	if err != nil {
		return nil, fmt.Errorf("start the embedded NATS: %w", err)
	}
	n := &NATSServer{server: s, log: &natsLog{log: log}}
	s.SetLoggerV2(n.log, false, false, false)
	s.Start()
	if err := n.log.fatal(); err != nil {
		n.Close()
		return nil, fmt.Errorf("start the embedded NATS: %w", err)
	}
	if !s.ReadyForConnections(natsStart) {
		n.Close()
		return nil, errors.New("start the embedded NATS: it accepts no connections")
	}
	return n, nil
}

// URL returns what clients connect to.
func (n *NATSServer) URL() string { return "nats://" + n.Addr() }

// Addr returns host:port.
func (n *NATSServer) Addr() string { return n.server.Addr().String() }

// Dial connects a client of this process: in memory to the place where the server
// listens, over the network to any other. It costs a fraction of a connection over
// loopback.
func (n *NATSServer) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if address == n.Addr() {
		conn, err := n.server.InProcessConn()
		if err != nil {
			return nil, err
		}
		return newBuffered(conn), nil
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

// Run waits until ctx ends, and returns nil: the server needs no help.
func (n *NATSServer) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Close stops the server and returns when it has stopped.
func (n *NATSServer) Close() {
	n.server.Shutdown()
	n.server.WaitForShutdown()
}

// natsLog passes on what an operator should see, and keeps the first fatal
// error: the server reports a port that is taken in no other way.
type natsLog struct {
	log *slog.Logger

	mu    sync.Mutex
	first error // guarded by mu
}

func (l *natsLog) fatal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first
}

// Fatalf remembers.
func (l *natsLog) Fatalf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first == nil {
		l.first = fmt.Errorf(format, args...)
	}
}

// Errorf passes on.
func (l *natsLog) Errorf(format string, args ...any) {
	l.log.Error("embedded NATS", "message", fmt.Sprintf(format, args...))
}

// Warnf passes on.
func (l *natsLog) Warnf(format string, args ...any) {
	l.log.Warn("embedded NATS", "message", fmt.Sprintf(format, args...))
}

// Noticef drops: nothing an operator needs.
func (*natsLog) Noticef(string, ...any) {}

// Debugf drops.
func (*natsLog) Debugf(string, ...any) {}

// Tracef drops.
func (*natsLog) Tracef(string, ...any) {}
