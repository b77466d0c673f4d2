package custody

import (
	"maps"
	"slices"
	"time"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/pkg/route"
)

// When users move to another domain, what waits for them here is sent after them, in
// order, and then what their streams have brought, so that their new home knows
// duplicates and gaps. The same is done for what waits for a domain to which it need
// not, or cannot, go any more. Each row is written into the lane once more, where it
// takes the way of any other record; when the log has that, the row is deleted.
type moving struct {
	due     bool      // rows may be in the wrong place
	again   time.Time // not looked for before it
	listing bool
	queue   []string // targets to look at
	current string   // the one that is being worked on; empty: none
	reading bool
	cursor  envelope.Position     // in it
	more    bool                  // there are rows behind the cursor
	left    map[mailbox.Key]int   // bytes of those that are on their way
	changed bool                  // the network has changed in this owner's time
	version uint64                // to this one
	told    map[ident.UserID]bool // whose windows were sent
}

const (
	listTargets = 512
	// maxWindows is how many windows fit a record with certainty.
	maxWindows = 40
)

// lookForMoved notes that a row was stored that may not belong here.
func (s *State) lookForMoved(u *user) {
	if u.domain == "" && !s.moving.due && route.Way(u.id, s.cfg.Domain, s.network).Verdict == route.Elsewhere {
		s.moving.due = true
	}
}

// move takes the moving of rows one step further.
func (s *State) move(fx *Effects) {
	m := &s.moving
	switch {
	case !s.started || m.listing || m.reading || len(m.left) > 0:
	case m.current != "" && m.more:
		s.readMoving(fx)
	case m.current != "":
		if !isRoad(m.current) {
			s.sendWindows(ident.UserID(m.current), fx)
		}
		m.current = ""
	case len(m.queue) > 0:
		m.current, m.queue = m.queue[0], m.queue[1:]
		m.cursor, m.more = envelope.Position{}, true
		s.readMoving(fx)
	case m.due && !s.now.Before(m.again):
		m.due, m.listing = false, true
		s.moveWithoutRows(fx)
		m.again = s.now.Add(moveAgain)
		fx.Lists = append(fx.Lists, List{Limit: listTargets})
	}
}

// begin begins anew with the network of another version. Rows that have stayed, because their
// user was to come back, may have to go after all, and before its windows.
func (m *moving) begin(version uint64) {
	m.due, m.changed, m.version, m.told = true, true, version, nil
	m.queue, m.current = nil, ""
}

// targetsListed picks the targets whose rows may be in the wrong place.
func (s *State) targetsListed(e *TargetsListed, fx *Effects) {
	m := &s.moving
	for _, target := range e.Targets {
		if s.misplaced(target) && !slices.Contains(m.queue, target) {
			m.queue = append(m.queue, target)
		}
	}
	if len(e.Targets) == e.List.Limit {
		fx.Lists = append(fx.Lists, List{After: e.Targets[len(e.Targets)-1], Limit: listTargets})
		return
	}
	m.listing = false
	s.move(fx)
}

// misplaced says whether rows of a target may have to go elsewhere.
func (s *State) misplaced(target string) bool {
	switch {
	case isHold(target):
		return false
	case isRoad(target):
		domain := roadDomain(target)
		_, open := s.ways[domain]
		return !open && (s.moving.changed || !s.network.Joined(s.cfg.Domain, domain) || domain == s.cfg.Domain)
	}
	return route.Way(ident.UserID(target), s.cfg.Domain, s.network).Verdict == route.Elsewhere
}

func (s *State) readMoving(fx *Effects) {
	m := &s.moving
	m.reading = true
	fx.Reads = append(fx.Reads, Read{Purpose: ForMove, Query: mailbox.Query{To: m.current, After: m.cursor, Limit: moveRows, MaxBytes: RoadBytes}})
}

// moveRows writes a page of rows into the lane again.
func (s *State) moveRows(e *RowsRead, fx *Effects) {
	m := &s.moving
	m.reading = false
	if m.current != e.Read.Query.To {
		return // it was begun anew since
	}
	m.more = e.More
	if !s.misplaced(m.current) || s.busyHere(ident.UserID(m.current)) {
		// It belongs here after all, or somebody is served from it, and is about to go.
		m.due = m.due || s.misplaced(m.current)
		m.current = ""
		return
	}
	for i := range e.Rows {
		row := &e.Rows[i]
		m.cursor = row.Pos
		if row.Proved {
			continue
		}
		env, err := envelope.Decode(row.Record)
		if err != nil || isRoad(m.current) && s.stays(&env, roadDomain(m.current)) {
			continue
		}
		key := mailbox.Key{To: row.To, Pos: row.Pos, ID: row.ID}
		token := Token{Stands: key}
		if !isRoad(m.current) { // its row is looked at when the record is read
			env.Moved, env.Released, token = true, true, Token{}
		}
		if m.left == nil {
			m.left = map[mailbox.Key]int{}
		}
		m.left[key] = len(row.Record)
		s.metrics.moved.Inc()
		s.noteMove(row, &env)
		fx.Produce = append(fx.Produce, Produce{Envelope: env, Token: token})
	}
	s.move(fx)
}

