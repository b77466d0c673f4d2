package embedded

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"
)

// entry frames a rest as the broker does.
func entry(rest string) []byte {
	raw := binary.LittleEndian.AppendUint32(nil, uint32(len(rest)))
	raw = binary.LittleEndian.AppendUint32(raw, crc32.Checksum([]byte(rest), crc32.MakeTable(crc32.Castagnoli)))
	return append(raw, rest...)
}

func TestEntriesBehindHalfAnEntryAreKept(t *testing.T) {
	t.Parallel()
	one, two, three := entry("v1 one"), entry("v1 two"), entry("v1 three")
	for _, c := range []struct {
		name        string
		raw, expect []byte
	}{
		{"whole", bytes.Join([][]byte{one, two}, nil), bytes.Join([][]byte{one, two}, nil)},
		{"empty", nil, nil},
		{"half at the end", bytes.Join([][]byte{one, two[:9]}, nil), one},
		{"half in between", bytes.Join([][]byte{one, two[:9], three}, nil), bytes.Join([][]byte{one, three}, nil)},
		{"halves everywhere", bytes.Join([][]byte{two[:3], one, two[:12], two[:12], three, one[:1]}, nil), bytes.Join([][]byte{one, three}, nil)},
		{"one changed", bytes.Join([][]byte{one, entry("v1 twx")[:11], []byte("abc"), three}, nil), bytes.Join([][]byte{one, three}, nil)},
		{"nothing else", two[:7], nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, positionsFile)
			if err := os.WriteFile(path, c.raw, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := mendPositions(dir); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, c.expect) {
				t.Errorf("got %q, want %q", got, c.expect)
			}
		})
	}
}

func TestAFileThatIsNotThereIsWhole(t *testing.T) {
	t.Parallel()
	if err := mendPositions(t.TempDir()); err != nil {
		t.Error(err)
	}
}

func FuzzWholeEntries(f *testing.F) {
	f.Add([]byte("garbage"), []byte("v1"))
	f.Add(entry("v1 one"), []byte("v1 two"))
	f.Add(entry("v1 one")[:9], []byte(""))
	f.Fuzz(func(t *testing.T, raw, rest []byte) {
		whole := wholeEntries(raw)
		if len(whole) > len(raw) || !bytes.Equal(wholeEntries(whole), whole) {
			t.Errorf("%q became %q, which is not whole", raw, whole)
		}
		if len(rest) < minEntry {
			return
		}
		last := entry(string(rest))
		if got := wholeEntries(append(bytes.Clone(whole), last...)); !bytes.HasSuffix(got, last) || len(got) != len(whole)+len(last) {
			t.Errorf("an entry behind %q was lost: %q", whole, got)
		}
	})
}
