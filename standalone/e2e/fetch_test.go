package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// store sends count messages to a user who is not there, and returns when the
// server has accepted all of them: the id of the last one.
func store(t *testing.T, s *system, from, to string, count int) string {
	t.Helper()
	sender := s.login(t, from, "accept")
	for n := range count {
		sender.say(to, strconv.Itoa(n), "")
	}
	last := ""
	for range count {
		last = sender.expect("MESSAGE_ACCEPTED").Data.ID
	}
	sender.leave()
	return last
}

// awaitStored waits until the mailbox has a message for a user, and so all before it.
func awaitStored(t *testing.T, s *system, user, id string) {
	t.Helper()
	url := s.endpoint("processor") + "/v1/messages/" + id
	eventually(t, "stored", func() bool {
		code, body := get(t, url)
		if code == http.StatusTooManyRequests {
			return false // others ask as well
		}
		var x traced
		if err := json.Unmarshal([]byte(body), &x); code != http.StatusOK || err != nil {
			t.Fatalf("%s: got %d, %v: %s", url, code, err, body)
		}
		return strings.HasPrefix(x.place(), user+": waiting in mailbox, ")
	})
}

// numbers checks that the frames are the messages from first on, in order.
func numbers(t *testing.T, got []*frame, first, count int) {
	t.Helper()
	if len(got) != count {
		t.Fatalf("got %d frames, want %d", len(got), count)
	}
	for i, f := range got {
		if f.Type != "MESSAGE" || f.Data.Content != strconv.Itoa(first+i) {
			t.Fatalf("frame %d is %v, want %d", i, f, first+i)
		}
	}
}

func Test2300MessagesComeInTwoFetches(t *testing.T) {
	t.Parallel()
	a, b := newUser(), newUser()
	store(t, shared, a, b, 2300)
	c := shared.login(t, b)
	got, left := c.fetch(5000) // no more than 2000 a call
	numbers(t, got, 0, 2000)
	if left != 300 {
		t.Errorf("%d are left, want 300", left)
	}
	got, left = c.fetch(2000)
	numbers(t, got, 2000, 300)
	if left != 0 {
		t.Errorf("%d are left, want none", left)
	}
	got, left = c.fetch(2000)
	if len(got) != 0 || left != 0 {
		t.Errorf("got %v, %d left after the end", got, left)
	}
}

func TestAFetchBringsAsManyAsItAsksFor(t *testing.T) {
	t.Parallel()
	a, b := newUser(), newUser()
	store(t, shared, a, b, 250)
	c := shared.login(t, b)
	first := 0
	for _, step := range []struct {
		data  string
		count int
	}{
		{`{"count":1}`, 1}, {`{"count":25}`, 25}, {`{}`, 100}, {`{"count":null}`, 100}, {`{"count":2001}`, 24},
	} {
		c.send(`{"type":"FETCH_MISSING_MESSAGES_REQUEST","data":%s}`, step.data)
		got, left := c.fetched()
		numbers(t, got, first, step.count)
		first += step.count
		if left != 250-first {
			t.Errorf("%s: %d are left, want %d", step.data, left, 250-first)
		}
	}
	c.send(`{"type":"FETCH_MISSING_MESSAGES_REQUEST"}`)
	if got, left := c.fetched(); len(got) != 0 || left != 0 {
		t.Errorf("got %v, %d left", got, left)
	}
}

func TestTheEndOfAFetchLooksExactlyAsDocumented(t *testing.T) {
	t.Parallel()
	c := shared.login(t, newUser())
	c.send(`{"type":"FETCH_MISSING_MESSAGES_REQUEST","data":{"count":100}}`)
	if f := c.next(); f.raw != `{"type":"FETCH_MISSING_MESSAGES_COMPLETE","data":{"leftMissingCount":0}}` {
		t.Errorf("got %v", f)
	}
}

func TestAFetchAnswersOnlyTheSocketThatAsked(t *testing.T) {
	t.Parallel()
	a, b := newUser(), newUser()
	store(t, shared, a, b, 20)
	asking, other := shared.login(t, b), shared.login(t, b)
	got, _ := asking.fetch(100)
	numbers(t, got, 0, 20)
	sender := shared.login(t, a)
	sender.say(b, "marker", "")
	asking.expectMessage(a, "marker")
	other.expectMessage(a, "marker")
	if got, left := other.fetch(100); len(got) != 0 || left != 0 {
		t.Errorf("got %v, %d left", got, left)
	}
}

func TestTwoSocketsThatFetchAtOnceDoNotBothGetARow(t *testing.T) {
	t.Parallel()
	const count = 600
	a, b := newUser(), newUser()
	store(t, shared, a, b, count)
	sockets := []*client{shared.login(t, b), shared.login(t, b)}
	const request = `{"type":"FETCH_MISSING_MESSAGES_REQUEST","data":{"count":50}}`
	seen := map[string]int{}
	for end := time.Now().Add(patience); len(seen) < count; {
		for _, c := range sockets {
			c.send(request)
		}
		for _, c := range sockets {
			got, _ := c.fetched()
			for _, f := range got {
				seen[f.Data.Content]++
			}
		}
		if time.Now().After(end) {
			t.Fatalf("only %d of %d have come", len(seen), count)
		}
	}
	for n, times := range seen {
		if times != 1 {
			t.Errorf("message %s came %d times", n, times)
		}
	}
}

