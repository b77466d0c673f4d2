package custody_test

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/pkg/topology"
	"github.com/linkerhq/linker/processor/internal/custody"
)

// mesh is a network of domains, each with lanes, a store and what neighbours see of
// it, and with links between them that break. Nobody is ever connected: what arrives
// ends in the mailbox of its receiver. It moves in slices of time, in each of which
// everybody does some of its work, in any order.
type mesh struct {
	t      *testing.T
	rng    *rand.Rand
	now    time.Time
	seed   uint64
	faults meshFaults

	versions []*topology.Snapshot // all there ever were
	homes    []int                // the domain of each block of users, in the newest one
	domains  []*place
	byName   map[string]*place
	links    [][2]*place
	wires    []*strand
	news     map[way]report
	ids      uint64 // the last one given to a connection, a stream, or a channel
	later    []delayed

	users    []ident.UserID
	senders  map[ident.UserID]*sender
	messages []*sentMessage
	byID     map[ident.MessageID]int
	trace    []string
	calm     bool // faults are over: everybody does all its work
	moveAt   time.Time
}

// meshFaults are the faults of a random run.
type meshFaults struct {
	cuts    bool // links are cut, both ways or one way, for some seconds
	long    bool // and some of them for longer than messages are held back
	silent  bool // it takes up to 15 s until anybody notices
	crashes bool // lanes change hands
	slow    bool // links stand still now and then
	moves   bool // ranges of users move, seldom
	often   bool // and soon again
	lossy   bool // the log's replies get lost, and records are written twice
}

// late says whether messages may be marked as late: only what is stuck for longer than
// others wait for it, or comes after its receiver has moved, may come out of order.
func (f meshFaults) late() bool { return f.long || f.moves || f.often }

// way is a link in one direction.
type way struct{ from, to string }

// report is what is known of a way; a later one counts more.
type report struct {
	serial uint64
	up     bool
}

type delayed struct {
	at time.Time
	do func()
}

// place is one domain.
type place struct {
	name      string
	lanes     []*laneModel
	store     *store
	connector *topology.Snapshot // what those who take messages from clients know
	port      *topology.Snapshot // what those who take messages from neighbours, and find roads, know
	believes  map[way]report
	conns     map[string]uint64 // open connections by neighbour, as far as it has noticed
}

// laneModel is a lane with its log and what it has asked for.
type laneModel struct {
	m         *mesh
	d         *place
	number    int
	net       *topology.Snapshot
	state     *custody.State
	fx        custody.Effects
	log       []envelope.Envelope
	read      int
	epoch     int64
	committed int64
	saved     mailbox.LaneState
	jobs      []func()
	results   []custody.Event
	producing []custody.Produce
	channels  map[uint64]*strand
	roads     map[string]custody.Road
}

// strand is one connection, dialled by one domain.
type strand struct {
	id        uint64
	from, to  *place
	out       []crossing
	appending []crossing // taken off, and not in the log yet
	acks      []crossing
	last      map[uint64]uint64 // by channel
	dead      bool
	still     time.Time // nothing moves before it
}

type crossing struct {
	lane       *laneModel
	channel, n uint64
	record     []byte
}

// sender is a user as it sends: over one socket, a new one now and then.
type sender struct {
	user   ident.UserID
	at     *place
	stream uint64
	groups uint64
	last   map[ident.UserID]uint64
	epoch  int // counts its moves to other domains: order holds within one
}

type sentMessage struct {
	label string
	id    ident.MessageID
	from  string // sender and epoch
	to    []ident.UserID
	order bool
}

const blockSize = 10 // numbers of a block of users

