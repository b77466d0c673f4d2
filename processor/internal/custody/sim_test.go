package custody_test

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/delivery"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/pkg/topology"
	"github.com/linkerhq/linker/pkg/wire"
	"github.com/linkerhq/linker/processor/internal/custody"
)

// world is a lane with a model of everything around it: a log, a store,
// connectors with sessions, and a network between them that may lose what it
// carries. It moves only when a test moves it, so that a seed repeats a run.
type world struct {
	t     *testing.T
	rng   *rand.Rand
	now   time.Time
	state *custody.State
	fx    custody.Effects
	net   *topology.Snapshot
	trace []string
	last  custody.Event

	log       []envelope.Envelope
	read      int // next offset to be read
	epoch     int64
	committed int64
	saved     mailbox.LaneState
	store     *store
	jobs      []func() // what waits for the store
	results   []custody.Event

	toConnector []parcel
	toLane      []delivery.Answers
	connectors  map[ident.Connector]*connector
	sessions    []*socket // all there ever were
	sent        map[ident.UserID][]ident.MessageID
	streams     map[string]uint64
	nextSession uint64
	lossy       bool
	limits      custody.Limits
	refused     map[ident.MessageID]bool  // for lack of room, or of time
	pad         int                       // bytes added to each frame
	sentAt      map[ident.MessageID]int64 // offsets
	late        []*delivery.Answers       // of connectors to a new owner
}

type parcel struct {
	to    ident.Connector
	epoch int64
	item  delivery.Item
}

type connector struct {
	id    ident.Connector
	epoch int64
	open  map[uint64]*socket
}

// socket is a session as its connector keeps it.
type socket struct {
	id            uint64
	user          ident.UserID
	features      envelope.Features
	c             *connector
	l             envelope.Position
	taken, proved uint64
	last          envelope.Position
	unproved      []delivery.Unproved
	frames        []frame // written, in order; proved ones have been received
	known         map[ident.MessageID]bool
	request       uint64
	left          int // of the last complete fetch; -1: none yet
	round         int
	login         int64 // offset of its login record
	stuck         bool
	closed        bool
}

type frame struct {
	d       uint64
	id      ident.MessageID
	fetched bool
	round   int // how many fetches of the session were complete before
	text    string
	at      time.Time
}

// store is a mailbox in memory.
type store struct {
	rows      map[string][]mailbox.Row
	announced map[ident.UserID]mailbox.Announced
}

