// Package message is what a load generator says and reads: messages whose content
// tells their number and the time that counts for them, written without an encoder
// and read without a decoder.
package message

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/linkerhq/linker/standalone/internal/bench/frame"
)

// Feature is how messages travel.
type Feature string

// The features.
const (
	Reliable Feature = "RELIABLE"
	Fast     Feature = "FAST"
)

// The header of a content: the run, number and time, all of them of one width.
const (
	digits      = 16
	headerBytes = RunBytes + digits + 1 + digits + 1
)

// RunBytes is how long the name of a run is, which keeps its messages apart from those
// that an earlier one has left.
const RunBytes = 8

// MinSize is how many characters a content has at least.
const MinSize = headerBytes

// referenceBytes is how long every reference is.
const referenceBytes = digits + 1 + digits

// Header is what the head of a content says.
type Header struct {
	Number int64 // of the message among those of its sender, from 1
	Time   int64 // in ns on the generator's clock: from when its latency counts
}

// Format is what all messages of a sender have in common.
type Format struct {
	Run        string   // RunBytes letters and digits
	To         []string // one receiver, or the members of a group message
	Group      bool
	Size       int // characters of the content, at least MinSize
	Feature    Feature
	References bool // each message has one, its number and its time
	Confirm    bool // else confirmationEnabled is false
	IDs        bool // each has an id, its run, number and time: sent again, it is the same message
}

// Template is a frame of a client whose header and reference change from message to
// message. It belongs to one goroutine.
type Template struct {
	frame       []byte
	headerAt    int
	referenceAt int // 0: there is none
	idAt        int // the same
}

// NewTemplate writes a frame for messages of that format.
func NewTemplate(f Format) *Template {
	var b strings.Builder
	to := strconv.Quote(f.To[0])
	kind := "MESSAGE"
	if f.Group {
		kind, to = "GROUP_MESSAGE", `["`+strings.Join(f.To, `","`)+`"]`
	}
	b.WriteString(`{"type":"` + kind + `","data":{"to":` + to + `,"content":"`)
	headerAt := b.Len()
	b.WriteString(f.Run + strings.Repeat("-", headerBytes-RunBytes))
	for n := headerBytes; n < f.Size; n++ {
		b.WriteByte('a' + byte(n%26))
	}
	b.WriteString(`"},"feature":"` + string(f.Feature) + `"`)
	if !f.Confirm {
		b.WriteString(`,"confirmationEnabled":false`)
	}
	referenceAt := 0
	if f.References {
		b.WriteString(`,"reference":"`)
		referenceAt = b.Len()
		b.WriteString(strings.Repeat("-", referenceBytes) + `"`)
	}
	idAt := 0
	if f.IDs {
		b.WriteString(`,"id":"` + f.Run)
		idAt = b.Len()
		b.WriteString(strings.Repeat("-", referenceBytes) + `"`)
	}
	b.WriteString("}")
	t := &Template{frame: frame.Append(nil, frame.Text, []byte(b.String()))}
	before := len(t.frame) - b.Len()
	t.headerAt = before + headerAt
	if referenceAt > 0 {
		t.referenceAt = before + referenceAt
	}
	if idAt > 0 {
		t.idAt = before + idAt
	}
	return t
}

// Frame returns the frame of a message. It is good until the next call.
func (t *Template) Frame(h Header) []byte {
	h.put(t.frame[t.headerAt+RunBytes:])
	if t.referenceAt > 0 {
		h.put(t.frame[t.referenceAt:])
	}
	if t.idAt > 0 {
		h.put(t.frame[t.idAt:])
	}
	return t.frame
}

// put writes the number and the time.
func (h Header) put(b []byte) {
	putHex(b, h.Number)
	putHex(b[digits+1:], h.Time)
}

// readHeader reads what put has written.
func readHeader(b []byte) (Header, bool) {
	if len(b) < 2*digits+1 || b[digits] != '-' {
		return Header{}, false
	}
	number, first := readHex(b)
	time, second := readHex(b[digits+1:])
	return Header{number, time}, first && second
}

