package custody_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/processor/internal/custody"
)

const full = `fail A-2 {"type":"DELIVER_FAILED","data":{"code":"MAILBOX_FULL","message":"the mailbox of A-1 is full","retryable":false},"reference":"ref"}`

// limited is a bench whose users have small mailboxes.
func limited(t *testing.T, limits custody.Limits) *bench {
	t.Helper()
	b := newBench(t)
	b.offset = 0
	b.state = custody.New(custody.Config{Domain: "d", Lanes: 1, Generation: 1, Network: newWorld(t, 1, custody.Limits{}).net, Limits: limits}, newMetrics(t), b.now)
	b.record(envelope.Envelope{Kind: envelope.KindEpoch})
	b.step(&custody.Assembled{})
	return b
}

func TestAFullMailboxRefusesAndTheSenderHears(t *testing.T) {
	t.Parallel()
	b := limited(t, custody.Limits{Rows: 2})
	b.want("first: how much waits already is not known", b.message("A-2", "A-1", 1, false), "usage A-1")
	b.want("second: neither", b.message("A-2", "A-1", 2, false), "")
	b.want("one waits already", b.step(&custody.UsageRead{User: "A-1", Usage: mailbox.Usage{Rows: 1}}), "put A-1@1 proved false; bury @2 MAILBOX_FULL; "+full)
	b.stored("A-1", 1)
	b.step(&custody.Buried{Burial: custody.Burial{Offset: 2}})
	b.wantLow(3)
	b.want("third", b.message("A-2", "A-1", 3, false), "bury @3 MAILBOX_FULL; "+full)
	b.step(&custody.Buried{Burial: custody.Burial{Offset: 3}})
	b.wantLow(4)
	if b.state.Held() != 0 || b.state.Logged() != 0 {
		t.Errorf("%d bytes held, %d in the log", b.state.Held(), b.state.Logged())
	}
	b.after(11 * time.Second)
	b.want("after a while it is counted anew", b.message("A-2", "A-1", 4, false), "usage A-1")
	b.want("and there is room", b.step(&custody.UsageRead{User: "A-1", Usage: mailbox.Usage{}}), "put A-1@4 proved false")
}

func TestAMailboxIsFullByItsBytesAsWell(t *testing.T) {
	t.Parallel()
	b := limited(t, custody.Limits{Bytes: 1000})
	b.message("A-2", "A-1", 1, false)
	b.want("900 bytes wait", b.step(&custody.UsageRead{User: "A-1", Usage: mailbox.Usage{Rows: 1, Bytes: 900}}), "bury @1 MAILBOX_FULL; "+full)
}

func TestWhatIsUnderWayToASessionIsStoredHoweverFullTheMailboxIs(t *testing.T) {
	t.Parallel()
	b := limited(t, custody.Limits{Rows: 1})
	b.login(7, "A-1", 0)
	b.want("live", b.message("A-2", "A-1", 1, false), "frame 7/1 m1")
	b.message("A-2", "A-1", 2, false)
	b.want("without proof", b.after(custody.SpillAfter), "frame 7/1 m1; frame 7/2 m2; put A-1@2 proved false; put A-1@3 proved false")
}

func TestWhatHasWaitedTooLongBecomesADeadLetterAndTheSenderHears(t *testing.T) {
	t.Parallel()
	b := limited(t, custody.Limits{Expire: time.Hour})
	e := msg("A-2", "A-1", 1, false)
	row := mailbox.Row{To: "A-1", Pos: envelope.Position{Generation: 1, Offset: 5}, ID: e.ID, Record: e.Append(nil)}
	proved := row
	proved.Pos.Offset, proved.Proved = 6, true
	b.want("time to look", b.after(time.Second), "expire before 1699996401")
	look := custody.Expiration{Limit: 256}
	b.want("two rows", b.step(&custody.RowsExpired{Expiration: look, Rows: []mailbox.Row{row, proved}}),
		"delete A-1@5; delete A-1@6; bury @-1 EXPIRED")
	b.want("the dead letter is there", b.step(&custody.Buried{Burial: custody.Burial{Offset: -1, User: "A-1", Record: row.Record, Reason: "EXPIRED"}}),
		`fail A-2 {"type":"DELIVER_FAILED","data":{"code":"EXPIRED","message":"message to A-1 has waited too long","retryable":false},"reference":"ref"}`)
	b.want("a moment later", b.after(time.Second), "")
	b.want("a minute later", b.after(time.Minute), "expire before 1699996462")
}

