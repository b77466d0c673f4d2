// Package bin reads and writes the primitives of Linker's binary encodings:
// varints, length-prefixed bytes and fixed-size values. A Reader remembers its
// first error, so that a decoder checks once at its end.
package bin

import (
	"encoding/binary"
	"errors"
)

// ErrMalformed is what a Reader reports for any input that does not fit: cut
// short, a number that overflows, a length beyond the end, or bytes left over.
var ErrMalformed = errors.New("malformed encoding")

// AppendString appends the length of s and s.
func AppendString[T ~string | ~[]byte](b []byte, s T) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// AppendUint64 appends eight bytes, big-endian.
func AppendUint64(b []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(b, v) }

// Reader takes values from the front of a byte slice.
type Reader struct {
	all  []byte
	rest []byte
	bad  bool

	shared string // a copy of a part of all …
	from   int    // … that begins here
	next   int    // how long the next copy is; 0: none was made
}

// NewReader returns a Reader of b, which it never changes.
func NewReader(b []byte) *Reader { return &Reader{all: b, rest: b} }

// Byte takes one byte.
func (r *Reader) Byte() byte {
	b := r.take(1)
	if b == nil {
		return 0
	}
	return b[0]
}

// Uvarint takes an unsigned varint.
func (r *Reader) Uvarint() uint64 {
	if len(r.rest) > 0 && r.rest[0] < 0x80 { // most are small
		v := uint64(r.rest[0])
		r.rest = r.rest[1:]
		return v
	}
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// Varint takes a signed varint.
func (r *Reader) Varint() int64 {
	v, n := binary.Varint(r.rest)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// Uint64 takes eight bytes, big-endian.
func (r *Reader) Uint64() uint64 {
	b := r.take(8)
	if b == nil {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

// Copy fills dst.
func (r *Reader) Copy(dst []byte) { copy(dst, r.take(len(dst))) }

// Bytes takes a length-prefixed slice, which aliases the input.
func (r *Reader) Bytes() []byte {
	n := r.Uvarint()
	if n > uint64(len(r.rest)) {
		r.fail()
		return nil
	}
	return r.take(int(n))
}

// String takes a length-prefixed string.
func (r *Reader) String() string { return string(r.Bytes()) }

const (
	sharedFirst = 80   // bytes of the first piece that strings share,
	sharedMost  = 4096 // and of the longest
)

// Shared takes a length-prefixed string. Strings that are taken one after another share a
// piece of memory, with what lies between them: who keeps one for long had better clone it.
func (r *Reader) Shared() string {
	n := len(r.Bytes())
	if n == 0 {
		return ""
	}
	at := len(r.all) - len(r.rest) - n
	if at+n > r.from+len(r.shared) {
		r.next = max(r.next, sharedFirst)
		r.from, r.shared = at, string(r.all[at:min(at+max(n, r.next), len(r.all))])
		r.next = min(2*r.next, sharedMost)
	}
	return r.shared[at-r.from : at-r.from+n]
}

// Count takes the number of elements of a list, each of which needs at least
// size bytes: a hostile count cannot make the caller allocate more than the
// input could hold.
func (r *Reader) Count(size int) int {
	n := r.Uvarint()
	if n > uint64(len(r.rest)/size) {
		r.fail()
		return 0
	}
	return int(n)
}

// Close reports ErrMalformed if anything did not fit or is left over.
func (r *Reader) Close() error {
	if r.bad || len(r.rest) > 0 {
		return ErrMalformed
	}
	return nil
}

func (r *Reader) take(n int) []byte {
	if n > len(r.rest) {
		r.fail()
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *Reader) fail() {
	r.bad = true
	r.rest = nil
}

// More says whether anything is left to take.
func (r *Reader) More() bool { return len(r.rest) > 0 }
