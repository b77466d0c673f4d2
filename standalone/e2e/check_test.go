package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// maxTold bounds how many of one kind of mistake are told.
const maxTold = 5

// tell reports what is wrong, and how often.
func tell(t *testing.T, what string, list []string) {
	t.Helper()
	if len(list) > 0 {
		slices.Sort(list)
		t.Errorf("%d × %s, such as:\n\t%s", len(list), what, strings.Join(list[:min(len(list), maxTold)], "\n\t"))
	}
}

// check judges a run that has ended: what was accepted has come, under one id,
// in order, and nothing else.
func (l *ledger) check(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	tell(t, "wrong at once", l.problems)
	var lost, renamed, unconfirmed, falselyConfirmed, confirmedTwice []string
	outcomes := map[outcome]int{}
	for m, e := range l.entries {
		outcomes[e.outcome]++
		name := fmt.Sprintf("%s/%d to %s, sent %s", m.from, m.n, e.to, e.sent.Format("15:04:05.000"))
		switch {
		case e.outcome == taken && e.arrived.IsZero():
			lost = append(lost, name)
		case e.outcome == taken && e.id != e.acceptedAs:
			renamed = append(renamed, fmt.Sprintf("%s: accepted as %s, delivered as %s", name, e.acceptedAs, e.id))
		case e.confirm && !e.arrived.IsZero() && len(e.confirmed) == 0:
			unconfirmed = append(unconfirmed, name)
		}
		if e.arrived.IsZero() && len(e.confirmed) > 0 {
			falselyConfirmed = append(falselyConfirmed, name)
		}
		if len(e.confirmed) > 1 {
			confirmedTwice = append(confirmedTwice, fmt.Sprintf("%s: %v", name, slices.Collect(maps.Keys(e.confirmed))))
		}
	}
	tell(t, "accepted and lost", lost)
	tell(t, "delivered under another id", renamed)
	tell(t, "delivered and never confirmed", unconfirmed)
	tell(t, "confirmed and not delivered", falselyConfirmed)
	tell(t, "confirmed under several ids", confirmedTwice)
	copies, total := 0, 0
	for receiver, list := range l.arrivals {
		connections := map[string]int{} // by id: where it came last
		var twice, late []string
		for _, a := range list {
			total++
			before, again := connections[a.id]
			if again {
				copies++
			}
			if again && before == a.connection && l.far {
				twice = append(twice, fmt.Sprintf("%s: %s/%d (connection %d)", a.at.Format("15:04:05.000"), a.from, a.n, a.connection))
			}
			if a.late {
				late = append(late, fmt.Sprintf("%s: %s/%d, sent %s", a.at.Format("15:04:05.000"), a.from, a.n, l.entries[a.numbered].sent.Format("15:04:05.000")))
			}
			connections[a.id] = a.connection
		}
		tell(t, "twice in one connection at "+receiver, twice)
		tell(t, "marked late at "+receiver, late)
		tell(t, "out of order at "+receiver, l.inversions(receiver))
	}
	tell(t, "announced twice on end", l.presenceMistakes())
	t.Logf("%d messages were sent: %d accepted, %d refused %v, %d without an answer; %d arrivals, %d of them copies; %d presence events",
		len(l.entries), outcomes[taken], outcomes[turnedDown], l.failed, outcomes[unheard], total, copies, len(l.presence))
}

// inversions returns where accepted messages of one sender have come in another
// order than they were sent. With push there is one order. Without, what was
// accepted before a login comes by fetching, and the rest by itself: each has an
// order of its own in every connection. What was sent during the login may be
// either. Of several domains it cannot be known from outside what was accepted before
// a login by the domain where that was: there only those with push are judged.
func (l *ledger) inversions(receiver string) []string {
	if l.far && !l.pushed[receiver] {
		return nil
	}
	type sequence struct {
		from       string
		connection int
		fetched    bool
	}
	last := map[sequence]arrival{}
	seen := map[string]bool{}
	var wrong []string
	for _, a := range l.arrivals[receiver] {
		e := l.entries[a.numbered]
		if seen[a.id] || e.outcome != taken || a.late {
			continue
		}
		seen[a.id] = true
		s := sequence{from: a.from}
		if !l.pushed[receiver] {
			v := l.visits[receiver][a.connection-1]
			s.connection, s.fetched = a.connection, e.acceptedAt.Before(v.asked)
			if !s.fetched && e.sent.Before(v.answered) {
				continue
			}
		}
		if before, any := last[s]; any && before.n > a.n {
			wrong = append(wrong, fmt.Sprintf("%s: %s/%d came after %d (connections %d and %d, fetched %t)",
				a.at.Format("15:04:05.000"), a.from, a.n, before.n, a.connection, before.connection, s.fetched))
			continue
		}
		last[s] = a
	}
	return wrong
}

// presenceMistakes returns the users of whom the same was announced twice on end.
func (l *ledger) presenceMistakes() []string {
	known, last := map[string]bool{}, map[string]event{}
	var wrong []string
	for _, e := range l.presence {
		if known[e.id] {
			continue
		}
		known[e.id] = true
		if before := last[e.user]; before.kind == e.kind || before.kind == "" && e.kind != "CONNECTED" {
			wrong = append(wrong, fmt.Sprintf("%s: %s %s after %s %s", e.user, e.kind, e.at.Format("15:04:05.000"), before.kind, before.at.Format("15:04:05.000")))
		}
		last[e.user] = e
	}
	return wrong
}
