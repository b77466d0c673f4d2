package e2e

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestDomainsAndLinksAreAddedAndRemovedWhileMessagesFlow(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, networkSetup{yaml: describeNetwork(2, lineOf(2))})
	n.settle(t, 2)
	flows := []*flow{n.flow(t, 1, 2), n.flow(t, 2, 1)}
	goOn := func(what string) {
		t.Helper()
		began := time.Now()
		for _, f := range flows {
			t.Logf("%s: %s messages come after %v", what, f.name, f.after(t, began, patience))
		}
	}
	goOn("at the start")

	n.describe(t, describeNetwork(3, lineOf(3)))
	patiently(t, "a third domain", readyPatience, func() bool { return len(n.Places()) == 3 })
	patiently(t, "users in it", readyPatience, func() bool {
		c, err := tryLogin(t, n.place(3).Websocket, userIn(3))
		if err == nil {
			c.cut()
		}
		return err == nil
	})
	n.settle(t, 3)
	flows = append(flows, n.flow(t, 1, 3), n.flow(t, 3, 1), n.flow(t, 3, 2))
	goOn("with a third domain")
	if !n.goes(t, 1, 2, 3) {
		t.Errorf("domain 1 routes %+v", n.route(t, 1, 3))
	}

	n.describe(t, describeNetwork(3, ringOf(3)))
	patiently(t, "the new link in use", backOff, func() bool { return n.goes(t, 1, 3) && n.goes(t, 3, 1) })
	goOn("with a new link")

	n.describe(t, describeNetwork(3, []edge{{a: 2, b: 3}, {a: 3, b: 1}}))
	patiently(t, "the other way round", backOff, func() bool { return n.goes(t, 1, 3, 2) && n.goes(t, 2, 3, 1) })
	goOn("without the first link")
	if l := n.linkTo(t, 1, 2); l.Neighbour != "" {
		t.Errorf("domain 1 still tells of %+v", l)
	}

	n.describe(t, describeNetwork(3, []edge{withCost(1, 2, 5), {a: 2, b: 3}, {a: 3, b: 1}}))
	patiently(t, "the link again", backOff, func() bool { return len(n.MissingLinks()) == 0 && n.linkTo(t, 1, 2).State == "up" })
	if !n.goes(t, 1, 3, 2) {
		t.Errorf("domain 1 routes %+v although the direct link is dear", n.route(t, 1, 2))
	}
	n.describe(t, describeNetwork(3, []edge{withCost(1, 2, 1), {a: 2, b: 3}, {a: 3, b: 1}}))
	patiently(t, "the direct way", backOff, func() bool { return n.goes(t, 1, 2) && n.goes(t, 2, 1) })
	goOn("with the first link")
	for _, f := range flows {
		f.finish(t)
	}
}

// The users who move: of domain-01, to domain-03, and back.
const (
	movingFrom = 500_000
	movingTo   = 599_999
)

// movingNetwork is a line of three, as it is before and after the move.
func movingNetwork(moved bool) string {
	yaml := withApps(describeNetwork(3, lineOf(3)), appWith(loadApp, 2, ""))
	if moved {
		yaml = strings.Replace(yaml, "userDistributions:\n",
			fmt.Sprintf("userDistributions:\n  - {domainName: %s, from: %d, to: %d}\n", domainName(3), movingFrom, movingTo), 1)
	}
	return yaml
}

// mover returns a user who moves.
func mover(app string, number int) string { return fmt.Sprintf("%s-%d", app, movingFrom+number) }

// enter logs a user in at a domain, as soon as it is at home there.
func (n *network) enter(t *testing.T, domain int, user string, features ...string) *client {
	t.Helper()
	var c *client
	patiently(t, user+" at home in "+domainName(domain), patience, func() bool {
		var err error
		c, err = tryLogin(t, n.place(domain).Websocket, user, features...)
		return err == nil
	})
	return c
}

