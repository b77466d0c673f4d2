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
