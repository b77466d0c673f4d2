package roads_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/link"
	"github.com/linkerhq/linker/pkg/linkstate"
	"github.com/linkerhq/linker/pkg/topology"
	"github.com/linkerhq/linker/processor/internal/roads"
)

// pair is a processor of domain a and a connector of domain b.
type pair struct {
	a       *running
	b       *port
	network *described // of both
	plane   plane
}

func insecure(n1, n2 string) topology.Link { return topology.Link{N1: n1, N2: n2, Insecure: true} }

func newPair(t *testing.T) *pair {
	t.Helper()
	connect := server(t)
	p := &pair{network: &described{}, plane: connect()}
	p.b = open(t, "b", p.network, p.plane)
	p.network.set(t, network([]topology.Link{insecure("a", "b")}, map[string][]string{"b": {p.b.address()}}))
	p.a = run(t, "a", p.network, connect())
	return p
}

// conn waits for the road to a domain and returns the oldest connection of it.
func (r *running) conn(t *testing.T, domain string) uint64 {
	t.Helper()
	eventually(t, "there is a road to "+domain, func() bool {
		_, ok := r.Table().Road(domain)
		return ok
	})
	road, _ := r.Table().Road(domain)
	return road.Conns[0]
}

func (r *running) cutOff(t *testing.T, domain string) {
	t.Helper()
	eventually(t, "there is no road to "+domain, func() bool {
		_, ok := r.Table().Road(domain)
		return !ok
	})
}

func records(list ...string) [][]byte {
	b := make([][]byte, len(list))
	for i, s := range list {
		b[i] = []byte(s)
	}
	return b
}

func TestRecordsAreHandedOverInOrderAndAcknowledged(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	conn := p.a.conn(t, "b")
	p.b.mu.Lock()
	p.b.refuse["3"] = "FORBIDDEN"
	p.b.refuse["4"] = "a code of the future"
	p.b.mu.Unlock()
	r := newReceiver()
	if !p.a.Open(conn, 7, r) {
		t.Fatal("the channel cannot be opened")
	}
	if p.a.Open(conn, 7, r) || p.a.Open(conn+1, 8, r) {
		t.Error("a channel is opened twice, or over no connection")
	}
	for i, batch := range [][][]byte{records("1", "2"), records("3"), nil, records("4", "5", "6")} {
		first := []uint64{1, 3, 4, 4}[i]
		if !p.a.Send(conn, 7, first, batch) {
			t.Fatalf("batch %d is not sent", i)
		}
	}
	for why, sent := range map[string]bool{
		"a gap":               p.a.Send(conn, 7, 8, records("8")),
		"a repetition":        p.a.Send(conn, 7, 6, records("6")),
		"an unknown channel":  p.a.Send(conn, 8, 1, records("1")),
		"no connection":       p.a.Send(conn+1, 7, 7, records("7")),
		"an empty record":     p.a.Send(conn, 7, 7, records("")),
		"a record too large":  p.a.Send(conn, 7, 7, [][]byte{make([]byte, link.MaxRecord+1)}),
		"FAST, no connection": p.a.Fast(conn+1, []byte("f")),
	} {
		if sent {
			t.Errorf("sent in spite of %s", why)
		}
	}
	eventually(t, "everything is handed over", func() bool { return r.handedOver(7) == 6 })
	if got, _ := p.b.received("a"); !slices.Equal(got, []string{"1", "2", "3", "4", "5", "6"}) {
		t.Errorf("the neighbour has got %q", got)
	}
	want := []string{"7/3 FORBIDDEN after 2", "7/4 a code of the future after 3"}
	if got := r.refusals(); !slices.Equal(got, want) {
		t.Errorf("refused %q, want %q", got, want)
	}
	if !p.a.Fast(conn, []byte("quick")) {
		t.Error("FAST is not sent")
	}
	eventually(t, "FAST is there", func() bool { _, fast := p.b.received("a"); return slices.Equal(fast, []string{"quick"}) })

	for series, want := range map[string]float64{
		`linker_link_up{neighbour="b"}`:                             1,
		`linker_link_records_total{neighbour="b"}`:                  6,
		`linker_link_bytes_total{neighbour="b"}`:                    6 + 5,
		`linker_link_fast_total{neighbour="b"}`:                     1,
		`linker_link_fast_lost_total{neighbour="b"}`:                0,
		`linker_link_unacknowledged{neighbour="b"}`:                 0,
		`linker_link_refused_total{code="FORBIDDEN",neighbour="b"}`: 1,
		`linker_link_refused_total{code="TOO_LARGE",neighbour="b"}`: 0,
		`linker_link_refused_total{code="other",neighbour="b"}`:     1,
		`linker_link_dials_total{neighbour="b",outcome="opened"}`:   1,
		`linker_link_dials_total{neighbour="b",outcome="refused"}`:  0,
		`linker_link_ended_total{neighbour="b",reason="closed"}`:    0,
		`linker_roads_domains{state="reachable"}`:                   1,
		`linker_roads_domains{state="cut"}`:                         0,
		`linker_link_states_dropped_total{reason="no_room"}`:        0,
		`linker_link_states_dropped_total{reason="malformed"}`:      0,
		`linker_link_states_dropped_total{reason="unpublished"}`:    0,
	} {
		if got := p.a.metric(t, series); got != want {
			t.Errorf("%s is %v, want %v", series, got, want)
		}
	}
}

