package custody

import (
	"slices"
	"strings"
	"time"

	"github.com/linkerhq/linker/pkg/delivery"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/pkg/topology"
	"github.com/linkerhq/linker/pkg/trace"
	"github.com/linkerhq/linker/processor/internal/window"
)

// Config is what a lane is told when it is taken.
type Config struct {
	Domain     string
	Lane       int
	Lanes      int // of the domain
	Generation uint32
	Epoch      int64 // the offset of the record with which this owner took the lane
	Next       int64 // the first offset that will be read
	Saved      mailbox.LaneState
	Announced  []mailbox.Announced // connected, or caused by a record not before Next
	Held       []mailbox.Row       // what earlier owners have held back, in the order of positions for each user
	Channels   uint64              // random: the numbers of this owner's channels follow it
	Network    *topology.Snapshot
	Limits     Limits
	Trace      *trace.Log // is told what happens to messages; nil: nobody is
}

// State is the state machine of one lane. It is owned by one goroutine.
type State struct {
	cfg     Config
	metrics *Metrics
	now     time.Time
	network *topology.Snapshot

	described uint32 // counts the descriptions of the network, from 1

	users     map[ident.UserID]*user
	sessions  map[uint64]*session // open, or gone and not yet logged out
	log       settling
	windows   *window.Windows
	waiting   queue[*item]     // in the order taken: the next ones to spill, and some that are settled
	catching  map[*target]bool // behind, with room in their windows
	fast      map[uint64]fastWait
	fastOld   map[uint64]fastWait   // those of the minute before
	fastTurn  time.Time             // when fast was begun
	fastHigh  map[publisher]*uint64 // the highest number seen of each publisher of FAST messages
	token     uint64                // the last one given to a FAST message
	serial    uint64                // the last one given to a Read or Count
	dead      map[ident.Connector]bool
	heard     map[ident.Connector]bool  // have told their sessions to this owner
	lists     map[ident.Connector]*list // of which parts are missing
	departed  map[uint64]time.Time      // sessions that have logged out lately
	departing queue[departure]          // the same, in that order; a session may be in it twice
	behind    int                       // targets of users that are behind

	connectors map[ident.Connector]*connector // of sessions
	busy       []*session                     // has all that have flights or fetches, and some that had
	unadopted  map[*session]bool              // has all that wait to be adopted, and some that did
	held       int                            // bytes of records in memory
	logged     int                            // bytes of records of which only the log has custody
	usages     map[ident.UserID]*usage
	roadUsage  map[ident.UserID]*usage // those of usages that are of other domains
	recounted  time.Time               // when roads were looked at for counting
	touched    map[mailbox.Key]bool    // proved since they were asked for
	expiring   bool                    // the store is being asked for rows that have expired
	expireAt   time.Time               // when it is asked again
	begun      time.Time               // when this owner took the lane
	started    bool                    // this owner's epoch record was read
	assembled  bool                    // it is certain who is connected

	supposedly map[mailbox.RememberedID]bool // remembered since an earlier owner has read them, whatever it did with them

	roads    map[string]*user    // by destination
	ways     map[string]Road     // by destination; those that are open
	channels map[uint64]*session // open roads
	holds    holds
	pending  pending
	resuming int64    // the offset of the record that has waited and is being handled; noOffset: none is
	former   []former // descriptions of the network that were in force lately
	arrived  map[arrival]bool
	moving   moving
}

// user is what the lane knows of one user. It is forgotten when nothing is
// under way for it and no session is open.
type user struct {
	id      ident.UserID
	one     bool          // each message goes to one session only
	marked  bool          // the mailbox may hold proved rows of this user, perhaps from an earlier owner
	reads   int32         // reads under way
	storing int32         // rows given to the mailbox and not yet acknowledged
	held    int32         // messages that wait until it is known whether the mailbox has room
	open    []uint64      // sessions between their login and logout records: presence
	targets []*target     // who is owed a copy; empty: the mailbox takes everything
	items   items         // in memory: unsettled, or in flight
	graves  []*item       // deleted while a read was under way, which may still bring their rows
	stored  uint64        // counts acknowledgements, so that a read can tell that it was overtaken
	domain  string        // not a user but this domain, as a target of what goes there
	paused  time.Duration // nothing is sent to the domain before this time after State.begun
	traced  trace.User    // id, as the trace keeps it
	home    uint32        // the description, as State.described counts, by which the user is at home here; 0: not looked up
	presence
}

