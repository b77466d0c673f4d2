package verdict

import (
	"slices"

	"github.com/linkerhq/linker/standalone/internal/torture/history"
)

const (
	// settleTime is how long after its end a fault explains copies of what is sent
	// then: leases and sessions of the log have run out by then.
	settleTime = 20_000_000 // microseconds
	// knownTime is how long after a message was received without a fault the system
	// has made sure that it never forgets that.
	knownTime = 15_000_000
	// proofTime is how long it may take until the system knows that a socket has what it
	// was sent.
	proofTime = 5_000_000
	// holdTime is how long a receiver's home waits for a message that others have
	// overtaken, and a bit less. What is marked late is older.
	holdTime = 29_000_000
	// thereTime is how long a receiver of a FAST message has to be there at least after
	// it was sent, so that it has to get it; and slowness is how many times as long as
	// the slowest message of the phase was on its way.
	thereTime = 5_000_000
	slowness  = 3
	// ownTime is the same for one of several sockets, each of which gets its own.
	ownTime = 10_000_000
)

// message is what is known of one message.
type message struct {
	from *person
	n    int64
	fast bool

	first, last int64 // lines of the first and the last attempt
	firstAt     int64
	session     int64 // of the first attempt
	phase       *phase
	acceptedAt  int64  // 0: not accepted
	id          string // under which it was accepted, or came first
	sum         string

	confirm   bool
	confirmed bool
	confirmID string
	failed    bool
	refused   bool // for good, at last
	code      string
	givenUp   bool // nobody asks for it any more, so that it may come at any time

	to []recipient
}

// recipient is one receiver of a message.
type recipient struct {
	user   *person
	there  *session   // that was open when the message was sent; nil: none
	others []*session // that were open too: each of them gets a copy of its own
	dead   bool
	copies []arrival
}

// arrival is one copy at a receiver.
type arrival struct {
	session *session
	index   int64 // among what the session got, from 1
	at      int64
}

func (m *message) subject() subject { return subject{m.from.id, m.n} }

func (m *message) recipient(user *person) *recipient {
	for i := range m.to {
		if m.to[i].user == user {
			return &m.to[i]
		}
	}
	return nil
}

// find returns a message; nil: it was never sent.
func (p *person) find(n int64) *message {
	if n < 1 || n > int64(len(p.messages)) {
		return nil
	}
	return p.messages[n-1]
}

// maxNumber bounds the numbers of one sender, so that no mistake in a file takes all
// memory.
const maxNumber = 1 << 26

// messageOf returns the message that an operation is about. One that was never sent is
// a violation.
func (c *check) messageOf(op *history.Op, sender string) *message {
	m := c.person(sender).find(op.N)
	if m == nil {
		c.violated(I6, op.At, subject{sender, op.N}, "%s/%d: %s, and it was never sent", sender, op.N, op.Kind)
	}
	return m
}

func (c *check) sent(op *history.Op, line int64) {
	p := c.person(op.User)
	if op.N > maxNumber {
		c.violated(I6, op.At, subject{op.User, op.N}, "%s/%d: sent under a number of more than %d", op.User, op.N, maxNumber)
		return
	}
	for int64(len(p.messages)) < op.N {
		p.messages = append(p.messages, nil)
	}
	m := p.messages[op.N-1]
	if m == nil {
		m = &message{
			from: p, n: op.N, fast: op.Feature == history.FeatureFast, first: line, firstAt: op.At, session: op.Session,
			phase: c.phase(), sum: op.Sum, confirm: op.Confirm,
		}
		for _, id := range op.To {
			to := recipient{user: c.person(id)}
			if len(to.user.open) > 0 {
				to.there, to.others = to.user.open[0], slices.Clone(to.user.open[1:])
			}
			m.to = append(m.to, to)
		}
		p.messages[op.N-1] = m
	}
	if !op.Again {
		m.last, m.givenUp, m.refused = line, false, false
	}
}

func (c *check) accepted(op *history.Op) {
	m := c.messageOf(op, op.User)
	if m == nil {
		return
	}
	if m.id != "" && op.ID != m.id {
		c.violated(I6, op.At, m.subject(), "%s/%d was accepted as %s, and known as %s before", op.User, op.N, op.ID, m.id)
	}
	if m.acceptedAt != 0 || op.Again {
		return
	}
	m.id, m.acceptedAt = op.ID, op.At
	m.phase.accepted++
	m.phase.accept.add(op.At - m.firstAt)
}

func (c *check) refused(op *history.Op) {
	c.codes[op.Code]++
	if m := c.messageOf(op, op.User); m != nil && !op.Again {
		m.refused, m.code = op.Final, op.Code
	}
}

