package trace_test

import (
	"encoding/binary"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/trace"
)

var here = trace.Place{Domain: "domain-01", Service: trace.Processor, Name: "processor-1"}

// at is a time to the microsecond.
var at = time.Date(2026, 11, 21, 16, 0, 0, 123456000, time.UTC)

// message is the id of the n-th message; those of one shard have the same first byte.
func message(shard byte, n int) ident.MessageID {
	id := ident.MessageID{shard}
	binary.BigEndian.PutUint64(id[8:], uint64(n)+1)
	return id
}

func TestALogTellsWhatItWasTold(t *testing.T) {
	t.Parallel()
	l := trace.NewLog(here, 1, nil)
	id := message(3, 0)
	var want []trace.Event
	for i, kind := range trace.Kinds() {
		e := trace.Event{
			At: at.Add(time.Duration(i) * time.Microsecond), Place: here, Kind: kind, Message: id, User: "ANZ-999999999999999999", Users: i, Session: 1 << 63,
			Lane: i - 1, Offset: 1<<62 + int64(i), Peer: "connector-1", Road: i%2 == 0, Reason: "EXPIRED",
		}
		switch i {
		case 1:
			e.User, e.Peer, e.Reason, e.Offset = "", "", "", trace.NoOffset
		case 2:
			e.User = "a_1-0"
		}
		l.Add(e)
		l.Add(trace.Event{Kind: kind, Message: message(3, 1)})
		l.Add(trace.Event{Kind: kind, Message: message(4, 1)})
		want = append(want, e)
	}
	if got := l.Find(id); !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
	if got := l.Find(message(3, 2)); len(got) != 0 {
		t.Errorf("of a message of which nothing is known it says %+v", got)
	}
	if got, want := l.Added(), uint64(3*len(trace.Kinds())); got != want {
		t.Errorf("%d events were added, it says %d", want, got)
	}
}

func TestANoteIsAnEvent(t *testing.T) {
	t.Parallel()
	l := trace.NewLog(here, 1, nil)
	l.Note(&trace.Note{At: at, Kind: trace.Sent, Message: message(1, 1), User: l.User("ANZ-5"), Session: 7, Peer: l.Name("c"), Lane: 3, Offset: 9})
	l.Note(&trace.Note{At: at, Kind: trace.Stored, Message: message(1, 1), User: l.User("nobody"), Lane: trace.NoOffset, Offset: trace.NoOffset})
	want := []trace.Event{
		{At: at, Place: here, Kind: trace.Sent, Message: message(1, 1), User: "ANZ-5", Session: 7, Peer: "c", Lane: 3, Offset: 9},
		{At: at, Place: here, Kind: trace.Stored, Message: message(1, 1), Lane: trace.NoOffset, Offset: trace.NoOffset},
	}
	if got := l.Find(message(1, 1)); !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}

func TestNoLogKeepsNothing(t *testing.T) {
	t.Parallel()
	l := trace.NewLog(here, 0, nil)
	l.Add(trace.Event{Kind: trace.Taken, Message: message(1, 1)})
	l.Note(&trace.Note{Kind: trace.Taken, Message: message(1, 1), User: l.User("A-1"), Peer: l.Name("c")})
	if l.Find(message(1, 1)) != nil || l.Added() != 0 {
		t.Error("what is switched off keeps events")
	}
	on := trace.NewLog(here, 1, nil)
	on.Add(trace.Event{Kind: trace.Taken})
	if on.Find(ident.MessageID{}) != nil || on.Added() != 0 {
		t.Error("what is no message is kept")
	}
}

// TestTheOldestEventsAreForgottenFirst looks at each number of events around the size of a
// shard, which is 256 here.
func TestTheOldestEventsAreForgottenFirst(t *testing.T) {
	t.Parallel()
	for _, events := range []int{1, 5000} {
		size := 256 * ((events + 4095) / 4096)
		for _, added := range []int{1, 255, 256, 257, 300, size - 1, size, size + 1, 2*size - 1, 2 * size, 3*size + 17} {
			l := trace.NewLog(here, events, nil)
			for n := range added {
				l.Add(trace.Event{Kind: trace.Taken, Message: message(32, 5), Offset: int64(n)})
			}
			var got []int64
			for _, e := range l.Find(message(32, 5)) {
				got = append(got, e.Offset)
			}
			if len(got) != min(added, size) || !slices.IsSorted(got) || got[len(got)-1] != int64(added-1) {
				t.Errorf("of %d events in a shard of %d there are %d, from %d to %d", added, size, len(got), got[0], got[len(got)-1])
			}
		}
	}
}

func TestAnIdleLogCostsNoMemory(t *testing.T) {
	const events = 1 << 24 // 1 GiB
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	l := trace.NewLog(here, events, nil)
	l.Add(trace.Event{Kind: trace.Taken, Message: message(1, 1)})
	runtime.ReadMemStats(&after)
	if cost := after.TotalAlloc - before.TotalAlloc; cost > 256<<10 {
		t.Errorf("a log of %d events with one in it costs %d bytes", events, cost)
	}
	runtime.KeepAlive(l)
}

func TestAnEventAllocatesNothing(t *testing.T) {
	l := trace.NewLog(here, 4096, nil)
	e := trace.Event{At: at, Kind: trace.Proved, User: "ANZ-5", Session: 1, Lane: 3, Offset: 4, Peer: "connector-1", Reason: "EXPIRED"}
	n := 0
	add := func() {
		n++
		e.Message = message(byte(n), n)
		l.Add(e)
	}
	for range 8192 {
		add() // all memory is there
	}
	if got := testing.AllocsPerRun(1000, add); got != 0 {
		t.Errorf("%v allocations for an event", got)
	}
}

