package kafka_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/broker/kafka"
	"github.com/linkerhq/linker/pkg/internal/porttest"
	"github.com/linkerhq/linker/pkg/polltest"
)

var errEnough = errors.New("enough")

// newGroup runs a group until the test ends, or until the returned function is
// called.
func newGroup(t *testing.T, cfg kafka.Config, own func(context.Context, *kafka.Lane) error) func() {
	t.Helper()
	cfg.Metrics = configFor("").Metrics // a process of its own
	g, err := kafka.NewGroup(cfg, own)
	if err != nil {
		t.Fatal(err)
	}
	return start(t, g.Run)
}

// readAll reads the first n values of a lane, as a group of its own.
func readAll(t *testing.T, cfg kafka.Config, number, n int) []string {
	t.Helper()
	cfg.Generation += 1000
	values := make(chan []string, 1)
	stop := newGroup(t, cfg, func(ctx context.Context, lane *kafka.Lane) error {
		if lane.Number() == number {
			var got []string
			err := lane.Read(ctx, 0, func(records []kafka.Record) error {
				for _, r := range records {
					got = append(got, string(r.Value))
				}
				if len(got) >= n {
					return errEnough
				}
				return nil
			})
			if errors.Is(err, errEnough) {
				values <- got
			}
		}
		<-ctx.Done()
		return ctx.Err()
	})
	defer stop()
	return receive(t, "the records of the lane", values)
}

func TestALaneIsReadInOrderFromAnyOffset(t *testing.T) {
	t.Parallel()
	cfg := newDomain(t)
	p := newProducer(t, cfg)
	appendAll(t, p, 3, numbered(1000)...)
	appendAll(t, p, 3, "last")
	type result struct {
		first, next, committed, read int64
		err                          error
	}
	results := make(chan result, 1)
	newGroup(t, cfg, func(ctx context.Context, lane *kafka.Lane) error {
		if lane.Number() != 3 {
			<-ctx.Done()
			return nil
		}
		r := result{committed: lane.Committed(), read: 700}
		if r.first, r.next, r.err = lane.Bounds(ctx); r.err == nil {
			r.err = lane.Read(ctx, r.read, func(records []kafka.Record) error {
				for _, record := range records {
					if record.Offset != r.read || string(record.Key) != "key" {
						t.Errorf("got offset %d, key %q, want offset %d", record.Offset, record.Key, r.read)
					}
					r.read++
					if string(record.Value) == "last" {
						return errEnough
					}
				}
				return nil
			})
		}
		results <- r
		<-ctx.Done()
		return nil
	})
	r := receive(t, "the lane", results)
	if r.first != 0 || r.next != 1001 || r.committed != -1 || r.read != 1001 || !errors.Is(r.err, errEnough) {
		t.Errorf("got %+v", r)
	}
}

func TestARecordLargerThanAFetchIsRead(t *testing.T) {
	t.Parallel()
	cfg := configFor(startBroker(t, "", 0).Addr())
	cfg.MaxRecord = 4 << 20
	if err := kafka.EnsureTopics(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	appendAll(t, newProducer(t, cfg), 0, "small", string(make([]byte, 4<<20)), "small")
	if got := readAll(t, cfg, 0, 3); len(got[1]) != 4<<20 || got[2] != "small" {
		t.Errorf("got %d and %d bytes", len(got[1]), len(got[2]))
	}
}

func TestAnIdleLaneHasNoLatencyFloor(t *testing.T) {
	t.Parallel()
	cfg := newDomain(t)
	p := newProducer(t, cfg)
	arrived := make(chan struct{}, 1)
	newGroup(t, cfg, func(ctx context.Context, lane *kafka.Lane) error {
		return lane.Read(ctx, 0, func(records []kafka.Record) error {
			for range records {
				arrived <- struct{}{}
			}
			return nil
		})
	})
	var took []time.Duration
	for range 31 {
		begin := time.Now()
		appendAll(t, p, 0, "x")
		receive(t, "the record", arrived)
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	t.Logf("append to read: median %v, longest %v", took[15], took[30])
	if took[15] > 50*time.Millisecond { // far below every timer there is, far above a busy machine
		t.Errorf("median %v", took[15])
	}
}

func TestReadingOutsideTheLogIsAnErrorAndNeverASkip(t *testing.T) {
	t.Parallel()
	cfg := newDomain(t)
	appendAll(t, newProducer(t, cfg), 0, "only")
	results := make(chan error, 1)
	newGroup(t, cfg, func(ctx context.Context, lane *kafka.Lane) error {
		if lane.Number() == 0 {
			results <- lane.Read(ctx, 2, func([]kafka.Record) error { return nil })
		}
		<-ctx.Done()
		return nil
	})
	if err := receive(t, "an error", results); !errors.Is(err, kafka.ErrOutOfRange) {
		t.Errorf("got %v, want %v", err, kafka.ErrOutOfRange)
	}
}

// tally is what the owners of a test have read.
type tally struct {
	mu    sync.Mutex
	seen  map[int][]int64        // guarded by mu: offsets by lane
	lanes map[string]map[int]int // guarded by mu: how often each process has got each lane
	old   map[int]*kafka.Lane    // guarded by mu: the first owner's
}

func (s *tally) owner(name string) func(context.Context, *kafka.Lane) error {
	return func(ctx context.Context, lane *kafka.Lane) error {
		s.mu.Lock()
		if s.lanes[name] == nil {
			s.lanes[name] = make(map[int]int)
		}
		s.lanes[name][lane.Number()]++
		if s.old[lane.Number()] == nil {
			s.old[lane.Number()] = lane
		}
		s.mu.Unlock()
		next := max(lane.Committed(), 0)
		err := lane.Read(ctx, next, func(records []kafka.Record) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			for _, r := range records {
				s.seen[lane.Number()] = append(s.seen[lane.Number()], r.Offset)
				next = r.Offset + 1
			}
			return nil
		})
		if commitErr := lane.Commit(ctx, next); commitErr != nil {
			return commitErr
		}
		return err
	}
}

func (s *tally) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, offsets := range s.seen {
		n += len(offsets)
	}
	return n
}

