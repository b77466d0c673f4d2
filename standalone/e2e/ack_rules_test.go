package e2e

import (
	"strconv"
	"strings"
	"testing"
	"time"
)

// ack acknowledges everything up to a number.
func (c *client) ack(upTo uint64) {
	c.t.Helper()
	c.send(`{"type":"MESSAGE_ACK","data":{"upTo":%d}}`, upTo)
}

// acked acknowledges, and waits until the server has read that.
func (c *client) acked(upTo uint64) {
	c.t.Helper()
	c.ack(upTo)
	c.send(`{}`)
	c.expect("INVALID_MESSAGE")
}

// silent checks that nothing more comes for a moment.
func (c *client) silent() {
	c.t.Helper()
	if f, err := c.receive(300 * time.Millisecond); err == nil {
		c.t.Fatalf("%s: got %v, want nothing", c.user, f)
	}
}

func TestAnAcknowledgementThatIsNoneChangesNothing(t *testing.T) {
	t.Parallel()
	a, b := newUser(), newUser()
	sender, receiver := shared.login(t, a), shared.login(t, b, "ack")
	sender.say(b, "one", "r")
	receiver.expectMessage(a, "one")
	for _, data := range []string{
		`{}`, `null`, `{"upTo":null}`, `{"upTo":"1"}`, `{"upTo":1.5}`, `{"upTo":-1}`, `{"upTo":true}`, `{"upTo":[1]}`, `{"upTo":2}`,
		`{"upTo":18446744073709551615}`, `{"upTo":18446744073709551616}`, `{"upTo":1e400}`, `{"UpTo":1}`, `[]`, `1`,
	} {
		receiver.send("%s", `{"type":"MESSAGE_ACK","data":`+data+`,"reference":"r"}`)
		receiver.expectFailure("INVALID_MESSAGE", "INVALID_FIELD", "r", "data")
	}
	receiver.send(`{"type":"MESSAGE_ACK","data":{"upTo":1,"upTo":1},"reference":"r"}`)
	receiver.expectFailure("INVALID_MESSAGE", "DUPLICATE_KEY", "r", "upTo")
	sender.works() // nothing is confirmed
	receiver.ack(1)
	sender.expectConfirmation("r")
	stranger := shared.dial(t)
	stranger.send(`{"type":"MESSAGE_ACK","data":{"upTo":1}}`)
	stranger.expect("AUTH_REQUIRED")
}

// Everything that comes from a message, or could be fetched, has the next number;
// nothing else has any.
func TestEveryKindOfDeliveredFrameIsCounted(t *testing.T) {
	t.Parallel()
	app, boss := newApp(t)
	user := userOf(app)
	master := shared.login(t, boss, "ack", "accept")
	other := shared.login(t, user)
	next := uint64(1)
	delivered := func(kind string) {
		t.Helper()
		if f := master.expect(kind); f.Seq != next || f.ID == "" || strings.Index(f.raw, `"seq":`) < strings.Index(f.raw, `"type":`) {
			t.Errorf("got %v, want seq %d", f, next)
		}
		next++
	}
	answered := func(kind string) {
		t.Helper()
		if f := master.expect(kind); f.Seq != 0 {
			t.Errorf("got %v, want no seq", f)
		}
	}
	delivered("USER_CONNECTED")
	other.say(boss, "live", "")
	delivered("MESSAGE")
	other.sayFast(boss, "fast", "")
	delivered("MESSAGE")
	other.send("%s", group([]string{boss, user}, "to a group", "", "RELIABLE"))
	delivered("MESSAGE")
	other.expectMessage(user, "to a group")
	master.say(user, "confirmed", "r")
	answered("MESSAGE_ACCEPTED")
	delivered("MESSAGE_CONFIRMATION")
	master.say("XXX-1", "to nobody", "")
	answered("DELIVER_FAILED")
	master.send(`{}`)
	answered("INVALID_MESSAGE")
	master.send(`{"type":"FETCH_MISSING_MESSAGES_REQUEST"}`)
	answered("FETCH_MISSING_MESSAGES_COMPLETE")
	other.expectMessage(boss, "confirmed")
	other.leave()
	delivered("USER_DISCONNECTED")
	master.acked(next - 1)
	master.cut()
	if got, left := shared.login(t, boss).fetch(100); len(got) != 0 || left != 0 {
		t.Errorf("after everything was acknowledged: %v, and %d left", got, left)
	}
}

