package session

import (
	"github.com/linkerhq/linker/pkg/delivery"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
)

// Verdict is what became of a numbered delivery.
type Verdict uint8

// The verdicts.
const (
	Taken     Verdict = iota // it is in the outbox
	Duplicate                // its message is there or was proved: taken, and not written again
	Again                    // this number was taken before
	Gap                      // a number before it is missing: refused
	Gone                     // the session is not there, or is another user's
	Parting                  // not taken: the session ends, and tells at its logout what it has
)

const (
	// maxOpen bounds what is taken and not proved. The lane's window is smaller;
	// whatever is beyond is refused like a gap.
	maxOpen = 4096
	// remembered is how many ids are kept after they were proved.
	remembered = 64
)

// ledger is the state of a session's numbered deliveries: what was taken, what
// was written, what is proved. It is pure; its owner locks.
//
// Numbers from the lane (d) are dense, so are the open entries: open holds
// exactly those above proved up to taken. Proof is cumulative over seq, which
// counts the frames in the order in which they were written.
type ledger struct {
	taken  uint64
	proved uint64
	open   []entry
	seq    uint64 // of the frame written last
	recent *recent
}

// entry is one delivery that is taken and not proved.
type entry struct {
	id    ident.MessageID
	pos   envelope.Position
	seq   uint64 // 0: not written
	free  bool   // needs no proof of its own
	again bool   // a copy of an earlier one: never written
}

// take decides about the delivery numbered d.
func (l *ledger) take(d uint64, id ident.MessageID, pos envelope.Position) Verdict {
	switch {
	case d <= l.taken:
		return Again
	case d > l.taken+1 || len(l.open) >= maxOpen:
		return Gap
	}
	known := id != (ident.MessageID{}) && l.knows(id)
	l.taken = d
	l.open = append(l.open, entry{id: id, pos: pos, free: known, again: known})
	if known {
		l.settle(0)
		return Duplicate
	}
	return Taken
}

// written gives the delivery numbered d the next seq.
func (l *ledger) written(d uint64) {
	l.seq++
	if d > l.proved && d <= l.taken {
		l.open[d-l.proved-1].seq = l.seq
	}
}

// passed notes that the delivery numbered d needs no proof of its own: it
// settles as soon as all before it have.
func (l *ledger) passed(d uint64) {
	if d > l.proved && d <= l.taken {
		l.open[d-l.proved-1].free = true
	}
}

// settle proves everything written up to seq, and what depends on nothing else.
// It says whether proved has moved.
func (l *ledger) settle(seq uint64) bool {
	n := 0
	for n < len(l.open) {
		e := &l.open[n]
		if !e.free && (e.seq == 0 || e.seq > seq) {
			break
		}
		if e.id != (ident.MessageID{}) && !e.again {
			l.remember(e.id)
		}
		n++
	}
	if n == 0 {
		return false
	}
	l.proved += uint64(n)
	rest := copy(l.open, l.open[n:])
	clear(l.open[rest:])
	l.open = l.open[:rest]
	return true
}

func (l *ledger) knows(id ident.MessageID) bool {
	for i := range l.open {
		if l.open[i].id == id {
			return true
		}
	}
	return l.recent != nil && l.recent.has(id)
}

func (l *ledger) remember(id ident.MessageID) {
	if l.recent == nil {
		l.recent = new(recent)
	}
	l.recent.add(id)
}

// unproved lists the open entries for a new owner of the lane.
func (l *ledger) unproved() []delivery.Unproved {
	list := make([]delivery.Unproved, len(l.open))
	for i, e := range l.open {
		list[i] = delivery.Unproved{D: l.proved + 1 + uint64(i), Pos: e.pos, ID: e.id}
	}
	return list
}

// recent is a ring of ids.
type recent struct {
	ids  [remembered]ident.MessageID
	next int
}

func (r *recent) add(id ident.MessageID) {
	r.ids[r.next] = id
	r.next = (r.next + 1) % remembered
}

func (r *recent) has(id ident.MessageID) bool {
	for i := range r.ids {
		if r.ids[i] == id {
			return true
		}
	}
	return false
}