func newMesh(t *testing.T, seed uint64, f meshFaults) *mesh {
	t.Helper()
	m := &mesh{
		t: t, rng: rand.New(rand.NewPCG(seed, 11)), now: time.Unix(1_700_000_000, 0), seed: seed, faults: f,
		byName: map[string]*place{}, news: map[way]report{}, senders: map[ident.UserID]*sender{}, byID: map[ident.MessageID]int{},
	}
	n := 2 + m.rng.IntN(4)
	for i := range n {
		d := &place{name: fmt.Sprintf("d%d", i), store: &store{rows: map[string][]mailbox.Row{}}, believes: map[way]report{}, conns: map[string]uint64{}}
		m.domains = append(m.domains, d)
		m.byName[d.name] = d
		if i > 0 { // joined with one of those before it
			m.links = append(m.links, [2]*place{m.domains[m.rng.IntN(i)], d})
		}
	}
	for range m.rng.IntN(n) { // and a few links more
		a, b := m.domains[m.rng.IntN(n)], m.domains[m.rng.IntN(n)]
		if a != b && !slices.ContainsFunc(m.links, func(l [2]*place) bool { return l == [2]*place{a, b} || l == [2]*place{b, a} }) {
			m.links = append(m.links, [2]*place{a, b})
		}
	}
	for i := range 2 * n {
		m.homes = append(m.homes, i%n)
		for k := range 2 {
			m.users = append(m.users, ident.UserID(fmt.Sprintf("A-%d", i*blockSize+k+1)))
		}
	}
	net := m.describe()
	for _, d := range m.domains {
		d.connector, d.port = net, net
		for i := range 1 + m.rng.IntN(2) {
			d.lanes = append(d.lanes, &laneModel{m: m, d: d, number: i, net: net})
		}
		for _, l := range d.lanes {
			l.take()
		}
	}
	for _, l := range m.links {
		m.open(l[0], l[1])
		m.open(l[1], l[0])
	}
	for _, u := range m.users {
		m.senders[u] = &sender{user: u}
	}
	return m
}

// describe makes the next version of the network.
func (m *mesh) describe() *topology.Snapshot {
	n := topology.Network{Apps: []topology.App{{Name: "A", AppID: "a", Master: "A-0"}}}
	for i, d := range m.domains {
		n.Domains = append(n.Domains, topology.Domain{Name: d.name, URLs: []string{fmt.Sprintf("tcp://127.0.0.1:%d", i+1)}})
	}
	for _, l := range m.links {
		n.Links = append(n.Links, topology.Link{N1: l[0].name, N2: l[1].name, Insecure: true})
	}
	for block, d := range m.homes {
		n.Distributions = append(n.Distributions, topology.Distribution{
			DomainName: m.domains[d].name, From: int64(block * blockSize), To: int64(block*blockSize + blockSize - 1),
		})
	}
	s, err := topology.New(uint64(len(m.versions)+1), n)
	if err != nil {
		m.t.Fatal(err)
	}
	m.versions = append(m.versions, s)
	return s
}

func (m *mesh) newest() *topology.Snapshot { return m.versions[len(m.versions)-1] }

func (m *mesh) serial() uint64 { m.ids++; return m.ids }

func (m *mesh) note(format string, args ...any) {
	m.trace = append(m.trace, m.now.Format("05.0 ")+fmt.Sprintf(format, args...))
}

// fatalf ends the test with the story of messages; without any, with the last moves.
func (m *mesh) fatalf(labels []string, format string, args ...any) {
	m.t.Helper()
	trace := m.trace
	if len(labels) > 0 {
		trace = slices.DeleteFunc(slices.Clone(trace), func(line string) bool {
			return !strings.Contains(line, "!") && !slices.ContainsFunc(labels, func(name string) bool { return strings.Contains(line+" ", " "+name+" ") })
		})
	}
	trace = trace[max(0, len(trace)-300):]
	m.t.Fatalf("seed %d: %s\n%s", m.seed, fmt.Sprintf(format, args...), strings.Join(trace, "\n"))
}

// around names a message, and those of its sender to the same user right before it and
// behind it; and what is said of the user's windows.
func (m *mesh) around(i int, user ident.UserID) []string {
	list := []string{m.messages[i].label, "windows:" + string(user)}
	for _, step := range []int{-1, 1} {
		n := 0
		for j := i + step; j >= 0 && j < len(m.messages) && n < 3; j += step {
			if msg := m.messages[j]; msg.order && msg.from == m.messages[i].from && slices.Contains(msg.to, user) {
				list = append(list, msg.label)
				n++
			}
		}
	}
	return list
}

func (m *mesh) after(most time.Duration, do func()) {
	m.later = append(m.later, delayed{m.now.Add(time.Duration(m.rng.Int64N(int64(most) + 1))), do})
}

func label(e *envelope.Envelope) string {
	name, _, _ := strings.Cut(string(e.Frame), " ")
	if e.Kind == envelope.KindWindows {
		name = "windows:" + string(e.User())
	}
	return name
}

