package e2e

import (
	"net"
	"strconv"
	"testing"
	"time"
)

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

// A socket that takes nothing for 30 s is closed; what it did not read is there
// at the next login, in order.
func TestASocketThatReadsNothingFor30SecondsIsClosedAndLosesNothing(t *testing.T) {
	t.Parallel()
	const count, size = 250, 20_000
	app, boss := newApp(t)
	master, user := shared.login(t, boss), userOf(app)
	r := loginRaw(t, shared.WebsocketURL(), user)
	master.expectPresence("USER_CONNECTED", user)
	sender := shared.login(t, userOf(app), "accept")
	master.expectPresence("USER_CONNECTED", sender.user)
	began := time.Now()
	for n := range count {
		sender.say(user, padded(n, size), "")
		sender.expect("MESSAGE_ACCEPTED")
	}
	sent := time.Now()
	f, err := master.receive(time.Minute)
	if err != nil || f.Type != "USER_DISCONNECTED" || f.Data.UserID != user {
		t.Fatalf("got %v, %v, want that the user has gone", f, err)
	}
	if early, late := time.Since(began), time.Since(sent); early < 29*time.Second || late > 45*time.Second {
		t.Errorf("it was closed %v after the first message and %v after the last, want 30 s", early, late)
	}
	r.within(t, patience)
	if code := r.closeCode(t); code != 4408 && code != -1 { // cut, if the close frame found no room
		t.Errorf("got close code %d, want 4408", code)
	}
	got, left := shared.login(t, user).fetch(2000)
	if len(got) != count || left != 0 {
		t.Fatalf("got %d, %d left, want all %d", len(got), left, count)
	}
	for n, f := range got {
		if f.Data.Content != padded(n, size) {
			t.Fatalf("got %v, want %d", f, n)
		}
	}
}

// A socket that never answers pings has proved nothing, whatever its kernel took.
func TestASocketThatNeverAnswersPingsLosesNothing(t *testing.T) {
	t.Parallel()
	const count = 50
	a, b := newUser(), newUser()
	mute := loginRaw(t, shared.WebsocketURL(), b)
	sender := shared.login(t, a)
	for n := range count {
		sender.say(b, strconv.Itoa(n), strconv.Itoa(n))
	}
	var seen []*frame
	for range count {
		seen = append(seen, mute.frame(t))
	}
	numbers(t, seen, 0, count)
	sender.works() // nothing is confirmed
	c := shared.login(t, b)
	got := c.fetchUntil(func(got []*frame) bool { return len(got) >= count })
	numbers(t, got, 0, count)
	for n, f := range seen {
		if got[n].ID != f.ID {
			t.Fatalf("%v came again as %v", f, got[n])
		}
	}
	confirmed := map[string]bool{}
	for range count {
		confirmed[sender.expect("MESSAGE_CONFIRMATION").Data.Reference] = true
	}
	if len(confirmed) != count {
		t.Errorf("%d messages were confirmed, want %d", len(confirmed), count)
	}
	sender.works()
	sender.say(b, "newer", "newer")
	c.expectMessage(a, "newer")
	if f := mute.frame(t); f.Data.Content != "newer" {
		t.Errorf("got %v", f)
	}
	sender.expectConfirmation("newer")
}

// The server pings an idle socket every 25 s; one that answers stays.
func TestAnIdleSocketStaysAsLongAsItAnswersPings(t *testing.T) {
	t.Parallel()
	r := loginRaw(t, shared.WebsocketURL(), newUser())
	began := time.Now()
	r.within(t, 30*time.Second)
	op, payload, err := r.read()
	if err != nil || op != opPing || time.Since(began) < 24*time.Second {
		t.Fatalf("after %v: got %x %q, %v, want a ping after 25 s", time.Since(began), op, payload, err)
	}
	r.bytes(t, masked(fin|opPong, payload))
	r.within(t, 12*time.Second)
	_, payload, err = r.read()
	if timeout, ok := err.(net.Error); !ok || !timeout.Timeout() {
		t.Fatalf("37 s after the login: got %q, %v, want nothing", payload, err)
	}
	r.within(t, patience)
	r.text(t, `{}`)
	if f := r.frame(t); f.Data.Code != "UNKNOWN_TYPE" {
		t.Errorf("got %v", f)
	}
}
