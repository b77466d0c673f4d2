package custody_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/delivery"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/processor/internal/custody"
)

func at(offset int64) envelope.Position { return envelope.Position{Generation: 1, Offset: offset} }

// takeOver returns the bench of an owner whose epoch record is offset 100, which
// reads from next on, and to which c1 has told its sessions.
func takeOver(t *testing.T, next int64, sessions ...delivery.SessionState) (b *bench, first string) {
	t.Helper()
	b = newBench(t)
	b.offset = next
	b.state = custody.New(custody.Config{Domain: "d", Lanes: 1, Generation: 1, Epoch: 100, Next: next, Network: newWorld(t, 1, custody.Limits{}).net}, newMetrics(t), b.now)
	return b, b.step(joined(sessions...))
}

func joined(sessions ...delivery.SessionState) custody.Answered {
	return custody.Answered{Answers: &delivery.Answers{Epoch: at(100), Connector: c1, Join: delivery.Join{Parts: 1}, Sessions: sessions}}
}

func session(id uint64, user ident.UserID, l, last int64) delivery.SessionState {
	return delivery.SessionState{Progress: delivery.Progress{Session: id, Taken: 5, Proved: 5}, User: user, L: at(l), Last: at(last)}
}

func TestStoredRowsAreNotSentBeforeTheRecordsThatLieBeforeThem(t *testing.T) {
	t.Parallel()
	b, first := takeOver(t, 98, session(7, "A-1", 10, 97))
	b.want("joined", first, "")
	b.want("record", b.message("A-2", "A-1", 1, false), "put A-1@98 proved false")
	b.record(msg("A-2", "A-1", 2, false))
	b.want("epoch", b.record(envelope.Envelope{Kind: envelope.KindEpoch}), "read A-1 after 10 before 0 limit 256; load A-1")
}

func TestACompletedFetchIsNotServedAgainByTheNextOwner(t *testing.T) {
	t.Parallel()
	b, _ := takeOver(t, 90, session(7, "A-1", 10, 49))
	fetch := envelope.Envelope{Kind: envelope.KindFetch, To: to("A-1"), Session: 7, Connector: c1, Request: 1, Count: 2}
	b.want("fetch of before", b.record(fetch), "")
}

func TestSessionsThatShareAreOwedWhatTheFirstOfThemIs(t *testing.T) {
	t.Parallel()
	b, _ := takeOver(t, 100, session(8, "O-0", 80, 0), session(7, "O-0", 10, 0))
	b.want("epoch", b.record(envelope.Envelope{Kind: envelope.KindEpoch}), "read O-0 after 10 before 0 limit 256")
}

func TestASessionThatHasLoggedOutIsNotAdoptedByALateAnswer(t *testing.T) {
	t.Parallel()
	b, _ := takeOver(t, 100)
	b.record(envelope.Envelope{Kind: envelope.KindEpoch})
	b.record(envelope.Envelope{Kind: envelope.KindLogout, To: to("A-1"), Session: 7, Connector: c1})
	b.step(&custody.Loaded{User: "A-1", Found: true, Announced: mailbox.Announced{User: "A-1", Connected: true, N: 1, Pos: at(10)}})
	b.want("answer", b.step(joined(session(7, "A-1", 10, 49))), "")
	if n := b.state.Sessions(); n != 0 {
		t.Errorf("%d sessions, want none", n)
	}
}

func TestNumbersFromBeforeThisOwnerProveNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.login(7, "A-1", 0)
	b.message("A-2", "A-1", 1, false)
	b.want("progress beyond what was sent", b.prove(7, 5), "put A-1@2 proved false")
	if ask := b.state.Unheard([]ident.Connector{c1}); len(ask) != 1 || len(b.state.Unadopted()) != 1 {
		t.Error("the connector is not asked for its numbers")
	}
	b.wantLow(2)
}

func TestWhatIsBeingConfirmedAfterASecondIsStoredAsWell(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.login(7, "A-1", 0)
	b.login(8, "A-1", envelope.FeatureAck) // never acknowledges
	offset := b.offset
	b.message("A-2", "A-1", 1, true)
	b.after(990 * time.Millisecond)
	b.want("proof", b.prove(7, 1), "produce confirmation")
	b.want("after a second", b.after(20*time.Millisecond), fmt.Sprintf("put A-1@%d proved false", offset))
	b.want("confirmed", b.step(&custody.Produced{Token: custody.Token{Confirms: at(offset), User: "A-1"}}), "")
	b.want("stored", b.stored("A-1", offset), fmt.Sprintf("mark A-1@%d", offset))
	b.wantLow(offset + 1)
}

func TestAFastSessionBesideASlowOneFillsNoMemory(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.login(7, "A-1", 0)
	b.login(8, "A-1", envelope.FeatureAck) // never acknowledges
	const messages = 5000
	for n := range uint64(messages) {
		offset := b.offset
		b.message("A-2", "A-1", n+1, false)
		b.stored("A-1", offset)
		b.prove(7, n+1)
	}
	if held, window := b.state.Held(), custody.WindowRecords*200; held > window {
		t.Errorf("%d bytes of %d messages are held, want at most a window of %d", held, messages, window)
	}
}

