package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

func TestAMessageIsAcceptedWithItsReferenceAndID(t *testing.T) {
	t.Parallel()
	a, b := newUser(), newUser()
	sender, receiver := shared.login(t, a, "accept"), shared.login(t, b)
	sender.send(`{"type":"MESSAGE","data":{"to":"%s","content":"x"},"reference":"abc","confirmationEnabled":false}`, b)
	f := sender.expect("MESSAGE_ACCEPTED")
	id := receiver.expectMessage(a, "x").ID
	if want := `{"type":"MESSAGE_ACCEPTED","data":{"reference":"abc","id":"` + id + `"}}`; f.raw != want {
		t.Errorf("got %s, want %s", f.raw, want)
	}
	sender.send(`{"type":"MESSAGE","data":{"to":"%s","content":"y"}}`, b)
	f = sender.expect("MESSAGE_ACCEPTED")
	if want := `{"type":"MESSAGE_ACCEPTED","data":{"id":"` + receiver.expectMessage(a, "y").ID + `"}}`; f.raw != want {
		t.Errorf("got %s, want %s", f.raw, want)
	}
}

func TestOnlySocketsThatWantToHearThatAMessageWasAccepted(t *testing.T) {
	t.Parallel()
	receiver := shared.login(t, newUser())
	for _, c := range []*client{
		shared.login(t, newUser()), shared.loginWithHints(t, newUser()), shared.login(t, newUser(), "push", "unknown"),
	} {
		c.say(receiver.user, "x", "r")
		receiver.expectMessage(c.user, "x")
		c.expectConfirmation("r")
	}
	for _, c := range []*client{shared.login(t, newUser()), shared.login(t, newUser(), "accept")} {
		c.sayFast(receiver.user, "fast", "r")
		receiver.expectMessage(c.user, "fast")
		c.expectConfirmation("r") // FAST is never durable, so never accepted
	}
}

func TestAcceptancesComeInTheOrderSent(t *testing.T) {
	t.Parallel()
	const count = 500
	sender, b := shared.login(t, newUser(), "accept"), newUser()
	go func() {
		for n := range count {
			if err := sender.write(message(b, "x", strconv.Itoa(n), "RELIABLE")); err != nil {
				t.Error(err)
			}
		}
	}()
	for n := range count {
		if f := sender.expect("MESSAGE_ACCEPTED"); f.Data.Reference != strconv.Itoa(n) {
			t.Fatalf("got %v, want %d", f, n)
		}
	}
}

// named is a message with an id of its client.
func named(to, content, id string) string {
	return fmt.Sprintf(`{"type":"MESSAGE","data":{"to":%s,"content":%s},"id":%s,"reference":%s}`, quoted(to), quoted(content), quoted(id), quoted("ref "+id))
}

func TestAClientIDIsTakenOnce(t *testing.T) {
	t.Parallel()
	a, b := newUser(), newUser()
	receiver := shared.login(t, b)
	id := strings.Repeat("ü", 64)
	var ids []string
	for range 3 { // as a client that lost the answer does: on a new connection
		sender := shared.login(t, a, "accept")
		for range 2 {
			sender.send("%s", named(b, "once", id))
			f := sender.next()
			for f.Type == "MESSAGE_CONFIRMATION" { // of the first one, whose receipt it proves
				f = sender.next()
			}
			if f.Type != "MESSAGE_ACCEPTED" || f.Data.Reference != "ref "+id {
				t.Fatalf("got %v", f)
			}
			ids = append(ids, f.Data.ID)
		}
	}
	other := shared.login(t, newUser(), "accept")
	other.send("%s", named(b, "from another sender", id))
	if got := receiver.expectMessage(a, "once").ID; got != ids[0] {
		t.Errorf("accepted as %s, delivered as %s", ids[0], got)
	}
	receiver.expectMessage(other.user, "from another sender")
	for _, got := range ids {
		if got != ids[0] {
			t.Errorf("the same message was accepted as %v", ids)
		}
	}
}

// An id belongs to a message that is accepted: to another receiver it names
// another one, with a confirmation of its own, and FAST takes no notice of it.
func TestAClientIDIsOfOneReceiverAndNotOfFast(t *testing.T) {
	t.Parallel()
	first, second := shared.login(t, newUser()), shared.login(t, newUser())
	sender := shared.login(t, newUser(), "accept")
	seen := map[string]bool{}
	for _, to := range []*client{first, second} {
		sender.send("%s", named(to.user, "hello", "mine"))
		id := sender.expect("MESSAGE_ACCEPTED").Data.ID
		if got := to.expectMessage(sender.user, "hello").ID; got != id || seen[id] {
			t.Errorf("accepted as %s, delivered as %s, seen %v", id, got, seen)
		}
		seen[id] = true
		sender.expectConfirmation("ref mine")
	}
	for n := range 2 {
		sender.send(`{"type":"MESSAGE","feature":"FAST","id":"mine","data":{"to":%s,"content":"fast"},"reference":"f%d"}`, quoted(first.user), n)
		if got := first.expectMessage(sender.user, "fast").ID; seen[got] {
			t.Errorf("%s names two messages", got)
		} else {
			seen[got] = true
		}
		sender.expectConfirmation(fmt.Sprintf("f%d", n))
	}
}

func TestAClientIDIsTakenOnceForAnAbsentReceiverAndForAGroup(t *testing.T) {
	t.Parallel()
	sender, b, c := shared.login(t, newUser(), "accept"), newUser(), newUser()
	for range 3 {
		sender.send("%s", named(b, "stored once", "id-1"))
		sender.expect("MESSAGE_ACCEPTED")
		sender.send(`{"type":"GROUP_MESSAGE","data":{"to":["%s","%s"],"content":"group once"},"id":"id-2"}`, b, c)
		sender.expect("MESSAGE_ACCEPTED")
	}
	for user, want := range map[string][]string{b: {"stored once", "group once"}, c: {"group once"}} {
		got, left := shared.login(t, user).fetch(100)
		if len(got) != len(want) || left != 0 {
			t.Fatalf("%s: got %v, %d left", user, got, left)
		}
		for i, f := range got {
			if f.Data.Content != want[i] {
				t.Errorf("%s: got %v, want %s", user, f, want[i])
			}
		}
	}
}

func TestABadClientIDIsRefused(t *testing.T) {
	t.Parallel()
	a, b := newUser(), newUser()
	sender, receiver := shared.login(t, a, "accept"), shared.login(t, b)
	for _, id := range []string{`7`, `""`, `{}`, `[]`, `true`, `"` + strings.Repeat("x", 65) + `"`, `"a\u0000b"`, `"\ud800"`} {
		sender.send("%s", `{"type":"MESSAGE","data":{"to":"`+b+`","content":"x"},"reference":"r","id":`+id+`}`)
		sender.expectFailure("INVALID_MESSAGE", "INVALID_FIELD", "r", "id")
	}
	plain := shared.login(t, a) // to whom id is just an unknown field
	plain.send(`{"type":"MESSAGE","data":{"to":"%s","content":"y"},"id":7}`, b)
	receiver.expectMessage(a, "y")
}