// Lanes.

// take makes a new owner of the lane. What the one before had asked for and not got is
// lost, or has come to the log without its knowing.
func (l *laneModel) take() {
	for range l.m.rng.IntN(len(l.producing) + 1) {
		l.produceOne()
	}
	l.log = append(l.log, envelope.Envelope{Kind: envelope.KindEpoch})
	l.epoch = int64(len(l.log) - 1)
	from := l.saved.Position.Offset
	l.committed = max(l.committed, from)
	var held []mailbox.Row
	for _, to := range slices.Sorted(maps.Keys(l.d.store.rows)) {
		for _, r := range l.d.store.rows[to] {
			if strings.HasPrefix(to, custody.HoldPrefix) && r.Lane == l.number {
				held = append(held, r)
			}
		}
	}
	saved := l.saved
	saved.Windows = maps.Clone(saved.Windows)
	for key, w := range saved.Windows {
		w.Missing = slices.Clone(w.Missing)
		saved.Windows[key] = w
	}
	l.jobs, l.results, l.producing, l.channels, l.roads = nil, nil, nil, map[uint64]*strand{}, nil
	l.fx = custody.Effects{}
	l.read = int(from)
	l.state = custody.New(custody.Config{
		Domain: l.d.name, Lane: l.number, Lanes: len(l.d.lanes), Generation: 1, Epoch: l.epoch, Next: from, Saved: saved,
		Held: held, Channels: l.m.rng.Uint64(), Network: l.net,
	}, newMetrics(l.m.t), l.m.now)
	l.step(&custody.Assembled{})
	l.followRoads()
}

func (l *laneModel) step(e custody.Event) {
	l.state.Step(l.m.now, e, &l.fx)
	l.collect()
}

// collect takes the effects of a step to where they go.
func (l *laneModel) collect() {
	fx, m := &l.fx, l.m
	for _, x := range fx.Leave {
		delete(l.channels, x.Channel)
	}
	slices.SortStableFunc(fx.Hand, func(a, b custody.Hand) int { return cmp.Compare(a.Channel, b.Channel) })
	for _, h := range fx.Hand {
		w := m.wire(h.Conn)
		if w == nil {
			continue // it has ended meanwhile
		}
		l.channels[h.Channel] = w
		w.out = append(w.out, crossing{l, h.Channel, h.N, h.Record})
	}
	l.producing = append(l.producing, fx.Produce...)
	for _, b := range fx.Bury {
		e, err := envelope.Decode(b.Record)
		if err != nil {
			m.fatalf(nil, "%s/%d: an undecodable record was buried as %s", l.d.name, l.number, b.Reason)
		}
		m.fatalf([]string{label(&e)}, "%s/%d: %s was buried as %s", l.d.name, l.number, label(&e), b.Reason)
	}
	if rows := slices.Clone(fx.Put); len(rows) > 0 {
		l.jobs = append(l.jobs, func() {
			keys := make([]mailbox.Key, len(rows))
			for i, r := range rows {
				l.d.store.put(r)
				l.noteRow("store", &r)
				keys[i] = mailbox.Key{To: r.To, Pos: r.Pos, ID: r.ID}
			}
			l.results = append(l.results, &custody.Stored{Keys: keys})
		})
	}
	if keys := slices.Clone(fx.Delete); len(keys) > 0 {
		l.jobs = append(l.jobs, func() {
			for _, k := range keys {
				l.d.store.each(k, func(r *mailbox.Row) bool { l.noteRow("delete", r); return false })
			}
		})
	}
	reads, usages, lists := slices.Clone(fx.Reads), slices.Clone(fx.Usages), slices.Clone(fx.Lists)
	if len(reads)+len(usages)+len(lists) > 0 {
		l.jobs = append(l.jobs, func() {
			for _, r := range reads {
				rows, more := l.d.store.read(r.Query)
				l.results = append(l.results, &custody.RowsRead{Read: r, Rows: rows, More: more})
			}
			for _, u := range usages {
				l.results = append(l.results, &custody.UsageRead{User: u, Usage: l.d.store.usage(u)})
			}
			for _, x := range lists {
				l.results = append(l.results, &custody.TargetsListed{List: x, Targets: l.d.store.targets(l.number, x.After, x.Limit)})
			}
		})
	}
	fx.Reset()
}