func newWorld(t *testing.T, seed uint64, limits custody.Limits) *world {
	t.Helper()
	net, err := topology.New(1, topology.Network{
		Domains: []topology.Domain{{Name: "d", URLs: []string{"ws://127.0.0.1:1"}}},
		Apps:    []topology.App{{Name: "A", AppID: "a", Master: "A-0"}, {Name: "O", AppID: "o", Master: "O-0", MasterOne: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		t: t, limits: limits, rng: rand.New(rand.NewPCG(seed, 7)), now: time.Unix(1_700_000_000, 0), net: net,
		store:      &store{rows: map[string][]mailbox.Row{}, announced: map[ident.UserID]mailbox.Announced{}},
		connectors: map[ident.Connector]*connector{}, sent: map[ident.UserID][]ident.MessageID{}, streams: map[string]uint64{}, refused: map[ident.MessageID]bool{}, sentAt: map[ident.MessageID]int64{},
	}
	w.addConnector("c1")
	w.addConnector("c2")
	w.take()
	return w
}

func (w *world) addConnector(name string) {
	id := ident.Connector{Name: name}
	w.nextSession++
	id.Incarnation[0], id.Incarnation[1] = byte(w.nextSession), byte(w.nextSession>>8)
	w.connectors[id] = &connector{id: id, epoch: w.epoch, open: map[uint64]*socket{}}
}

// take makes a new owner of the lane, as Driver does.
func (w *world) take() {
	w.append(envelope.Envelope{Kind: envelope.KindEpoch})
	w.epoch = int64(len(w.log) - 1)
	from := w.saved.Position.Offset
	handle := max(w.committed, from)
	var announced []mailbox.Announced
	for _, a := range w.store.announced {
		if a.Connected || a.Pos.Offset >= handle {
			announced = append(announced, a)
		}
	}
	w.jobs, w.results, w.toConnector = nil, nil, nil
	saved := w.saved
	saved.Windows = maps.Clone(saved.Windows)
	w.state = custody.New(custody.Config{
		Domain: "d", Lanes: 1, Generation: 1, Epoch: w.epoch, Next: from, Saved: saved, Announced: announced, Network: w.net, Limits: w.limits,
	}, newMetrics(w.t), w.now)
	w.read = int(from)
	w.committed = handle
	for _, s := range w.sessions {
		s.round++ // a fetch under way is lost with its owner
	}
	for _, c := range w.connectors {
		c.epoch = w.epoch
		if w.lossy && w.rng.IntN(3) > 0 { // its answer comes late
			w.late = append(w.late, c.join(w.epoch))
			continue
		}
		w.tell(c.join(w.epoch))
	}
	w.assemble()
}

// tell brings a connector's list of sessions to the owner, in parts.
func (w *world) tell(a *delivery.Answers) {
	for _, part := range a.Parts(w.rng.Uint64(), 100) {
		w.step(custody.Answered{Answers: &part})
	}
}

// unheard lists the connectors that have not told the owner their sessions.
func (w *world) unheard() []ident.Connector {
	all := slices.SortedFunc(maps.Keys(w.connectors), func(a, b ident.Connector) int { return strings.Compare(a.Name, b.Name) })
	return w.state.Unheard(all)
}

// assemble tells the owner when all connectors have told it their sessions.
func (w *world) assemble() {
	if len(w.unheard()) == 0 {
		w.step(&custody.Assembled{})
	}
}

func (c *connector) join(epoch int64) *delivery.Answers {
	a := &delivery.Answers{Epoch: envelope.Position{Generation: 1, Offset: epoch}, Connector: c.id, Join: delivery.Join{Parts: 1}}
	for _, s := range c.open {
		a.Sessions = append(a.Sessions, delivery.SessionState{
			Progress: delivery.Progress{Session: s.id, Taken: s.taken, Proved: s.proved},
			User:     s.user, L: s.l, Last: s.last, Features: s.features, Unproved: slices.Clone(s.unproved),
		})
	}
	return a
}

func (w *world) append(e envelope.Envelope) { w.log = append(w.log, e) }

func (w *world) note(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf(format, args...))
}

func (w *world) step(e custody.Event) {
	w.last = e
	w.state.Step(w.now, e, &w.fx)
	if b, is := e.(*custody.Buried); is && b.Burial.Reason == string(wire.CodeExpired) {
		w.told(b.Burial)
	}
	w.collect()
}

// collect takes the effects of a step to where they go.
func (w *world) collect() {
	fx := &w.fx
	for _, d := range fx.Deliveries {
		d.Item.Targets = slices.Clone(d.Item.Targets)
		w.toConnector = append(w.toConnector, parcel{d.To, w.epoch, d.Item})
	}
	for _, p := range fx.Produce {
		w.append(p.Envelope)
		if p.Token != (custody.Token{}) {
			w.results = append(w.results, &custody.Produced{Token: p.Token})
		}
	}
	for _, b := range fx.Bury {
		w.refuse(b)
		w.results = append(w.results, &custody.Buried{Burial: b})
	}
	writes := []func(){}
	if len(fx.Put) > 0 {
		rows := slices.Clone(fx.Put)
		writes = append(writes, func() {
			keys := make([]mailbox.Key, len(rows))
			for i, r := range rows {
				w.store.put(r)
				w.note("  store %s for %s at %d", r.ID, r.To, r.Pos.Offset)
				keys[i] = mailbox.Key{To: r.To, Pos: r.Pos, ID: r.ID}
			}
			w.results = append(w.results, &custody.Stored{Keys: keys})
		})
	}
	for _, k := range fx.Delete {
		if !w.provedBySomebody(k.ID) && !w.refused[k.ID] {
			w.story(k.ID)
			w.fatalf("%s is deleted and nobody has proved it: %T", k.ID, w.last)
		}
	}
	usages, expirations := slices.Clone(fx.Usages), slices.Clone(fx.Expirations)
	mark, del, proved := slices.Clone(fx.Mark), slices.Clone(fx.Delete), slices.Clone(fx.DeleteProved)
	writes = append(writes, func() {
		for _, k := range mark {
			w.note("  mark %s", k.ID)
			w.store.each(k, func(r *mailbox.Row) bool { r.Proved = true; return true })
		}
		for _, k := range del {
			w.note("  delete %s", k.ID)
			w.store.each(k, func(*mailbox.Row) bool { return false })
		}
		for _, p := range proved {
			w.note("delete proved of %s before %d", p.To, p.Before.Offset)
			w.store.rows[p.To] = slices.DeleteFunc(w.store.rows[p.To], func(r mailbox.Row) bool {
				return r.Proved && (p.Before == (envelope.Position{}) || r.Pos.Before(p.Before))
			})
		}
	})
	for _, a := range fx.Announce {
		w.checkGone(a)
		writes = append(writes, func() {
			w.store.announced[a.User] = a
			w.results = append(w.results, &custody.AnnouncedSaved{Announced: a})
		})
	}
	reads, counts, loads := slices.Clone(fx.Reads), slices.Clone(fx.Counts), slices.Clone(fx.Loads)
	writes = append(writes, func() {
		for _, r := range reads {
			rows, more := w.store.read(r.Query)
			w.results = append(w.results, &custody.RowsRead{Read: r, Rows: rows, More: more})
		}
		for _, c := range counts {
			c.Query.Limit = 1 << 30
			rows, _ := w.store.read(c.Query)
			n := 0
			for _, r := range rows {
				if !r.Proved {
					n++
				}
			}
			w.results = append(w.results, &custody.Counted{Count: c, N: n})
		}
		for _, u := range usages {
			w.results = append(w.results, &custody.UsageRead{User: u, Usage: w.store.usage(u)})
		}
		for _, e := range expirations {
			w.results = append(w.results, &custody.RowsExpired{Expiration: e, Rows: w.store.expired(e)})
		}
		for _, u := range loads {
			a, found := w.store.announced[u]
			w.results = append(w.results, &custody.Loaded{User: u, Announced: a, Found: found})
		}
	})
	w.jobs = append(w.jobs, writes...)
	fx.Reset()
}

// checkGone looks at the moment when a user is announced as gone: whoever was
// logged in then must not be.
func (w *world) checkGone(a mailbox.Announced) {
	for _, s := range w.openSockets(a.User) {
		if !a.Connected && s.login < a.Pos.Offset {
			w.fatalf("%s is announced as gone at %d and is there as %d since %d", a.User, a.Pos.Offset, s.id, s.login)
		}
	}
}

func (w *world) provedBySomebody(id ident.MessageID) bool {
	for _, s := range w.sessions {
		for _, f := range s.frames {
			if f.id == id && f.d <= s.proved {
				return true
			}
		}
	}
	return false
}

// refuse notes that a message becomes a dead letter. What has expired is told to its
// sender when it is one.
func (w *world) refuse(b custody.Burial) {
	e, err := envelope.Decode(b.Record)
	if err != nil || b.Reason != string(wire.CodeMailboxFull) && b.Reason != string(wire.CodeExpired) {
		w.fatalf("buried as %s: %v", b.Reason, err)
	}
	if b.Reason != string(wire.CodeExpired) {
		w.told(b)
	}
	w.note("  bury %s as %s", e.ID, b.Reason)
	w.refused[e.ID] = true
}

// told checks that the sender of a dead letter is told now.
func (w *world) told(b custody.Burial) {
	e, err := envelope.Decode(b.Record)
	if err != nil {
		w.fatalf("buried as %s: %v", b.Reason, err)
	}
	if e.Kind == envelope.KindMessage && !slices.ContainsFunc(w.fx.Failures, func(f envelope.Envelope) bool {
		return f.User() == e.From && strings.Contains(string(f.Frame), b.Reason)
	}) {
		w.fatalf("%s of %s was buried as %s and nobody told the sender", e.ID, e.From, b.Reason)
	}
}

func (s *store) usage(user ident.UserID) mailbox.Usage {
	var u mailbox.Usage
	for _, r := range s.rows[string(user)] {
		if !r.Proved {
			u.Rows++
			u.Bytes += int64(len(r.Record))
		}
	}
	return u
}

func (s *store) expired(e custody.Expiration) []mailbox.Row {
	var rows []mailbox.Row
	for _, user := range slices.Sorted(maps.Keys(s.rows)) {
		for _, r := range s.rows[user] {
			if r.Stored < e.Before && len(rows) < e.Limit {
				rows = append(rows, r)
			}
		}
	}
	return rows
}

func (s *store) put(r mailbox.Row) {
	rows := s.rows[r.To]
	for _, other := range rows {
		if other.ID == r.ID {
			return
		}
	}
	rows = append(rows, r)
	slices.SortFunc(rows, func(a, b mailbox.Row) int { return a.Pos.Compare(b.Pos) })
	s.rows[r.To] = rows
}

func (s *store) each(k mailbox.Key, keep func(*mailbox.Row) bool) {
	s.rows[k.To] = slices.DeleteFunc(s.rows[k.To], func(r mailbox.Row) bool { return false })
	rows := s.rows[k.To][:0]
	for _, r := range s.rows[k.To] {
		if r.ID != k.ID || keep(&r) {
			rows = append(rows, r)
		}
	}
	s.rows[k.To] = rows
}

func (s *store) read(q mailbox.Query) ([]mailbox.Row, bool) {
	var out []mailbox.Row
	size := 0
	for _, r := range s.rows[q.To] {
		switch {
		case !q.After.Before(r.Pos) && q.After != (envelope.Position{}), q.Before != (envelope.Position{}) && !r.Pos.Before(q.Before), q.Unproved && r.Proved:
			continue
		}
		if len(out) == q.Limit || q.MaxBytes > 0 && size > q.MaxBytes {
			return out, true
		}
		out = append(out, r)
		size += len(r.Record)
	}
	return out, false
}

// Moves of the world.

func (w *world) login(user ident.UserID, features envelope.Features) *socket {
	c := w.anyConnector()
	w.nextSession++
	s := &socket{id: w.nextSession, user: user, features: features, c: c, known: map[ident.MessageID]bool{}, left: -1}
	c.open[s.id] = s
	w.sessions = append(w.sessions, s)
	w.append(envelope.Envelope{Kind: envelope.KindLogin, To: to(user), Session: s.id, Connector: c.id, Features: features})
	s.login = int64(len(w.log) - 1)
	if !features.Has(envelope.FeaturePush) {
		s.l = envelope.Position{Generation: 1, Offset: s.login}
	}
	w.note("login %s as %d on %s", user, s.id, c.id.Name)
	return s
}

func (w *world) logout(s *socket) {
	if s.closed {
		return
	}
	s.closed = true
	delete(s.c.open, s.id)
	w.append(envelope.Envelope{Kind: envelope.KindLogout, To: to(s.user), Session: s.id, Connector: s.c.id, Request: s.proved})
	w.note("logout %d", s.id)
}

func (w *world) send(from, user ident.UserID, confirm bool) {
	key := string(from + ">" + user)
	w.streams[key]++
	n := w.streams[key]
	stream := uint64(len(from))<<32 | uint64(from.Number()+1)
	id := ident.StreamMessageID(stream, user, n)
	e := envelope.Envelope{
		Kind: envelope.KindMessage, Confirm: confirm, ID: id, Stream: stream, From: from,
		To: []envelope.Recipient{{User: user, N: n}}, Reference: "r", Frame: append(fmt.Appendf(nil, "%s %d ", from, n), make([]byte, w.pad)...),
	}
	w.append(e)
	w.note("  send %s to %s at %d", id, user, len(w.log)-1)
	w.sent[user] = append(w.sent[user], id)
	w.sentAt[id] = int64(len(w.log) - 1)
	if w.lossy && w.rng.IntN(10) == 0 {
		w.append(e) // the log's reply was lost, and the producer tried again
	}
}

func (w *world) fetch(s *socket, count int) {
	if s.closed {
		return
	}
	s.request++
	s.left = -1
	w.append(envelope.Envelope{Kind: envelope.KindFetch, To: to(s.user), Session: s.id, Connector: s.c.id, Request: s.request, Count: count})
}

func to(user ident.UserID) []envelope.Recipient { return []envelope.Recipient{{User: user}} }

func (w *world) anyConnector() *connector {
	list := slices.SortedFunc(maps.Values(w.connectors), func(a, b *connector) int { return strings.Compare(a.id.Name, b.id.Name) })
	return list[w.rng.IntN(len(list))]
}

// kill ends a connector and all its sockets without a word, and starts another.
func (w *world) kill(c *connector) {
	delete(w.connectors, c.id)
	for _, s := range c.open {
		s.closed = true
	}
	w.note("kill %s", c.id.Name)
	w.addConnector(c.id.Name)
}

func (w *world) readOne() bool {
	if w.read >= len(w.log) {
		return false
	}
	e, err := envelope.Decode(w.log[w.read].Append(nil))
	if err != nil {
		w.fatalf("nobody can read the %s at %d: %v", w.log[w.read].Kind, w.read, err)
	}
	w.step(&custody.RecordRead{Offset: int64(w.read), Envelope: &e, Fill: int64(w.read) < w.committed && w.read < int(w.epoch)})
	w.read++
	return true
}

func (w *world) storeOne() bool {
	if len(w.jobs) == 0 {
		return false
	}
	job := w.jobs[0]
	w.jobs = w.jobs[1:]
	job()
	return true
}

func (w *world) resultOne() bool {
	if len(w.results) == 0 {
		return false
	}
	r := w.results[0]
	w.results = w.results[1:]
	w.step(r)
	return true
}

func (w *world) networkOne() bool {
	switch {
	case len(w.toConnector) > 0:
		p := w.toConnector[0]
		w.toConnector = w.toConnector[1:]
		if !w.lossy || w.rng.IntN(20) > 0 {
			w.arrive(p)
		}
	case len(w.toLane) > 0:
		a := w.toLane[0]
		w.toLane = w.toLane[1:]
		if !w.lossy || w.rng.IntN(20) > 0 {
			w.step(custody.Answered{Answers: &a})
		}
	default:
		return false
	}
	return true
}

func (w *world) answer(c *connector, epoch int64, a delivery.Answers) {
	a.Epoch, a.Connector = envelope.Position{Generation: 1, Offset: epoch}, c.id
	w.toLane = append(w.toLane, a)
}

// arrive is a connector's side of a delivery, as internal/downlink has it.
func (w *world) arrive(p parcel) {
	c := w.connectors[p.to]
	if c == nil || p.epoch < c.epoch {
		return
	}
	for _, target := range p.item.Targets {
		s := c.open[target.Session]
		switch {
		case s == nil || s.user != target.User:
			w.answer(c, p.epoch, delivery.Answers{Gone: []uint64{target.Session}})
		case p.item.Kind == delivery.KindLoggedIn:
			s.l = p.item.Pos
		case p.item.Kind == delivery.KindFast:
		case target.D <= s.taken:
			w.progress(s, p.epoch, false)
		case target.D > s.taken+1:
			w.progress(s, p.epoch, true)
		default:
			w.takeUp(s, target.D, &p.item)
			if w.rng.IntN(3) == 0 {
				w.progress(s, p.epoch, false)
			}
		}
	}
}

func (w *world) progress(s *socket, epoch int64, gap bool) {
	w.answer(s.c, epoch, delivery.Answers{Progress: []delivery.Progress{{Session: s.id, Taken: s.taken, Proved: s.proved, Gap: gap}}})
}

func (w *world) takeUp(s *socket, d uint64, item *delivery.Item) {
	s.taken = d
	if item.ID != (ident.MessageID{}) && !item.Pos.Before(s.l) && s.last.Before(item.Pos) {
		s.last = item.Pos
	}
	s.unproved = append(s.unproved, delivery.Unproved{D: d, Pos: item.Pos, ID: item.ID})
	if item.ID != (ident.MessageID{}) && s.known[item.ID] {
		return
	}
	s.known[item.ID] = true
	if item.Token != 0 {
		if _, err := fmt.Sscanf(string(item.Frame), `{"type":"FETCH_MISSING_MESSAGES_COMPLETE","data":{"leftMissingCount":%d}}`, &s.left); err != nil {
			w.fatalf("the end of a fetch is %s", item.Frame)
		}
		s.round++
	}
	if item.ID != (ident.MessageID{}) {
		w.note("  session %d takes %s as %d", s.id, item.ID, d)
		s.frames = append(s.frames, frame{d: d, id: item.ID, fetched: !s.features.Has(envelope.FeaturePush) && item.Pos.Offset < s.login, round: s.round, text: string(item.Frame), at: w.now})
	}
}

// prove lets a socket read everything written to it.
func (w *world) prove(s *socket) {
	if s.closed || s.stuck || s.proved == s.taken {
		return
	}
	for _, u := range s.unproved {
		w.note("  session %d proves %s", s.id, u.ID)
	}
	s.proved = s.taken
	s.unproved = nil
	w.progress(s, w.epoch, false)
}

func (w *world) tick(d time.Duration) {
	w.now = w.now.Add(d)
	for _, c := range w.state.Connectors() {
		if w.connectors[c] == nil {
			w.step(&custody.ConnectorDied{Connector: c})
		}
	}
	w.step(&custody.Ticked{})
	for _, c := range w.connectors {
		for _, s := range c.open {
			if w.rng.IntN(4) == 0 {
				w.progress(s, w.epoch, false)
			}
		}
	}
}

func (w *world) save() {
	change := w.state.Change(w.now)
	if w.saved.Windows == nil {
		w.saved.Windows = map[mailbox.WindowKey]mailbox.Window{}
	}
	maps.Copy(w.saved.Windows, change.Windows)
	w.saved.IDs = append(w.saved.IDs, change.IDs...)
	w.saved.Position = change.Position
}

func (w *world) commit() {
	if low := w.state.Low(); low > w.committed {
		w.committed = low
	}
}

// settle lets everything under way come to rest.
func (w *world) settle() {
	for range 200 {
		for w.readOne() || w.storeOne() || w.resultOne() || w.networkOne() {
		}
		idle := true
		for _, c := range w.state.Connectors() {
			idle = idle && w.connectors[c] != nil
		}
		for _, s := range w.sessions {
			if !s.closed && !s.stuck && s.proved != s.taken {
				w.prove(s)
				idle = false
			}
		}
		if idle && w.state.Idle() && w.read == len(w.log) && len(w.toLane)+len(w.toConnector)+len(w.jobs)+len(w.results) == 0 {
			return
		}
		w.tick(200 * time.Millisecond)
	}
	w.fatalf("it does not come to rest: low %d of %d, unsettled %d", w.state.Low(), len(w.log), w.state.Unsettled())
}

// story keeps of the trace what concerns one message.
func (w *world) story(id ident.MessageID) {
	w.trace = slices.DeleteFunc(w.trace, func(line string) bool {
		return !strings.Contains(line, id.String()) && !strings.HasPrefix(line, "crash") && !strings.HasPrefix(line, "kill")
	})
}

func (w *world) fatalf(format string, args ...any) {
	w.t.Helper()
	tail := w.trace[max(0, len(w.trace)-60):]
	w.t.Fatalf("%s\nlast moves:\n%s", fmt.Sprintf(format, args...), strings.Join(tail, "\n"))
}

// finish brings every user's stored messages out and checks the promises.
// joinLate lets the answers come that a new owner was told too late: first as they
// were given, then anew, as it asks for them.
func (w *world) joinLate() {
	for _, a := range w.late {
		if a.Epoch.Offset == w.epoch && w.connectors[a.Connector] != nil {
			w.tell(a)
			w.tell(w.connectors[a.Connector].join(w.epoch))
		}
	}
	w.late = nil
	for _, id := range w.unheard() { // it asks those who began since
		w.tell(w.connectors[id].join(w.epoch))
	}
	w.assemble()
}

func (w *world) finish(faults bool) {
	w.lossy = false
	for _, s := range w.sessions {
		s.stuck = false
	}
	w.joinLate()
	w.settle()
	for range 30 {
		w.tick(time.Second)
		w.settle()
	}
	w.checkOpen()
	for _, s := range w.sessions {
		w.logout(s)
	}
	w.settle()
	for _, user := range slices.Sorted(maps.Keys(w.sent)) {
		s := w.login(user, 0)
		w.settle()
		for rounds := 0; s.left != 0; rounds++ {
			if rounds > 100 {
				w.fatalf("%s: fetching does not end, %d left, %d stored", user, s.left, len(w.store.rows[string(user)]))
			}
			w.fetch(s, 50)
			w.settle()
		}
		w.logout(s)
		w.settle()
		w.checkUser(user, faults)
	}
	for user, rows := range w.store.rows {
		for _, row := range rows { // confirmations may have come since
			if slices.Contains(w.sent[ident.UserID(user)], row.ID) {
				w.fatalf("%s: the row at %d is left over", user, row.Pos.Offset)
			}
		}
	}
	if w.state.Held() != 0 {
		w.fatalf("%d bytes of records are still held", w.state.Held())
	}
}

// checkOpen looks at those who are there: each open socket has its copy of what
// came while it was there, and the masters were told the truth.
func (w *world) checkOpen() {
	for _, s := range w.sessions {
		if s.closed || w.masterOne(s.user) {
			continue
		}
		got := map[ident.MessageID]bool{}
		for _, f := range s.frames {
			got[f.id] = true
		}
		for _, id := range w.sent[s.user] {
			if w.sentAt[id] > s.login && !got[id] && !w.refused[id] {
				stored := false
				for _, r := range w.store.rows[string(s.user)] {
					stored = stored || r.ID == id
				}
				w.story(id)
				w.fatalf("session %d of %s was logged in at %d and never got its copy of %d; in the mailbox: %v", s.id, s.user, s.login, w.sentAt[id], stored)
			}
		}
	}
	for _, s := range w.sessions {
		if app, _ := w.net.App(s.user.App()); app.Master != s.user && !s.closed && !w.store.announced[s.user].Connected {
			w.fatalf("%s is there as %d and announced as away", s.user, s.id)
		}
	}
	for user, a := range w.store.announced {
		if a.Connected && len(w.openSockets(user)) == 0 {
			w.fatalf("%s is away and announced as there", user)
		}
	}
}

func (w *world) checkUser(user ident.UserID, faults bool) {
	received, fetched := map[ident.MessageID]int{}, map[ident.MessageID][]time.Time{}
	for _, s := range w.sessions {
		if s.user != user {
			continue
		}
		last := map[string]int{}
		mine := map[ident.MessageID]bool{}
		for _, f := range s.frames {
			if f.d <= s.proved {
				received[f.id]++
				if f.fetched {
					fetched[f.id] = append(fetched[f.id], f.at)
				}
			}
			if mine[f.id] {
				w.story(f.id)
				w.fatalf("session %d of %s got %q twice", s.id, user, f.text)
			}
			mine[f.id] = true
			if at := fetched[f.id]; !faults && len(at) > 1 && at[len(at)-1].Sub(at[0]) < custody.ClaimFor/5 { // what is long on its way may be claimed anew
				w.story(f.id)
				w.fatalf("%s fetched %q twice without a fault", user, f.text)
			}
			var from string
			var n int
			if _, err := fmt.Sscanf(f.text, "%s %d", &from, &n); err != nil {
				continue // a confirmation or a presence event
			}
			way := fmt.Sprint(from, f.fetched, f.round)
			if n < last[way] && !w.masterOne(user) {
				w.story(f.id)
				w.fatalf("session %d of %s got number %d of %s after %d", s.id, user, n, from, last[way])
			}
			last[way] = max(last[way], n)
		}
	}
	for i, id := range w.sent[user] {
		if received[id] == 0 && !w.refused[id] {
			w.story(id)
			w.fatalf("%s never got message %d of %d", user, i+1, len(w.sent[user]))
		}
	}
}

func (w *world) masterOne(user ident.UserID) bool {
	app, _ := w.net.App(user.App())
	return app.MasterOne && app.Master == user
}

func (w *world) openSockets(user ident.UserID) []*socket {
	var list []*socket
	for _, s := range w.sessions {
		if s.user == user && !s.closed {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b *socket) int { return cmp.Compare(a.id, b.id) })
	return list
}

// faults of a random run.
type faults struct{ lossy, crashes, kills, stuck, small bool }

func (w *world) run(moves int, f faults) {
	users := []ident.UserID{"A-1", "A-2", "A-3", "A-4", "O-0"}
	w.lossy = f.lossy
	for range moves {
		user := users[w.rng.IntN(len(users))]
		switch w.rng.IntN(40) {
		case 0:
			if len(w.openSockets(user)) < 3 {
				w.login(user, []envelope.Features{0, 0, envelope.FeatureHints, envelope.FeaturePush | envelope.FeatureHints}[w.rng.IntN(4)])
			}
		case 1:
			if open := w.openSockets(user); len(open) > 0 {
				w.logout(open[0])
			}
		case 2:
			if open := w.openSockets(user); len(open) > 0 {
				w.fetch(open[w.rng.IntN(len(open))], 1+w.rng.IntN(20))
			}
		case 3:
			if f.stuck {
				if open := w.openSockets(user); len(open) > 0 {
					open[0].stuck = !open[0].stuck
				}
			}
		case 4:
			if f.crashes && w.rng.IntN(5) == 0 {
				w.note("crash: committed %d, saved %d, read %d", w.committed, w.saved.Position.Offset, w.read)
				w.take()
			}
		case 5:
			if f.kills && w.rng.IntN(5) == 0 {
				w.kill(w.anyConnector())
			}
		case 6:
			w.save()
			if w.rng.IntN(20) == 0 {
				w.joinLate()
			}
		case 7, 8:
			w.commit()
		case 9, 10, 11:
			w.tick(time.Duration(w.rng.IntN(400)) * time.Millisecond)
		case 12, 13, 14, 15, 16, 17:
			from := ident.UserID(fmt.Sprintf("%s-%d", user.App(), 1+w.rng.IntN(4)))
			for range 1 + w.rng.IntN(4) {
				w.send(from, user, w.rng.IntN(3) == 0)
			}
		case 18, 19, 20, 21, 22:
			for range w.rng.IntN(8) {
				w.readOne()
			}
		case 23, 24, 25, 26, 27:
			for range w.rng.IntN(8) {
				w.storeOne()
				w.resultOne()
			}
		case 28, 29, 30, 31, 32, 33:
			for range w.rng.IntN(12) {
				w.networkOne()
			}
		default:
			for _, s := range w.openSockets(user) {
				w.prove(s)
			}
		}
	}
}

// runs may be raised to look for what is rare: go test ./internal/custody -runs 1000
var runs = flag.Uint64("runs", 20, "random runs of each kind")

func TestRandomRunsLoseNothingAndKeepOrder(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]faults{
		"without faults":     {},
		"lossy plane":        {lossy: true},
		"sockets get stuck":  {stuck: true},
		"connectors die":     {kills: true, lossy: true},
		"owners change":      {crashes: true},
		"everything at once": {lossy: true, crashes: true, kills: true, stuck: true},
		"small mailboxes":    {crashes: true, kills: true, stuck: true, small: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range *runs {
				var limits custody.Limits
				if f.small {
					limits = custody.Limits{Rows: []int{8, 3000}[seed/3%2], Bytes: 500 << 10, Expire: 15 * time.Second}
					if limits.Rows > 1000 { // room for all, but not before it was counted
						limits.Bytes, limits.Expire = 0, 0
					}
				}
				w := newWorld(t, seed, limits)
				w.note("seed %d", seed)
				w.pad = []int{0, 20 << 10, 60 << 10}[seed%3]
				w.run(1500, f)
				w.finish(f != (faults{}))
				if t.Failed() {
					return
				}
			}
		})
	}
}
