package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// ringApps are how many apps have a master in domain-03 of the ring, one for each
// test.
const ringApps = 8

func ringApp(number int) string { return fmt.Sprintf("FAR%d", number) }

// TestARingOfDomainsServesItsUsersLikeOneDomain has one ring for all that breaks
// nothing.
func TestARingOfDomainsServesItsUsersLikeOneDomain(t *testing.T) {
	t.Parallel()
	apps := []string{
		appWith("FRIEND1", 1, ", allowedApps: [FRIEND2]"), appWith("FRIEND2", 3, ", allowedApps: [FRIEND1]"),
		appWith("ONE", 3, ", masterDelivery: one"),
	}
	for i := range ringApps {
		apps = append(apps, appWith(ringApp(i+1), 3, ""))
	}
	n := startNetwork(t, networkSetup{yaml: withApps(describeNetwork(4, ringOf(4)), apps...)})
	n.settle(t, 4)
	// What counts records comes first, while nobody else sends any.
	t.Run("one copy of a group message goes to each other domain", func(t *testing.T) { oneCopyToEachDomain(t, n) })
	t.Run("presence is kept for a master elsewhere", func(t *testing.T) { presenceKeptElsewhere(t, n) })
	for name, test := range map[string]func(*testing.T, *network){
		"every ordered pair reaches each other":                everyPair,
		"500 messages come in order over two hops":             manyOverTwoHops,
		"the largest frame passes every hop":                   largestFrames,
		"group and direct messages keep their order":           groupsInOrder,
		"who is away far away finds everything by fetching":    awayFarAway,
		"the features accept, ack and push work over two hops": featuresFarAway,
		"a master hears of users of other domains in order":    masterElsewhere,
		"a master with one delivery has one copy far away":     oneDeliveryElsewhere,
		"only the master closes connections of other domains":  closeElsewhere,
		"nobody acts as a domain on the websocket port":        nobodyActsAsADomain,
		"apps are kept apart in every domain":                  appsElsewhere,
		"every socket of a user far away has its copy":         socketsElsewhere,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, n)
		})
	}
}

func oneCopyToEachDomain(t *testing.T, n *network) {
	edges := ringOf(4)
	boss := n.login(t, 1, masterOf("ANZ"))
	sender := n.login(t, 1, userIn(1), "accept")
	boss.expectPresence("USER_CONNECTED", sender.user)
	var to, absent []string
	var present []*client
	for domain := 1; domain <= 4; domain++ {
		for range 3 {
			c := n.login(t, domain, userIn(domain))
			boss.expectPresence("USER_CONNECTED", c.user)
			present = append(present, c)
			to = append(to, c.user)
		}
		away := userIn(domain)
		absent = append(absent, away)
		to = append(to, away, away) // twice: to is a set
	}
	before := n.rest(t, edges)
	sender.send("%s", group(to, "to all domains", "ref", "RELIABLE"))
	id := sender.expect("MESSAGE_ACCEPTED").Data.ID
	for _, c := range present {
		if f := c.expectMessage(sender.user, "to all domains"); f.reference() != "ref" || f.ID != id {
			t.Errorf("%s: got %v, want the reference ref and the id %s", c.user, f, id)
		}
	}
	more := moreThan(before, n.rest(t, edges))
	// To domain-02 and domain-04 directly, to domain-03 through either.
	through := map[[2]int]int{{1, 2}: 2, {1, 4}: 1, {2, 3}: 1}
	other := map[[2]int]int{{1, 2}: 1, {1, 4}: 2, {4, 3}: 1}
	if !maps.Equal(more, through) && !maps.Equal(more, other) {
		t.Errorf("the links carried %v, want %v or %v", more, through, other)
	}
	for i, user := range absent {
		c := n.login(t, i+1, user)
		got, left := c.fetch(100)
		if len(got) != 1 || left != 0 || got[0].Type != "MESSAGE" || got[0].Data.From != sender.user || got[0].reference() != "ref" || got[0].ID != id {
			t.Errorf("%s: got %v, %d left", user, got, left)
		}
		boss.expectPresence("USER_CONNECTED", user)
	}
	n.rest(t, edges)
	sender.works() // no confirmation came
	sender.send("%s", group(to, "quickly", "ref", "FAST"))
	for _, c := range present {
		if f := c.expectMessage(sender.user, "quickly"); f.reference() != "ref" {
			t.Errorf("%s: got %v", c.user, f)
		}
	}
}

