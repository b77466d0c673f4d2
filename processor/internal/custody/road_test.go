package custody_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/pkg/topology"
	"github.com/linkerhq/linker/processor/internal/custody"
)

// regions is a network in which d is joined with e, and e with f; nothing leads to island.
// Users 0 to 99 are at home in the first of homes, 100 to 199 in the second, and so on.
func regions(t *testing.T, version uint64, homes ...string) *topology.Snapshot {
	t.Helper()
	n := topology.Network{
		Apps:  []topology.App{{Name: "A", AppID: "a", Master: "A-0"}},
		Links: []topology.Link{{N1: "d", N2: "e", Insecure: true}, {N1: "e", N2: "f", Insecure: true}},
	}
	for i, name := range []string{"d", "e", "f", "island"} {
		n.Domains = append(n.Domains, topology.Domain{Name: name, URLs: []string{fmt.Sprintf("tcp://127.0.0.1:%d", i+1)}})
	}
	for i, home := range homes {
		n.Distributions = append(n.Distributions, topology.Distribution{DomainName: home, From: int64(i * 100), To: int64(i*100 + 99)})
	}
	s, err := topology.New(version, n)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// newCrossing returns a bench of domain d's only lane, in a network of several domains.
func newCrossing(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, now: begin}
	b.state = custody.New(custody.Config{
		Domain: "d", Lanes: 1, Generation: 1, Channels: 100, Network: regions(t, 1, "d", "e", "f", "island"),
	}, newMetrics(t), begin)
	b.record(envelope.Envelope{Kind: envelope.KindEpoch})
	b.step(&custody.Assembled{})
	return b
}

// crossing feeds one event and returns what is to be done, what crosses links included;
// channels are told by their connection.
func (b *bench) crossing(e custody.Event) string {
	b.t.Helper()
	b.state.Step(b.now, e, &b.fx)
	defer b.fx.Reset()
	var lines []string
	for _, l := range b.fx.Leave {
		lines = append(lines, fmt.Sprintf("leave %d", l.Conn))
	}
	for _, h := range b.fx.Hand {
		e, err := envelope.Decode(h.Record)
		if err != nil {
			b.t.Fatal(err)
		}
		var line strings.Builder
		line.WriteString(fmt.Sprintf("hand %d/%d %s", h.Conn, h.N, clip(e.Frame)))
		for _, to := range e.To {
			line.WriteString(fmt.Sprintf(" %s", to.User))
			if to.After != (envelope.Mark{}) {
				line.WriteString(fmt.Sprintf(" after %d of %d", to.After.N, to.After.Stream))
			}
		}
		lines = append(lines, line.String())
		b.channel = h.Channel
	}
	for _, r := range b.fx.Put {
		b.put = append(b.put, mailbox.Key{To: r.To, Pos: r.Pos, ID: r.ID})
	}
	for _, h := range b.fx.HandFast {
		lines = append(lines, fmt.Sprintf("fast over %d", h.Conn))
	}
	if rest := describe(&b.fx); rest != "" {
		lines = append(lines, rest)
	}
	return strings.Join(lines, "; ")
}

// storedAll says that the mailbox has all that it was given, but for what was said before.
func (b *bench) storedAll() string {
	b.t.Helper()
	keys := b.put
	b.put = nil
	return b.crossing(&custody.Stored{Keys: keys})
}

func (b *bench) tick(d time.Duration) string {
	b.t.Helper()
	b.now = b.now.Add(d)
	return b.crossing(&custody.Ticked{})
}

func (b *bench) cross(e envelope.Envelope) string {
	b.t.Helper()
	b.offset++
	return b.crossing(&custody.RecordRead{Offset: b.offset - 1, Envelope: &e})
}

// roads opens the road to e over a connection; 0 closes it.
func (b *bench) roads(conn uint64) string {
	b.t.Helper()
	open := map[string]custody.Road{}
	if conn != 0 {
		open["e"] = custody.Road{Conn: conn}
	}
	return b.crossing(&custody.RoadsChanged{Roads: open})
}