func (c *check) delivered(op *history.Op) {
	s := c.sessionOf(op)
	s.got++
	receiver := c.person(op.User)
	m := c.messageOf(op, op.From)
	if m == nil {
		return
	}
	r := m.recipient(receiver)
	if r == nil {
		c.violated(I6, op.At, m.subject(), "%s/%d came to %s, to whom it was never sent", op.From, op.N, op.User)
		return
	}
	c.unchanged(op, m)
	if m.id != "" && m.id != op.ID {
		c.violated(I2, op.At, m.subject(), "%s/%d came to %s as %s, and it is known as %s", op.From, op.N, op.User, op.ID, m.id)
		if len(r.copies) > 0 {
			c.report.Counts.TwiceClient++
		}
	}
	if m.id == "" {
		m.id = op.ID
	}
	if m.refused && !m.fast && m.code != "QUEUE_UNAVAILABLE" {
		c.violated(I6, op.At, m.subject(), "%s/%d came to %s although it was refused with %s", op.From, op.N, op.User, m.code)
	}
	if op.Late {
		c.late(op, m)
	}
	if m.fast {
		c.deliveredFast(op, m, r, s)
	} else {
		c.deliveredReliable(op, m, r, s)
	}
	r.copies = append(r.copies, arrival{s, s.got, op.At})
}

// unchanged judges what a message says of itself.
func (c *check) unchanged(op *history.Op, m *message) {
	group := len(m.to) > 1
	switch {
	case op.Note != "":
		c.violated(I5, op.At, m.subject(), "%s/%d came to %s from %s: %s", op.From, op.N, op.User, op.From, op.Note)
	case op.Damaged || op.Sum != m.sum:
		c.violated(I5, op.At, m.subject(), "%s/%d came to %s with the sum %s, sent was %s", op.From, op.N, op.User, op.Sum, m.sum)
	case op.Bound != "" && !(group && op.Bound == "*"):
		c.violated(I5, op.At, m.subject(), "%s/%d came to %s, its content is for %s", op.From, op.N, op.User, op.Bound)
	}
}

// late judges a frame that is marked late.
func (c *check) late(op *history.Op, m *message) {
	c.report.Counts.Late++
	switch {
	case c.faults.moved:
	case c.faults.first == 0:
		c.violated(I4, op.At, m.subject(), "%s/%d came to %s marked late, and nothing had failed", op.From, op.N, op.User)
	case op.At-m.firstAt < holdTime:
		c.violated(I4, op.At, m.subject(), "%s/%d came to %s marked late, and it was only %d ms old", op.From, op.N, op.User, (op.At-m.firstAt)/1000)
	}
}

func (c *check) deliveredReliable(op *history.Op, m *message, r *recipient, s *session) {
	counts := &c.report.Counts
	first := !slices.ContainsFunc(r.copies, func(a arrival) bool { return isCopy(a, s) })
	if len(r.copies) == 0 {
		counts.Delivered++
		if r.there != nil && r.there == s {
			m.phase.endToEnd.add(op.At - m.firstAt)
		}
		c.faults.arrived(r.user, m.firstAt, op.At)
	}
	raw, newer := c.order.take(m, r.user, s, op.Late || !first)
	if raw {
		counts.DisorderRaw++
	}
	if newer != nil {
		counts.DisorderClient++
		c.violated(I4, op.At, m.subject(), "%s/%d came to %s after %d, which was sent later", op.From, op.N, op.User, newer.n)
		c.also(I4, newer.subject())
	}
	if first {
		return
	}
	counts.TwiceRaw++
	if s.client == history.ClientGo && slices.ContainsFunc(r.copies, func(a arrival) bool { return a.session.client == history.ClientGo }) {
		counts.TwiceClient++
		c.violated(I2, op.At, m.subject(), "%s/%d came to %s twice through Go clients with one memory", op.From, op.N, op.User)
		return
	}
	if !c.explained(op, m, r, s) {
		counts.TwiceUnexplained++
		c.violated(I3, op.At, m.subject(), "%s/%d came to %s again, and no fault explains that", op.From, op.N, op.User)
	}
}

// isCopy says whether a message that comes over a session repeats an earlier arrival:
// over the same session, or over one that had ended before, or that was there long before.
// Of two sockets that are open at the same time each gets its own, and a new one also gets
// what the other one has and the system does not know yet to be received.
func isCopy(a arrival, s *session) bool {
	ended := a.session.closed != 0 && a.session.closed <= s.asked
	return a.session == s || ended || a.at+proofTime < s.asked
}

// explained says whether there is a reason for a copy: the system could not know that
// it was received, or something has failed before it could make sure that it does not
// forget.
func (c *check) explained(op *history.Op, m *message, r *recipient, s *session) bool {
	for _, a := range r.copies {
		proved := a.session.closed == 0 || a.index <= a.session.proved
		if isCopy(a, s) && proved && !c.faults.explain(m.firstAt, min(op.At, a.at+knownTime)) {
			return false
		}
	}
	return true
}

