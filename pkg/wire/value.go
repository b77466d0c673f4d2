package wire

import (
	"math"
	"unicode/utf16"
	"unicode/utf8"
)

type kind uint8

const (
	kindNone kind = iota // not there
	kindNull
	kindTrue
	kindFalse
	kindNumber
	kindString
	kindArray
	kindObject
)

// value is where a value stands in the input, which is known to be well formed.
type value struct {
	raw       []byte // quotes included
	count     int32  // of an array: its elements
	kind      kind
	escaped   bool // of a string: holds escape sequences
	nul       bool // of a string: holds U+0000
	surrogate bool // of a string: holds half of a surrogate pair
}

func (v *value) absent() bool { return v.kind == kindNone || v.kind == kindNull }

func (v *value) inner() []byte { return v.raw[1 : len(v.raw)-1] }

// says reports whether the value is the string with this text.
func (v *value) says(text string) bool {
	switch {
	case v.kind != kindString:
		return false
	case v.escaped:
		return v.text() == text
	default:
		return string(v.inner()) == text
	}
}

// text returns what a string says.
func (v *value) text() string {
	if !v.escaped {
		return string(v.inner())
	}
	in := v.inner()
	out := make([]byte, 0, len(in))
	for i := 0; i < len(in); {
		if in[i] != '\\' {
			out = append(out, in[i])
			i++
			continue
		}
		i++
		switch in[i] {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, _ := hex4(in, i+1)
			i += 4
			if low, ok := hex4(in, i+3); utf16.IsSurrogate(r) && ok && in[i+1] == '\\' && in[i+2] == 'u' {
				if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
					r = pair
					i += 6
				}
			}
			out = utf8.AppendRune(out, r)
		default: // '"', '\\', '/'
			out = append(out, in[i])
		}
		i++
	}
	return string(out)
}

// name returns what a string says if it can name something: no U+0000, no half
// of a surrogate pair, at most so many characters.
func (v *value) name(most int) (string, bool) {
	if v.kind != kindString || v.nul || v.surrogate {
		return "", false
	}
	text := v.text()
	return text, utf8.RuneCountInString(text) <= most
}

// whole returns a number that is written as digits only; one beyond the range
// is the largest.
func (v *value) whole() (uint64, bool) {
	if v.kind != kindNumber {
		return 0, false
	}
	var n uint64
	for _, c := range v.raw {
		if c < '0' || c > '9' {
			return 0, false
		}
		if n > (math.MaxUint64-9)/10 {
			return math.MaxUint64, allDigits(v.raw)
		}
		n = n*10 + uint64(c-'0')
	}
	return n, true
}

func allDigits(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// elements returns a scanner of the elements of an array.
func (v *value) elements() scanner { return scanner{b: v.raw, i: 1} }

// element reads the next element of an array that is known to have one.
func (s *scanner) element() value {
	s.beforeElement()
	return s.value(1)
}

// beforeElement moves on to the next element.
func (s *scanner) beforeElement() {
	s.space()
	if s.peek() == ',' {
		s.i++
		s.space()
	}
}

// describe is the value as an error message shows it.
func (v *value) describe() string {
	if v.kind == kindNone {
		return "missing"
	}
	return clip(string(v.raw))
}
