package link

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/linkerhq/linker/pkg/internal/bin"
)

const (
	// MaxFrame is how many bytes of type and body a frame may have.
	MaxFrame = 1 << 20
	// MaxRecord is how long a record, or what a Fast or States carries, may be.
	MaxRecord = MaxFrame - recordsRoom - recordRoom
	// MaxQuestion and MaxAnswer are how long the text of a Question and an Answer may be.
	MaxQuestion, MaxAnswer = 64 << 10, 768 << 10
	// MaxFastQueued is how many bytes may wait to be written when a Fast is queued, a
	// Question or an Answer.
	MaxFastQueued = 4 << 20

	maxHello = 4 << 10 // bytes of the frames that come before the proofs
	maxCode  = 64      // bytes of the code of a refusal
	// maxBatch is how many records one frame holds: an empty list of slices costs
	// its reader 24 bytes for each.
	maxBatch = 8 << 10

	headerSize  = 4  // bytes of a frame's length
	recordsRoom = 24 // bytes of a Records frame without its records, at most
	recordRoom  = 3  // bytes of a record's length, at most
	fixedSize   = 32 // bytes of a body without slices, at most
)

// kind is what a frame is. It is sent: numbers are never used again.
type kind uint8

const (
	kindHello   kind = 1
	kindWelcome kind = 2
	kindPing    kind = 3
	kindPong    kind = 4
	kindRecords kind = 5
	kindAck     kind = 6
	kindRefusal kind = 7
	kindFast    kind = 8
	kindStates  kind = 9
	// Only where the handshake has shown that both sides know them.
	kindQuestion kind = 10
	kindAnswer   kind = 11
)

// ping asks for a pong with the same number, which answers all before it as well.
type ping struct{ n uint64 }

type pong struct{ n uint64 }

func (ping) message() {}
func (pong) message() {}

// appendFrame appends a frame with a message. The message fits: see fits.
func appendFrame(b []byte, m Message) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0, 0)
	var k kind
	switch m := m.(type) {
	case ping:
		k, b = kindPing, bin.AppendUint64(b, m.n)
	case pong:
		k, b = kindPong, bin.AppendUint64(b, m.n)
	case Records:
		k, b = kindRecords, appendRecords(b, m)
	case Ack:
		k, b = kindAck, binary.AppendUvarint(bin.AppendUint64(b, m.Channel), m.UpTo)
	case Refusal:
		b = binary.AppendUvarint(bin.AppendUint64(b, m.Channel), m.N)
		k, b = kindRefusal, bin.AppendString(b, m.Code)
	case Fast:
		k, b = kindFast, append(b, m.Record...)
	case States:
		k, b = kindStates, append(b, m.Entries...)
	case Question:
		k, b = kindQuestion, append(bin.AppendUint64(b, m.N), m.Text...)
	case Answer:
		k, b = kindAnswer, append(bin.AppendUint64(b, m.N), m.Text...)
	case hello:
		k, b = kindHello, appendHello(b, m)
	case welcome:
		k, b = kindWelcome, bin.AppendString(b, m.mac)
	}
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-headerSize))
	b[start+headerSize] = byte(k)
	return b
}

func appendRecords(b []byte, m Records) []byte {
	b = bin.AppendUint64(b, m.Channel)
	b = binary.AppendUvarint(b, m.First)
	b = binary.AppendUvarint(b, uint64(len(m.Records)))
	for _, r := range m.Records {
		b = bin.AppendString(b, r)
	}
	return b
}

// size is how many bytes a message takes on the wire, at most.
func size(m Message) int {
	const frame = headerSize + 1
	switch m := m.(type) {
	case Records:
		n := frame + recordsRoom
		for _, r := range m.Records {
			n += recordRoom + len(r)
		}
		return n
	case Refusal:
		return frame + fixedSize + len(m.Code)
	case Fast:
		return frame + len(m.Record)
	case States:
		return frame + len(m.Entries)
	case Question:
		return frame + fixedSize + len(m.Text)
	case Answer:
		return frame + fixedSize + len(m.Text)
	default:
		return frame + fixedSize
	}
}

// fits says what is wrong with a message that is to be sent; Records are split
// before.
func fits(m Message) error {
	switch m := m.(type) {
	case Records:
		for i, r := range m.Records {
			if len(r) == 0 || len(r) > MaxRecord {
				return fmt.Errorf("record %d of channel %x: %d bytes, expected 1 to %d", m.First+uint64(i), m.Channel, len(r), MaxRecord)
			}
		}
	case Refusal:
		if len(m.Code) > maxCode {
			return fmt.Errorf("code of a refusal: %d bytes, expected at most %d", len(m.Code), maxCode)
		}
	case Fast:
		if len(m.Record) == 0 || len(m.Record) > MaxRecord {
			return fmt.Errorf("fast record: %d bytes, expected 1 to %d", len(m.Record), MaxRecord)
		}
	case States:
		if len(m.Entries) > MaxRecord {
			return fmt.Errorf("states of links: %d bytes, expected at most %d", len(m.Entries), MaxRecord)
		}
	case Question:
		if len(m.Text) == 0 || len(m.Text) > MaxQuestion {
			return fmt.Errorf("question: %d bytes, expected 1 to %d", len(m.Text), MaxQuestion)
		}
	case Answer:
		if len(m.Text) > MaxAnswer {
			return fmt.Errorf("answer: %d bytes, expected at most %d", len(m.Text), MaxAnswer)
		}
	}
	return nil
}

