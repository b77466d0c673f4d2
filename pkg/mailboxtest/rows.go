package mailboxtest

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/mailbox"
)

var rowTests = []test{
	{"A row comes back as it was put", func(t *testing.T, s mailbox.Store) {
		want := mailbox.Row{
			To:  "link/domain-02/7",
			Pos: envelope.Position{Generation: math.MaxUint32, Offset: math.MaxInt64 - 1},
			ID:  idOf(1, 1), Lane: 23, Proved: true, Stored: math.MaxInt64, Record: []byte{0, 255, '\n', 0},
		}
		put(t, s, want)
		wantRows(t, s, all(want.To), false, want)
	}},
	{"A record may be empty or large", func(t *testing.T, s mailbox.Store) {
		without, empty, large := row("A-1", 1), row("A-1", 2), row("A-1", 3)
		without.Record, empty.Record, large.Record = nil, []byte{}, bytes.Repeat([]byte("0123456789abcdef"), 65536)
		put(t, s, without, empty, large)
		wantRows(t, s, all("A-1"), false, without, empty, large)
	}},
	{"Putting a row again changes nothing", func(t *testing.T, s mailbox.Store) {
		first := row("A-1", 1)
		put(t, s, first)
		put(t, s, first)
		put(t, s, first, row("A-1", 2), first)
		wantRows(t, s, all("A-1"), false, first, row("A-1", 2))
		wantCount(t, s, all("A-1"), 2)
	}},
	{"Putting an id again at another position leaves the first row", func(t *testing.T, s mailbox.Store) {
		first := row("A-1", 5)
		second := row("A-1", 9)
		second.ID, second.Lane, second.Proved, second.Stored = first.ID, 4, true, first.Stored+1
		put(t, s, first)
		put(t, s, second)
		wantRows(t, s, all("A-1"), false, first)
		noError(t, s.Delete(t.Context(), keys(first)))
		wantRows(t, s, all("A-1"), false)
	}},
	{"Putting an id twice in one call keeps the first", func(t *testing.T, s mailbox.Store) {
		first := row("A-1", 5)
		second := row("A-1", 3)
		second.ID = first.ID
		put(t, s, first, second)
		wantRows(t, s, all("A-1"), false, first)
	}},
	{"Putting again does not take a proof back", func(t *testing.T, s mailbox.Store) {
		r := row("A-1", 1)
		put(t, s, r)
		markProved(t, s, r)
		put(t, s, r)
		wantRows(t, s, all("A-1"), false, proved(r))
	}},
	{"A deleted row can be put again", func(t *testing.T, s mailbox.Store) {
		r := row("A-1", 1)
		put(t, s, r)
		noError(t, s.Delete(t.Context(), keys(r)))
		put(t, s, r)
		wantRows(t, s, all("A-1"), false, r)
	}},
	{"The members of a group each have their row of one id and position", func(t *testing.T, s mailbox.Store) {
		put(t, s, row("A-1", 1), row("A-2", 1), row("A-3", 1))
		noError(t, s.Delete(t.Context(), keys(row("A-2", 1))))
		wantRows(t, s, all("A-1"), false, row("A-1", 1))
		wantRows(t, s, all("A-2"), false)
		wantRows(t, s, all("A-3"), false, row("A-3", 1))
	}},
	{"Rows are in the order of generation and offset, however they were put", func(t *testing.T, s mailbox.Store) {
		var want []mailbox.Row
		for _, generation := range []uint32{1, 2, 9, 10, 300} {
			for _, offset := range []int64{0, 1, 9, 10, 255, 256, 1 << 40} {
				want = append(want, rowAt("A-1", envelope.Position{Generation: generation, Offset: offset}))
			}
		}
		for i := range want {
			put(t, s, want[i*11%len(want)])
		}
		wantRows(t, s, all("A-1"), false, want...)
	}},
	{"Targets that begin alike are different targets", func(t *testing.T, s mailbox.Store) {
		targets := []string{"A-1", "A-11", "A-111", "A-10", "a-1", "A", "AA-1", "link/d/1", "link/d/11", "link/d-1/1", "A-2"}
		for i, to := range targets {
			put(t, s, row(to, int64(i)), row(to, int64(100+i)))
		}
		markProved(t, s, row("A-1", 0), row("A-11", 1))
		noError(t, s.DeleteProved(t.Context(), "A-1", envelope.Position{}))
		noError(t, s.Delete(t.Context(), keys(row("link/d/1", 7))))
		for i, to := range targets {
			want := []mailbox.Row{row(to, int64(i)), row(to, int64(100+i))}
			switch to {
			case "A-1", "link/d/1":
				want = want[1:]
			case "A-11":
				want[0].Proved = true
			}
			wantRows(t, s, all(to), false, want...)
		}
		wantCount(t, s, all("A-11"), 1)
		wantRows(t, s, all("A-"), false)
	}},
	{"After and Before leave out the positions they name", func(t *testing.T, s mailbox.Store) {
		put(t, s, rowsOf("A-1", 1, 2, 3, 4, 5)...)
		next := rowAt("A-1", envelope.Position{Generation: 2, Offset: 0})
		put(t, s, next)
		q := all("A-1")
		q.After = at(2)
		wantRows(t, s, q, false, append(rowsOf("A-1", 3, 4, 5), next)...)
		wantCount(t, s, q, 4)
		q.Before = at(4)
		wantRows(t, s, q, false, row("A-1", 3))
		wantCount(t, s, q, 1)
		q.Before = at(3)
		wantRows(t, s, q, false)
		wantCount(t, s, q, 0)
		q.After, q.Before = envelope.Position{}, next.Pos
		wantRows(t, s, q, false, rowsOf("A-1", 1, 2, 3, 4, 5)...)
		q.After, q.Before = at(5), envelope.Position{}
		wantRows(t, s, q, false, next)
		q.After = next.Pos
		wantRows(t, s, q, false)
		q.After, q.Before = at(4), at(2)
		wantRows(t, s, q, false)
		wantCount(t, s, q, 0)
	}},
	{"The zero position bounds nothing, offset 0 included", func(t *testing.T, s mailbox.Store) {
		put(t, s, rowsOf("A-1", 0, 1)...)
		wantRows(t, s, all("A-1"), false, rowsOf("A-1", 0, 1)...)
		q := all("A-1")
		q.After = at(0)
		wantRows(t, s, q, false, row("A-1", 1))
		q.After, q.Before = envelope.Position{}, at(0)
		wantRows(t, s, q, false)
	}},
	{"Limit is kept, and more says exactly whether there is more", func(t *testing.T, s mailbox.Store) {
		put(t, s, rowsOf("A-1", 1, 2, 3)...)
		put(t, s, rowsOf("A-2", 4, 5)...)
		q := all("A-1")
		q.Limit = 1
		wantRows(t, s, q, true, row("A-1", 1))
		q.Limit = 2
		wantRows(t, s, q, true, rowsOf("A-1", 1, 2)...)
		q.Limit = 3
		wantRows(t, s, q, false, rowsOf("A-1", 1, 2, 3)...)
		q.Limit = math.MaxInt
		wantRows(t, s, q, false, rowsOf("A-1", 1, 2, 3)...)
		q.Limit, q.Before = 2, at(3)
		wantRows(t, s, q, false, rowsOf("A-1", 1, 2)...)
		q.To = "A-9"
		wantRows(t, s, q, false)
	}},
	{"MaxBytes ends with the row that exceeds it", func(t *testing.T, s mailbox.Store) {
		put(t, s, rowsOf("A-1", 1, 2, 3, 4)...) // 100 bytes each
		for _, c := range []struct{ maxBytes, want int }{{0, 4}, {1, 1}, {99, 1}, {100, 2}, {199, 2}, {200, 3}, {299, 3}, {300, 4}, {400, 4}} {
			q := all("A-1")
			q.MaxBytes = c.maxBytes
			wantRows(t, s, q, c.want < 4, rowsOf("A-1", 1, 2, 3, 4)[:c.want]...)
			q.Limit = 2
			wantRows(t, s, q, true, rowsOf("A-1", 1, 2)[:min(c.want, 2)]...)
			wantCount(t, s, q, 4)
		}
	}},
	{"Pages join without a gap and without an overlap", func(t *testing.T, s mailbox.Store) {
		var want, got []mailbox.Row
		for i := range int64(253) {
			want = append(want, row("A-1", i*3))
		}
		put(t, s, want...)
		q := mailbox.Query{To: "A-1", Limit: 20}
		for more := true; more; {
			var page []mailbox.Row
			var err error
			page, more, err = s.Read(t.Context(), q)
			noError(t, err)
			if len(page) == 0 || more && len(page) != 20 {
				t.Fatalf("a page of %d rows, more %v", len(page), more)
			}
			got = append(got, page...)
			q.After = page[len(page)-1].Pos
		}
		if !slices.EqualFunc(got, want, equalRows) {
			t.Errorf("the pages hold\n%s, want\n%s", describe(got), describe(want))
		}
	}},
	{"Unproved leaves out what one session has proved, and so does Count", func(t *testing.T, s mailbox.Store) {
		rows := rowsOf("A-1", 1, 2, 3, 4)
		rows[0].Proved = true
		put(t, s, rows...)
		markProved(t, s, rows[2], row("A-1", 99), row("A-9", 1))
		rows[2].Proved = true
		wantRows(t, s, all("A-1"), false, rows...)
		wantCount(t, s, all("A-1"), 2)
		q := all("A-1")
		q.Unproved = true
		wantRows(t, s, q, false, rows[1], rows[3])
		wantCount(t, s, q, 2)
		q.Limit = 1
		wantRows(t, s, q, true, rows[1])
		q.Before = at(4)
		wantRows(t, s, q, false, rows[1])
		wantCount(t, s, q, 1)
		markProved(t, s, rows...)
		wantRows(t, s, all("A-1"), false, proved(rows[0]), proved(rows[1]), proved(rows[2]), proved(rows[3]))
		wantCount(t, s, all("A-1"), 0)
		wantCount(t, s, all("A-9"), 0)
	}},
	{"Delete removes the rows it names and passes over what is not there", func(t *testing.T, s mailbox.Store) {
		put(t, s, rowsOf("A-1", 1, 2, 3)...)
		put(t, s, rowsOf("A-2", 1, 2)...)
		gone := keys(row("A-1", 1), row("A-1", 77), row("A-2", 2), row("A-3", 1))
		noError(t, s.Delete(t.Context(), gone))
		noError(t, s.Delete(t.Context(), gone))
		wantRows(t, s, all("A-1"), false, rowsOf("A-1", 2, 3)...)
		wantRows(t, s, all("A-2"), false, row("A-2", 1))
	}},
	{"DeleteProved removes what is proved before the position", func(t *testing.T, s mailbox.Store) {
		put(t, s, rowsOf("A-1", 1, 2, 3, 4)...)
		put(t, s, rowsOf("A-2", 1)...)
		markProved(t, s, row("A-1", 1), row("A-1", 3), row("A-1", 4), row("A-2", 1))
		noError(t, s.DeleteProved(t.Context(), "A-1", at(3)))
		wantRows(t, s, all("A-1"), false, row("A-1", 2), proved(row("A-1", 3)), proved(row("A-1", 4)))
		noError(t, s.DeleteProved(t.Context(), "A-1", envelope.Position{}))
		noError(t, s.DeleteProved(t.Context(), "A-1", envelope.Position{}))
		noError(t, s.DeleteProved(t.Context(), "A-9", envelope.Position{}))
		wantRows(t, s, all("A-1"), false, row("A-1", 2))
		wantRows(t, s, all("A-2"), false, proved(row("A-2", 1)))
	}},
	{"Nothing to put, mark or delete is no error", func(t *testing.T, s mailbox.Store) {
		noError(t, s.Put(t.Context(), nil))
		noError(t, s.MarkProved(t.Context(), nil))
		noError(t, s.Delete(t.Context(), nil))
	}},
	{"Usage counts the rows that are not proved and the bytes of their records", func(t *testing.T, s mailbox.Store) {
		without, large := row("A-1", 3), row("A-1", 4)
		without.Record, large.Record = nil, make([]byte, 1<<20)
		put(t, s, proved(row("A-1", 0)), row("A-1", 1), row("A-1", 2), without, large, row("A-11", 1))
		wantUsage(t, s, "A-1", 4, 200+1<<20)
		wantUsage(t, s, "A-11", 1, 100)
		wantUsage(t, s, "A-9", 0, 0)
		markProved(t, s, row("A-1", 1))
		wantUsage(t, s, "A-1", 3, 100+1<<20)
		noError(t, s.Delete(t.Context(), keys(large)))
		put(t, s, without)
		wantUsage(t, s, "A-1", 2, 100)
		markProved(t, s, row("A-1", 2), without)
		wantUsage(t, s, "A-1", 0, 0)
	}},
	{"Expired returns the oldest rows of a lane, proved or not", func(t *testing.T, s mailbox.Store) {
		oldest, old, young := storedIn(3, 100, row("A-1", 9)), storedIn(3, 200, row("A-2", 2)), storedIn(3, 300, row("A-1", 1))
		other := storedIn(4, 50, row("A-3", 1))
		old.Proved = true
		put(t, s, young, other, old, oldest)
		wantExpired(t, s, 3, 301, 10, oldest, old, young)
		wantExpired(t, s, 3, 300, 10, oldest, old)
		wantExpired(t, s, 3, 301, 2, oldest, old)
		wantExpired(t, s, 3, 301, 1, oldest)
		wantExpired(t, s, 3, 100, 10)
		wantExpired(t, s, 4, math.MaxInt64, math.MaxInt32, other)
		wantExpired(t, s, 33, math.MaxInt64, 10)
		markProved(t, s, young)
		noError(t, s.Delete(t.Context(), keys(oldest)))
		wantExpired(t, s, 3, 301, 10, old, proved(young))
	}},
	{"Putting a row again does not make it younger", func(t *testing.T, s mailbox.Store) {
		put(t, s, storedIn(3, 100, row("A-1", 1)))
		put(t, s, storedIn(3, 900, row("A-1", 1)))
		wantExpired(t, s, 3, 101, 10, storedIn(3, 100, row("A-1", 1)))
	}},
	{"Expired rows of one second come in any order, and none is left out", func(t *testing.T, s mailbox.Store) {
		var same []mailbox.Row
		for i := range int64(30) {
			same = append(same, storedIn(3, 100, row(fmt.Sprintf("A-%d", i%7), i)))
		}
		first := storedIn(3, 99, row("B-1", 1))
		put(t, s, append(same, first)...)
		wantExpired(t, s, 3, 101, 11, append(same, first)...)
		for left := 31; left > 0; left -= 10 {
			got, err := s.Expired(t.Context(), 3, 101, 10)
			noError(t, err)
			if len(got) != min(10, left) {
				t.Fatalf("%d rows of %d that are left", len(got), left)
			}
			noError(t, s.Delete(t.Context(), keys(got...)))
		}
		wantExpired(t, s, 3, 101, 10)
	}},
	{"Targets lists who has rows in a lane, each once and ascending by bytes", func(t *testing.T, s mailbox.Store) {
		wantTargets(t, s, 3, "", 10)
		names := []string{"A-1", "A-10", "A-2", "B-1", "a-1", "hold/5", "link/domain-03/5", "link/domain-1/5", "link/domain-10/5", "link/domain-1é/5", "ö"}
		for i := range names {
			to := names[i*7%len(names)]
			for offset := range int64(1 + i) {
				put(t, s, row(to, offset))
			}
		}
		put(t, s, storedIn(4, 1, row("A-3", 1)), storedIn(4, 1, row("hold/4", 1)), storedIn(2, 1, row("0-1", 1)))
		wantTargets(t, s, 3, "", len(names)+1, names...)
		wantTargets(t, s, 3, "", math.MaxInt, names...)
		wantTargets(t, s, 4, "", 10, "A-3", "hold/4")
		wantTargets(t, s, 33, "", 10)
		for i, after := range names {
			wantTargets(t, s, 3, after, len(names), names[i+1:]...)
			wantTargets(t, s, 3, after, 3, names[i+1:min(i+4, len(names))]...)
			wantTargets(t, s, 3, after, 1, names[i+1:min(i+2, len(names))]...)
		}
		wantTargets(t, s, 3, "link/", 2, "link/domain-03/5", "link/domain-1/5") // nobody's name, but a place among them
		wantTargets(t, s, 3, "hold/6", 1, "link/domain-03/5")
	}},
	{"A target is listed as long as it has a row, proved or not", func(t *testing.T, s mailbox.Store) {
		put(t, s, rowsOf("A-1", 1, 2)...)
		put(t, s, row("link/domain-03/3", 1), row("link/domain-04/3", 1))
		markProved(t, s, row("A-1", 1), row("A-1", 2), row("link/domain-03/3", 1))
		wantTargets(t, s, 3, "", 9, "A-1", "link/domain-03/3", "link/domain-04/3")
		noError(t, s.DeleteProved(t.Context(), "A-1", at(2)))
		noError(t, s.DeleteProved(t.Context(), "link/domain-03/3", envelope.Position{}))
		wantTargets(t, s, 3, "", 9, "A-1", "link/domain-04/3")
		noError(t, s.Delete(t.Context(), keys(row("A-1", 2), row("link/domain-04/3", 1))))
		wantTargets(t, s, 3, "", 9)
	}},
	{"Many rows of one target do not hide the next", func(t *testing.T, s mailbox.Store) {
		var rows []mailbox.Row
		for offset := range int64(2100) {
			rows = append(rows, row("link/domain-02/3", offset))
		}
		put(t, s, append(rows, row("A-1", 1), row("link/domain-03/3", 1), row("link/domain-04/3", 1))...)
		wantTargets(t, s, 3, "", 9, "A-1", "link/domain-02/3", "link/domain-03/3", "link/domain-04/3")
		wantTargets(t, s, 3, "", 2, "A-1", "link/domain-02/3")
		wantTargets(t, s, 3, "A-1", 2, "link/domain-02/3", "link/domain-03/3")
		wantTargets(t, s, 3, "link/domain-02/3", 1, "link/domain-03/3")
	}},
	{"Everything works for targets that are no user ids", func(t *testing.T, s mailbox.Store) {
		for i, to := range []string{"link/domain-03/5", "hold/5", "link/" + strings.Repeat("d", 63) + "/9999", "a \\'\"%_$.*{}[]é\u2028"} {
			first, second := storedIn(100+i, 1, row(to, 1)), storedIn(100+i, 2, row(to, 2))
			put(t, s, second, first, first)
			wantRows(t, s, all(to), false, first, second)
			wantCount(t, s, all(to), 2)
			wantUsage(t, s, to, 2, 200)
			wantExpired(t, s, 100+i, 2, 9, first)
			wantTargets(t, s, 100+i, "", 9, to)
			markProved(t, s, first)
			wantCount(t, s, all(to), 1)
			noError(t, s.DeleteProved(t.Context(), to, second.Pos))
			wantRows(t, s, all(to), false, second)
			noError(t, s.Delete(t.Context(), keys(second)))
			wantRows(t, s, all(to), false)
			wantTargets(t, s, 100+i, "", 9)
		}
	}},
	{"A limit below 1 is refused", func(t *testing.T, s mailbox.Store) {
		put(t, s, row("A-1", 1))
		for _, limit := range []int{0, -1, math.MinInt} {
			if _, _, err := s.Read(t.Context(), mailbox.Query{To: "A-1", Limit: limit}); err == nil {
				t.Errorf("Read takes limit %d", limit)
			}
			if _, err := s.Expired(t.Context(), 3, math.MaxInt64, limit); err == nil {
				t.Errorf("Expired takes limit %d", limit)
			}
			if _, err := s.Targets(t.Context(), 3, "", limit); err == nil {
				t.Errorf("Targets takes limit %d", limit)
			}
		}
	}},
	{"Rows do not share memory with their callers", func(t *testing.T, s mailbox.Store) {
		mine := row("A-1", 1)
		put(t, s, mine)
		mine.Record[0]++
		got, _, err := s.Read(t.Context(), all("A-1"))
		noError(t, err)
		if len(got) == 1 && len(got[0].Record) > 0 {
			got[0].Record[0]++
		}
		wantRows(t, s, all("A-1"), false, row("A-1", 1))
	}},
	{"Concurrent callers each see their own writes and lose none", concurrentCallers},
}