func TestSlowSocketsNeitherFillTheMemoryNorHoldUpTheLane(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	frame := make([]byte, 60<<10)
	for u := range uint64(300) {
		user := ident.UserID(fmt.Sprintf("A-%d", u+10))
		b.login(u+1, user, envelope.FeatureAck)
		for n := range uint64(4) {
			e := msg("A-2", user, n+1, false)
			e.Frame = frame
			offset := b.offset
			b.record(e)
			b.step(custody.Answered{Answers: &delivery.Answers{
				Epoch: at(0), Connector: c1, Progress: []delivery.Progress{{Session: u + 1, Taken: n + 1}},
			}})
			b.after(time.Second)
			b.stored(user, offset)
		}
	}
	if logged, held := b.state.Logged(), b.state.Held(); logged != 0 || held > 40<<20 {
		t.Errorf("%d bytes are in the log's custody, want none; %d MiB are held, want at most 40", logged, held>>20)
	}
	// What was forgotten is read again when its proof comes.
	b.want("proof", b.prove(1, 1), "read A-10 after 1 before 3 limit 1")
	e := msg("A-2", "A-10", 1, false)
	row := mailbox.Row{To: "A-10", Pos: at(2), ID: e.ID, Record: e.Append(nil)}
	read := custody.Read{Purpose: custody.ForProof, Query: mailbox.Query{To: "A-10", After: at(1), Before: at(3)}}
	b.want("its row", b.step(&custody.RowsRead{Read: read, Rows: []mailbox.Row{row}}), "delete A-10@2")
}

func TestARaisedGenerationBeginsAtItsOwnOffsets(t *testing.T) {
	t.Parallel()
	saved := mailbox.LaneState{Position: envelope.Position{Generation: 1, Offset: 1_000_000}}
	s := custody.New(custody.Config{Domain: "d", Lanes: 1, Generation: 2, Saved: saved, Network: newWorld(t, 1, custody.Limits{}).net}, newMetrics(t), begin)
	if got, want := s.Change(begin).Position, (envelope.Position{Generation: 2}); got != want {
		t.Errorf("saved %v, want %v", got, want)
	}
}

func TestUnderSteadyTrafficATargetBecomesLiveAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3, custody.Limits{})
	w.settle()
	s := w.login("A-1", 0)
	w.settle()
	w.take() // the next owner finds it behind
	behind := 0
	for range 300 {
		for range 3 { // three messages for each turn of the store
			w.send("A-2", "A-1", false)
			w.readOne()
		}
		w.readOne()
		for range 40 {
			w.networkOne()
		}
		w.prove(s)
		for range len(w.jobs) {
			w.storeOne()
		}
		w.send("A-2", "A-1", false)
		w.readOne()
		for w.resultOne() {
		}
		for range 40 {
			w.networkOne()
		}
		w.prove(s)
		behind += w.state.Behind()
	}
	if behind > 10 {
		t.Errorf("behind in %d of 300 rounds", behind)
	}
}

// What asks how far a session is carries no frame, since only the mailbox has it. A row of
// the same record that is read meanwhile for somebody else goes out with its own.
func TestAQuestionWithoutAFrameTakesNobodyElsesMessageAway(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	at := func(o int64) envelope.Position { return envelope.Position{Generation: 1, Offset: o} }
	id := ident.GroupMessageID(5, 1)
	// An earlier owner has sent it to session 1, which has not proved it, and stored it for A-2.
	b.step(custody.Answered{Answers: &delivery.Answers{
		Epoch: at(0), Connector: c1, Join: delivery.Join{Serial: 1, Parts: 1},
		Sessions: []delivery.SessionState{{
			Progress: delivery.Progress{Session: 1, Taken: 1}, User: "A-1", L: at(-9), Last: at(-5), Unproved: []delivery.Unproved{{D: 1, Pos: at(-5), ID: id}},
		}},
	}})
	b.record(envelope.Envelope{Kind: envelope.KindLogin, To: []envelope.Recipient{{User: "A-2"}}, Session: 2, Connector: c1, Features: envelope.FeaturePush})
	stored := envelope.Envelope{
		Kind: envelope.KindMessage, From: "A-9", Stream: 5, ID: id, To: []envelope.Recipient{{User: "A-2", N: 1}}, Frame: []byte(`{"type":"MESSAGE"}`),
	}
	b.now = b.now.Add(2100 * time.Millisecond)
	b.fx.Reset()
	b.state.Step(b.now, &custody.Ticked{}, &b.fx)
	sent := func() bool {
		for _, d := range b.fx.Deliveries {
			for _, to := range d.Item.Targets {
				if to.Session == 2 {
					if len(d.Item.Frame) == 0 {
						t.Errorf("session 2 gets an empty frame")
					}
					return true
				}
			}
		}
		return false
	}
	for serial := uint64(1); serial < 6 && !sent(); serial++ {
		b.state.Step(b.now, &custody.RowsRead{
			Read: custody.Read{Purpose: custody.ForTarget, Session: 2, Serial: serial, Query: mailbox.Query{To: "A-2"}},
			Rows: []mailbox.Row{{To: "A-2", Pos: at(-5), ID: id, Record: stored.Encode()}},
		}, &b.fx)
	}
	if !sent() {
		t.Error("session 2 gets nothing")
	}
}
