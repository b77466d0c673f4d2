package workload

import (
	"context"
	"flag"
	"fmt"

	"github.com/linkerhq/linker/standalone/internal/bench/figures"
)

// closed is that of the README: all write to themselves, wait, pause, and go on.
func closed() Workload {
	return Workload{
		Name: "closed", Summary: "each connection sends to itself, waits for its message, pauses, sends the next",
		Without: []string{"rate", "settle"},
		Run: func(ctx context.Context, e Env) (figures.Run, error) {
			return runTraffic(ctx, e, selfShape(e.Options.Connections))
		},
	}
}

// open is messages to oneself at a fixed rate.
func open() Workload {
	return Workload{
		Name: "open", Summary: "messages at a fixed rate, spread over all connections, each to its sender",
		Without: []string{"pause", "patience", "settle"},
		Flags:   func(_ *flag.FlagSet, o *Options) { o.Rate = 5000 },
		Validate: func(o Options) error {
			if o.Rate <= 0 {
				return fmt.Errorf("--rate %v: expected more than 0 messages a second", o.Rate)
			}
			return nil
		},
		Run: func(ctx context.Context, e Env) (figures.Run, error) {
			return runTraffic(ctx, e, selfShape(e.Options.Connections))
		},
	}
}

// selfShape is that of clients who write to themselves.
func selfShape(clients int) shape {
	return shape{
		clients: clients, senders: upTo(clients),
		to:       func(n int) []int { return []int{n} },
		senderOf: func(n int) int { return n },
	}
}

// upTo are the numbers from 0 to below n.
func upTo(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}