// busyHere says whether something is under way between a target's mailbox and somebody.
func (s *State) busyHere(target ident.UserID) bool {
	u := s.users[target]
	return u != nil && (len(u.targets) > 0 || u.items.len() > 0 || u.storing > 0)
}

// stays says whether all receivers of a record are at home in the domain that it waits
// for.
func (s *State) stays(e *envelope.Envelope, domain string) bool {
	return !slices.ContainsFunc(e.To, func(to envelope.Recipient) bool {
		d := s.decide(e, to.User)
		return d.Verdict != route.Elsewhere || d.Domain != domain
	})
}

// leaves is asked when a record is read that this lane has made of a user's row. It says
// whether the record is the one to go on with: where the user has come back meanwhile, its
// row stays instead.
func (s *State) leaves(offset int64, e *envelope.Envelope, to envelope.Recipient, d route.Decision, fx *Effects) bool {
	for key := range s.moving.left {
		if key.To != string(to.User) || key.ID != e.ID {
			continue
		}
		if d.Verdict != route.Elsewhere {
			delete(s.moving.left, key)
			return false
		}
		s.movedAway(key, fx)
		return true
	}
	if e.Stream != 0 { // an earlier owner has made it, and has perhaps deleted the row
		s.windows.PutBack(to.User, e.Stream, to.N, offset)
	}
	return true
}

// movedAway notes that the log has what a row held.
func (s *State) movedAway(key mailbox.Key, fx *Effects) {
	s.removed(ident.UserID(key.To), s.moving.left[key])
	delete(s.moving.left, key)
	fx.Delete = append(fx.Delete, key)
	s.move(fx)
}

// moveWithoutRows sends the windows of users who have moved and for whom nothing waits.
// Those for whom something does are sent theirs behind it.
func (s *State) moveWithoutRows(fx *Effects) {
	if !s.moving.changed {
		return
	}
	for user := range s.windows.Users() {
		if route.Way(user, s.cfg.Domain, s.network).Verdict == route.Elsewhere {
			s.moving.queue = append(s.moving.queue, string(user))
		}
	}
}

// sendWindows writes records of a user's windows into the lane, for its new home. What they
// hold is looked up again when they are read: behind the rows that are on their way, which
// count as missing then. All that they count as taken has reached the user.
func (s *State) sendWindows(user ident.UserID, fx *Effects) {
	if s.moving.told[user] {
		return
	}
	if s.moving.told == nil {
		s.moving.told = map[ident.UserID]bool{}
	}
	s.moving.told[user] = true
	windows := s.windows.Of(user)
	streams := slices.Sorted(maps.Keys(windows))
	for {
		n := min(len(streams), maxWindows)
		w := envelope.Windows{Last: n == len(streams)}
		for _, stream := range streams[:n] {
			w.Streams = append(w.Streams, envelope.StreamWindow{Stream: stream, High: windows[stream].High, Missing: windows[stream].Missing})
		}
		fx.Produce = append(fx.Produce, Produce{Envelope: envelope.Envelope{
			Kind: envelope.KindWindows, From: user, To: []envelope.Recipient{{User: user}}, CreatedAt: s.now.UnixMilli(),
			Moved: true, Network: s.network.Version, Frame: w.Append(nil),
		}})
		streams = streams[n:]
		if len(streams) == 0 {
			return
		}
	}
}

// present encodes the windows that a record names as they are now.
func (s *State) present(e *envelope.Envelope) []byte {
	w, err := envelope.DecodeWindows(e.Frame)
	if err != nil {
		return e.Frame // the new home counts it
	}
	windows := s.windows.Of(e.User())
	for i := range w.Streams {
		win := windows[w.Streams[i].Stream]
		w.Streams[i].High, w.Streams[i].Missing = win.High, win.Missing
	}
	return w.Append(nil)
}

// windowsArrived takes over what the former home of a user knows of its streams.
func (s *State) windowsArrived(offset int64, e *envelope.Envelope, user ident.UserID, fx *Effects) {
	s.log.settle(offset)
	s.mergeWindows(offset, e, user)
	s.recheck(user, fx)
}

// mergeWindows adds what a record says of a user's streams, if it comes from a former home
// of the user. What this domain has said itself, before the user came back, is not news, and
// may not hold any more. Without it messages may wait longer, and copies are not recognised.
func (s *State) mergeWindows(offset int64, e *envelope.Envelope, user ident.UserID) {
	if len(e.Path) == 0 || e.Path[0] == s.cfg.Domain || !s.movedFrom(user, e.Path[0]) {
		return
	}
	w, err := envelope.DecodeWindows(e.Frame)
	if err != nil {
		s.metrics.undecodable.Inc()
		return
	}
	for _, win := range w.Streams {
		s.windows.Merge(user, win.Stream, mailbox.Window{High: win.High, Missing: win.Missing}, offset, s.now)
	}
	if w.Last {
		s.arrived[arrival{user, e.Path[0]}] = true
	}
}
