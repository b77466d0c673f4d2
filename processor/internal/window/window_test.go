package window_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/processor/internal/window"
)

const user = ident.UserID("ANZ-1")

var start = time.Unix(1_700_000_000, 0)

func fresh() *window.Windows { return window.New(mailbox.LaneState{}, 10*time.Minute, start) }

func TestOnlyANumberKnownAsTakenIsADuplicate(t *testing.T) {
	t.Parallel()
	w := fresh()
	for i, c := range []struct {
		n    uint64
		want bool
	}{{1, false}, {2, false}, {2, true}, {5, false}, {3, false}, {3, true}, {4, false}, {5, true}, {1, true}, {6, false}, {100_000, false}, {7, false}, {99_999, false}, {99_999, true}} {
		if got := w.TakeNumber(user, 9, c.n, int64(i), start); got != c.want {
			t.Errorf("step %d: TakeNumber(%d) = %v, want %v", i, c.n, got, c.want)
		}
	}
}

func TestWindowsAgreeWithASetUnderRandomOrder(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 1))
		w, known := fresh(), map[uint64]bool{}
		for i := range 2000 {
			n := 1 + rng.Uint64N(600)
			if got := w.TakeNumber(user, 1, n, int64(i), start); got != known[n] {
				t.Fatalf("seed %d step %d: TakeNumber(%d) = %v, want %v", seed, i, n, got, known[n])
			}
			known[n] = true
		}
	}
}

func TestIDsAreRememberedForTheirTimeAndNotForEver(t *testing.T) {
	t.Parallel()
	w := fresh()
	id := ident.MessageID{1}
	if w.TakeID(user, id, 0, start) {
		t.Error("a new id was called a duplicate")
	}
	if !w.TakeID(user, id, 1, start.Add(10*time.Minute)) {
		t.Error("an id of ten minutes ago was forgotten")
	}
	if w.TakeID("ANZ-2", id, 2, start) {
		t.Error("an id for one user was taken for another's")
	}
	w.TakeID(user, ident.MessageID{2}, 3, start.Add(20*time.Minute))
	if w.TakeID(user, id, 4, start.Add(31*time.Minute)) {
		t.Error("an id was remembered after twice its time")
	}
	if w.TakeID(user, ident.MessageID{2}, 5, start.Add(2*time.Hour)) {
		t.Error("an id was remembered for as long as nothing came")
	}
}

func TestWhatIsSavedIsExactForTheSettledOffsetsAndNothingElse(t *testing.T) {
	t.Parallel()
	w := fresh()
	for n := range uint64(10) {
		w.TakeNumber(user, 1, n+1, int64(100+n), start)
	}
	w.TakeID(user, ident.MessageID{1}, 110, start)
	w.TakeID(user, ident.MessageID{2}, 110, start)
	w.Settle(104, start)
	c := w.Change(1, start)
	if c.Position.Offset != 104 || c.Windows[mailbox.WindowKey{User: user, Stream: 1}].High != 4 {
		t.Errorf("saved %+v", c)
	}
	if len(c.IDs) != 0 {
		t.Errorf("ids above the settled offset were saved: %v", c.IDs)
	}
	w.Settle(111, start)
	c = w.Change(1, start)
	if c.Windows[mailbox.WindowKey{User: user, Stream: 1}].High != 10 || len(c.IDs) != 2 {
		t.Errorf("saved %+v", c)
	}
}

func TestTheNextOwnerTakesUnsettledRecordsAndRefusesSettledOnes(t *testing.T) {
	t.Parallel()
	w := fresh()
	w.TakeNumber(user, 1, 1, 0, start)
	w.TakeNumber(user, 1, 2, 1, start)
	w.Settle(1, start)
	c := w.Change(1, start)
	next := window.New(mailbox.LaneState{Position: c.Position, Windows: c.Windows, IDs: c.IDs}, time.Minute, start)
	if !next.TakeNumber(user, 1, 1, 5, start) {
		t.Error("a settled number was taken again")
	}
	if next.TakeNumber(user, 1, 2, 1, start) {
		t.Error("an unsettled number was mistaken for its own duplicate")
	}
}

func TestStillStreamsAreForgottenAfterADay(t *testing.T) {
	t.Parallel()
	w := fresh()
	w.TakeNumber(user, 1, 1, 0, start)
	w.TakeNumber(user, 2, 1, 1, start.Add(23*time.Hour))
	if got := w.Expire(start.Add(25 * time.Hour)); len(got) != 1 || got[0].Stream != 1 || w.Len() != 1 {
		t.Errorf("expired %v, left %d", got, w.Len())
	}
}

func TestAnIDThatWasForgottenStaysForgottenUnderTheNextOwner(t *testing.T) {
	t.Parallel()
	w := fresh()
	var saved []mailbox.RememberedID
	save := func(low int64) {
		w.Settle(low, start)
		saved = append(saved, w.Change(1, start).IDs...)
	}
	early, late, refused, again := ident.MessageID{1}, ident.MessageID{2}, ident.MessageID{3}, ident.MessageID{4}
	for i, id := range []ident.MessageID{early, late, refused, again} {
		w.TakeID(user, id, int64(i), start)
	}
	w.ForgetID(user, refused) // before it is settled
	w.Settle(4, start)
	w.ForgetID(user, early) // before it is saved
	save(4)
	w.ForgetID(user, late)
	w.ForgetID(user, again)
	save(4)
	if w.TakeID(user, again, 4, start) {
		t.Error("an id that was forgotten is called a duplicate")
	}
	save(5)
	next := window.New(mailbox.LaneState{IDs: saved}, time.Minute, start)
	for id, want := range map[ident.MessageID]bool{early: false, late: false, refused: false, again: true} {
		if got := next.TakeID(user, id, 9, start); got != want {
			t.Errorf("id %d: remembered %v, want %v", id[0], got, want)
		}
	}
}