// With ack a message is delivered when it is acknowledged: until then it is neither
// confirmed nor deleted, whether it came live, by itself or by fetching, and whatever
// pongs say.
func TestOnlyAnAcknowledgementDelivers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		features []string
		stored   bool
	}{
		"live": {[]string{"ack"}, false}, "fetched": {[]string{"ack"}, true}, "pushed": {[]string{"ack", "push"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := newUser(), newUser()
			sender := shared.login(t, a, "accept")
			say := func() {
				for n := range 3 {
					sender.say(b, strconv.Itoa(n), "r"+strconv.Itoa(n))
					sender.expect("MESSAGE_ACCEPTED")
				}
			}
			if c.stored {
				say()
			}
			first := shared.login(t, b, c.features...)
			if c.stored {
				if f := first.expect("MISSING_MESSAGES_AVAILABLE"); f.Data.Count != 3 {
					t.Errorf("got %v, want 3", f)
				}
			} else {
				say()
			}
			var got []*frame
			if name == "fetched" {
				got, _ = first.fetch(10)
			} else {
				for range 3 {
					got = append(got, first.expect("MESSAGE"))
				}
			}
			numbers(t, got, 0, 3)
			sender.silent()
			first.ack(1)
			sender.expectConfirmation("r0")
			sender.silent()
			first.cut()
			again := shared.login(t, b, "ack", "push") // the rest comes again, under the same ids
			f := again.next()
			if f.Type == "MISSING_MESSAGES_AVAILABLE" {
				f = again.next()
			}
			for n := 1; n < 3; n++ {
				if f.ID != got[n].ID || f.Data.Content != strconv.Itoa(n) || f.Seq != uint64(n) {
					t.Errorf("got %v, want %d as %s with seq %d", f, n, got[n].ID, n)
				}
				if n == 1 {
					f = again.next()
				}
			}
			sender.silent()
			again.ack(2)
			sender.expectConfirmation("r1")
			sender.expectConfirmation("r2")
			again.cut()
			last := shared.login(t, b, "push")
			last.works()
		})
	}
}

func TestAFastMessageIsConfirmedWhenItIsAcknowledged(t *testing.T) {
	t.Parallel()
	a, b := newUser(), newUser()
	sender, receiver := shared.login(t, a), shared.login(t, b, "ack")
	sender.sayFast(b, "fast", "r")
	if f := receiver.expectMessage(a, "fast"); f.Seq != 1 {
		t.Errorf("got %v, want seq 1", f)
	}
	sender.silent()
	receiver.ack(1)
	sender.expectConfirmation("r")
}

// Of two sockets of a user the first that acknowledges is enough for a confirmation;
// the other one has numbers of its own.
func TestEverySocketAcknowledgesForItself(t *testing.T) {
	t.Parallel()
	a, b := newUser(), newUser()
	sender, first, second := shared.login(t, a), shared.login(t, b, "ack"), shared.login(t, b, "ack")
	for n := range 3 {
		sender.say(b, strconv.Itoa(n), "r"+strconv.Itoa(n))
		for _, c := range []*client{first, second} {
			if f := c.expectMessage(a, strconv.Itoa(n)); f.Seq != uint64(n+1) {
				t.Errorf("got %v, want seq %d", f, n+1)
			}
		}
	}
	first.ack(2)
	sender.expectConfirmation("r0")
	sender.expectConfirmation("r1")
	second.ack(3)
	sender.expectConfirmation("r2")
	first.ack(3)
	sender.works() // and no second confirmation of anything
}

