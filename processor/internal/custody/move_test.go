package custody_test

import (
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/processor/internal/custody"
)

// rowOf is what the mailbox holds of a message.
func rowOf(e envelope.Envelope, offset int64) mailbox.Row {
	return mailbox.Row{To: string(e.User()), Pos: envelope.Position{Generation: 1, Offset: offset}, ID: e.ID, Record: e.Append(nil)}
}

// away lets A-1, for whom a message waits, move from d to e, and returns the record by
// which that message goes after it.
func away(t *testing.T) (*bench, envelope.Envelope) {
	t.Helper()
	b := newCrossing(t)
	e := msg("A-2", "A-1", 1, false)
	b.cross(e)
	b.stored("A-1", 1)
	b.crossing(&custody.NetworkChanged{Network: regions(t, 2, "e", "e")})
	b.state.Step(b.now, &custody.Ticked{}, &b.fx)
	if len(b.fx.Lists) != 1 {
		t.Fatalf("nobody looks for what has to move: %s", describe(&b.fx))
	}
	list := b.fx.Lists[0]
	b.fx.Reset()
	b.want("listed", b.crossing(&custody.TargetsListed{List: list, Targets: []string{"A-1"}}), "read A-1 after 0 before 0 limit 256")
	read := custody.Read{Purpose: custody.ForMove, Query: mailbox.Query{To: "A-1"}}
	b.state.Step(b.now, &custody.RowsRead{Read: read, Rows: []mailbox.Row{rowOf(e, 1)}}, &b.fx)
	if len(b.fx.Produce) != 1 || !b.fx.Produce[0].Envelope.Moved {
		t.Fatalf("the row is not written into the lane: %s", describe(&b.fx))
	}
	moved := b.fx.Produce[0].Envelope
	b.fx.Reset()
	return b, moved
}

func TestStoredMessagesFollowTheirReceiverAndThenItsWindows(t *testing.T) {
	t.Parallel()
	b, moved := away(t)
	b.offset++
	b.state.Step(b.now, &custody.RecordRead{Offset: b.offset - 1, Envelope: &moved}, &b.fx)
	b.want("read", describe(&b.fx), "put link/e/0@2 proved false; delete A-1@1; produce windows")
	windows := b.fx.Produce[0].Envelope
	b.fx.Reset()
	b.offset++
	b.state.Step(b.now, &custody.RecordRead{Offset: b.offset - 1, Envelope: &windows}, &b.fx)
	e, err := envelope.Decode(b.fx.Put[0].Record)
	if err != nil {
		t.Fatal(err)
	}
	w, err := envelope.DecodeWindows(e.Frame)
	if err != nil || !w.Last || len(w.Streams) != 1 || w.Streams[0].High != 1 || len(w.Streams[0].Missing) != 1 {
		t.Errorf("the windows count as taken what is still on its way: %+v, %v", w, err)
	}
}

func TestWhoComesBackBeforeAMessageHasLeftKeepsItsRow(t *testing.T) {
	t.Parallel()
	b, moved := away(t)
	b.crossing(&custody.NetworkChanged{Network: regions(t, 3, "d", "e")})
	b.want("read", b.cross(moved), "")
	b.wantLow(3)
}

func TestWhoLeavesForGoodAfterComingBackIsSentItsMessagesBeforeItsWindows(t *testing.T) {
	t.Parallel()
	b, moved := away(t)
	b.crossing(&custody.NetworkChanged{Network: regions(t, 3, "d", "e")})
	b.want("it stays", b.cross(moved), "")
	b.crossing(&custody.NetworkChanged{Network: regions(t, 4, "e", "e")})
	b.want("its windows say that it was taken", b.after(100*time.Millisecond), "")
	b.now = b.now.Add(5 * time.Second)
	b.state.Step(b.now, &custody.Ticked{}, &b.fx)
	if len(b.fx.Lists) != 1 || len(b.fx.Produce) > 0 {
		t.Fatalf("%d looks for what has to move: %s", len(b.fx.Lists), describe(&b.fx))
	}
	list := b.fx.Lists[0]
	b.fx.Reset()
	b.want("listed", b.crossing(&custody.TargetsListed{List: list, Targets: []string{"A-1"}}), "read A-1 after 0 before 0 limit 256")
}

func TestWhatHasLeftIsTakenWhenItComesBack(t *testing.T) {
	t.Parallel()
	b, moved := away(t)
	b.cross(moved)
	b.stored("link/e/0", 2)
	b.crossing(&custody.NetworkChanged{Network: regions(t, 3, "d", "e")})
	moved.Released, moved.Path = false, []string{"d", "e"}
	b.want("back", b.cross(moved), "put A-1@3 proved false")
	b.want("and once only", b.cross(moved), "")
}

func TestMessagesForWhoHasJustMovedHereWaitForWhatItsFormerHomeSends(t *testing.T) {
	t.Parallel()
	b := newCrossing(t)
	b.crossing(&custody.NetworkChanged{Network: regions(t, 2, "d", "d", "f")})
	b.want("a new message", b.cross(msg("A-1", "A-101", 8, false)), "")
	old := msg("A-1", "A-101", 7, false)
	old.Path, old.Moved, old.ID = []string{"e"}, true, ident.MessageID{7}
	b.want("an old one", b.cross(old), "put A-101@2 proved false")
	w := envelope.Windows{Last: true, Streams: []envelope.StreamWindow{{Stream: 5, High: 7, Missing: []uint64{7}}}}
	windows := envelope.Envelope{Kind: envelope.KindWindows, To: old.To, Frame: w.Append(nil), Moved: true, Path: []string{"f"}}
	b.want("windows of somebody else", b.cross(windows), "")
	windows.Path = []string{"e"}
	b.want("windows of its former home", b.cross(windows), "produce message")
}
