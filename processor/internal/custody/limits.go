package custody

import (
	"maps"
	"slices"
	"time"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/pkg/wire"
)

// Limits are what may wait in the mailbox.
type Limits struct {
	Rows   int           // for one user; 0: no limit
	Bytes  int64         // of the records of one user; 0: no limit
	Expire time.Duration // how long a message waits at most; 0: for ever

	RoadRows  int   // for one other domain, in one lane; 0: no limit
	RoadBytes int64 // of the records for one other domain, in one lane; 0: no limit
}

// of returns how much may wait for a user, or for a domain.
func (l Limits) of(u *user) (rows int, bytes int64) {
	if u.domain != "" {
		return l.RoadRows, l.RoadBytes
	}
	return l.Rows, l.Bytes
}

const (
	// uncounted is which part of a quota a lane stores for a user before it asks
	// how much waits already: a thousandth.
	uncounted = 1000
	// recountAfter is how old a count may be on which a refusal rests.
	recountAfter = 10 * time.Second
	recountEvery = time.Second            // between two looks for what is to be counted
	recountRow   = 100 * time.Microsecond // what each row adds to the pause between two counts of a road
	maxUsages    = 1 << 14                // users whose counts are kept; then all are asked for anew

	expireAtLeast = time.Second // between two looks for what has expired
	expireAtMost  = time.Minute
	expireRows    = 256 // in one look
)

// usage is what the mailbox holds for a user, as far as this lane knows.
type usage struct {
	rows    int
	bytes   int64
	known   bool      // the rows that earlier owners have stored are counted
	asking  bool      // the store is being asked
	counted time.Time // when it was
	held    []*item   // wait for the answer
}

// Expiration asks for the rows of the lane that were stored before a time.
type Expiration struct {
	Before int64 // Unix seconds
	Limit  int
}

// UsageRead is the result of an entry of Effects.Usages.
type UsageRead struct {
	User  ident.UserID
	Usage mailbox.Usage
}

// RowsExpired is the result of an Expiration.
type RowsExpired struct {
	Expiration Expiration
	Rows       []mailbox.Row
}

func (UsageRead) event()   {}
func (RowsExpired) event() {}

// admit says whether the mailbox may take one more message. If that is not known
// yet, the message is held until it is; if not, its sender is told. What a session
// has, or what is under way to one, is let in: the session's window bounds it.
// Nothing overtakes what is held: whoever reads a mailbox takes it to be in order.
func (s *State) admit(it *item, fx *Effects) bool {
	rows, bytes := s.cfg.Limits.of(it.user)
	if rows == 0 && bytes == 0 || it.pos.Offset < s.cfg.Epoch {
		return true // from before this owner's time: it may be stored already, and counted
	}
	u := s.usage(it.user)
	mostRows, mostBytes := rows, bytes
	if !u.known {
		mostRows, mostBytes = rows/uncounted, bytes/uncounted
	}
	room := (rows == 0 || u.rows < mostRows) && (bytes == 0 || u.bytes+int64(it.size) <= mostBytes)
	if it.user.held == 0 && (room || it.proved || len(it.flights) > 0) {
		u.rows++
		u.bytes += int64(it.size)
		return true
	}
	if it.user.held == 0 && u.known && s.now.Sub(u.counted) < recountAfter {
		s.overflow(it, fx)
		return false
	}
	if !it.held {
		it.held = true
		it.user.held++
		u.held = append(u.held, it)
	}
	s.askUsage(it.user.id, u, fx)
	return false
}

// usage returns what is known of the mailbox of a user, or of a domain.
func (s *State) usage(of *user) *usage {
	u := s.usages[of.id]
	if u == nil {
		if len(s.usages) >= maxUsages {
			maps.DeleteFunc(s.usages, func(id ident.UserID, u *usage) bool { return !u.asking && !isRoad(string(id)) })
		}
		u = &usage{}
		s.usages[of.id] = u
		if of.domain != "" {
			s.roadUsage[of.id] = u
		}
	}
	return u
}

func (s *State) askUsage(id ident.UserID, u *usage, fx *Effects) {
	if !u.asking {
		u.asking = true
		fx.Usages = append(fx.Usages, id)
	}
}

// usageRead goes on with what was held until the count was there.
func (s *State) usageRead(e *UsageRead, fx *Effects) {
	u := s.usages[e.User]
	if u == nil || !u.asking {
		return
	}
	// What this round gives to the store is not counted there yet, what was given
	// before is: writes come before reads.
	u.rows, u.bytes = e.Usage.Rows, e.Usage.Bytes
	u.known, u.asking, u.counted = true, false, s.now
	held := u.held
	u.held = nil
	slices.SortFunc(held, func(a, b *item) int { return a.pos.Compare(b.pos) })
	for _, it := range held {
		it.held = false
		it.user.held--
	}
	for _, it := range held {
		if it.inLog {
			s.store(it, fx)
		}
		s.release(it)
	}
}

