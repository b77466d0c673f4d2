package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// room is how many domains may run at the same time in all networks of tests: each
// has work to do even if nothing happens, and more would only be slower.
func room() int {
	if len(buildFlags()) > 0 { // that is what looks for data races
		return 10
	}
	return 20
}

// occupied is what of the room is taken. Who comes first gets it first.
var occupied struct {
	turn sync.Mutex // is held by who waits next
	mu   sync.Mutex
	free *sync.Cond // told when domains have ended
	used int        // guarded by mu
}

// admit waits until so many domains can run beside the others, until the test ends.
func admit(t *testing.T, domains int) {
	t.Helper()
	o := &occupied
	o.turn.Lock()
	defer o.turn.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.free == nil {
		o.free = sync.NewCond(&o.mu)
	}
	for o.used > 0 && o.used+domains > room() {
		o.free.Wait()
	}
	o.used += domains
	t.Cleanup(func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.used -= domains
		o.free.Broadcast()
	})
}

// linkView is what a processor tells of the link to a neighbour.
type linkView struct {
	Neighbour, State, PeerState, Proof, LastError string
	Cost                                          int
}

// routeView is what a processor tells of the way to another domain.
type routeView struct {
	Domain, NextHop      string
	Reachable            bool
	Path, ConfiguredPath []string
	Cost, ConfiguredCost int
}

// userIn returns a user of ANZ that is at home in the n-th domain and that nobody
// else has.
func userIn(n int) string { return userAt(n, 1000+int(lastUser.Add(1))) }

// ask gets what the processor of the n-th domain tells.
func (n *network) ask(t *testing.T, number int, path string, into any) {
	t.Helper()
	code, body := get(t, n.place(number).Processor+path)
	if code != 200 {
		t.Fatalf("%s of domain %d: got %d %s", path, number, code, body)
	}
	if err := json.Unmarshal([]byte(body), into); err != nil {
		t.Fatalf("%s of domain %d: %v: %s", path, number, err, body)
	}
}

// linkTo is what one domain tells of its link to another.
func (n *network) linkTo(t *testing.T, from, to int) linkView {
	t.Helper()
	var links []linkView
	n.ask(t, from, "/v1/links", &links)
	for _, l := range links {
		if l.Neighbour == domainName(to) {
			return l
		}
	}
	return linkView{}
}

// routes is what one domain tells of the ways to all others.
func (n *network) routes(t *testing.T, from int) []routeView {
	t.Helper()
	var routes []routeView
	n.ask(t, from, "/v1/routes", &routes)
	return routes
}

// route is what one domain tells of the way to another.
func (n *network) route(t *testing.T, from, to int) routeView {
	t.Helper()
	for _, r := range n.routes(t, from) {
		if r.Domain == domainName(to) {
			return r
		}
	}
	return routeView{}
}

// goes says whether one domain sends what is for another along these domains.
func (n *network) goes(t *testing.T, along ...int) bool {
	t.Helper()
	var path []string
	for _, number := range along {
		path = append(path, domainName(number))
	}
	return slices.Equal(n.route(t, along[0], along[len(along)-1]).Path, path)
}

// settle waits until every domain knows of every link, and routes as if all were up.
func (n *network) settle(t *testing.T, domains int) {
	t.Helper()
	patiently(t, "every domain routes as the file says", backOff, func() bool {
		for number := 1; number <= domains; number++ {
			routes := n.routes(t, number)
			if len(routes) != domains-1 {
				return false
			}
			for _, r := range routes {
				if r.Cost != r.ConfiguredCost || r.Reachable != (len(r.ConfiguredPath) > 0) {
					return false
				}
			}
		}
		return true
	})
}

// figures are the metrics of a service.
type figures string

// figuresOf gets the metrics of a service.
func figuresOf(t *testing.T, url string) figures {
	t.Helper()
	_, text := get(t, url+"/metrics")
	return figures(text)
}

// total adds up the samples of a metric that have all these labels.
func (f figures) total(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	sum := 0.0
lines:
	for line := range strings.Lines(string(f)) {
		sample, number, _ := strings.Cut(strings.TrimSpace(line), " ")
		found, rest, _ := strings.Cut(sample, "{")
		if found != name {
			continue
		}
		for _, label := range labels {
			if !strings.Contains(rest, label) {
				continue lines
			}
		}
		value, err := strconv.ParseFloat(number, 64)
		if err != nil {
			t.Fatalf("%s: %q: %v", name, line, err)
		}
		sum += value
	}
	return sum
}

// total is that of a service now.
func total(t *testing.T, url, name string, labels ...string) float64 {
	t.Helper()
	return figuresOf(t, url).total(t, name, labels...)
}

// neighbour is the label of a neighbour.
func neighbour(number int) string { return fmt.Sprintf("neighbour=%q", domainName(number)) }

