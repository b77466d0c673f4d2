package trace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/internal/bin"
)

// Limits of what is said. What is beyond them is left out, and Report.Cut says so.
const (
	maxPath   = 16      // domains that a question comes through
	maxUsers  = 16      // named in a question
	maxLooks  = 256     // in a question
	maxEvents = 2048    // in a report
	maxFound  = 1024    // in a report
	maxNamed  = 512     // processes in a report, and as many that are missing
	maxText   = 128     // bytes of a name
	maxWords  = 1 << 14 // different names in an answer

	// MaxQuestion and MaxAnswer are how many bytes a question and an answer have at most.
	MaxQuestion = 32 << 10
	MaxAnswer   = 512 << 10
)

const (
	version = 1
	// lastInstant is far in the future: microseconds since 1970.
	lastInstant = 1 << 52
)

// QuestionID names a question all over the network, so that nobody answers it twice.
type QuestionID [16]byte

// Question asks what is known of a message.
type Question struct {
	ID      QuestionID
	Message ident.MessageID
	Within  time.Duration  // the answer is of use for so long
	Users   []ident.UserID // in whose mailboxes to look, whatever the events say

	// Path are the domains that the question has come through, the one that asks first,
	// the one that is asked last.
	Path []string
	// Inbox is where answers go in the domain; empty: over the link.
	Inbox uint64
	// Looks are places where the message may wait: then nothing else is asked.
	Looks []Look
}

// Look is a place where a message may wait: at the position of a lane's record, for a user
// or for the road to another domain.
type Look struct {
	User    ident.UserID // empty: several, on a road
	Towards string       // another domain; empty: it is for the user to be told from the network
	Lane    int
	Offset  int64
}

// Wait says where a message waits.
type Wait uint8

// The waits. The numbers are sent: they are never used again.
const (
	InMailbox Wait = 1
	HeldBack  Wait = 2
	OnRoad    Wait = 3 // for the road to another domain
	Buried    Wait = 4 // it does not wait any more: the dead letters hold it
)

// Found is a message that waits somewhere.
type Found struct {
	Domain  string // in whose mailbox
	User    ident.UserID
	Users   int // how many, if User is empty
	Wait    Wait
	Towards string // of OnRoad
	Proved  bool   // one of the user's sessions has it, others are owed it
	Since   int64  // Unix seconds
	Reason  string // of Buried
}

// Report is what is known of a message.
type Report struct {
	Asked   []Place  // who has answered
	Missing []string // who has not: processes and domains
	Events  []Event  // in no order
	Found   []Found
	Cut     bool // there was more
}

// answer is what one process says to whoever asked in its domain. Several of them may
// come from one process.
type answer struct {
	from    Place
	more    bool // another one follows
	looked  bool // the mailbox was looked at
	known   bool // the question is being answered already: of use between domains only
	content Report
}

func appendQuestion(b []byte, q *Question) []byte {
	b = append(b, version)
	b = append(b, q.ID[:]...)
	b = append(b, q.Message[:]...)
	b = binary.AppendUvarint(b, uint64(max(q.Within.Milliseconds(), 0)))
	b = bin.AppendUint64(b, q.Inbox)
	b = appendList(b, q.Path, bin.AppendString)
	b = appendList(b, q.Users, bin.AppendString)
	return appendList(b, q.Looks, func(b []byte, l Look) []byte {
		b = bin.AppendString(b, l.User)
		b = bin.AppendString(b, l.Towards)
		b = binary.AppendVarint(b, int64(l.Lane))
		return binary.AppendVarint(b, l.Offset)
	})
}

func appendList[T any](b []byte, list []T, one func([]byte, T) []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, v := range list {
		b = one(b, v)
	}
	return b
}

// errTooMuch is reported for what is longer than anybody of ours makes it.
var errTooMuch = errors.New("longer than expected")