func (l *laneModel) noteRow(what string, r *mailbox.Row) {
	if e, err := envelope.Decode(r.Record); err == nil {
		l.m.note("%s/%d %s %s in %s at %d", l.d.name, l.number, what, label(&e), r.To, r.Pos.Offset)
	}
}

func (s *store) targets(lane int, after string, limit int) []string {
	var list []string
	for _, to := range slices.Sorted(maps.Keys(s.rows)) {
		if to > after && len(list) < limit && slices.ContainsFunc(s.rows[to], func(r mailbox.Row) bool { return r.Lane == lane }) {
			list = append(list, to)
		}
	}
	return list
}

func (l *laneModel) readOne() bool {
	if l.read >= len(l.log) {
		return false
	}
	e, err := envelope.Decode(l.log[l.read].Append(nil))
	if err != nil {
		l.m.fatalf(nil, "nobody can read the %s at %d: %v", l.log[l.read].Kind, l.read, err)
	}
	fill := int64(l.read) < l.committed && l.read < int(l.epoch)
	if e.Kind != envelope.KindEpoch {
		what := "reads"
		if fill {
			what = "fills from"
		}
		l.m.note("%s/%d %s %s at %d", l.d.name, l.number, what, label(&e), l.read)
	}
	l.step(&custody.RecordRead{Offset: int64(l.read), Envelope: &e, Fill: fill})
	l.read++
	return true
}

func (l *laneModel) storeOne() bool {
	if len(l.jobs) == 0 {
		return false
	}
	job := l.jobs[0]
	l.jobs = l.jobs[1:]
	job()
	return true
}

func (l *laneModel) resultOne() bool {
	if len(l.results) == 0 {
		return false
	}
	r := l.results[0]
	l.results = l.results[1:]
	l.step(r)
	return true
}

// produceOne writes one record into the log, as Driver does.
func (l *laneModel) produceOne() bool {
	if len(l.producing) == 0 {
		return false
	}
	p := l.producing[0]
	l.producing = l.producing[1:]
	to := l
	if len(p.Envelope.To) > 0 && l.net.HomeOf(p.Envelope.User(), l.d.name) == l.d.name {
		to = l.d.lanes[p.Envelope.User().Lane(len(l.d.lanes))]
	}
	l.m.note("%s/%d produces %s into lane %d at %d, released %v, moved %v", l.d.name, l.number, label(&p.Envelope), to.number, len(to.log), p.Envelope.Released, p.Envelope.Moved)
	to.append(p.Envelope)
	if p.Token != (custody.Token{}) {
		l.results = append(l.results, &custody.Produced{Token: p.Token})
	}
	return true
}

// append writes a record into the log, now and then twice.
func (l *laneModel) append(e envelope.Envelope) {
	l.log = append(l.log, e)
	if l.m.faults.lossy && !l.m.calm && l.m.rng.IntN(15) == 0 {
		l.log = append(l.log, e)
	}
}

func (l *laneModel) save() {
	change := l.state.Change(l.m.now)
	if l.m.rng.IntN(20) == 0 {
		change.Expired = append(change.Expired, l.state.ExpireWindows(l.m.now)...)
	}
	if l.saved.Windows == nil {
		l.saved.Windows = map[mailbox.WindowKey]mailbox.Window{}
	}
	maps.Copy(l.saved.Windows, change.Windows)
	for _, key := range change.Expired {
		delete(l.saved.Windows, key)
	}
	l.saved.IDs = append(l.saved.IDs, change.IDs...)
	l.saved.Position = change.Position
}

// followRoads tells the lane over which connections other domains are reached.
func (l *laneModel) followRoads() {
	live := func(from, to string) bool { return l.d.believes[way{from, to}].up }
	roads := map[string]custody.Road{}
	for _, d := range l.m.domains {
		if hop, found := l.d.port.NextHop(l.d.name, d.name, live); found && l.d.conns[hop] != 0 {
			roads[d.name] = custody.Road{Conn: l.d.conns[hop]}
		}
	}
	if !maps.Equal(roads, l.roads) {
		l.roads = roads
		l.step(&custody.RoadsChanged{Roads: roads})
	}
}

// Links.

func (m *mesh) wire(id uint64) *strand {
	for _, w := range m.wires {
		if w.id == id && !w.dead {
			return w
		}
	}
	return nil
}