func everyPair(t *testing.T, n *network) {
	var users [4]*client
	for i := range users {
		users[i] = n.login(t, i+1, userIn(i+1))
	}
	for i, from := range users {
		for j, to := range users {
			content := fmt.Sprintf("from %d to %d", i+1, j+1)
			from.say(to.user, content, content)
			if f := to.expectMessage(from.user, content); f.reference() != content || f.ID == "" || f.CreatedAt == 0 || f.Late {
				t.Errorf("got %v", f)
			}
			from.expectConfirmation(content)
			from.sayFast(to.user, "fast "+content, content)
			to.expectMessage(from.user, "fast "+content)
			from.expectConfirmation(content)
		}
	}
	for _, c := range users {
		c.works() // nothing came twice
	}
}

func manyOverTwoHops(t *testing.T, n *network) {
	const count = 500
	sender := n.login(t, 1, userIn(1), "accept")
	plain, pushed := n.login(t, 3, userIn(3)), n.login(t, 3, userIn(3), "push", "ack")
	for i := range count {
		sender.say(plain.user, strconv.Itoa(i), "")
		sender.say(pushed.user, strconv.Itoa(i), "")
	}
	for i := range count {
		plain.expectMessage(sender.user, strconv.Itoa(i))
		f := pushed.expectMessage(sender.user, strconv.Itoa(i))
		pushed.send(`{"type":"MESSAGE_ACK","data":{"upTo":%d}}`, f.Seq)
	}
	for range 2 * count {
		sender.expect("MESSAGE_ACCEPTED")
	}
	plain.works()
	sender.works()
}

func largestFrames(t *testing.T, n *network) {
	const limit = 64 << 10
	sender := n.login(t, 1, userIn(1), "accept")
	for _, domain := range []int{2, 3} {
		c := n.login(t, domain, userIn(domain))
		for _, feature := range []string{"RELIABLE", "FAST"} {
			content := strings.Repeat("ü\\\"", 60_000/7) // it grows when it is encoded
			sender.send("%s", message(c.user, content, feature, feature))
			c.expectMessage(sender.user, content)
			frame := message(c.user, "", feature, feature)
			content = strings.Repeat("x", limit-len(frame))
			sender.send("%s", message(c.user, content, feature, feature))
			c.expectMessage(sender.user, content)
			for got := map[string]int{}; got["MESSAGE_CONFIRMATION"] < 2 || feature == "RELIABLE" && got["MESSAGE_ACCEPTED"] < 2; {
				got[sender.next().Type]++
			}
		}
	}
	// As many members as a frame can name.
	to := make([]string, 4096)
	for i := range to {
		to[i] = fmt.Sprintf("ANZ-%d", 2*ownRange+500_000+i)
	}
	last := n.login(t, 3, to[4095])
	content := strings.Repeat("x", limit-len(group(to, "", "r", "RELIABLE")))
	sender.send("%s", group(to, content, "r", "RELIABLE"))
	for sender.next().Type != "MESSAGE_ACCEPTED" {
	}
	last.expectMessage(sender.user, content)
	for _, i := range []int{0, 2047, 4094} {
		c := n.login(t, 3, to[i])
		if got := c.fetchUntil(func(got []*frame) bool { return len(got) > 0 }); len(got) != 1 || got[0].Data.Content != content {
			t.Errorf("%s: got %v", to[i], got)
		}
	}
}

