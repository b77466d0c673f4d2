package e2e

import (
	"strconv"
	"testing"
)

func TestPushBringsEverythingStoredBeforeAnythingNewer(t *testing.T) {
	t.Parallel()
	const stored, live = 1500, 300
	a, b := newUser(), newUser()
	store(t, shared, a, b, stored)
	sender := shared.login(t, a)
	receiver := shared.login(t, b, "push")
	if f := receiver.expect("MISSING_MESSAGES_AVAILABLE"); f.Data.Count != stored {
		t.Errorf("got %v, want %d", f, stored)
	}
	for n := range live {
		sender.say(b, strconv.Itoa(stored+n), "")
	}
	for n := range stored + live {
		receiver.expectMessage(a, strconv.Itoa(n))
	}
	receiver.works()
	if got, left := receiver.fetch(100); len(got) != 0 || left != 0 {
		t.Errorf("got %v, %d left to fetch", got, left)
	}
}

func TestWhatWasPushedIsConfirmedAndNotStoredAnyMore(t *testing.T) {
	t.Parallel()
	a, b := newUser(), newUser()
	sender := shared.login(t, a, "accept")
	sender.say(b, "pushed", "r")
	sender.expect("MESSAGE_ACCEPTED")
	receiver := shared.login(t, b, "push")
	receiver.expect("MISSING_MESSAGES_AVAILABLE")
	receiver.expectMessage(a, "pushed")
	sender.expectConfirmation("r")
	receiver.leave()
	receiver = shared.login(t, b, "push")
	receiver.works()
}
