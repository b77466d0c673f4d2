package e2e

import (
	"strconv"
	"strings"
	"sync"
	"testing"
)

// heard is what a master has heard of each user: + and - in order.
type heard map[string]string

// until takes presence frames until enough was heard.
func (h heard) until(master *client, enough func() bool) {
	master.t.Helper()
	for !enough() {
		f := master.next()
		switch f.Type {
		case "USER_CONNECTED":
			h[f.Data.UserID] += "+"
		case "USER_DISCONNECTED":
			h[f.Data.UserID] += "-"
		default:
			master.t.Fatalf("got %v", f)
		}
	}
}

// count counts users of whom exactly this was heard.
func (h heard) count(what string) int {
	n := 0
	for _, got := range h {
		if got == what {
			n++
		}
	}
	return n
}

func TestACrowdComesTalksAndGoes(t *testing.T) {
	t.Parallel()
	const crowd = 200
	app, boss := newApp(t)
	master := shared.login(t, boss)
	clients := make([]*client, crowd)
	users := make([]string, crowd)
	var logins sync.WaitGroup
	for i := range clients {
		users[i] = userOf(app)
		logins.Go(func() {
			c, err := tryLogin(t, shared.WebsocketURL(), users[i])
			if err != nil {
				t.Error(err)
			}
			clients[i] = c
		})
	}
	logins.Wait()
	if t.Failed() {
		t.FailNow()
	}
	h := heard{}
	h.until(master, func() bool { return h.count("+") == crowd })
	for _, feature := range []string{"RELIABLE", "FAST"} {
		master.send("%s", group(users, "to all of you", "", feature))
		for _, c := range clients {
			c.expectMessage(boss, "to all of you")
		}
	}
	for i, c := range clients {
		c.say(users[(i+1)%crowd], strconv.Itoa(i), "r")
	}
	for i, c := range clients {
		seen := map[string]bool{}
		for range 2 {
			seen[c.next().Type] = true
		}
		if !seen["MESSAGE"] || !seen["MESSAGE_CONFIRMATION"] {
			t.Errorf("user %d got %v", i, seen)
		}
	}
	for _, c := range clients {
		go c.ws.CloseNow()
	}
	h.until(master, func() bool { return h.count("+-") == crowd })
	master.works()
}

func TestAUserWhoComesAndGoesQuicklyIsAnnouncedInTurns(t *testing.T) {
	t.Parallel()
	const turns = 40
	app, boss := newApp(t)
	master, user := shared.login(t, boss), userOf(app)
	for range turns {
		// Some go before the reply, some after it, without a goodbye.
		early := shared.dial(t)
		early.send("%s", auth(user))
		_ = early.ws.CloseNow()
		c := shared.login(t, user)
		_ = c.ws.CloseNow()
	}
	last := shared.login(t, user)
	last.works()
	marker := shared.login(t, userOf(app))
	h := heard{}
	// Everything was in the user's lane before its last login was answered; one
	// more turn shows that nothing is left over.
	last.leave()
	again := shared.login(t, user)
	again.leave()
	marker.leave()
	h.until(master, func() bool { return h[marker.user] == "+-" && strings.HasSuffix(h[user], "-") })
	end := shared.login(t, user)
	h.until(master, func() bool { return strings.HasSuffix(h[user], "+") })
	if strings.Contains(h[user], "++") || strings.Contains(h[user], "--") || !strings.HasPrefix(h[user], "+") {
		t.Errorf("the master heard %s", h[user])
	}
	end.works()
}

// While a user fetches what was stored, new messages come by themselves. Every
// message comes once; what is fetched is in order, and so is what is pushed.
func TestFetchingWhileNewMessagesComeBringsEachOnce(t *testing.T) {
	t.Parallel()
	const stored, live = 700, 700
	a, b := newUser(), newUser()
	store(t, shared, a, b, stored)
	sender, receiver := shared.login(t, a), shared.login(t, b)
	go func() {
		for n := range live {
			if err := sender.write(message(b, strconv.Itoa(stored+n), "", "RELIABLE")); err != nil {
				t.Error(err)
			}
		}
	}()
	next := [2]int{0, stored} // of what is fetched and of what is pushed
	take := func(frames []*frame) {
		for _, f := range frames {
			which := 0
			if n, err := strconv.Atoi(f.Data.Content); err != nil || n >= stored {
				which = 1
			}
			if f.Data.Content != strconv.Itoa(next[which]) {
				t.Fatalf("got %v, want %v", f, next)
			}
			next[which]++
		}
	}
	for left := 1; left > 0; {
		var got []*frame
		got, left = receiver.fetch(100)
		take(got)
	}
	for next[1] < stored+live {
		take([]*frame{receiver.expect("MESSAGE")})
	}
	if next[0] != stored {
		t.Errorf("%d were fetched, want %d", next[0], stored)
	}
	receiver.works()
}

// A message that one socket has proved is confirmed, whatever another one does;
// the other one is still owed it.
func TestOneSocketThatReadsIsEnoughForAConfirmation(t *testing.T) {
	t.Parallel()
	a, b := newUser(), newUser()
	mute := loginRaw(t, shared.WebsocketURL(), b)
	reading, sender := shared.login(t, b), shared.login(t, a)
	for n := range 100 {
		sender.say(b, strconv.Itoa(n), strconv.Itoa(n))
		reading.expectMessage(a, strconv.Itoa(n))
		sender.expectConfirmation(strconv.Itoa(n))
	}
	mute.within(t, patience)
	for n := range 100 {
		if f := mute.answer(t); f.Data.Content != strconv.Itoa(n) {
			t.Fatalf("got %v, want %d", f, n)
		}
	}
	sender.works() // no second confirmation for the second proof
	if got, left := shared.login(t, b).fetch(100); len(got) != 0 || left != 0 {
		t.Errorf("got %v, %d left", got, left)
	}
}
