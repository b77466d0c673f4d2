package uplink_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
)

// traced are the events of a message as words.
func (f *fixture) traced(id ident.MessageID) string {
	var text strings.Builder
	for _, e := range f.trace.Find(id) {
		text.WriteString(fmt.Sprintf("%s for %s%d session %d lane %d offset %d towards %q %v %s; ", e.Kind, e.User, e.Users, e.Session, e.Lane, e.Offset, e.Peer, e.Road, e.Reason))
		if e.At.IsZero() {
			f.t.Errorf("%s has no time", e.Kind)
		}
	}
	return text.String()
}

func TestWhatTheLogHasIsTracedBeforeTheClientHearsOfIt(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "ANZ-2", envelope.FeatureAccept)
	f.c.Send(message("ANZ-3", ""))
	r := f.next()
	if got := f.traced(r.ID); got != "" {
		t.Errorf("before the log has it: %s", got)
	}
	r.done(30, nil)
	f.want(`"MESSAGE_ACCEPTED"`)
	if got, want := f.traced(r.ID), fmt.Sprintf("accepted for ANZ-30 session 7 lane %d offset 30 towards \"\" false ; ", r.lane); got != want {
		t.Errorf("got %s, want %s", got, want)
	}

	f.c.Send(message("ANZ-3", ""))
	r = f.next()
	r.done(-1, errors.New("away"))
	f.want(`"DELIVER_FAILED"`)
	if got, want := f.traced(r.ID), fmt.Sprintf("refused for ANZ-30 session 7 lane %d offset -1 towards \"\" false QUEUE_UNAVAILABLE; ", r.lane); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestEachRecordOfAGroupIsTraced(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "ANZ-2", envelope.FeatureAccept)
	f.c.Send(`{"type":"GROUP_MESSAGE","data":{"to":["ANZ-3","ANZ-4","ANZ-5","ANZ-6","ANZ-7","ANZ-8","ANZ-9"],"content":"x"}}`)
	want, members := "", 0
	var id ident.MessageID
	for n := int64(5); members < 7; n++ {
		r := f.next()
		who := fmt.Sprint(len(r.To))
		if len(r.To) == 1 {
			who = string(r.User()) + "0"
		}
		want += fmt.Sprintf("accepted for %s session 7 lane %d offset %d towards \"\" false ; ", who, r.lane, n)
		members, id = members+len(r.To), r.ID
		r.done(n, nil)
	}
	f.want(`"MESSAGE_ACCEPTED"`)
	if got := f.traced(id); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
