package client

import (
	"hash/maphash"
	"sync"
	"time"
)

// rememberFor is how long an id is remembered at least, if there are not too
// many; at most twice as long.
const rememberFor = 24 * time.Hour

// Memory remembers which messages a user has taken, so that a copy is known as
// one. A client makes one for itself, unless Config.Memory gives it one that
// outlives it: then the next client of the same user in this program knows what
// the one before has taken. Clients that live at the same time need one each,
// since each of them gets every message.
type Memory struct {
	seed maphash.Seed // static
	most int          // static; ids in one generation

	// Two generations of hashes of ids, of which the older one goes as a whole.
	mu    sync.Mutex
	young map[uint64]struct{} // guarded by mu
	old   map[uint64]struct{} // guarded by mu
	began time.Time           // guarded by mu; when the young generation did
}

// NewMemory returns a memory for so many ids, of which at least the newer half is
// always there; 0: DefaultRemember. An id is forgotten after one or two days.
func NewMemory(ids int) *Memory {
	if ids <= 0 {
		ids = DefaultRemember
	}
	return &Memory{seed: maphash.MakeSeed(), most: max(ids/2, 1), young: map[uint64]struct{}{}}
}

func (m *Memory) has(id string) bool {
	if id == "" {
		return false
	}
	h := maphash.String(m.seed, id)
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, is := m.young[h]; is {
		return true
	}
	_, is := m.old[h]
	return is
}

func (m *Memory) add(id string, now time.Time) {
	if id == "" {
		return
	}
	h := maphash.String(m.seed, id)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.expireLocked(now)
	if len(m.young) >= m.most {
		m.turnLocked(now)
	}
	if len(m.young) == 0 {
		m.began = now
	}
	m.young[h] = struct{}{}
}

// expire lets go of what is too old.
func (m *Memory) expire(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.expireLocked(now)
}

func (m *Memory) expireLocked(now time.Time) {
	if len(m.young)+len(m.old) > 0 && now.Sub(m.began) >= rememberFor {
		m.turnLocked(now)
	}
}

func (m *Memory) turnLocked(now time.Time) {
	m.old, m.young = m.young, map[uint64]struct{}{}
	m.began = now
}
