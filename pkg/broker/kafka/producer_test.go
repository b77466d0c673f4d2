package kafka_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/broker/kafka"
	"github.com/linkerhq/linker/pkg/internal/porttest"
	"github.com/linkerhq/linker/pkg/polltest"
)

func TestOffsetsAreReportedInTheOrderOfTheAppends(t *testing.T) {
	t.Parallel()
	p := newProducer(t, newDomain(t))
	offsets := appendAll(t, p, 2, numbered(5000)...)
	for i, offset := range offsets {
		if offset != int64(i) {
			t.Fatalf("done %d got offset %d", i, offset)
		}
	}
}

func TestRecordsThatQueueBeforeRunTravelInFewRequests(t *testing.T) {
	t.Parallel()
	cfg := newDomain(t)
	registry := prometheus.NewRegistry()
	cfg.Metrics = registry
	p, err := kafka.NewProducer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	const n = 2500
	var left atomic.Int64
	left.Store(n)
	all := make(chan struct{})
	for range n {
		err := p.Append(0, "", []byte("x"), func(_ int64, err error) {
			if err != nil {
				t.Error(err)
			}
			if left.Add(-1) == 0 {
				close(all)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	start(t, p.Run)
	receive(t, "all records", all)
	if got := batches(t, registry); got != 3 {
		t.Errorf("%d records took %d requests, want 3", n, got)
	}
}

func TestABatchIsLimitedInBytesToo(t *testing.T) {
	t.Parallel()
	cfg := newDomain(t)
	registry := prometheus.NewRegistry()
	cfg.Metrics = registry
	p, err := kafka.NewProducer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	results := make(chan error, 3)
	for range 3 {
		if err := p.Append(0, "", make([]byte, 300<<10), func(_ int64, err error) { results <- err }); err != nil {
			t.Fatal(err)
		}
	}
	start(t, p.Run)
	for range 3 {
		if err := receive(t, "a record", results); err != nil {
			t.Error(err)
		}
	}
	if got := batches(t, registry); got != 3 {
		t.Errorf("three records of 300 KiB took %d requests, want 3", got)
	}
}

func TestARecordTheBrokerFindsTooLargeFailsAlone(t *testing.T) {
	t.Parallel()
	p := newProducer(t, newDomain(t))
	var order []string
	done := make(chan struct{})
	report := func(name string) func(int64, error) {
		return func(_ int64, err error) {
			if errors.Is(err, kafka.ErrTooLarge) {
				name += " too large"
			} else if err != nil {
				name += " " + err.Error()
			}
			if order = append(order, name); len(order) == 3 {
				close(done)
			}
		}
	}
	for name, size := range orderedSizes() {
		if err := p.Append(1, "", make([]byte, size), report(name)); err != nil {
			t.Fatal(err)
		}
	}
	receive(t, "three results", done)
	if want := []string{"before", "huge too large", "after"}; !slices.Equal(order, want) {
		t.Errorf("got %q, want %q", order, want)
	}
}

func orderedSizes() func(yield func(string, int) bool) {
	return func(yield func(string, int) bool) {
		_ = yield("before", 10) && yield("huge", 20<<20) && yield("after", 10)
	}
}

func TestAppendRefusesWhenTooMuchWaits(t *testing.T) {
	t.Parallel()
	p, err := kafka.NewProducer(newDomain(t))
	if err != nil {
		t.Fatal(err)
	}
	value := make([]byte, 1<<20)
	taken := 0
	for ; taken < 100; taken++ {
		if err = p.Append(taken%lanes, "", value, func(int64, error) {}); err != nil {
			break
		}
	}
	if !errors.Is(err, kafka.ErrUnavailable) || taken != 63 {
		t.Errorf("after %d MiB: %v, want %v after 63", taken, err, kafka.ErrUnavailable)
	}
}

func TestWhatIsQueuedWhenRunEndsGetsErrStopped(t *testing.T) {
	t.Parallel()
	p, err := kafka.NewProducer(newDomain(t))
	if err != nil {
		t.Fatal(err)
	}
	var results []error
	for range 3 {
		if err := p.Append(0, "", nil, func(_ int64, err error) { results = append(results, err) }); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Run(ctx); err != nil {
		t.Fatal(err)
	}
	for _, err := range results {
		if err != nil && !errors.Is(err, kafka.ErrStopped) {
			t.Errorf("got %v, want %v", err, kafka.ErrStopped)
		}
	}
	if len(results) != 3 {
		t.Errorf("%d results, want 3", len(results))
	}
	if err := p.Append(0, "", nil, func(int64, error) {}); !errors.Is(err, kafka.ErrStopped) {
		t.Errorf("Append after the end: %v, want %v", err, kafka.ErrStopped)
	}
}

func TestNothingAcknowledgedIsLostWhenTheBrokerRestarts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	port := porttest.Lasting(t)
	broker := startBroker(t, dir, port)
	cfg := configFor(broker.Addr())
	if err := kafka.EnsureTopics(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	p := newProducer(t, cfg)
	before := appendAll(t, p, 0, numbered(100)...)

	broker.Close()
	under := make(chan int64, 1)
	err := p.Append(0, "", []byte("under way"), func(offset int64, err error) {
		if err != nil {
			t.Error(err)
		}
		under <- offset
	})
	if err != nil {
		t.Fatal(err)
	}
	polltest.Eventually(t, "the lane refuses", func() bool {
		return errors.Is(p.Append(0, "", nil, func(int64, error) {}), kafka.ErrUnavailable)
	})
	if p.Healthy() == nil {
		t.Error("healthy although the broker is away")
	}
	startBroker(t, dir, port)
	if got, least := receive(t, "the record that was under way", under), before[99]+1; got < least {
		t.Errorf("the record that was under way got offset %d, want at least %d", got, least)
	}
	polltest.Eventually(t, "the producer is healthy", func() bool { return p.Healthy() == nil })

	got := readAll(t, cfg, 0, 101)
	for i, want := range append(numbered(100), "under way") {
		if got[i] != want {
			t.Fatalf("record %d is %q, want %q", i, got[i], want)
		}
	}
}

func TestHealthyNeedsTheTopics(t *testing.T) {
	t.Parallel()
	cfg := configFor(startBroker(t, "", 0).Addr())
	p := newProducer(t, cfg)
	if err := p.Healthy(); !errors.Is(err, kafka.ErrUnavailable) {
		t.Errorf("before there are topics: %v, want %v", err, kafka.ErrUnavailable)
	}
	if err := kafka.EnsureTopics(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	polltest.Eventually(t, "the producer is healthy", func() bool { return p.Healthy() == nil })
}

func TestDeadLettersAreWrittenBeforeRun(t *testing.T) {
	t.Parallel()
	p, err := kafka.NewProducer(newDomain(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Dead(t.Context(), "ANZ-1", []byte("letter"), kafka.Report{Reason: "UNKNOWN_APP"}); err != nil {
		t.Error(err)
	}
	if err := p.Dead(t.Context(), "ANZ-1", make([]byte, 20<<20), kafka.Report{Reason: "UNKNOWN_APP"}); !errors.Is(err, kafka.ErrTooLarge) {
		t.Errorf("a huge one: %v, want %v", err, kafka.ErrTooLarge)
	}
	start(t, p.Run)() // gives the connections back
}

// batches returns how many requests a producer has made.
func batches(t *testing.T, registry *prometheus.Registry) uint64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if strings.HasSuffix(family.GetName(), "_batch_records") {
			return family.GetMetric()[0].GetHistogram().GetSampleCount()
		}
	}
	t.Fatal("no such metric")
	return 0
}
