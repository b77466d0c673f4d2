package route_test

import (
	"testing"

	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/route"
	"github.com/linkerhq/linker/pkg/topology"
	"github.com/linkerhq/linker/pkg/wire"
)

func network(t *testing.T) *topology.Snapshot {
	t.Helper()
	n, err := topology.New(1, topology.Network{
		Domains: []topology.Domain{{Name: "here", URLs: []string{"ws://127.0.0.1:1"}}, {Name: "there", URLs: []string{"ws://127.0.0.1:2"}}},
		Apps: []topology.App{
			{Name: "A", AppID: "a", Master: "A-0", AllowedApps: []string{"C"}},
			{Name: "B", AppID: "b", Master: "B-0", AllowedApps: []string{"A"}},
			{Name: "C", AppID: "c", Master: "C-0", AllowedApps: []string{"A"}},
		},
		Distributions: []topology.Distribution{{DomainName: "there", From: 100, To: 199}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestWhereAMessageGoes(t *testing.T) {
	t.Parallel()
	n := network(t)
	for _, c := range []struct {
		from, to ident.UserID
		code     wire.Code
	}{
		{"A-1", "A-2", ""},
		{"A-1", "A-1", ""},
		{"A-1", "C-1", ""}, // each allows the other
		{"A-1", "B-1", wire.CodeForbiddenApp},
		{"B-1", "A-1", wire.CodeForbiddenApp}, // one alone is not enough
		{"A-1", "Z-1", wire.CodeUnknownApp},
		{"A-1", "A-150", wire.CodeNoRoute},
	} {
		check(t, route.Decide(c.from, c.to, "here", n), c.code, c.from, c.to)
	}
}

func TestWhoMayCloseConnections(t *testing.T) {
	t.Parallel()
	n := network(t)
	for _, c := range []struct {
		from, target ident.UserID
		code         wire.Code
	}{
		{"A-0", "A-1", ""},
		{"A-0", "A-0", ""},
		{"A-1", "A-2", wire.CodeForbidden},
		{"C-0", "A-1", wire.CodeForbidden}, // rights end with the app
		{"A-0", "Z-1", wire.CodeUnknownApp},
		{"A-0", "A-150", wire.CodeNoRoute},
	} {
		check(t, route.DecideClose(c.from, c.target, "here", n), c.code, c.from, c.target)
	}
}

func check(t *testing.T, got route.Decision, code wire.Code, from, to ident.UserID) {
	t.Helper()
	want := route.Decision{Verdict: route.Here}
	if code != "" {
		want = route.Decision{Verdict: route.Refuse, Code: code}
	}
	if got != want {
		t.Errorf("%s to %s: got %+v, want %+v", from, to, got, want)
	}
}

// A Sender remembers what it found out about the last receiver; that must not count for the
// next one.
func TestASenderDecidesForEachReceiverAnew(t *testing.T) {
	t.Parallel()
	n, err := topology.New(1, topology.Network{
		Domains: []topology.Domain{
			{Name: "here", URLs: []string{"ws://127.0.0.1:1"}},
			{Name: "there", URLs: []string{"tcp://127.0.0.1:2"}},
			{Name: "behind", URLs: []string{"tcp://127.0.0.1:3"}},
			{Name: "island", URLs: []string{"ws://127.0.0.1:4"}},
		},
		Links: []topology.Link{{N1: "here", N2: "there", Insecure: true}, {N1: "there", N2: "behind", Insecure: true}},
		Apps: []topology.App{
			{Name: "A", AppID: "a", Master: "A-0", AllowedApps: []string{"AB"}},
			{Name: "AB", AppID: "b", Master: "AB-0", AllowedApps: []string{"A"}, Distributions: []topology.Distribution{{DomainName: "behind", From: 5, To: 9}}},
			{Name: "C", AppID: "c", Master: "C-0"},
		},
		Distributions: []topology.Distribution{{DomainName: "there", From: 100, To: 199}, {DomainName: "island", From: 200, To: 299}},
	})
	if err != nil {
		t.Fatal(err)
	}
	users := []ident.UserID{"A-1", "A-150", "A-250", "AB-1", "AB-7", "AB-150", "C-1", "Z-1", "ABC-1", "", "-7", "A"}
	sender := route.From("A-3", "here", n)
	for _, before := range users {
		for _, to := range users {
			sender.To(before)
			if got, want := sender.To(to), route.Decide("A-3", to, "here", n); got != want {
				t.Errorf("%s behind %s: got %+v, want %+v", to, before, got, want)
			}
		}
	}
	for to, want := range map[ident.UserID]route.Decision{
		"A-1": {}, "AB-150": {}, "A-150": {Verdict: route.Elsewhere, Domain: "there"}, "AB-7": {Verdict: route.Elsewhere, Domain: "behind"},
		"A-250": {Verdict: route.Refuse, Code: wire.CodeNoRoute}, "-7": {Verdict: route.Refuse, Code: wire.CodeUnknownApp},
	} {
		if got := sender.To(to); got != want {
			t.Errorf("%s: got %+v, want %+v", to, got, want)
		}
	}
}
