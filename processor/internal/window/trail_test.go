package window_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/processor/internal/window"
)

func TestLookTellsWhatIsNextTakenMissingAndAhead(t *testing.T) {
	t.Parallel()
	w := fresh()
	for i, n := range []uint64{1, 2, 5} {
		w.TakeNumber(user, 9, n, int64(i), start)
	}
	for n, want := range map[uint64]window.Seen{1: window.Taken, 3: window.Missing, 4: window.Missing, 5: window.Taken, 6: window.Next, 7: window.Ahead} {
		if got := w.Look(user, 9, n); got != want {
			t.Errorf("Look(%d) = %d, want %d", n, got, want)
		}
	}
	if w.Look(user, 8, 1) != window.Next || w.Look(user, 8, 2) != window.Ahead {
		t.Error("a stream of which nothing was taken begins with 1")
	}
	if w.Len() != 1 {
		t.Error("to look leaves a trace")
	}
}

func TestWhatWasGivenUpHasPassedAndIsStillMissing(t *testing.T) {
	t.Parallel()
	w := fresh()
	w.TakeNumber(user, 9, 1, 0, start)
	if w.Passed(user, 9, 2) || w.Passed(user, 8, 1) {
		t.Error("a number has passed that was not taken")
	}
	w.GiveUp(user, 9, 3, 1, start)
	if !w.Passed(user, 9, 3) || w.Passed(user, 9, 4) {
		t.Error("what was given up has not passed, or too much has")
	}
	for _, n := range []uint64{2, 3} {
		if w.Look(user, 9, n) != window.Missing || w.TakeNumber(user, 9, n, 2, start) {
			t.Errorf("%d was given up, and is not taken when it comes", n)
		}
	}
	w.GiveUp(user, 9, 2, 3, start)
	if w.Look(user, 9, 2) != window.Taken {
		t.Error("what was taken is given up")
	}
}

func TestMergeKnowsAsTakenWhatEitherHasTaken(t *testing.T) {
	t.Parallel()
	w := fresh()
	w.TakeNumber(user, 9, 2, 0, start)
	w.TakeNumber(user, 9, 7, 1, start)
	w.Merge(user, 9, mailbox.Window{High: 5, Missing: []uint64{2, 4}}, 2, start)
	for n, want := range map[uint64]window.Seen{1: window.Taken, 2: window.Taken, 3: window.Taken, 4: window.Missing, 5: window.Taken, 6: window.Missing, 7: window.Taken, 8: window.Next} {
		if got := w.Look(user, 9, n); got != want {
			t.Errorf("Look(%d) = %d, want %d", n, got, want)
		}
	}
}

func TestWhatIsPutBackIsMissingAndTakenAgain(t *testing.T) {
	t.Parallel()
	w := fresh()
	for n := uint64(1); n <= 3; n++ {
		w.TakeNumber(user, 9, n, int64(n), start)
	}
	for _, n := range []uint64{3, 1, 3, 9} {
		w.PutBack(user, 9, n, 4)
	}
	w.PutBack(user, 8, 1, 4)
	if got := w.Of(user); !reflect.DeepEqual(got[9].Missing, []uint64{1, 3}) || got[9].High != 3 || len(got) != 1 {
		t.Errorf("the windows are %+v", got)
	}
	if w.TakeNumber(user, 9, 3, 5, start) || w.TakeNumber(user, 9, 1, 6, start) || !w.TakeNumber(user, 9, 2, 7, start) {
		t.Error("what was put back is not taken again, or something else is")
	}
}

func TestUsersAreThoseWithWindowsAndNotTrails(t *testing.T) {
	t.Parallel()
	w := fresh()
	w.TakeNumber(user, 9, 1, 0, start)
	w.Follow("ANZ-2", "ANZ-3", 7, 1, 1, start)
	if got := w.Users(); !maps.Equal(got, map[ident.UserID]bool{user: true}) {
		t.Errorf("users are %v", got)
	}
}

func TestTheFirstOfANewStreamFollowsTheLastOfTheOneBefore(t *testing.T) {
	t.Parallel()
	type step struct {
		to           ident.UserID
		stream, n    uint64
		at           time.Duration
		after, count uint64
	}
	w := fresh()
	for i, s := range []step{
		{"ANZ-2", 7, 1, 0, 0, 0},
		{"ANZ-2", 7, 2, 0, 0, 0},
		{"ANZ-3", 8, 1, 0, 0, 0}, // another receiver
		{"ANZ-2", 8, 1, 0, 7, 2},
		{"ANZ-2", 8, 1, 0, 7, 2}, // a copy follows the same
		{"ANZ-2", 8, 2, 0, 0, 0},
		{"ANZ-2", 8, 1, 0, 7, 2}, // even a late one
		{"ANZ-2", 9, 1, window.TrailLife, 8, 2},
		{"ANZ-2", 10, 1, 2*window.TrailLife + time.Second, 0, 0}, // the one before is forgotten
		{"ANZ-2", 10, 1, 2*window.TrailLife + time.Second, 0, 0},
		{"ANZ-2", 11, 5, 2*window.TrailLife + time.Second, 0, 0}, // its first was not seen here
	} {
		if stream, n := w.Follow(user, s.to, s.stream, s.n, int64(i), start.Add(s.at)); stream != s.after || n != s.count {
			t.Errorf("step %d: follows %d of %d, want %d of %d", i, n, stream, s.count, s.after)
		}
	}
}

