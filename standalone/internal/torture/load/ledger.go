package load

import (
	"maps"
	"sync"
)

// message names one message of a sender.
type message struct {
	from string
	n    int64
}

// debt is a message on its way to one receiver.
type debt struct {
	message
	to string
}

// ledger knows what is still to come. It decides how long a run waits for the rest,
// and nothing else.
type ledger struct {
	mu         sync.Mutex
	owed       map[debt]struct{}    // guarded by mu; accepted and not delivered
	early      map[debt]struct{}    // guarded by mu; delivered and not accepted
	wanted     map[message]struct{} // guarded by mu; confirmations of what was accepted
	confirmed  map[message]struct{} // guarded by mu; confirmations that came before the acceptance
	unanswered int64                // guarded by mu
	present    map[string]bool      // guarded by mu; whom a master has heard of last as online
	open       map[string]int       // guarded by mu; sockets by user
	sent       int64                // guarded by mu
	accepted   int64                // guarded by mu
	delivered  int64                // guarded by mu
	progress   int64                // guarded by mu; rises with everything that happens
}

func newLedger() *ledger {
	return &ledger{
		owed: map[debt]struct{}{}, early: map[debt]struct{}{},
		wanted: map[message]struct{}{}, confirmed: map[message]struct{}{}, present: map[string]bool{}, open: map[string]int{},
	}
}

// send notes a new message.
func (l *ledger) send() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent++
	l.unanswered++
}

// sendFast notes a message that nobody answers.
func (l *ledger) sendFast() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent++
}

// accept notes the first acceptance of a message.
func (l *ledger) accept(m message, to []string, confirm bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.progress++
	l.accepted++
	l.unanswered--
	for _, user := range to {
		settle(l.early, l.owed, debt{m, user})
	}
	if confirm {
		settle(l.confirmed, l.wanted, m)
	}
}

// settle takes what is known from one map, or else notes it in the other.
func settle[K comparable](known, other map[K]struct{}, key K) {
	if _, is := known[key]; is {
		delete(known, key)
		return
	}
	other[key] = struct{}{}
}

// giveUp notes that a message will not be accepted.
func (l *ledger) giveUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.progress++
	l.unanswered--
}

// fail notes that an accepted message was reported as failed. That is rare.
func (l *ledger) fail(m message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.progress++
	for d := range l.owed {
		if d.message == m {
			delete(l.owed, d)
		}
	}
	delete(l.wanted, m)
}

// deliver notes a delivery. Nobody is owed a FAST message.
func (l *ledger) deliver(m message, to string, fast bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.progress++
	l.delivered++
	if !fast {
		d := debt{m, to}
		if _, owed := l.owed[d]; owed {
			delete(l.owed, d)
		} else {
			l.early[d] = struct{}{}
		}
	}
}

func (l *ledger) confirm(m message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.progress++
	if _, wanted := l.wanted[m]; wanted {
		delete(l.wanted, m)
	} else {
		l.confirmed[m] = struct{}{}
	}
}

func (l *ledger) presence(user string, online bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if online {
		l.present[user] = true
	} else {
		delete(l.present, user)
	}
}

// count notes that a user has a socket more, or one less.
func (l *ledger) count(user string, more int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[user] += more; l.open[user] == 0 {
		delete(l.open, user)
	}
}

func (l *ledger) sockets() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.open)
}

func (l *ledger) online() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.present)
}

// rest is what is to come, and a number that rises with everything that comes.
func (l *ledger) rest() (Rest, int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Rest{Owed: len(l.owed), Confirms: len(l.wanted), Unanswered: int(l.unanswered)}, l.progress
}

func (l *ledger) counts() Counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Counts{Sent: l.sent, Accepted: l.accepted, Delivered: l.delivered, Owed: int64(len(l.owed)), Unanswered: l.unanswered}
}
