package deadletters_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/linkerhq/linker/pkg/broker/kafka"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/pkg/polltest"
	"github.com/linkerhq/linker/processor/internal/deadletters"
)

func TestEveryRecordOfTheTopicBecomesALetterOnceWhoeverKeepsThem(t *testing.T) {
	t.Parallel()
	d := newDomain(t)
	first, firstMetrics := d.letters(nil)
	second, secondMetrics := d.letters(nil)
	stop := d.keep(first)
	for n := range uint64(3) {
		d.bury(message("A-150", "A-1", n+1), "EXPIRED")
	}
	s := server(t, second)
	polltest.Eventually(t, "three letters are listed", func() bool { letters, _ := list(t, s, ""); return len(letters) == 3 })
	d.keep(second)
	stop()
	must(t, d.producer.Dead(t.Context(), "A-2", []byte("no envelope"), kafka.Report{Reason: "UNDECODABLE", Lane: 2, LaneOffset: 77}))
	polltest.Eventually(t, "the fourth letter is listed", func() bool { letters, _ := list(t, s, ""); return len(letters) == 4 })
	letters, next := list(t, s, "")
	if ids(letters) != "1-0 1-1 1-2 1-3" || next != "" {
		t.Fatalf("listed are %s, next %q", ids(letters), next)
	}
	got, age := letters[2], time.Since(time.UnixMilli(letters[2].At))
	if got.At = 0; got.Reason != "EXPIRED" || got.User != "A-1" || got.From != "A-150" || got.Kind != "message" || got.Reference != "ref" ||
		got.MessageID != message("A-150", "A-1", 3).ID.String() || got.CreatedAt != 1_700_000_000_000 || got.Lane != 3 || got.Size < 100 {
		t.Errorf("listed is %+v", got)
	}
	if age < -time.Second || age > time.Minute {
		t.Errorf("it died %v ago", age)
	}
	if l := letters[3]; l.Reason != "UNDECODABLE" || l.User != "A-2" || l.Kind != "" || l.Lane != 2 || l.Offset != 77 || l.Size != len("no envelope") {
		t.Errorf("the undecodable one is %+v", l)
	}
	if n, m := counted(t, firstMetrics, "linker_dead_letters_stored_total"), counted(t, secondMetrics, "linker_dead_letters_stored_total"); n != 3 || m != 1 {
		t.Errorf("the first has stored %v, the second %v; want 3 and 1", n, m)
	}
	if n := counted(t, firstMetrics, "linker_dead_letters"); n != 0 {
		t.Errorf("who does not keep them any more shows %v", n)
	}
}

func TestLettersThatAreTooOldAreRemovedAndCounted(t *testing.T) {
	t.Parallel()
	d := &domain{t: t, store: newStore(t)}
	letters, metrics := d.letters(func(c *deadletters.Config) { c.Retain = 5 * time.Second })
	now := time.Now()
	old, young := stored(1, message("A-1", "A-2", 1), "EXPIRED"), stored(2, message("A-1", "A-2", 2), "EXPIRED")
	old.At, young.At = now.Add(-time.Hour).UnixMilli(), now.Add(time.Hour).UnixMilli()
	put(t, d.store, old, young)
	d.begin(func(ctx context.Context) error { return letters.Keep(ctx, newTopic(0, 0, -1)) })
	left := func() string {
		list, _, err := d.store.ListDead(t.Context(), mailbox.DeadQuery{Limit: 10})
		must(t, err)
		var names []string
		for _, l := range list {
			names = append(names, fmt.Sprint(l.Pos.Offset))
		}
		return strings.Join(names, " ")
	}
	polltest.Eventually(t, "the old one is removed", func() bool { return left() == "2" })
	old.Pos.Offset = 3
	put(t, d.store, old)
	polltest.Eventually(t, "another one, later", func() bool { return left() == "2" })
	polltest.Eventually(t, "both are counted, and what is left", func() bool {
		return counted(t, metrics, "linker_dead_letters_purged_total") == 2 && counted(t, metrics, "linker_dead_letters") == 1
	})
}

// topic is one in memory, which may have been cut or made anew.
type topic struct {
	mu          sync.Mutex
	first, next int64
	committed   int64
	commits     []int64
}

func newTopic(first, next, committed int64) *topic {
	return &topic{first: first, next: next, committed: committed}
}

func (t *topic) Committed() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.committed
}

// committedSoFar are all commits, in order.
func (t *topic) committedSoFar() []int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.commits)
}

func (t *topic) Bounds(context.Context) (int64, int64, error) { return t.first, t.next, nil }

