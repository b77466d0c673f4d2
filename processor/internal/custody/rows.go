package custody

import (
	"github.com/linkerhq/linker/pkg/delivery"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/pkg/wire"
)

// reasonUndecodable is why a row becomes a dead letter that no program of this
// version can read.
const reasonUndecodable = "UNDECODABLE"

// noOffset marks a burial that settles nothing in the log.
const noOffset = -1

func (s *State) read(r Read, u *user, fx *Effects) uint64 {
	s.serial++
	r.Serial = s.serial
	u.reads++
	fx.Reads = append(fx.Reads, r)
	return r.Serial
}

func (s *State) count(c Count, u *user, fx *Effects) uint64 {
	s.serial++
	c.Serial, c.round, c.held = s.serial, fx.round, u.heldIn(c.Query)
	u.reads++
	fx.Counts = append(fx.Counts, c)
	return c.Serial
}

// heldIn counts the messages that a query would select if they were stored.
func (u *user) heldIn(q mailbox.Query) int {
	n := 0
	if u.held > 0 {
		for _, it := range u.items.all() {
			if it.held && q.After.Before(it.pos) && (q.Before == (envelope.Position{}) || it.pos.Before(q.Before)) {
				n++
			}
		}
	}
	return n
}

// catchUp serves targets that are behind and can take more.
func (s *State) catchUp(fx *Effects) {
	if !s.started {
		return // records that lie before stored rows may not have been read yet
	}
	for t := range s.catching {
		if s.pauses(t.user) {
			continue
		}
		delete(s.catching, t)
		sn := t.leastBusy()
		if !t.behind || t.reading != 0 || sn == nil || !sn.halfEmpty() {
			continue
		}
		bytes, _ := sn.window()
		t.overtake = t.user.stored + uint64(t.user.storing) // the read shows what was asked for before it
		t.reading = s.read(Read{
			Purpose: ForTarget,
			Session: sn.id,
			Query:   mailbox.Query{To: string(t.user.id), After: t.cursor, Limit: pageRows, MaxBytes: bytes - sn.bytes},
		}, t.user, fx)
	}
}

// rowsRead takes a page of the mailbox.
func (s *State) rowsRead(e *RowsRead, fx *Effects) {
	if e.Read.Purpose == ForMove {
		s.moveRows(e, fx)
		return
	}
	u := s.users[ident.UserID(e.Read.Query.To)]
	switch e.Read.Purpose {
	case ForTarget:
		if t := u.reader(e.Read.Serial); t != nil {
			t.reading = 0
			s.targetRows(t, e, fx)
		}
	case ForFetch:
		if sn := s.sessions[e.Read.Session]; sn != nil && sn.fetch != nil && sn.fetch.reading == e.Read.Serial {
			sn.fetch.reading = 0
			s.fetchRows(sn, e, fx)
		}
	case ForProof:
		s.proofRow(u, e, fx)
	}
	s.readEnded(u)
}

// reader finds the target whose read this is, if it still waits for it.
func (u *user) reader(serial uint64) *target {
	for _, t := range u.targets {
		if t.reading == serial {
			return t
		}
	}
	return nil
}

// targetRows sends rows that a target is owed, in order, as far as it has room,
// and makes it live again when nothing waits behind them.
func (s *State) targetRows(t *target, e *RowsRead, fx *Effects) {
	for i := range e.Rows {
		row := &e.Rows[i]
		if !t.cursor.Before(row.Pos) {
			continue
		}
		sn := t.roomiest()
		if sn == nil {
			return // goes on with the next proof
		}
		landed := t.sent(row.Pos)
		it := s.fromRow(t.user, row, fx)
		t.cursor = row.Pos
		switch {
		case it == nil || it.deleted || it.inFlightTo(t) || t.user.one && it.proved:
		case landed: // proved while the lane had no owner
			it.proved = true
			s.finish(it, fx)
		default:
			s.send(sn, it, false, fx)
		}
	}
	if e.More || t.user.stored > t.overtake {
		s.catching[t] = true
		return
	}
	// All that the mailbox had is sent. What it is taking just now, or may take, is
	// in memory.
	if t.user.storing+t.user.held > 0 {
		for _, it := range t.user.inOrder() {
			if it.env == nil || it.deleted || t.sent(it.pos) || it.inFlightTo(t) || t.user.one && it.proved {
				continue
			}
			sn := t.roomiest()
			if sn == nil {
				return // goes on with the next proof
			}
			s.send(sn, it, false, fx)
			t.cursor = it.pos
		}
	}
	s.setBehind(t, false)
}