// split cuts records into parts that fit into a frame each.
func split(m Records) []Records {
	var parts []Records
	begin, bytes := 0, 0
	cut := func(end int) {
		parts = append(parts, Records{Channel: m.Channel, First: m.First + uint64(begin), Records: m.Records[begin:end:end]})
		begin, bytes = end, 0
	}
	for i, r := range m.Records {
		need := recordRoom + len(r)
		if i > begin && (bytes+need > MaxFrame-recordsRoom || i-begin == maxBatch) {
			cut(i)
		}
		bytes += need
	}
	cut(len(m.Records))
	return parts
}

// frames reads frames.
type frames struct {
	r     *bufio.Reader
	small [headerSize + 1 + fixedSize]byte
}

// next reads a frame whose type and body have at most limit bytes. Bodies of types
// that hold no slices are valid until the next call only.
func (f *frames) next(limit int) (kind, []byte, error) {
	header := f.small[:headerSize]
	if _, err := io.ReadFull(f.r, header); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(header)
	if n == 0 || uint64(n) > uint64(limit) {
		return 0, nil, fmt.Errorf("%w: a frame of %d bytes, expected 1 to %d", ErrProtocol, n, limit)
	}
	first, err := f.r.ReadByte()
	if err != nil {
		return 0, nil, cut(err)
	}
	k, length := kind(first), int(n)-1
	body := f.small[:min(length, fixedSize)]
	switch k {
	case kindPing, kindPong, kindAck:
		if length > fixedSize {
			return 0, nil, fmt.Errorf("%w: a frame of type %d has %d bytes", ErrProtocol, k, n)
		}
	case kindHello, kindWelcome, kindRecords, kindRefusal, kindFast, kindStates, kindQuestion, kindAnswer:
		body = make([]byte, length)
	default:
		return 0, nil, fmt.Errorf("%w: a frame of the unknown type %d", ErrProtocol, k)
	}
	if _, err := io.ReadFull(f.r, body); err != nil {
		return 0, nil, cut(err)
	}
	return k, body, nil
}

// cut makes the end of the stream in the middle of a frame an unexpected one.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// decode reads the body of a frame. What it returns aliases the body.
func decode(k kind, body []byte) (Message, error) {
	r := bin.NewReader(body)
	var m Message
	switch k {
	case kindPing:
		m = ping{n: r.Uint64()}
	case kindPong:
		m = pong{n: r.Uint64()}
	case kindRecords:
		records, err := decodeRecords(r)
		if err != nil {
			return nil, err
		}
		m = records
	case kindAck:
		m = Ack{Channel: r.Uint64(), UpTo: r.Uvarint()}
	case kindRefusal:
		refusal := Refusal{Channel: r.Uint64(), N: r.Uvarint()}
		code := r.Bytes()
		if len(code) > maxCode {
			return nil, fmt.Errorf("%w: a refusal with a code of %d bytes, expected at most %d", ErrProtocol, len(code), maxCode)
		}
		refusal.Code = string(code)
		m = refusal
	case kindFast:
		if len(body) == 0 {
			return nil, fmt.Errorf("%w: an empty fast record", ErrProtocol)
		}
		return Fast{Record: body}, nil
	case kindStates:
		return States{Entries: body}, nil
	case kindQuestion:
		n, text, err := decodeNumbered(k, body, MaxQuestion)
		if err == nil && len(text) == 0 {
			err = fmt.Errorf("%w: an empty question", ErrProtocol)
		}
		return Question{N: n, Text: text}, err
	case kindAnswer:
		n, text, err := decodeNumbered(k, body, MaxAnswer)
		return Answer{N: n, Text: text}, err
	case kindHello, kindWelcome:
		return nil, fmt.Errorf("%w: a frame of type %d on an open link", ErrProtocol, k)
	default:
		return nil, fmt.Errorf("%w: a frame of the unknown type %d", ErrProtocol, k)
	}
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("%w: frame of type %d: %w", ErrProtocol, k, err)
	}
	return m, nil
}

// decodeNumbered reads a number and a text of at most so many bytes.
func decodeNumbered(k kind, body []byte, most int) (uint64, []byte, error) {
	const number = 8
	if len(body) < number || len(body)-number > most {
		return 0, nil, fmt.Errorf("%w: frame of type %d: %d bytes, expected %d to %d", ErrProtocol, k, len(body), number, number+most)
	}
	return binary.BigEndian.Uint64(body), body[number:], nil
}

func decodeRecords(r *bin.Reader) (Records, error) {
	m := Records{Channel: r.Uint64(), First: r.Uvarint()}
	n := r.Count(2) // a length and a byte
	if n == 0 {
		return Records{}, fmt.Errorf("%w: a frame without records, or with fewer than it says", ErrProtocol)
	}
	if n > maxBatch {
		return Records{}, fmt.Errorf("%w: %d records in a frame, expected at most %d", ErrProtocol, n, maxBatch)
	}
	m.Records = make([][]byte, n)
	for i := range m.Records {
		m.Records[i] = r.Bytes()
		if len(m.Records[i]) == 0 {
			return Records{}, fmt.Errorf("%w: record %d of a frame is empty or cut off", ErrProtocol, i)
		}
	}
	if m.First == 0 || m.First+uint64(n) < m.First {
		return Records{}, fmt.Errorf("%w: %d records from number %d on", ErrProtocol, n, m.First)
	}
	return m, nil
}