// TestNamesAreBounded has somebody make up names: what is known already stays known.
func TestNamesAreBounded(t *testing.T) {
	t.Parallel()
	l := trace.NewLog(here, 1, nil)
	l.Add(trace.Event{Kind: trace.Dead, Message: message(1, 0), Reason: "EXPIRED", Peer: "connector-1"})
	for n := range 1000 {
		l.Add(trace.Event{Kind: trace.Dead, Message: message(2, n), Reason: fmt.Sprintf("made up %d\x00", n)})
	}
	l.Add(trace.Event{Kind: trace.Dead, Message: message(1, 0), Reason: "EXPIRED", Peer: "connector-2"})
	for _, e := range l.Find(message(1, 0)) {
		if e.Reason != "EXPIRED" || !strings.HasPrefix(e.Peer, "connector-") {
			t.Errorf("got %+v", e)
		}
	}
	if got := l.Find(message(2, 990)); len(got) != 1 || got[0].Reason != "" {
		t.Errorf("a reason for which there is no room: %+v", got)
	}
	l = trace.NewLog(here, 1, nil)
	l.Add(trace.Event{Kind: trace.Dead, Message: message(1, 0), Reason: "bad\nname é"})
	if got := l.Find(message(1, 0))[0].Reason; got != "bad?name ??" {
		t.Errorf("a reason that cannot be shown is %q", got)
	}
}

// TestManyAddAndFindAtOnce is for the race detector, and counts.
func TestManyAddAndFindAtOnce(t *testing.T) {
	t.Parallel()
	const writers, each = 8, 2000
	l := trace.NewLog(here, 1<<16, nil)
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for n := range each {
				l.Add(trace.Event{
					At: at, Kind: trace.Taken, Message: message(byte(n), w), User: ident.UserID(fmt.Sprintf("A%d-%d", n%50, w)), Peer: fmt.Sprintf("c-%d", n%70),
				})
			}
		})
		all.Go(func() {
			for n := range 200 {
				for _, e := range l.Find(message(byte(n), w)) {
					if e.User == "" || e.Peer == "" || !strings.HasSuffix(string(e.User), fmt.Sprintf("-%d", w)) {
						t.Errorf("found half of an event: %+v", e)
						return
					}
				}
			}
		})
	}
	all.Wait()
	if got := l.Added(); got != writers*each {
		t.Errorf("%d events were added, it says %d", writers*each, got)
	}
	found := 0
	for shard := range 256 {
		for w := range writers {
			found += len(l.Find(message(byte(shard), w)))
		}
	}
	if found != writers*each {
		t.Errorf("%d of %d events are found", found, writers*each)
	}
}

func TestAMessageIDIsReadAsItIsShown(t *testing.T) {
	t.Parallel()
	id := message(200, 77)
	if got, err := trace.ParseMessageID(id.String()); err != nil || got != id {
		t.Errorf("got %v, %v", got, err)
	}
	for _, wrong := range []string{"", "x", id.String() + "A", id.String()[1:], strings.Repeat("*", 22), "0\r000\r0000000000000000", strings.Repeat("Z", 22), strings.Repeat("A", 5000)} {
		if _, err := trace.ParseMessageID(wrong); err == nil || len(err.Error()) > 200 {
			t.Errorf("%.30q: got %v", wrong, err)
		}
	}
}

func FuzzParseMessageID(f *testing.F) {
	f.Add(message(1, 1).String())
	f.Add("0\r000\r0000000000000000")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := trace.ParseMessageID(s)
		if err == nil && id.String() != s {
			t.Fatalf("%q is read as %s", s, id)
		}
	})
}

func BenchmarkAdd(b *testing.B) {
	l := trace.NewLog(here, 1<<17, nil)
	e := trace.Event{Kind: trace.Proved, User: "ANZ-1234567", Session: 1, Lane: 3, Offset: 4, Peer: "connector-1"}
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		n++
		e.At, e.Message = at, message(byte(n), n)
		l.Add(e)
	}
}

func BenchmarkNote(b *testing.B) {
	l := trace.NewLog(here, 1<<17, nil)
	e := trace.Note{Kind: trace.Proved, User: l.User("ANZ-1234567"), Session: 1, Lane: 3, Offset: 4, Peer: l.Name("connector-1")}
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		n++
		e.At, e.Message = at, message(byte(n), n)
		l.Note(&e)
	}
}

func BenchmarkAddFromMany(b *testing.B) {
	l := trace.NewLog(here, 1<<17, nil)
	b.RunParallel(func(pb *testing.PB) {
		e := trace.Event{At: at, Kind: trace.Accepted, User: "ANZ-1234567", Session: 1, Lane: 3, Offset: 4}
		for n := 0; pb.Next(); n++ {
			e.Message = message(byte(n), n)
			l.Add(e)
		}
	})
}

func BenchmarkFind(b *testing.B) {
	l := trace.NewLog(here, 1<<17, nil)
	for n := range 1 << 17 {
		l.Add(trace.Event{Kind: trace.Proved, Message: message(byte(n), n)})
	}
	for b.Loop() {
		l.Find(message(5, 5))
	}
}
