package kafka_test

import (
	"context"
	"log/slog"
	"net"
	"testing"

	"github.com/linkerhq/linker/pkg/broker/kafka"
	"github.com/linkerhq/linker/pkg/embedded"
)

func TestWhoIsGivenAWayToConnectTakesNoOther(t *testing.T) {
	t.Parallel()
	const nowhere = "broker.invalid:9092"
	broker, err := embedded.KafkaBehind(nowhere, "", 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	cfg := configFor(nowhere)
	cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if network != "tcp" || address != nowhere {
			t.Errorf("asked for %s %s", network, address)
		}
		return broker.Dial(ctx, network, broker.Addr())
	}
	if err := kafka.EnsureTopics(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	p := newProducer(t, cfg)
	appendAll(t, p, 1, "one", "two")
	if err := p.Dead(t.Context(), "key", []byte("dead"), kafka.Report{Reason: "test"}); err != nil {
		t.Error(err)
	}
	committed := make(chan error, 1)
	newGroup(t, cfg, func(ctx context.Context, lane *kafka.Lane) error {
		if lane.Number() != 1 {
			<-ctx.Done()
			return nil
		}
		read := 0
		return lane.Read(ctx, 0, func(records []kafka.Record) error {
			if read += len(records); read == 2 {
				committed <- lane.Commit(ctx, 2)
			}
			return nil
		})
	})
	if err := receive(t, "a commit", committed); err != nil {
		t.Error(err)
	}
}