const hexDigits = "0123456789abcdef"

// putHex writes a number in its full width.
func putHex(b []byte, n int64) {
	u := uint64(n)
	for i := digits - 1; i >= 0; i-- {
		b[i] = hexDigits[u&0xf]
		u >>= 4
	}
}

// readHex reads a number in its full width.
func readHex(b []byte) (int64, bool) {
	if len(b) < digits {
		return 0, false
	}
	var u uint64
	for _, c := range b[:digits] {
		switch {
		case c >= '0' && c <= '9':
			u = u<<4 | uint64(c-'0')
		case c >= 'a' && c <= 'f':
			u = u<<4 | uint64(c-'a'+10)
		default:
			return 0, false
		}
	}
	return int64(u), true
}

// Kind is what a frame of a server is, as far as it matters here.
type Kind int

// The kinds.
const (
	Other Kind = iota
	Delivered
	Confirmed
	Accepted
	Failed // DELIVER_FAILED, INVALID_MESSAGE or AUTH_REQUIRED
	LoggedIn
	Going   // GO_AWAY
	Fetched // FETCH_MISSING_MESSAGES_COMPLETE
)

// String is the name of the kind.
func (k Kind) String() string {
	switch k {
	case Other:
		return "other"
	case Delivered:
		return "delivered"
	case Confirmed:
		return "confirmed"
	case Accepted:
		return "accepted"
	case Failed:
		return "failed"
	case LoggedIn:
		return "logged in"
	case Going:
		return "going"
	case Fetched:
		return "fetched"
	default:
		return "kind " + strconv.Itoa(int(k))
	}
}

const typeStart = `{"type":"`

// KindOf looks at the type of a frame.
func KindOf(payload []byte) Kind {
	if !bytes.HasPrefix(payload, []byte(typeStart)) {
		return Other
	}
	name := payload[len(typeStart):]
	before, _, ok := bytes.Cut(name, []byte{'"'})
	if !ok {
		return Other
	}
	switch string(before) {
	case "MESSAGE":
		return Delivered
	case "MESSAGE_CONFIRMATION":
		return Confirmed
	case "MESSAGE_ACCEPTED":
		return Accepted
	case "DELIVER_FAILED", "INVALID_MESSAGE", "AUTH_REQUIRED":
		return Failed
	case "AUTH_CLIENT_REPLY":
		return LoggedIn
	case "GO_AWAY":
		return Going
	case "FETCH_MISSING_MESSAGES_COMPLETE":
		return Fetched
	default:
		return Other
	}
}

const contentStart = `"content":"`

// What a delivered frame can be that is not one of those that were sent.
var (
	ErrDamaged  = errors.New("not a message as it was sent")
	ErrStranger = errors.New("a message of another run")
)

// ScanMessage reads the head of the content of a delivered message of a run, which has
// size characters, and looks whether it ends where it should.
func ScanMessage(payload []byte, run string, size int) (Header, error) {
	_, after, ok := bytes.Cut(payload, []byte(contentStart))
	if !ok {
		return Header{}, ErrDamaged
	}
	content := after
	if len(content) <= headerBytes {
		return Header{}, ErrDamaged
	}
	h, is := readHeader(content[RunBytes:])
	switch {
	case !is:
		return Header{}, ErrDamaged
	case string(content[:RunBytes]) != run:
		return Header{}, ErrStranger
	case size < headerBytes || len(content) <= size || content[size] != '"':
		return Header{}, ErrDamaged
	}
	return h, nil
}

// ScanReference reads the header in the reference of an answer.
func ScanReference(payload []byte) (Header, bool) {
	const start = `"reference":"`
	_, after, ok := bytes.Cut(payload, []byte(start))
	if !ok {
		return Header{}, false
	}
	return readHeader(after)
}

// ScanSeq reads the number that a frame has for sockets that acknowledge. It stands
// at the top of the frame: before its data or behind it.
func ScanSeq(payload []byte) (int64, bool) { return scanNumber(payload, `"seq":`) }

