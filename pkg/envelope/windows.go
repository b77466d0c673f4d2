package envelope

import (
	"encoding/binary"
	"fmt"

	"github.com/linkerhq/linker/pkg/internal/bin"
)

// StreamWindow is what was taken of a stream to a user: all numbers up to High but
// the Missing, which ascend; High itself may be one of them.
type StreamWindow struct {
	Stream  uint64
	High    uint64
	Missing []uint64
}

// MaxMissing is how many numbers of a window are known to be missing at most.
const MaxMissing = 1024

// Windows is what a record of KindWindows carries in its Frame: what the former home
// of a user has taken of the streams to it.
type Windows struct {
	Last    bool // no further ones follow
	Streams []StreamWindow
}

// Append appends the encoding of w.
func (w *Windows) Append(b []byte) []byte {
	last := byte(0)
	if w.Last {
		last = 1
	}
	b = append(b, version, last)
	b = binary.AppendUvarint(b, uint64(len(w.Streams)))
	for _, s := range w.Streams {
		b = bin.AppendUint64(b, s.Stream)
		b = binary.AppendUvarint(b, s.High)
		b = binary.AppendUvarint(b, uint64(len(s.Missing)))
		for _, n := range s.Missing {
			b = binary.AppendUvarint(b, n)
		}
	}
	return b
}

// DecodeWindows reads encoded windows.
func DecodeWindows(b []byte) (Windows, error) {
	r := bin.NewReader(b)
	if v := r.Byte(); v != version {
		return Windows{}, fmt.Errorf("windows: %w %d", ErrVersion, v)
	}
	w := Windows{Last: r.Byte() != 0}
	const least = 10 // bytes of a window
	if n := r.Count(least); n > 0 {
		w.Streams = make([]StreamWindow, n)
	}
	for i := range w.Streams {
		s := &w.Streams[i]
		s.Stream, s.High = r.Uint64(), r.Uvarint()
		before := uint64(0)
		switch n := r.Count(1); {
		case n > MaxMissing:
			return Windows{}, fmt.Errorf("windows: %d missing numbers, expected at most %d", n, MaxMissing)
		case n > 0:
			s.Missing = make([]uint64, n)
		}
		for j := range s.Missing {
			s.Missing[j] = r.Uvarint()
			if s.Missing[j] <= before || s.Missing[j] > s.High {
				return Windows{}, fmt.Errorf("windows: missing numbers are not in order up to %d", s.High)
			}
			before = s.Missing[j]
		}
	}
	if err := r.Close(); err != nil {
		return Windows{}, fmt.Errorf("windows: %w", err)
	}
	return w, nil
}
