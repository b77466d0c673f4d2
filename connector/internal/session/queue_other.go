//go:build !linux

package session

import "net"

// queue would tell how many bytes the kernel holds; here a byte that the kernel
// has taken counts as taken off.
type queue struct{}

func newQueue(net.Conn) queue { return queue{} }

func (queue) held() int { return 0 }