func TestUsersMoveToAnotherDomainWithAllThatWaitsForThem(t *testing.T) {
	t.Parallel()
	const part = 60
	n := startNetwork(t, networkSetup{yaml: movingNetwork(false)})
	n.settle(t, 3)
	fetching, pushed, returning := mover("ANZ", 1), mover("ANZ", 2), mover("ANZ", 3)
	sender := n.login(t, 2, userIn(2), "accept")
	sent := map[string]int{}
	say := func(to ...string) {
		t.Helper()
		for range part {
			for _, user := range to {
				sender.say(user, strconv.Itoa(sent[user]), "")
				sent[user]++
			}
		}
		for range part * len(to) {
			sender.expect("MESSAGE_ACCEPTED")
		}
	}
	say(fetching, pushed, returning)
	plain, hinted := n.login(t, 1, mover("ANZ", 4)), n.login(t, 1, mover("ANZ", 5), []string{}...)
	present := n.login(t, 1, mover("ANZ", 6), "push")
	staying := n.login(t, 1, userAt(1, 400_000))
	sender.say(present.user, "0", "")
	sender.expect("MESSAGE_ACCEPTED")
	present.expectMessage(sender.user, "0")

	l := newMovingLoad(t, n)
	l.flows(t, time.Now(), patience)

	n.describe(t, movingNetwork(true))
	say(fetching, pushed, returning)
	plain.expectClosed(4421)
	if f := hinted.expect("GO_AWAY"); f.Data.Reason == "" {
		t.Errorf("got %v", f)
	}
	hinted.expectClosed(4421)
	if got := present.closed(); got != 4421 {
		t.Errorf("got close code %d, want 4421", got)
	}
	staying.works()
	_, err := tryLogin(t, n.place(1).Websocket, fetching)
	if err == nil || !strings.Contains(err.Error(), "WRONG_DOMAIN") || !strings.Contains(err.Error(), clientURL(3)) {
		t.Errorf("got %v, want WRONG_DOMAIN with %s", err, clientURL(3))
	}
	c := n.enter(t, 3, fetching)
	numbers(t, c.fetchUntil(func(got []*frame) bool { return len(got) >= sent[fetching] }), 0, sent[fetching])
	c.works()
	c = n.enter(t, 3, pushed, "push")
	for i := range sent[pushed] {
		f := c.next()
		if f.Type == "MISSING_MESSAGES_AVAILABLE" {
			f = c.next()
		}
		if f.Type != "MESSAGE" || f.Data.Content != strconv.Itoa(i) || f.Late {
			t.Fatalf("%s: got %v, want number %d", pushed, f, i)
		}
	}
	c.works()
	sender.say(present.user, "1", "")
	sender.expect("MESSAGE_ACCEPTED")
	back := n.enter(t, 3, present.user, "push")
	for f := back.next(); f.Data.Content != "1"; f = back.next() { // what was proved just before the move may come again
		if f.Type != "MISSING_MESSAGES_AVAILABLE" && f.Data.Content != "0" {
			t.Fatalf("%s: got %v", present.user, f)
		}
	}
	l.flows(t, time.Now(), backOff)

	n.describe(t, movingNetwork(false))
	say(returning)
	if got := c.closed(); got != 4421 {
		t.Errorf("got close code %d, want 4421", got)
	}
	c = n.enter(t, 1, returning)
	numbers(t, c.fetchUntil(func(got []*frame) bool { return len(got) >= sent[returning] }), 0, sent[returning])
	c.works()
	c = n.enter(t, 1, pushed, "push")
	c.works()
	l.flows(t, time.Now(), backOff)
	l.finish(t)
}

