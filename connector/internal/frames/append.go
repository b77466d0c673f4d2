package frames

import "encoding/binary"

// First bytes of what a server sends: whole frames, never masked.
const (
	textFrame  = fin | opText
	closeFrame = fin | opClose
	pingFrame  = fin | opPing
	pongFrame  = fin | opPong
)

// AppendText appends a text frame.
func AppendText(b, text []byte) []byte { return append(AppendTextHeader(b, len(text)), text...) }

// AppendTextHeader appends the header of a text frame; n bytes of text are to follow.
func AppendTextHeader(b []byte, n int) []byte { return appendHeader(b, textFrame, n) }

// AppendPing appends a ping. The payload has at most 125 bytes.
func AppendPing(b, payload []byte) []byte {
	return append(appendHeader(b, pingFrame, len(payload)), payload...)
}

// AppendPong appends the answer to a ping, with the ping's payload.
func AppendPong(b, payload []byte) []byte {
	return append(appendHeader(b, pongFrame, len(payload)), payload...)
}

// AppendClose appends a close frame. The reason has at most 123 bytes.
func AppendClose(b []byte, code uint16, reason string) []byte {
	b = binary.BigEndian.AppendUint16(appendHeader(b, closeFrame, 2+len(reason)), code)
	return append(b, reason...)
}

// AppendCloseAnswer appends the answer to a client's close frame: the same payload.
func AppendCloseAnswer(b, payload []byte) []byte {
	return append(appendHeader(b, closeFrame, len(payload)), payload...)
}

func appendHeader(b []byte, first byte, n int) []byte {
	switch {
	case n <= maxControl:
		return append(b, first, byte(n))
	case n < 1<<16:
		return append(b, first, 126, byte(n>>8), byte(n))
	default:
		return binary.BigEndian.AppendUint64(append(b, first, 127), uint64(n))
	}
}