func TestWhatIsNotAcknowledgedWaitsUntilItsChannelIsClosed(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.b.mu.Lock()
	p.b.silent = true
	p.b.mu.Unlock()
	conn := p.a.conn(t, "b")
	r := newReceiver()
	waiting := func() float64 { return p.a.metric(t, `linker_link_unacknowledged{neighbour="b"}`) }
	if !p.a.Open(conn, 1, r) || !p.a.Open(conn, 2, r) || !p.a.Send(conn, 1, 1, records("x", "y")) || !p.a.Send(conn, 2, 1, records("z")) {
		t.Fatal("not sent")
	}
	if waiting() != 3 {
		t.Errorf("%v records wait, want 3", waiting())
	}
	p.a.Close(conn, 1)
	p.a.Close(conn, 1)
	p.a.Close(conn+1, 1)
	if waiting() != 1 {
		t.Errorf("%v records wait, want 1", waiting())
	}
	if p.a.Send(conn, 1, 3, records("w")) || p.a.Open(conn, 1, r) {
		t.Error("a closed channel takes records, or is opened again")
	}
	// What comes for the closed channel is nobody's business any more.
	b := p.b.nth(1)
	b.Send(link.Ack{Channel: 1, UpTo: 2})
	b.Send(link.Ack{Channel: 2, UpTo: 1})
	eventually(t, "the other channel goes on", func() bool { return r.handedOver(2) == 1 })
	if r.handedOver(1) != 0 || waiting() != 0 {
		t.Errorf("handed over up to %d, %v records wait", r.handedOver(1), waiting())
	}
}

func TestAConnectionLeavesTheTableAfterItsLastAcknowledgements(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	conn := p.a.conn(t, "b")
	r := newReceiver()
	// What had been handed over when the table no longer had the connection.
	left := make(chan uint64, 1)
	stop := p.a.Subscribe(func() {
		if road, ok := p.a.Table().Road("b"); !ok || !slices.Contains(road.Conns, conn) {
			select {
			case left <- r.handedOver(1):
			default:
			}
		}
	})
	defer stop()
	p.b.mu.Lock()
	p.b.silent = true
	p.b.mu.Unlock()
	if !p.a.Open(conn, 1, r) || !p.a.Send(conn, 1, 1, records("1", "2", "3")) {
		t.Fatal("not sent")
	}
	eventually(t, "the neighbour has them", func() bool { got, _ := p.b.received("a"); return len(got) == 3 })
	b := p.b.nth(1)
	for n := range uint64(3) {
		b.Send(link.Ack{Channel: 1, UpTo: n + 1})
	}
	eventually(t, "the acknowledgements are written", func() bool { return b.Stats().Queued == 0 })
	b.Close()
	if upTo := <-left; upTo != 3 {
		t.Errorf("the connection was gone from the table when records up to %d were handed over, want 3", upTo)
	}
	if p.a.Open(conn, 2, r) || p.a.Send(conn, 1, 4, records("4")) || p.a.Fast(conn, []byte("f")) {
		t.Error("a connection that has ended takes something")
	}
	eventually(t, "there is another connection", func() bool { road, ok := p.a.Table().Road("b"); return ok && road.Conns[0] != conn })
	if got := p.a.metric(t, `linker_link_ended_total{neighbour="b",reason="closed"}`); got != 1 {
		t.Errorf("%v connections are counted as closed", got)
	}
	if got := p.a.metric(t, `linker_link_unacknowledged{neighbour="b"}`); got != 0 {
		t.Errorf("%v records wait, want none", got)
	}
}