func (c *check) deliveredFast(op *history.Op, m *message, r *recipient, s *session) {
	counts := &c.report.Counts
	if len(r.copies) == 0 {
		counts.FastDelivered++
	}
	if slices.ContainsFunc(r.copies, func(a arrival) bool { return isCopy(a, s) }) {
		counts.FastTwice++
		c.violated(I12, op.At, m.subject(), "FAST %s/%d came to %s twice", op.From, op.N, op.User)
		return
	}
	// A Go client is one session over several sockets, and nothing holds a FAST message
	// back while it changes them.
	if newer := c.order.takeFast(m, s); newer != 0 && (s.client != history.ClientGo || c.faults.first == 0) {
		c.violated(I12, op.At, m.subject(), "FAST %s/%d came to %s after %d", op.From, op.N, op.User, newer)
	}
}

func (c *check) confirmed(op *history.Op) {
	c.sessionOf(op).got++
	m := c.messageOf(op, op.User)
	if m == nil {
		return
	}
	switch {
	case !m.confirm:
		c.violated(I8, op.At, m.subject(), "%s/%d was confirmed, and nobody had asked for it", op.User, op.N)
	case !slices.ContainsFunc(m.to, func(r recipient) bool { return len(r.copies) > 0 }):
		c.violated(I8, op.At, m.subject(), "%s/%d was confirmed before it was delivered", op.User, op.N)
	case m.confirmed && m.confirmID != op.ID:
		c.violated(I8, op.At, m.subject(), "%s/%d was confirmed as %s and as %s", op.User, op.N, m.confirmID, op.ID)
	case m.confirmed:
		c.report.Counts.ConfirmedTwice++
	default:
		c.report.Counts.Confirmed++
	}
	m.confirmed, m.confirmID = true, op.ID
}

// account says what became of every message.
func (c *check) account() {
	for _, op := range c.dead {
		c.deadLetter(op)
	}
	for _, id := range sortedIDs(c.people) {
		for _, m := range c.people[id].messages {
			if m == nil {
				continue
			}
			if m.fast {
				c.accountFast(m)
			} else {
				c.accountReliable(m)
			}
		}
	}
}

func (c *check) accountReliable(m *message) {
	counts := &c.report.Counts
	counts.Sent++
	switch {
	case m.acceptedAt != 0:
		counts.Accepted++
	case m.refused:
		counts.Refused++
	default:
		counts.Unknown++
	}
	delivered := false
	for i := range m.to {
		r := &m.to[i]
		delivered = delivered || len(r.copies) > 0
		if m.acceptedAt == 0 {
			continue
		}
		counts.Owed++
		switch {
		case len(r.copies) > 0:
			c.everySocket(m, r)
		case r.dead:
			counts.Dead++
		case m.failed:
			counts.Failed++
		case c.ended:
			counts.Lost++
			c.violated(I1, m.acceptedAt, m.subject(), "%s/%d was accepted as %s and never came to %s", m.from.id, m.n, m.id, r.user.id)
		}
	}
	if c.ended && m.confirm && delivered && !m.confirmed {
		c.violated(I8, m.firstAt, m.subject(), "%s/%d was delivered and never confirmed", m.from.id, m.n)
	}
}

// everySocket judges, as long as nothing has failed, whether each socket that was there
// all the time has got its own.
func (c *check) everySocket(m *message, r *recipient) {
	until := m.firstAt + max(ownTime, slowness*m.phase.endToEnd.max)
	if len(r.others) == 0 || !c.ended || c.faults.first != 0 && until > c.faults.first {
		return
	}
	for _, s := range append([]*session{r.there}, r.others...) {
		if s.whole(m.firstAt, until) && !slices.ContainsFunc(r.copies, func(a arrival) bool { return a.session == s }) {
			c.violated(I1, m.firstAt, m.subject(), "%s/%d came to %s, and not over session %d, which was there too", m.from.id, m.n, r.user.id, s.number)
		}
	}
}

func (c *check) accountFast(m *message) {
	counts := &c.report.Counts
	counts.FastSent++
	until := m.firstAt + max(thereTime, slowness*m.phase.endToEnd.max)
	for i := range m.to {
		r := &m.to[i]
		if len(r.copies) > 0 || m.refused || r.there == nil || !r.there.whole(m.firstAt, until) || !c.ended {
			continue
		}
		counts.FastLost++
		sender := c.session[m.session]
		quiet := c.faults.first == 0 || until < c.faults.first
		if quiet && (sender == nil || sender.whole(m.firstAt, until)) {
			c.violated(I12, m.firstAt, m.subject(), "FAST %s/%d never came to %s, and nothing had failed", m.from.id, m.n, r.user.id)
		}
	}
}
