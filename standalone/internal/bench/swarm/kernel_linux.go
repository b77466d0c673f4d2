package swarm

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	eventsAtOnce = 256
	// timerSlack is by how many ns the kernel may be late to wake this thread.
	timerSlack = 1
	// longWait is from how many ns on a wait gives others the share of this thread.
	longWait = 2_000_000
)

// kernel is an epoll with its sockets. It belongs to one thread.
//
// Its calls go to the kernel directly, past the scheduler of Go: reads and writes never
// block. They are those of sockets, which have less on their way than those of files.
type kernel struct {
	epoll  int
	events [eventsAtOnce]unix.EpollEvent
}

// event says what can be done with the socket of a client.
type event struct {
	client   int
	fd       int
	readable bool // or it has failed, which a read tells
	writable bool
}

// errAgain says that a socket has nothing to read, or no room.
var errAgain = errors.New("not now")

func newKernel() (*kernel, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make an epoll: %w", err)
	}
	// Not to be had: timers are up to 50 µs late.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, timerSlack, 0, 0, 0)
	return &kernel{epoll: epoll}, nil
}

// close ends the epoll, not the sockets.
func (k *kernel) close() { _ = unix.Close(k.epoll) }

// connect begins a connection. The socket is writable when it is there or has failed.
func (k *kernel) connect(client int, from netip.Addr, to netip.AddrPort) (fd int, err error) {
	family := unix.AF_INET6
	if to.Addr().Is4() {
		family = unix.AF_INET
	}
	fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return -1, fmt.Errorf("make a socket: %w", err)
	}
	if err := k.begin(fd, client, from, to); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (k *kernel) begin(fd, client int, from netip.Addr, to netip.AddrPort) error {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return fmt.Errorf("set TCP_NODELAY: %w", err)
	}
	if from.IsValid() {
		// The port is chosen with the other end in view: ports of other connections count too.
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
			return fmt.Errorf("set IP_BIND_ADDRESS_NO_PORT: %w", err)
		}
		if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(from, 0))); err != nil {
			return fmt.Errorf("bind to %s: %w", from, err)
		}
	}
	if err := unix.Connect(fd, sockaddr(to)); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return fmt.Errorf("connect to %s: %w", to, err)
	}
	e := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT, Fd: int32(client), Pad: int32(fd)}
	if err := unix.EpollCtl(k.epoll, unix.EPOLL_CTL_ADD, fd, &e); err != nil {
		return fmt.Errorf("watch a socket: %w", err)
	}
	return nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// connected says how a connection that was begun has ended.
func (k *kernel) connected(fd int) error {
	code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if code != 0 {
		return fmt.Errorf("connect: %w", unix.Errno(code))
	}
	return nil
}

// watch says whether it matters that a socket takes more; that there is something to
// read always does.
func (k *kernel) watch(client, fd int, writable bool) error {
	e := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(client), Pad: int32(fd)}
	if writable {
		e.Events |= unix.EPOLLOUT
	}
	if err := unix.EpollCtl(k.epoll, unix.EPOLL_CTL_MOD, fd, &e); err != nil {
		return fmt.Errorf("watch a socket: %w", err)
	}
	return nil
}

// drop closes a socket.
func (k *kernel) drop(fd int) { _ = unix.Close(fd) }

// read reads what is there: errAgain if there is nothing, io.EOF at the end.
func (k *kernel) read(fd int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), 0, 0, 0)
	switch {
	case errno == unix.EAGAIN || errno == unix.EINTR:
		return 0, errAgain
	case errno != 0:
		return 0, errno
	case n == 0:
		return 0, io.EOF
	default:
		return int(n), nil
	}
}

// write writes what there is room for: errAgain if there is none.
func (k *kernel) write(fd int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_NOSIGNAL, 0, 0)
	switch {
	case errno == unix.EAGAIN || errno == unix.EINTR:
		return 0, errAgain
	case errno != 0:
		return 0, errno
	default:
		return int(n), nil
	}
}

// wait waits for events, at most so many ns, and calls take with each of them.
func (k *kernel) wait(nanos int64, take func(event)) error {
	n, errno := k.poll(nanos)
	if errno != 0 && errno != unix.EINTR {
		return fmt.Errorf("wait for sockets: %w", errno)
	}
	for _, e := range k.events[:n] {
		take(event{
			client: int(e.Fd), fd: int(e.Pad), writable: e.Events&unix.EPOLLOUT != 0,
			readable: e.Events&(unix.EPOLLIN|unix.EPOLLERR|unix.EPOLLHUP) != 0,
		})
	}
	return nil
}

// poll waits for events. A short wait goes past the scheduler of Go as well, although it
// may block: else that would look 50,000 times a second whether this thread is still in
// the kernel, which costs more than all messages do. The thread keeps its share of
// GOMAXPROCS meanwhile; when others want it to stop, for a collection of garbage for
// one, they send it a signal, which ends the wait.
func (k *kernel) poll(nanos int64) (int, unix.Errno) {
	at := unix.NsecToTimespec(max(nanos, 0))
	call := unix.RawSyscall6
	if nanos > longWait {
		call = unix.Syscall6
	}
	n, _, errno := call(unix.SYS_EPOLL_PWAIT2, uintptr(k.epoll), uintptr(unsafe.Pointer(&k.events[0])), eventsAtOnce,
		uintptr(unsafe.Pointer(&at)), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// openFiles raises the limit of open files.
func openFiles(wanted uint64) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read the limit of open files: %w", err)
	}
	if limit.Cur >= wanted {
		return nil
	}
	raised := unix.Rlimit{Cur: wanted, Max: max(limit.Max, wanted)}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &raised); err != nil {
		return fmt.Errorf("open files: %d are needed, this process may have %d and raise that to %d; raise the limit with ulimit -n %d, "+
			"or as root, or take fewer --connections: %w", wanted, limit.Cur, limit.Max, wanted, err)
	}
	return nil
}
