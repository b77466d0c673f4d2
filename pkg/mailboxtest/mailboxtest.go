// Package mailboxtest is the conformance suite of package mailbox: what its
// comments promise, as tests that every adapter passes. It assumes nothing about
// how an adapter keeps its data.
package mailboxtest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
)

// Run runs the suite. Each test calls open for a store of its own, which is
// empty and which open has closed when the test ends. Tests run in parallel.
func Run(t *testing.T, open func(t *testing.T) mailbox.Store) {
	for _, tests := range [][]test{rowTests, laneTests, presenceTests, deadTests, storeTests, randomTests} {
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				t.Parallel()
				test.run(t, open(t))
			})
		}
	}
}

type test struct {
	name string
	run  func(t *testing.T, s mailbox.Store)
}

var storeTests = []test{
	{"Ping answers", func(t *testing.T, s mailbox.Store) {
		noError(t, s.Ping(t.Context()))
	}},
	{"A context that has ended stops every method", func(t *testing.T, s mailbox.Store) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		kept := row("A-1", 1)
		put(t, s, kept)
		calls := map[string]func() error{
			"Put":          func() error { return s.Put(ctx, []mailbox.Row{row("A-1", 2)}) },
			"Read":         func() error { _, _, err := s.Read(ctx, all("A-1")); return err },
			"Count":        func() error { _, err := s.Count(ctx, all("A-1")); return err },
			"MarkProved":   func() error { return s.MarkProved(ctx, keys(kept)) },
			"Delete":       func() error { return s.Delete(ctx, keys(kept)) },
			"DeleteProved": func() error { return s.DeleteProved(ctx, "A-1", envelope.Position{}) },
			"Usage":        func() error { _, err := s.Usage(ctx, "A-1"); return err },
			"Expired":      func() error { _, err := s.Expired(ctx, 3, 1<<40, 1); return err },
			"Targets":      func() error { _, err := s.Targets(ctx, 3, "", 1); return err },
			"SaveLane":     func() error { return s.SaveLane(ctx, 0, mailbox.LaneChange{Position: at(1)}) },
			"LoadLane":     func() error { _, _, err := s.LoadLane(ctx, 0); return err },
			"PutAnnounced": func() error { return s.PutAnnounced(ctx, 0, mailbox.Announced{User: "A-1"}) },
			"GetAnnounced": func() error { _, _, err := s.GetAnnounced(ctx, 0, "A-1"); return err },
			"ListAnnounced": func() error {
				_, err := s.ListAnnounced(ctx, 0, envelope.Position{})
				return err
			},
			"PutDead":    func() error { return s.PutDead(ctx, []mailbox.DeadLetter{letter(1, "EXPIRED", "A-1")}) },
			"ListDead":   func() error { _, _, err := s.ListDead(ctx, mailbox.DeadQuery{Limit: 1}); return err },
			"GetDead":    func() error { _, _, err := s.GetDead(ctx, at(1)); return err },
			"DeleteDead": func() error { _, err := s.DeleteDead(ctx, []envelope.Position{at(1)}); return err },
			"PurgeDead":  func() error { _, err := s.PurgeDead(ctx, mailbox.DeadFilter{}, 1); return err },
			"CountDead":  func() error { _, err := s.CountDead(ctx); return err },
			"Ping":       func() error { return s.Ping(ctx) },
		}
		for name, call := range calls {
			if err := call(); !errors.Is(err, context.Canceled) {
				t.Errorf("%s: error %v, want one that wraps context.Canceled", name, err)
			}
		}
		wantRows(t, s, all("A-1"), false, kept)
		if _, found, err := s.LoadLane(t.Context(), 0); found || err != nil {
			t.Errorf("LoadLane: found %v, error %v; want nothing", found, err)
		}
		if _, found, err := s.GetAnnounced(t.Context(), 0, "A-1"); found || err != nil {
			t.Errorf("GetAnnounced: found %v, error %v; want nothing", found, err)
		}
	}},
}

// at is a position in the first generation.
func at(offset int64) envelope.Position { return envelope.Position{Generation: 1, Offset: offset} }

// idOf is an id of its own for each pair of numbers.
func idOf(a, b int64) ident.MessageID {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d/%d", a, b))
	return ident.MessageID(sum[:16])
}

// row is one of 100 bytes, the same for the same arguments.
func row(to string, offset int64) mailbox.Row {
	return rowAt(to, at(offset))
}

func rowAt(to string, p envelope.Position) mailbox.Row {
	record := bytes.Repeat(fmt.Appendf(nil, "%s/%d/%d|", to, p.Generation, p.Offset), 20)[:100]
	return mailbox.Row{To: to, Pos: p, ID: idOf(int64(p.Generation), p.Offset), Lane: 3, Stored: 1_700_000_000, Record: record}
}