// between is the connection from one domain to another that is open.
func (m *mesh) between(from, to *place) *strand {
	for _, w := range m.wires {
		if w.from == from && w.to == to && !w.dead {
			return w
		}
	}
	return nil
}

func (m *mesh) open(from, to *place) {
	if m.between(from, to) != nil {
		return
	}
	w := &strand{id: m.serial(), from: from, to: to, last: map[uint64]uint64{}}
	m.wires = append(m.wires, w)
	m.note("%s -> %s opens as %d", from.name, to.name, w.id)
	from.conns[to.name] = w.id
	m.tell(way{from.name, to.name}, true)
}

func (m *mesh) cut(from, to *place) {
	w := m.between(from, to)
	if w == nil {
		return
	}
	m.note("%s -> %s is cut with %d under way", from.name, to.name, len(w.out))
	w.dead, w.out, w.acks = true, nil, nil
	notice := 2 * time.Second
	if m.faults.silent {
		notice = 15 * time.Second
	}
	m.after(notice, func() {
		if from.conns[to.name] != w.id {
			return
		}
		m.note("%s notices that %d is dead", from.name, w.id)
		delete(from.conns, to.name)
		m.tell(way{from.name, to.name}, false)
	})
}

// tell spreads what a domain knows of its own connection.
func (m *mesh) tell(w way, up bool) {
	r := report{m.serial(), up}
	m.news[w] = r
	for _, d := range m.domains {
		hear := func() {
			if d.believes[w].serial < r.serial {
				d.believes[w] = r
			}
			for _, l := range d.lanes {
				m.after(200*time.Millisecond, l.followRoads)
			}
		}
		if d.name == w.from {
			hear()
		} else {
			m.after(3*time.Second, hear)
		}
	}
}

// carry takes one thing of a connection a step further.
func (w *strand) carry(m *mesh) bool {
	if m.now.Before(w.still) {
		return false
	}
	switch k := m.rng.IntN(3); {
	case k == 0 && len(w.out) > 0, len(w.out) > 0 && len(w.appending)+len(w.acks) == 0:
		c := w.out[0]
		w.out = w.out[1:]
		if c.n != w.last[c.channel]+1 {
			m.fatalf(nil, "number %d of channel %d follows %d", c.n, c.channel, w.last[c.channel])
		}
		w.last[c.channel] = c.n
		w.appending = append(w.appending, c)
	case k == 1 && len(w.appending) > 0, len(w.appending) > 0 && len(w.acks) == 0:
		c := w.appending[0]
		w.appending = w.appending[1:]
		m.arrive(w, c)
		if !w.dead {
			w.acks = append(w.acks, c)
		}
	case len(w.acks) > 0:
		c := w.acks[0]
		w.acks = w.acks[1:]
		if c.lane.channels[c.channel] == w {
			c.lane.results = append(c.lane.results, &custody.HandedOver{Channel: c.channel, UpTo: c.n})
		}
	default:
		return false
	}
	return true
}

// arrive writes what a neighbour hands over into the lanes, as its connectors do.
func (m *mesh) arrive(w *strand, c crossing) {
	e, err := envelope.Decode(c.record)
	if err != nil {
		m.fatalf(nil, "%s hands over what nobody can read: %v", w.from.name, err)
	}
	e.Path = append(slices.Clone(e.Path), w.from.name)
	e.Released = false
	m.note("%s arrives as %d of channel %x at %s, path %v, late %v", label(&e), c.n, c.channel, w.to.name, e.Path, e.Late)
	w.to.split(&e, e.To, w.to.port, func(l *laneModel, one envelope.Envelope) { l.append(one) })
}

// split cuts a record up by lanes: for those who are at home here one for each of their
// lanes, for all others one in the sender's lane.
func (d *place) split(e *envelope.Envelope, to []envelope.Recipient, net *topology.Snapshot, give func(*laneModel, envelope.Envelope)) {
	var rest []envelope.Recipient
	here := make([][]envelope.Recipient, len(d.lanes))
	for _, r := range to {
		if net.HomeOf(r.User, d.name) == d.name {
			lane := r.User.Lane(len(d.lanes))
			here[lane] = append(here[lane], r)
		} else {
			rest = append(rest, r)
		}
	}
	one := *e
	for lane, to := range here {
		if one.To = to; len(to) > 0 {
			give(d.lanes[lane], one)
		}
	}
	if one.To = rest; len(rest) > 0 {
		give(d.lanes[e.From.Lane(len(d.lanes))], one)
	}
}