// target is who must get one copy of each message of a user.
type target struct {
	user     *user
	l        envelope.Position // records before it are brought by fetches only
	cursor   envelope.Position // everything owed up to here has been sent, or found to be
	landed   envelope.Position // what an earlier owner has sent up to here and is not in flight was proved
	behind   bool
	reading  uint64 // serial of the read under way; 0: none
	overtake uint64 // user.stored when that read was asked for
	sessions []*session
}

// session is one open websocket of a user.
type session struct {
	id        uint64
	user      *user
	connector *connector // nil: of a channel
	target    *target    // nil: gone, or not adopted yet
	conn      uint64     // not a session but a channel to another domain over this connection; 0: a session

	features         envelope.Features
	left             bool // a logout was written for it here
	gone             bool // its connector does not know it any more
	busy             bool // is in State.busy
	d, taken, proved uint64
	flights          queue[flight] // ascending d, those above proved
	bytes            int           // of the frames in flight
	heard            time.Time     // last progress, or last (re)sending
	pause            time.Duration

	fetch   *fetch   // the one being served
	fetches []*fetch // waiting, oldest first
	asked   uint64   // highest request seen
}

// connector is one that has sessions of the lane.
type connector struct {
	id       ident.Connector
	traced   trace.Name // its name, as the trace keeps it
	sessions int
	last     int    // index of the last delivery to it …
	asOf     uint64 // … in this round of the effects, counted from 1
}

// departure is the end of a session.
type departure struct {
	session uint64
	at      time.Time
}

// flight is a delivery that was sent and not yet proved.
type flight struct {
	d     uint64
	item  *item
	fetch bool // brought by a fetch
	since time.Time
}

// item is one message for one user while it is in memory.
type item struct {
	user    *user
	pos     envelope.Position
	id      ident.MessageID
	env     *envelope.Envelope // shared by the members of a group; nil: only the mailbox has it, or nobody needs it any more
	size    int
	kept    int // of size, what is accounted for in memory
	taken   time.Time
	inLog   bool // the log still has custody
	held    bool // until it is known whether the mailbox has room
	storing bool
	stored  bool
	proved  bool // at least one session has it
	confirm confirmation
	flights []*session  // who has it in flight
	first   [1]*session // memory of flights, which seldom need more
	asking  bool        // a read for its record is under way
	marked  bool        // its row says that it is proved
	deleted bool        // its row is being deleted …
	leaving uint64      // … since this round

	control     bool // not a message: nothing to store or settle
	instruction *delivery.Item
}

type confirmation uint8

const (
	unconfirmed confirmation = iota
	confirming               // given to the log
	confirmed                // or not wanted
)

// fetch is one request for stored messages.
type fetch struct {
	request  uint64
	left     int // rows still to be sent
	started  bool
	cursor   envelope.Position
	until    time.Time // waits so long for records below the bound
	reading  uint64    // serial of the read or count under way; 0: none
	finished bool      // nothing more to send: count, then complete
}

// list is what has come of a connector's list of sessions.
type list struct {
	serial uint64
	parts  map[int]bool
	named  map[uint64]bool
}

// fastWait is a FAST message whose confirmation waits for proof.
type fastWait struct {
	from, to  ident.UserID
	id        ident.MessageID
	reference string
	origin    string // the domain that accepted it; empty: this one
}

// New returns the state of a lane that has just been taken.
func New(cfg Config, metrics *Metrics, now time.Time) *State {
	if cfg.Saved.Position.Generation != cfg.Generation {
		cfg.Saved.Position = envelope.Position{Generation: cfg.Generation, Offset: cfg.Next}
	}
	s := &State{
		cfg:        cfg,
		metrics:    metrics,
		now:        now,
		network:    cfg.Network,
		described:  1,
		users:      map[ident.UserID]*user{},
		sessions:   map[uint64]*session{},
		log:        settling{next: cfg.Next, low: cfg.Next},
		windows:    window.New(cfg.Saved, RememberFor, now),
		catching:   map[*target]bool{},
		fast:       map[uint64]fastWait{},
		fastTurn:   now,
		fastHigh:   map[publisher]*uint64{},
		dead:       map[ident.Connector]bool{},
		heard:      map[ident.Connector]bool{},
		usages:     map[ident.UserID]*usage{},
		roadUsage:  map[ident.UserID]*usage{},
		connectors: map[ident.Connector]*connector{},
		unadopted:  map[*session]bool{},
		touched:    map[mailbox.Key]bool{},
		lists:      map[ident.Connector]*list{},
		departed:   map[uint64]time.Time{},
		roads:      map[string]*user{},
		ways:       map[string]Road{},
		channels:   map[uint64]*session{},
		arrived:    map[arrival]bool{},
		moving:     moving{due: true},
		begun:      now,
		resuming:   noOffset,

		supposedly: map[mailbox.RememberedID]bool{},
	}
	s.holds.load(cfg.Held)
	for _, a := range cfg.Announced {
		u := s.user(a.User)
		u.announced, u.loaded, u.known = a, true, true
	}
	return s
}

