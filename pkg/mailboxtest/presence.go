package mailboxtest

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/mailbox"
)

var presenceTests = []test{
	{"A user who was never announced is not found", func(t *testing.T, s mailbox.Store) {
		announce(t, s, 0, mailbox.Announced{User: "A-1", Connected: true, N: 1, Pos: at(1)})
		_, found, err := s.GetAnnounced(t.Context(), 0, "A-11")
		if found || err != nil {
			t.Errorf("found %v, error %v", found, err)
		}
	}},
	{"What was announced comes back, and the latest replaces it", func(t *testing.T, s mailbox.Store) {
		first := mailbox.Announced{User: "A-1", Connected: true, N: 1, Pos: at(1)}
		announce(t, s, 4, first)
		wantAnnounced(t, s, 4, first)
		second := mailbox.Announced{User: "A-1", N: math.MaxUint64, Pos: envelope.Position{Generation: math.MaxUint32, Offset: 1 << 60}}
		announce(t, s, 4, second)
		announce(t, s, 4, second)
		wantAnnounced(t, s, 4, second)
		wantList(t, s, 4, envelope.Position{}, second)
	}},
	{"An older announcement does not replace a newer one", func(t *testing.T, s mailbox.Store) {
		newer := mailbox.Announced{User: "A-1", N: 2, Pos: envelope.Position{Generation: 2, Offset: 3}}
		announce(t, s, 4, newer)
		announce(t, s, 4, mailbox.Announced{User: "A-1", Connected: true, N: 1, Pos: envelope.Position{Generation: 2, Offset: 2}})
		announce(t, s, 4, mailbox.Announced{User: "A-1", Connected: true, N: 1, Pos: envelope.Position{Generation: 1, Offset: 9}})
		wantAnnounced(t, s, 4, newer)
	}},
	{"The list holds who is connected or was announced since", func(t *testing.T, s mailbox.Store) {
		old := mailbox.Announced{User: "A-1", Connected: true, N: 1, Pos: at(1)}
		goneOld := mailbox.Announced{User: "A-2", N: 2, Pos: at(9)}
		goneAt := mailbox.Announced{User: "A-3", N: 2, Pos: at(10)}
		goneNew := mailbox.Announced{User: "A-4", N: 2, Pos: at(11)}
		later := mailbox.Announced{User: "A-5", Connected: true, N: 3, Pos: envelope.Position{Generation: 2, Offset: 0}}
		goneLater := mailbox.Announced{User: "A-6", N: 4, Pos: envelope.Position{Generation: 2, Offset: 3}}
		for _, a := range []mailbox.Announced{goneLater, goneNew, old, goneOld, later, goneAt} {
			announce(t, s, 0, a)
		}
		wantList(t, s, 0, at(10), old, goneAt, goneNew, later, goneLater)
		wantList(t, s, 0, envelope.Position{Generation: 3}, old, later)
		wantList(t, s, 0, envelope.Position{Generation: 2}, old, later, goneLater)
		wantList(t, s, 0, envelope.Position{}, old, goneOld, goneAt, goneNew, later, goneLater)
	}},
	{"The list of a lane holds nobody of another", func(t *testing.T, s mailbox.Store) {
		for _, lane := range []int{1, 10, 11} {
			announce(t, s, lane, mailbox.Announced{User: "A-1", Connected: true, N: uint64(lane), Pos: at(1)})
		}
		for _, lane := range []int{1, 10, 11} {
			wantList(t, s, lane, at(5), mailbox.Announced{User: "A-1", Connected: true, N: uint64(lane), Pos: at(1)})
		}
		wantList(t, s, 0, envelope.Position{})
	}},
}

func announce(t *testing.T, s mailbox.Store, lane int, a mailbox.Announced) {
	t.Helper()
	noError(t, s.PutAnnounced(t.Context(), lane, a))
}

func wantAnnounced(t *testing.T, s mailbox.Store, lane int, want mailbox.Announced) {
	t.Helper()
	got, found, err := s.GetAnnounced(t.Context(), lane, want.User)
	noError(t, err)
	if !found || got != want {
		t.Errorf("announced of %s: %+v, found %v, want %+v", want.User, got, found, want)
	}
}

// wantList compares without regard to order; want is sorted by user.
func wantList(t *testing.T, s mailbox.Store, lane int, since envelope.Position, want ...mailbox.Announced) {
	t.Helper()
	got, err := s.ListAnnounced(t.Context(), lane, since)
	noError(t, err)
	slices.SortFunc(got, func(a, b mailbox.Announced) int { return strings.Compare(string(a.User), string(b.User)) })
	if !slices.Equal(got, want) {
		t.Errorf("ListAnnounced(%d, %v) = %+v, want %+v", lane, since, got, want)
	}
}