func decodeQuestion(b []byte) (Question, error) {
	if len(b) > MaxQuestion {
		return Question{}, fmt.Errorf("question: %w: %d bytes, expected at most %d", errTooMuch, len(b), MaxQuestion)
	}
	r := reader{Reader: bin.NewReader(b)}
	if v := r.Byte(); v != version {
		return Question{}, fmt.Errorf("question: version %d, expected %d", v, version)
	}
	var q Question
	r.Copy(q.ID[:])
	r.Copy(q.Message[:])
	q.Within = time.Duration(min(r.Uvarint(), uint64(longest.Milliseconds()))) * time.Millisecond
	q.Inbox = r.Uint64()
	q.Path = readList(&r, maxPath, 1, r.domain)
	q.Users = readList(&r, maxUsers, 1, func() ident.UserID { return r.user(false) })
	q.Looks = readList(&r, maxLooks, 4, func() Look {
		return Look{User: r.user(true), Towards: r.domainOrNone(), Lane: r.lane(), Offset: r.Varint()}
	})
	if err := r.close(); err != nil {
		return Question{}, fmt.Errorf("question: %w", err)
	}
	return q, nil
}

const (
	flagMore = 1 << iota
	flagLooked
	flagKnown
	flagCut
)

// encodeAnswer encodes an answer, as much of it as fits into MaxAnswer.
func encodeAnswer(a answer) []byte {
	for events := maxEvents; ; events /= 2 {
		limit(&a.content, events)
		b := appendAnswer(nil, &a)
		if len(b) <= MaxAnswer {
			return b
		}
		cutTo(&a.content.Found, len(a.content.Found)/2, &a.content.Cut)
	}
}

func appendAnswer(b []byte, a *answer) []byte {
	flags := uint64(0)
	for i, is := range []bool{a.more, a.looked, a.known, a.content.Cut} {
		if is {
			flags |= 1 << i
		}
	}
	b = append(b, version)
	b = binary.AppendUvarint(b, flags)
	// Names are written once, and then called by their number.
	var list []string
	numbers := map[string]uint64{}
	number := func(b []byte, name string) []byte {
		n, known := numbers[name]
		if !known {
			n = uint64(len(list))
			numbers[name] = n
			list = append(list, name)
		}
		return binary.AppendUvarint(b, n)
	}
	place := func(b []byte, p Place) []byte { return number(number(number(b, p.Domain), p.Service), p.Name) }
	body := place(nil, a.from)
	body = appendList(body, a.content.Asked, place)
	body = appendList(body, a.content.Missing, number)
	body = appendList(body, a.content.Events, func(b []byte, e Event) []byte {
		b = binary.AppendVarint(b, e.At.UnixMicro())
		b = append(place(b, e.Place), byte(e.Kind))
		b = number(b, string(e.User))
		b = binary.AppendUvarint(b, uint64(e.Users))
		b = bin.AppendUint64(b, e.Session)
		b = binary.AppendVarint(b, int64(e.Lane))
		b = binary.AppendVarint(b, e.Offset)
		b = number(b, e.Peer)
		b = appendBool(b, e.Road)
		return number(b, e.Reason)
	})
	body = appendList(body, a.content.Found, func(b []byte, f Found) []byte {
		b = number(b, f.Domain)
		b = number(b, string(f.User))
		b = binary.AppendUvarint(b, uint64(f.Users))
		b = number(append(b, byte(f.Wait)), f.Towards)
		return number(binary.AppendVarint(appendBool(b, f.Proved), f.Since), f.Reason)
	})
	b = appendList(b, list, bin.AppendString)
	return append(b, body...)
}

func appendBool(b []byte, is bool) []byte {
	if is {
		return append(b, 1)
	}
	return append(b, 0)
}

// limit leaves out what is too much: of events those in the middle, since how a message
// came and how it went on says more.
func limit(r *Report, events int) {
	if n := len(r.Events); n > events {
		r.Events = slices.Concat(r.Events[:events/2], r.Events[n-events/2:])
		r.Cut = true
	}
	cutTo(&r.Found, maxFound, &r.Cut)
	cutTo(&r.Asked, maxNamed, &r.Cut)
	cutTo(&r.Missing, maxNamed, &r.Cut)
}

func cutTo[T any](list *[]T, most int, cut *bool) {
	if len(*list) > most {
		*list, *cut = (*list)[:most], true
	}
}

