package linkport

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/topology"
)

// line is the network a – here – b – c, where each has a thousand numbers.
func line(t *testing.T, version uint64, order ...string) *topology.Snapshot {
	t.Helper()
	n := topology.Network{
		Links: []topology.Link{{N1: "a", N2: "here", Insecure: true}, {N1: "here", N2: "b", Insecure: true}, {N1: "b", N2: "c", Insecure: true}},
		Apps:  []topology.App{{Name: "A", AppID: "1", Master: "A-1"}, {Name: "B", AppID: "2", Master: "B-1", Distributions: []topology.Distribution{{DomainName: "c", From: 0, To: 9}}}},
	}
	for i, name := range order {
		n.Domains = append(n.Domains, topology.Domain{Name: name, URLs: []string{"ws://127.0.0.1:1", "tcp://127.0.0.1:2"}})
		n.Distributions = append(n.Distributions, topology.Distribution{DomainName: name, From: int64(1000 * i), To: int64(1000*i + 999)})
	}
	s, err := topology.New(version, n)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestANeighbourBringsWhatCanHaveComeThroughIt(t *testing.T) {
	t.Parallel()
	known := []*topology.Snapshot{line(t, 7, "here", "a", "b", "c")}
	for _, c := range []struct {
		name      string
		e         envelope.Envelope
		neighbour string
		want      bool
	}{
		{"its own user", envelope.Envelope{From: "A-1000"}, "a", true},
		{"a user behind it", envelope.Envelope{From: "A-3000"}, "b", true},
		{"a user of the other side", envelope.Envelope{From: "A-2000"}, "a", false},
		{"one of ours", envelope.Envelope{From: "A-1"}, "a", false},
		{"for one of ours, as if it had been here before", envelope.Envelope{From: "A-1", To: to("A-2"), Path: []string{"here", "a", "x"}}, "a", false},
		{"for others, and was here before", envelope.Envelope{From: "A-1", To: to("A-2000"), Path: []string{"here", "a", "x"}}, "a", true},
		{"a user of no domain", envelope.Envelope{From: "A-4000"}, "a", true},
		{"a user of an app with numbers of its own", envelope.Envelope{From: "B-5"}, "b", true},
		{"the same from the other side", envelope.Envelope{From: "B-5"}, "a", false},
		{"routed by the same network", envelope.Envelope{From: "A-2000", Network: 7}, "a", false},
		{"routed by a newer network", envelope.Envelope{From: "A-2000", Network: 8}, "a", false},
		{"as if a former home sent it after one of ours", envelope.Envelope{From: "A-2000", To: to("A-2"), Moved: true}, "a", false},
		{"what a former home sends after its users", envelope.Envelope{From: "A-2000", To: to("A-1000"), Moved: true}, "a", true},
		{"nobody's", envelope.Envelope{}, "a", true},
	} {
		if got := credible(&c.e, "here", c.neighbour, known); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func to(user ident.UserID) []envelope.Recipient { return []envelope.Recipient{{User: user}} }

func TestWhatWasSentFromAFormerHomeIsStillCredible(t *testing.T) {
	t.Parallel()
	before, after := line(t, 1, "here", "a", "b", "c"), line(t, 2, "here", "b", "a", "c")
	e := envelope.Envelope{From: "A-1000", Network: 2}
	if credible(&e, "here", "a", []*topology.Snapshot{after}) {
		t.Error("a user who was never at home there is credible")
	}
	if !credible(&e, "here", "a", []*topology.Snapshot{after, before}) {
		t.Error("a user who was at home there a while ago is not credible")
	}
}

func TestRecordsAreCheckedWhoeverBringsThem(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		e              envelope.Envelope
		reliable, fast code
	}{
		{envelope.Envelope{Kind: envelope.KindMessage, From: "A-1"}, "", ""},
		{envelope.Envelope{Kind: envelope.KindConfirmation, From: "A-1"}, "", codeForbiddenType},
		{envelope.Envelope{Kind: envelope.KindPresence, From: "A-1"}, "", codeForbiddenType},
		{envelope.Envelope{Kind: envelope.KindWindows}, "", codeForbiddenType},
		{envelope.Envelope{Kind: envelope.KindFailure}, codeForbiddenType, ""},
		{envelope.Envelope{Kind: envelope.KindClose, From: "A-1"}, codeForbiddenType, ""},
		{envelope.Envelope{Kind: envelope.KindMessage}, codeInvalidUserID, codeInvalidUserID},
		{envelope.Envelope{Kind: envelope.KindMessage, From: "A-01"}, codeInvalidUserID, codeInvalidUserID},
		{envelope.Envelope{Kind: envelope.KindWindows, From: "nobody"}, codeInvalidUserID, codeForbiddenType},
		{envelope.Envelope{Kind: envelope.KindMessage, From: "A-1", Path: make([]string, 63)}, "", ""},
		{envelope.Envelope{Kind: envelope.KindMessage, From: "A-1", Path: make([]string, 64)}, codeHopsExhausted, codeHopsExhausted},
		{envelope.Envelope{Kind: envelope.KindLogin, From: "A-1"}, codeForbiddenType, codeForbiddenType},
		{envelope.Envelope{Kind: envelope.KindLogout, From: "A-1"}, codeForbiddenType, codeForbiddenType},
		{envelope.Envelope{Kind: envelope.KindFetch, From: "A-1"}, codeForbiddenType, codeForbiddenType},
		{envelope.Envelope{Kind: envelope.KindConnectorDown}, codeForbiddenType, codeForbiddenType},
		{envelope.Envelope{Kind: envelope.KindEpoch}, codeForbiddenType, codeForbiddenType},
		{envelope.Envelope{Kind: envelope.KindMissing, From: "A-1"}, codeForbiddenType, codeForbiddenType},
	} {
		if got := check(&c.e, crossesReliable); got != c.reliable {
			t.Errorf("%s of %q: %q, want %q", c.e.Kind, c.e.From, got, c.reliable)
		}
		if got := check(&c.e, crossesFast); got != c.fast {
			t.Errorf("FAST %s of %q: %q, want %q", c.e.Kind, c.e.From, got, c.fast)
		}
	}
}

func TestAStampedRecordSaysWhereItCameFromAndNothingThatOnlyOurOwnMaySay(t *testing.T) {
	t.Parallel()
	path := make([]string, 1, 5)
	path[0] = "c"
	from := envelope.Envelope{
		Kind: envelope.KindMessage, From: "A-3000", Path: path, Network: 3, Late: true, Moved: true, Released: true, Confirm: true, Remember: true, Stream: 4,
		Session: 9, Connector: ident.Connector{Name: "x"}, Features: 1, Request: 2, Count: 3, Frame: []byte("{}"),
	}
	got := stamp(from, "b")
	want := envelope.Envelope{
		Kind: envelope.KindMessage, From: "A-3000", Path: []string{"c", "b"}, Network: 3, Late: true, Moved: true, Confirm: true, Remember: true, Stream: 4,
		Frame: []byte("{}"),
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if other := stamp(from, "x"); got.Path[1] != "b" || other.Path[1] != "x" {
		t.Error("two copies share their path")
	}
}

func TestReceiversAreCutUpByLanesOnceAndInOrder(t *testing.T) {
	t.Parallel()
	const lanes = 4
	network := line(t, 1, "here", "a", "b", "c")
	e := envelope.Envelope{Kind: envelope.KindMessage, From: "A-1000", Frame: []byte("{}")}
	for n := range 2000 {
		e.To = append(e.To, envelope.Recipient{User: ident.UserID(fmt.Sprintf("A-%d", n)), N: uint64(n + 1), After: envelope.Mark{Stream: 1, N: uint64(n)}})
	}
	parts := split(e, network, "here", lanes)
	var got []envelope.Recipient
	for i, p := range parts {
		for _, to := range p.To {
			home := network.HomeOf(to.User, "here")
			switch {
			case home == "here" && (to.User.Lane(lanes) != p.lane || i == lanes):
				t.Errorf("%s is in part %d of lane %d", to.User, i, p.lane)
			case home != "here" && (i != lanes || p.lane != e.From.Lane(lanes) || p.key != e.From):
				t.Errorf("%s, on its way to %s, is in part %d of lane %d, key %s", to.User, home, i, p.lane, p.key)
			}
		}
		if !slices.IsSortedFunc(p.To, func(a, b envelope.Recipient) int { return int(a.N) - int(b.N) }) {
			t.Errorf("part %d has another order", i)
		}
		got = append(got, p.To...)
	}
	slices.SortFunc(got, func(a, b envelope.Recipient) int { return int(a.N) - int(b.N) })
	if len(parts) != lanes+1 || !slices.Equal(got, e.To) {
		t.Errorf("%d parts with %d receivers, want %d with %d", len(parts), len(got), lanes+1, len(e.To))
	}
	failure := envelope.Envelope{Kind: envelope.KindFailure, To: []envelope.Recipient{{User: "A-1500"}}, Frame: []byte("{}")}
	if parts := split(failure, network, "here", lanes); len(parts) != 1 || parts[0].key != "A-1500" || parts[0].lane != ident.UserID("A-1500").Lane(lanes) {
		t.Errorf("a failure on its way: %+v", parts)
	}
}

func TestEveryCodeHasItsCounters(t *testing.T) {
	t.Parallel()
	for _, c := range codes() {
		if strings.ToUpper(string(c)) != string(c) || fastReason(c) == string(c) {
			t.Errorf("%s: codes are in capitals, reasons are not", c)
		}
	}
}

// FuzzWhatANeighbourSends holds what is made of any bytes against what may cross.
func FuzzWhatANeighbourSends(f *testing.F) {
	e := envelope.Envelope{
		Kind: envelope.KindMessage, From: "A-1000", Path: []string{"c"}, Network: 1, Released: true, Session: 3, Frame: []byte("{}"),
		To: []envelope.Recipient{{User: "A-1", N: 1}, {User: "A-2", N: 1}, {User: "A-2000", N: 1}},
	}
	f.Add(e.Append(nil))
	e.Kind, e.From, e.To = envelope.KindFailure, "", e.To[:1]
	f.Add(e.Append(nil))
	f.Add([]byte{1, 9, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		network := line(t, 1, "here", "a", "b", "c")
		in, err := envelope.Decode(b)
		if err != nil || check(&in, crossesFast) != "" {
			return
		}
		credible(&in, "here", "a", []*topology.Snapshot{network})
		left := len(in.To)
		for _, p := range split(stamp(in, "a"), network, "here", 4) {
			out, err := envelope.Decode(p.Append(nil))
			if err != nil {
				t.Fatalf("what is written cannot be read: %v", err)
			}
			if p.lane < 0 || p.lane >= 4 || p.key.Lane(4) != p.lane || len(out.To) == 0 {
				t.Fatalf("lane %d, key %q, %d receivers", p.lane, p.key, len(out.To))
			}
			if out.Released || out.Session != 0 || len(out.Path) != len(in.Path)+1 || out.Path[len(in.Path)] != "a" || out.From != in.From || out.ID != in.ID {
				t.Fatalf("got %+v of %+v", out, in)
			}
			left -= len(out.To)
		}
		if left != 0 {
			t.Fatalf("%d receivers were lost", left)
		}
	})
}
