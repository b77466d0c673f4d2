package gateway

import (
	"net/netip"
	"sync"

	"github.com/linkerhq/linker/pkg/ident"
)

// strangersShare is the part of all sockets that may be there without a login: who
// only connects keeps nobody else out.
const strangersShare = 10

// Limits bound the sockets of a connector; 0 stands for any number.
type Limits struct {
	Sockets    int // at once; of these at most a tenth, and at least one, may be without a login
	PerUser    int // of one user
	PerAddress int // from one IP address; of IPv6 from one network of 64 bits
}

// crowd counts who is there, and says who may still come in.
type crowd struct {
	limits Limits // static

	there sync.WaitGroup // one for each socket

	mu        sync.Mutex
	closed    bool                 // guarded by mu; nobody is let in any more
	open      int                  // guarded by mu; sockets
	strangers int                  // guarded by mu; of these, those without a login
	addresses map[netip.Addr]int   // guarded by mu; sockets, if they are limited
	users     map[ident.UserID]int // guarded by mu; sessions, if they are limited
}

func newCrowd(limits Limits) *crowd {
	return &crowd{limits: limits, addresses: make(map[netip.Addr]int), users: make(map[ident.UserID]int)}
}

// enter counts a socket that wants to come in. What it returns is accepted, or why it
// may not; leave follows one that was accepted.
func (c *crowd) enter(from netip.Addr) handshake {
	c.mu.Lock()
	defer c.mu.Unlock()
	most := c.limits.Sockets
	switch {
	case c.closed:
		return handshakeDraining
	case most > 0 && (c.open >= most || c.strangers >= max(most/strangersShare, 1)):
		return handshakeFull
	case c.limits.PerAddress > 0 && c.addresses[from] >= c.limits.PerAddress:
		return handshakeAddressFull
	}
	c.there.Add(1)
	c.open++
	c.strangers++
	if c.limits.PerAddress > 0 {
		c.addresses[from]++
	}
	return handshakeAccepted
}

// leave forgets a socket. user is who it was, empty if it was nobody.
func (c *crowd) leave(from netip.Addr, user ident.UserID) {
	defer c.there.Done()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open--
	if user == "" {
		c.strangers--
	} else {
		less(c.users, user)
	}
	less(c.addresses, from)
}

// login notes that a socket is this user's. It reports false if the user has
// enough of them.
func (c *crowd) login(user ident.UserID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.limits.PerUser > 0 {
		if c.users[user] >= c.limits.PerUser {
			return false
		}
		c.users[user]++
	}
	c.strangers--
	return true
}

// logout takes a login back of a socket that is there still.
func (c *crowd) logout(user ident.UserID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.strangers++
	less(c.users, user)
}

// sessions is how many sockets are logged in.
func (c *crowd) sessions() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open - c.strangers
}

// close lets nobody in any more.
func (c *crowd) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
}

func (c *crowd) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// less takes one off, if any are counted.
func less[K comparable](counts map[K]int, key K) {
	switch n := counts[key]; n {
	case 0:
	case 1:
		delete(counts, key)
	default:
		counts[key] = n - 1
	}
}

// addressOf is the address that a request counts for. Who has an IPv6 address has
// all of its network's.
func addressOf(remote string) netip.Addr {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	address := at.Addr().Unmap().WithZone("")
	if address.Is6() {
		network, err := address.Prefix(64)
		if err == nil {
			return network.Addr()
		}
	}
	return address
}
