package link

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"reflect"
	"testing"
)

// FuzzFrames reads any bytes as frames of an open link.
func FuzzFrames(f *testing.F) {
	for _, m := range []Message{
		ping{n: 1},
		pong{n: 1 << 60},
		Ack{Channel: 1, UpTo: 300},
		Refusal{Channel: 1 << 63, N: 1, Code: "HOPS_EXHAUSTED"},
		Records{Channel: 5, First: 1, Records: [][]byte{[]byte("one"), []byte("two")}},
		Fast{Record: []byte("x")},
		States{Entries: []byte("x")},
		Question{N: 1, Text: []byte("x")},
		Answer{N: 1 << 63},
		hello{version: 1, from: "domain-01", to: "domain-02", proof: ByKey, mac: make([]byte, 32)},
		welcome{},
	} {
		f.Add(appendFrame(nil, m))
	}
	f.Add([]byte{0, 0, 0, 14, 5, 0, 0, 0, 0, 0, 0, 0, 1, 1, 255, 255, 255, 127})
	f.Add([]byte{255, 255, 255, 255, 5})
	f.Fuzz(func(t *testing.T, b []byte) {
		in := frames{r: bufio.NewReader(bytes.NewReader(b))}
		for {
			k, body, err := in.next(MaxFrame)
			if err != nil {
				if !errors.Is(err, ErrProtocol) && err != io.EOF && err != io.ErrUnexpectedEOF {
					t.Fatalf("an error of no kind: %v", err)
				}
				return
			}
			m, err := decode(k, body)
			if err != nil {
				if !errors.Is(err, ErrProtocol) {
					t.Fatalf("an error of no kind: %v", err)
				}
				continue
			}
			if err := fits(m); err != nil {
				if _, is := m.(States); !is && len(body) < MaxRecord {
					t.Fatalf("%T was read, but cannot be sent: %v", m, err)
				}
				continue
			}
			again := appendFrame(nil, m)
			if len(again) > size(m) || len(again) > headerSize+MaxFrame && len(body) < MaxRecord {
				t.Fatalf("%T takes %d bytes, at most %d were expected", m, len(again), size(m))
			}
			back, err := decode(kind(again[headerSize]), again[headerSize+1:])
			if err != nil || !reflect.DeepEqual(back, m) {
				t.Fatalf("%#v is read again as %#v, %v", m, back, err)
			}
		}
	})
}

// FuzzHello reads any bytes as what a stranger says.
func FuzzHello(f *testing.F) {
	f.Add(appendHello(nil, hello{version: 1, from: "domain-01", to: "domain-02", proof: ByKey, mac: make([]byte, 32)}))
	f.Add(appendHello(nil, hello{version: 1, from: "a", to: "b", proof: Insecure}))
	f.Add([]byte{2, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := decodeWelcome(b); err == nil && len(b) == 0 {
			t.Fatal("nothing is a welcome")
		}
		h, err := decodeHello(b)
		if err != nil {
			return
		}
		if h.version != version {
			return
		}
		back, err := decodeHello(appendHello(nil, h))
		if err != nil || !reflect.DeepEqual(back, h) {
			t.Fatalf("%#v is read again as %#v, %v", h, back, err)
		}
	})
}

func TestRecordsAreSplitWithoutLossAndWithoutNeed(t *testing.T) {
	t.Parallel()
	for _, sizes := range [][]int{
		{1}, {MaxRecord}, {MaxRecord, 1}, {1, MaxRecord}, {MaxRecord, MaxRecord}, {MaxFrame / 2, MaxFrame/2 - 100, 1, 2, 3}, make([]int, 3*maxBatch+1),
	} {
		m := Records{Channel: 1, First: 7}
		for _, n := range sizes {
			m.Records = append(m.Records, make([]byte, max(n, 1)))
		}
		next, seen := m.First, 0
		for _, part := range split(m) {
			b := appendFrame(nil, part)
			if len(b)-headerSize > MaxFrame || len(part.Records) == 0 || len(part.Records) > maxBatch || part.First != next {
				t.Errorf("%d sizes: a part from %d on with %d records takes %d bytes", len(sizes), part.First, len(part.Records), len(b))
			}
			next += uint64(len(part.Records))
			seen += len(part.Records)
		}
		if seen != len(sizes) {
			t.Errorf("%d records became %d", len(sizes), seen)
		}
	}
	if parts := split(Records{Channel: 1, First: 1, Records: [][]byte{{1}, {2}, {3}}}); len(parts) != 1 {
		t.Errorf("three small records need %d frames", len(parts))
	}
}