// ScanLeft reads how much is stored beyond what a fetch has brought.
func ScanLeft(payload []byte) (int64, bool) { return scanNumber(payload, `"leftMissingCount":`) }

// scanNumber reads the number behind a name.
func scanNumber(payload []byte, start string) (int64, bool) {
	_, after, ok := bytes.Cut(payload, []byte(start))
	if !ok {
		return 0, false
	}
	var n int64
	seen := false
	for _, c := range after {
		if c < '0' || c > '9' || n > 1<<53 {
			break
		}
		n, seen = n*10+int64(c-'0'), true
	}
	return n, seen
}

// Check reads a delivered frame with a decoder, and says what is wrong with it
// compared to what the scanner has seen.
func Check(payload []byte, scanned Header, from string, size int) error {
	var f struct {
		Type string
		Data struct{ From, Content string }
	}
	if err := json.Unmarshal(payload, &f); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	h, _ := readHeader([]byte(f.Data.Content[min(RunBytes, len(f.Data.Content)):]))
	switch {
	case f.Type != "MESSAGE":
		return fmt.Errorf("%w: its type is %q", ErrDamaged, f.Type)
	case f.Data.From != from:
		return fmt.Errorf("%w: it is from %q, expected %q", ErrDamaged, f.Data.From, from)
	case len(f.Data.Content) != size:
		return fmt.Errorf("%w: its content has %d bytes, expected %d", ErrDamaged, len(f.Data.Content), size)
	case h != scanned:
		return fmt.Errorf("%w: its number is %d, and was taken for %d", ErrDamaged, h.Number, scanned.Number)
	default:
		return nil
	}
}

// Answer is what a frame that is no message says, read with a decoder.
type Answer struct {
	Type            string
	Code            string
	Reason          string
	IsAuthenticated bool
}

// ReadAnswer decodes a frame that is no message.
func ReadAnswer(payload []byte) (Answer, error) {
	var f struct {
		Type string
		Data struct {
			Code, Reason    string
			IsAuthenticated bool
		}
	}
	if err := json.Unmarshal(payload, &f); err != nil {
		return Answer{}, fmt.Errorf("read a frame: %w", err)
	}
	return Answer{f.Type, f.Data.Code, f.Data.Reason, f.Data.IsAuthenticated}, nil
}

// Login is who a client says it is.
type Login struct {
	AppID, UserID, Token string
	Features             []string // nil: the field is left out
}

// AppendLogin appends the AUTH_CLIENT frame of a client.
func AppendLogin(b []byte, l Login) ([]byte, error) {
	data := struct {
		AppID    string   `json:"appId"`
		UserID   string   `json:"userId"`
		Token    string   `json:"token"`
		Features []string `json:"features,omitzero"` // an empty list is one
	}{l.AppID, l.UserID, l.Token, l.Features}
	payload, err := json.Marshal(struct {
		Type string `json:"type"`
		Data any    `json:"data"`
	}{"AUTH_CLIENT", data})
	if err != nil {
		return nil, fmt.Errorf("write a login: %w", err)
	}
	return frame.Append(b, frame.Text, payload), nil
}

// AppendAck appends a MESSAGE_ACK frame.
func AppendAck(b []byte, upTo int64) []byte {
	const start = `{"type":"MESSAGE_ACK","data":{"upTo":`
	var number [20]byte
	text := strconv.AppendInt(number[:0], upTo, 10)
	b = frame.AppendHeader(b, frame.Text, len(start)+len(text)+2)
	b = append(b, start...)
	b = append(b, text...)
	return append(b, `}}`...)
}

// AppendFetch appends a frame that fetches so many messages.
func AppendFetch(b []byte, count int) []byte {
	return frame.Append(b, frame.Text, []byte(`{"type":"FETCH_MISSING_MESSAGES_REQUEST","data":{"count":`+strconv.Itoa(count)+`}}`))
}