// Users.

// send lets a user send one message, if it can: it must be where it is at home.
func (m *mesh) send(s *sender, to []ident.UserID) {
	if s.at == nil || s.at.connector.HomeOf(s.user, "") != s.at.name {
		last := m.newest()
		if s.at != nil {
			last = s.at.connector
		}
		home := m.byName[last.HomeOf(s.user, "")]
		if home.connector.HomeOf(s.user, "") != home.name {
			return
		}
		s.at, s.stream = home, 0
		s.epoch++
	}
	if s.stream == 0 || m.rng.IntN(12) == 0 {
		s.stream, s.last, s.groups = m.rng.Uint64(), map[ident.UserID]uint64{}, 0
	}
	e := envelope.Envelope{Kind: envelope.KindMessage, From: s.user, Stream: s.stream, Network: s.at.connector.Version, Reference: "r"}
	msg := &sentMessage{label: fmt.Sprintf("m%d", len(m.messages)), from: fmt.Sprintf("%s in its time %d", s.user, s.epoch), to: to, order: true}
	if m.faults.moves || m.faults.often { // then order holds within a stream
		msg.from += fmt.Sprintf(" stream %x", s.stream)
	}
	e.Frame = []byte(msg.label + " of " + msg.from)
	var recipients []envelope.Recipient
	for _, u := range to {
		s.last[u]++
		recipients = append(recipients, envelope.Recipient{User: u, N: s.last[u]})
	}
	switch {
	case len(to) > 1:
		s.groups++
		e.ID = ident.GroupMessageID(s.stream, s.groups)
	case m.rng.IntN(10) == 0: // without a number
		s.last[to[0]]--
		recipients[0].N = 0
		msg.order = false
		e.Kind, e.Stream, e.Remember, e.ID = envelope.KindConfirmation, 0, true, ident.StreamMessageID(m.rng.Uint64(), to[0], 1)
	default:
		e.ID = ident.StreamMessageID(s.stream, to[0], recipients[0].N)
	}
	msg.id = e.ID
	if m.faults.crashes && (m.faults.moves || m.faults.often) {
		msg.order = false // a new owner does not know who has moved here right before its time
	}
	m.byID[e.ID] = len(m.messages)
	m.messages = append(m.messages, msg)
	away := map[string][]envelope.Recipient{}
	var here []envelope.Recipient
	for _, r := range recipients {
		if home := s.at.connector.HomeOf(r.User, ""); home != s.at.name {
			away[home] = append(away[home], r)
		} else {
			here = append(here, r)
		}
	}
	give := func(l *laneModel, one envelope.Envelope) {
		m.note("%s sends %s from %s/%d at %d to %v of stream %x", s.user, msg.label, s.at.name, l.number, len(l.log), one.To, one.Stream)
		l.append(one)
	}
	s.at.split(&e, here, s.at.connector, give)
	for _, home := range slices.Sorted(maps.Keys(away)) { // one copy for each other domain
		s.at.split(&e, away[home], s.at.connector, give)
	}
}

// move lets a block of users move to another domain.
func (m *mesh) move() {
	block, d := m.rng.IntN(len(m.homes)), m.rng.IntN(len(m.domains))
	if m.homes[block] == d {
		return
	}
	m.note("! users %d to %d move from %s to %s", block*blockSize, block*blockSize+blockSize-1, m.domains[m.homes[block]].name, m.domains[d].name)
	m.homes[block] = d
	net := m.describe()
	for _, d := range m.domains {
		m.after(3*time.Second, func() {
			if d.connector.Version < net.Version {
				d.connector = net
			}
		})
		m.after(3*time.Second, func() {
			if d.port.Version < net.Version {
				d.port = net
			}
		})
		for _, l := range d.lanes {
			m.after(3*time.Second, func() {
				if l.net.Version < net.Version {
					m.note("! %s/%d knows version %d", d.name, l.number, net.Version)
					l.net = net
					l.step(&custody.NetworkChanged{Network: net})
				}
			})
		}
	}
}

// Time.

const slice = 100 * time.Millisecond