// recount asks anew how much waits for other domains. A count that was under way while
// rows came and went is a little off, and those who watch it want to see 0 in the end.
func (s *State) recount(fx *Effects) {
	if s.now.Sub(s.recounted) < recountEvery {
		return
	}
	s.recounted = s.now
	for id, waits := range s.roadUsage { // a road may be forgotten, what waits for it may not
		pause := recountAfter + time.Duration(waits.rows)*recountRow
		if waits.known && waits.rows > 0 && s.now.Sub(waits.counted) >= pause {
			s.askUsage(id, waits, fx)
		}
	}
}

// removed notes that a row of about so many bytes is being deleted.
func (s *State) removed(user ident.UserID, size int) {
	if u := s.usages[user]; u != nil {
		u.rows = max(u.rows-1, 0)
		u.bytes = max(u.bytes-int64(size), 0)
	}
}

// overflow refuses a message for which the mailbox has no room.
func (s *State) overflow(it *item, fx *Effects) {
	text := "the mailbox of " + string(it.user.id) + " is full"
	if it.user.domain != "" {
		text = "too many messages wait for the road to " + it.user.domain
	}
	s.deadLetter(it, wire.CodeMailboxFull, text, fx)
}

// deadLetter gives an item to the dead letters and tells its sender.
func (s *State) deadLetter(it *item, code wire.Code, text string, fx *Effects) {
	offset := int64(noOffset)
	if it.inLog { // the burial settles the record
		offset, it.inLog = it.pos.Offset, false
		s.logged -= it.size
	}
	fx.Bury = append(fx.Bury, Burial{Offset: offset, User: it.env.User(), Record: it.record(), Reason: string(code)})
	if it.env.Kind == envelope.KindMessage {
		s.fail(it.env, wire.Failure{Code: code, Message: text, Reference: it.env.Reference}, fx)
	}
	s.refused(it.user.id, it.env)
	it.confirm = confirmed
	s.release(it)
}

// refused lets the sender, or an operator, try again under the same id.
func (s *State) refused(user ident.UserID, e *envelope.Envelope) {
	if e.Remember && !isRoad(string(user)) {
		s.windows.ForgetID(user, e.ID)
	}
}

// buried ends the custody of what a dead letter holds now. The sender of a message that has
// waited too long hears of it only here: what it then sends under the same id would be
// mixed up with the row before, which is deleted behind the dead letter.
func (s *State) buried(b Burial, fx *Effects) {
	s.log.settle(b.Offset)
	if b.Reason != string(wire.CodeExpired) {
		return
	}
	env, err := envelope.Decode(b.Record)
	if err != nil {
		return // it could be decoded when it expired
	}
	s.refused(b.User, &env)
	if env.Kind == envelope.KindMessage {
		s.fail(&env, wire.Failure{
			Code: wire.CodeExpired, Message: "message to " + string(env.User()) + " has waited too long", Reference: env.Reference,
		}, fx)
	}
}

// touch notes, while rows that have expired are being read, that one of them may
// have got its proof since.
func (s *State) touch(k mailbox.Key) {
	if s.expiring {
		s.touched[k] = true
	}
}

// expire looks for rows that have waited too long.
func (s *State) expire(fx *Effects) {
	wait := s.cfg.Limits.Expire
	if wait == 0 || !s.started || s.expiring || s.now.Before(s.expireAt) {
		return
	}
	s.expiring = true
	fx.Expirations = append(fx.Expirations, Expiration{Before: s.now.Add(-wait).Unix(), Limit: expireRows})
}

// rowsExpired makes dead letters of the rows that have waited too long. Rows that are
// on their way to a session are left alone: they are looked at again.
func (s *State) rowsExpired(e *RowsExpired, fx *Effects) {
	s.expiring = false
	ended := 0
	for i := range e.Rows {
		row := &e.Rows[i]
		u := s.users[ident.UserID(row.To)]
		key := mailbox.Key{To: row.To, Pos: row.Pos, ID: row.ID}
		if isHold(row.To) || s.touched[key] || u != nil && (u.reads > 0 || u.items.find(row.Pos) != nil) {
			continue
		}
		ended++
		s.removed(ident.UserID(row.To), len(row.Record))
		fx.Delete = append(fx.Delete, key)
		if row.Proved {
			continue
		}
		reason := string(wire.CodeExpired)
		env, err := envelope.Decode(row.Record)
		switch {
		case err != nil:
			reason = reasonUndecodable
		case !env.Kind.Deliverable():
			continue // windows, which are no message
		}
		s.metrics.expired.Inc()
		fx.Bury = append(fx.Bury, Burial{Offset: noOffset, User: ident.UserID(row.To), Record: row.Record, Reason: reason})
	}
	clear(s.touched)
	if len(e.Rows) < e.Expiration.Limit || ended == 0 {
		s.expireAt = s.now.Add(min(max(s.cfg.Limits.Expire/10, expireAtLeast), expireAtMost))
	}
}
