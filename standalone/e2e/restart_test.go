package e2e

import (
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Traffic that is cut by a crash: every sender sends to every receiver, as fast
// as it can.
const (
	crashSenders   = 6
	crashReceivers = 6 // the first half is there, the second is away
	crashAfter     = 2000
	crashRounds    = 3
)

// history is what one receiver has got: for each sender the numbers in the order
// of their first arrival, and the id of each.
type history struct {
	order map[string][]int
	ids   map[string]string // by sender and number
}

func newHistory() *history { return &history{map[string][]int{}, map[string]string{}} }

// add takes a message; a copy must have the same id.
func (h *history) add(t *testing.T, f *frame) {
	t.Helper()
	if f.Type != "MESSAGE" {
		return
	}
	n, err := strconv.Atoi(f.Data.Content)
	if err != nil {
		t.Fatalf("got %v", f)
	}
	key := f.Data.From + " " + f.Data.Content
	if known, again := h.ids[key]; again {
		if known != f.ID {
			t.Errorf("a copy of %s came as %s and as %s", key, known, f.ID)
		}
		return
	}
	h.ids[key] = f.ID
	h.order[f.Data.From] = append(h.order[f.Data.From], n)
}

// drain takes what a client has received and nobody has looked at; without
// waiting, for a connection that has ended.
func (h *history) drain(t *testing.T, c *client) {
	t.Helper()
	for {
		f, err := c.receive(patience)
		if err != nil {
			return
		}
		h.add(t, f)
	}
}

// crashSender sends until the connection breaks and returns what was accepted:
// numbers by receiver.
func crashSender(t *testing.T, c *client, receivers []string, first int, accepted func()) map[string][]int {
	got := map[string][]int{}
	go func() {
		for n := first; ; n++ {
			for _, to := range receivers {
				if c.write(message(to, strconv.Itoa(n), fmt.Sprint(to, "/", n), "RELIABLE")) != nil {
					return
				}
			}
		}
	}()
	for {
		f, err := c.receive(patience)
		if err != nil {
			return got
		}
		if f.Type != "MESSAGE_ACCEPTED" {
			continue
		}
		var to string
		var n int
		for i := len(f.Data.Reference) - 1; i >= 0; i-- {
			if f.Data.Reference[i] == '/' {
				to = f.Data.Reference[:i]
				n, err = strconv.Atoi(f.Data.Reference[i+1:])
				break
			}
		}
		if err != nil || to == "" {
			t.Errorf("got %v", f)
		}
		got[to] = append(got[to], n)
		accepted()
	}
}

func TestWhatWasAcceptedBeforeAKillIsDeliveredOrFetchedAfterIt(t *testing.T) {
	t.Parallel()
	d := newLasting(t)
	var senders, receivers []string
	for i := range crashSenders {
		senders = append(senders, fmt.Sprintf("ANZ-%d", 100+i))
	}
	for i := range crashReceivers {
		receivers = append(receivers, fmt.Sprintf("ANZ-%d", 200+i))
	}
	got := map[string]*history{}
	for _, user := range receivers {
		got[user] = newHistory()
	}
	accepted := map[string]map[string][]int{} // by sender and receiver
	for round := range crashRounds {
		p := launch(t, d)
		for sender, by := range crash(t, p, round, senders, receivers, got) {
			if accepted[sender] == nil {
				accepted[sender] = map[string][]int{}
			}
			for to, list := range by {
				accepted[sender][to] = append(accepted[sender][to], list...)
			}
		}
	}
	p := launch(t, d)
	for _, user := range receivers {
		c := login(t, p.ws(), user)
		for left := 1; left > 0; {
			var frames []*frame
			frames, left = c.fetch(2000)
			for _, f := range frames {
				got[user].add(t, f)
			}
		}
	}
	total := 0
	for sender, by := range accepted {
		for to, list := range by {
			total += len(list)
			checkHistory(t, sender, to, list, got[to])
		}
	}
	t.Logf("%d messages were accepted in %d rounds", total, crashRounds)
	if err := p.interrupt(t); err != nil {
		t.Errorf("it ended with %v", err)
	}
}

// crash lets messages flow through a process, kills it, and returns what it had
// accepted.
func crash(t *testing.T, p life, round int, senders, receivers []string, got map[string]*history) map[string]map[string][]int {
	t.Helper()
	online := map[string]*client{}
	for i, user := range receivers {
		if i < len(receivers)/2 {
			online[user] = login(t, p.ws(), user, "push")
		}
	}
	var mu sync.Mutex
	count, enough := 0, make(chan struct{})
	accepted := map[string]map[string][]int{}
	clients := map[string]*client{}
	for _, user := range senders {
		clients[user] = login(t, p.ws(), user, "accept")
	}
	var sending sync.WaitGroup
	for user, c := range clients {
		sending.Go(func() {
			by := crashSender(t, c, receivers, round*1_000_000, func() {
				mu.Lock()
				defer mu.Unlock()
				if count++; count == crashAfter {
					close(enough)
				}
			})
			mu.Lock()
			defer mu.Unlock()
			accepted[user] = by
		})
	}
	select {
	case <-enough:
	case <-time.After(patience):
		t.Error("too little was accepted")
	}
	p.kill()
	sending.Wait()
	for user, c := range online {
		got[user].drain(t, c)
	}
	return accepted
}

// checkHistory checks that everything accepted has come, and in order.
func checkHistory(t *testing.T, sender, to string, accepted []int, h *history) {
	t.Helper()
	lost := 0
	for _, n := range accepted {
		if h.ids[sender+" "+strconv.Itoa(n)] == "" {
			lost++
		}
	}
	if lost > 0 {
		t.Errorf("%d of %d accepted messages from %s to %s are lost", lost, len(accepted), sender, to)
	}
	order := h.order[sender]
	for i := 1; i < len(order); i++ {
		if order[i] < order[i-1] {
			t.Errorf("from %s to %s: %d came after %d", sender, to, order[i], order[i-1])
			return
		}
	}
}

func TestWhoeverDoesNotComeBackAfterAKillIsAnnouncedAsGone(t *testing.T) {
	t.Parallel()
	d := newLasting(t)
	p := launch(t, d)
	login(t, p.ws(), "BNZ-1")
	login(t, p.ws(), "BNZ-2")
	login(t, p.ws(), "BNZ-3")
	master := login(t, p.ws(), "BNZ-453432")
	present := map[string]bool{}
	for _, f := range master.fetchUntil(func(got []*frame) bool { return len(got) >= 3 }) {
		present[f.Data.UserID] = true
	}
	if len(present) != 3 {
		t.Fatalf("the master has heard of %v", present)
	}
	p.kill()
	began := time.Now()
	p = launch(t, d)
	back := login(t, p.ws(), "BNZ-2")
	master = login(t, p.ws(), "BNZ-453432", "push") // whatever was announced before it came back
	master.say(master.user, "still there", "")
	// Who comes back before anybody was missed is not announced; after that, as gone and then
	// as there. Between the events of several users there is no order.
	last, heard := map[string]string{}, false // by user
	for !heard || last["BNZ-1"] != "USER_DISCONNECTED" || last["BNZ-3"] != "USER_DISCONNECTED" || last["BNZ-2"] == "USER_DISCONNECTED" {
		f := master.next()
		last[f.Data.UserID] = f.Type
		heard = heard || f.Data.Content == "still there"
	}
	within(t, "the announcement", 10*time.Second, began)
	back.works()
}

func TestStoredMessagesAndClientIDsSurviveAKill(t *testing.T) {
	t.Parallel()
	d := newLasting(t)
	p := launch(t, d)
	sender := login(t, p.ws(), "ANZ-1", "accept")
	sender.send("%s", named("ANZ-2", "once", "id-1"))
	id := sender.expect("MESSAGE_ACCEPTED").Data.ID
	p.kill()
	p = launch(t, d)
	sender = login(t, p.ws(), "ANZ-1", "accept")
	sender.send("%s", named("ANZ-2", "once", "id-1"))
	if again := sender.expect("MESSAGE_ACCEPTED").Data.ID; again != id {
		t.Errorf("accepted as %s and as %s", id, again)
	}
	receiver := login(t, p.ws(), "ANZ-2", "push")
	f := receiver.next()
	if f.Type == "MISSING_MESSAGES_AVAILABLE" {
		f = receiver.next()
	}
	if f.Data.Content != "once" || f.ID != id {
		t.Errorf("got %v, want %s", f, id)
	}
	receiver.works()
	sender.expectConfirmation("ref id-1")
	sender.works()
	p.kill()
	p = launch(t, d)
	receiver = login(t, p.ws(), "ANZ-2", "push")
	receiver.say("ANZ-2", "marker", "")
	for f = receiver.next(); f.Data.Content != "marker"; f = receiver.next() {
		if f.Data.Content == "once" && f.ID != id { // what was proved just before a crash may come again
			t.Errorf("got %v, want %s or nothing", f, id)
		}
	}
}

func TestKillsDuringTheStartHarmNothing(t *testing.T) {
	t.Parallel()
	const count = 300
	d := newLasting(t)
	p := launch(t, d)
	sender := login(t, p.ws(), "ANZ-1", "accept")
	for n := range count {
		sender.say("ANZ-2", strconv.Itoa(n), "")
	}
	for range count {
		sender.expect("MESSAGE_ACCEPTED")
	}
	p.kill()
	for i := range 6 {
		killed := d.begin(t)
		killed.isReady(t, time.Duration(i)*60*time.Millisecond) // wherever it is by then
		killed.kill()
	}
	p = launch(t, d)
	got, left := login(t, p.ws(), "ANZ-2").fetch(2000)
	numbers(t, got, 0, count)
	if left != 0 {
		t.Errorf("%d are left", left)
	}
}
