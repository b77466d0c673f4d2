package topology_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/linkerhq/linker/pkg/topology"
)

func TestANetworkWithoutMistakesHasNoProblems(t *testing.T) {
	t.Parallel()
	if problems := fourDomains().Validate(); len(problems) > 0 {
		t.Errorf("got %v", problems)
	}
}

func TestNewNamesEveryMistakeButNoWarning(t *testing.T) {
	t.Parallel()
	n := fourDomains()
	n.Links[1].N2 = "domain-9"
	n.Apps[0].Master = "BNZ-1"
	n.Distributions[1].From = 5
	_, err := topology.New(1, n)
	if err == nil {
		t.Fatal("no error")
	}
	const want = "check network: " +
		"domainLinks[1].n2: domain \"domain-9\" is not defined\n" +
		"clientApps[0].masterUserId: \"BNZ-1\" is a user of app \"BNZ\", not of \"ANZ\""
	if err.Error() != want {
		t.Errorf("got  %s\nwant %s", err, want)
	}
}

func TestOverlapsAreFoundWhereverTheyStand(t *testing.T) {
	t.Parallel()
	n := fourDomains()
	n.Distributions = []topology.Distribution{
		{DomainName: "domain-01", From: 50, To: 60},
		{DomainName: "domain-01", From: 0, To: 100},
		{DomainName: "domain-01", From: 101, To: 200},
		{DomainName: "domain-01", From: 100, To: 100},
		{DomainName: "domain-01", From: 300, To: 200}, // reversed: a mistake, and in no overlap
	}
	var warnings []string
	for _, p := range n.Validate() {
		if p.Warning {
			warnings = append(warnings, p.Error())
		}
	}
	want := []string{
		"userDistributions[1]: overlaps userDistributions[0]: the first match wins",
		"userDistributions[3]: overlaps userDistributions[1]: the first match wins",
	}
	if !slices.Equal(warnings, want) {
		t.Errorf("got %q", warnings)
	}
}

func TestMistakesNeverRepeatASecret(t *testing.T) {
	t.Parallel()
	n := fourDomains()
	n.Links[0].Key, n.Links[0].Insecure = "hunter2", true
	n.Apps[0].AuthURL = "ftp://hunter2:hunter2@auth.example/?token=hunter2"
	n.Apps[1].AuthURL = "hunter2"
	n.Domains[0].URLs[0] = "tcp://me:hunter2@h:1"
	n.Domains[0].URLs[1] = "tcp://me:hunter2@h:port"
	problems := n.Validate()
	if len(problems) != 5 {
		t.Errorf("got %d problems: %v", len(problems), problems)
	}
	for _, p := range problems {
		if strings.Contains(p.Error(), "hunter2") {
			t.Errorf("%q repeats the secret", p)
		}
	}
}

func TestLimitsOutOfBoundsAreMistakes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		limits topology.Limits
		want   string
	}{
		{topology.Limits{}, ""},
		{topology.Limits{Socket: topology.Limit{PerSecond: 1}, App: topology.Limit{PerSecond: topology.MaxPerSecond, Burst: topology.MaxBurst}}, ""},
		{topology.Limits{Socket: topology.Limit{Burst: 1}}, "clientApps[0].limits.socket.messagesPerSecond: is missing"},
		{topology.Limits{App: topology.Limit{PerSecond: -1}}, "clientApps[0].limits.app.messagesPerSecond: -1 is not a rate: a whole number from 1 to 1000000"},
		{topology.Limits{App: topology.Limit{PerSecond: topology.MaxPerSecond + 1}}, "clientApps[0].limits.app.messagesPerSecond: 1000001 is not a rate: a whole number from 1 to 1000000"},
		{topology.Limits{App: topology.Limit{PerSecond: 1, Burst: -1}}, "clientApps[0].limits.app.burst: -1 is not a number of messages: a whole number from 1 to 10000000"},
	} {
		n := fourDomains()
		n.Apps[0].Limits = c.limits
		var got []string
		for _, p := range n.Validate() {
			got = append(got, p.Error())
		}
		if strings.Join(got, "; ") != c.want {
			t.Errorf("%+v: got %q, want %q", c.limits, got, c.want)
		}
	}
}

func TestLimitsTravelWithTheSnapshot(t *testing.T) {
	t.Parallel()
	n := fourDomains()
	n.Apps[0].Limits = topology.Limits{Socket: topology.Limit{PerSecond: 5, Burst: 20}, App: topology.Limit{PerSecond: 7}}
	s, err := topology.New(1, n)
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	again, err := topology.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if !again.SameNetwork(s) {
		t.Errorf("%s is read as %+v", b, again.Network().Apps)
	}
	if app, _ := again.App(n.Apps[0].Name); app.Limits != n.Apps[0].Limits {
		t.Errorf("got %+v", app.Limits)
	}
	if strings.Count(string(b), `"limits"`) != 1 {
		t.Errorf("an app without limits shows some: %s", b)
	}
}
