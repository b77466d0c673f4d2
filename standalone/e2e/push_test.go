package e2e

import (
	"strconv"
	"testing"
	"time"
)

func TestPushBringsEverythingStoredBeforeAnythingNewer(t *testing.T) {
	t.Parallel()
	const stored, live = 1500, 300
	a, b := newUser(), newUser()
	store(t, shared, a, b, stored)
	sender := shared.login(t, a)
	receiver := shared.login(t, b, "push")
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
	receiver.expectMessage(a, "pushed")
	sender.expectConfirmation("r")
	receiver.leave()
	receiver = shared.login(t, b, "push")
	receiver.works()
}

// A socket that stops reading for a while gets everything later, in order, and
// nobody else notices.
func TestASlowReaderGetsEverythingLaterAndHarmsNobody(t *testing.T) {
	t.Parallel()
	for name, features := range map[string][]string{"base protocol": nil, "push": {"push"}, "ack": {"ack"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const count, size = 250, 20_000 // 5 MB
			a, b := newUser(), newUser()
			slow := loginRaw(t, shared.WebsocketURL(), b, features...)
			sender := shared.login(t, a, "accept")
			other := shared.login(t, b)
			for n := range count {
				sender.say(b, padded(n, size), "")
				sender.expect("MESSAGE_ACCEPTED")
			}
			for n := range count {
				if f := other.expect("MESSAGE"); f.Data.Content != padded(n, size) {
					t.Fatalf("got %v, want %d", f, n)
				}
			}
			third := shared.login(t, newUser())
			for n := range 20 {
				began := time.Now()
				sender.say(third.user, strconv.Itoa(n), "")
				third.expectMessage(a, strconv.Itoa(n))
				sender.expect("MESSAGE_ACCEPTED")
				within(t, "a message between two others", 500*time.Millisecond, began)
			}
			slow.within(t, patience)
			for n := range count {
				f := slow.answer(t)
				if f.Data.Content != padded(n, size) {
					t.Fatalf("got %v, want %d", f, n)
				}
				if f.Seq != 0 {
					slow.text(t, `{"type":"MESSAGE_ACK","data":{"upTo":`+strconv.FormatUint(f.Seq, 10)+`}}`)
				}
			}
			last := shared.login(t, b)
			if got, left := last.fetch(2000); len(got) != 0 || left != 0 {
				t.Errorf("%d frames and %d left to fetch after everything was read", len(got), left)
			}
		})
	}
}

// padded is a content that begins with a number.
func padded(n, size int) string {
	b := strconv.AppendInt(make([]byte, 0, size), int64(n), 10)
	for len(b) < size {
		b = append(b, '.')
	}
	return string(b)
}