// destination is the label of a domain for which something waits.
func destination(number int) string { return fmt.Sprintf("destination=%q", domainName(number)) }

// rest waits until the links carry nothing any more, and returns how many records
// each direction of each link has carried.
func (n *network) rest(t *testing.T, edges []edge) map[[2]int]int {
	t.Helper()
	const quiet = 3 // looks in which nothing has changed
	var last map[[2]int]int
	same := 0
	patiently(t, "the links at rest", patience, func() bool {
		now, busy := n.carried(t, edges)
		same++
		if busy || !maps.Equal(now, last) {
			same = 0
		}
		last = now
		return same >= quiet
	})
	return last
}

// carried is how many records each direction of each link has carried, and whether
// something is under way.
func (n *network) carried(t *testing.T, edges []edge) (counts map[[2]int]int, busy bool) {
	t.Helper()
	counts = map[[2]int]int{}
	for i, p := range n.Places() {
		f := figuresOf(t, p.Processor)
		for _, e := range edges {
			switch i + 1 {
			case e.a:
				counts[[2]int{e.a, e.b}] = int(f.total(t, "linker_link_records_total", neighbour(e.b)))
			case e.b:
				counts[[2]int{e.b, e.a}] = int(f.total(t, "linker_link_records_total", neighbour(e.a)))
			}
		}
		busy = busy || f.total(t, "linker_link_unacknowledged") > 0 || f.total(t, "linker_lane_unsettled_records") > 0
	}
	return counts, busy
}

// moreThan returns what has been carried since then, by direction.
func moreThan(before, after map[[2]int]int) map[[2]int]int {
	more := map[[2]int]int{}
	for way, count := range after {
		if count != before[way] {
			more[way] = count - before[way]
		}
	}
	return more
}

// describe replaces the description of the network, as an operator does.
func (n *network) describe(t *testing.T, yaml string) {
	t.Helper()
	next := n.NetworkFile() + ".next"
	if err := os.WriteFile(next, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, n.NetworkFile()); err != nil {
		t.Fatal(err)
	}
}

// withApps adds apps to a description, in YAML.
func withApps(yaml string, apps ...string) string {
	return strings.Replace(yaml, "userDistributions:", strings.Join(apps, "")+"userDistributions:", 1)
}

// appWith describes an app with a master that is at home in the n-th domain.
func appWith(name string, n int, more string) string {
	return fmt.Sprintf("  - {appName: %s, appId: %s, masterUserId: %s%s}\n", name, appID(name), ofApp(name, n, masterNumber), more)
}

// ofApp returns a user of an app that is at home in the n-th domain.
func ofApp(app string, n, number int) string {
	return fmt.Sprintf("%s-%d", app, (n-1)*ownRange+number)
}

// flow is messages of one sender to one receiver in another domain, both of whom
// stay connected: it demands that each comes once, in order, and none late.
type flow struct {
	name             string
	sender, receiver *client
	stop             chan struct{} // closed to end the sending
	sent             chan int      // gets how many were sent, when sending has ended
	got              chan []taking // gets what has come, when the receiver's connection has ended
	heard            chan hearing  // gets what the sender has heard, when its connection has ended
	arrivals         chan taking   // the newest arrival, for who waits for one; capacity 1

	arrived, confirmed  atomic.Int64
	refused, refusedOwn atomic.Int64 // because the log was not available; and those of them that wanted confirmation
}

// taking is one message of a flow that has come.
type taking struct {
	n        int
	sent, at time.Time
	id       string
	late     bool
}

// hearing is what a sender of a flow was told.
type hearing struct {
	ids       map[int]string // by number, of what was accepted
	confirmed map[int]int    // by number, how often
	refused   map[int]bool   // by number, because the log was not available
	wrong     []string
}

const (
	flowEvery   = 40 * time.Millisecond
	flowConfirm = 4 // of the messages of a flow
)

// flow lets messages flow from a user of one domain to one of another, until finish
// is called.
func (n *network) flow(t *testing.T, from, to int) *flow {
	t.Helper()
	f := &flow{
		name:   fmt.Sprintf("from domain %d to %d", from, to),
		sender: n.login(t, from, userIn(from), "accept", "push"), receiver: n.login(t, to, userIn(to), "push"),
		stop: make(chan struct{}), sent: make(chan int, 1), got: make(chan []taking, 1), heard: make(chan hearing, 1),
		arrivals: make(chan taking, 1),
	}
	go f.send()
	go f.receive()
	go f.listen()
	return f
}

