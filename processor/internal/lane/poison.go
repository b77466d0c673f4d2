package lane

import "sync"

// Poison remembers the records whose handling made a lane panic, for all lanes of
// a process. Such a record becomes a dead letter when it is read again: one message
// that the program cannot bear must not hold up all those behind it.
type Poison struct {
	mu      sync.Mutex
	offsets map[int]map[int64]bool // guarded by mu; by lane
}

// NewPoison returns an empty memory.
func NewPoison() *Poison { return &Poison{offsets: map[int]map[int64]bool{}} }

func (p *Poison) add(lane int, offset int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.offsets[lane] == nil {
		p.offsets[lane] = map[int64]bool{}
	}
	p.offsets[lane][offset] = true
}

func (p *Poison) holds(lane int, offset int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.offsets[lane][offset]
}

// any says whether there is one of a lane at all.
func (p *Poison) any(lane int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.offsets[lane]) > 0
}