func groupsInOrder(t *testing.T, n *network) {
	const rounds = 50
	sender := n.login(t, 2, userIn(2))
	var members []*client
	var to []string
	for domain := 1; domain <= 4; domain++ {
		c := n.login(t, domain, userIn(domain))
		members = append(members, c)
		to = append(to, c.user)
	}
	for i := range rounds {
		sender.send("%s", group(to, strconv.Itoa(2*i), "", "RELIABLE"))
		for _, user := range to {
			sender.say(user, strconv.Itoa(2*i+1), "")
		}
	}
	for _, c := range members {
		for i := range 2 * rounds {
			c.expectMessage(sender.user, strconv.Itoa(i))
		}
	}
}

func awayFarAway(t *testing.T, n *network) {
	const count = 150
	a, b := userIn(1), userIn(3)
	sender := n.login(t, 1, a, "accept")
	for i := range count {
		sender.say(b, strconv.Itoa(i), strconv.Itoa(i))
	}
	for range count {
		sender.expect("MESSAGE_ACCEPTED")
	}
	sender.sayFast(b, "dropped", "")
	sender.works() // nothing is confirmed yet
	sender.leave()
	c := n.login(t, 3, b)
	got := c.fetchUntil(func(got []*frame) bool { return len(got) >= count })
	numbers(t, got, 0, count)
	c.works()
	// The confirmations are stored for the sender, who has gone.
	back := n.login(t, 1, a)
	confirmed := map[string]int{}
	for _, f := range back.fetchUntil(func(got []*frame) bool { return len(got) >= count }) {
		if f.Type != "MESSAGE_CONFIRMATION" {
			t.Errorf("got %v", f)
		}
		confirmed[f.Data.Reference]++
	}
	for i := range count {
		if confirmed[strconv.Itoa(i)] != 1 {
			t.Errorf("number %d was confirmed %d times", i, confirmed[strconv.Itoa(i)])
		}
	}
	back.works()
}

func featuresFarAway(t *testing.T, n *network) {
	sender, receiver := n.login(t, 4, userIn(4), "accept"), n.login(t, 2, userIn(2), "ack", "push")
	// The same client id again is taken once, and answered alike.
	var ids []string
	for range 2 {
		sender.send("%s", named(receiver.user, "once", "mine"))
		ids = append(ids, sender.expect("MESSAGE_ACCEPTED").Data.ID)
	}
	f := receiver.expectMessage(sender.user, "once")
	if f.Seq != 1 || ids[0] != ids[1] || f.ID != ids[0] {
		t.Errorf("accepted as %v, delivered as %v", ids, f)
	}
	sender.works() // nothing is confirmed before it is acknowledged
	receiver.send(`{"type":"MESSAGE_ACK","data":{"upTo":1}}`)
	sender.expectConfirmation("ref mine")
	receiver.works()
	// What is not acknowledged comes again, with its id.
	sender.say(receiver.user, "not acknowledged", "r")
	id := sender.expect("MESSAGE_ACCEPTED").Data.ID
	receiver.expectMessage(sender.user, "not acknowledged")
	receiver.cut()
	again := n.login(t, 2, receiver.user, "ack", "push")
	for f = again.next(); f.Data.Content != "not acknowledged"; f = again.next() {
		if f.Type != "MISSING_MESSAGES_AVAILABLE" && f.Data.Content != "does it still work?" {
			t.Fatalf("got %v", f)
		}
	}
	if f.ID != id {
		t.Errorf("got %v, want the id %s", f, id)
	}
	again.send(`{"type":"MESSAGE_ACK","data":{"upTo":%d}}`, f.Seq)
	sender.expectConfirmation("r")
}

