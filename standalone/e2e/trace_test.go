package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// traced is what a processor tells about a message.
type traced struct {
	ID     string
	Events []tracedEvent
	Where  []struct{ User, State, Domain, Towards, Since, Reason string }

	Asked   map[string][]string
	Missing []string
}

type tracedEvent struct {
	At                    time.Time
	Domain, Kind, Towards string
}

// story is the events as words: the number of the domain and what happened there.
func (x *traced) story() string {
	var words []string
	for _, e := range x.Events {
		word := strings.TrimPrefix(e.Domain, "domain-0") + " " + e.Kind
		if e.Towards != "" {
			word += " to " + strings.TrimPrefix(e.Towards, "domain-0")
		}
		words = append(words, word)
	}
	return strings.Join(words, ", ")
}

// place is where the message is for the only one it is for.
func (x *traced) place() string {
	if len(x.Where) != 1 {
		return fmt.Sprintf("%d places: %+v", len(x.Where), x.Where)
	}
	w := x.Where[0]
	text := fmt.Sprintf("%s: %s, %s", w.User, w.State, w.Domain)
	if w.Towards != "" {
		text += " towards " + w.Towards
	}
	return text
}

// trace asks the n-th domain about a message, until something holds.
func (n *network) trace(t *testing.T, number int, id, what string, holds func(*traced) bool) *traced {
	t.Helper()
	var x traced
	for end := time.Now().Add(patience); ; {
		x = traced{}
		n.ask(t, number, "/v1/messages/"+id, &x)
		if holds(&x) {
			return &x
		}
		if time.Now().After(end) {
			t.Fatalf("not %s: %s; %s; missing %v", what, x.place(), x.story(), x.Missing)
		}
	}
}

// accepted sends a message and returns its id.
func accepted(c *client, to, content string) string {
	c.t.Helper()
	c.send("%s", message(to, content, content, "RELIABLE"))
	return c.expect("MESSAGE_ACCEPTED").Data.ID
}

func TestAMessageIsTracedOverTwoHopsIntoTheMailboxAndOut(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, networkSetup{yaml: describeNetwork(3, lineOf(3))})
	n.settle(t, 3)
	sender, receiver := n.login(t, 1, userIn(1), "accept"), userIn(3)
	id := accepted(sender, receiver, "x")
	waits := receiver + ": waiting in mailbox, domain-03"
	for asked := 1; asked <= 3; asked++ {
		x := n.trace(t, asked, id, "in the mailbox at home", func(x *traced) bool {
			return x.place() == waits && strings.Contains(x.story(), "3 stored") && strings.Contains(x.story(), "1 handed_over to 3") && strings.Contains(x.story(), "2 handed_over to 3")
		})
		if len(x.Missing) > 0 || len(x.Asked) != 3 {
			t.Errorf("asked at domain %d: %v have answered, %v have not", asked, x.Asked, x.Missing)
		}
		for domain, processes := range x.Asked {
			if len(processes) != 2 || !strings.HasPrefix(processes[0], "connector ") || !strings.HasPrefix(processes[1], "processor ") {
				t.Errorf("in %s have answered %v", domain, processes)
			}
		}
		told := x.story()
		for _, want := range []string{
			"1 accepted to 3", "1 taken to 3", "1 sent to 3", "2 received", "2 taken to 3", "2 sent to 3", "3 received", "3 taken",
		} {
			if !strings.Contains(told, want) {
				t.Errorf("asked at domain %d: %q is missing in %s", asked, want, told)
			}
		}
		if !slices.IsSortedFunc(x.Events, func(a, b tracedEvent) int { return a.At.Compare(b.At) }) {
			t.Errorf("not in the order of time: %s", told)
		}
	}
	reader := n.login(t, 3, receiver)
	reader.send(`{"type":"FETCH_MISSING_MESSAGES_REQUEST","data":{"count":10}}`)
	reader.expectMessage(sender.user, "x")
	x := n.trace(t, 1, id, "delivered", func(x *traced) bool {
		return x.place() == receiver+": delivered, domain-03" && strings.Contains(x.story(), "3 removed")
	})
	for _, want := range []string{"3 fetched", "3 reached", "3 proved", "3 confirmed"} {
		if told := x.story(); !strings.Contains(told, want) {
			t.Errorf("%q is missing in %s", want, told)
		}
	}
}

func TestAMessageThatAClosedRoadHoldsUpIsFoundOnIt(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, networkSetup{yaml: describeNetwork(3, lineOf(3))})
	n.settle(t, 3)
	sender, receiver := n.login(t, 1, userIn(1), "accept"), n.login(t, 3, userIn(3))
	n.cut(2, 3)
	patiently(t, "domain 1 hears of it", backOff, func() bool {
		return !slices.ContainsFunc(n.routes(t, 1), func(r routeView) bool { return r.Domain == domainName(3) && r.Reachable })
	})
	id := accepted(sender, receiver.user, "x")
	stuck := receiver.user + ": waiting for road, domain-01 towards domain-03"
	x := n.trace(t, 1, id, "on the road", func(x *traced) bool { return x.place() == stuck })
	if !slices.Equal(x.Missing, []string{domainName(3)}) {
		t.Errorf("missing are %v, want the domain that cannot be reached", x.Missing)
	}
	n.heal(2, 3)
	receiver.expectMessage(sender.user, "x")
	n.trace(t, 2, id, "delivered", func(x *traced) bool {
		return x.place() == receiver.user+": delivered, domain-03" && len(x.Missing) == 0
	})
}

func TestATraceSaysWhatIsWrongWithTheQuestion(t *testing.T) {
	t.Parallel()
	processor := shared.endpoint("processor")
	sender, receiver := shared.login(t, newUser(), "accept"), shared.login(t, newUser())
	id := accepted(sender, receiver.user, "x")
	receiver.expectMessage(sender.user, "x")
	for path, want := range map[string]struct {
		code int
		text string
	}{
		"/v1/messages/" + id:                                           {http.StatusOK, `"id":"` + id + `"`},
		"/v1/messages/" + strings.Repeat("A", 22):                      {http.StatusNotFound, "message AAAAAAAAAAAAAAAAAAAAAA is not known"},
		"/v1/messages/abc":                                             {http.StatusBadRequest, `message id "abc": 3 characters, expected 22`},
		"/v1/messages/" + id + "?user=nobody":                          {http.StatusBadRequest, `user: user id "nobody" is not`},
		"/v1/messages/" + id + "?" + strings.Repeat("user=ANZ-1&", 17): {http.StatusBadRequest, "expected at most 16"},
	} {
		code, body := get(t, processor+path)
		if code != want.code || !strings.Contains(body, want.text) {
			t.Errorf("%s: got %d %s, want %d %s", path, code, body, want.code, want.text)
		}
		if strings.Contains(body, `"content"`) {
			t.Errorf("%s tells the content", path)
		}
		if code == http.StatusOK && !json.Valid([]byte(body)) {
			t.Errorf("%s: %s", path, body)
		}
	}
}
