package mailboxtest

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
)

var deadTests = []test{
	{"A dead letter comes back as it was put", func(t *testing.T, s mailbox.Store) {
		full := mailbox.DeadLetter{
			Pos: envelope.Position{Generation: math.MaxUint32, Offset: 1 << 60}, Reason: "UNKNOWN_APP", At: 1_700_000_000_123,
			Users: []ident.UserID{"A-1", "A-2"}, Lane: 23, Offset: 1 << 61, Record: []byte("a\x00record"),
		}
		bare := mailbox.DeadLetter{Pos: at(0), Reason: "UNDECODABLE", At: 1, Lane: -1, Offset: -1, Record: []byte("b")}
		putDead(t, s, full, bare)
		wantDead(t, s, mailbox.DeadQuery{Limit: 9}, false, bare, full)
		for _, want := range []mailbox.DeadLetter{full, bare} {
			got, found, err := s.GetDead(t.Context(), want.Pos)
			noError(t, err)
			if !found || !equalDead(got, want) {
				t.Errorf("GetDead(%v) = %+v, found %v, want %+v", want.Pos, got, found, want)
			}
		}
		if _, found, err := s.GetDead(t.Context(), at(1)); found || err != nil {
			t.Errorf("where there is none: found %v, error %v", found, err)
		}
	}},
	{"A dead letter that is stored already is left as it is", func(t *testing.T, s mailbox.Store) {
		first := letter(5, "EXPIRED", "A-1")
		putDead(t, s, first)
		again := letter(5, "NO_ROUTE", "A-2")
		next := letter(6, "NO_ROUTE", "A-2")
		putDead(t, s, again, next, next)
		wantDead(t, s, mailbox.DeadQuery{Limit: 9}, false, first, next)
		wantDead(t, s, mailbox.DeadQuery{DeadFilter: mailbox.DeadFilter{User: "A-2"}, Limit: 9}, false, next)
		wantDeadCount(t, s, 2)
	}},
	{"Dead letters are listed in order, page by page", func(t *testing.T, s mailbox.Store) {
		var letters []mailbox.DeadLetter
		for n := range int64(7) {
			letters = append(letters, letter(n, "EXPIRED", "A-1"))
		}
		later := letter(0, "EXPIRED", "A-1")
		later.Pos.Generation = 2
		letters = append(letters, later)
		reversed := slices.Clone(letters)
		slices.Reverse(reversed)
		putDead(t, s, reversed...)
		wantDead(t, s, mailbox.DeadQuery{Limit: 8}, false, letters...)
		wantDead(t, s, mailbox.DeadQuery{Limit: 7}, true, letters[:7]...)
		wantDead(t, s, mailbox.DeadQuery{After: at(2), Limit: 2}, true, letters[3:5]...)
		wantDead(t, s, mailbox.DeadQuery{After: at(4), Limit: 9}, false, letters[5:]...)
		wantDead(t, s, mailbox.DeadQuery{After: later.Pos, Limit: 9}, false)
		size := len(letters[0].Record)
		wantDead(t, s, mailbox.DeadQuery{Limit: 9, MaxBytes: 2*size - 1}, true, letters[:2]...)
		wantDead(t, s, mailbox.DeadQuery{Limit: 9, MaxBytes: 1}, true, letters[0])
		if _, _, err := s.ListDead(t.Context(), mailbox.DeadQuery{}); err == nil {
			t.Error("a limit of 0 is no error")
		}
	}},
	{"A filter selects by user, reason and time", func(t *testing.T, s mailbox.Store) {
		expired, full, group, bare := letter(1, "EXPIRED", "A-1"), letter(2, "MAILBOX_FULL", "A-1"), letter(3, "EXPIRED", "A-1", "A-11"), letter(4, "UNDECODABLE")
		putDead(t, s, expired, full, group, bare)
		for _, c := range []struct {
			filter mailbox.DeadFilter
			want   []mailbox.DeadLetter
		}{
			{mailbox.DeadFilter{User: "A-1"}, []mailbox.DeadLetter{expired, full, group}},
			{mailbox.DeadFilter{User: "A-11"}, []mailbox.DeadLetter{group}},
			{mailbox.DeadFilter{User: "A-2"}, nil},
			{mailbox.DeadFilter{Reason: "EXPIRED"}, []mailbox.DeadLetter{expired, group}},
			{mailbox.DeadFilter{User: "A-1", Reason: "MAILBOX_FULL"}, []mailbox.DeadLetter{full}},
			{mailbox.DeadFilter{Before: group.At}, []mailbox.DeadLetter{expired, full}},
			{mailbox.DeadFilter{User: "A-1", Reason: "EXPIRED", Before: group.At}, []mailbox.DeadLetter{expired}},
			{mailbox.DeadFilter{}, []mailbox.DeadLetter{expired, full, group, bare}},
		} {
			wantDead(t, s, mailbox.DeadQuery{DeadFilter: c.filter, Limit: 9}, false, c.want...)
			if len(c.want) > 1 {
				wantDead(t, s, mailbox.DeadQuery{DeadFilter: c.filter, Limit: 1}, true, c.want[0])
				wantDead(t, s, mailbox.DeadQuery{DeadFilter: c.filter, After: c.want[0].Pos, Limit: 9}, false, c.want[1:]...)
			}
		}
	}},
	{"Deleted dead letters are gone, and counted", func(t *testing.T, s mailbox.Store) {
		first, second, third := letter(1, "EXPIRED", "A-1"), letter(2, "EXPIRED", "A-1"), letter(3, "EXPIRED", "A-2")
		putDead(t, s, first, second, third)
		wantDeadCount(t, s, 3)
		n, err := s.DeleteDead(t.Context(), []envelope.Position{first.Pos, third.Pos, at(9), first.Pos})
		noError(t, err)
		if n != 2 {
			t.Errorf("%d deleted, want 2", n)
		}
		wantDeadCount(t, s, 1)
		wantDead(t, s, mailbox.DeadQuery{Limit: 9}, false, second)
		wantDead(t, s, mailbox.DeadQuery{DeadFilter: mailbox.DeadFilter{User: "A-2"}, Limit: 9}, false)
		putDead(t, s, third)
		wantDead(t, s, mailbox.DeadQuery{DeadFilter: mailbox.DeadFilter{User: "A-2"}, Limit: 9}, false, third)
		if n, err := s.DeleteDead(t.Context(), nil); n != 0 || err != nil {
			t.Errorf("nothing deleted: %d, %v", n, err)
		}
	}},
	{"A purge takes what its filter selects, and no more at once than it may", func(t *testing.T, s mailbox.Store) {
		var letters []mailbox.DeadLetter
		for n := range int64(12) {
			letters = append(letters, letter(n, []string{"EXPIRED", "NO_ROUTE"}[n%2], ident.UserID(fmt.Sprintf("A-%d", n%3))))
		}
		putDead(t, s, letters...)
		purge := func(f mailbox.DeadFilter, limit, want int) {
			t.Helper()
			n, err := s.PurgeDead(t.Context(), f, limit)
			noError(t, err)
			if n != want {
				t.Errorf("PurgeDead(%+v, %d) = %d, want %d", f, limit, n, want)
			}
		}
		purge(mailbox.DeadFilter{Reason: "EXPIRED", User: "A-0"}, 9, 2) // 0 and 6
		wantDead(t, s, mailbox.DeadQuery{DeadFilter: mailbox.DeadFilter{User: "A-0"}, Limit: 9}, false, letters[3], letters[9])
		purge(mailbox.DeadFilter{Before: letters[4].At}, 2, 2)
		purge(mailbox.DeadFilter{Before: letters[4].At}, 2, 1)
		purge(mailbox.DeadFilter{Before: letters[4].At}, 2, 0)
		purge(mailbox.DeadFilter{User: "A-7"}, 9, 0)
		wantDead(t, s, mailbox.DeadQuery{Limit: 9}, false, letters[4], letters[5], letters[7], letters[8], letters[9], letters[10], letters[11])
		purge(mailbox.DeadFilter{}, 100, 7)
		wantDeadCount(t, s, 0)
		if _, err := s.PurgeDead(t.Context(), mailbox.DeadFilter{}, 0); err == nil {
			t.Error("a limit of 0 is no error")
		}
	}},
	{"A dead letter of many users is one of each of them", func(t *testing.T, s mailbox.Store) {
		group := letter(1, "HOPS_EXHAUSTED")
		for n := range 4096 {
			group.Users = append(group.Users, ident.UserID(fmt.Sprintf("A-%d", n)))
		}
		slices.Sort(group.Users)
		putDead(t, s, group)
		wantDead(t, s, mailbox.DeadQuery{DeadFilter: mailbox.DeadFilter{User: "A-4095"}, Limit: 1}, false, group)
	}},
	{"Many dead letters are stored at once", func(t *testing.T, s mailbox.Store) {
		var letters []mailbox.DeadLetter
		for n := range int64(200) {
			l := letter(n, "EXPIRED", "A-1")
			l.Record = bytes.Repeat([]byte{byte(n)}, 64<<10)
			letters = append(letters, l)
		}
		putDead(t, s, letters...)
		wantDeadCount(t, s, len(letters))
		wantDead(t, s, mailbox.DeadQuery{Limit: 1000}, false, letters...)
	}},
}

