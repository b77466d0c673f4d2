package frames

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"testing"
)

// frame is a frame as a client sends it.
func frame(first byte, payload string) []byte {
	key := [4]byte{0x9b, 0x01, 0xfe, 0x77}
	b := []byte{first}
	switch n := len(payload); {
	case n <= maxControl:
		b = append(b, masked|byte(n))
	case n < 1<<16:
		b = append(b, masked|126, byte(n>>8), byte(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, masked|127), uint64(n))
	}
	b = append(b, key[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^key[i&3])
	}
	return b
}

type event struct {
	kind    Kind
	payload string
}

// read feeds a copy of the bytes in pieces, until they are over or nothing more can be read.
func read(r *Reader, b []byte, piece func() int) []event {
	var events []event
	for len(b) > 0 {
		n := min(max(piece(), 1), len(b))
		part := bytes.Clone(b[:n])
		b = b[n:]
		for {
			kind, payload, rest := r.Next(part)
			if kind == None {
				break
			}
			events = append(events, event{kind, string(payload)})
			if kind == TooLarge || kind == Invalid {
				return events
			}
			part = rest
		}
	}
	return events
}

const limit = 70_000

func stream(list ...[]byte) []byte { return bytes.Join(list, nil) }

var cases = map[string]struct {
	bytes []byte
	want  []event
}{
	"a text":               {frame(fin|opText, "hello"), []event{{Text, "hello"}}},
	"an empty text":        {frame(fin|opText, ""), []event{{Text, ""}}},
	"a binary message":     {frame(fin|opBinary, "\x00"), []event{{Binary, "\x00"}}},
	"of 125 bytes":         {frame(fin|opText, strings.Repeat("a", 125)), []event{{Text, strings.Repeat("a", 125)}}},
	"of 126 bytes":         {frame(fin|opText, strings.Repeat("a", 126)), []event{{Text, strings.Repeat("a", 126)}}},
	"of 65,535 bytes":      {frame(fin|opText, strings.Repeat("a", 65535)), []event{{Text, strings.Repeat("a", 65535)}}},
	"of 65,536 bytes":      {frame(fin|opText, strings.Repeat("a", 65536)), []event{{Text, strings.Repeat("a", 65536)}}},
	"of just the limit":    {frame(fin|opText, strings.Repeat("a", limit)), []event{{Text, strings.Repeat("a", limit)}}},
	"beyond the limit":     {frame(fin|opText, strings.Repeat("a", limit+1)), []event{{TooLarge, ""}}},
	"two in one":           {stream(frame(fin|opText, "a"), frame(fin|opText, "b")), []event{{Text, "a"}, {Text, "b"}}},
	"a ping":               {frame(fin|opPing, "x"), []event{{Ping, "x"}}},
	"a pong nobody wanted": {frame(fin|opPong, ""), []event{{Pong, ""}}},
	"fragments": {
		stream(frame(opText, "he"), frame(opContinuation, "l"), frame(opContinuation, ""), frame(fin|opContinuation, "lo"), frame(fin|opText, "next")),
		[]event{{Text, "hello"}, {Text, "next"}},
	},
	"empty fragments": {
		stream(frame(opBinary, ""), frame(fin|opContinuation, "")), []event{{Binary, ""}},
	},
	"a ping among fragments": {
		stream(frame(opText, "he"), frame(fin|opPing, "p"), frame(fin|opContinuation, "llo")), []event{{Ping, "p"}, {Text, "hello"}},
	},
	"fragments beyond the limit": {
		stream(frame(opText, strings.Repeat("a", limit)), frame(fin|opContinuation, "b")), []event{{TooLarge, ""}},
	},
	"a close":              {frame(fin|opClose, "\x03\xe8bye"), []event{{Close, "\x03\xe8bye"}}},
	"a close without code": {frame(fin|opClose, ""), []event{{Close, ""}}},
	"an app's close code":  {frame(fin|opClose, "\x11\x3a"), []event{{Close, "\x11\x3a"}}},
	"half a close code":    {frame(fin|opClose, "\x03"), []event{{Invalid, ""}}},
	"code 1005":            {frame(fin|opClose, "\x03\xed"), []event{{Invalid, ""}}},
	"code 999":             {frame(fin|opClose, "\x03\xe7"), []event{{Invalid, ""}}},
	"code 2999":            {frame(fin|opClose, "\x0b\xb7"), []event{{Invalid, ""}}},
	"code 5000":            {frame(fin|opClose, "\x13\x88"), []event{{Invalid, ""}}},
	"a reason not UTF-8":   {frame(fin|opClose, "\x03\xe8\xff"), []event{{Invalid, ""}}},
	"a reserved bit":       {frame(fin|0x40|opText, "a"), []event{{Invalid, ""}}},
	"a reserved opcode":    {frame(fin|0x3, "a"), []event{{Invalid, ""}}},
	"a reserved control":   {frame(fin|0xb, "a"), []event{{Invalid, ""}}},
	"a long ping":          {frame(fin|opPing, strings.Repeat("a", 126)), []event{{Invalid, ""}}},
	"half a ping":          {frame(opPing, "a"), []event{{Invalid, ""}}},
	"the rest of nothing":  {frame(fin|opContinuation, "a"), []event{{Invalid, ""}}},
	"a text in a text":     {stream(frame(opText, "a"), frame(fin|opText, "b")), []event{{Invalid, ""}}},
	"not masked":           {[]byte{fin | opText, 1, 'a'}, []event{{Invalid, ""}}},
	"a length beyond 2^63": {[]byte{fin | opText, masked | 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, []event{{TooLarge, ""}}},
	"good before bad":      {stream(frame(fin|opText, "a"), []byte{0, 0}), []event{{Text, "a"}, {Invalid, ""}}},
	"half a message":       {frame(fin|opText, "hello")[:8], nil},
}

func TestFramesAreTakenApartWhereverTheyWereCut(t *testing.T) {
	t.Parallel()
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(1, 2))
			for way, piece := range map[string]func() int{
				"at once":     func() int { return len(c.bytes) },
				"in bytes":    func() int { return 1 },
				"in pieces":   func() int { return 1 + random.IntN(20) },
				"in kilobyte": func() int { return 1 << 10 },
			} {
				r := NewReader(limit)
				got := read(&r, c.bytes, piece)
				if !equal(got, c.want) {
					t.Errorf("%s: got %.200q, want %.200q", way, got, c.want)
				}
			}
		})
	}
}

