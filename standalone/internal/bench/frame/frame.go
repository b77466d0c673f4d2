// Package frame speaks the websocket protocol as far as a load generator needs it:
// the handshake, and frames in buffers of the caller's. It reads and writes nothing
// itself and allocates nothing for a frame.
//
// Frames of clients are masked with the key 0, which leaves their content as it is:
// a server cannot tell, and neither side pays for it.
package frame

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Opcode says what a frame is.
type Opcode byte

// The opcodes of RFC 6455.
const (
	Continuation Opcode = 0x0
	Text         Opcode = 0x1
	Binary       Opcode = 0x2
	Close        Opcode = 0x8
	Ping         Opcode = 0x9
	Pong         Opcode = 0xa
)

// String is the name of the opcode.
func (o Opcode) String() string {
	switch o {
	case Continuation:
		return "continuation"
	case Text:
		return "text"
	case Binary:
		return "binary"
	case Close:
		return "close"
	case Ping:
		return "ping"
	case Pong:
		return "pong"
	default:
		return fmt.Sprintf("opcode %#x", byte(o))
	}
}

// isControl says whether frames of this kind may stand between those of a message.
func (o Opcode) isControl() bool { return o&0x8 != 0 }

const (
	bitFinal   = 0x80
	bitsUnused = 0x70
	bitMask    = 0x80
	maxShort   = 125 // bytes of a payload whose length stands in the second byte
	maxMedium  = 1<<16 - 1
	maskBytes  = 4
)

// MaxHeader is how many bytes stand before the payload of a client's frame at most.
const MaxHeader = 2 + 8 + maskBytes

// Frame is one frame of a server. The payload lies in the buffer that it was read from.
type Frame struct {
	Opcode  Opcode
	Final   bool
	Payload []byte
}

// What a server may not send.
var (
	ErrReserved = errors.New("a frame with reserved bits")
	ErrMasked   = errors.New("a masked frame of a server")
	ErrOpcode   = errors.New("a frame of an unknown kind")
	ErrControl  = errors.New("a control frame that is too long or in parts")
	ErrTooLong  = errors.New("a frame longer than any buffer")
)

// Read reads the first frame of b and says how many bytes it has. It is 0 while the
// frame is not there as a whole. No frame is longer than most bytes.
func Read(b []byte, most int) (Frame, int, error) {
	if len(b) < 2 {
		return Frame{}, 0, nil
	}
	f := Frame{Opcode: Opcode(b[0] & 0xf), Final: b[0]&bitFinal != 0}
	switch {
	case b[0]&bitsUnused != 0:
		return Frame{}, 0, ErrReserved
	case b[1]&bitMask != 0:
		return Frame{}, 0, ErrMasked
	case f.Opcode > Binary && f.Opcode < Close || f.Opcode > Pong:
		return Frame{}, 0, ErrOpcode
	}
	length, header := uint64(b[1]), 2
	if f.Opcode.isControl() && (length > maxShort || !f.Final) {
		return Frame{}, 0, ErrControl
	}
	switch length {
	case maxShort + 1:
		header += 2
		if len(b) < header {
			return Frame{}, 0, nil
		}
		length = uint64(binary.BigEndian.Uint16(b[2:]))
	case maxShort + 2:
		header += 8
		if len(b) < header {
			return Frame{}, 0, nil
		}
		length = binary.BigEndian.Uint64(b[2:])
	}
	if most < header || length > uint64(most-header) {
		return Frame{}, 0, ErrTooLong
	}
	end := header + int(length)
	if len(b) < end {
		return Frame{}, 0, nil
	}
	f.Payload = b[header:end]
	return f, end, nil
}

// Append appends a frame of a client.
func Append(b []byte, o Opcode, payload []byte) []byte {
	return append(AppendHeader(b, o, len(payload)), payload...)
}

// AppendHeader appends what stands before a payload of so many bytes.
func AppendHeader(b []byte, o Opcode, length int) []byte {
	b = append(b, bitFinal|byte(o))
	switch {
	case length <= maxShort:
		b = append(b, bitMask|byte(length))
	case length <= maxMedium:
		b = append(b, bitMask|(maxShort+1))
		b = binary.BigEndian.AppendUint16(b, uint16(length))
	default:
		b = append(b, bitMask|(maxShort+2))
		b = binary.BigEndian.AppendUint64(b, uint64(length))
	}
	return append(b, 0, 0, 0, 0) // the key of the mask
}

// CloseCode is what a close frame says; 1005, no code, if it says nothing.
func CloseCode(payload []byte) int {
	const noCode = 1005
	if len(payload) < 2 {
		return noCode
	}
	return int(binary.BigEndian.Uint16(payload))
}
