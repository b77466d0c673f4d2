// Package frames is the framing of RFC 6455 as a server needs it: Reader takes the
// bytes of a client apart, wherever they were cut, and the Append functions write
// what a server sends. It does no I/O, so that whoever owns the connection decides
// when to read and how long to keep a buffer: an idle connection holds none.
//
// The handshake is not its business, nor are extensions: none are negotiated.
package frames

import (
	"encoding/binary"
	"unicode/utf8"
)

// Opcodes (RFC 6455, section 5.2).
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xa
)

const (
	fin        = 0x80
	reserved   = 0x70
	masked     = 0x80
	maxControl = 125 // bytes of the payload of a control frame
	maxHeader  = 14  // bytes of the header of a client's frame
	minHeader  = 6   // bytes of its shortest one
)

// Kind says what a client has sent.
type Kind uint8

// The kinds.
const (
	None     Kind = iota // nothing whole yet: more bytes are needed
	Text                 // a whole text message; whether it is UTF-8 was not looked at
	Binary               // a whole binary message
	Ping                 // to be answered with the same payload
	Pong                 // asked for or not
	Close                // the payload is empty, or holds a code that may stand there and a reason
	TooLarge             // a message beyond the limit; nothing more can be read
	Invalid              // against the protocol; nothing more can be read
)

// Reader takes apart what one client sends. It is for one goroutine.
type Reader struct {
	limit   int    // bytes of one message
	rest    []byte // of a frame that is not whole yet
	message []byte // the fragments so far
	kind    Kind   // of the message whose fragments come; None: none is under way
	failed  Kind   // TooLarge or Invalid, for ever
}

// NewReader returns a Reader for messages of at most limit bytes, each fragmented or
// not.
func NewReader(limit int) Reader { return Reader{limit: limit} }

// Next takes apart the bytes that were read, and returns what comes first in them and
// the bytes behind it. Whole frames are unmasked where they lie, so the payload is
// valid as long as b is not written to, and until the next call. None says that
// everything is taken: what is not whole is kept, at most the limit and a header.
func (r *Reader) Next(b []byte) (kind Kind, payload, rest []byte) {
	if r.failed != None {
		return r.failed, nil, nil
	}
	for {
		var frame []byte
		frame, b = r.whole(b)
		if r.failed != None {
			return r.failed, nil, nil
		}
		if frame == nil {
			return None, nil, nil
		}
		kind, payload := r.take(frame)
		if kind != None {
			return kind, payload, b
		}
	}
}

// whole returns the first frame, once all of it is there, and the bytes behind it.
func (r *Reader) whole(b []byte) (frame, rest []byte) {
	if len(r.rest) == 0 {
		n := r.length(b)
		if n > 0 && n <= len(b) {
			return b[:n], b[n:]
		}
		if r.failed == None && len(b) > 0 {
			// Room as bytes come, not as they are announced.
			r.rest = append(make([]byte, 0, max(len(b), maxHeader)), b...)
		}
		return nil, nil
	}
	// The header first: it says how much is missing.
	for len(b) > 0 && len(r.rest) < maxHeader && r.length(r.rest) == 0 && r.failed == None {
		r.rest = append(r.rest, b[0])
		b = b[1:]
	}
	n := r.length(r.rest)
	if n == 0 || r.failed != None {
		return nil, nil
	}
	missing := n - len(r.rest)
	if missing > len(b) {
		r.rest = append(r.rest, b...)
		return nil, nil
	}
	frame = append(r.rest, b[:missing]...)
	r.rest = nil
	return frame, b[missing:]
}

// length returns how long the first frame is, header included, and 0 as long as that
// cannot be told. It judges what the header says.
func (r *Reader) length(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	op, n, header := b[0]&0xf, uint64(b[1]&^masked), minHeader
	switch {
	case b[0]&reserved != 0 || b[1]&masked == 0:
		r.failed = Invalid
		return 0
	case op >= opClose && (op > opPong || n > maxControl || b[0]&fin == 0), op > opBinary && op < opClose:
		r.failed = Invalid
		return 0
	case op == opContinuation != (r.kind != None) && op < opClose:
		r.failed = Invalid // a message within a message, or the rest of none
		return 0
	}
	switch n {
	case 126:
		if len(b) < 4 {
			return 0
		}
		n, header = uint64(binary.BigEndian.Uint16(b[2:])), minHeader+2
	case 127:
		if len(b) < 10 {
			return 0
		}
		n, header = binary.BigEndian.Uint64(b[2:]), minHeader+8
	}
	if op < opClose && (n > uint64(r.limit) || int(n)+len(r.message) > r.limit) {
		r.failed = TooLarge
		return 0
	}
	if len(b) < header {
		return 0
	}
	return header + int(n)
}

// take unmasks a whole frame and says what it ends: None if the message goes on.
func (r *Reader) take(frame []byte) (Kind, []byte) {
	header := minHeader
	switch frame[1] &^ masked {
	case 126:
		header += 2
	case 127:
		header += 8
	}
	payload := frame[header:]
	unmask(payload, [4]byte(frame[header-4:]))
	switch frame[0] & 0xf {
	case opPing:
		return Ping, payload
	case opPong:
		return Pong, payload
	case opClose:
		if !validClose(payload) {
			r.failed = Invalid
			return Invalid, nil
		}
		return Close, payload
	case opText:
		r.kind = Text
	case opBinary:
		r.kind = Binary
	}
	kind := r.kind
	last := frame[0]&fin != 0
	if last {
		r.kind = None
	}
	if last && len(r.message) == 0 {
		return kind, payload
	}
	r.message = append(r.message, payload...)
	if !last {
		return None, nil
	}
	payload = r.message
	r.message = nil
	return kind, payload
}

// validClose says whether a close frame may say this (RFC 6455, section 7.4).
func validClose(payload []byte) bool {
	if len(payload) == 0 {
		return true
	}
	if len(payload) == 1 || !utf8.Valid(payload[2:]) {
		return false
	}
	switch code := binary.BigEndian.Uint16(payload); {
	case code == 1004 || code == 1005 || code == 1006:
		return false
	case code >= 1000 && code <= 1014:
		return true
	default:
		return code >= 3000 && code <= 4999
	}
}

// unmask undoes what the client has done with its key.
func unmask(b []byte, key [4]byte) {
	narrow := binary.NativeEndian.Uint32(key[:])
	wide := uint64(narrow)<<32 | uint64(narrow)
	for len(b) >= 32 {
		binary.NativeEndian.PutUint64(b, binary.NativeEndian.Uint64(b)^wide)
		binary.NativeEndian.PutUint64(b[8:], binary.NativeEndian.Uint64(b[8:])^wide)
		binary.NativeEndian.PutUint64(b[16:], binary.NativeEndian.Uint64(b[16:])^wide)
		binary.NativeEndian.PutUint64(b[24:], binary.NativeEndian.Uint64(b[24:])^wide)
		b = b[32:]
	}
	for i := range b {
		b[i] ^= key[i&3]
	}
}
