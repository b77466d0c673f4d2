package custody_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/delivery"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/pkg/topology"
	"github.com/linkerhq/linker/processor/internal/custody"
)

// bench is a State with nothing around it: a test feeds events and looks at the
// effects, written down as short lines.
type bench struct {
	t      *testing.T
	state  *custody.State
	now    time.Time
	offset int64
	fx     custody.Effects
	counts []custody.Count // that were asked for

	channel uint64        // on which a record was handed over last
	put     []mailbox.Key // given to the mailbox and not said to be stored
}

var (
	c1    = ident.Connector{Name: "c1", Incarnation: ident.Incarnation{1}}
	begin = time.Unix(1_700_000_000, 0)
)

// newBench returns the bench of an owner whose epoch record is offset 0.
func newBench(t *testing.T) *bench {
	t.Helper()
	net, err := topology.New(1, topology.Network{
		Domains: []topology.Domain{{Name: "d", URLs: []string{"ws://127.0.0.1:1"}}},
		Apps: []topology.App{
			{Name: "A", AppID: "a", Master: "A-0"},
			{Name: "B", AppID: "b", Master: "B-0"},
			{Name: "O", AppID: "o", Master: "O-0", MasterOne: true},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, now: begin}
	b.state = custody.New(custody.Config{Domain: "d", Lanes: 1, Generation: 1, Network: net}, newMetrics(t), begin)
	b.record(envelope.Envelope{Kind: envelope.KindEpoch})
	b.step(&custody.Assembled{})
	return b
}

func newMetrics(t *testing.T) *custody.Metrics {
	t.Helper()
	m, err := custody.NewMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// step feeds one event and returns what is to be done, a line an effect.
func (b *bench) step(e custody.Event) string {
	b.state.Step(b.now, e, &b.fx)
	b.counts = append(b.counts, b.fx.Counts...)
	defer b.fx.Reset()
	return describe(&b.fx)
}

func (b *bench) record(e envelope.Envelope) string {
	b.offset++
	return b.step(&custody.RecordRead{Offset: b.offset - 1, Envelope: &e})
}

func (b *bench) message(from, user ident.UserID, n uint64, confirm bool) string {
	return b.record(msg(from, user, n, confirm))
}

func msg(from, user ident.UserID, n uint64, confirm bool) envelope.Envelope {
	return envelope.Envelope{
		Kind: envelope.KindMessage, From: from, Stream: 5, Confirm: confirm, Reference: "ref",
		ID: ident.StreamMessageID(5, user, n), To: []envelope.Recipient{{User: user, N: n}}, Frame: fmt.Appendf(nil, "m%d", n),
	}
}

// login logs a session in and lets its presence be announced.
func (b *bench) login(session uint64, user ident.UserID, features envelope.Features) {
	b.t.Helper()
	b.record(envelope.Envelope{Kind: envelope.KindLogin, To: []envelope.Recipient{{User: user}}, Session: session, Connector: c1, Features: features})
	b.announce(user, 1)
}

func (b *bench) announce(user ident.UserID, n uint64) {
	b.step(&custody.Loaded{User: user})
	b.step(&custody.AnnouncedSaved{Announced: mailbox.Announced{User: user, N: n}})
	b.step(&custody.Produced{Token: custody.Token{User: user, Presence: n}})
}

func (b *bench) prove(session, d uint64) string {
	return b.step(custody.Answered{Answers: &delivery.Answers{
		Epoch: envelope.Position{Generation: 1}, Connector: c1, Progress: []delivery.Progress{{Session: session, Taken: d, Proved: d}},
	}})
}

func (b *bench) after(d time.Duration) string {
	b.now = b.now.Add(d)
	return b.step(&custody.Ticked{})
}

func (b *bench) stored(user ident.UserID, offset int64) string {
	return b.step(&custody.Stored{Keys: []mailbox.Key{{To: string(user), Pos: envelope.Position{Generation: 1, Offset: offset}}}})
}

func (b *bench) want(what, got, want string) {
	b.t.Helper()
	if got != want {
		b.t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}

func (b *bench) wantLow(low int64) {
	b.t.Helper()
	if got := b.state.Low(); got != low {
		b.t.Errorf("lowest unsettled offset is %d, want %d", got, low)
	}
}

func describe(fx *custody.Effects) string {
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	for _, d := range fx.Deliveries {
		for _, to := range d.Item.Targets {
			switch d.Item.Kind {
			case delivery.KindFrame:
				add("frame %d/%d %s", to.Session, to.D, clip(d.Item.Frame))
			case delivery.KindFast:
				add("fast %d %s token %d", to.Session, clip(d.Item.Frame), d.Item.Token)
			case delivery.KindClose:
				add("close %d", to.Session)
			case delivery.KindLoggedIn:
				add("logged in %d at %d", to.Session, d.Item.Pos.Offset)
			}
		}
	}
	for _, r := range fx.Put {
		add("put %s@%d proved %v", r.To, r.Pos.Offset, r.Proved)
	}
	for _, k := range fx.Mark {
		add("mark %s@%d", k.To, k.Pos.Offset)
	}
	for _, k := range fx.Delete {
		add("delete %s@%d", k.To, k.Pos.Offset)
	}
	for _, r := range fx.Reads {
		add("read %s after %d before %d limit %d", r.Query.To, r.Query.After.Offset, r.Query.Before.Offset, r.Query.Limit)
	}
	for _, c := range fx.Counts {
		add("count %s after %d before %d", c.Query.To, c.Query.After.Offset, c.Query.Before.Offset)
	}
	for _, u := range fx.Loads {
		add("load %s", u)
	}
	for _, u := range fx.Usages {
		add("usage %s", u)
	}
	for _, e := range fx.Expirations {
		add("expire before %d", e.Before)
	}
	for _, a := range fx.Announce {
		add("announce %s %v %d", a.User, a.Connected, a.N)
	}
	for _, p := range fx.Produce {
		add("produce %s", p.Envelope.Kind)
	}
	for _, x := range fx.Bury {
		add("bury @%d %s", x.Offset, x.Reason)
	}
	for _, f := range fx.Failures {
		add("fail %s %s", f.User(), f.Frame)
	}
	return strings.Join(lines, "; ")
}

func clip(b []byte) string { return string(b[:min(len(b), 12)]) }

func TestAMessageForALiveSessionGoesOutAndIsSettledByItsProof(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.login(7, "A-1", 0)
	b.wantLow(2)
	b.want("message", b.message("A-2", "A-1", 1, false), "frame 7/1 m1")
	b.wantLow(2)
	b.want("proof", b.prove(7, 1), "")
	b.wantLow(3)
}

func TestTheConfirmationIsInTheLogBeforeTheMessageIsSettled(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.login(7, "A-1", 0)
	b.message("A-2", "A-1", 1, true)
	b.want("proof", b.prove(7, 1), "produce confirmation")
	b.wantLow(2)
	b.step(&custody.Produced{Token: custody.Token{Confirms: envelope.Position{Generation: 1, Offset: 2}, User: "A-1"}})
	b.wantLow(3)
}

func TestAMessageForNobodyIsSettledWhenTheMailboxHasIt(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.want("message", b.message("A-2", "A-1", 1, false), "put A-1@1 proved false")
	b.wantLow(1)
	b.stored("A-1", 1)
	b.wantLow(2)
}

func TestWhatIsNotProvedWithinASecondGoesToTheMailboxAndALateProofDeletesIt(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.login(7, "A-1", 0)
	b.message("A-2", "A-1", 1, false)
	b.want("after 0.9 s", b.after(900*time.Millisecond), "frame 7/1 m1") // not taken: sent again
	b.want("after 1 s", b.after(100*time.Millisecond), "put A-1@2 proved false")
	b.stored("A-1", 2)
	b.wantLow(3)
	b.want("late proof", b.prove(7, 1), "delete A-1@2")
}

func TestTheEndOfASessionFreesItsRowsAndStoresTheRest(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.login(7, "A-1", 0)
	b.message("A-2", "A-1", 1, false)
	got := b.step(custody.Answered{Answers: &delivery.Answers{Epoch: envelope.Position{Generation: 1}, Connector: c1, Gone: []uint64{7}}})
	b.want("gone", got, "put A-1@2 proved false; produce logout")
	b.want("next message", b.message("A-2", "A-1", 2, false), "put A-1@3 proved false")
}

func TestEverySessionGetsACopyAndTheSlowOneItsOwnRow(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.login(7, "A-1", 0)
	b.login(8, "A-1", 0)
	b.want("message", b.message("A-2", "A-1", 1, false), "frame 7/1 m1; frame 8/1 m1")
	b.prove(7, 1)
	b.wantLow(3)
	b.want("after a second", b.after(time.Second), "frame 8/1 m1; put A-1@3 proved true")
	b.stored("A-1", 3)
	b.wantLow(4)
	b.want("the other one's proof", b.prove(8, 1), "delete A-1@3")
}

func TestAMasterWithOneDeliveryGetsEachMessageOnOneSocket(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.login(7, "O-0", 0)
	b.login(8, "O-0", 0)
	b.want("first", b.message("O-2", "O-0", 1, false), "frame 7/1 m1")
	b.want("second", b.message("O-2", "O-0", 2, false), "frame 8/1 m2")
	b.want("the other gets what an ended one has not proved",
		b.step(custody.Answered{Answers: &delivery.Answers{Epoch: envelope.Position{Generation: 1}, Connector: c1, Gone: []uint64{7}}}), "frame 8/2 m1; produce logout")
}

func TestProofIsUrgentWhenTheWindowIsHalfFull(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.login(7, "A-1", 0)
	for n := range uint64(custody.WindowRecords) {
		e := msg("A-2", "A-1", n+1, false)
		b.offset++
		b.state.Step(b.now, &custody.RecordRead{Offset: b.offset - 1, Envelope: &e}, &b.fx)
		if got, want := b.fx.Deliveries[0].Item.Urgent, n >= custody.WindowRecords/2; got != want {
			t.Fatalf("message %d is urgent: %v, want %v", n+1, got, want)
		}
		b.fx.Reset()
	}
}

func TestAFullWindowMakesTheSessionBehindUntilItsRowsAreSent(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.login(7, "A-1", 0)
	for n := range uint64(custody.WindowRecords) {
		b.message("A-2", "A-1", n+1, false)
	}
	last := b.offset
	b.want("one too many", b.message("A-2", "A-1", custody.WindowRecords+1, false), fmt.Sprintf("put A-1@%d proved false", last))
	b.stored("A-1", last)
	got := b.prove(7, custody.WindowRecords)
	b.want("room again", got, fmt.Sprintf("read A-1 after %d before 0 limit 256", last-1))
	b.want("while rows wait", b.message("A-2", "A-1", custody.WindowRecords+2, false), fmt.Sprintf("put A-1@%d proved false", last+1))
}

func TestADuplicateIsSettledAndNotDelivered(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.login(7, "A-1", 0)
	b.message("A-2", "A-1", 1, false)
	b.prove(7, 1)
	b.want("again", b.message("A-2", "A-1", 1, false), "")
	b.wantLow(4)
	b.want("a number that was missing", b.message("A-2", "A-1", 3, false)+b.message("A-2", "A-1", 2, false), "frame 7/2 m3frame 7/3 m2")
}

func TestAuthorityIsCheckedAgainInTheLane(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	got := b.message("B-1", "A-1", 1, false)
	if !strings.HasPrefix(got, "bury @1 FORBIDDEN_APP; fail B-1 ") {
		t.Errorf("got %q", got)
	}
	b.wantLow(1)
	b.step(&custody.Buried{Burial: custody.Burial{Offset: 1}})
	b.wantLow(2)
	if got := b.message("A-1", "Z-1", 1, false); !strings.HasPrefix(got, "bury @2 UNKNOWN_APP") {
		t.Errorf("got %q", got)
	}
}

func TestRecordsOfANewerNetworkWaitForItInOrder(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	newer := func(n, version uint64) string {
		return b.record(envelope.Envelope{
			Kind: envelope.KindMessage, ID: ident.MessageID{byte(n)}, Stream: 1, From: "N-1", Network: version,
			To: []envelope.Recipient{{User: "N-2", N: n}}, Frame: []byte("{}"),
		})
	}
	b.want("a newer one, and one behind it", newer(1, 2)+newer(2, 1), "")
	net, err := topology.New(2, topology.Network{
		Domains: []topology.Domain{{Name: "d", URLs: []string{"ws://127.0.0.1:1"}}},
		Apps:    []topology.App{{Name: "N", AppID: "n", Master: "N-0"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	b.want("known", b.step(&custody.NetworkChanged{Network: net}), "put N-2@1 proved false; put N-2@2 proved false")
	b.want("one that never comes", newer(3, 9), "")
	b.want("not yet", b.after(custody.NetworkWait-time.Millisecond), "")
	b.want("after a while", b.after(time.Millisecond), "put N-2@3 proved false")
	b.want("it is not waited for again", newer(4, 9), "put N-2@4 proved false")
}

func TestAnUndecodableRecordIsSettledWhenItsDeadLetterIsWritten(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.want("record", b.step(&custody.RecordRead{Offset: 1, Raw: []byte("?")}), "bury @1 UNDECODABLE")
	b.wantLow(1)
	b.step(&custody.Buried{Burial: custody.Burial{Offset: 1}})
	b.wantLow(2)
}

func TestFastComesInOrderOrNotAtAll(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.login(7, "A-1", 0)
	for _, c := range []struct {
		n    uint64
		want string
	}{{1, "fast 7 m1 token 0"}, {3, "fast 7 m3 token 0"}, {2, ""}, {3, ""}, {4, "fast 7 m4 token 0"}} {
		m := msg("A-2", "A-1", c.n, false)
		b.want(fmt.Sprint("number ", c.n), b.step(custody.FastArrived{Envelope: &m}), c.want)
	}
	m := msg("A-2", "A-1", 1, false)
	m.Stream++
	b.want("of another publisher", b.step(custody.FastArrived{Envelope: &m}), "fast 7 m1 token 0")
	other := msg("A-3", "A-1", 2, false) // a domain on the way has other lanes, where they part
	b.want("of another sender whose connector has numbered it with those", b.step(custody.FastArrived{Envelope: &other}), "fast 7 m2 token 0")
}

func TestFastIsDeliveredToWhoIsThereAndProvedOnlyForAConfirmation(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	m := msg("A-2", "A-1", 1, false)
	b.want("nobody there", b.step(custody.FastArrived{Envelope: &m}), "")
	b.login(7, "A-1", 0)
	m = msg("A-2", "A-1", 2, false)
	b.want("without", b.step(custody.FastArrived{Envelope: &m}), "fast 7 m2 token 0")
	m = msg("A-2", "A-1", 3, true)
	b.want("with", b.step(custody.FastArrived{Envelope: &m}), "fast 7 m3 token 1")
	answer := custody.Answered{Answers: &delivery.Answers{Epoch: envelope.Position{Generation: 1}, Connector: c1, FastProved: []uint64{1}}}
	b.want("proof", b.step(answer), "produce confirmation")
	b.want("a second proof", b.step(answer), "")
}

func TestCloseReachesOpenSessionsAndTellsOfAnAbsentTarget(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.login(7, "A-1", 0)
	order := func(from, target ident.UserID) string {
		return b.record(envelope.Envelope{Kind: envelope.KindClose, From: from, To: []envelope.Recipient{{User: target}}, Reference: "r"})
	}
	b.want("by the master", order("A-0", "A-1"), "close 7")
	for _, c := range []struct {
		from, target ident.UserID
		code         string
	}{{"A-0", "A-9", "NOT_CONNECTED"}, {"A-2", "A-1", "FORBIDDEN"}, {"B-0", "A-1", "FORBIDDEN"}} {
		got := order(c.from, c.target)
		if !strings.HasPrefix(got, "fail "+string(c.from)) || !strings.Contains(got, `"code":"`+c.code+`"`) || !strings.Contains(got, `"reference":"r"`) {
			t.Errorf("%s closes %s: got %q, want %s", c.from, c.target, got, c.code)
		}
	}
	b.wantLow(b.offset)
}

func TestPresenceIsAnnouncedForTheFirstLoginAndTheLastLogout(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	login := func(session uint64) string {
		return b.record(envelope.Envelope{Kind: envelope.KindLogin, To: []envelope.Recipient{{User: "A-1"}}, Session: session, Connector: c1})
	}
	logout := func(session uint64) string {
		return b.record(envelope.Envelope{Kind: envelope.KindLogout, To: []envelope.Recipient{{User: "A-1"}}, Session: session, Connector: c1})
	}
	b.want("first login", login(7), "logged in 7 at 1; load A-1")
	b.want("loaded", b.step(&custody.Loaded{User: "A-1"}), "announce A-1 true 1")
	b.want("saved", b.step(&custody.AnnouncedSaved{Announced: mailbox.Announced{User: "A-1", N: 1}}), "produce presence")
	b.wantLow(1)
	b.step(&custody.Produced{Token: custody.Token{User: "A-1", Presence: 1}})
	b.wantLow(2)
	b.want("second login", login(8), "logged in 8 at 2")
	b.want("first logout", logout(7), "")
	b.want("last logout", logout(8), "announce A-1 false 2")
	b.wantLow(4)
}

func TestTheMasterItselfIsNeverAnnounced(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	got := b.record(envelope.Envelope{Kind: envelope.KindLogin, To: []envelope.Recipient{{User: "A-0"}}, Session: 7, Connector: c1})
	b.want("login", got, "logged in 7 at 1")
	b.wantLow(2)
}

func TestADeadConnectorIsWrittenIntoTheLogAndThenItsUsersAreGone(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.login(7, "A-1", 0)
	b.want("dead", b.step(&custody.ConnectorDied{Connector: c1}), "produce connector_down")
	b.want("still dead", b.step(&custody.ConnectorDied{Connector: c1}), "")
	b.want("record", b.record(envelope.Envelope{Kind: envelope.KindConnectorDown, Connector: c1}), "announce A-1 false 2")
	b.want("message", b.message("A-2", "A-1", 1, false), "put A-1@3 proved false")
}

func TestWhoDidNotComeBackIsGoneWhenAllHaveTold(t *testing.T) {
	t.Parallel()
	net, err := topology.New(1, topology.Network{
		Domains: []topology.Domain{{Name: "d", URLs: []string{"ws://127.0.0.1:1"}}},
		Apps:    []topology.App{{Name: "A", AppID: "a", Master: "A-0"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, now: begin, offset: 10}
	before := envelope.Position{Generation: 1, Offset: 3}
	b.state = custody.New(custody.Config{
		Domain: "d", Lanes: 1, Generation: 1, Epoch: 10, Next: 10, Network: net,
		Announced: []mailbox.Announced{{User: "A-1", Connected: true, N: 5, Pos: before}, {User: "A-2", Connected: true, N: 1, Pos: before}},
	}, newMetrics(t), begin)
	b.step(custody.Answered{Answers: &delivery.Answers{
		Epoch: envelope.Position{Generation: 1, Offset: 10}, Connector: c1, Join: delivery.Join{Parts: 1},
		Sessions: []delivery.SessionState{{Progress: delivery.Progress{Session: 9}, User: "A-2", L: before}},
	}})
	b.want("epoch", b.record(envelope.Envelope{Kind: envelope.KindEpoch}), "read A-2 after 3 before 0 limit 256")
	b.want("all have told", b.step(&custody.Assembled{}), "produce missing")
	missing := envelope.Envelope{Kind: envelope.KindMissing, To: []envelope.Recipient{{User: "A-1"}}}
	b.want("missing", b.record(missing), "load A-1")
	b.want("loaded", b.step(&custody.Loaded{User: "A-1", Found: true, Announced: mailbox.Announced{User: "A-1", Connected: true, N: 5, Pos: before}}), "announce A-1 false 6")
}

func TestFetchReadsPagesAndEndsWithWhatIsLeft(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for n := range uint64(3) {
		b.message("A-2", "A-1", n+1, false)
		b.stored("A-1", int64(n)+1)
	}
	b.login(7, "A-1", 0)
	got := b.record(envelope.Envelope{Kind: envelope.KindFetch, To: []envelope.Recipient{{User: "A-1"}}, Session: 7, Connector: c1, Request: 1, Count: 2})
	b.want("fetch", got, "read A-1 after 0 before 4 limit 2")
	rows := make([]mailbox.Row, 2)
	for i := range rows {
		e := msg("A-2", "A-1", uint64(i)+1, false)
		rows[i] = mailbox.Row{To: "A-1", Pos: envelope.Position{Generation: 1, Offset: int64(i) + 1}, ID: e.ID, Record: e.Append(nil)}
	}
	read := custody.Read{Purpose: custody.ForFetch, Query: mailbox.Query{To: "A-1"}, Session: 7, Serial: 1}
	b.want("rows", b.step(&custody.RowsRead{Read: read, Rows: rows, More: true}), "frame 7/1 m1; frame 7/2 m2; count A-1 after 2 before 4")
	count := custody.Count{Purpose: custody.ForFetch, Query: mailbox.Query{To: "A-1"}, Session: 7, Serial: 2}
	b.want("count", b.step(&custody.Counted{Count: count, N: 1}), `frame 7/3 {"type":"FET`)
	b.want("proof", b.prove(7, 3), "delete A-1@1; delete A-1@2")
}

func TestRowsDeletedWhileTheyAreCountedAreCountedOnce(t *testing.T) {
	t.Parallel()
	for name, deletedFirst := range map[string]bool{"the count comes first": false, "the deletion comes first": true} {
		b := newBench(t)
		rows := make([]mailbox.Row, 5)
		for i := range rows {
			e := msg("A-2", "A-1", uint64(i)+1, false)
			b.record(e)
			b.stored("A-1", int64(i)+1)
			rows[i] = mailbox.Row{To: "A-1", Pos: envelope.Position{Generation: 1, Offset: int64(i) + 1}, ID: e.ID, Record: e.Append(nil)}
		}
		b.login(7, "A-1", 0)
		b.login(8, "A-1", 0)
		fetch := func(session uint64, count int) {
			b.record(envelope.Envelope{Kind: envelope.KindFetch, To: []envelope.Recipient{{User: "A-1"}}, Session: session, Connector: c1, Request: 1, Count: count})
		}
		fetch(7, 1)
		b.step(&custody.RowsRead{Read: custody.Read{Purpose: custody.ForFetch, Query: mailbox.Query{To: "A-1"}, Session: 7, Serial: 1}, Rows: rows[:1], More: true})
		if len(b.counts) != 1 {
			t.Fatalf("%s: %d counts", name, len(b.counts))
		}
		fetch(8, 2)
		b.step(&custody.RowsRead{Read: custody.Read{Purpose: custody.ForFetch, Query: mailbox.Query{To: "A-1"}, Session: 8, Serial: 3}, Rows: rows[1:3], More: true})
		asOf := b.fx.Round()
		b.want(name, b.prove(8, 2), "delete A-1@2; delete A-1@3")
		counted := custody.Counted{Count: b.counts[0], N: 4}
		if deletedFirst {
			counted.N, counted.AsOf = 2, asOf
		}
		b.state.Step(b.now, &counted, &b.fx)
		if got, want := string(b.fx.Deliveries[0].Item.Frame), `"leftMissingCount":2`; !strings.Contains(got, want) {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
		b.fx.Reset()
	}
}

func TestAPushSessionStartsWithWhatIsStored(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	got := b.record(envelope.Envelope{Kind: envelope.KindLogin, To: []envelope.Recipient{{User: "A-1"}}, Session: 7, Connector: c1, Features: envelope.FeaturePush})
	b.want("login", got, "logged in 7 at 0; read A-1 after 0 before 0 limit 256; load A-1")
	b.want("a message meanwhile", b.message("A-2", "A-1", 1, false), "put A-1@2 proved false")
	b.stored("A-1", 2)
	read := custody.Read{Purpose: custody.ForTarget, Query: mailbox.Query{To: "A-1"}, Session: 7, Serial: 1}
	b.want("nothing, but overtaken", b.step(&custody.RowsRead{Read: read}), "read A-1 after 0 before 0 limit 256")
	read.Serial = 2
	b.want("nothing", b.step(&custody.RowsRead{Read: read}), "")
	b.want("now it is live", b.message("A-2", "A-1", 2, false), "frame 7/1 m2")
}

func TestAnswersOfAnotherEpochAreIgnored(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.login(7, "A-1", 0)
	b.message("A-2", "A-1", 1, false)
	b.step(custody.Answered{Answers: &delivery.Answers{
		Epoch: envelope.Position{Generation: 1, Offset: 99}, Connector: c1, Progress: []delivery.Progress{{Session: 7, Taken: 1, Proved: 1}},
	}})
	b.wantLow(2)
}