func TestWhatWasProvedMeanwhileIsNotReportedAsExpired(t *testing.T) {
	t.Parallel()
	b := limited(t, custody.Limits{Expire: time.Hour})
	b.login(7, "A-1", 0)
	e := msg("A-2", "A-1", 1, false)
	b.message("A-2", "A-1", 1, false)
	b.want("spilled, and time to look", b.after(custody.SpillAfter), "frame 7/1 m1; put A-1@2 proved false; expire before 1699996401")
	b.stored("A-1", 2)
	b.want("proved", b.prove(7, 1), "delete A-1@2")
	row := mailbox.Row{To: "A-1", Pos: envelope.Position{Generation: 1, Offset: 2}, ID: e.ID, Record: e.Append(nil)}
	b.want("the older answer of the store", b.step(&custody.RowsExpired{Expiration: custody.Expiration{Limit: 256}, Rows: []mailbox.Row{row}}), "")
}

func TestWhatTheMailboxMayHaveAlreadyIsNotRefused(t *testing.T) {
	t.Parallel()
	b := limited(t, custody.Limits{Rows: 2})
	b.state = custody.New(custody.Config{
		Domain: "d", Lanes: 1, Generation: 1, Epoch: 9, Next: 1, Network: newWorld(t, 1, custody.Limits{}).net, Limits: custody.Limits{Rows: 2},
	}, newMetrics(t), b.now)
	b.offset = 1
	for n := range uint64(8) {
		b.want("read again", b.message("A-2", "A-1", n+1, false), fmt.Sprintf("put A-1@%d proved false", n+1))
	}
}

func TestWhatWasRefusedMayBeSentAgainUnderTheSameID(t *testing.T) {
	t.Parallel()
	b := limited(t, custody.Limits{Rows: 1})
	e := msg("A-2", "A-1", 1, false)
	e.Remember, e.ID = true, ident.ClientMessageID("A-2", "A-1", "x")
	b.record(e)
	b.want("full", b.step(&custody.UsageRead{User: "A-1", Usage: mailbox.Usage{Rows: 1}}), "bury @1 MAILBOX_FULL; "+full)
	b.step(&custody.Buried{Burial: custody.Burial{Offset: 1}})
	if ids := b.state.Change(b.now).IDs; len(ids) != 0 {
		t.Errorf("%d ids are saved", len(ids))
	}
	b.after(20 * time.Second)
	e.To = []envelope.Recipient{{User: "A-1", N: 2}}
	b.want("again", b.record(e), "usage A-1")
	b.want("there is room now", b.step(&custody.UsageRead{User: "A-1"}), "put A-1@2 proved false")
}

func TestWhatIsHeldIsNotForgotten(t *testing.T) {
	t.Parallel()
	b := limited(t, custody.Limits{Rows: 500})
	const users = 1<<14 + 1 // more than whose counts are kept
	for i := range users {
		b.message("A-0", ident.UserID(fmt.Sprintf("A-%d", i+1)), 1, false)
	}
	for i := range users {
		user := ident.UserID(fmt.Sprintf("A-%d", i+1))
		b.want("counted", b.step(&custody.UsageRead{User: user}), fmt.Sprintf("put %s@%d proved false", user, i+1))
		b.stored(user, int64(i+1))
	}
	b.wantLow(users + 1)
}

func TestTheHintCountsWhatIsHeld(t *testing.T) {
	t.Parallel()
	b := limited(t, custody.Limits{Rows: 5})
	for n := range uint64(3) {
		b.message("A-2", "A-1", n+1, false)
	}
	got := b.record(envelope.Envelope{Kind: envelope.KindLogin, To: []envelope.Recipient{{User: "A-1"}}, Session: 7, Connector: c1, Features: envelope.FeatureHints})
	b.want("login", got, "logged in 7 at 4; count A-1 after 0 before 4; load A-1")
	b.want("the store has none of them", b.step(&custody.Counted{Count: b.counts[0]}), `frame 7/1 {"type":"MIS`)
}

func TestAFetchWaitsForWhatIsHeldHoweverLongThatTakes(t *testing.T) {
	t.Parallel()
	b := limited(t, custody.Limits{Rows: 5})
	b.message("A-2", "A-1", 1, false)
	b.login(7, "A-1", 0)
	got := b.record(envelope.Envelope{Kind: envelope.KindFetch, To: []envelope.Recipient{{User: "A-1"}}, Session: 7, Connector: c1, Request: 1, Count: 2})
	b.want("fetch", got, "")
	b.want("the store is slow", b.after(2*custody.FetchWait), "")
	b.want("counted", b.step(&custody.UsageRead{User: "A-1"}), "put A-1@1 proved false")
	b.want("the row is read behind the one that is put", b.after(time.Second), "read A-1 after 0 before 2 limit 2")
}