// Low is the lowest offset that is not settled: what may be committed.
func (s *State) Low() int64 { return s.log.low }

// Held is the number of bytes of records in memory.
func (s *State) Held() int { return s.held }

// Logged is the number of bytes of records of which only the log has custody.
func (s *State) Logged() int { return s.logged + s.pending.bytes }

// Unsettled is the number of records read and not settled.
func (s *State) Unsettled() int { return len(s.log.pending) + len(s.pending.records) }

// Idle says whether nothing is in the log's custody or on its way to a store.
func (s *State) Idle() bool { return s.Unsettled() == 0 }

// Sessions is the number of sessions that the lane knows.
func (s *State) Sessions() int { return len(s.sessions) }

// Unadopted returns the connectors of sessions that logged in before this
// owner's time and whose numbers their connectors have not told yet.
func (s *State) Unadopted() []ident.Connector {
	var list []ident.Connector
	for sn := range s.unadopted {
		switch {
		case sn.target != nil || sn.gone || s.sessions[sn.id] != sn:
			delete(s.unadopted, sn)
		case !slices.Contains(list, sn.connector.id):
			list = append(list, sn.connector.id)
		}
	}
	return list
}

// Unheard returns those of the connectors that have not told this owner their
// sessions, or not since it took them for dead.
func (s *State) Unheard(alive []ident.Connector) []ident.Connector {
	return slices.DeleteFunc(slices.Clone(alive), func(c ident.Connector) bool { return s.heard[c] })
}

// Resuming is the offset of a record that has waited and is being handled, -1 if none is.
func (s *State) Resuming() int64 { return s.resuming }

// Assembled says whether it is certain who is connected.
func (s *State) Assembled() bool { return s.assembled }

// Behind is the number of sessions, and of masters who share theirs, with records waiting
// in the mailbox.
func (s *State) Behind() int { return s.behind }

// SettleWindows lets the part of the windows that is saved follow Low.
func (s *State) SettleWindows(now time.Time) { s.windows.Settle(s.log.low, now) }

// Change returns what is to be saved of the duplicate windows, exact for the
// offsets below Low.
func (s *State) Change(now time.Time) mailbox.LaneChange {
	s.SettleWindows(now)
	return s.windows.Change(s.cfg.Generation, now)
}

// SpillAll gives to the mailbox everything that it can take over from the log.
func (s *State) SpillAll(fx *Effects) {
	for _, it := range s.waiting.all() {
		if it.inLog {
			s.store(it, fx)
		}
	}
	s.waiting = queue[*item]{}
	s.storeHeld(0, fx)
}

// Oldest is the age of the oldest message that waits for proof.
func (s *State) Oldest() time.Duration {
	for _, it := range s.waiting.all() {
		if it.inLog {
			return s.now.Sub(it.taken)
		}
	}
	return 0
}

// ExpireWindows forgets windows that have been still for a day.
func (s *State) ExpireWindows(now time.Time) []mailbox.WindowKey { return s.windows.Expire(now) }

func (s *State) pos(offset int64) envelope.Position {
	return envelope.Position{Generation: s.cfg.Generation, Offset: offset}
}

func (s *State) user(id ident.UserID) *user {
	u := s.users[id]
	if u == nil {
		id = ident.UserID(strings.Clone(string(id))) // what is kept is not part of something larger
		u = &user{id: id, marked: s.cfg.Next > 0}
		u.traced = s.cfg.Trace.User(id)
		s.users[id] = u
	}
	return u
}

// pauses says whether nothing is to be sent to a domain now.
func (s *State) pauses(u *user) bool { return s.now.Sub(s.begun) < u.paused }