func masterElsewhere(t *testing.T, n *network) {
	const rounds = 5
	app := ringApp(1)
	boss := ofApp(app, 3, masterNumber)
	users := []string{ofApp(app, 1, 1), ofApp(app, 2, 1), ofApp(app, 3, 1), ofApp(app, 4, 1)}
	master := n.login(t, 3, boss)
	for domain, user := range users {
		for range rounds {
			c := n.login(t, domain+1, user)
			master.expectPresence("USER_CONNECTED", user)
			c.leave()
			master.expectPresence("USER_DISCONNECTED", user)
		}
	}
	master.works()
}

// presenceKeptElsewhere needs links at rest: what is announced to the master after
// its login would not be fetched.
func presenceKeptElsewhere(t *testing.T, n *network) {
	const rounds = 5
	app := ringApp(4)
	users := []string{ofApp(app, 1, 1), ofApp(app, 2, 1), ofApp(app, 3, 1), ofApp(app, 4, 1)}
	// Nobody is announced as gone before the start is over in the user's lane.
	witness := n.login(t, 3, ofApp(app, 3, masterNumber))
	for i, user := range users {
		n.login(t, i+1, user).leave()
		witness.expectPresence("USER_CONNECTED", user)
		witness.expectPresence("USER_DISCONNECTED", user)
	}
	witness.leave()
	for range rounds {
		for i, user := range users {
			n.login(t, i+1, user).leave()
		}
	}
	stayed := n.login(t, 1, users[0])
	n.rest(t, ringOf(4))
	master := n.login(t, 3, ofApp(app, 3, masterNumber))
	got, left := master.fetch(2000)
	heard := map[string]string{}
	for _, f := range got {
		heard[f.Data.UserID] += map[string]string{"USER_CONNECTED": "+", "USER_DISCONNECTED": "-"}[f.Type]
	}
	for _, user := range users {
		want := strings.Repeat("+-", rounds)
		if user == stayed.user {
			want += "+"
		}
		if heard[user] != want || left != 0 {
			t.Errorf("the master heard %s of %s, want %s; %d are left", heard[user], user, want, left)
		}
	}
	stayed.leave()
	master.expectPresence("USER_DISCONNECTED", stayed.user)
	master.works()
}

func oneDeliveryElsewhere(t *testing.T, n *network) {
	const count = 60
	boss := ofApp("ONE", 3, masterNumber)
	workers := []*client{n.login(t, 3, boss), n.login(t, 3, boss), n.login(t, 3, boss)}
	user := n.login(t, 1, ofApp("ONE", 1, 1))
	for i := range count {
		user.say(boss, strconv.Itoa(i), "")
	}
	user.say(boss, "end", "")
	seen := map[string]int{}
	for total := 0; total < count+2; { // and the user's coming, and the end
		for _, w := range workers {
			for f, err := w.receive(flowEvery); err == nil; f, err = w.receive(0) {
				seen[f.Type+" "+f.Data.Content]++
				total++
			}
		}
	}
	for i := range count {
		if seen["MESSAGE "+strconv.Itoa(i)] != 1 {
			t.Errorf("number %d came %d times", i, seen["MESSAGE "+strconv.Itoa(i)])
		}
	}
}