// open opens the road to e, behind which nothing waits.
func (b *bench) open(conn uint64) {
	b.t.Helper()
	b.want("the road opens", b.roads(conn), "read link/e/0 after 0 before 0 limit 256; usage link/e/0")
	b.want("nothing waits", b.crossing(&custody.RowsRead{Read: custody.Read{
		Purpose: custody.ForTarget, Query: mailbox.Query{To: "link/e/0"}, Serial: 2,
	}}), "")
}

func TestARecordForAnotherDomainIsSettledWhenTheNeighboursLogHasIt(t *testing.T) {
	t.Parallel()
	b := newCrossing(t)
	b.open(7)
	b.want("message", b.cross(msg("A-1", "A-101", 1, true)), "hand 7/1 m1 A-101")
	b.wantLow(1)
	b.want("of an unknown channel", b.crossing(&custody.HandedOver{Channel: 1, UpTo: 1}), "")
	b.want("of what was never sent", b.crossing(&custody.HandedOver{Channel: b.channel, UpTo: 2}), "")
	b.wantLow(1)
	b.want("handed over", b.crossing(&custody.HandedOver{Channel: b.channel, UpTo: 1}), "")
	b.wantLow(2)
}

func TestWithoutARoadRecordsWaitInTheMailboxOfTheirDestination(t *testing.T) {
	t.Parallel()
	b := newCrossing(t)
	b.want("message", b.cross(msg("A-1", "A-101", 1, false)), "put link/e/0@1 proved false")
	b.stored("link/e/0", 1)
	b.wantLow(2)
	b.want("another destination", b.cross(msg("A-1", "A-201", 1, false)), "put link/f/0@2 proved false")
}

func TestWhatWasUnderWayIsSentAgainOverTheNextConnectionInOrder(t *testing.T) {
	t.Parallel()
	b := newCrossing(t)
	b.open(7)
	first, next := msg("A-1", "A-101", 1, false), msg("A-1", "A-101", 2, false)
	b.cross(first)
	b.cross(next)
	old := b.channel
	got := b.roads(8)
	if !strings.HasPrefix(got, "leave 7; ") || strings.Contains(got, "hand") || !strings.Contains(got, "; read link/e/0 after 0 ") {
		t.Errorf("the road changes: %s", got)
	}
	b.want("of the channel that has ended", b.crossing(&custody.HandedOver{Channel: old, UpTo: 2}), "")
	b.wantLow(1)
	b.storedAll()
	b.wantLow(3)
	rows := []mailbox.Row{rowOf(first, 1), rowOf(next, 2)}
	for i := range rows {
		rows[i].To = "link/e/0"
	}
	read := custody.Read{Purpose: custody.ForTarget, Query: mailbox.Query{To: "link/e/0"}, Serial: 4}
	got = b.crossing(&custody.RowsRead{Read: read, Rows: rows})
	if !strings.HasPrefix(got, "hand 8/1 m1 A-101; hand 8/2 m2 A-101") {
		t.Errorf("what was under way: %s", got)
	}
	b.want("handed over", b.crossing(&custody.HandedOver{Channel: b.channel, UpTo: 2}), "delete link/e/0@1; delete link/e/0@2")
}

func TestAGroupCrossesOnceToEachDomain(t *testing.T) {
	t.Parallel()
	b := newCrossing(t)
	b.open(7)
	e := msg("A-1", "A-101", 1, false)
	e.To = []envelope.Recipient{{User: "A-101", N: 1}, {User: "A-2", N: 1}, {User: "A-102", N: 1}}
	b.want("group", b.cross(e), "hand 7/1 m1 A-101 A-102; put A-2@1 proved false")
	b.crossing(&custody.HandedOver{Channel: b.channel, UpTo: 1})
	b.wantLow(1)
	b.stored("A-2", 1)
	b.wantLow(2)
}