// forget drops a user about whom nothing is left to know.
func (s *State) forget(u *user) {
	if len(u.open) == 0 && len(u.targets) == 0 && !s.pauses(u) && u.items.len() == 0 && u.storing == 0 && u.reads == 0 && u.presence.idle() && !u.presence.kept(s) {
		delete(s.users, u.id)
		delete(s.roads, u.domain)
	}
}

// hold adds an item to memory.
func (s *State) hold(it *item) {
	it.user.items.add(it)
	it.kept = it.size
	s.held += it.kept
}

// release drops an item from memory once nobody needs it.
func (s *State) release(it *item) {
	if it.inLog || it.held || it.storing || len(it.flights) > 0 || it.asking || it.confirm == confirming {
		return
	}
	u := it.user
	if (it.deleted || it.marked) && u.reads > 0 {
		if u.items.find(it.pos) == it {
			u.graves = append(u.graves, it)
		}
		return
	}
	if !u.items.remove(it) {
		return
	}
	it.env = nil // it may stay in State.waiting for a while
	s.held -= it.kept
	s.forget(u)
}

// readEnded notes that a read or count of a user's rows has come back. Items
// deleted meanwhile may go: no later result can bring their rows again.
func (s *State) readEnded(u *user) {
	u.reads--
	if u.reads > 0 {
		return
	}
	graves := u.graves
	u.graves = nil
	for _, it := range graves {
		s.release(it)
	}
	s.forget(u)
}

// settle ends the log's custody of an item.
func (s *State) settle(it *item) {
	if it.inLog {
		it.inLog = false
		s.logged -= it.size
		s.log.settle(it.pos.Offset)
	}
}

// removeTarget ends a target whose last session has ended.
func (s *State) removeTarget(t *target) {
	s.setBehind(t, false)
	delete(s.catching, t)
	if i := slices.Index(t.user.targets, t); i >= 0 {
		t.user.targets = slices.Delete(t.user.targets, i, i+1)
	}
}

// setBehind notes whether older records wait for a target.
func (s *State) setBehind(t *target, behind bool) {
	if t.behind != behind && t.user.domain == "" {
		if behind {
			s.behind++
		} else {
			s.behind--
		}
	}
	t.behind = behind
}

// connector returns the entry of a connector.
func (s *State) connector(id ident.Connector) *connector {
	c := s.connectors[id]
	if c == nil {
		id.Name = strings.Clone(id.Name)
		c = &connector{id: id, traced: s.cfg.Trace.Name(id.Name)}
		s.connectors[id] = c
	}
	return c
}

// addSession adds a session, in the place of one with its id if there is one.
func (s *State) addSession(sn *session) {
	sn.connector.sessions++
	s.dropSession(s.sessions[sn.id])
	s.sessions[sn.id] = sn
}

// dropSession forgets a session; nil is none.
func (s *State) dropSession(sn *session) {
	if sn == nil {
		return
	}
	delete(s.sessions, sn.id)
	delete(s.unadopted, sn)
	if sn.connector.sessions--; sn.connector.sessions == 0 {
		delete(s.connectors, sn.connector.id)
	}
}

// occupied notes that a session has a flight or a fetch. What is sent over a channel is
// not repeated.
func (s *State) occupied(sn *session) {
	if !sn.busy && sn.conn == 0 {
		sn.busy = true
		s.busy = append(s.busy, sn)
	}
}

// settling counts, per offset, for how many receivers a record is not settled.
type settling struct {
	low, next int64
	pending   []int32 // of the offsets low … next-1
}

// open begins a record; the counts of skipped offsets are zero.
func (l *settling) open(offset int64, count int) {
	for l.next < offset {
		l.pending = append(l.pending, 0)
		l.next++
	}
	l.pending = append(l.pending, int32(count))
	l.next++
	l.advance()
}

func (l *settling) settle(offset int64) {
	if i := offset - l.low; i >= 0 && i < int64(len(l.pending)) {
		l.pending[i]--
		if i == 0 {
			l.advance()
		}
	}
}

// settled says whether nothing of a record is unsettled.
func (l *settling) settled(offset int64) bool {
	i := offset - l.low
	return i < 0 || i < int64(len(l.pending)) && l.pending[i] <= 0
}

func (l *settling) advance() {
	n := 0
	for n < len(l.pending) && l.pending[n] <= 0 {
		n++
	}
	l.pending = l.pending[n:]
	l.low += int64(n)
}
