package session

import (
	"math/rand/v2"
	"testing"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
)

func id(n byte) ident.MessageID { return ident.MessageID{n} }

func pos(n int64) envelope.Position { return envelope.Position{Generation: 1, Offset: n} }

func TestDeliveriesAreTakenInOrderOnce(t *testing.T) {
	t.Parallel()
	var l ledger
	for _, step := range []struct {
		d     uint64
		want  Verdict
		taken uint64
	}{
		{2, Gap, 0}, {1, Taken, 1}, {1, Again, 1}, {3, Gap, 1}, {2, Taken, 2}, {0, Again, 2},
	} {
		if got := l.take(step.d, id(byte(10+step.d)), pos(1)); got != step.want || l.taken != step.taken {
			t.Errorf("take(%d) = %v with taken %d, want %v with %d", step.d, got, l.taken, step.want, step.taken)
		}
	}
}

func TestProofReachesWhatWasWrittenBefore(t *testing.T) {
	t.Parallel()
	var l ledger
	for d := range uint64(3) {
		l.take(d+1, id(byte(d+1)), pos(1))
	}
	l.written(1)
	l.written(2)
	if l.settle(0) || l.proved != 0 {
		t.Errorf("proved %d before anything was", l.proved)
	}
	if !l.settle(2) || l.proved != 2 {
		t.Errorf("proved %d, want 2", l.proved)
	}
	if l.settle(100); l.proved != 2 {
		t.Errorf("proved %d, but the third was never written", l.proved)
	}
}

func TestACopyOfAnUnprovedMessageIsProvedWithIt(t *testing.T) {
	t.Parallel()
	var l ledger
	l.take(1, id(1), pos(1))
	if got := l.take(2, id(1), pos(1)); got != Duplicate || l.proved != 0 {
		t.Fatalf("got %v and proved %d, want Duplicate and 0", got, l.proved)
	}
	l.written(1)
	l.settle(1)
	if l.proved != 2 {
		t.Errorf("proved %d, want 2", l.proved)
	}
}

func TestACopyOfAProvedMessageIsProvedAtOnce(t *testing.T) {
	t.Parallel()
	var l ledger
	l.take(1, id(1), pos(1))
	l.written(1)
	l.settle(1)
	if got := l.take(2, id(1), pos(9)); got != Duplicate || l.proved != 2 {
		t.Errorf("got %v and proved %d, want Duplicate and 2", got, l.proved)
	}
}

func TestTheLast64ProvedIDsAreRemembered(t *testing.T) {
	t.Parallel()
	var l ledger
	for n := range uint64(65) {
		l.take(n+1, id(byte(n+1)), pos(1))
		l.written(n + 1)
		l.settle(n + 1)
	}
	if got := l.take(66, id(2), pos(1)); got != Duplicate {
		t.Errorf("the 64th before is %v, want Duplicate", got)
	}
	if got := l.take(67, id(1), pos(1)); got != Taken {
		t.Errorf("the 65th before is %v, want Taken", got)
	}
}

func TestWithoutAnIDNothingIsADuplicate(t *testing.T) {
	t.Parallel()
	var l ledger
	for d := range uint64(3) {
		if got := l.take(d+1, ident.MessageID{}, pos(1)); got != Taken {
			t.Errorf("take(%d) = %v", d+1, got)
		}
	}
}

func TestTheLedgerIsBounded(t *testing.T) {
	t.Parallel()
	var l ledger
	for d := range uint64(maxOpen) {
		l.take(d+1, ident.MessageID{}, pos(1))
	}
	if got := l.take(maxOpen+1, ident.MessageID{}, pos(1)); got != Gap {
		t.Errorf("got %v beyond the bound", got)
	}
}

// TestRandomDeliveriesKeepTheLedgerDense drives a ledger with anything and
// checks what must always hold.
func TestRandomDeliveriesKeepTheLedgerDense(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		var l ledger
		var writable uint64
		for range 500 {
			before := l
			switch random.IntN(4) {
			case 0, 1:
				d := l.taken + uint64(random.IntN(4))
				verdict := l.take(d, id(byte(random.IntN(90))), pos(1))
				if (verdict == Taken || verdict == Duplicate) != (d == before.taken+1) {
					t.Fatalf("seed %d: take(%d) = %v after %d", seed, d, verdict, before.taken)
				}
			case 2:
				if writable < l.taken {
					writable++
					if writable > l.proved && !l.open[writable-l.proved-1].again {
						if random.IntN(3) > 0 {
							l.written(writable)
						} else {
							l.passed(writable)
						}
					}
				}
			case 3:
				l.settle(uint64(random.IntN(int(l.seq) + 1)))
			}
			if uint64(len(l.open)) != l.taken-l.proved || l.proved < before.proved || l.taken < before.taken {
				t.Fatalf("seed %d: taken %d, proved %d, open %d", seed, l.taken, l.proved, len(l.open))
			}
		}
		for _, e := range l.unproved() {
			if e.D <= l.proved || e.D > l.taken {
				t.Fatalf("seed %d: unproved %d outside %d..%d", seed, e.D, l.proved, l.taken)
			}
		}
	}
}
