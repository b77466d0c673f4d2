package roads

import (
	"context"

	"github.com/linkerhq/linker/pkg/topology"
)

// Connection is an open link.
type Connection = connection

// MaxChannels is how many channels a connection can have.
const MaxChannels = maxChannels

// DialBy has links opened by a function: package synctest knows no network.
func (r *Roads) DialBy(dial func(ctx context.Context, address string, l topology.Link) (Connection, error)) {
	r.dial = dial
}