// storedIn is r of another lane and time.
func storedIn(lane int, stored int64, r mailbox.Row) mailbox.Row {
	r.Lane, r.Stored = lane, stored
	return r
}

// proved is r as one session has proved it.
func proved(r mailbox.Row) mailbox.Row {
	r.Proved = true
	return r
}

func rowsOf(to string, offsets ...int64) []mailbox.Row {
	var rows []mailbox.Row
	for _, offset := range offsets {
		rows = append(rows, row(to, offset))
	}
	return rows
}

func keys(rows ...mailbox.Row) []mailbox.Key {
	var keys []mailbox.Key
	for _, r := range rows {
		keys = append(keys, mailbox.Key{To: r.To, Pos: r.Pos, ID: r.ID})
	}
	return keys
}

// all selects every row of a target.
func all(to string) mailbox.Query { return mailbox.Query{To: to, Limit: 1 << 20} }

func put(t *testing.T, s mailbox.Store, rows ...mailbox.Row) {
	t.Helper()
	noError(t, s.Put(t.Context(), rows))
}

func markProved(t *testing.T, s mailbox.Store, rows ...mailbox.Row) {
	t.Helper()
	noError(t, s.MarkProved(t.Context(), keys(rows...)))
}

func wantRows(t *testing.T, s mailbox.Store, q mailbox.Query, wantMore bool, want ...mailbox.Row) {
	t.Helper()
	got, more, err := s.Read(t.Context(), q)
	noError(t, err)
	if !slices.EqualFunc(got, want, equalRows) {
		t.Errorf("Read(%+v) =\n%s, want\n%s", q, describe(got), describe(want))
	}
	if more != wantMore {
		t.Errorf("Read(%+v): more is %v, want %v", q, more, wantMore)
	}
}

func wantCount(t *testing.T, s mailbox.Store, q mailbox.Query, want int) {
	t.Helper()
	got, err := s.Count(t.Context(), q)
	noError(t, err)
	if got != want {
		t.Errorf("Count(%+v) = %d, want %d", q, got, want)
	}
}

func wantUsage(t *testing.T, s mailbox.Store, to string, rows int, bytes int64) {
	t.Helper()
	got, err := s.Usage(t.Context(), to)
	noError(t, err)
	if want := (mailbox.Usage{Rows: rows, Bytes: bytes}); got != want {
		t.Errorf("Usage(%s) = %+v, want %+v", to, got, want)
	}
}

// wantExpired wants rows in an order of which Stored alone matters: want has all
// that may be returned, and limit of them must be.
func wantExpired(t *testing.T, s mailbox.Store, lane int, before int64, limit int, want ...mailbox.Row) {
	t.Helper()
	got, err := s.Expired(t.Context(), lane, before, limit)
	noError(t, err)
	want = slices.SortedStableFunc(slices.Values(want), oldestFirst)
	good := len(got) == min(limit, len(want)) && slices.IsSortedFunc(got, oldestFirst)
	for i, r := range got {
		n := slices.IndexFunc(want, func(w mailbox.Row) bool { return equalRows(r, w) })
		good = good && n >= 0 && want[n].Stored == want[i].Stored
		good = good && !slices.ContainsFunc(got[:i], func(g mailbox.Row) bool { return equalRows(g, r) })
	}
	if !good {
		t.Errorf("Expired(%d, %d, %d) =\n%s, want %d of\n%s", lane, before, limit, describe(got), limit, describe(want))
	}
}

func wantTargets(t *testing.T, s mailbox.Store, lane int, after string, limit int, want ...string) {
	t.Helper()
	got, err := s.Targets(t.Context(), lane, after, limit)
	noError(t, err)
	if !slices.Equal(got, want) {
		t.Errorf("Targets(%d, %q, %d) = %q, want %q", lane, after, limit, got, want)
	}
}

func oldestFirst(a, b mailbox.Row) int { return cmp.Compare(a.Stored, b.Stored) }

func equalRows(a, b mailbox.Row) bool {
	return a.To == b.To && a.Pos == b.Pos && a.ID == b.ID && a.Lane == b.Lane && a.Proved == b.Proved &&
		a.Stored == b.Stored && bytes.Equal(a.Record, b.Record)
}

func describe(rows []mailbox.Row) string {
	var b []byte
	for _, r := range rows {
		b = fmt.Appendf(b, "  %s at %d/%d, id %s, lane %d, proved %v, stored %d, %d bytes\n",
			r.To, r.Pos.Generation, r.Pos.Offset, r.ID, r.Lane, r.Proved, r.Stored, len(r.Record))
	}
	return string(b)
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