// decodeAnswer reads an answer about a message.
func decodeAnswer(b []byte, message ident.MessageID) (answer, error) {
	if len(b) > MaxAnswer {
		return answer{}, fmt.Errorf("answer: %w: %d bytes, expected at most %d", errTooMuch, len(b), MaxAnswer)
	}
	r := reader{Reader: bin.NewReader(b)}
	if v := r.Byte(); v != version {
		return answer{}, fmt.Errorf("answer: version %d, expected %d", v, version)
	}
	flags := r.Uvarint()
	a := answer{
		more: flags&flagMore != 0, looked: flags&flagLooked != 0, known: flags&flagKnown != 0,
		content: Report{Cut: flags&flagCut != 0},
	}
	r.names = readList(&r, maxWords, 1, r.text)
	place := func() Place { return Place{Domain: r.named(), Service: r.named(), Name: r.named()} }
	a.from = place()
	a.content.Asked = readList(&r, maxNamed, 3, place)
	a.content.Missing = readList(&r, maxNamed, 1, r.named)
	a.content.Events = readList(&r, maxEvents, 20, func() Event {
		return Event{
			Message: message, At: time.UnixMicro(r.instant(time.Microsecond)).UTC(), Place: place(), Kind: Kind(r.Byte()), User: r.namedUser(),
			Users: r.users(), Session: r.Uint64(), Lane: r.lane(), Offset: r.Varint(), Peer: r.named(), Road: r.Byte() != 0, Reason: r.named(),
		}
	})
	a.content.Found = readList(&r, maxFound, 8, func() Found {
		return Found{
			Domain: r.named(), User: r.namedUser(), Users: r.users(), Wait: Wait(r.Byte()), Towards: r.named(), Proved: r.Byte() != 0, Since: r.instant(time.Second),
			Reason: r.named(),
		}
	})
	if err := r.close(); err != nil {
		return answer{}, fmt.Errorf("answer: %w", err)
	}
	return a, nil
}

// reader reads what others say, who may be another domain: nothing in it is believed to be
// well formed.
type reader struct {
	*bin.Reader
	names []string
	err   error // the first that is wrong beyond the encoding
}

func (r *reader) wrong(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
}

func (r *reader) close() error {
	if err := r.Close(); err != nil {
		return err
	}
	return r.err
}

// readList reads a list of at most so many elements, of at least size bytes each.
func readList[T any](r *reader, most, size int, one func() T) []T {
	n := r.Count(size)
	if n > most {
		r.wrong("%w: %d elements, expected at most %d", errTooMuch, n, most)
		return nil
	}
	if n == 0 {
		return nil
	}
	list := make([]T, 0, min(n, 1024))
	for range n {
		list = append(list, one())
	}
	return list
}

func (r *reader) text() string {
	b := r.Bytes()
	if len(b) > maxText {
		r.wrong("a name: %w: %d bytes, expected at most %d", errTooMuch, len(b), maxText)
		return ""
	}
	for _, c := range b {
		if c < ' ' || c > '~' {
			r.wrong("a name: %q, expected printable ASCII", b)
			return ""
		}
	}
	return string(b)
}

// named reads the number of a name.
func (r *reader) named() string {
	n := r.Uvarint()
	if n >= uint64(len(r.names)) {
		r.wrong("name %d of %d", n, len(r.names))
		return ""
	}
	return r.names[n]
}

func (r *reader) namedUser() ident.UserID { return r.checkUser(r.named(), true) }

func (r *reader) user(orNone bool) ident.UserID { return r.checkUser(r.text(), orNone) }

func (r *reader) checkUser(s string, orNone bool) ident.UserID {
	if s == "" && orNone {
		return ""
	}
	id, err := ident.ParseUserID(s)
	if err != nil {
		r.wrong("%w", err)
	}
	return id
}

func (r *reader) domain() string {
	s := r.text()
	if !ident.IsDomainName(s) {
		r.wrong("domain: %.80q, expected lower-case letters, digits and dashes", s)
	}
	return s
}

func (r *reader) domainOrNone() string {
	if s := r.text(); s == "" || ident.IsDomainName(s) {
		return s
	}
	r.wrong("domain: expected lower-case letters, digits and dashes")
	return ""
}

func (r *reader) lane() int {
	n := r.Varint()
	if n < NoOffset || n > math.MaxInt16 {
		r.wrong("lane %d", n)
		return NoOffset
	}
	return int(n)
}

// instant reads a time that people can be shown, in units since 1970.
func (r *reader) instant(unit time.Duration) int64 {
	n, most := r.Varint(), lastInstant/int64(unit/time.Microsecond)
	if n < -most || n > most {
		r.wrong("a time of %d, expected at most %d", n, most)
		return 0
	}
	return n
}

func (r *reader) users() int { return int(min(r.Uvarint(), math.MaxUint16)) }