func TestWhatIsUnderWayDoesNotExpire(t *testing.T) {
	t.Parallel()
	b := limited(t, custody.Limits{Expire: time.Hour})
	b.login(7, "A-1", 0)
	b.message("A-2", "A-1", 1, false)
	b.after(custody.SpillAfter)
	b.stored("A-1", 2)
	row := mailbox.Row{To: "A-1", Pos: envelope.Position{Generation: 1, Offset: 2}}
	b.want("in flight", b.step(&custody.RowsExpired{Expiration: custody.Expiration{Limit: 256}, Rows: []mailbox.Row{row}}), "")
}

func TestWhatHasExpiredMayBeSentAgainUnderItsID(t *testing.T) {
	t.Parallel()
	b := limited(t, custody.Limits{Expire: time.Hour})
	e := msg("A-2", "A-1", 1, false)
	e.Remember = true
	b.want("first", b.record(e), "put A-1@1 proved false")
	b.stored("A-1", 1)
	again := e
	again.Stream, again.To = 6, []envelope.Recipient{{User: "A-1", N: 1}}
	b.want("it waits, and its client sends it again", b.record(again), "")
	saved := mailbox.LaneState{IDs: b.state.Change(b.now).IDs}
	row := mailbox.Row{To: "A-1", Pos: envelope.Position{Generation: 1, Offset: 1}, ID: e.ID, Record: e.Append(nil)}
	b.step(&custody.RowsExpired{Expiration: custody.Expiration{Limit: 256}, Rows: []mailbox.Row{row}})
	again.Stream = 7
	b.want("while the row is being deleted", b.record(again), "")
	b.step(&custody.Buried{Burial: custody.Burial{Offset: -1, User: "A-1", Record: row.Record, Reason: "EXPIRED"}})
	saved.IDs = append(saved.IDs, b.state.Change(b.now).IDs...)
	again.Stream = 8
	b.want("behind the dead letter", b.record(again), "put A-1@4 proved false")

	next := limited(t, custody.Limits{})
	next.state = custody.New(custody.Config{
		Domain: "d", Lanes: 1, Generation: 1, Network: newWorld(t, 1, custody.Limits{}).net, Saved: saved,
	}, newMetrics(t), next.now)
	next.offset = 0
	next.record(envelope.Envelope{Kind: envelope.KindEpoch})
	again.Stream = 9
	next.want("under the next owner", next.record(again), "put A-1@1 proved false")
	again.Stream = 10
	next.want("but once", next.record(again), "")
}

// replayed is a message as an operator has sent it again.
func replayed(e envelope.Envelope) envelope.Envelope {
	to := e.To[0]
	to.N, to.After = 0, envelope.Mark{}
	e.Stream, e.To, e.Remember, e.Late = 0, []envelope.Recipient{to}, true, true
	return e
}

func TestADeadLetterThatIsSentAgainIsDeliveredOnce(t *testing.T) {
	t.Parallel()
	b := limited(t, custody.Limits{Rows: 1})
	e := msg("A-2", "A-1", 1, false)
	e.Remember = true
	b.record(e)
	b.want("the mailbox is full", b.step(&custody.UsageRead{User: "A-1", Usage: mailbox.Usage{Rows: 1}}), "bury @1 MAILBOX_FULL; "+full)
	b.step(&custody.Buried{Burial: custody.Burial{Offset: 1, Reason: "MAILBOX_FULL"}})
	b.login(7, "A-1", 0)
	b.want("sent again", b.record(replayed(e)), "frame 7/1 m1")
	b.want("and again", b.record(replayed(e)), "")
	b.prove(7, 1)
	b.want("and after it was delivered", b.record(replayed(e)), "")
	b.want("and by its client", b.record(func() envelope.Envelope { e.Stream = 6; return e }()), "")
}

func TestADeadLetterThatIsSentAgainIsNotTakenForWhatAnEarlierOwnerHasRefused(t *testing.T) {
	t.Parallel()
	b, _ := takeOver(t, 90)
	b.record(envelope.Envelope{Kind: envelope.KindEpoch})
	e := msg("A-2", "A-1", 1, false)
	e.Remember = true
	b.step(&custody.RecordRead{Offset: b.offset, Envelope: &e, Fill: true})
	b.offset++
	again := e
	again.Stream = 6
	b.want("its client sends it again", b.record(again), "")
	b.want("an operator does", b.record(replayed(e)), "put A-1@93 proved false")
	b.want("twice", b.record(replayed(e)), "")

	unknown := msg("A-2", "NOBODY-1", 2, false)
	unknown.Remember = true
	b.step(&custody.RecordRead{Offset: b.offset, Envelope: &unknown, Fill: true})
	b.offset++
	again = unknown
	again.Stream = 6
	if got := b.record(again); !strings.Contains(got, "bury @96 UNKNOWN_APP") {
		t.Errorf("what an earlier owner has certainly refused: %q", got)
	}
}
