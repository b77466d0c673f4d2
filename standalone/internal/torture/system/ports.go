package system

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Kernels take ports for outgoing connections from 32768 on (Linux) or 49152 on
// (RFC 6335, section 6): below, a port stays free while a process that had it is
// down.
const (
	lowestPort  = 12000
	highestPort = 32000
	blockPorts  = 100
	blockTries  = 400
)

// ports are blocks of ports that no other run takes: each run listens on the last
// port of its blocks for as long as it lasts.
type ports struct {
	first  int            // of the first block
	guards []net.Listener // static
}

// reservePorts takes as many blocks in a row, of which nobody listens on the first
// used ports.
func reservePorts(blocks, used int) (*ports, error) {
	var last error
	for range blockTries {
		first := lowestPort + blockPorts*rand.IntN((highestPort-lowestPort)/blockPorts-blocks+1)
		p, err := takePorts(first, blocks, used)
		if err == nil {
			return p, nil
		}
		last = err
	}
	return nil, fmt.Errorf("no free ports between %d and %d: %w", lowestPort, highestPort, last)
}

func takePorts(first, blocks, used int) (*ports, error) {
	p := &ports{first: first}
	for block := range blocks {
		guard, err := listen(p.port(block, blockPorts-1))
		if err != nil {
			return nil, errors.Join(err, p.Close())
		}
		p.guards = append(p.guards, guard)
		for n := range used {
			probe, err := listen(p.port(block, n))
			if err != nil {
				return nil, errors.Join(err, p.Close())
			}
			_ = probe.Close()
		}
	}
	return p, nil
}

func listen(port int) (net.Listener, error) {
	return new(net.ListenConfig).Listen(context.Background(), "tcp", address(port))
}

// port is the n-th of a block, both from 0.
func (p *ports) port(block, n int) int { return p.first + blockPorts*block + n }

// Close gives the ports to others.
func (p *ports) Close() error {
	var failed error
	for _, guard := range p.guards {
		failed = errors.Join(failed, guard.Close())
	}
	return failed
}

// address is where a port of this machine is.
func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
