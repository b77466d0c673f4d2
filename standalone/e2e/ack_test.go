package e2e

import (
	"strconv"
	"testing"
	"time"
)

func TestASocketWithAckGetsNumberedFramesAndProvesThemItself(t *testing.T) {
	t.Parallel()
	a, b := newUser(), newUser()
	sender, receiver := shared.login(t, a), shared.login(t, b, "ack")
	for n := range 5 {
		sender.say(b, strconv.Itoa(n), strconv.Itoa(n))
		if f := receiver.expectMessage(a, strconv.Itoa(n)); f.Seq != uint64(n+1) {
			t.Errorf("got %v, want seq %d", f, n+1)
		}
	}
	sender.works() // nothing is confirmed yet
	receiver.send(`{"type":"MESSAGE_ACK","data":{"upTo":3}}`)
	for n := range 3 {
		sender.expectConfirmation(strconv.Itoa(n))
	}
	receiver.send(`{"type":"MESSAGE_ACK","data":{"upTo":2}}`) // lower than before: ignored
	receiver.send(`{"type":"MESSAGE_ACK","data":{"upTo":0}}`)
	receiver.send(`{"type":"MESSAGE_ACK","data":{"upTo":6},"reference":"r"}`)
	receiver.expectFailure("INVALID_MESSAGE", "INVALID_FIELD", "r", "data.upTo", "5")
	sender.works()
	receiver.send(`{"type":"MESSAGE_ACK","data":{"upTo":5}}`)
	sender.expectConfirmation("3")
	sender.expectConfirmation("4")
}

func TestTheNumbersCountPerSocketAndOnlyWithAck(t *testing.T) {
	t.Parallel()
	a, b := newUser(), newUser()
	store(t, shared, a, b, 3)
	first, plain := shared.login(t, b, "ack"), shared.login(t, b)
	if f := first.expect("MISSING_MESSAGES_AVAILABLE"); f.Seq != 0 || f.Data.Count != 3 {
		t.Errorf("got %v, want 3 and no seq: it is not a delivery", f)
	}
	got, left := first.fetch(2)
	numbers(t, got, 0, 2)
	if left != 1 || got[0].Seq != 1 || got[1].Seq != 2 {
		t.Errorf("got %v, %d left", got, left)
	}
	sender := shared.login(t, a)
	sender.say(b, "live", "")
	if f := first.expectMessage(a, "live"); f.Seq != 3 {
		t.Errorf("got %v, want seq 3", f)
	}
	if f := plain.expectMessage(a, "live"); f.Seq != 0 {
		t.Errorf("got %v, want no seq", f)
	}
	second := shared.login(t, b, "ack")
	second.expect("MISSING_MESSAGES_AVAILABLE") // nothing was acknowledged
	sender.say(b, "more", "")
	if f := second.expectMessage(a, "more"); f.Seq != 1 {
		t.Errorf("got %v, want seq 1", f)
	}
}

func TestWhatWasNotAcknowledgedComesAgain(t *testing.T) {
	t.Parallel()
	a, b := newUser(), newUser()
	sender, receiver := shared.login(t, a), shared.login(t, b, "ack")
	var ids []string
	for n := range 4 {
		sender.say(b, strconv.Itoa(n), "")
		ids = append(ids, receiver.expectMessage(a, strconv.Itoa(n)).ID)
	}
	receiver.send(`{"type":"MESSAGE_ACK","data":{"upTo":2}}`)
	receiver.works() // so the acknowledgement was read; this message is not proved either
	if err := receiver.ws.CloseNow(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	again := shared.login(t, b)
	got := again.fetchUntil(func(got []*frame) bool { return len(got) >= 3 })
	within(t, "to have them again", 2*time.Second, began)
	numbers(t, got[:2], 2, 2)
	if got[0].ID != ids[2] || got[1].ID != ids[3] || got[2].Data.From != b {
		t.Errorf("got %v, want the ids %v", got, ids)
	}
}

func TestAnAcknowledgementWithoutAckIsRefused(t *testing.T) {
	t.Parallel()
	c := shared.login(t, newUser(), "accept", "push")
	c.send(`{"type":"MESSAGE_ACK","data":{"upTo":1},"reference":"r"}`)
	c.expectFailure("INVALID_MESSAGE", "INVALID_FIELD", "r", "ack")
	c.works()
}