func closeElsewhere(t *testing.T, n *network) {
	app := ringApp(2)
	boss := ofApp(app, 3, masterNumber)
	master := n.login(t, 3, boss)
	for domain := 1; domain <= 4; domain++ {
		user := ofApp(app, domain, 1)
		targets := []*client{n.login(t, domain, user), n.login(t, domain, user, "ack"), n.login(t, domain, user, "push")}
		// Those whom it has seen come in other domains may be announced in between.
		for f := master.next(); f.Type != "USER_CONNECTED" || f.Data.UserID != user; f = master.next() {
			if f.Type != "USER_CONNECTED" && f.Type != "USER_DISCONNECTED" {
				t.Fatalf("the master got %v", f)
			}
		}
		for name, c := range map[string]*client{
			"a user of the app":           n.login(t, domain%4+1, userOfRing(app, domain%4+1)),
			"the master of another app":   n.login(t, 1, masterOf("ANZ")),
			"a master of the same domain": n.login(t, 3, ofApp(ringApp(3), 3, masterNumber)),
		} {
			c.send("%s", closing(user, "r"))
			for f := c.next(); f.Type != "DELIVER_FAILED"; f = c.next() { // presence may come before
				if f.Type != "USER_CONNECTED" && f.Type != "USER_DISCONNECTED" {
					t.Fatalf("%s: got %v", name, f)
				}
			}
			c.cut()
		}
		targets[0].works()
		for _, c := range targets[1:] {
			c.expectMessage(user, "does it still work?")
		}
		master.send("%s", closing(user, "r"))
		for _, c := range targets {
			c.expectClosed(4410)
		}
		for f := master.next(); f.Type != "USER_DISCONNECTED" || f.Data.UserID != user; f = master.next() {
			if !strings.HasPrefix(f.Type, "USER_") {
				t.Fatalf("the master got %v", f)
			}
		}
		// Who is absent is reported from where it is at home, and not hit later.
		master.send("%s", closing(user, "absent"))
		for f := master.next(); f.Type != "DELIVER_FAILED"; f = master.next() {
			if !strings.HasPrefix(f.Type, "USER_") {
				t.Fatalf("the master got %v", f)
			}
		}
		c := n.login(t, domain, user)
		c.works()
		for f := master.next(); f.Type != "USER_CONNECTED" || f.Data.UserID != user; f = master.next() {
		}
		c.works()
		c.leave()
		for f := master.next(); f.Type != "USER_DISCONNECTED" || f.Data.UserID != user; f = master.next() {
		}
	}
}

// userOfRing returns a user of an app in a domain that nobody else has.
func userOfRing(app string, domain int) string { return ofApp(app, domain, 1000+int(lastUser.Add(1))) }

func appsElsewhere(t *testing.T, n *network) {
	a, b := n.login(t, 1, ofApp("FRIEND1", 1, 1)), n.login(t, 3, ofApp("FRIEND2", 3, 1))
	a.say(b.user, "hello", "r")
	b.expectMessage(a.user, "hello")
	a.expectConfirmation("r")
	b.sayFast(a.user, "hello back", "r")
	a.expectMessage(b.user, "hello back")
	b.expectConfirmation("r")
	for _, feature := range []string{"RELIABLE", "FAST"} {
		for to, code := range map[string]string{
			ofApp("ANZ", 3, 1): "FORBIDDEN_APP", ofApp("ANZ", 1, 1): "FORBIDDEN_APP", ofApp("XYZ", 3, 1): "UNKNOWN_APP",
		} {
			a.send("%s", message(to, "x", "r", feature))
			a.expectFailure("DELIVER_FAILED", code, "r", to)
			a.send("%s", group([]string{b.user, to}, "x", "r", feature))
			a.expectFailure("DELIVER_FAILED", code, "r", to)
		}
	}
	b.works()
}

func socketsElsewhere(t *testing.T, n *network) {
	user := userIn(4)
	sockets := []*client{n.login(t, 4, user), n.login(t, 4, user), n.login(t, 4, user)}
	sender := n.login(t, 2, userIn(2))
	ids := map[string]bool{}
	for _, feature := range []string{"RELIABLE", "FAST"} {
		sender.send("%s", message(user, feature, "r", feature))
		for _, c := range sockets {
			ids[c.expectMessage(sender.user, feature).ID] = true
		}
		sender.expectConfirmation("r")
	}
	if len(ids) != 2 {
		t.Errorf("two messages came with the ids %v", ids)
	}
	sender.works() // each was confirmed once
	c := dial(t, n.place(2).Websocket)
	c.send("%s", auth(user))
	if f := c.expect("AUTH_CLIENT_REPLY"); f.Data.Reason != "WRONG_DOMAIN" || f.Data.Domain != domainName(4) || !slices.Equal(f.Data.URLs, []string{clientURL(4)}) {
		t.Errorf("got %v", f)
	}
}
