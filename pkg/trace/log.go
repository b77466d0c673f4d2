package trace

import (
	"maps"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/linkerhq/linker/pkg/ident"
)

const (
	shards     = 16  // a power of two: by the id of the message
	chunkSlots = 256 // memory is taken in such pieces, when they are used
	// How many names of apps, domains and connectors a Log can tell apart, and how many
	// reasons, which neighbouring domains may make up. Further ones are left out.
	maxNames, maxReasons = 8192, 256
)

// Log keeps the newest events of one process in memory of a fixed size. Its methods may
// be called by any number of goroutines. A nil Log keeps nothing.
//
// All events of a message are in one shard, so that to add one takes a lock that hardly
// anybody else wants, and to find them means to look at one shard only.
type Log struct {
	place   Place // static
	chunks  int   // static; of a shard, at most; 0: nothing is kept
	sink    Sink  // static; nil: none
	names   names
	reasons names
	shards  [shards]shard
}

// shard is a ring of slots.
type shard struct {
	mu     sync.Mutex
	chunks [][]slot // guarded by mu
	added  uint64   // guarded by mu
	next   int      // guarded by mu; where the next one goes: added modulo the size
	_      [16]byte // shards do not share a line of the processor's cache
}

// slot is an event without pointers: the garbage collector does not look at it.
type slot struct {
	message ident.MessageID
	at      int64 // microseconds since 1970
	number  uint64
	session uint64
	offset  int64
	lane    int16
	users   uint16
	app     uint16 // number of a name
	peer    uint16 // number of a name
	reason  uint16 // number of a reason
	kind    Kind
	road    bool
}

// Sink takes events as they happen, of the messages that it wants. Its methods are called by
// any number of goroutines, which have something else to do.
type Sink interface {
	// Wants says whether the events of a message are of interest. It is asked for each.
	Wants(message ident.MessageID) bool
	// Take takes an event. It must not block.
	Take(e Event)
}

// NewLog returns a log of so many events, rounded up to a multiple of 4096; none if that is
// 0 or less. Each event needs 64 bytes. What is noted goes to the sink as well, if there is
// one. Without events and sink the Log is nil.
func NewLog(place Place, events int, sink Sink) *Log {
	if events <= 0 && sink == nil {
		return nil
	}
	l := &Log{place: place, sink: sink, chunks: (max(events, 0) + shards*chunkSlots - 1) / (shards * chunkSlots)}
	l.names.init(maxNames)
	l.reasons.init(maxReasons)
	return l
}

// Add notes an event; its Place is not looked at.
func (l *Log) Add(e Event) {
	if l == nil || e.Message == (ident.MessageID{}) {
		return
	}
	n := slot{
		message: e.Message, at: e.At.UnixMicro(), session: e.Session, offset: e.Offset, lane: int16(e.Lane),
		users: uint16(min(e.Users, 1<<16-1)), peer: l.names.number(e.Peer), reason: l.reasons.number(e.Reason), kind: e.Kind, road: e.Road,
	}
	u := l.User(e.User)
	n.app, n.number = u.app, u.number
	l.put(&n)
	if l.sink != nil && l.sink.Wants(e.Message) {
		e.Place = l.place
		l.sink.Take(e)
	}
}

// Name is the number of a name, which is good for one Log only. The zero value is none.
type Name struct{ number uint16 }

// User is a user id as one Log keeps it. The zero value is none.
type User struct {
	app    uint16
	number uint64
}

// Note is an event of the busiest ways, whose names were looked up before.
type Note struct {
	At      time.Time
	Kind    Kind
	Message ident.MessageID
	User    User
	Session uint64
	Peer    Name
	Lane    int
	Offset  int64
}

// Name looks a name up, to note it many times.
func (l *Log) Name(name string) Name {
	if l == nil {
		return Name{}
	}
	return Name{l.names.number(name)}
}

// User looks a user up, to note it many times. A user whose app has no number, for want of
// room, is left out.
func (l *Log) User(id ident.UserID) User {
	if l == nil {
		return User{}
	}
	for i := len(id) - 1; i > 0; i-- {
		c := id[i]
		if c == '-' {
			if app := l.names.number(string(id[:i])); app != 0 {
				return User{app: app, number: parseDigits(string(id[i+1:]))}
			}
			break
		}
		if c < '0' || c > '9' {
			break
		}
	}
	return User{}
}

// Note notes an event.
func (l *Log) Note(e *Note) {
	if l == nil || e.Message == (ident.MessageID{}) {
		return
	}
	n := slot{
		message: e.Message, at: e.At.UnixMicro(), number: e.User.number, session: e.Session, offset: e.Offset,
		lane: int16(e.Lane), app: e.User.app, peer: e.Peer.number, kind: e.Kind,
	}
	l.put(&n)
	if l.sink != nil && l.sink.Wants(e.Message) {
		l.sink.Take(l.event(&n))
	}
}