// Who acknowledges nothing has at most 1024 messages or 256 KiB under way; the rest
// waits for it, and comes as it acknowledges.
func TestWithoutAcknowledgementsOnlySoMuchIsUnderWay(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ count, size, most int }{
		"messages": {1500, 5, 1024}, "bytes": {60, 20_000, 256<<10/20_000 + 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := newUser(), newUser()
			sender, receiver, other := shared.login(t, a, "accept"), shared.login(t, b, "ack"), shared.login(t, b)
			for n := range c.count {
				sender.say(b, padded(n, c.size), "")
			}
			for range c.count {
				sender.expect("MESSAGE_ACCEPTED")
			}
			for n := range c.count { // nobody waits for the one that acknowledges nothing
				other.expectMessage(a, padded(n, c.size))
			}
			got := 0
			take := func(within time.Duration) bool {
				f, err := receiver.receive(within)
				if err != nil {
					return false
				}
				if f.Seq != uint64(got+1) || f.Data.Content != padded(got, c.size) {
					t.Fatalf("got %v, want number %d", f, got+1)
				}
				got++
				return true
			}
			for got < c.most*8/10 && take(patience) {
			}
			for take(time.Second) {
			}
			if got > c.most || got < c.most*8/10 {
				t.Errorf("%d came without an acknowledgement, want at most %d", got, c.most)
			}
			for acked := 0; got < c.count; {
				if acked < got {
					acked = got
					receiver.ack(uint64(got))
				}
				if !take(patience) {
					t.Fatalf("%d of %d have come", got, c.count)
				}
			}
			receiver.ack(uint64(got))
			receiver.works()
		})
	}
}

func TestMissingMessagesAreToldOnlyToSocketsWithFeatures(t *testing.T) {
	t.Parallel()
	a, b := newUser(), newUser()
	store(t, shared, a, b, 2)
	plain := shared.login(t, b)
	plain.works()
	for _, features := range [][]string{{}, {"accept"}, {"ack"}, {"unknown"}} {
		c := shared.login(t, b, features...)
		if f := c.expect("MISSING_MESSAGES_AVAILABLE"); f.Data.Count != 2 || f.Seq != 0 || f.raw != `{"type":"MISSING_MESSAGES_AVAILABLE","data":{"count":2}}` {
			t.Errorf("%v: got %v", features, f)
		}
		c.cut()
	}
	got, left := plain.fetch(10)
	numbers(t, got, 0, 2)
	plain.leave()
	if left != 0 {
		t.Errorf("%d left", left)
	}
	for _, features := range [][]string{{}, {"accept"}, {"push"}} { // nothing is stored any more
		c := shared.login(t, b, features...)
		c.works()
		c.leave()
	}
}

// Rows that were fetched and not acknowledged are fetched by nobody else, and come
// back when their socket has gone.
func TestWhatWasFetchedAndNotAcknowledgedComesBack(t *testing.T) {
	t.Parallel()
	a, b := newUser(), newUser()
	store(t, shared, a, b, 5)
	first := shared.login(t, b, "ack")
	first.expect("MISSING_MESSAGES_AVAILABLE")
	got, left := first.fetch(3)
	numbers(t, got, 0, 3)
	if left != 2 {
		t.Errorf("%d left, want 2", left)
	}
	first.acked(2)
	second := shared.login(t, b)
	rest, _ := second.fetch(10)
	if len(rest) != 2 || rest[0].Data.Content != "3" || rest[1].Data.Content != "4" {
		t.Errorf("got %v, want 3 and 4", rest)
	}
	first.cut()
	began := time.Now()
	back := second.fetchUntil(func(got []*frame) bool { return len(got) >= 1 })
	within(t, "to have it again", 2*time.Second, began)
	if back[0].ID != got[2].ID {
		t.Errorf("got %v, want %s", back, got[2].ID)
	}
}
