package workload

import (
	"context"
	"fmt"

	"github.com/linkerhq/linker/standalone/internal/bench/figures"
)

// pairs is messages between two and two.
func pairs() Workload {
	return Workload{
		Name: "pairs", Summary: "each connection sends to its partner: a closed loop, or at --rate",
		Without: []string{"settle"},
		Validate: func(o Options) error {
			if o.Connections%2 != 0 {
				return fmt.Errorf("--connections %d: expected an even number, two for each pair", o.Connections)
			}
			return nil
		},
		Run: func(ctx context.Context, e Env) (figures.Run, error) {
			return runTraffic(ctx, e, shape{
				clients: e.Options.Connections, senders: upTo(e.Options.Connections),
				to:       func(n int) []int { return []int{n ^ 1} },
				senderOf: func(n int) int { return n ^ 1 },
			})
		},
	}
}
