package kafka_test

import (
	"context"
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/linkerhq/linker/pkg/broker/kafka"
	"github.com/linkerhq/linker/pkg/polltest"
)

const produceKey = 0

// newFaultyDomain starts a broker whose requests the test can meddle with.
func newFaultyDomain(t *testing.T) (kafka.Config, *kfake.Cluster) {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	cfg := configFor(cluster.ListenAddrs()[0])
	if err := kafka.EnsureTopics(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	return cfg, cluster
}

func TestABatchWhoseConnectionBreaksIsTriedAgainAndNothingOvertakesIt(t *testing.T) {
	t.Parallel()
	cfg, cluster := newFaultyDomain(t)
	requests := 0
	cluster.ControlKey(produceKey, func(kmsg.Request) (kmsg.Response, error, bool) {
		requests++
		cluster.KeepControl()
		return nil, errors.New("broken"), requests%2 == 1 && requests < 9
	})
	p := newProducer(t, cfg)
	values := numbered(4000) // four requests at least
	for i, offset := range appendAll(t, p, 0, values...) {
		if offset != int64(i) {
			t.Fatalf("done %d got offset %d", i, offset)
		}
	}
	for i, got := range readAll(t, cfg, 0, len(values)) {
		if got != values[i] {
			t.Fatalf("record %d is %q", i, got)
		}
	}
}

func TestABrokerThatFreezesMakesLanesUnavailableAndUnhealthyUntilItGoesOn(t *testing.T) {
	t.Parallel()
	cfg, cluster := newFaultyDomain(t)
	owned := make(chan *kafka.Lane, lanes)
	newGroup(t, cfg, func(ctx context.Context, lane *kafka.Lane) error {
		select {
		case owned <- lane:
		default:
		}
		<-ctx.Done()
		return ctx.Err()
	})
	lane := receive(t, "a lane", owned)
	if !lane.Healthy() {
		t.Error("the lane is not healthy when it is assigned")
	}
	p := newProducer(t, cfg)
	appendAll(t, p, 0, "before")

	frozen := make(chan struct{})
	cluster.ControlKey(produceKey, func(kmsg.Request) (kmsg.Response, error, bool) {
		<-frozen // the broker does nothing else meanwhile
		return nil, nil, false
	})
	under := make(chan error, 1)
	if err := p.Append(0, "", []byte("under way"), func(_ int64, err error) { under <- err }); err != nil {
		t.Fatal(err)
	}
	polltest.Eventually(t, "the lane refuses", func() bool {
		return errors.Is(p.Append(0, "", nil, func(int64, error) {}), kafka.ErrUnavailable)
	})
	if p.Healthy() == nil {
		t.Error("the producer is healthy")
	}
	polltest.Eventually(t, "the lane is unhealthy", func() bool { return !lane.Healthy() })
	close(frozen)
	if err := receive(t, "the record that was under way", under); err != nil {
		t.Error(err)
	}
	polltest.Eventually(t, "the producer is healthy", func() bool { return p.Healthy() == nil })
}