// work lets one actor do some of its work, or, in calm times, all of it.
func (m *mesh) work(some int, one func() bool) {
	n := m.rng.IntN(some)
	for i := 0; (m.calm || i < n) && one(); i++ {
	}
}

func (m *mesh) slice() {
	m.now = m.now.Add(slice)
	due := m.later
	m.later = nil
	for _, x := range due {
		if x.at.After(m.now) {
			m.later = append(m.later, x)
		} else {
			x.do()
		}
	}
	var actors []func()
	for _, d := range m.domains {
		for _, l := range d.lanes {
			actors = append(actors,
				func() { m.work(8, l.readOne) }, func() { m.work(8, l.storeOne) }, func() { m.work(12, l.resultOne) },
				func() { m.work(8, l.produceOne) }, func() { l.step(&custody.Ticked{}) },
			)
		}
	}
	for _, w := range m.wires {
		actors = append(actors, func() { m.work(16, func() bool { return w.carry(m) }) })
	}
	m.rng.Shuffle(len(actors), func(i, j int) { actors[i], actors[j] = actors[j], actors[i] })
	for _, do := range actors {
		do()
	}
	m.wires = slices.DeleteFunc(m.wires, func(w *strand) bool { return w.dead && len(w.appending) == 0 })
	for _, d := range m.domains {
		for _, l := range d.lanes {
			if m.rng.IntN(8) == 0 {
				l.save()
			}
			if low := l.state.Low(); m.rng.IntN(3) == 0 && low > l.committed {
				l.committed = low
			}
		}
	}
}

// disturb is where the faults come from.
func (m *mesh) disturb() {
	f := m.faults
	if f.cuts && m.rng.IntN(15) == 0 {
		l := m.links[m.rng.IntN(len(m.links))]
		a, b := l[0], l[1]
		if m.rng.IntN(2) == 0 {
			a, b = b, a
		}
		both := m.rng.IntN(3) > 0
		m.cut(a, b)
		if both {
			m.cut(b, a)
		}
		down := 4 * time.Second
		if f.long && m.rng.IntN(6) == 0 {
			down = 50 * time.Second
		}
		m.after(down, func() { m.open(a, b) })
		m.after(down, func() { m.open(b, a) })
	}
	if f.slow && m.rng.IntN(10) == 0 && len(m.wires) > 0 {
		m.wires[m.rng.IntN(len(m.wires))].still = m.now.Add(time.Duration(m.rng.IntN(3000)) * time.Millisecond)
	}
	if f.crashes && m.rng.IntN(30) == 0 {
		d := m.domains[m.rng.IntN(len(m.domains))]
		l := d.lanes[m.rng.IntN(len(d.lanes))]
		m.note("! %s/%d changes hands: saved %d, committed %d, read %d", d.name, l.number, l.saved.Position.Offset, l.committed, l.read)
		l.take()
	}
	if (f.moves || f.often) && !m.now.Before(m.moveAt) {
		m.move()
		pause := 45 * time.Second
		if f.often {
			pause = 3 * time.Second
		}
		m.moveAt = m.now.Add(pause + time.Duration(m.rng.IntN(4000))*time.Millisecond)
	}
}

func (m *mesh) run(most int) {
	for range most {
		for range m.rng.IntN(3) {
			s := m.senders[m.users[m.rng.IntN(len(m.users))]]
			to := []ident.UserID{m.users[m.rng.IntN(len(m.users))]}
			if m.rng.IntN(3) > 0 { // most talk to few
				to[0] = m.users[(int(s.user.Number())+m.rng.IntN(2)*7)%len(m.users)]
			}
			if m.rng.IntN(6) == 0 {
				for _, u := range m.users {
					if u != to[0] && m.rng.IntN(3) == 0 {
						to = append(to, u)
					}
				}
			}
			for range 1 + m.rng.IntN(2) {
				m.send(s, slices.Clone(to))
			}
		}
		m.disturb()
		m.slice()
	}
}

// finish heals everything, lets it come to rest and checks the promises.
func (m *mesh) finish() {
	m.note("! all faults are over")
	m.faults.slow, m.calm = false, true
	for _, w := range m.wires {
		w.still = time.Time{}
	}
	for _, l := range m.links {
		m.open(l[0], l[1])
		m.open(l[1], l[0])
	}
	why := ""
	for range 3000 {
		m.slice()
		if len(m.later) == 0 {
			if why = m.unrest(); why == "" {
				m.check()
				return
			}
		}
	}
	name, _, _ := strings.Cut(why, " ")
	m.fatalf([]string{name}, "it does not come to rest: %s", why)
}