func TestTrailsAreForgottenAfterAMinute(t *testing.T) {
	t.Parallel()
	w := fresh()
	w.Follow(user, "ANZ-2", 7, 1, 0, start)
	w.Follow(user, "ANZ-2", 8, 1, 1, start)
	w.Settle(2, start)
	if got := w.Expire(start.Add(window.TrailLife + 2*time.Second)); len(got) != 2 || w.Len() != 0 {
		t.Errorf("expired %v, left %d", got, w.Len())
	}
	if stream, _ := w.Follow(user, "ANZ-2", 9, 1, 2, start); stream != 0 {
		t.Errorf("it follows stream %d, which is forgotten", stream)
	}
}

// apply does, for one record, one of all the things that change windows.
func apply(w *window.Windows, seed uint64, offset int64) string {
	rng := rand.New(rand.NewPCG(seed, uint64(offset)))
	stream, n := 1+rng.Uint64N(3), 1+rng.Uint64N(12)
	switch rng.IntN(12) {
	case 0:
		w.GiveUp(user, stream, n, offset, start)
	case 1:
		win := mailbox.Window{High: n}
		for m := uint64(1); m < n; m++ {
			if rng.IntN(3) == 0 {
				win.Missing = append(win.Missing, m)
			}
		}
		w.Merge(user, stream, win, offset, start)
	case 2:
		w.PutBack(user, stream, n, offset)
	case 3, 4, 5, 6:
		after, last := w.Follow(user, "ANZ-9", stream, 1+rng.Uint64N(4), offset, start)
		return fmt.Sprint("follows ", after, last)
	case 7:
		return fmt.Sprint("known ", w.TakeID(user, ident.MessageID{byte(n)}, offset, start))
	default:
		return fmt.Sprint("taken ", w.TakeNumber(user, stream, n, offset, start))
	}
	return ""
}

// known is all that windows say of the streams that apply uses.
func known(w *window.Windows) []any {
	var all []any
	for stream := uint64(1); stream <= 3; stream++ {
		for n := uint64(1); n <= 14; n++ {
			all = append(all, w.Look(user, stream, n), w.Passed(user, stream, n))
		}
	}
	return all
}

func TestANewOwnerKnowsExactlyWhatWasSettledAtAnyPoint(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		const records = 60
		rng := rand.New(rand.NewPCG(seed, 3))
		w := fresh()
		saved := mailbox.LaneState{Windows: map[mailbox.WindowKey]mailbox.Window{}}
		var said []string // by offset
		low := int64(0)
		for offset := range int64(records) {
			said = append(said, apply(w, seed, offset))
			if rng.IntN(4) > 0 {
				continue
			}
			low += rng.Int64N(offset + 2 - low)
			w.Settle(low, start)
			if rng.IntN(3) == 0 {
				continue // settled, and not saved yet
			}
			c := w.Change(1, start)
			maps.Copy(saved.Windows, c.Windows)
			for _, key := range c.Expired {
				delete(saved.Windows, key)
			}
			saved.IDs, saved.Position = append(saved.IDs, c.IDs...), c.Position

			next, want := window.New(mailbox.LaneState{Position: saved.Position, Windows: copied(saved.Windows), IDs: slices.Clone(saved.IDs)}, 10*time.Minute, start), fresh()
			for before := range saved.Position.Offset {
				apply(want, seed, before)
			}
			if !reflect.DeepEqual(known(next), known(want)) {
				t.Fatalf("seed %d: saved at %d after %d records, the windows differ", seed, saved.Position.Offset, offset+1)
			}
			for again := saved.Position.Offset; again <= offset; again++ {
				if got := apply(next, seed, again); got != said[again] {
					t.Fatalf("seed %d: saved at %d, record %d is %q, and was %q before", seed, saved.Position.Offset, again, got, said[again])
				}
			}
		}
	}
}

func copied(windows map[mailbox.WindowKey]mailbox.Window) map[mailbox.WindowKey]mailbox.Window {
	c := maps.Clone(windows)
	for key, win := range c {
		win.Missing = slices.Clone(win.Missing)
		c[key] = win
	}
	return c
}