func TestALinkThatIsRemovedOrChangedIsClosed(t *testing.T) {
	t.Parallel()
	const secret, other = "s3cret of the link", "an0ther secret"
	p := newPair(t)
	first := p.a.conn(t, "b")
	addresses := map[string][]string{"b": {p.b.address()}}
	keyed := func(key string) topology.Network {
		return network([]topology.Link{{N1: "a", N2: "b", Key: key}}, addresses)
	}

	costs := network([]topology.Link{{N1: "a", N2: "b", Insecure: true, Cost: 5}}, addresses)
	p.network.set(t, costs)
	eventually(t, "the new cost is known", func() bool { return p.a.Links()[0].Cost == 5 })
	if p.a.conn(t, "b") != first {
		t.Error("another cost has ended the connection")
	}

	p.network.set(t, keyed(secret))
	eventually(t, "there is a connection with the key", func() bool { road, ok := p.a.Table().Road("b"); return ok && road.Conns[0] != first })
	if l := p.a.Links()[0]; l.Proof != "key" {
		t.Errorf("proof %q", l.Proof)
	}

	// The neighbour has heard of the new key, we have not.
	ours := &described{}
	ours.set(t, keyed(secret))
	p.network.set(t, keyed(other))
	c := run(t, "a", ours, p.plane)
	eventually(t, "the refusal is known", func() bool {
		links := c.Links()
		return len(links) == 1 && links[0].State == "down" && strings.Contains(links[0].LastError, "it has another key for this link")
	})
	ours.set(t, keyed(other))
	c.conn(t, "b")
	if l := c.Links()[0]; l.LastError != "" || l.State != "up" {
		t.Errorf("%+v", l)
	}

	n := network([]topology.Link{{N1: "a", N2: "b", Key: other}}, nil)
	ours.set(t, n)
	c.cutOff(t, "b")
	if l := c.Links()[0]; l.LastError != "the neighbour has no tcp:// URL" {
		t.Errorf("last error %q", l.LastError)
	}
	n.Links = nil
	p.network.set(t, n)
	p.a.cutOff(t, "b")
	if links := p.a.Links(); len(links) > 0 {
		t.Errorf("links %+v", links)
	}
	if got := p.a.metric(t, `linker_link_ended_total{neighbour="b",reason="removed"}`); got < 2 {
		t.Errorf("%v connections are counted as removed, want 2 at least", got)
	}
	if got := p.a.metric(t, `linker_link_up{neighbour="b"}`); got != -1 {
		t.Errorf("a link that is not there is %v", got)
	}
	for _, log := range []string{p.a.log.String(), c.log.String()} {
		if strings.Contains(log, secret) || strings.Contains(log, other) {
			t.Errorf("a key is in the log:\n%s", log)
		}
	}
	if got := strings.Count(c.log.String(), "link not opened"); got != 0 {
		t.Errorf("%d warnings about a link that is down for a moment", got)
	}
}

func TestSeveralConnectorsOfANeighbourShareTheWork(t *testing.T) {
	t.Parallel()
	connect := server(t)
	n := &described{}
	one, two := open(t, "b", n, connect()), open(t, "b", n, connect())
	links := []topology.Link{insecure("a", "b")}
	n.set(t, network(links, map[string][]string{"b": {one.address()}}))
	a := run(t, "a", n, connect())
	first := a.conn(t, "b")
	n.set(t, network(links, map[string][]string{"b": {two.address(), one.address()}}))
	conns := func() []uint64 {
		road, _ := a.Table().Road("b")
		return road.Conns
	}
	eventually(t, "there are two connections", func() bool { return len(conns()) == 2 })
	if conns()[0] != first {
		t.Error("the oldest connection is not the first")
	}
	up := a.Links()[0].Since
	n.set(t, network(links, map[string][]string{"b": {two.address()}}))
	eventually(t, "one is left", func() bool { return len(conns()) == 1 })
	if conns()[0] == first {
		t.Error("the wrong connection was closed")
	}
	if l := a.Links()[0]; l.State != "up" || !l.Since.Equal(up) || len(l.Connections) != 1 || l.Connections[0].Address != two.address() {
		t.Errorf("the link is %+v, up since %s", l, up)
	}
}

