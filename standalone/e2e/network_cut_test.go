package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	// cutLimit is how long it may take until messages take another way when a link
	// has ended as both sides can see.
	cutLimit = 5 * time.Second
	// silentLimit is the same when nothing arrives any more and nobody is told, and a
	// little more for what then has to be told on.
	silentLimit = 15*time.Second + cutLimit
)

// fault is something that happens to the link of domain-01 and domain-02.
type fault struct {
	name  string
	down  func(*network)
	limit time.Duration // until messages take another way
	peer  string        // what domain-02 says of its direction
}

// TestTrafficTakesAnotherWayWhenALinkIsCut does to a link of a ring what networks do,
// while messages flow over it in both directions.
func TestTrafficTakesAnotherWayWhenALinkIsCut(t *testing.T) {
	t.Parallel()
	for _, faults := range [][]fault{
		{
			{"cut", func(n *network) { n.cut(1, 2) }, cutLimit, "down"},
			{"cut in one direction", func(n *network) { n.link(1, 2)[0].cut() }, cutLimit, "up"},
			{"deaf in one direction", func(n *network) { n.link(1, 2)[0].blackhole(forth) }, silentLimit, "up"},
		},
		{
			{"pulled", func(n *network) { n.pull(1, 2) }, silentLimit, "down"},
		},
		{
			{"mute in one direction", func(n *network) { n.link(1, 2)[0].blackhole(back) }, silentLimit, "up"},
		},
	} {
		t.Run(faults[0].name, func(t *testing.T) {
			t.Parallel()
			n := startNetwork(t, networkSetup{yaml: describeNetwork(4, ringOf(4))})
			n.settle(t, 4)
			flows := []*flow{n.flow(t, 1, 2), n.flow(t, 2, 1), n.flow(t, 3, 4)}
			for _, f := range flows {
				f.after(t, time.Now(), patience)
			}
			for _, fault := range faults {
				fault.strike(t, n, flows)
			}
			for _, f := range flows {
				f.finish(t)
			}
		})
	}
}

// strike breaks the link and heals it again.
func (c fault) strike(t *testing.T, n *network, flows []*flow) {
	t.Helper()
	there, back := flows[0], flows[1]
	began := time.Now()
	c.down(n)
	first, second := there.after(t, began, 2*c.limit), back.after(t, began, 2*c.limit)
	t.Logf("%s: messages come %v later, and %v later the other way", c.name, first, second)
	patiently(t, "another way", 2*c.limit, func() bool { return n.goes(t, 1, 4, 3, 2) })
	within(t, c.name+": another way", c.limit, began)
	if l := n.linkTo(t, 1, 2); l.State != "down" || l.PeerState != c.peer {
		t.Errorf("%s: domain 1 says %+v, want that it is down, and %s for domain 2", c.name, l, c.peer)
	}
	if r := n.route(t, 1, 2); !r.Reachable || r.NextHop != domainName(4) || r.Cost != 3 || r.ConfiguredCost != 1 {
		t.Errorf("%s: domain 1 routes %+v", c.name, r)
	}
	carries := func(to int) {
		t.Helper()
		carried := func() float64 {
			return total(t, n.place(1).Processor, "linker_link_records_total", neighbour(to))
		}
		before := carried()
		there.after(t, time.Now(), patience)
		patiently(t, "records on the link with "+domainName(to), patience, func() bool { return carried() > before })
	}
	carries(4)
	reaches(t, n, 1, 2)
	n.heal(1, 2)
	patiently(t, "the way back", backOff, func() bool { return n.goes(t, 1, 2) && n.goes(t, 2, 1) })
	healed := time.Now()
	there.after(t, healed, patience)
	back.after(t, healed, patience)
	carries(2)
}

// reaches shows that messages of both kinds find the way between two domains, with
// confirmation: FAST after RELIABLE, which would have waited for the way.
func reaches(t *testing.T, n *network, from, to int) {
	t.Helper()
	sender, receiver := n.login(t, from, userIn(from)), n.login(t, to, userIn(to))
	for _, feature := range []string{"RELIABLE", "FAST"} {
		sender.send("%s", message(receiver.user, feature, feature, feature))
		receiver.expectMessage(sender.user, feature)
		sender.expectConfirmation(feature)
	}
}

// waiting is how many records wait in all domains for the road to one of them.
func (n *network) waiting(t *testing.T, to int) int {
	t.Helper()
	sum := 0.0
	for _, p := range n.Places() {
		sum += total(t, p.Processor, "linker_lane_road_waiting_records", destination(to))
	}
	return int(sum)
}

