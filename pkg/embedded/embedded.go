// Package embedded runs the brokers and stores of a domain inside this process,
// on loopback: a Kafka broker that keeps its log on disk, a NATS server and a
// Redis. They speak the real protocols, so the production clients run against
// them unchanged. Clients of the Kafka broker and the NATS server in this process
// may connect through memory (Dial), with the same protocols. It is for a domain on
// one machine, and for tests.
//
// Each constructor binds its port and serves, since the servers cannot do one
// without the other; Run does what must be done again and again, and Close
// releases everything. Port 0 is any free port. The Kafka broker calls itself a
// mock: see its guard rails in kafka.go.
package embedded

import (
	"context"
	"time"
)

// every calls do each interval until ctx ends, and returns nil.
func every(ctx context.Context, interval time.Duration, do func()) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			do()
		}
	}
}
