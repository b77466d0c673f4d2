package downlink_test

import (
	"testing"

	"github.com/linkerhq/linker/pkg/trace"
)

func TestADeliveryIsTracedOnceItIsWithItsSession(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	_, c := f.login(7)
	f.deliver(1, frame(7, 1, 9))
	c.Read()
	f.deliver(1, frame(7, 1, 9))                 // again
	f.deliver(1, frame(7, 3, 8), frame(8, 1, 8)) // a gap, and a session that is not here
	events := f.trace.Find(frame(7, 1, 9).ID)
	if len(events) != 1 {
		t.Fatalf("got %+v", events)
	}
	e := events[0]
	if e.Kind != trace.Reached || e.User != "ANZ-1" || e.Session != 7 || e.Lane != 1 || e.Offset != frame(7, 1, 9).Pos.Offset || e.At.IsZero() {
		t.Errorf("got %+v", e)
	}
	if got := f.trace.Find(frame(7, 3, 8).ID); len(got) != 0 {
		t.Errorf("what was not taken: %+v", got)
	}
	if got := f.trace.Added(); got != 1 {
		t.Errorf("%d events", got)
	}
}
