package wire

import (
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// scanner reads a frame in one pass over its bytes (RFC 8259). It checks the
// syntax of everything and keeps, of what matters, where it stands.
type scanner struct {
	b         []byte
	i         int
	top       [topCount]value
	data      [dataFields]value
	duplicate string // the first name that matters and stands twice in its object
	wrong     string // the first syntax error; empty so far
}

// scan reads the whole input.
func (s *scanner) scan() *Problem {
	s.space()
	switch {
	case len(s.b) == 0:
		s.fail("the frame is empty, expected a JSON object")
	case s.peek() != '{':
		s.fail("expected a JSON object")
	default:
		s.object(1, scopeTop, s.top[:])
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
	if !isData || s.peek() != '{' || s.top[topData].kind != kindNone {
		return s.value(depth + 1)
	}
	start := s.i
	s.object(depth+1, scopeData, s.data[:])
	return value{kind: kindObject, raw: s.b[start:s.i]}
}

func (s *scanner) keep(key value, into *value, v value) {
	if into.kind == kindNone {
		*into = v
		return
	}
	if s.duplicate == "" {
		s.duplicate = key.text()
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
	kind := kindNone
	switch c := s.peek(); {
	case c == '"':
		return s.str()
	case c == '{':
		kind = kindObject
		s.object(depth, scopeOther, nil)
	case c == '[':
		kind = kindArray
		s.array(depth)
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
	return value{kind: kind, raw: s.b[start:s.i]}
}

func (s *scanner) array(depth int) {
	if depth > MaxNesting {
		s.fail("nested too deep, expected at most " + strconv.Itoa(MaxNesting) + " levels")
		return
	}
	s.i++
	s.space()
	if s.peek() == ']' {
		s.i++
		return
	}
	for s.wrong == "" {
		s.value(depth + 1)
		if s.next(']') {
			return
		}
	}
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
	v := value{kind: kindString}
	start := s.i
	s.i++
	for s.i < len(s.b) {
		switch c := s.b[s.i]; {
		case c == '"':
			s.i++
			v.raw = s.b[start:s.i]
			return v
		case c == '\\':
			v.escaped = true
			s.escape(&v)
		case c < 0x20:
			s.fail("a control character in a string, expected it escaped")
		default:
			s.i++
		}
	}
	s.fail(`expected '"'`)
	return value{}
}

// escape reads one escape sequence, or the two of a surrogate pair.
func (s *scanner) escape(v *value) {
	s.i++
	switch s.peek() {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.i++
		return
	case 'u':
	default:
		s.fail("expected an escape sequence of JSON")
		return
	}
	r, ok := hex4(s.b, s.i+1)
	if !ok {
		s.fail("expected four hexadecimal digits")
		return
	}
	s.i += 5
	if r == 0 {
		v.nul = true
	}
	if !utf16.IsSurrogate(r) {
		return
	}
	if s.peek() == '\\' && s.i+1 < len(s.b) && s.b[s.i+1] == 'u' {
		low, ok := hex4(s.b, s.i+2)
		if ok && utf16.DecodeRune(r, low) != utf8.RuneError {
			s.i += 6
			return
		}
	}
	v.surrogate = true
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