// fromRow returns the item of a row, which may be in memory already.
func (s *State) fromRow(u *user, row *mailbox.Row, fx *Effects) *item {
	it := u.items.find(row.Pos)
	if it != nil && it.env != nil {
		if !it.stored && !it.storing && !it.deleted { // an earlier owner has stored it
			it.stored, it.marked = true, row.Proved
			s.settle(it)
		}
		return it
	}
	env, err := envelope.Decode(row.Record)
	if err != nil {
		s.metrics.undecodable.Inc()
		fx.Bury = append(fx.Bury, Burial{Offset: noOffset, User: u.id, Record: row.Record, Reason: reasonUndecodable})
		fx.Delete = append(fx.Delete, mailbox.Key{To: row.To, Pos: row.Pos, ID: row.ID})
		return nil
	}
	if it == nil {
		it = &item{user: u, pos: row.Pos, id: row.ID, size: size(&env), taken: s.now}
		s.hold(it)
	}
	it.env, it.stored = &env, true
	s.held += it.size - it.kept
	it.kept = it.size
	it.proved = it.proved || row.Proved
	it.marked = it.marked || row.Proved
	if it.confirm == unconfirmed && (row.Proved || !env.Confirm || u.domain != "") {
		it.confirm = confirmed
	}
	return it
}

func (it *item) inFlightTo(t *target) bool {
	for _, sn := range it.flights {
		if sn.target == t {
			return true
		}
	}
	return false
}

// readForProof fetches the record of a delivery that an earlier owner has sent:
// only the mailbox, or the log behind the lane's position, still has it.
func (s *State) readForProof(it *item, fx *Effects) {
	if it.asking {
		return
	}
	it.asking = true
	after, before := it.pos, it.pos
	after.Offset--
	before.Offset++
	s.read(Read{Purpose: ForProof, Query: mailbox.Query{To: string(it.user.id), After: after, Before: before, Limit: 1}}, it.user, fx)
}

func (s *State) proofRow(u *user, e *RowsRead, fx *Effects) {
	pos := e.Read.Query.Before
	pos.Offset--
	it := u.items.find(pos)
	if it == nil || !it.asking {
		return
	}
	it.asking = false
	if len(e.Rows) > 0 {
		s.fromRow(u, &e.Rows[0], fx)
	}
	if it.env != nil && it.proved {
		s.finish(it, fx)
	}
	s.release(it)
}

// fetchAsked begins a fetch, or lets it wait for the one before it.
func (s *State) fetchAsked(offset int64, e *envelope.Envelope, fx *Effects) {
	if offset < s.cfg.Epoch {
		return
	}
	sn := s.sessions[e.Session]
	if sn == nil || sn.target == nil || sn.user.id != e.User() || e.Request <= sn.asked {
		return
	}
	sn.asked = e.Request
	sn.fetches = append(sn.fetches, &fetch{request: e.Request, left: max(1, min(e.Count, wire.MaxFetchCount))})
	s.nextFetch(sn, fx)
}

func (s *State) nextFetch(sn *session, fx *Effects) {
	if sn.fetch != nil || len(sn.fetches) == 0 {
		return
	}
	sn.fetch, sn.fetches = sn.fetches[0], sn.fetches[1:]
	s.occupied(sn)
	sn.fetch.until = s.now.Add(FetchWait)
	s.serveFetch(sn, fx)
}

