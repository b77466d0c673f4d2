//go:build !linux

package swarm

import (
	"errors"
	"net/netip"
	"runtime"
)

// errNotHere says that this system has nothing that many sockets can be watched with
// as this package does it.
var errNotHere = errors.New("the load generator needs Linux (epoll); this is " + runtime.GOOS)

var errAgain = errors.New("not now")

type kernel struct{}

type event struct {
	client, fd         int
	readable, writable bool
}

func newKernel() (*kernel, error) { return nil, errNotHere }

func (*kernel) close() {}

func (*kernel) connect(int, netip.Addr, netip.AddrPort) (int, error) { return -1, errNotHere }

func (*kernel) connected(int) error { return errNotHere }

func (*kernel) watch(int, int, bool) error { return errNotHere }

func (*kernel) drop(int) {}

func (*kernel) read(int, []byte) (int, error) { return 0, errNotHere }

func (*kernel) write(int, []byte) (int, error) { return 0, errNotHere }

func (*kernel) wait(int64, func(event)) error { return errNotHere }

func openFiles(uint64) error { return errNotHere }
