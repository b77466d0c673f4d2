// Package linkstate is what domains tell each other about their links: which of them
// are up. It is flooded: whoever hears something new tells it to everybody else.
//
// No clock is compared with another one. An entry carries how old it is, which only
// grows on its way from one holder to the next; what nobody refreshes is gone
// everywhere after Life, however often it was passed on.
package linkstate

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/linkerhq/linker/pkg/ident"
)

const (
	// Refresh is how often a speaker repeats its entry if nothing changes.
	Refresh = 5 * time.Second
	// Life is how old an entry can get: three refreshes and a little more.
	Life = 16 * time.Second
	// MaxUp is the most neighbours that an entry can name.
	MaxUp = 1024
	// MaxEntries is the most entries that a Database holds, and the most that one
	// encoding can carry.
	MaxEntries = 4096
	// MaxSpeakers is the most speakers of one domain that a Database holds.
	MaxSpeakers = 256
)

// Entry is what one speaker, a processor, says of its domain's links. An entry replaces those
// of the same speaker with a lower version.
type Entry struct {
	Domain  string
	Speaker uint64   // random, one for each life of a process
	Version uint64   // rises with every entry of a speaker
	Up      []string // the neighbours to which this speaker has an open link, ascending
	// Age is how long ago the speaker has said it, as far as those know who have
	// passed it on. The time on the way is not in it. An entry of one's own has none.
	Age time.Duration
}

// valid says whether e can be encoded: its names are names of domains, and Up is
// ascending, without Domain itself and not too long.
func (e Entry) valid() bool {
	if !ident.IsDomainName(e.Domain) || len(e.Up) > MaxUp || e.Age < 0 {
		return false
	}
	for i, name := range e.Up {
		if !ident.IsDomainName(name) || name == e.Domain || i > 0 && name <= e.Up[i-1] {
			return false
		}
	}
	return true
}

// key is who says something. The domain is part of it, so that one domain cannot
// replace what a speaker of another one says.
type key struct {
	domain  string
	speaker uint64
}

// held is the newest entry of a speaker.
type held struct {
	entry Entry     // its Age is of no account
	said  time.Time // when the speaker said it, by our own clock
}

func (h held) expired(now time.Time) bool { return now.Sub(h.said) >= Life }

// Database holds the newest entry of each speaker. Its methods may be called by any
// number of goroutines. What it takes and returns is shared: the lists of neighbours
// must not be changed.
type Database struct {
	mu      sync.Mutex
	held    map[key]held // guarded by mu; at most MaxEntries
	dropped uint64       // guarded by mu
}

// New returns an empty database.
func New() *Database { return &Database{held: make(map[key]held)} }

// Merge takes what is newer than what is known and returns it: that is what others
// should be told. What is older than Life or not valid is not taken. A new speaker
// for which there is no room is not taken either, and counted; what is known stays.
func (d *Database) Merge(entries []Entry, now time.Time) (news []Entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range entries {
		if !e.valid() || e.Age >= Life {
			continue
		}
		k := key{e.Domain, e.Speaker}
		known, again := d.held[k]
		switch {
		case again && e.Version <= known.entry.Version:
			continue
		case !again && (d.speakersLocked(e.Domain, now) >= MaxSpeakers || !d.roomLocked(now)):
			d.dropped++
			continue
		}
		d.held[k] = held{entry: e, said: now.Add(-e.Age)}
		news = append(news, e)
	}
	return news
}

// speakersLocked is how many speakers a domain has.
func (d *Database) speakersLocked(domain string, now time.Time) int {
	n := 0
	for k, h := range d.held {
		if k.domain == domain && !h.expired(now) {
			n++
		}
	}
	return n
}

// Within leaves out what is said of domains that are not known, and as neighbours of
// others: so nobody can fill memories with names.
func Within(entries []Entry, known func(domain string) bool) []Entry {
	kept := make([]Entry, 0, len(entries))
	for _, e := range entries {
		if !known(e.Domain) {
			continue
		}
		e.Up = slices.DeleteFunc(slices.Clone(e.Up), func(domain string) bool { return !known(domain) })
		kept = append(kept, e)
	}
	return kept
}

// roomLocked says whether one more speaker can be held, and forgets those that are
// silent if not. Until then an expired entry still keeps older versions of itself out.
func (d *Database) roomLocked(now time.Time) bool {
	if len(d.held) < MaxEntries {
		return true
	}
	d.forgetLocked(now)
	return len(d.held) < MaxEntries
}

func (d *Database) forgetLocked(now time.Time) {
	for k, h := range d.held {
		if h.expired(now) {
			delete(d.held, k)
		}
	}
}

// All returns the entries that are valid, with their age, by domain and speaker. It
// forgets the others.
func (d *Database) All(now time.Time) []Entry {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forgetLocked(now)
	all := make([]Entry, 0, len(d.held))
	for _, h := range d.held {
		e := h.entry
		e.Age = max(now.Sub(h.said), 0)
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.Domain, b.Domain), cmp.Compare(a.Speaker, b.Speaker))
	})
	return all
}

// Knows says whether there is a valid entry of a speaker.
func (d *Database) Knows(domain string, speaker uint64, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	h, known := d.held[key{domain, speaker}]
	return known && !h.expired(now)
}

// Live returns the directed links that are up: live[from][to]. A domain of which any
// speaker is heard is in it, if only with an empty map. The maps belong to the caller.
func (d *Database) Live(now time.Time) map[string]map[string]bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	live := make(map[string]map[string]bool)
	for k, h := range d.held {
		if h.expired(now) {
			continue
		}
		if live[k.domain] == nil {
			live[k.domain] = make(map[string]bool)
		}
		for _, to := range h.entry.Up {
			live[k.domain][to] = true
		}
	}
	return live
}

// Dropped is how many entries were not taken because there was no room.
func (d *Database) Dropped() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dropped
}

// StatesSubject is where the services of a domain tell each other encoded entries.
func StatesSubject(domain string) string { return "links." + domain }