// concurrentCallers has every caller put, read, prove and delete rows of its
// own target and put rows into one that all share.
func concurrentCallers(t *testing.T, s mailbox.Store) {
	const callers, rounds = 16, 25
	var wg sync.WaitGroup
	for caller := range int64(callers) {
		wg.Go(func() {
			mine := fmt.Sprintf("A-%d", caller)
			for i := range int64(rounds) {
				own, kept := row(mine, 2*i), row(mine, 2*i+1)
				err := s.Put(t.Context(), []mailbox.Row{own, kept, row("B-1", caller*rounds+i), row("B-2", i)})
				if err != nil {
					t.Error(err)
					return
				}
				q := mailbox.Query{To: mine, After: at(2*i - 1), Limit: 5}
				got, more, err := s.Read(t.Context(), q)
				if err != nil || more || !slices.EqualFunc(got, []mailbox.Row{own, kept}, equalRows) {
					t.Errorf("after Put: error %v, more %v, rows\n%s", err, more, describe(got))
					return
				}
				err = s.MarkProved(t.Context(), keys(kept))
				if err != nil {
					t.Error(err)
				}
				err = s.Delete(t.Context(), keys(own))
				if err != nil {
					t.Error(err)
				}
				got, _, err = s.Read(t.Context(), q)
				if err != nil || !slices.EqualFunc(got, []mailbox.Row{proved(kept)}, equalRows) {
					t.Errorf("after MarkProved and Delete: error %v, rows\n%s", err, describe(got))
				}
			}
		})
	}
	wg.Wait()
	wantCount(t, s, all("B-1"), callers*rounds)
	wantCount(t, s, all("B-2"), rounds)
	for caller := range callers {
		to := fmt.Sprintf("A-%d", caller)
		wantCount(t, s, all(to), 0)
		got, _, err := s.Read(t.Context(), all(to))
		noError(t, err)
		if len(got) != rounds {
			t.Errorf("%s has %d rows, want %d", to, len(got), rounds)
		}
	}
}