func TestANeighbourThatSaysWhatItMayNotIsLeft(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	for i, m := range []link.Message{
		link.Records{Channel: 1, First: 1, Records: records("x")},
		link.Fast{Record: []byte("x")},
		link.Ack{Channel: 99, UpTo: 1},
		link.Refusal{Channel: 5, N: 1, Code: "FORBIDDEN"},
	} {
		conn := p.a.conn(t, "b")
		p.a.Open(conn, 5, newReceiver())
		p.b.nth(i + 1).Send(m)
		eventually(t, fmt.Sprintf("the connection has ended after message %d", i), func() bool {
			return p.a.metric(t, `linker_link_ended_total{neighbour="b",reason="malformed"}`) == float64(i+1)
		})
		p.a.cutOffOrNew(t, "b", conn)
	}
}

// cutOffOrNew waits until a connection is not in the table.
func (r *running) cutOffOrNew(t *testing.T, domain string, conn uint64) {
	t.Helper()
	eventually(t, "the connection is gone", func() bool {
		road, _ := r.Table().Road(domain)
		return !slices.Contains(road.Conns, conn)
	})
}

func TestAboutOurOwnDomainNeighboursAreNotBelieved(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.conn(t, "b")
	say := func(b []byte) { p.b.nth(1).Send(link.States{Entries: b}) }
	say([]byte("nonsense"))
	say(linkstate.Append(nil, []linkstate.Entry{
		{Domain: "a", Speaker: 99, Version: 1 << 62, Up: []string{"z"}},
		{Domain: "c", Speaker: 1, Version: 1, Up: []string{"a"}},
	}))
	sub := make(chan []linkstate.Entry, 100)
	stop, err := p.plane.Subscribe(linkstate.StatesSubject("a"), func(data []byte) {
		entries, err := linkstate.Decode(data)
		if err != nil {
			t.Error(err)
		}
		sub <- entries
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stop() }()
	if err := p.plane.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	say(linkstate.Append(nil, []linkstate.Entry{
		{Domain: "a", Speaker: 99, Version: 1<<62 + 1, Up: []string{"z"}},
		{Domain: "c", Speaker: 1, Version: 2, Up: []string{"a"}},
	}))
	for heard := false; !heard; {
		for _, e := range <-sub {
			if e.Domain == "a" && e.Speaker == 99 {
				t.Errorf("passed on: %+v", e)
			}
			heard = heard || e.Domain == "c" && e.Version == 2
		}
	}
	if got := p.a.metric(t, `linker_link_states_dropped_total{reason="malformed"}`); got != 1 {
		t.Errorf("%v messages are counted as malformed, want 1", got)
	}
	if p.a.Links()[0].State != "up" {
		t.Error("the link is down")
	}
}

func TestStatesForPeople(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.conn(t, "b")
	n := network([]topology.Link{{N1: "b", N2: "a", Insecure: true, Cost: 3}, insecure("b", "c"), insecure("c", "d")}, map[string][]string{"b": {p.b.address()}})
	p.network.set(t, n)
	p.b.nth(1).Send(link.States{Entries: linkstate.Append(nil, []linkstate.Entry{{Domain: "b", Speaker: 1, Version: 1, Up: []string{"c"}}})})
	p.a.conn(t, "c")
	handler := p.a.Handler()
	get := func(path string, into any) {
		t.Helper()
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("GET %s: %d, %s", path, w.Code, w.Header())
		}
		if err := json.Unmarshal(w.Body.Bytes(), into); err != nil {
			t.Errorf("GET %s: %v in %s", path, err, w.Body)
		}
		w = httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, nil))
		if w.Code != http.StatusMethodNotAllowed {
			t.Errorf("POST %s: %d", path, w.Code)
		}
	}
	var links []map[string]any
	get("/v1/links", &links)
	if len(links) != 1 {
		t.Fatalf("links %v", links)
	}
	l := links[0]
	for key, want := range map[string]any{
		"neighbour": "b", "cost": 3.0, "state": "up", "peerState": "down", "proof": "insecure", "lastError": "", "records": 0.0, "bytes": 0.0, "fast": 0.0,
	} {
		if l[key] != want {
			t.Errorf("%s is %v, want %v", key, l[key], want)
		}
	}
	if since, err := time.Parse(time.RFC3339, l["since"].(string)); err != nil || time.Since(since) > time.Minute {
		t.Errorf("since %v", l["since"])
	}
	conns := l["connections"].([]any)
	if len(conns) != 1 {
		t.Fatalf("connections %v", conns)
	}
	c := conns[0].(map[string]any)
	keys := slices.Sorted(maps.Keys(c))
	if want := []string{"address", "bytesOut", "fastOut", "queued", "recordsOut", "remote", "rttMs", "since", "unacknowledged"}; !slices.Equal(keys, want) || c["address"] != p.b.address() {
		t.Errorf("connection %v", c)
	}

	var routes []roads.RouteState
	get("/v1/routes", &routes)
	want := []roads.RouteState{
		{Domain: "b", Reachable: true, NextHop: "b", Path: []string{"a", "b"}, Cost: 3, ConfiguredPath: []string{"a", "b"}, ConfiguredCost: 3},
		{Domain: "c", Reachable: true, NextHop: "b", Path: []string{"a", "b", "c"}, Cost: 4, ConfiguredPath: []string{"a", "b", "c"}, ConfiguredCost: 4},
		{Domain: "d", Path: []string{}, ConfiguredPath: []string{"a", "b", "c", "d"}, ConfiguredCost: 5},
	}
	if !reflect.DeepEqual(routes, want) {
		t.Errorf("routes %+v, want %+v", routes, want)
	}

	var state roads.NetworkState
	get("/v1/network", &state)
	wantState := roads.NetworkState{
		Domain: "a", Version: p.network.Current().Version,
		Domains: []roads.DomainState{{Name: "b", Heard: true}, {Name: "a", Heard: true}, {Name: "c"}, {Name: "d"}},
		Links: []roads.DirectedState{
			{From: "b", To: "a", Cost: 3, State: "down"},
			{From: "a", To: "b", Cost: 3, State: "up"},
			{From: "b", To: "c", Cost: 1, State: "up"},
			{From: "c", To: "b", Cost: 1, State: "unknown"},
			{From: "c", To: "d", Cost: 1, State: "unknown"},
			{From: "d", To: "c", Cost: 1, State: "unknown"},
		},
	}
	if !reflect.DeepEqual(state, wantState) {
		t.Errorf("network %+v, want %+v", state, wantState)
	}
	if got := p.a.metric(t, `linker_roads_domains{state="cut"}`); got != 1 {
		t.Errorf("%v domains are cut off, want 1", got)
	}
}