func (s *tally) owned(name string) []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.lanes[name]))
}

func newTally() *tally {
	return &tally{seen: make(map[int][]int64), lanes: make(map[string]map[int]int), old: make(map[int]*kafka.Lane)}
}

func TestLanesChangeHandsWithoutReadingAnythingTwice(t *testing.T) {
	t.Parallel()
	cfg := newDomain(t)
	p := newProducer(t, cfg)
	s := newTally()
	appendEverywhere := func() {
		for lane := range lanes {
			appendAll(t, p, lane, numbered(200)...)
		}
	}
	stopFirst := newGroup(t, cfg, s.owner("first"))
	appendEverywhere()
	polltest.Eventually(t, "the first has read", func() bool { return s.count() == 800 })
	newGroup(t, cfg, s.owner("second"))
	polltest.Eventually(t, "the second has lanes", func() bool { return len(s.owned("second")) == 2 })
	appendEverywhere()
	polltest.Eventually(t, "both have read", func() bool { return s.count() == 1600 })
	stopFirst()
	appendEverywhere()
	polltest.Eventually(t, "the second has read everything", func() bool { return s.count() == 2400 })
	if got := s.owned("second"); len(got) != lanes {
		t.Errorf("the second has had lanes %v, want all", got)
	}
	for lane := range lanes {
		for i, offset := range s.seen[lane] {
			if offset != int64(i) {
				t.Fatalf("lane %d: offset %d was read in place %d", lane, offset, i)
			}
		}
	}
}

func TestAFormerOwnerCannotCommit(t *testing.T) {
	t.Parallel()
	cfg := newDomain(t)
	p := newProducer(t, cfg)
	s := newTally()
	newGroup(t, cfg, s.owner("first"))
	appendAll(t, p, 3, "a", "b", "c")
	polltest.Eventually(t, "the first has read", func() bool { return s.count() == 3 })
	healthy := s.old[3].Healthy()
	newGroup(t, cfg, s.owner("second"))
	polltest.Eventually(t, "the second has lanes", func() bool { return len(s.owned("second")) == 2 })
	if err := s.old[3].Commit(t.Context(), 1); !errors.Is(err, kafka.ErrFenced) {
		t.Errorf("got %v, want %v", err, kafka.ErrFenced)
	}
	if !healthy || s.old[3].Healthy() {
		t.Errorf("healthy as owner: %v, after: %v", healthy, s.old[3].Healthy())
	}
}

func TestAnOwnerThatFailsGetsItsLaneAgain(t *testing.T) {
	t.Parallel()
	cfg := newDomain(t)
	var mu sync.Mutex
	calls := make(map[int]int)
	again := make(chan struct{}, lanes)
	newGroup(t, cfg, func(ctx context.Context, lane *kafka.Lane) error {
		mu.Lock()
		calls[lane.Number()]++
		n := calls[lane.Number()]
		mu.Unlock()
		if lane.Number() == 1 && n == 1 {
			return errEnough
		}
		if n == 2 {
			again <- struct{}{}
		}
		<-ctx.Done()
		return ctx.Err()
	})
	receive(t, "the lane", again)
}

func TestAGroupFindsItsWayBackAfterTheBrokerRestarts(t *testing.T) {
	t.Parallel()
	dir, port := t.TempDir(), porttest.Lasting(t)
	broker := startBroker(t, dir, port)
	cfg := configFor(broker.Addr())
	if err := kafka.EnsureTopics(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	p := newProducer(t, cfg)
	s := newTally()
	newGroup(t, cfg, s.owner("first"))
	appendAll(t, p, 0, numbered(10)...)
	polltest.Eventually(t, "the first has read", func() bool { return s.count() == 10 })
	broker.Close()
	startBroker(t, dir, port)
	polltest.Eventually(t, "the producer is healthy", func() bool { return p.Healthy() == nil })
	appendAll(t, p, 0, "after")
	polltest.Eventually(t, "the record after the restart is read", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return slices.Contains(s.seen[0], 10)
	})
}

func TestARaisedGenerationForgetsWhatWasCommitted(t *testing.T) {
	t.Parallel()
	cfg := newDomain(t)
	p := newProducer(t, cfg)
	s := newTally()
	appendAll(t, p, 0, "a")
	stop := newGroup(t, cfg, s.owner("first"))
	polltest.Eventually(t, "the first has read", func() bool { return s.count() == 1 })
	stop()
	cfg.Generation = 1
	newGroup(t, cfg, s.owner("second"))
	polltest.Eventually(t, "the record is read again", func() bool { return s.count() == 2 })
}
