// Package verdict judges a run of linker-torture from its history, and from nothing
// else: which promises were broken, what became of all messages, and how long things
// took.
//
// It reads the file once, and a second time for the events of what went wrong. It
// keeps about 200 bytes for each message.
package verdict

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/linkerhq/linker/standalone/internal/torture/history"
)

const (
	maxTold   = 5  // violations of one invariant that are told in full
	maxEvents = 40 // lines that are told of one
)

// Check judges the history in a file.
func Check(path string) (*Report, error) {
	c := newCheck()
	torn, err := each(path, c.apply)
	if err != nil {
		return nil, err
	}
	r := c.finish()
	r.Torn = torn
	if len(r.Violations) > 0 {
		if err := addEvents(path, r.Violations); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// each reads all operations of a file, and says whether it ended in the middle of one.
func each(path string, apply func(op *history.Op, r *history.Reader)) (torn bool, err error) {
	file, err := os.Open(path)
	if err != nil {
		return false, fmt.Errorf("open the history: %w", err)
	}
	defer file.Close()
	r := history.NewReader(file)
	for {
		op, err := r.Next()
		if errors.Is(err, io.EOF) {
			if r.Number() == 0 {
				return false, fmt.Errorf("read %s: it is empty, expected a history", path)
			}
			return r.Torn(), nil
		}
		if err != nil {
			return false, fmt.Errorf("read %s: %w", path, err)
		}
		apply(&op, r)
	}
}

// addEvents finds the last lines about what went wrong.
func addEvents(path string, violations []Violation) error {
	about := map[subject][]int{}
	for i, v := range violations {
		for _, s := range v.subjects {
			about[s] = append(about[s], i)
		}
	}
	add := func(s subject, line []byte) {
		for _, i := range about[s] {
			v := &violations[i]
			if len(v.Events) == maxEvents {
				v.Events = slices.Delete(v.Events, 0, 1)
			}
			v.Events = append(v.Events, json.RawMessage(bytes.Clone(line)))
		}
	}
	_, err := each(path, func(op *history.Op, r *history.Reader) {
		switch op.Kind {
		case history.KindDelivered:
			add(subject{op.From, op.N}, r.Line())
		case history.KindSend, history.KindAccepted, history.KindRefused, history.KindUnknown, history.KindFailed, history.KindConfirmed:
			add(subject{op.User, op.N}, r.Line())
		case history.KindOpen, history.KindClose, history.KindUser, history.KindStrange, history.KindLeft, history.KindWhereabouts:
			add(subject{op.User, 0}, r.Line())
		case history.KindPresence:
			add(subject{op.About, 0}, r.Line())
		default:
		}
	})
	return err
}

// check is the state of a judgement.
type check struct {
	report  *Report
	people  map[string]*person
	session map[int64]*session
	ended   bool // PhaseEnd was reached

	faults  faults
	phases  []*phase
	order   order
	offsets map[lane]int64
	warm    map[string]history.Process
	end     map[string]history.Process
	dead    []history.Op
	seen    map[string]bool // of whom the system has said that they have sockets; empty: it was not asked

	codes   map[string]int64
	offline distribution
	lasted  int64 // microseconds
}

// phase collects what was sent in a phase.
type phase struct {
	name             string
	begin            int64
	accepted         int64
	accept, endToEnd distribution
}

func newCheck() *check {
	return &check{
		report: &Report{Broken: map[Invariant]int64{}},
		people: map[string]*person{}, session: map[int64]*session{},
		faults: newFaults(), phases: []*phase{{name: "before"}}, order: newOrder(), offsets: map[lane]int64{},
		seen: map[string]bool{}, warm: map[string]history.Process{}, end: map[string]history.Process{}, codes: map[string]int64{},
	}
}

// also makes the violation noted last tell of something else as well.
func (c *check) also(i Invariant, s subject) {
	if c.report.Broken[i] <= maxTold {
		v := &c.report.Violations[len(c.report.Violations)-1]
		v.subjects = append(v.subjects, s)
	}
}

// violated notes that a promise was not kept.
func (c *check) violated(i Invariant, at int64, s subject, format string, args ...any) {
	c.report.Broken[i]++
	if c.report.Broken[i] <= maxTold {
		c.report.Violations = append(c.report.Violations, Violation{
			Invariant: i, At: micros(at), Text: fmt.Sprintf(format, args...), subjects: []subject{s},
		})
	}
}

// person is a user.
type person struct {
	id     string
	role   string
	domain string
	steady bool

	messages []*message // sent; the n-th at n-1; nil: not sent
	open     []*session // oldest first
	tried    int64      // when it logged in last
	online   presence
}

// session is a login of one socket, or a Go client.
type session struct {
	number int64
	user   *person
	client string
	push   bool
	url    string
	asked  int64
	opened int64
	closed int64 // 0: it is open
	proved int64 // of what came, when it was closed
	got    int64 // frames that want proof
}

// whole says whether the session lasted from one moment to another.
func (s *session) whole(from, to int64) bool {
	return s.opened <= from && (s.closed == 0 || s.closed > to)
}

func (c *check) person(id string) *person {
	p := c.people[id]
	if p == nil {
		p = &person{id: id}
		c.people[id] = p
	}
	return p
}

// sessionOf returns the session of an operation, which may not have been opened yet:
// then nothing can be said of its beginning.
func (c *check) sessionOf(op *history.Op) *session {
	s := c.session[op.Session]
	if s == nil {
		s = &session{number: op.Session, user: c.person(op.User), asked: op.At, opened: op.At, push: true}
		c.session[op.Session] = s
	}
	return s
}

func (c *check) apply(op *history.Op, r *history.Reader) {
	c.report.Operations++
	c.lasted = op.At
	if !c.ended {
		c.faults.look(c, op.At)
	}
	line := r.Number()
	switch op.Kind {
	case history.KindRun:
		c.report.Run = *op.Run
	case history.KindUser:
		p := c.person(op.User)
		p.role, p.domain, p.steady = op.Role, op.Domain, op.Steady
	case history.KindOpen:
		c.opened(op)
	case history.KindClose:
		c.closed(op)
	case history.KindSend:
		c.sent(op, line)
	case history.KindAccepted:
		c.accepted(op)
	case history.KindRefused:
		c.refused(op)
	case history.KindUnknown:
		if m := c.messageOf(op, op.User); m != nil {
			m.givenUp = m.givenUp || op.Final
		}
	case history.KindFailed:
		c.codes[op.Code]++
		if m := c.messageOf(op, op.User); m != nil {
			m.failed = true
		}
	case history.KindDelivered:
		c.delivered(op)
	case history.KindConfirmed:
		c.confirmed(op)
	case history.KindPresence:
		c.presence(op)
	case history.KindStrange:
		c.violated(Protocol, op.At, subject{user: op.User}, "%s got %s", op.User, op.Note)
	case history.KindLeft:
		if op.Count > 0 {
			c.violated(I7, op.At, subject{user: op.User}, "%d messages are left for %s after it has fetched everything", op.Count, op.User)
		}
	case history.KindPhase:
		c.began(op)
	case history.KindFault:
		c.fault(op)
	case history.KindSample:
	case history.KindProcess, history.KindMailbox, history.KindDead, history.KindWhereabouts, history.KindOffset, history.KindLog:
		c.observed(op)
	default:
	}
}

func (c *check) began(op *history.Op) {
	if op.Name == history.PhaseEnd && !c.ended {
		c.ended = true
		c.closing(op.At)
	}
	c.phases = append(c.phases, &phase{name: op.Name, begin: op.At})
}

func (c *check) phase() *phase { return c.phases[len(c.phases)-1] }

func (c *check) opened(op *history.Op) {
	s := c.sessionOf(op)
	s.client, s.url, s.asked, s.opened = op.Client, op.URL, op.Asked, op.At
	s.push = slices.Contains(op.Features, "push")
	s.user.open = append(s.user.open, s)
	s.user.tried = op.Asked
	c.report.Counts.Sockets++
}

func (c *check) closed(op *history.Op) {
	s := c.sessionOf(op)
	s.closed, s.proved = op.At, op.Proved
	s.user.open = slices.DeleteFunc(s.user.open, func(other *session) bool { return other == s })
	if op.Broken && !c.ended {
		c.report.Counts.Broken++
	}
	c.order.forget(s)
}

// finish says what can be said only when everything is known.
func (c *check) finish() *Report {
	r := c.report
	r.Complete, r.Lasted = c.ended, micros(c.lasted)
	c.account()
	if c.ended {
		c.compareProcesses()
	}
	for i, p := range c.phases {
		end := c.lasted
		if i+1 < len(c.phases) {
			end = c.phases[i+1].begin
		}
		if p.accepted == 0 && p.name == c.phases[0].name {
			continue
		}
		r.Phases = append(r.Phases, PhaseTimes{
			Phase: p.name, Seconds: float64(end-p.begin) / 1e6, Accepted: p.accepted, Accept: p.accept.times(), EndToEnd: p.endToEnd.times(),
		})
	}
	r.Faults, r.Counts.Faults = c.faults.times(), c.faults.count
	r.Offline, r.Codes = c.offline.times(), c.codes
	slices.SortStableFunc(r.Violations, func(a, b Violation) int { return int(a.At - b.At) })
	return r
}

// compareProcesses judges what processes have become.
func (c *check) compareProcesses() {
	for _, name := range slices.Sorted(maps.Keys(c.end)) {
		warm, known := c.warm[name]
		if !known {
			continue
		}
		end := c.end[name]
		c.report.Processes = append(c.report.Processes, ProcessGrowth{name, warm, end})
		for _, g := range grown(warm, end) {
			c.violated(I13, c.lasted, subject{}, "%s has %d %s, when it was warm it had %d", name, g.end, g.what, g.warm)
		}
	}
}

// growing is something of which a process has much more than when it was warm.
type growing struct {
	what      string
	warm, end int64
}

func grown(warm, end history.Process) []growing {
	var list []growing
	for _, g := range []struct {
		growing

		slack int64 // what it may have more, beside a percentage
	}{
		{growing{"goroutines", warm.Goroutines, end.Goroutines}, slackGoroutines},
		{growing{"open files", warm.Files, end.Files}, slackFiles},
		{growing{"bytes of heap", warm.Heap, end.Heap}, slackHeap},
	} {
		if g.warm > 0 && g.end > g.warm+g.slack+g.warm*growth/100 {
			list = append(list, g.growing)
		}
	}
	return list
}

// Grown says whether a process has more of anything than it may have after a run,
// compared with when it was warm.
func Grown(warm, end history.Process) bool { return len(grown(warm, end)) > 0 }

// What a process may have more at the end than when it was warm.
const (
	growth          = 10 // per cent
	slackGoroutines = 30
	slackFiles      = 30
	// What clients have named is remembered for minutes, and numbers for a day: that
	// grows with the run.
	slackHeap = 64 << 20
)