// ring is a network of domains, each with a processor and a connector, and a proxy
// in each direction of each link.
type ring struct {
	links   []topology.Link
	names   []string
	roads   map[string]*running
	proxies map[[2]string]*proxy // by from and to
	network *topology.Snapshot   // as everybody has it, but for the addresses
}

func newRing(t *testing.T, links ...topology.Link) *ring {
	t.Helper()
	connect := server(t)
	g := &ring{links: links, roads: map[string]*running{}, proxies: map[[2]string]*proxy{}}
	views := map[string]*described{}
	ports := map[string]*port{}
	for _, d := range network(links, nil).Domains {
		g.names = append(g.names, d.Name)
		views[d.Name] = &described{}
		ports[d.Name] = open(t, d.Name, views[d.Name], connect())
	}
	slices.Sort(g.names)
	for _, name := range g.names {
		addresses := map[string][]string{}
		for _, l := range links {
			if l.N1 == name || l.N2 == name {
				to := l.Other(name)
				p := newProxy(t, ports[to].address())
				g.proxies[[2]string{name, to}] = p
				addresses[to] = []string{p.address()}
			}
		}
		views[name].set(t, network(links, addresses))
		g.network = views[name].Current()
	}
	for _, name := range g.names {
		g.roads[name] = run(t, name, views[name], connect())
	}
	return g
}

// live is what the proxies let through.
func (g *ring) live(from, to string) bool {
	p := g.proxies[[2]string{from, to}]
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.cut
}

// settle waits until every domain takes the cheapest path to every other one.
func (g *ring) settle(t *testing.T, when string) {
	t.Helper()
	for _, from := range g.names {
		for _, to := range g.names {
			eventually(t, fmt.Sprintf("%s the road from %s to %s is right", when, from, to), func() bool {
				hop, _ := g.network.NextHop(from, to, g.live)
				road, _ := g.roads[from].Table().Road(to)
				return road.Neighbour == hop
			})
		}
	}
}