func TestMessagesWaitForTheOnlyRoadWhileOthersGoOn(t *testing.T) {
	t.Parallel()
	const count = 60
	n := startNetwork(t, networkSetup{yaml: describeNetwork(3, lineOf(3))})
	n.settle(t, 3)
	others := []*flow{n.flow(t, 1, 2), n.flow(t, 2, 1), n.flow(t, 3, 3)}
	sender, receiver := n.login(t, 1, userIn(1), "accept"), n.login(t, 3, userIn(3), "push")
	boss := n.login(t, 1, masterOf("ANZ"))
	began := time.Now()
	for _, f := range others {
		f.after(t, began.Add(time.Second), patience) // long enough for a median
	}
	n.cut(2, 3)
	patiently(t, "no road", patience, func() bool { return !n.route(t, 1, 3).Reachable && !n.route(t, 2, 3).Reachable })
	closed := time.Now()
	for i := range count {
		sender.say(receiver.user, strconv.Itoa(i), strconv.Itoa(i))
		sender.expect("MESSAGE_ACCEPTED")
	}
	patiently(t, "visible what waits", patience, func() bool { return n.waiting(t, 3) == count })
	sender.sayFast(receiver.user, "dropped", "")
	patiently(t, "a FAST message dropped", patience, func() bool {
		return total(t, n.place(1).Processor, "linker_lane_fast_dropped_total", `reason="no_road"`) == 1
	})
	boss.send("%s", closing(receiver.user, "r")) // a command does not wait for a road
	f := boss.next()
	for strings.HasPrefix(f.Type, "USER_") {
		f = boss.next()
	}
	if f.Type != "DELIVER_FAILED" || f.Data.Code != "NO_ROUTE" || f.reference() != "r" || !*f.Data.Retryable {
		t.Errorf("the master got %v, want NO_ROUTE", f)
	}
	for _, f := range others {
		f.after(t, closed.Add(time.Second), patience)
	}
	opened := time.Now()
	n.heal(2, 3)
	for i := range count {
		if f = receiver.expectMessage(sender.user, strconv.Itoa(i)); f.Late {
			t.Errorf("%v is late, although it has waited with all others", f)
		}
	}
	t.Logf("everything followed %v after the road was open", time.Since(opened).Round(time.Millisecond))
	confirmed := map[string]int{}
	for range count {
		confirmed[sender.expect("MESSAGE_CONFIRMATION").Data.Reference]++
	}
	if len(confirmed) != count {
		t.Errorf("%d of %d were confirmed", len(confirmed), count)
	}
	patiently(t, "nothing waiting", patience, func() bool { return n.waiting(t, 3) == 0 })
	receiver.works()
	sender.works()
	boss.cut()
	for _, f := range others {
		list := f.finish(t)
		before, during := median(list, began, closed), median(list, closed, opened)
		t.Logf("%s: %v before the road was closed, %v while it was", f.name, before, during)
		if during > 3*before+100*time.Millisecond {
			t.Errorf("%s: messages took %v while the road to domain 3 was closed, and %v before", f.name, during, before)
		}
	}
}

// TestWhatWasStuckForLongerThanTheHoldComesLate lets messages get stuck in a domain
// that is cut off, while newer ones of their sender take another road. It takes as
// long as those wait for them.
func TestWhatWasStuckForLongerThanTheHoldComesLate(t *testing.T) {
	t.Parallel()
	const hold = 30 * time.Second
	n := startNetwork(t, networkSetup{yaml: describeNetwork(4, []edge{{1, 2, ""}, {2, 3, ""}, {3, 4, ", cost: 2"}, {4, 1, ", cost: 2"}})})
	n.settle(t, 4)
	sender, receiver := n.login(t, 1, userIn(1), "accept"), n.login(t, 3, userIn(3), "push")
	patient := userIn(3) // who is away, and fetches at the end
	other := n.flow(t, 4, 3)
	last := 0
	say := func(count int) {
		t.Helper()
		for range count {
			for _, to := range []string{receiver.user, patient} {
				sender.say(to, strconv.Itoa(last), "")
				sender.expect("MESSAGE_ACCEPTED")
			}
			last++
		}
	}
	come := func(first, end int, late bool) {
		t.Helper()
		for i := first; i < end; i++ {
			if f, err := receiver.receive(hold + patience); err != nil || f.Data.Content != strconv.Itoa(i) || f.Late != late {
				t.Fatalf("got %v, %v, want number %d, late %t", f, err, i, late)
			}
		}
	}
	arrived := func() float64 { return total(t, n.place(3).Connector, "linker_linkport_records_total", neighbour(2)) }
	there := arrived()
	say(10)
	come(0, 10, false)
	patiently(t, "those for who is away are there as well", patience, func() bool { return arrived() >= there+20 })
	n.pull(2, 3) // domain-02 does not know yet, and takes what it cannot hand on
	taken := func() float64 { return total(t, n.place(2).Connector, "linker_linkport_records_total", neighbour(1)) }
	before := taken()
	say(10)
	patiently(t, "taken by domain 2", patience, func() bool { return taken() >= before+20 })
	patiently(t, "acknowledged by domain 2", patience, func() bool {
		return total(t, n.place(1).Processor, "linker_link_unacknowledged", neighbour(2)) == 0
	})
	n.cut(1, 2)
	patiently(t, "another road", patience, func() bool { return n.goes(t, 1, 4, 3) })
	began := time.Now()
	say(10)
	come(20, 30, false)
	held := time.Since(began)
	t.Logf("newer messages waited %v for those before them", held.Round(time.Millisecond))
	if held < hold-time.Second {
		t.Errorf("newer messages came after %v, want %v", held, hold)
	}
	say(1)
	come(30, 31, false)
	n.heal(1, 2)
	n.heal(2, 3)
	come(10, 20, true)
	say(1)
	come(31, 32, false)
	receiver.works()
	c := n.login(t, 3, patient)
	got := c.fetchUntil(func(got []*frame) bool { return len(got) >= last })
	var order []string
	for _, f := range got {
		mark := ""
		if f.Late {
			mark = "L"
		}
		order = append(order, f.Data.Content+mark)
	}
	var want []string
	for i := range last {
		want = append(want, strconv.Itoa(i))
	}
	if len(order) != len(want) {
		t.Errorf("who was away got %v, want each of %v once", order, want)
	}
	if late := total(t, n.place(3).Processor, "linker_lane_late_total"); late != 20 {
		t.Errorf("%v late messages are counted, want 20; who was away got %v", late, fmt.Sprint(order))
	}
	other.finish(t)
}
