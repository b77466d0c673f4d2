package mongo_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/pkg/mailbox/mongo"
)

func TestOnlyTheLastToLoadALaneSavesIt(t *testing.T) {
	t.Parallel()
	name := database(t)
	first, second := open(t, name), open(t, name)
	noError(t, first.SaveLane(t.Context(), 7, change(1)))
	wantLane(t, second, 7, 1)
	for range 2 {
		wantTaken(t, first.SaveLane(t.Context(), 7, change(2)))
	}
	noError(t, second.SaveLane(t.Context(), 7, change(3)))
	wantTaken(t, first.SaveLane(t.Context(), 7, change(4)))
	noError(t, first.SaveLane(t.Context(), 8, change(1)))
	wantLane(t, first, 7, 3)
	noError(t, first.SaveLane(t.Context(), 7, change(5)))
	wantTaken(t, second.SaveLane(t.Context(), 7, change(6)))
	wantLane(t, open(t, name), 7, 5)
}

func TestAnOwnerThatComesLateIsRefusedHoweverMuchWasSavedSince(t *testing.T) {
	t.Parallel()
	name := database(t)
	late, owner := open(t, name), open(t, name)
	late.SetLimits(64, 1, 1)
	owner.SetLimits(64, 1, 1)
	noError(t, late.SaveLane(t.Context(), 7, change(1)))
	wantLane(t, owner, 7, 1)
	for n := range int64(20) {
		noError(t, owner.SaveLane(t.Context(), 7, change(n+2)))
	}
	wantTaken(t, late.SaveLane(t.Context(), 7, large(100)))
	if late.WriteState(t.Context(), 7) == nil {
		t.Error("an owner that comes late has replaced the journal")
	}
	noError(t, owner.SaveLane(t.Context(), 7, change(30)))
	wantLane(t, open(t, name), 7, 30)
}

func TestASaveThatWasCutOffDoesNotCount(t *testing.T) {
	t.Parallel()
	name := database(t)
	first := open(t, name)
	first.SetLimits(64, 1<<20, 1<<20)
	noError(t, first.SaveLane(t.Context(), 7, change(1)))
	noError(t, first.WritePartsOnly(t.Context(), 7, large(2)))

	second := open(t, name)
	second.SetLimits(64, 1<<20, 1<<20)
	wantLane(t, second, 7, 1)
	noError(t, second.WritePartsOnly(t.Context(), 7, large(3)))
	noError(t, second.SaveLane(t.Context(), 7, large(4)))
	wantState(t, open(t, name), 7, large(4))
}

func TestAStateCountsWhetherWhatItReplacesIsThereOrNot(t *testing.T) {
	t.Parallel()
	name := database(t)
	s := open(t, name)
	s.SetLimits(64, 1<<20, 1<<20)
	for n := range int64(5) {
		noError(t, s.SaveLane(t.Context(), 7, large(n)))
	}
	lanes, parts := s.Database().Collection("lanes"), s.Database().Collection("lane_parts")
	before, partsBefore := documents(t, lanes), documents(t, parts)
	noError(t, s.WriteState(t.Context(), 7))
	after := documents(t, lanes)
	if len(after) != 2 { // the claim and the state
		t.Errorf("%d entries are left", len(after))
	}
	wantState(t, open(t, name), 7, large(4))

	// A process that was killed while it deleted has left the rest.
	for _, left := range [][]bson.Raw{before[1:], before[3:], before[4:5]} {
		for _, d := range left {
			_, err := lanes.InsertOne(t.Context(), d)
			noError(t, err)
		}
		wantState(t, open(t, name), 7, large(4))
		_, err := lanes.DeleteMany(t.Context(), bson.D{{Key: "kind", Value: "change"}})
		noError(t, err)
	}
	for _, d := range partsBefore {
		_, err := parts.InsertOne(t.Context(), d)
		noError(t, err)
	}
	last := open(t, name)
	last.SetLimits(64, 1<<20, 1<<20)
	wantState(t, last, 7, large(4))
	noError(t, last.WriteState(t.Context(), 7))
	wantState(t, last, 7, large(4))
	for _, d := range documents(t, parts) {
		if seq := d.Lookup("seq").AsInt64(); seq <= 7 {
			t.Errorf("a part of entry %d is left", seq)
		}
	}
}

func TestAJournalWithAGapIsAnError(t *testing.T) {
	t.Parallel()
	s := open(t, database(t))
	for n := range int64(3) {
		noError(t, s.SaveLane(t.Context(), 7, change(n)))
	}
	_, err := s.Database().Collection("lanes").DeleteOne(t.Context(), bson.D{{Key: "seq", Value: 3}})
	noError(t, err)
	_, _, err = s.LoadLane(t.Context(), 7)
	if err == nil {
		t.Error("the lane was loaded without one of its saves")
	}
}