// letter is one that was reported at a time that grows with its offset.
func letter(offset int64, reason string, users ...ident.UserID) mailbox.DeadLetter {
	return mailbox.DeadLetter{
		Pos: at(offset), Reason: reason, At: 1_700_000_000_000 + 1000*offset, Users: users,
		Lane: int(offset) % 4, Offset: 100 + offset, Record: fmt.Appendf(nil, "record %04d", offset),
	}
}

func putDead(t *testing.T, s mailbox.Store, letters ...mailbox.DeadLetter) {
	t.Helper()
	noError(t, s.PutDead(t.Context(), letters))
}

func wantDead(t *testing.T, s mailbox.Store, q mailbox.DeadQuery, wantMore bool, want ...mailbox.DeadLetter) {
	t.Helper()
	got, more, err := s.ListDead(t.Context(), q)
	noError(t, err)
	if !slices.EqualFunc(got, want, equalDead) || more != wantMore {
		t.Errorf("ListDead(%+v) =\n%s more %v, want\n%s more %v", q, describeDead(got), more, describeDead(want), wantMore)
	}
}

func wantDeadCount(t *testing.T, s mailbox.Store, want int) {
	t.Helper()
	got, err := s.CountDead(t.Context())
	noError(t, err)
	if got != want {
		t.Errorf("%d dead letters, want %d", got, want)
	}
}

// equalDead compares without regard to the order of users.
func equalDead(a, b mailbox.DeadLetter) bool {
	return a.Pos == b.Pos && a.Reason == b.Reason && a.At == b.At && a.Lane == b.Lane && a.Offset == b.Offset &&
		bytes.Equal(a.Record, b.Record) && slices.Equal(slices.Sorted(slices.Values(a.Users)), slices.Sorted(slices.Values(b.Users)))
}

func describeDead(letters []mailbox.DeadLetter) string {
	var b strings.Builder
	for _, l := range letters {
		fmt.Fprintf(&b, "  %d-%d %s at %d for %d users, lane %d, offset %d, %d bytes\n",
			l.Pos.Generation, l.Pos.Offset, l.Reason, l.At, len(l.Users), l.Lane, l.Offset, len(l.Record))
	}
	return b.String()
}