// serveFetch takes a fetch one step further, if it can: wait for what lies below
// its bound, read and send page by page as the window allows, count what is left.
func (s *State) serveFetch(sn *session, fx *Effects) {
	f := sn.fetch
	if f == nil || f.reading != 0 {
		return
	}
	query := mailbox.Query{To: string(sn.user.id), After: f.cursor, Before: sn.target.l, Unproved: true}
	if query.Before == (envelope.Position{}) {
		s.fetchDone(sn, 0, fx) // everything is pushed
		return
	}
	if !f.started && (s.now.Before(f.until) && sn.user.unsettledBefore(query.Before) || sn.user.heldIn(query) > 0) {
		return // what is held waits for an answer of the store, as this fetch would
	}
	f.started = true
	if f.finished {
		f.reading = s.count(Count{Purpose: ForFetch, Session: sn.id, Query: query}, sn.user, fx)
		return
	}
	if !sn.halfEmpty() {
		return
	}
	query.Limit, query.MaxBytes = min(f.left, pageRows), WindowBytes-sn.bytes
	f.reading = s.read(Read{Purpose: ForFetch, Session: sn.id, Query: query}, sn.user, fx)
}

// unsettledBefore says whether a record below the position is neither proved nor
// stored yet.
func (u *user) unsettledBefore(l envelope.Position) bool {
	for _, it := range u.items.all() {
		if !it.pos.Before(l) {
			return false
		}
		if it.inLog {
			return true
		}
	}
	return false
}

// fetchRows sends a page of stored rows to the session that asked.
func (s *State) fetchRows(sn *session, e *RowsRead, fx *Effects) {
	f, full := sn.fetch, false
	for i := range e.Rows {
		row := &e.Rows[i]
		if f.left == 0 || !sn.room() {
			full = true
			break
		}
		it := s.fromRow(sn.user, row, fx)
		if it != nil && !it.deleted && !it.proved && !s.claimed(it, sn) {
			s.send(sn, it, true, fx)
			f.left--
		}
		f.cursor = row.Pos
	}
	if f.left == 0 || !e.More && !full {
		f.finished = true
	}
	s.serveFetch(sn, fx)
}

// claimed says whether a stored row is on its way to somebody, so that a fetch
// by sn passes it over: to sn itself; or to another session, for a while, since
// that may never prove receipt.
func (s *State) claimed(it *item, sn *session) bool {
	for _, other := range it.flights {
		if other == sn {
			return true
		}
		for _, f := range other.flights.all() {
			if f.item == it && s.now.Sub(f.since) < ClaimFor {
				return true
			}
		}
	}
	return false
}

// counted takes the number of stored rows.
func (s *State) counted(e *Counted, fx *Effects) {
	u := s.users[ident.UserID(e.Count.Query.To)]
	sn := s.sessions[e.Count.Session]
	if t := u.reader(e.Count.Serial); t != nil {
		t.reading = 0
		s.catching[t] = true
	}
	switch {
	case sn == nil || sn.target == nil:
	case e.Count.Purpose == ForHint:
		n := e.N + e.Count.held
		if !sn.features.Has(envelope.FeaturePush) { // to whom some of them may be on their way already
			n -= s.claimedIn(sn, e)
		}
		if n > 0 {
			s.instruct(sn, delivery.Item{Kind: delivery.KindFrame, Frame: wire.AppendMissingAvailable(nil, n)}, fx)
		}
	case sn.fetch != nil && sn.fetch.reading == e.Count.Serial:
		s.fetchDone(sn, e.N+e.Count.held-s.claimedIn(sn, e), fx)
	}
	s.readEnded(u)
}

// claimedIn counts the rows of a count that nobody can fetch any more: they are on
// their way to somebody, or proved, or were deleted after they had been counted.
func (s *State) claimedIn(sn *session, e *Counted) int {
	c, asOf, n := &e.Count, max(e.AsOf, e.Count.round), 0
	for _, it := range sn.user.items.all() {
		if !it.stored || it.marked || !c.Query.After.Before(it.pos) || !it.pos.Before(c.Query.Before) {
			continue
		}
		if it.deleted && it.leaving > asOf || !it.deleted && (it.proved || s.claimed(it, sn)) {
			n++
		}
	}
	return n
}

// fetchDone ends a fetch; behind all it has sent goes the frame that says so.
func (s *State) fetchDone(sn *session, left int, fx *Effects) {
	request := sn.fetch.request
	sn.fetch = nil
	s.instruct(sn, delivery.Item{Kind: delivery.KindFrame, Token: request, Frame: wire.AppendFetchComplete(nil, max(left, 0))}, fx)
	s.nextFetch(sn, fx)
}
