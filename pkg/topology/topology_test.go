package topology_test

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/topology"
)

// fourDomains is a network with a value in every field.
func fourDomains() topology.Network {
	return topology.Network{
		Domains: []topology.Domain{
			{Name: "domain-01", URLs: []string{"tcp://192.168.56.1:9089", "ws://192.168.56.1:8088", "wss://one.example"}},
			{Name: "domain-02", URLs: []string{"tcp://192.168.56.2:9089", "ws://192.168.56.2:8088"}},
			{Name: "domain-03", URLs: []string{"tcp://192.168.56.3:9089"}},
			{Name: "domain-04", URLs: []string{"ws://192.168.56.4:8088"}},
		},
		Links: []topology.Link{
			{N1: "domain-01", N2: "domain-02", Key: "first key"},
			{N1: "domain-02", N2: "domain-03", Cost: 5},
			{N1: "domain-03", N2: "domain-04", Insecure: true},
		},
		Apps: []topology.App{
			{
				Name: "ANZ", AppID: "app-id-343", Master: "ANZ-123223", AuthURL: "http://localhost:4200/auth", AuthEnabled: true,
				AllowedApps: []string{"BNZ"},
			},
			{
				Name: "BNZ", AppID: "bnz-344", Master: "BNZ-453432", MasterOne: true, AllowedApps: []string{"ANZ"},
				Distributions: []topology.Distribution{{DomainName: "domain-04", From: 10, To: 20}},
			},
			{Name: "CNZ", AppID: "cnz-34324", Master: "CNZ-213424"},
		},
		Distributions: []topology.Distribution{
			{DomainName: "domain-01", To: 999_999},
			{DomainName: "domain-02", From: 1_000_000, To: 2_999_999},
			{DomainName: "domain-03", From: 4_000_000, To: topology.MaxNumber},
		},
	}
}

func snapshot(t *testing.T, n topology.Network) *topology.Snapshot {
	t.Helper()
	s, err := topology.New(7, n)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestASnapshotSurvivesJSON(t *testing.T) {
	t.Parallel()
	s := snapshot(t, fourDomains())
	body, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	decoded, err := topology.Decode(body)
	if err != nil {
		t.Fatal(err)
	}
	if decoded.Version != 7 || !decoded.SameNetwork(s) {
		t.Errorf("got version %d and network %+v", decoded.Version, decoded.Network())
	}
}

func TestJSONUsesTheNamesOfTheYAMLFileAndNeverNull(t *testing.T) {
	t.Parallel()
	s := snapshot(t, topology.Network{
		Domains: []topology.Domain{{Name: "d", URLs: []string{"ws://h:1"}}},
		Distributions: []topology.Distribution{
			{DomainName: "d", From: 3, To: 4}, {DomainName: "d", From: 5, To: topology.MaxNumber},
		},
	})
	body, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"version":7,"domains":[{"name":"d","urls":["ws://h:1"]}],"domainLinks":[],"clientApps":[],` +
		`"userDistributions":[{"domainName":"d","from":3,"to":4},{"domainName":"d","from":5}]}`
	if string(body) != want {
		t.Errorf("got  %s\nwant %s", body, want)
	}
}

func TestDecodeRefusesWhatIsNoNetwork(t *testing.T) {
	t.Parallel()
	for _, body := range []string{``, `null`, `{}`, `[]`, `{"version":-1}`, `{"domains":[{"name":"D","urls":["ws://h"]}]}`} {
		if _, err := topology.Decode([]byte(body)); err == nil {
			t.Errorf("Decode(%q) gave no error", body)
		}
	}
}

func TestASnapshotDoesNotChangeWithTheNetworkItWasMadeFrom(t *testing.T) {
	t.Parallel()
	n := fourDomains()
	s := snapshot(t, n)
	n.Domains[0].URLs[0] = "tcp://changed:1"
	n.Apps[0].AllowedApps[0] = "CNZ"
	n.Apps[1].Distributions[0].DomainName = "domain-01"
	n.Links[0].Key = "changed"
	n.Distributions[0].DomainName = "domain-02"
	if !s.SameNetwork(snapshot(t, fourDomains())) {
		t.Errorf("the snapshot changed: %+v", s.Network())
	}
}

func TestHomeOf(t *testing.T) {
	t.Parallel()
	s := snapshot(t, fourDomains())
	overlapping := fourDomains()
	overlapping.Distributions = slices.Insert(overlapping.Distributions, 0, topology.Distribution{DomainName: "domain-04", From: 5, To: 5})
	none := fourDomains()
	none.Distributions = nil
	for _, c := range []struct {
		name     string
		snapshot *topology.Snapshot
		user     ident.UserID
		want     string
	}{
		{"the first number of a range", s, "ANZ-0", "domain-01"},
		{"the last number of a range", s, "ANZ-999999", "domain-01"},
		{"the first number of the next range", s, "ANZ-1000000", "domain-02"},
		{"a number between ranges", s, "ANZ-3000000", "connected-to"},
		{"a range without an end", s, "ANZ-999999999999999999", "domain-03"},
		{"an app with ranges of its own", s, "BNZ-10", "domain-04"},
		{"outside the ranges of the app, inside those of the network", s, "BNZ-21", "connected-to"},
		{"an app that is not defined", s, "XYZ-1", "domain-01"},
		{"overlapping ranges: the first", snapshot(t, overlapping), "ANZ-5", "domain-04"},
		{"no ranges at all", snapshot(t, none), "ANZ-5", "connected-to"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := c.snapshot.HomeOf(c.user, "connected-to"); got != c.want {
				t.Errorf("HomeOf(%s) = %q, want %q", c.user, got, c.want)
			}
		})
	}
}

func TestMayReach(t *testing.T) {
	t.Parallel()
	n := fourDomains()
	n.Apps[2].AllowedApps = []string{"ANZ"} // not returned by ANZ
	s := snapshot(t, n)
	for _, c := range []struct {
		from, to string
		want     bool
	}{
		{"ANZ", "ANZ", true},
		{"ANZ", "BNZ", true},
		{"BNZ", "ANZ", true},
		{"CNZ", "ANZ", false},
		{"ANZ", "CNZ", false},
		{"BNZ", "CNZ", false},
		{"ANZ", "XYZ", false},
	} {
		if got := s.MayReach(c.from, c.to); got != c.want {
			t.Errorf("MayReach(%s, %s) = %v, want %v", c.from, c.to, got, c.want)
		}
	}
}

func TestLookingUpByName(t *testing.T) {
	t.Parallel()
	s := snapshot(t, fourDomains())
	if a, ok := s.App("BNZ"); !ok || a.AppID != "bnz-344" || !a.MasterOne {
		t.Errorf("App(BNZ) = %+v, %v", a, ok)
	}
	if _, ok := s.App("bnz"); ok {
		t.Error("App(bnz) was found")
	}
	d, ok := s.Domain("domain-01")
	if !ok || !slices.Equal(d.ClientURLs(), []string{"ws://192.168.56.1:8088", "wss://one.example"}) ||
		!slices.Equal(d.LinkURLs(), []string{"tcp://192.168.56.1:9089"}) {
		t.Errorf("Domain(domain-01) = %+v, %v", d, ok)
	}
	if _, ok := s.Domain("domain-05"); ok {
		t.Error("Domain(domain-05) was found")
	}
	if links := s.LinksOf("domain-02"); len(links) != 2 {
		t.Errorf("LinksOf(domain-02) = %+v", links)
	}
}