func TestSeveralFetchesOfOneSocketAreAnsweredOneAfterAnother(t *testing.T) {
	t.Parallel()
	a, b := newUser(), newUser()
	store(t, shared, a, b, 100)
	c := shared.login(t, b)
	for range 10 {
		c.send(`{"type":"FETCH_MISSING_MESSAGES_REQUEST","data":{"count":10}}`)
	}
	for n := range 10 {
		got, _ := c.fetched()
		numbers(t, got, 10*n, 10)
	}
	c.works()
}

func TestMoreThan16WaitingFetchesAreRefused(t *testing.T) {
	t.Parallel()
	const requests = 200
	c := shared.login(t, newUser())
	for n := range requests {
		c.send(`{"type":"FETCH_MISSING_MESSAGES_REQUEST","data":{"count":1},"reference":"%d"}`, n)
	}
	answered, refused := 0, 0
	for answered+refused < requests {
		switch f := c.next(); {
		case f.Type == "FETCH_MISSING_MESSAGES_COMPLETE":
			answered++
		case f.Type == "INVALID_MESSAGE" && f.Data.Code == "RATE_LIMITED":
			refused++
		default:
			t.Fatalf("got %v", f)
		}
	}
	if answered < 17 || refused == 0 {
		t.Errorf("%d were answered and %d refused", answered, refused)
	}
	c.works()
}

// A socket that dies in the middle of a fetch loses nothing, and a second later
// its rows can be fetched again.
func TestASocketKilledInMidFetchLosesNothing(t *testing.T) {
	t.Parallel()
	for name, kill := range map[string]func(*rawSocket, *testing.T){
		"reset":  (*rawSocket).reset,
		"closed": func(r *rawSocket, t *testing.T) { _ = r.conn.Close() },
	} {
		for _, read := range []int{0, 1, 100, 399} {
			t.Run(fmt.Sprint(name, " after ", read), func(t *testing.T) {
				t.Parallel()
				const count = 400
				a, b := newUser(), newUser()
				// A busy machine may need seconds for all that is stored here at once.
				awaitStored(t, shared, b, store(t, shared, a, b, count))
				r := loginRaw(t, shared.WebsocketURL(), b)
				r.text(t, `{"type":"FETCH_MISSING_MESSAGES_REQUEST","data":{"count":400}}`)
				first := make([]*frame, read)
				for i := range first {
					first[i] = r.frame(t) // the pings in between are not answered
				}
				numbers(t, first, 0, read)
				kill(r, t)
				began := time.Now()
				c := shared.login(t, b)
				again := c.fetchUntil(func(got []*frame) bool { return len(got) >= count })
				within(t, "to have the rows again", 2*time.Second, began)
				numbers(t, again, 0, count)
				for i, f := range first {
					if again[i].ID != f.ID {
						t.Fatalf("%v came again as %v", f, again[i])
					}
				}
			})
		}
	}
}

func TestAFetchedMessageIsConfirmedThen(t *testing.T) {
	t.Parallel()
	a, b := newUser(), newUser()
	sender := shared.login(t, a, "accept")
	for n := range 10 {
		sender.say(b, strconv.Itoa(n), strconv.Itoa(n))
		sender.expect("MESSAGE_ACCEPTED")
	}
	sender.works() // nothing is confirmed yet
	c := shared.login(t, b)
	got, _ := c.fetch(10)
	numbers(t, got, 0, 10)
	var confirmed []string
	for range 10 {
		confirmed = append(confirmed, sender.expect("MESSAGE_CONFIRMATION").Data.Reference)
	}
	slices.Sort(confirmed)
	if want := []string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}; !slices.Equal(confirmed, want) {
		t.Errorf("got %v", confirmed)
	}
	sender.works()
}

// What is accepted while a user is logged in is pushed; what was stored before
// comes by fetching only.
func TestOnlyWhatWasAcceptedBeforeTheLoginHasToBeFetched(t *testing.T) {
	t.Parallel()
	a, b := newUser(), newUser()
	store(t, shared, a, b, 5)
	c := shared.login(t, b)
	sender := shared.login(t, a)
	sender.say(b, "new", "")
	c.expectMessage(a, "new")
	got, left := c.fetch(3)
	numbers(t, got, 0, 3)
	if left != 2 {
		t.Errorf("%d are left, want 2", left)
	}
	hinted := shared.loginWithHints(t, b)
	if f := hinted.expect("MISSING_MESSAGES_AVAILABLE"); f.Data.Count != 2 {
		t.Errorf("got %v, want 2", f)
	}
	hinted.works()
	if f := c.expectMessage(b, "does it still work?"); f == nil {
		t.Error("the other socket got nothing")
	}
	if got, _ := hinted.fetch(3); len(got) != 2 {
		t.Errorf("got %v", got)
	}
	quiet := shared.loginWithHints(t, b)
	quiet.works() // nothing is stored: no hint comes
}
