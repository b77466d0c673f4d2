package custody

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/linkerhq/linker/pkg/delivery"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
)

func TestAQueueKeepsItsOrder(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 1))
	var q queue[int]
	var want []int
	for next := range 20_000 {
		switch rng.IntN(8) {
		case 0:
			n := rng.IntN(len(want) + 1)
			q.drop(n)
			want = want[n:]
		case 1:
			divisor := rng.IntN(20) + 2
			q.keep(func(n int) bool { return n%divisor > 0 })
			want = slices.DeleteFunc(slices.Clone(want), func(n int) bool { return n%divisor == 0 })
		case 2:
			q.free()
		default:
			q.push(next)
			want = append(want, next)
		}
		if !slices.Equal(q.all(), want) || q.len() != len(want) {
			t.Fatalf("got %v, want %v", q.all(), want)
		}
	}
}

func TestItemsAreFoundByTheirPositionsAndInOrder(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 1))
	var is items
	want := map[envelope.Position]*item{}
	for step := range 20_000 {
		pos := envelope.Position{Generation: uint32(rng.IntN(2)), Offset: int64(rng.IntN(60) + step/500)}
		switch rng.IntN(3) {
		case 0:
			it := want[pos]
			if is.find(pos) != it {
				t.Fatalf("at %v stands %v, want %v", pos, is.find(pos), it)
			}
			if it == nil {
				it = &item{pos: pos} // another one
			}
			if removed := is.remove(it); removed != (want[pos] == it) {
				t.Fatalf("removed %v: %v", pos, removed)
			}
			delete(want, pos)
		case 1:
			if is.len() > 0 { // as a rule they go at the front
				delete(want, is.all()[0].pos)
				is.remove(is.all()[0])
			}
		default:
			it := &item{pos: pos}
			is.add(it)
			want[pos] = it
		}
		inOrder := slices.SortedFunc(maps.Values(want), func(a, b *item) int { return a.pos.Compare(b.pos) })
		if !slices.Equal(is.all(), inOrder) {
			t.Fatalf("%d items, want %d, in another order", is.len(), len(want))
		}
	}
}

func TestSessionsOfOneConnectorShareAnItemAndThoseOfAnotherHaveTheirOwn(t *testing.T) {
	t.Parallel()
	var fx Effects
	connectors := []*connector{{id: ident.Connector{Name: "a"}}, {id: ident.Connector{Name: "b"}}}
	for round := range 3 { // the memory is used again
		for record := range 2 {
			item := delivery.Item{Kind: delivery.KindFrame, ID: ident.MessageID{1, byte(record)}}
			for n := range uint64(40) {
				fx.deliver(connectors[n%2], &item, delivery.Target{Session: n})
			}
		}
		if len(fx.Deliveries) != 4 {
			t.Fatalf("round %d: %d deliveries, want 4", round, len(fx.Deliveries))
		}
		for i, d := range fx.Deliveries {
			if want := connectors[i%2].id; d.To != want || d.Item.ID[1] != byte(i/2) || len(d.Item.Targets) != 20 {
				t.Fatalf("round %d: delivery %d of record %d to %s has %d targets", round, i, d.Item.ID[1], d.To.Name, len(d.Item.Targets))
			}
			for j, to := range d.Item.Targets {
				if want := uint64(2*j + i%2); to.Session != want {
					t.Fatalf("round %d: target %d of delivery %d is %d, want %d", round, j, i, to.Session, want)
				}
			}
		}
		fx.Reset()
	}
}
