package kafka_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/broker/kafka"
)

func TestOneMemberReadsTheDeadLettersAndTheNextGoesOnBehindItsCommit(t *testing.T) {
	t.Parallel()
	cfg := newDomain(t)
	p := newProducer(t, cfg)
	began := time.Now()
	reports := []kafka.Report{
		{Reason: "UNKNOWN_APP", Lane: 3, LaneOffset: 1 << 40},
		{Reason: "EXPIRED", Lane: 0, LaneOffset: kafka.Unknown},
	}
	for i, report := range reports {
		if err := p.Dead(t.Context(), "ANZ-1", []byte{byte(i)}, report); err != nil {
			t.Fatal(err)
		}
	}
	seen := make(chan kafka.Record, 10)
	own := func(ctx context.Context, lane *kafka.Lane) error {
		if lane.Number() != 0 {
			t.Errorf("lane %d", lane.Number())
		}
		err := lane.Read(ctx, max(lane.Committed(), 0), func(records []kafka.Record) error {
			for _, r := range records {
				if err := lane.Commit(ctx, r.Offset+1); err != nil {
					return err
				}
				seen <- r
			}
			return nil
		})
		if errors.Is(err, context.Canceled) {
			return nil
		}
		return err
	}
	group := func() (stop func()) {
		g, err := kafka.NewDeadGroup(cfg, own)
		if err != nil {
			t.Fatal(err)
		}
		return start(t, g.Run)
	}
	stop, stopOther := group(), group()
	for i, want := range reports {
		got := receive(t, "a dead letter", seen)
		if got.Report == nil || got.Offset != int64(i) || string(got.Key) != "ANZ-1" || got.Value[0] != byte(i) {
			t.Fatalf("got %+v, want number %d", got, i)
		}
		age := got.Report.Time.Sub(began)
		if want.Time = got.Report.Time; *got.Report != want || age < -time.Second || age > time.Minute {
			t.Errorf("report %+v, want %+v; written %v after the begin", *got.Report, want, age)
		}
	}
	stop()
	stopOther()
	if err := p.Dead(t.Context(), "ANZ-2", []byte("later"), kafka.Report{Reason: "NO_ROUTE"}); err != nil {
		t.Fatal(err)
	}
	group()
	if got := receive(t, "the dead letter behind the commit", seen); got.Offset != 2 || string(got.Value) != "later" {
		t.Errorf("got %+v", got)
	}
}
