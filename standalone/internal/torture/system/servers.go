package system

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"github.com/linkerhq/linker/pkg/embedded"
)

// ServersCommand is the first argument of a program that runs RunServers with the
// others.
const ServersCommand = "servers"

// RunServers runs the embedded Kafka, NATS and Redis of one domain until ctx ends:
// a process of their own, so that they can fail by themselves.
func RunServers(ctx context.Context, args []string, stderr io.Writer) error {
	flags := flag.NewFlagSet(ServersCommand, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	data := flags.String("data", "", "`directory` of the log")
	kafkaPort := flags.Int("kafka-port", 0, "`port` of Kafka")
	natsPort := flags.Int("nats-port", 0, "`port` of NATS")
	redisPort := flags.Int("redis-port", 0, "`port` of Redis")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%s: %w", ServersCommand, err)
	}
	if *data == "" || flags.NArg() > 0 {
		return fmt.Errorf("%s: expected --data DIR --kafka-port PORT --nats-port PORT --redis-port PORT", ServersCommand)
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
	kafka, err := embedded.Kafka(*data, *kafkaPort, log.With("server", "kafka"))
	if err != nil {
		return err
	}
	defer kafka.Close()
	nats, err := embedded.NATS(*natsPort, log.With("server", "nats"))
	if err != nil {
		return err
	}
	defer nats.Close()
	redis, err := embedded.Redis(*redisPort)
	if err != nil {
		return err
	}
	defer redis.Close()
	log.Info("servers serve", "kafka", kafka.Addr(), "nats", nats.Addr(), "redis", redis.Addr())
	var running sync.WaitGroup
	failed := make([]error, 3)
	for i, run := range []func(context.Context) error{kafka.Run, nats.Run, redis.Run} {
		running.Go(func() { failed[i] = run(ctx) })
	}
	running.Wait()
	return errors.Join(failed...)
}