func TestTheFirstOfANewStreamSaysWhatItFollowsAndSoDoesItsCopy(t *testing.T) {
	t.Parallel()
	b := newCrossing(t)
	b.open(7)
	b.cross(msg("A-1", "A-101", 1, false))
	next := msg("A-1", "A-101", 1, false)
	next.Stream = 6
	b.want("another stream", b.cross(next), "hand 7/2 m1 A-101 after 1 of 5")
	b.want("its copy", b.cross(next), "hand 7/3 m1 A-101 after 1 of 5")
}

func TestWhatCannotBeReachedIsRefused(t *testing.T) {
	t.Parallel()
	b := newCrossing(t)
	b.open(7)
	if got := b.cross(msg("A-1", "A-301", 1, false)); !strings.HasPrefix(got, "bury @1 NO_ROUTE; fail A-1 ") {
		t.Errorf("no links lead there: %s", got)
	}
	far := msg("A-1", "A-101", 2, false)
	for range envelope.MaxPath {
		far.Path = append(far.Path, "e")
	}
	if got := b.cross(far); !strings.HasPrefix(got, "bury @2 HOPS_EXHAUSTED; fail A-1 ") {
		t.Errorf("it has come through too many domains: %s", got)
	}
	b.cross(msg("A-1", "A-101", 3, false))
	if got := b.crossing(&custody.Refused{Channel: b.channel, N: 1, Code: "TOO_LARGE"}); !strings.HasPrefix(got, "bury @3 TOO_LARGE; fail A-1 ") {
		t.Errorf("the neighbour refuses: %s", got)
	}
}

func TestARecordThatWasHereBeforeWaitsForASecond(t *testing.T) {
	t.Parallel()
	b := newCrossing(t)
	b.open(7)
	back := msg("A-201", "A-101", 1, false)
	back.Path = []string{"d", "e"}
	if got := b.cross(back); strings.Contains(got, "hand") {
		t.Errorf("it goes at once: %s", got)
	}
	b.want("others of its road", b.cross(msg("A-1", "A-101", 1, false)), "put link/e/0@2 proved false")
}

func TestFastCrossesOverAnOpenRoadOrIsDropped(t *testing.T) {
	t.Parallel()
	b := newCrossing(t)
	e := msg("A-1", "A-101", 1, false)
	b.want("closed", b.crossing(custody.FastArrived{Envelope: &e}), "")
	b.open(7)
	e = msg("A-1", "A-101", 2, false)
	b.want("open", b.crossing(custody.FastArrived{Envelope: &e}), "fast over 7")
}

func TestWhatWaitsForARoadIsCountedAgain(t *testing.T) {
	t.Parallel()
	b := newCrossing(t)
	b.open(7)
	b.crossing(&custody.UsageRead{User: "link/e/0", Usage: mailbox.Usage{Rows: 3, Bytes: 300}}) // three that leave just now
	if got := b.state.Waiting()["e"]; got.Rows != 3 {
		t.Fatalf("%+v waits, want what the store has said", got)
	}
	asked := 0
	for range 20 {
		b.now = b.now.Add(time.Second)
		b.state.Step(b.now, &custody.Ticked{}, &b.fx)
		asked += len(b.fx.Usages)
		b.fx.Reset()
	}
	if asked != 1 {
		t.Errorf("asked %d times in 20 s, want once: the answer is under way", asked)
	}
	b.crossing(&custody.UsageRead{User: "link/e/0"})
	if got := b.state.Waiting()["e"]; got.Rows != 0 {
		t.Errorf("%+v waits, want nothing", got)
	}
}

// came is a message that another domain has handed over.
func came(stream, n uint64, after envelope.Mark) envelope.Envelope {
	e := msg("A-101", "A-1", n, false)
	e.Stream, e.Path, e.ID = stream, []string{"e"}, ident.StreamMessageID(stream, "A-1", n)
	e.To[0].After = after
	return e
}
