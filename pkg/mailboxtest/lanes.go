package mailboxtest

import (
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
)

type windows = map[mailbox.WindowKey]mailbox.Window

var laneTests = []test{
	{"A lane that was never saved is not found", func(t *testing.T, s mailbox.Store) {
		saveLane(t, s, 1, mailbox.LaneChange{Position: at(1)})
		for _, lane := range []int{0, 2, 11} {
			_, found, err := s.LoadLane(t.Context(), lane)
			if found || err != nil {
				t.Errorf("lane %d: found %v, error %v", lane, found, err)
			}
		}
	}},
	{"A lane comes back as it was saved", func(t *testing.T, s mailbox.Store) {
		change := mailbox.LaneChange{
			Position: at(math.MaxInt64 - 1),
			Windows: windows{
				{User: "A-1", Stream: math.MaxUint64}: {High: math.MaxUint64, Missing: []uint64{1, 2, 300, math.MaxUint64 - 1}, Touched: 1_700_000_000},
				{User: "A-1", Stream: 0}:              {High: 1, Touched: 7},
				{User: "A-1", Stream: 1 << 63}:        {High: 0},
				{User: "A-11", Stream: 0}:             {High: 1 << 63, Missing: []uint64{1 << 62}, Touched: 9},
			},
			IDs: remembered("A-1", 1, 2, 3),
			Now: 1_700_000_000, IDsFor: 600,
		}
		saveLane(t, s, 5, change)
		wantLane(t, s, 5, mailbox.LaneState{Position: change.Position, Windows: change.Windows, IDs: change.IDs})
	}},
	{"Remembered ids come back in the order of the saves, and so often as they were saved", func(t *testing.T, s mailbox.Store) {
		var want []mailbox.RememberedID
		for i := range int64(30) {
			change := mailbox.LaneChange{Position: at(i), Now: 1000 + i/3, IDsFor: 600}
			for _, n := range []int64{7 - i%5, i % 3, 7 - i%5} {
				change.IDs = append(change.IDs, mailbox.RememberedID{User: ident.UserID([]string{"A-1", "!A-1"}[(i+n)%2]), ID: idOf(n, n)})
			}
			saveLane(t, s, 0, change)
			want = append(want, change.IDs...)
		}
		state, _, err := s.LoadLane(t.Context(), 0)
		noError(t, err)
		if !slices.Equal(state.IDs, want) {
			t.Errorf("ids %v, want %v", state.IDs, want)
		}
	}},
	{"A lane that was saved with nothing but a position is found", func(t *testing.T, s mailbox.Store) {
		saveLane(t, s, 0, mailbox.LaneChange{Position: at(0)})
		wantLane(t, s, 0, mailbox.LaneState{Position: at(0)})
	}},
	{"A save keeps the windows that it does not name", func(t *testing.T, s mailbox.Store) {
		one, two, three := mailbox.WindowKey{User: "A-1", Stream: 1}, mailbox.WindowKey{User: "A-1", Stream: 2}, mailbox.WindowKey{User: "A-2", Stream: 1}
		saveLane(t, s, 0, mailbox.LaneChange{Position: at(1), Windows: windows{
			one: {High: 9, Missing: []uint64{3, 4}, Touched: 1}, two: {High: 5, Touched: 1}, three: {High: 6, Touched: 1},
		}})
		saveLane(t, s, 0, mailbox.LaneChange{
			Position: at(2),
			Windows:  windows{one: {High: 10, Missing: []uint64{4}, Touched: 2}},
			Expired:  []mailbox.WindowKey{two, {User: "A-2", Stream: 2}},
		})
		wantLane(t, s, 0, mailbox.LaneState{Position: at(2), Windows: windows{
			one: {High: 10, Missing: []uint64{4}, Touched: 2}, three: {High: 6, Touched: 1},
		}})
	}},
	{"A window loses its missing numbers when they have come", func(t *testing.T, s mailbox.Store) {
		key := mailbox.WindowKey{User: "A-1", Stream: 1}
		saveLane(t, s, 0, mailbox.LaneChange{Position: at(1), Windows: windows{key: {High: 9, Missing: []uint64{3}}}})
		saveLane(t, s, 0, mailbox.LaneChange{Position: at(2), Windows: windows{key: {High: 9}}})
		wantLane(t, s, 0, mailbox.LaneState{Position: at(2), Windows: windows{key: {High: 9}}})
	}},
	{"Ids are remembered for their time and then forgotten", func(t *testing.T, s mailbox.Store) {
		save := func(offset, now int64, ids ...int64) {
			saveLane(t, s, 0, mailbox.LaneChange{Position: at(offset), IDs: remembered("A-1", ids...), Now: now, IDsFor: 600})
		}
		want := func(offset int64, ids ...int64) {
			t.Helper()
			wantLane(t, s, 0, mailbox.LaneState{Position: at(offset), IDs: remembered("A-1", ids...)})
		}
		save(1, 1000, 1, 2)
		save(2, 1000, 3)
		save(3, 1001, 4)
		save(4, 1500)
		want(4, 1, 2, 3, 4)
		save(5, 1600, 5)
		want(5, 1, 2, 3, 4, 5)
		save(6, 1601)
		want(6, 4, 5)
		save(7, 9000, 6)
		want(7, 6)
	}},
	{"An id may be remembered for several users", func(t *testing.T, s mailbox.Store) {
		ids := append(remembered("A-1", 1), remembered("A-2", 1)...)
		saveLane(t, s, 0, mailbox.LaneChange{Position: at(1), IDs: ids, Now: 1, IDsFor: 600})
		wantLane(t, s, 0, mailbox.LaneState{Position: at(1), IDs: ids})
	}},
	{"Lanes know nothing of each other", func(t *testing.T, s mailbox.Store) {
		key := mailbox.WindowKey{User: "A-1", Stream: 1}
		for _, lane := range []int{1, 10, 11} {
			saveLane(t, s, lane, mailbox.LaneChange{
				Position: at(int64(lane)), Windows: windows{key: {High: uint64(lane)}},
				IDs: remembered("A-1", int64(lane)), Now: 1000, IDsFor: 600,
			})
		}
		saveLane(t, s, 1, mailbox.LaneChange{Position: at(100), Expired: []mailbox.WindowKey{key}, Now: 9000, IDsFor: 600})
		wantLane(t, s, 1, mailbox.LaneState{Position: at(100)})
		for _, lane := range []int{10, 11} {
			wantLane(t, s, lane, mailbox.LaneState{
				Position: at(int64(lane)), Windows: windows{key: {High: uint64(lane)}}, IDs: remembered("A-1", int64(lane)),
			})
		}
	}},
	{"A lane is loaded as one save left it, while others are being saved", wholeSaves},
	{"A large lane is saved and loaded", func(t *testing.T, s mailbox.Store) {
		change := mailbox.LaneChange{Position: at(1), Windows: windows{}, Now: 1, IDsFor: 600}
		for i := range 3000 {
			change.Windows[mailbox.WindowKey{User: "A-1", Stream: uint64(i)}] = mailbox.Window{High: uint64(i) + 10, Missing: []uint64{1, uint64(i) + 2}}
			change.IDs = append(change.IDs, remembered("A-1", int64(i))...)
		}
		saveLane(t, s, 0, change)
		wantLane(t, s, 0, mailbox.LaneState{Position: at(1), Windows: change.Windows, IDs: change.IDs})
	}},
}

