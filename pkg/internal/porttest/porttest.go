// Package porttest finds ports for tests that stop a server and start it again
// at the same place.
package porttest

import (
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// Kernels take ports for outgoing connections from 32768 on (Linux) or 49152 on
// (RFC 6335, section 6).
const (
	lowest  = 15000
	highest = 32000
	tries   = 100
)

// Lasting returns a free port of 127.0.0.1 that no connection is given: it stays
// free while nobody asks for just this one.
func Lasting(t *testing.T) int {
	t.Helper()
	for range tries {
		port := lowest + rand.IntN(highest-lowest)
		listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			_ = listener.Close()
			return port
		}
	}
	t.Fatal("no free port found")
	return 0
}
