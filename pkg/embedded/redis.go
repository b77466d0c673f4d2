package embedded

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// clockInterval is how often the clock of the keys' lifetimes is moved on. The
// store's own way to do so walks every key on every command.
const clockInterval = 250 * time.Millisecond

// RedisServer is a Redis in this process. It keeps everything in memory, like
// any Redis that may lose what it holds.
type RedisServer struct {
	redis *miniredis.Miniredis
	addr  string
}

// Redis starts a server.
func Redis(port int) (*RedisServer, error) {
	r := miniredis.NewMiniRedis()
	if err := r.StartAddr(net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err != nil {
		return nil, fmt.Errorf("start the embedded Redis: %w", err)
	}
	return &RedisServer{redis: r, addr: r.Addr()}, nil
}

// URL returns what clients connect to.
func (r *RedisServer) URL() string { return "redis://" + r.addr }

// Addr returns host:port.
func (r *RedisServer) Addr() string { return r.addr }

// Run lets the lifetimes of keys pass until ctx ends, and returns nil. Without
// it nothing expires.
func (r *RedisServer) Run(ctx context.Context) error {
	last := time.Now()
	return every(ctx, clockInterval, func() {
		now := time.Now()
		r.redis.FastForward(now.Sub(last))
		last = now
	})
}

// Close stops the server; what it held is gone.
func (r *RedisServer) Close() {
	// First the connections: a command that is asked while the store closes panics.
	if server := r.redis.Server(); server != nil { // nil: it is closed
		server.Close()
	}
	r.redis.Close()
}