func TestRoutesFollowTheLinksThatAreUp(t *testing.T) {
	t.Parallel()
	g := newRing(t, insecure("d1", "d2"), insecure("d2", "d3"), insecure("d3", "d4"), insecure("d4", "d1"))
	next := func(from, to string) string {
		road, _ := g.roads[from].Table().Road(to)
		return road.Neighbour
	}
	g.settle(t, "at the start")
	if next("d1", "d3") != "d2" || next("d2", "d3") != "d3" {
		t.Errorf("from d1 by %s, from d2 by %s", next("d1", "d3"), next("d2", "d3"))
	}

	cut := g.proxies[[2]string{"d2", "d3"}]
	cut.setCut(true)
	g.settle(t, "with one direction cut")
	if next("d1", "d3") != "d4" || next("d2", "d3") != "d1" || next("d3", "d2") != "d2" {
		t.Errorf("from d1 by %s, from d2 by %s, back from d3 by %s", next("d1", "d3"), next("d2", "d3"), next("d3", "d2"))
	}
	states := map[string]string{}
	for _, l := range g.roads["d1"].Network().Links {
		states[l.From+l.To] = l.State
	}
	if states["d2d3"] != "down" || states["d3d2"] != "up" {
		t.Errorf("d1 knows %v", states)
	}
	eventually(t, "d3 knows that d2 has no link", func() bool { return g.roads["d3"].Links()[0].PeerState == "down" })
	if l := g.roads["d3"].Links()[0]; l.Neighbour != "d2" || l.State != "up" {
		t.Errorf("d3 says of its link %+v", l)
	}

	cut.setCut(false)
	g.settle(t, "when it is whole again")
	if next("d1", "d3") != "d2" {
		t.Errorf("from d1 by %s", next("d1", "d3"))
	}
}

func TestAfterAnyCutsTheCheapestPathsAreTaken(t *testing.T) {
	t.Parallel()
	dear := insecure("d1", "d5")
	dear.Cost = 3
	g := newRing(t, insecure("d1", "d2"), insecure("d2", "d3"), insecure("d3", "d4"), insecure("d4", "d5"), dear)
	random := rand.New(rand.NewPCG(3, 7))
	g.settle(t, "at the start")
	ends := slices.SortedFunc(maps.Keys(g.proxies), func(a, b [2]string) int { return slices.Compare(a[:], b[:]) })
	for round := range 6 {
		for _, e := range ends {
			g.proxies[e].setCut(random.IntN(4) == 0)
		}
		g.settle(t, fmt.Sprintf("in round %d", round))
	}
	for _, p := range g.proxies {
		p.setCut(false)
	}
	g.settle(t, "at the end")
}

func TestAHoleIsNoticed(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes 14 s")
	}
	g := newRing(t, insecure("a", "b"), insecure("b", "c"), insecure("a", "c"))
	g.settle(t, "at the start")
	p := g.proxies[[2]string{"a", "b"}]
	p.setHole(true)
	eventually(t, "the road leads around the hole", func() bool { road, _ := g.roads["a"].Table().Road("b"); return road.Neighbour == "c" })
	if got := g.roads["a"].metric(t, `linker_link_ended_total{neighbour="b",reason="silent"}`); got != 1 {
		t.Errorf("%v connections are counted as silent, want 1", got)
	}
	eventually(t, "attempts end as well", func() bool {
		return g.roads["a"].metric(t, `linker_link_dials_total{neighbour="b",outcome="timeout"}`) > 0
	})
	p.setHole(false)
	g.settle(t, "when the hole is gone")
}

func TestSendingWhileLinksComeAndGo(t *testing.T) {
	t.Parallel()
	g := newRing(t, insecure("a", "b"))
	g.settle(t, "at the start")
	a, p := g.roads["a"], g.proxies[[2]string{"a", "b"}]
	var lanes sync.WaitGroup
	for lane := range uint64(4) {
		lanes.Go(func() {
			for session := range uint64(40) {
				channel := lane<<32 | session
				road, ok := a.Table().Road("b")
				if !ok {
					continue
				}
				r := newReceiver()
				if !a.Open(road.Conns[0], channel, r) {
					continue
				}
				for n := range uint64(50) {
					if !a.Send(road.Conns[0], channel, n+1, records("r")) {
						break
					}
					a.Fast(road.Conns[0], []byte("f"))
				}
				a.Close(road.Conns[0], channel)
			}
		})
	}
	for range 10 {
		p.setCut(true)
		p.setCut(false)
	}
	lanes.Wait()
	g.settle(t, "at the end")
	if got := a.metric(t, `linker_link_unacknowledged{neighbour="b"}`); got != 0 {
		t.Errorf("%v records wait in channels that are closed", got)
	}
}
