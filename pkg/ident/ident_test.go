package ident_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/linkerhq/linker/pkg/ident"
)

var accepted = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]{0,31}-(0|[1-9][0-9]{0,17})$`)

func TestParseUserIDAcceptsExactlyTheDocumentedForm(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"ANZ-123223", "a-0", "A_9-999999999999999999", strings.Repeat("x", 32) + "-1",
		"", "ANZ", "ANZ-", "-5", "ANZ--5", "ANZ-+5", "ANZ-007", "ANZ-٥", "ANZ-1-2", "ANZ-9999999999999999999",
		" ANZ-5", "ANZ-5 ", "ANZ-5\n", "9A-5", "_A-5", "A.B-5", strings.Repeat("x", 33) + "-1", strings.Repeat("A", 300),
	} {
		u, err := ident.ParseUserID(s)
		want := accepted.MatchString(s)
		if got := err == nil; got != want {
			t.Errorf("ParseUserID(%q): accepted %v, want %v", s, got, want)
		}
		if want && string(u) != s {
			t.Errorf("ParseUserID(%q) = %q", s, u)
		}
	}
}

func TestAppAndNumberAreTheTwoHalves(t *testing.T) {
	t.Parallel()
	u := ident.UserID("ANZ-999999999999999999")
	if u.App() != "ANZ" || u.Number() != 999999999999999999 {
		t.Errorf("got app %q and number %d", u.App(), u.Number())
	}
}

func TestLaneIsFNV1a64ModuloTheCount(t *testing.T) {
	t.Parallel()
	// FNV-1a-64("a") = 0xaf63dc4c8601ec8c, from the reference tables of the
	// algorithm's authors: the function must never change.
	const sum = uint64(0xaf63dc4c8601ec8c)
	for _, lanes := range []int{1, 4, 24, 1000} {
		if got, want := ident.UserID("a").Lane(lanes), int(sum%uint64(lanes)); got != want {
			t.Errorf("Lane(%d) = %d, want %d", lanes, got, want)
		}
	}
}

func TestSameAppComparesWhatStandsBeforeTheDash(t *testing.T) {
	t.Parallel()
	users := []ident.UserID{"A-1", "A-22", "AB-1", "B-1", "AB-333"}
	for _, a := range users {
		for _, b := range users {
			if got, want := a.SameApp(b), a.App() == b.App(); got != want {
				t.Errorf("%s and %s: %v, want %v", a, b, got, want)
			}
		}
	}
	if ident.UserID("").SameApp("") {
		t.Error("nobody has an app")
	}
}

func FuzzParseUserID(f *testing.F) {
	f.Add("ANZ-1")
	f.Add("ANZ-007")
	f.Add("-")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ident.ParseUserID(s)
		if (err == nil) != accepted.MatchString(s) {
			t.Fatalf("ParseUserID(%q): error %v, but the documented form says %v", s, err, accepted.MatchString(s))
		}
		if err == nil && (u.Number() < 0 || !ident.IsAppName(u.App())) {
			t.Fatalf("accepted %q has app %q, number %d", s, u.App(), u.Number())
		}
	})
}