// wholeSaves saves a number as the position, in two windows and as an id, and
// checks that a load never finds two different ones.
func wholeSaves(t *testing.T, s mailbox.Store) {
	a, b := mailbox.WindowKey{User: "A-1", Stream: 1}, mailbox.WindowKey{User: "Z-1", Stream: 1}
	save := func(i int64) error {
		w := mailbox.Window{High: uint64(i)}
		return s.SaveLane(t.Context(), 0, mailbox.LaneChange{
			Position: at(i), Windows: windows{a: w, b: w}, IDs: remembered("A-1", i), Now: i, IDsFor: 0,
		})
	}
	noError(t, save(1))
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for i := range int64(100) {
			err := save(i + 2)
			if err != nil {
				t.Error(err)
			}
		}
	})
	for {
		state, found, err := s.LoadLane(t.Context(), 0)
		noError(t, err)
		i := state.Position.Offset
		whole := found && state.Windows[a].High == uint64(i) && state.Windows[b].High == uint64(i) &&
			slices.Equal(state.IDs, remembered("A-1", i))
		if !whole {
			t.Fatalf("loaded a mixture of saves: %+v", state)
		}
		if i == 101 {
			return
		}
	}
}

func remembered(user ident.UserID, numbers ...int64) []mailbox.RememberedID {
	var ids []mailbox.RememberedID
	for _, n := range numbers {
		ids = append(ids, mailbox.RememberedID{User: user, ID: idOf(-1, n)})
	}
	return ids
}

func saveLane(t *testing.T, s mailbox.Store, lane int, change mailbox.LaneChange) {
	t.Helper()
	noError(t, s.SaveLane(t.Context(), lane, change))
}

// wantLane compares the ids as a set: their order means nothing.
func wantLane(t *testing.T, s mailbox.Store, lane int, want mailbox.LaneState) {
	t.Helper()
	got, found, err := s.LoadLane(t.Context(), lane)
	noError(t, err)
	if !found {
		t.Fatalf("lane %d is not found", lane)
	}
	if got.Position != want.Position {
		t.Errorf("lane %d: position %v, want %v", lane, got.Position, want.Position)
	}
	if !maps.EqualFunc(got.Windows, want.Windows, equalWindows) {
		t.Errorf("lane %d: windows %v, want %v", lane, got.Windows, want.Windows)
	}
	if !slices.Equal(sorted(got.IDs), sorted(want.IDs)) {
		t.Errorf("lane %d: ids %v, want %v", lane, got.IDs, want.IDs)
	}
}

func equalWindows(a, b mailbox.Window) bool {
	return a.High == b.High && a.Touched == b.Touched && slices.Equal(a.Missing, b.Missing)
}

// sorted returns a sorted copy without repetitions.
func sorted(ids []mailbox.RememberedID) []mailbox.RememberedID {
	return slices.Compact(slices.SortedFunc(slices.Values(ids), func(a, b mailbox.RememberedID) int {
		return strings.Compare(string(a.User)+string(a.ID[:]), string(b.User)+string(b.ID[:]))
	}))
}
