package embedded

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
)

// The broker appends what groups have committed to one file, and reads that file
// up to the first entry that is damaged. A disk that is full, or a crash, leaves
// half an entry; the broker then appends behind it what it will never read again,
// and after the next crash every lane would start where it was long ago. So such a
// half is taken out: at once when a write has failed, and before the file is opened.
//
// An entry is length, checksum of the rest, and the rest; numbers are little-endian.
const (
	positionsFile = "groups.log"
	// tornWrite is how the broker logs that it could not write an entry.
	tornWrite = "persist group entry write: %v"

	entryHeader = 8
	minEntry    = 2       // length of the smallest rest: its version
	maxEntry    = 1 << 20 // length of the largest rest: commits are a few hundred bytes
)

// mendPositions takes everything out of the file in dir that is no whole entry. A file that is not
// there is whole.
func mendPositions(dir string) error {
	path := filepath.Join(dir, positionsFile)
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("mend %s: %w", positionsFile, err)
	}
	whole := wholeEntries(raw)
	switch {
	case len(whole) == len(raw):
		return nil
	case bytes.HasPrefix(raw, whole): // takes no room
		err = os.Truncate(path, int64(len(whole)))
	default:
		err = replaceFile(path, whole)
	}
	if err != nil {
		return fmt.Errorf("mend %s: %w", positionsFile, err)
	}
	return nil
}

// wholeEntries returns raw without what is no whole entry; raw itself if all are.
func wholeEntries(raw []byte) []byte {
	end := 0
	for n := entryAt(raw); n > 0; n = entryAt(raw[end:]) {
		end += n
	}
	if end == len(raw) {
		return raw
	}
	whole := bytes.Clone(raw[:end])
	for rest := raw[end:]; len(rest) > 0; {
		n := entryAt(rest)
		whole = append(whole, rest[:n]...)
		rest = rest[max(n, 1):]
	}
	return whole
}

// entryAt is how long the entry is with which raw begins; 0 if that is none.
func entryAt(raw []byte) int {
	if len(raw) < entryHeader+minEntry {
		return 0
	}
	length := int64(binary.LittleEndian.Uint32(raw))
	if length < minEntry || length > maxEntry || length > int64(len(raw)-entryHeader) {
		return 0
	}
	end := entryHeader + int(length)
	if crc32.Checksum(raw[entryHeader:end], crc32.MakeTable(crc32.Castagnoli)) != binary.LittleEndian.Uint32(raw[4:]) {
		return 0
	}
	return end
}

// replaceFile writes a file anew, so that a crash leaves the old one or the new one.
func replaceFile(path string, content []byte) error {
	next := path + ".tmp" // the broker removes what a crash leaves of that name
	err := os.WriteFile(next, content, 0o600)
	if err != nil {
		return errors.Join(err, os.Remove(next))
	}
	return os.Rename(next, path)
}
