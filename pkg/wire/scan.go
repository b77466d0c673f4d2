package wire

import (
	"encoding/binary"
	"math/bits"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// scanner reads JSON in one pass over its bytes (RFC 8259). It checks the syntax of
// everything and keeps, of what matters, where it stands.
type scanner struct {
	b     []byte
	i     int
	wrong string // the first syntax error; empty so far
	parts parts  // a value and no pointer: so it needs no memory of its own
}

// parts is what matters of a frame.
type parts struct {
	top       [topCount]value
	data      [dataFields]value
	duplicate string // the first name that matters and stands twice in its object
}

// scan reads a whole frame.
func (s *scanner) scan() *Problem {
	s.space()
	switch {
	case len(s.b) == 0:
		s.fail("the frame is empty, expected a JSON object")
	case s.peek() != '{':
		s.fail("expected a JSON object")
	default:
		s.object(1, scopeTop, s.parts.top[:])
		s.space()
		if s.wrong == "" && s.i < len(s.b) {
			s.fail("expected nothing behind the object")
		}
	}
	if s.wrong != "" {
		return &Problem{CodeBadJSON, s.wrong}
	}
	return nil
}

// fail keeps the first error and moves to the end, so that every loop stops.
func (s *scanner) fail(what string) {
	if s.wrong != "" {
		return
	}
	at := "at the end"
	if s.i < len(s.b) {
		r, _ := utf8.DecodeRune(s.b[s.i:])
		at = "at byte " + strconv.Itoa(s.i) + ", " + strconv.QuoteRuneToASCII(r)
	}
	s.wrong = at + ": " + what
	s.i = len(s.b)
}

// peek returns the next byte, 0 at the end.
func (s *scanner) peek() byte {
	if s.i < len(s.b) {
		return s.b[s.i]
	}
	return 0
}

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

// object reads an object at the given depth. Members that matter go into the
// value of their place; the first one counts.
func (s *scanner) object(depth int, of scope, into []value) {
	if depth > MaxNesting {
		s.fail("nested too deep, expected at most " + strconv.Itoa(MaxNesting) + " levels")
		return
	}
	s.i++
	s.space()
	if s.peek() == '}' {
		s.i++
		return
	}
	for s.wrong == "" {
		if s.peek() != '"' {
			s.fail(`expected a name in quotes`)
			return
		}
		key := s.str()
		if s.wrong != "" {
			return
		}
		place := of.find(key)
		s.space()
		if s.peek() != ':' {
			s.fail("expected ':'")
			return
		}
		s.i++
		s.space()
		v := s.member(depth, of == scopeTop && place == topData)
		if place >= 0 {
			s.keep(key, &into[place], v)
		}
		if s.next('}') {
			return
		}
	}
}

// member reads the value of a member; isData says that it is the data of the
// frame, whose own members matter.
func (s *scanner) member(depth int, isData bool) value {
	if !isData || s.peek() != '{' || s.parts.top[topData].kind != kindNone {
		return s.value(depth + 1)
	}
	start := s.i
	s.object(depth+1, scopeData, s.parts.data[:])
	return value{kind: kindObject, raw: s.b[start:s.i]}
}

func (s *scanner) keep(key value, into *value, v value) {
	if into.kind == kindNone {
		*into = v
		return
	}
	if s.parts.duplicate == "" {
		s.parts.duplicate = key.text()
	}
}

// next reads what follows an element: a comma, or the end, which it reports.
func (s *scanner) next(end byte) bool {
	s.space()
	switch s.peek() {
	case end:
		s.i++
		return true
	case ',':
		s.i++
		s.space()
		return false
	default:
		s.fail("expected ',' or '" + string(rune(end)) + "'")
		return true
	}
}

// value reads any value; one that nests stands at the given depth.
func (s *scanner) value(depth int) value {
	start := s.i
	kind, count := kindNone, int32(0)
	switch c := s.peek(); {
	case c == '"':
		return s.str()
	case c == '{':
		kind = kindObject
		s.object(depth, scopeOther, nil)
	case c == '[':
		kind = kindArray
		count = s.array(depth)
	case c == 't':
		kind = kindTrue
		s.literal("true")
	case c == 'f':
		kind = kindFalse
		s.literal("false")
	case c == 'n':
		kind = kindNull
		s.literal("null")
	case c == '-' || c >= '0' && c <= '9':
		kind = kindNumber
		s.number()
	default:
		s.fail("expected a value")
	}
	return value{kind: kind, raw: s.b[start:s.i], count: count}
}

// array returns how many elements it has read.
func (s *scanner) array(depth int) int32 {
	if depth > MaxNesting {
		s.fail("nested too deep, expected at most " + strconv.Itoa(MaxNesting) + " levels")
		return 0
	}
	s.i++
	s.space()
	if s.peek() == ']' {
		s.i++
		return 0
	}
	count := int32(0)
	for s.wrong == "" {
		s.value(depth + 1)
		count++
		if s.next(']') {
			break
		}
	}
	return count
}

func (s *scanner) literal(word string) {
	if s.i+len(word) > len(s.b) || string(s.b[s.i:s.i+len(word)]) != word {
		s.fail("expected " + word)
		return
	}
	s.i += len(word)
}

func (s *scanner) number() {
	if s.peek() == '-' {
		s.i++
	}
	if s.peek() == '0' {
		s.i++
	} else {
		s.digits()
	}
	if s.peek() == '.' {
		s.i++
		s.digits()
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.i++
		if c := s.peek(); c == '+' || c == '-' {
			s.i++
		}
		s.digits()
	}
}

func (s *scanner) digits() {
	start := s.i
	for s.i < len(s.b) && s.b[s.i] >= '0' && s.b[s.i] <= '9' {
		s.i++
	}
	if s.i == start {
		s.fail("expected a digit")
	}
}

// str reads a string.
func (s *scanner) str() value {
	start := s.i
	if s.simpleStr() {
		return value{kind: kindString, raw: s.b[start:s.i]}
	}
	return s.escapedStr(start)
}

// simpleStr reads a string that holds no escape sequence. It reports false where it is stopped by
// something else than the end of one.
func (s *scanner) simpleStr() bool {
	if s.peek() != '"' {
		return false
	}
	s.i++
	s.plain()
	if s.peek() != '"' {
		return false
	}
	s.i++
	return true
}

// escapedStr goes on with a string that does not end where the scanner stands.
func (s *scanner) escapedStr(start int) value {
	var nul, surrogate bool
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case '"':
			s.i++
			return value{kind: kindString, raw: s.b[start:s.i], escaped: true, nul: nul, surrogate: surrogate}
		case '\\':
			isNul, isHalf := s.escape()
			nul, surrogate = nul || isNul, surrogate || isHalf
		default:
			s.fail("a control character in a string, expected it escaped")
			return value{}
		}
		s.plain()
	}
	s.fail(`expected '"'`)
	return value{}
}