func (l *Log) put(n *slot) {
	if l.chunks == 0 {
		return
	}
	s := &l.shards[n.message[0]%shards]
	s.mu.Lock()
	*s.nextLocked(l.chunks) = *n
	s.mu.Unlock()
}

// nextLocked returns the slot of the next event.
func (s *shard) nextLocked(chunks int) *slot {
	i := s.next
	chunk := i / chunkSlots
	if chunk == len(s.chunks) {
		s.chunks = append(s.chunks, make([]slot, chunkSlots))
	}
	s.added++
	if s.next++; s.next == chunks*chunkSlots {
		s.next = 0
	}
	return &s.chunks[chunk][i%chunkSlots]
}

func parseDigits(s string) uint64 {
	n := uint64(0)
	for i := range len(s) {
		n = n*10 + uint64(s[i]-'0')
	}
	return n
}

// Find returns the events of a message that are not forgotten, in the order in which they
// were added.
func (l *Log) Find(id ident.MessageID) []Event {
	if l == nil || l.chunks == 0 || id == (ident.MessageID{}) {
		return nil
	}
	s := &l.shards[id[0]%shards]
	s.mu.Lock()
	chunks, added, size := len(s.chunks), s.added, uint64(l.chunks*chunkSlots)
	s.mu.Unlock()
	oldest := 0
	if added > size {
		oldest = int(added % size)
	}
	var found []slot
	// The lock is let go after each chunk: who adds does not wait for a search.
	look := func(chunk, from, to int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for i := range s.chunks[chunk][from:to] {
			if n := &s.chunks[chunk][from+i]; n.message == id {
				found = append(found, *n)
			}
		}
	}
	first, cut := oldest/chunkSlots, oldest%chunkSlots
	for i := range chunks {
		from := 0
		if i == 0 {
			from = cut // before it lie the newest ones
		}
		look((first+i)%chunks, from, chunkSlots)
	}
	if cut > 0 {
		look(first, 0, cut)
	}
	events := make([]Event, len(found))
	for i := range found {
		events[i] = l.event(&found[i])
	}
	return events
}

func (l *Log) event(n *slot) Event {
	e := Event{
		At: time.UnixMicro(n.at).UTC(), Place: l.place, Kind: n.kind, Message: n.message, Users: int(n.users), Session: n.session,
		Lane: int(n.lane), Offset: n.offset, Peer: l.names.name(n.peer), Road: n.road, Reason: l.reasons.name(n.reason),
	}
	if n.app != 0 {
		e.User = ident.UserID(l.names.name(n.app) + "-" + strconv.FormatUint(n.number, 10))
	}
	return e
}

// Added is how many events were noted so far.
func (l *Log) Added() uint64 {
	if l == nil {
		return 0
	}
	sum := uint64(0)
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		sum += s.added
		s.mu.Unlock()
	}
	return sum
}

// names numbers strings, from 1. To look one up takes no lock.
type names struct {
	most    int // static
	numbers atomic.Pointer[map[string]uint16]
	list    atomic.Pointer[[]string]

	mu sync.Mutex // held while one is added
}

func (t *names) init(most int) {
	t.most = most
	t.numbers.Store(&map[string]uint16{})
	t.list.Store(&[]string{""})
}

// number returns the number of a name; 0 for none, and when there is no room for another.
func (t *names) number(name string) uint16 {
	if name == "" {
		return 0
	}
	if n, known := (*t.numbers.Load())[name]; known {
		return n
	}
	if len(*t.list.Load()) > t.most {
		return 0
	}
	return t.add(name)
}

func (t *names) add(name string) uint16 {
	t.mu.Lock()
	defer t.mu.Unlock()
	was, list := *t.numbers.Load(), *t.list.Load()
	if n, known := was[name]; known {
		return n
	}
	if len(list) > t.most {
		return 0
	}
	n := uint16(len(list))
	list = append(list[:n:n], printable(name))
	numbers := maps.Clone(was)
	numbers[strings.Clone(name)] = n // what is kept is not part of something larger
	t.list.Store(&list)
	t.numbers.Store(&numbers)
	return n
}

func (t *names) name(n uint16) string { return (*t.list.Load())[n] }

// printable makes a name fit to be sent and shown: some come from other domains.
func printable(name string) string {
	b := []byte(name[:min(len(name), maxText)])
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = '?'
		}
	}
	return string(b)
}