func TestRandomSavesBySeveralOwnersAddUp(t *testing.T) {
	t.Parallel()
	name := database(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	stores := []*mongo.Store{open(t, name), open(t, name), open(t, name)}
	for i, s := range stores {
		s.SetLimits(200+100*i, 500, 5+10*i)
	}
	var want mailbox.LaneState
	var saved []int64 // when each of want.IDs was saved
	want.Windows = make(map[mailbox.WindowKey]mailbox.Window)
	owner, now := -1, int64(1000)
	for range 250 {
		i := random.IntN(len(stores))
		if random.IntN(5) > 0 && owner >= 0 {
			i = owner
		}
		if random.IntN(12) == 0 || owner < 0 {
			owner = i
			got, found, err := stores[i].LoadLane(t.Context(), 3)
			noError(t, err)
			if found != (want.Position.Generation > 0) || found && !equalStates(got, want) {
				t.Fatalf("loaded %+v, found %v, want %+v", got, found, want)
			}
			continue
		}
		now += random.Int64N(3)
		c := randomChange(random, now)
		err := stores[i].SaveLane(t.Context(), 3, c)
		if i != owner {
			// The first save of a store that has not loaded the lane takes it over.
			if err == nil {
				owner = i
			} else {
				wantTaken(t, err)
				continue
			}
		}
		noError(t, err)
		want.Position = c.Position
		for _, k := range c.Expired {
			delete(want.Windows, k)
		}
		maps.Copy(want.Windows, c.Windows)
		keep := slices.IndexFunc(saved, func(s int64) bool { return s >= c.Now-c.IDsFor })
		if keep < 0 {
			keep = len(saved)
		}
		want.IDs, saved = append(want.IDs[keep:len(want.IDs):len(want.IDs)], c.IDs...), append(saved[keep:], slices.Repeat([]int64{now}, len(c.IDs))...)
	}
	if n := len(documents(t, stores[0].Database().Collection("lanes"))); n > 100 {
		t.Errorf("the journal has %d entries", n)
	}
}

func randomChange(random *rand.Rand, now int64) mailbox.LaneChange {
	c := mailbox.LaneChange{
		Position: envelope.Position{Generation: 1, Offset: now}, Now: now, IDsFor: 10,
		Windows: make(map[mailbox.WindowKey]mailbox.Window),
	}
	k := func() mailbox.WindowKey {
		return mailbox.WindowKey{User: ident.UserID(fmt.Sprintf("A-%d", random.IntN(20))), Stream: random.Uint64N(2)}
	}
	for range random.IntN(6) {
		high := random.Uint64()
		c.Windows[k()] = mailbox.Window{High: high, Missing: []uint64{high / 3, high / 2}, Touched: now}
	}
	for range random.IntN(3) {
		key := k()
		if _, changed := c.Windows[key]; !changed {
			c.Expired = append(c.Expired, key)
		}
	}
	for range random.IntN(4) {
		c.IDs = append(c.IDs, mailbox.RememberedID{User: "A-1", ID: row(random.Int64()).ID})
	}
	return c
}

// change saves a number as the position, as a window and as an id.
func change(n int64) mailbox.LaneChange {
	return mailbox.LaneChange{
		Position: envelope.Position{Generation: 1, Offset: n},
		Windows:  map[mailbox.WindowKey]mailbox.Window{{User: "A-1", Stream: 1}: {High: uint64(n)}},
		IDs:      []mailbox.RememberedID{{User: "A-1", ID: row(n).ID}},
		Now:      n,
	}
}

// large is a change of some kilobytes.
func large(n int64) mailbox.LaneChange {
	c := change(n)
	for i := range uint64(100) {
		c.Windows[mailbox.WindowKey{User: "A-2", Stream: i}] = mailbox.Window{High: uint64(n), Touched: n}
	}
	return c
}

// wantLane loads a lane and wants the save of n in it, as a whole.
func wantLane(t *testing.T, s *mongo.Store, lane int, n int64) {
	t.Helper()
	wantState(t, s, lane, change(n))
}

func wantState(t *testing.T, s *mongo.Store, lane int, c mailbox.LaneChange) {
	t.Helper()
	got, found, err := s.LoadLane(t.Context(), lane)
	noError(t, err)
	if want := (mailbox.LaneState{Position: c.Position, Windows: c.Windows, IDs: c.IDs}); !found || !equalStates(got, want) {
		t.Fatalf("lane %d is %+v, found %v, want %+v", lane, got, found, want)
	}
}

func equalStates(a, b mailbox.LaneState) bool {
	return a.Position == b.Position && slices.Equal(a.IDs, b.IDs) &&
		maps.EqualFunc(a.Windows, b.Windows, func(v, w mailbox.Window) bool { return reflect.DeepEqual(v, w) })
}

func wantTaken(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, mailbox.ErrLaneTaken) {
		t.Fatalf("error %v, want one that wraps ErrLaneTaken", err)
	}
}

// documents returns all of a collection in the order of the keys.
func documents(t *testing.T, c *driver.Collection) []bson.Raw {
	t.Helper()
	cursor, err := c.Find(t.Context(), bson.D{}, options.Find().SetSort(bson.D{{Key: "_id", Value: 1}}))
	noError(t, err)
	var all []bson.Raw
	noError(t, cursor.All(t.Context(), &all))
	return all
}