// plain moves on to the next byte of a string that does not stand for itself: a quote, a
// backslash or a control character.
func (s *scanner) plain() {
	b, i := s.b, s.i
	for ; i+8 <= len(b); i += 8 {
		if found := special(binary.LittleEndian.Uint64(b[i:])); found != 0 {
			s.i = i + bits.TrailingZeros64(found)/8
			return
		}
	}
	for ; i < len(b); i++ {
		if c := b[i]; c == '"' || c == '\\' || c < ' ' {
			break
		}
	}
	s.i = i
}

// special looks at eight bytes at once. The lowest bit that it sets is the highest of the
// first quote, backslash or control character among them; bits above that one mean nothing.
func special(w uint64) uint64 {
	const each = 0x0101010101010101
	// A byte below 0x80 has its highest bit set by the first difference if it is a quote or
	// below a space, since a flip of 0x02 brings these and no others below 0x21, and by the
	// second if it is a backslash.
	return (((w ^ each*0x02) - each*0x21) | ((w ^ each*'\\') - each)) &^ w & (each * 0x80)
}

// escape reads one escape sequence, or the two of a surrogate pair. It says whether it was
// U+0000, and whether it was half of a pair.
func (s *scanner) escape() (nul, surrogate bool) {
	s.i++
	switch s.peek() {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.i++
		return false, false
	case 'u':
	default:
		s.fail("expected an escape sequence of JSON")
		return false, false
	}
	r, ok := hex4(s.b, s.i+1)
	if !ok {
		s.fail("expected four hexadecimal digits")
		return false, false
	}
	s.i += 5
	if !utf16.IsSurrogate(r) {
		return r == 0, false
	}
	if s.peek() == '\\' && s.i+1 < len(s.b) && s.b[s.i+1] == 'u' {
		low, ok := hex4(s.b, s.i+2)
		if ok && utf16.DecodeRune(r, low) != utf8.RuneError {
			s.i += 6
			return false, false
		}
	}
	return false, true
}

func hex4(b []byte, i int) (rune, bool) {
	if i+4 > len(b) {
		return 0, false
	}
	var r rune
	for _, c := range b[i : i+4] {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case c >= 'A' && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
	}
	return r, true
}
