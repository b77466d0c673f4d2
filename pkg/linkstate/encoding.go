package linkstate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/internal/bin"
)

const (
	// encodingVersion is the first byte of every encoding.
	encodingVersion = 1
	// leastEntry is the size of the smallest entry: two empty names' lengths would
	// do with less, but a domain's name has a byte at least.
	leastEntry = 1 + 1 + 8 + 1 + 1 + 1
	// batchSize is from how many bytes on Batches begins another encoding. With the
	// largest entry behind it, it still fits into a frame and a message of the
	// live plane.
	batchSize = 256 << 10
)

// Append appends the encoding of entries, of which there are at most MaxEntries and
// all are valid; Decode refuses it otherwise.
func Append(b []byte, entries []Entry) []byte {
	b = append(b, encodingVersion)
	b = binary.AppendUvarint(b, uint64(len(entries)))
	for _, e := range entries {
		b = appendEntry(b, e)
	}
	return b
}

func appendEntry(b []byte, e Entry) []byte {
	b = bin.AppendString(b, e.Domain)
	b = bin.AppendUint64(b, e.Speaker)
	b = binary.AppendUvarint(b, e.Version)
	b = binary.AppendUvarint(b, uint64(min(max(e.Age, 0), Life).Milliseconds()))
	b = binary.AppendUvarint(b, uint64(len(e.Up)))
	for _, name := range e.Up {
		b = bin.AppendString(b, name)
	}
	return b
}

// Batches returns encodings of entries that together hold all of them; each fits into
// one message. Without entries there are none.
func Batches(entries []Entry) [][]byte {
	var batches [][]byte
	begin, size := 0, 0
	for i, e := range entries {
		size += sizeOf(e)
		if size < batchSize && i-begin+1 < MaxEntries && i+1 < len(entries) {
			continue
		}
		batches = append(batches, Append(nil, entries[begin:i+1]))
		begin, size = i+1, 0
	}
	return batches
}

// sizeOf is at least the size of an entry's encoding, in bytes.
func sizeOf(e Entry) int {
	size := 1 + len(e.Domain) + 8 + 3*binary.MaxVarintLen64
	for _, name := range e.Up {
		size += 1 + len(name)
	}
	return size
}

// Decode reads entries. What it returns does not alias b.
func Decode(b []byte) ([]Entry, error) {
	r := bin.NewReader(b)
	if version := r.Byte(); version != encodingVersion && len(b) > 0 {
		return nil, fmt.Errorf("decode link states: the encoding has version %d, expected %d", version, encodingVersion)
	}
	count := r.Count(leastEntry)
	if count > MaxEntries {
		return nil, fmt.Errorf("decode link states: %d entries, expected at most %d", count, MaxEntries)
	}
	entries := make([]Entry, 0, count)
	for i := range count {
		e, err := decodeEntry(r)
		if err != nil {
			return nil, fmt.Errorf("decode link states: entry %d: %w", i, err)
		}
		entries = append(entries, e)
	}
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("decode link states: %w", err)
	}
	return entries, nil
}

func decodeEntry(r *bin.Reader) (Entry, error) {
	e := Entry{Domain: r.String(), Speaker: r.Uint64(), Version: r.Uvarint()}
	age, up := r.Uvarint(), r.Count(2) // a name is its length and a byte at least
	switch {
	case !ident.IsDomainName(e.Domain):
		return Entry{}, fmt.Errorf("domain %.80q is not a domain name", e.Domain)
	case age > uint64(Life.Milliseconds()):
		return Entry{}, fmt.Errorf("age %d ms, expected at most %d ms", age, Life.Milliseconds())
	case up > MaxUp:
		return Entry{}, fmt.Errorf("%d neighbours, expected at most %d", up, MaxUp)
	}
	e.Age = time.Duration(age) * time.Millisecond
	if up > 0 {
		e.Up = make([]string, up)
	}
	for i := range e.Up {
		e.Up[i] = r.String()
	}
	if !e.valid() {
		return Entry{}, errors.New("neighbours, expected names of other domains in ascending order")
	}
	return e, nil
}
