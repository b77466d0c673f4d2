package session

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// queue tells how many bytes of a connection the kernel holds because the peer
// has not acknowledged them.
type queue struct{ raw syscall.RawConn }

func newQueue(conn net.Conn) queue {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return queue{}
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return queue{}
	}
	return queue{raw: raw}
}

// held is 0 where the kernel cannot be asked.
func (q queue) held() int {
	if q.raw == nil {
		return 0
	}
	held := 0
	err := q.raw.Control(func(fd uintptr) {
		n, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
		if err == nil {
			held = n
		}
	})
	if err != nil {
		return 0
	}
	return held
}