func (f *flow) send() {
	tick := time.NewTicker(flowEvery)
	defer tick.Stop()
	for n := 1; ; n++ {
		reference := strconv.Itoa(n)
		text := fmt.Sprintf(`{"type":"MESSAGE","data":{"to":%q,"content":"%d %d"},"reference":%q,"confirmationEnabled":%t}`,
			f.receiver.user, n, time.Now().UnixNano(), reference, n%flowConfirm == 0)
		if f.sender.write(text) != nil {
			f.sent <- n - 1
			return
		}
		select {
		case <-tick.C:
		case <-f.stop:
			f.sent <- n
			return
		}
	}
}

func (f *flow) receive() {
	var list []taking
	for {
		frame, err := f.receiver.receive(time.Hour)
		if err != nil {
			f.got <- list
			return
		}
		if frame.Type != "MESSAGE" {
			continue
		}
		m := taking{at: time.Now(), id: frame.ID, late: frame.Late}
		var sent int64
		if _, err := fmt.Sscan(frame.Data.Content, &m.n, &sent); err != nil {
			m.n = -1 // which is in no order
		}
		m.sent = time.Unix(0, sent)
		list = append(list, m)
		newest(f.arrivals, m)
		f.arrived.Store(int64(len(list)))
	}
}

func (f *flow) listen() {
	h := hearing{ids: map[int]string{}, confirmed: map[int]int{}, refused: map[int]bool{}}
	for {
		frame, err := f.sender.receive(time.Hour)
		if err != nil {
			f.heard <- h
			return
		}
		n, numberErr := strconv.Atoi(frame.Data.Reference)
		switch {
		case frame.Type == "MESSAGE_ACCEPTED" && numberErr == nil:
			h.ids[n] = frame.Data.ID
		case frame.Type == "MESSAGE_CONFIRMATION" && numberErr == nil:
			h.confirmed[n]++
			f.confirmed.Store(int64(len(h.confirmed)))
		case frame.Type == "DELIVER_FAILED" && frame.Data.Code == "QUEUE_UNAVAILABLE":
			n, _ = strconv.Atoi(frame.reference())
			h.refused[n] = true
			f.refused.Add(1)
			if n%flowConfirm == 0 {
				f.refusedOwn.Add(1)
			}
		default:
			h.wrong = append(h.wrong, frame.String())
		}
	}
}

// newest puts a value where at most one waits.
func newest[T any](c chan T, value T) {
	select {
	case <-c:
	default:
	}
	select {
	case c <- value:
	default:
	}
}

// after waits until a message has come that was sent after a moment, and returns how
// long after it that was.
func (f *flow) after(t *testing.T, since time.Time, limit time.Duration) time.Duration {
	t.Helper()
	timeout := time.After(limit)
	for {
		select {
		case m := <-f.arrivals:
			if m.sent.After(since) {
				return m.at.Sub(since).Round(time.Millisecond)
			}
		case <-timeout:
			t.Fatalf("%s: %v after the moment nothing has come that was sent since", f.name, limit)
		}
	}
}

// finish ends the sending, waits until all has come, and returns it if it is right.
func (f *flow) finish(t *testing.T) []taking {
	t.Helper()
	close(f.stop)
	sent := <-f.sent
	all, confirmable := int64(sent), int64(sent/flowConfirm)
	tick := time.NewTicker(flowEvery)
	defer tick.Stop()
	for end := time.Now().Add(patience); time.Now().Before(end); <-tick.C {
		if f.arrived.Load()+f.refused.Load() >= all && f.confirmed.Load()+f.refusedOwn.Load() >= confirmable {
			break
		}
	}
	f.sender.cut()
	f.receiver.cut()
	list, h := <-f.got, <-f.heard
	tell(t, f.name+": heard by the sender", h.wrong)
	if len(list)+len(h.refused) != sent || int64(len(h.confirmed))+f.refusedOwn.Load() != confirmable {
		t.Errorf("%s: %d messages have come of %d, %d were refused; %d confirmations of %d",
			f.name, len(list), sent, len(h.refused), len(h.confirmed), confirmable)
	}
	var wrong []string
	next := 0
	for i, m := range list {
		for next++; h.refused[next]; next++ {
		}
		if m.n != next || m.late || m.id != h.ids[m.n] {
			wrong = append(wrong, fmt.Sprintf("the %d. is number %d (late %t) with the id %s, accepted as %s", i+1, m.n, m.late, m.id, h.ids[m.n]))
		}
	}
	tell(t, f.name+": not as sent", wrong)
	for n, times := range h.confirmed {
		if times != 1 || n%flowConfirm != 0 {
			t.Errorf("%s: number %d was confirmed %d times", f.name, n, times)
		}
	}
	return list
}

// median is that of the times that messages took which were sent in between.
func median(list []taking, from, to time.Time) time.Duration {
	var times []time.Duration
	for _, m := range list {
		if m.sent.After(from) && m.sent.Before(to) {
			times = append(times, m.at.Sub(m.sent))
		}
	}
	if len(times) == 0 {
		return 0
	}
	slices.Sort(times)
	return times[len(times)/2]
}
