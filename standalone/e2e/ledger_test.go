package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

// numbered names a message of the steady load: the n-th of its sender.
type numbered struct {
	from string
	n    int
}

// outcome is what a sender knows of a message.
type outcome int

const (
	unheard    outcome = iota // no answer: it may be delivered or not
	taken                     // it must be delivered
	turnedDown                // with an error: nobody relies on it
)

// entry is what is known of one message.
type entry struct {
	to         string
	sent       time.Time
	outcome    outcome
	acceptedAt time.Time
	acceptedAs string // the id that the sender was told
	confirm    bool   // a confirmation was asked for
	confirmed  map[string]bool
	id         string    // under which it was delivered
	arrived    time.Time // at first; zero: not yet
}

// arrival is one copy of a message at its receiver.
type arrival struct {
	numbered
	id         string
	connection int // of the receiver, from 1
	at         time.Time
	late       bool // marked so: newer ones may have come before it
}

// visit is one connection of a receiver.
type visit struct{ asked, answered time.Time } // its login

// ledger keeps what a run of the load has sent and received. It is safe for
// concurrent use.
type ledger struct {
	pushed map[string]bool // receivers who get everything in one order; static
	far    bool            // there are several domains; static

	mu       sync.Mutex
	entries  map[numbered]*entry
	arrivals map[string][]arrival // by receiver
	visits   map[string][]visit   // by receiver
	presence []event
	problems []string
	failed   map[string]int // errors that senders were told, by code
}

// event is what a master has heard of a user.
type event struct {
	user, kind, id string
	at             time.Time
}

func newLedger() *ledger {
	return &ledger{pushed: map[string]bool{}, entries: map[numbered]*entry{}, arrivals: map[string][]arrival{}, visits: map[string][]visit{}, failed: map[string]int{}}
}

func (l *ledger) problem(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.problems = append(l.problems, fmt.Sprintf(format, args...))
}

// content is the text of a message, which tells whether it has come unchanged.
func (m numbered) content(to string) string {
	pad := strings.Repeat("x", (m.n*37)%1500)
	return strings.Join([]string{m.from, to, strconv.Itoa(m.n), digest(m.from, to, m.n, pad), pad}, "|")
}

func digest(from, to string, n int, pad string) string {
	sum := sha256.Sum256(fmt.Append(nil, from, to, n, pad))
	return hex.EncodeToString(sum[:8])
}

// parseContent returns which message a content is of.
func parseContent(content string) (m numbered, to string, err error) {
	parts := strings.SplitN(content, "|", 5)
	if len(parts) != 5 {
		return m, "", fmt.Errorf("%.80q is no content of ours", content)
	}
	m.from, to = parts[0], parts[1]
	if m.n, err = strconv.Atoi(parts[2]); err != nil {
		return m, "", err
	}
	if digest(m.from, to, m.n, parts[4]) != parts[3] {
		return m, "", fmt.Errorf("%s/%d has been changed on its way", m.from, m.n)
	}
	return m, to, nil
}

func (l *ledger) sending(m numbered, to string, confirm bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries[m] = &entry{to: to, sent: time.Now(), confirm: confirm, confirmed: map[string]bool{}}
}

func (l *ledger) accept(m numbered, id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entries[m]
	if e.outcome == taken && e.acceptedAs != id {
		l.problems = append(l.problems, fmt.Sprintf("%v was accepted as %s and as %s", m, e.acceptedAs, id))
	}
	if e.outcome != taken {
		e.outcome, e.acceptedAt, e.acceptedAs = taken, time.Now(), id
	}
}

// refuse notes an error about a message that was not accepted, or was.
func (l *ledger) refuse(m numbered, f *frame) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed[f.Data.Code]++
	if e := l.entries[m]; e.outcome == taken {
		l.problems = append(l.problems, fmt.Sprintf("%v was accepted, and then there came %v", m, f))
	} else {
		e.outcome = turnedDown
	}
}

func (l *ledger) confirmed(m numbered, id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entries[m]
	if e == nil || !e.confirm {
		l.problems = append(l.problems, fmt.Sprintf("a confirmation of %v, which nobody asked for", m))
		return
	}
	e.confirmed[id] = true
}

// arrive notes a frame with a message.
func (l *ledger) arrive(receiver string, connection int, f *frame) {
	m, to, err := parseContent(f.Data.Content)
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	switch e := l.entries[m]; {
	case err != nil:
		l.problems = append(l.problems, fmt.Sprintf("%s got %v: %v", receiver, f, err))
	case e == nil || to != receiver || e.to != receiver || f.Data.From != m.from:
		l.problems = append(l.problems, fmt.Sprintf("%s got %v, which was never sent to it", receiver, f))
	default:
		if e.id != "" && e.id != f.ID {
			l.problems = append(l.problems, fmt.Sprintf("%v came as %s and as %s", m, e.id, f.ID))
		}
		e.id = f.ID
		if e.arrived.IsZero() {
			e.arrived = now
		}
		l.arrivals[receiver] = append(l.arrivals[receiver], arrival{m, f.ID, connection, now, f.Late})
	}
}

func (l *ledger) visit(receiver string, v visit) (connection int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.visits[receiver] = append(l.visits[receiver], v)
	return len(l.visits[receiver])
}

func (l *ledger) heard(e event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.presence = append(l.presence, e)
}

// heardSince returns the presence events since then of the users, without
// repetitions.
func (l *ledger) heardSince(since time.Time, users map[string]bool) []event {
	l.mu.Lock()
	defer l.mu.Unlock()
	known := map[string]bool{}
	var list []event
	for _, e := range l.presence {
		if !known[e.id] && e.at.After(since) && users[e.user] {
			list = append(list, e)
		}
		known[e.id] = true
	}
	return list
}

// firsts returns for each of the receivers how long after a moment the first
// message came that was sent since; those are missing to whom none has come.
func (l *ledger) firsts(since time.Time, receivers []string) map[string]time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	got := map[string]time.Duration{}
	for _, receiver := range receivers {
		list := l.arrivals[receiver]
		for i := len(list) - 1; i >= 0 && list[i].at.After(since); i-- {
			if l.entries[list[i].numbered].sent.After(since) {
				got[receiver] = list[i].at.Sub(since)
			}
		}
	}
	return got
}

// pairs counts the pairs of sender and receiver between whom a message has come
// that was sent since then.
func (l *ledger) pairs(since time.Time, receivers []string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	pairs := map[[2]string]bool{}
	for _, receiver := range receivers {
		list := l.arrivals[receiver]
		for i := len(list) - 1; i >= 0 && list[i].at.After(since); i-- {
			if l.entries[list[i].numbered].sent.After(since) {
				pairs[[2]string{list[i].from, receiver}] = true
			}
		}
	}
	return len(pairs)
}

// missing returns the accepted messages that have not come, and those that have
// come and whose confirmation has not.
func (l *ledger) missing() (messages, confirmations []numbered) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for m, e := range l.entries {
		switch {
		case e.outcome == taken && e.arrived.IsZero():
			messages = append(messages, m)
		case e.confirm && !e.arrived.IsZero() && len(e.confirmed) == 0:
			confirmations = append(confirmations, m)
		}
	}
	return messages, confirmations
}