func (t *topic) Read(ctx context.Context, from int64, handle func([]kafka.Record) error) error {
	for offset := from; offset < t.next; offset++ {
		if err := handle([]kafka.Record{{Offset: offset, Value: []byte("x")}}); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return ctx.Err()
}

func (t *topic) Commit(_ context.Context, next int64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.committed = next
	t.commits = append(t.commits, next)
	return nil
}

// faulty is a store that takes letters only after some attempts.
type faulty struct {
	mailbox.DeadLetters
	failures atomic.Int32 // still to come
	put      atomic.Int32
}

func (f *faulty) PutDead(_ context.Context, letters []mailbox.DeadLetter) error {
	if f.failures.Add(-1) >= 0 {
		return errors.New("the disk is full")
	}
	f.put.Add(int32(len(letters)))
	return nil
}

func (f *faulty) CountDead(context.Context) (int, error) { return int(f.put.Load()), nil }

func TestARecordIsCommittedOnlyAfterTheStoreHasIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &domain{t: t}
		store := &faulty{}
		store.failures.Store(6)
		letters, metrics := d.letters(func(c *deadletters.Config) { c.Store = store })
		topic := newTopic(0, 2, -1)
		stop := d.begin(func(ctx context.Context) error { return letters.Keep(ctx, topic) })
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if len(topic.committedSoFar()) != 0 {
			t.Errorf("committed while the store is away: %v", topic.committedSoFar())
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if store.put.Load() != 2 || !slices.Equal(topic.committedSoFar(), []int64{1, 2}) {
			t.Errorf("stored %d, committed %v", store.put.Load(), topic.committedSoFar())
		}
		if n := counted(t, metrics, "linker_dead_letters_failures_total"); n != 6 {
			t.Errorf("%v failures counted, want 6", n)
		}
		stop()
	})
}

func TestWhatTheTopicHasDroppedIsCountedAndTheRestKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &domain{t: t}
		store := &faulty{}
		letters, metrics := d.letters(func(c *deadletters.Config) { c.Store = store })
		topic := newTopic(10, 12, 4)
		stop := d.begin(func(ctx context.Context) error { return letters.Keep(ctx, topic) })
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := counted(t, metrics, "linker_dead_letters_missed_total"); n != 6 || !slices.Equal(topic.committedSoFar(), []int64{10, 11, 12}) {
			t.Errorf("%v missed, committed %v; want 6 and 10 11 12", n, topic.committedSoFar())
		}
		stop()
	})
}

func TestATopicThatWasMadeAnewIsNotReadUnderTheOldNames(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &domain{t: t}
		store := &faulty{}
		letters, _ := d.letters(func(c *deadletters.Config) { c.Store = store })
		topic := newTopic(0, 3, 40)
		stop := d.begin(func(ctx context.Context) error { return letters.Keep(ctx, topic) })
		time.Sleep(time.Minute)
		synctest.Wait()
		if store.put.Load() != 0 || len(topic.committedSoFar()) != 0 {
			t.Errorf("stored %d, committed %v; want nothing", store.put.Load(), topic.committedSoFar())
		}
		stop()
		letters, _ = d.letters(func(c *deadletters.Config) { c.Store, c.Generation = store, 2 })
		raised := newTopic(0, 3, -1) // another group, which has committed nothing
		stop = d.begin(func(ctx context.Context) error { return letters.Keep(ctx, raised) })
		synctest.Wait()
		if store.put.Load() != 3 {
			t.Errorf("stored %d under the next generation, want 3", store.put.Load())
		}
		stop()
	})
}

func TestARecordOfSomebodyElseBecomesALetterAllTheSame(t *testing.T) {
	t.Parallel()
	d := newDomain(t)
	letters, _ := d.letters(nil)
	d.keep(letters)
	s := server(t, letters)
	long := strings.Repeat("X", 1000) + "\xff"
	for _, c := range []struct {
		key, value, reason string
	}{{"\x00\xff", "", "\xff"}, {"", "{}", long}, {"A-1", strings.Repeat("y", 100_000), "ODD"}} {
		must(t, d.producer.Dead(t.Context(), c.key, []byte(c.value), kafka.Report{Reason: c.reason}))
	}
	polltest.Eventually(t, "three letters are listed", func() bool { letters, _ := list(t, s, ""); return len(letters) == 3 })
	found, _ := list(t, s, "")
	if found[0].Reason != "UNKNOWN" || found[0].User != "" || found[1].Reason != long[:64] || found[2].Reason != "ODD" || found[2].User != "A-1" {
		t.Errorf("listed are %+v", found)
	}
	for _, l := range found {
		request(t, s, "GET", "/v1/dead/"+l.ID+"?content=true", http.StatusOK)
		request(t, s, "POST", "/v1/dead/"+l.ID+"/replay", http.StatusConflict)
	}
}

func FuzzNamesOfLetters(f *testing.F) {
	f.Add("1-42")
	f.Add("4294967295-9223372036854775807")
	f.Add("-1--1")
	f.Add("1-042")
	f.Fuzz(func(t *testing.T, text string) {
		pos, err := deadletters.ParseName(text)
		if err == nil && (deadletters.Name(pos) != text || pos.Offset < 0) {
			t.Errorf("%q is %v, which is named %s", text, pos, deadletters.Name(pos))
		}
	})
}

func TestNamesOfLettersLeadBackToThem(t *testing.T) {
	t.Parallel()
	for _, pos := range []envelope.Position{{Generation: 1}, {Generation: 1, Offset: 42}, {Generation: 1<<32 - 1, Offset: 1<<63 - 1}} {
		if got, err := deadletters.ParseName(deadletters.Name(pos)); err != nil || got != pos {
			t.Errorf("%v is named %s, which is %v, %v", pos, deadletters.Name(pos), got, err)
		}
	}
}
