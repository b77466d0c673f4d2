package mongo

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/internal/bin"
	"github.com/linkerhq/linker/pkg/mailbox"
)

// encodingVersion is the first byte of an encoded memory.
const encodingVersion = 1

// memory is what a lane remembers, or what a save adds to it.
type memory struct {
	found    bool // whether anything was saved
	position envelope.Position
	windows  map[mailbox.WindowKey]mailbox.Window
	expired  []mailbox.WindowKey // of a save: windows to be forgotten
	forget   int64               // of a save: ids saved before are to be forgotten
	ids      []savedIDs          // in the order of the saves
}

type savedIDs struct {
	saved int64 // Unix seconds
	ids   []mailbox.RememberedID
}

func newMemory() *memory {
	return &memory{windows: make(map[mailbox.WindowKey]mailbox.Window), forget: math.MinInt64}
}

func (m *memory) laneState() mailbox.LaneState {
	state := mailbox.LaneState{Position: m.position, Windows: m.windows}
	for _, group := range m.ids {
		state.IDs = append(state.IDs, group.ids...)
	}
	return state
}

// apply adds an entry, or puts it in the place of everything if it is a state.
func (m *memory) apply(e *entry, data []byte) error {
	added, err := readMemory(data)
	if err != nil {
		return err
	}
	added.position, err = decodePosition(e.Pos)
	if err != nil {
		return err
	}
	switch e.Kind {
	case kindState:
		*m = *added
	case kindChange:
		m.position = added.position
		for _, k := range added.expired {
			delete(m.windows, k)
		}
		maps.Copy(m.windows, added.windows)
		m.ids = slices.DeleteFunc(m.ids, func(group savedIDs) bool { return group.saved < added.forget })
		m.ids = append(m.ids, added.ids...)
	case kindClaim:
		return nil
	default:
		return fmt.Errorf("%q is not a kind of entry", e.Kind)
	}
	m.found, m.expired, m.forget = true, nil, math.MinInt64
	return nil
}

// appendMemory encodes everything but the position, which the entry has in the clear.
func appendMemory(b []byte, m *memory) []byte {
	b = append(b, encodingVersion)
	b = binary.AppendVarint(b, m.forget)
	b = binary.AppendUvarint(b, uint64(len(m.expired)))
	for _, k := range m.expired {
		b = appendKey(b, k)
	}
	b = binary.AppendUvarint(b, uint64(len(m.windows)))
	for k, w := range m.windows {
		b = appendKey(b, k)
		b = binary.AppendUvarint(b, w.High)
		b = binary.AppendVarint(b, w.Touched)
		b = binary.AppendUvarint(b, uint64(len(w.Missing)))
		var last uint64
		for _, n := range w.Missing {
			b = binary.AppendUvarint(b, n-last)
			last = n
		}
	}
	b = binary.AppendUvarint(b, uint64(len(m.ids)))
	for _, group := range m.ids {
		b = binary.AppendVarint(b, group.saved)
		b = binary.AppendUvarint(b, uint64(len(group.ids)))
		for _, id := range group.ids {
			b = bin.AppendString(b, id.User)
			b = append(b, id.ID[:]...)
		}
	}
	return b
}

func appendKey(b []byte, k mailbox.WindowKey) []byte {
	return bin.AppendUint64(bin.AppendString(b, k.User), k.Stream)
}

func readMemory(b []byte) (*memory, error) {
	r := bin.NewReader(b)
	if version := r.Byte(); version != encodingVersion {
		return nil, fmt.Errorf("encoding version %d: %w", version, bin.ErrMalformed)
	}
	m := newMemory()
	m.forget = r.Varint()
	for range r.Count(9) {
		m.expired = append(m.expired, readKey(r))
	}
	for range r.Count(12) {
		k := readKey(r)
		w := mailbox.Window{High: r.Uvarint(), Touched: r.Varint()}
		var last uint64
		for range r.Count(1) {
			last += r.Uvarint()
			w.Missing = append(w.Missing, last)
		}
		m.windows[k] = w
	}
	for range r.Count(2) {
		group := savedIDs{saved: r.Varint()}
		for range r.Count(17) {
			id := mailbox.RememberedID{User: ident.UserID(r.String())}
			r.Copy(id.ID[:])
			group.ids = append(group.ids, id)
		}
		m.ids = append(m.ids, group)
	}
	return m, r.Close()
}

func readKey(r *bin.Reader) mailbox.WindowKey {
	return mailbox.WindowKey{User: ident.UserID(r.String()), Stream: r.Uint64()}
}