// unrest says what is still under way; empty: nothing.
func (m *mesh) unrest() string {
	for _, w := range m.wires {
		if len(w.out)+len(w.appending)+len(w.acks) > 0 {
			return fmt.Sprintf("? %s -> %s carries something", w.from.name, w.to.name)
		}
	}
	for _, d := range m.domains {
		for _, l := range d.lanes {
			switch {
			case l.read < len(l.log) || len(l.jobs)+len(l.results)+len(l.producing) > 0:
				return fmt.Sprintf("? %s/%d has work: read %d of %d, %d jobs", d.name, l.number, l.read, len(l.log), len(l.jobs))
			case !l.state.Idle():
				e := &l.log[l.state.Low()]
				return fmt.Sprintf("%s at %d of %s/%d is not settled", label(e), l.state.Low(), d.name, l.number)
			case l.state.Held() != 0:
				return fmt.Sprintf("? %s/%d holds %d bytes", d.name, l.number, l.state.Held())
			}
		}
		for _, to := range slices.Sorted(maps.Keys(d.store.rows)) {
			if rows := d.store.rows[to]; len(rows) > 0 && m.newest().HomeOf(ident.UserID(to), d.name) != d.name || len(rows) > 0 && strings.Contains(to, "/") {
				e, err := envelope.Decode(rows[0].Record)
				if err != nil {
					m.fatalf(nil, "a row that nobody can read: %v", err)
				}
				return fmt.Sprintf("%s waits in %s of %s", label(&e), to, d.name)
			}
		}
	}
	return ""
}

// check looks into the mailboxes.
func (m *mesh) check() {
	type copyOf struct {
		message int
		user    ident.UserID
	}
	found := map[copyOf]int{}
	for _, d := range m.domains {
		for _, to := range slices.Sorted(maps.Keys(d.store.rows)) {
			last := map[string]int{}
			for _, r := range d.store.rows[to] {
				e, err := envelope.Decode(r.Record)
				if err != nil {
					m.fatalf(nil, "a row that nobody can read: %v", err)
				}
				i, known := m.byID[e.ID]
				if !known {
					m.fatalf(nil, "%s in the mailbox of %s was never sent", label(&e), to)
				}
				msg := m.messages[i]
				if found[copyOf{i, ident.UserID(to)}]++; found[copyOf{i, ident.UserID(to)}] > 1 {
					m.fatalf(m.around(i, ident.UserID(to)), "%s has %s twice", to, msg.label)
				}
				if e.Late && !m.faults.late() {
					m.fatalf(m.around(i, ident.UserID(to)), "%s got %s late", to, msg.label)
				}
				if e.Late || !msg.order {
					continue
				}
				if before, is := last[msg.from]; is && before > i {
					m.fatalf(append(m.around(i, ident.UserID(to)), m.messages[before].label), "%s got %s of %s after %s", to, msg.label, msg.from, m.messages[before].label)
				}
				last[msg.from] = i
			}
		}
	}
	for i, msg := range m.messages {
		for _, u := range msg.to {
			if found[copyOf{i, u}] == 0 {
				m.fatalf(m.around(i, u), "%s never got %s of %s", u, msg.label, msg.from)
			}
		}
	}
}

func TestRandomNetworksLoseNothingAndKeepOrder(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]meshFaults{
		"without faults":       {},
		"links are cut":        {cuts: true},
		"slow links":           {cuts: true, slow: true, lossy: true},
		"cut unnoticed":        {cuts: true, silent: true, slow: true},
		"long cuts":            {cuts: true, long: true},
		"owners change":        {crashes: true, lossy: true},
		"cuts and owners":      {cuts: true, crashes: true, lossy: true, slow: true},
		"ranges move":          {moves: true},
		"ranges move and cuts": {moves: true, cuts: true, slow: true},
		"ranges move often":    {often: true},
		"moves and owners":     {moves: true, crashes: true},
		"everything at once":   {cuts: true, long: true, silent: true, crashes: true, slow: true, moves: true, lossy: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range *runs {
				m := newMesh(t, seed, f)
				m.run(400)
				m.finish()
			}
		})
	}
}
