package custody_test

import (
	"strings"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/processor/internal/custody"
)

// released is the record by which a message that was held back goes on.
func released(e envelope.Envelope) envelope.Envelope {
	e.Released = true
	return e
}

func TestWhatHasOvertakenWaitsAndGoesOnBehindTheOthers(t *testing.T) {
	t.Parallel()
	b := newCrossing(t)
	b.want("the second", b.cross(came(5, 2, envelope.Mark{})), "")
	b.want("its copy", b.cross(came(5, 2, envelope.Mark{})), "")
	b.wantLow(1)
	b.want("the first", b.cross(came(5, 1, envelope.Mark{})), "put A-1@3 proved false; produce message")
	b.want("the second again", b.cross(released(came(5, 2, envelope.Mark{}))), "put A-1@4 proved false")
	b.wantLow(1) // its own record ends with what takes its place
	b.storedAll()
	b.tick(0)
	b.wantLow(5)
}

func TestAStreamWaitsForTheOneThatItFollows(t *testing.T) {
	t.Parallel()
	b := newCrossing(t)
	b.want("the new stream", b.cross(came(6, 1, envelope.Mark{Stream: 5, N: 1})), "")
	b.want("the last of the old one", b.cross(came(5, 1, envelope.Mark{})), "put A-1@2 proved false; produce message")
}

func TestWhatIsHeldBackForASecondIsStoredAndItsRowGoesLast(t *testing.T) {
	t.Parallel()
	b := newCrossing(t)
	b.cross(came(5, 2, envelope.Mark{}))
	b.want("after a second", b.tick(time.Second), "put hold/A-1@1 proved false")
	b.storedAll()
	b.wantLow(2)
	b.cross(came(5, 1, envelope.Mark{}))
	b.cross(released(came(5, 2, envelope.Mark{})))
	b.want("before it is settled", b.tick(0), "")
	b.storedAll()
	b.want("then", b.tick(0), "delete hold/A-1@1")
}

func TestAfterTheHoldMessagesGoOnAndStragglersAreLate(t *testing.T) {
	t.Parallel()
	b := newCrossing(t)
	b.cross(came(5, 2, envelope.Mark{}))
	b.tick(time.Second)
	b.storedAll()
	b.want("not yet", b.tick(custody.HoldFor-time.Second-1), "")
	b.want("now", b.tick(1), "produce message")
	b.want("again", b.cross(released(came(5, 2, envelope.Mark{}))), "put A-1@2 proved false")
	e := came(5, 1, envelope.Mark{})
	b.offset++
	b.state.Step(b.now, &custody.RecordRead{Offset: b.offset - 1, Envelope: &e}, &b.fx)
	if len(b.fx.Put) != 1 {
		t.Fatalf("the straggler is not stored: %s", describe(&b.fx))
	}
	if row, err := envelope.Decode(b.fx.Put[0].Record); err != nil || !row.Late {
		t.Errorf("the straggler is not marked as late: %v", err)
	}
}

func TestANewOwnerGoesOnWithWhatIsHeldBack(t *testing.T) {
	t.Parallel()
	e := came(5, 2, envelope.Mark{})
	pos := envelope.Position{Generation: 1, Offset: 3}
	b := &bench{t: t, now: begin, offset: 3}
	b.state = custody.New(custody.Config{
		Domain: "d", Lanes: 1, Generation: 1, Epoch: 5, Next: 3, Network: regions(t, 1, "d", "e"),
		Held: []mailbox.Row{{To: "hold/A-1", Pos: pos, Stored: begin.Unix(), Record: e.Append(nil)}},
	}, newMetrics(t), begin)
	b.crossing(&custody.RecordRead{Offset: 3, Envelope: &e, Fill: true}) // of which only the row is left
	e = came(5, 1, envelope.Mark{})
	b.offset = 4
	b.want("the first", b.cross(e), "put A-1@4 proved false; produce message")
	b.cross(envelope.Envelope{Kind: envelope.KindEpoch})
	b.want("the second goes on", b.cross(released(came(5, 2, envelope.Mark{}))), "put A-1@6 proved false")
}

func TestADuplicateOfWhatWasDeliveredIsNotHeldBack(t *testing.T) {
	t.Parallel()
	b := newCrossing(t)
	b.cross(came(5, 1, envelope.Mark{}))
	if got := b.cross(came(5, 1, envelope.Mark{Stream: 4, N: 9})); strings.Contains(got, "put") {
		t.Errorf("it is stored again: %s", got)
	}
	b.stored("A-1", 1)
	b.wantLow(3)
}