func equal(a, b []event) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestNothingIsReadBehindAFault(t *testing.T) {
	t.Parallel()
	r := NewReader(limit)
	if kind, _, _ := r.Next([]byte{0xff, 0xff}); kind != Invalid {
		t.Fatalf("got %d", kind)
	}
	if kind, _, _ := r.Next(frame(fin|opText, "a")); kind != Invalid {
		t.Errorf("got %d", kind)
	}
}

func TestNothingIsHeldBetweenMessagesNorForWhatWasOnlyAnnounced(t *testing.T) {
	t.Parallel()
	r := NewReader(limit)
	whole := frame(fin|opText, strings.Repeat("a", 60_000))
	r.Next(bytes.Clone(whole[:20]))
	if cap(r.rest) > 64 {
		t.Errorf("%d bytes are held for a header", cap(r.rest))
	}
	if kind, _, _ := r.Next(whole[20:]); kind != Text || r.rest != nil || r.message != nil {
		t.Errorf("got %d, and %d and %d bytes are held", kind, cap(r.rest), cap(r.message))
	}
}

func TestWhatAServerSendsIsNotMasked(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ got, want []byte }{
		"text":   {AppendText(nil, []byte("hi")), []byte{0x81, 2, 'h', 'i'}},
		"longer": {AppendText(nil, make([]byte, 126))[:4], []byte{0x81, 126, 0, 126}},
		"long":   {AppendText(nil, make([]byte, 1<<16))[:10], []byte{0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0}},
		"ping":   {AppendPing(nil, []byte("7")), []byte{0x89, 1, '7'}},
		"pong":   {AppendPong(nil, nil), []byte{0x8a, 0}},
		"close":  {AppendClose(nil, 1000, "x"), []byte{0x88, 3, 0x03, 0xe8, 'x'}},
		"answer": {AppendCloseAnswer(nil, []byte{0x03, 0xe8}), []byte{0x88, 2, 0x03, 0xe8}},
	} {
		if !bytes.Equal(c.got, c.want) {
			t.Errorf("%s: got % x, want % x", name, c.got, c.want)
		}
	}
}

func BenchmarkNext(b *testing.B) {
	whole := frame(fin|opText, strings.Repeat("a", 1000))
	r := NewReader(limit)
	b.ReportAllocs()
	for b.Loop() {
		if kind, _, _ := r.Next(whole); kind != Text {
			b.Fatal(kind)
		}
	}
}
