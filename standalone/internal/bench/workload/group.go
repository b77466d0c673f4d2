package workload

import (
	"context"
	"flag"

	"github.com/linkerhq/linker/standalone/internal/bench/figures"
)

// group is one sender with many receivers.
func group() Workload {
	return Workload{
		Name: "group", Summary: "one connection sends group messages to --members others: one after another, or at --rate",
		Without: []string{"connections", "references", "settle"},
		Flags: func(flags *flag.FlagSet, o *Options) {
			o.Pause = 0
			flags.IntVar(&o.Members, "members", o.Members, "`number` of receivers, each on a connection of its own")
		},
		Run: func(ctx context.Context, e Env) (figures.Run, error) {
			members := upTo(e.Options.Members + 1)[1:]
			return runTraffic(ctx, e, shape{
				clients: len(members) + 1, senders: []int{0}, group: true,
				to: func(int) []int { return members },
				senderOf: func(n int) int {
					if n == 0 {
						return -1
					}
					return 0
				},
			})
		},
	}
}
