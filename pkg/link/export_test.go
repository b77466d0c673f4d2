package link

import (
	"context"
	"net"

	"github.com/linkerhq/linker/pkg/topology"
)

// DialOver is Dial over a connection that is there.
func (e *End) DialOver(ctx context.Context, raw net.Conn, l topology.Link) (*Conn, error) {
	peer, err := e.peerOf(l)
	if err != nil {
		return nil, err
	}
	return e.open(ctx, raw, func(ctx context.Context, line *line) (*Conn, error) { return e.greet(ctx, line, peer, l) })
}

// MaxChannels is the limit for tests.
const MaxChannels = maxChannels