// newMovingLoad lets users of all domains write to users of all domains, some of whom
// move.
func newMovingLoad(t *testing.T, n *network) *load {
	t.Helper()
	l := newLoad(t, n.websockets)
	l.ledger.far, l.every = true, farEvery
	push := []string{"push"}
	receivers := []string{mover(loadApp, 1), mover(loadApp, 2), mover(loadApp, 3), mover(loadApp, 4), ofApp(loadApp, 2, 1), ofApp(loadApp, 3, 1)}
	l.receive(receivers[0], kind{features: push, patient: true}, 0)
	l.receive(receivers[1], kind{features: []string{"push", "ack"}}, 0)
	l.receive(receivers[2], kind{features: push, restless: true}, 0)
	l.receive(receivers[3], kind{}, 0)
	l.receive(receivers[4], kind{features: push}, 1)
	l.receive(receivers[5], kind{features: push}, 2)
	l.send(ofApp(loadApp, 1, 100), receivers, true, 0)
	l.send(mover(loadApp, 100), receivers, true, 0)
	l.send(mover(loadApp, 101), receivers, false, 0)
	l.send(ofApp(loadApp, 2, 100), receivers, false, 1)
	l.send(ofApp(loadApp, 3, 100), receivers, true, 2)
	return l
}

// websockets is where the clients of all domains can connect.
func (n *network) websockets() []string {
	var urls []string
	for _, p := range n.Places() {
		urls = append(urls, p.Websocket)
	}
	return urls
}

func TestTheSenderIsToldWhatCannotBeDeliveredAnyMore(t *testing.T) {
	t.Parallel()
	const count = 5
	describe := func(edges []edge, allowed string) string {
		return withApps(describeNetwork(3, edges), appWith("FRIEND1", 1, ", allowedApps: [FRIEND2]"), appWith("FRIEND2", 3, allowed))
	}
	const allowed = ", allowedApps: [FRIEND1]"
	n := startNetwork(t, networkSetup{yaml: describe(lineOf(3), allowed)})
	n.settle(t, 3)
	friend, receiver := n.login(t, 1, ofApp("FRIEND1", 1, 1), "accept"), ofApp("FRIEND2", 3, 1)
	n.cut(2, 3)
	patiently(t, "no road", patience, func() bool { return !n.route(t, 1, 3).Reachable })

	// Its app may not write to the other any more, while the message waits for a road.
	friend.say(receiver, "too late", "waits")
	friend.expect("MESSAGE_ACCEPTED")
	n.describe(t, describe(lineOf(3), ""))
	told := map[string]string{}
	patiently(t, "the ban in force", patience, func() bool {
		friend.say(receiver, "refused at once", "now")
		f := friend.next()
		told[f.reference()] = f.Data.Code
		return told["now"] == "FORBIDDEN_APP"
	})
	n.heal(2, 3)
	for told["waits"] == "" {
		f := friend.next()
		told[f.reference()] = f.Data.Code
	}
	if told["waits"] != "FORBIDDEN_APP" {
		t.Errorf("the sender was told %v", told)
	}
	if got, left := n.login(t, 3, receiver).fetch(10); len(got) != 0 || left != 0 {
		t.Errorf("the receiver got %v, %d left", got, left)
	}

	// There is no path any more, not even a closed one.
	n.cut(2, 3)
	patiently(t, "no road", patience, func() bool { return !n.route(t, 1, 3).Reachable })
	sender, away := n.login(t, 1, userIn(1), "accept"), userIn(3)
	var references []string
	for i := range count {
		reference := strconv.Itoa(i)
		references = append(references, reference)
		sender.say(away, "in vain", reference)
		sender.expect("MESSAGE_ACCEPTED")
	}
	n.describe(t, describe(lineOf(2), allowed))
	var failed []string
	for range count {
		f := sender.next()
		if f.Type != "DELIVER_FAILED" || f.Data.Code != "NO_ROUTE" {
			t.Fatalf("got %v, want NO_ROUTE", f)
		}
		failed = append(failed, f.reference())
	}
	slices.Sort(failed)
	if !slices.Equal(failed, references) {
		t.Errorf("failures of %v were told, want %v", failed, references)
	}
	patiently(t, "dead letters counted", patience, func() bool {
		return total(t, n.place(1).Processor, "linker_lane_dead_letters_total", `reason="NO_ROUTE"`) >= count
	})
	sender.works()
}
