package mailboxtest

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/mailbox"
)

var randomTests = []test{
	{"Random operations do what they do to a slice", func(t *testing.T, s mailbox.Store) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		random := rand.New(rand.NewPCG(seed, 0))
		m := &model{}
		for range 600 {
			m.operate(t, s, random)
			m.compare(t, s, randomQuery(random))
			m.compareUsage(t, s, target(random.IntN(targets)))
			m.compareExpired(t, s, random)
			m.compareTargets(t, s, random)
			if t.Failed() {
				return
			}
		}
		for i := range targets {
			m.compare(t, s, all(target(i)))
		}
	}},
}

// targets and offsets are few, so that the same ones meet often.
const (
	targets = 4
	offsets = 24
	lanes   = 2
	seconds = 8
)

func target(i int) string { return []string{"A-1", "A-11", "hold/1", "link/domain-02/1"}[i] }

// A model is what a store should hold: the rows in the order in which they were put.
type model struct{ rows []mailbox.Row }

// operate does one random thing to the model and to the store.
func (m *model) operate(t *testing.T, s mailbox.Store, random *rand.Rand) {
	t.Helper()
	rows := make([]mailbox.Row, 1+random.IntN(5))
	for i := range rows {
		rows[i] = rowAt(target(random.IntN(targets)), randomPosition(random))
		rows[i].Proved = random.IntN(8) == 0
		rows[i].Record = rows[i].Record[:random.IntN(100)]
		rows[i].Lane, rows[i].Stored = random.IntN(lanes), random.Int64N(seconds)
	}
	named := func(r mailbox.Row) bool {
		return slices.ContainsFunc(rows, func(k mailbox.Row) bool { return k.To == r.To && k.ID == r.ID })
	}
	switch random.IntN(6) {
	case 0, 1, 2:
		noError(t, s.Put(t.Context(), rows))
		for _, r := range rows {
			stored := slices.ContainsFunc(m.rows, func(k mailbox.Row) bool { return k.To == r.To && k.ID == r.ID })
			if !stored {
				m.rows = append(m.rows, r)
			}
		}
	case 3:
		noError(t, s.MarkProved(t.Context(), keys(rows...)))
		for i := range m.rows {
			m.rows[i].Proved = m.rows[i].Proved || named(m.rows[i])
		}
	case 4:
		noError(t, s.Delete(t.Context(), keys(rows...)))
		m.rows = slices.DeleteFunc(m.rows, named)
	case 5:
		to, before := rows[0].To, rows[0].Pos
		if random.IntN(3) == 0 {
			before = envelope.Position{}
		}
		noError(t, s.DeleteProved(t.Context(), to, before))
		m.rows = slices.DeleteFunc(m.rows, func(r mailbox.Row) bool {
			return r.To == to && r.Proved && (before == envelope.Position{} || r.Pos.Before(before))
		})
	}
}

// compare asks the model and the store the same.
func (m *model) compare(t *testing.T, s mailbox.Store, q mailbox.Query) {
	t.Helper()
	var selected, want []mailbox.Row
	count, size := 0, 0
	for _, r := range m.rows {
		inside := r.To == q.To && q.After.Before(r.Pos) && (q.Before == envelope.Position{} || r.Pos.Before(q.Before))
		if inside && !r.Proved {
			count++
		}
		if inside && !(q.Unproved && r.Proved) {
			selected = append(selected, r)
		}
	}
	slices.SortFunc(selected, func(a, b mailbox.Row) int { return a.Pos.Compare(b.Pos) })
	for _, r := range selected {
		if len(want) == q.Limit || q.MaxBytes > 0 && size > q.MaxBytes {
			break
		}
		want = append(want, r)
		size += len(r.Record)
	}
	wantRows(t, s, q, len(want) < len(selected), want...)
	wantCount(t, s, q, count)
}

func (m *model) compareUsage(t *testing.T, s mailbox.Store, to string) {
	t.Helper()
	rows, size := 0, 0
	for _, r := range m.rows {
		if r.To == to && !r.Proved {
			rows++
			size += len(r.Record)
		}
	}
	wantUsage(t, s, to, rows, int64(size))
}

func (m *model) compareExpired(t *testing.T, s mailbox.Store, random *rand.Rand) {
	t.Helper()
	lane, before := random.IntN(lanes), random.Int64N(seconds+1)
	var want []mailbox.Row
	for _, r := range m.rows {
		if r.Lane == lane && r.Stored < before {
			want = append(want, r)
		}
	}
	wantExpired(t, s, lane, before, 1+random.IntN(20), want...)
}

func (m *model) compareTargets(t *testing.T, s mailbox.Store, random *rand.Rand) {
	t.Helper()
	lane, after, limit := random.IntN(lanes), "", 1+random.IntN(targets)
	if random.IntN(2) == 0 {
		after = target(random.IntN(targets))
	}
	var want []string
	for _, r := range m.rows {
		if r.Lane == lane && r.To > after {
			want = append(want, r.To)
		}
	}
	slices.Sort(want)
	want = slices.Compact(want)
	wantTargets(t, s, lane, after, limit, want[:min(limit, len(want))]...)
}

func randomPosition(random *rand.Rand) envelope.Position {
	return envelope.Position{Generation: 1 + random.Uint32N(2), Offset: random.Int64N(offsets)}
}

func randomQuery(random *rand.Rand) mailbox.Query {
	q := mailbox.Query{To: target(random.IntN(targets)), Unproved: random.IntN(2) == 0, Limit: 1 + random.IntN(30)}
	if random.IntN(2) == 0 {
		q.After = randomPosition(random)
	}
	if random.IntN(2) == 0 {
		q.Before = randomPosition(random)
	}
	if random.IntN(2) == 0 {
		q.MaxBytes = random.IntN(1000)
	}
	return q
}
