// Package roster knows the sessions of a connector: every open socket, and of
// those that are logged in, by lane and id.
package roster

import (
	"maps"
	"slices"
	"sync"

	"github.com/linkerhq/linker/connector/internal/session"
	"github.com/linkerhq/linker/pkg/ident"
)

// Roster is the list of sessions. Its methods may be called by any goroutine.
type Roster struct {
	lanes []shard // static

	mu      sync.Mutex
	sockets map[*session.Session]struct{} // guarded by mu
	added   map[uint64]ident.UserID       // guarded by mu; since the last TakeChanges
	removed map[uint64]struct{}           // guarded by mu; since the last TakeChanges
}

type shard struct {
	mu       sync.RWMutex
	sessions map[uint64]*session.Session // guarded by mu
}

// New returns an empty roster for a domain with that many lanes.
func New(lanes int) *Roster {
	r := &Roster{
		lanes:   make([]shard, lanes),
		sockets: make(map[*session.Session]struct{}),
		added:   make(map[uint64]ident.UserID),
		removed: make(map[uint64]struct{}),
	}
	for i := range r.lanes {
		r.lanes[i].sessions = make(map[uint64]*session.Session)
	}
	return r
}

// Enter adds an open socket.
func (r *Roster) Enter(s *session.Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sockets[s] = struct{}{}
}

// Leave removes a socket that is gone.
func (r *Roster) Leave(s *session.Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.sockets, s)
}

// Sockets returns all open sockets, logged in or not.
func (r *Roster) Sockets() []*session.Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Keys(r.sockets))
}

// Add lists a session that is registered.
func (r *Roster) Add(s *session.Session) {
	identity := s.Identity()
	lane := &r.lanes[identity.Lane]
	lane.mu.Lock()
	lane.sessions[identity.ID] = s
	lane.mu.Unlock()

	r.mu.Lock()
	defer r.mu.Unlock()
	r.added[identity.ID] = identity.User
}

// Remove takes a session off the list.
func (r *Roster) Remove(s *session.Session) {
	identity := s.Identity()
	lane := &r.lanes[identity.Lane]
	lane.mu.Lock()
	delete(lane.sessions, identity.ID)
	lane.mu.Unlock()

	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.added, identity.ID)
	r.removed[identity.ID] = struct{}{}
}

// Find returns the session of a lane with that id, nil if there is none.
func (r *Roster) Find(lane int, id uint64) *session.Session {
	l := &r.lanes[lane]
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.sessions[id]
}

// Lane returns the sessions of a lane.
func (r *Roster) Lane(lane int) []*session.Session {
	l := &r.lanes[lane]
	l.mu.RLock()
	defer l.mu.RUnlock()
	return slices.Collect(maps.Values(l.sessions))
}

// All returns the users of all listed sessions by session id.
func (r *Roster) All() map[uint64]ident.UserID {
	all := make(map[uint64]ident.UserID)
	for i := range r.lanes {
		for _, s := range r.Lane(i) {
			identity := s.Identity()
			all[identity.ID] = identity.User
		}
	}
	return all
}

// TakeChanges returns which sessions were added and removed since it was called
// last.
func (r *Roster) TakeChanges() (added map[uint64]ident.UserID, removed []uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	added, removed = r.added, slices.Collect(maps.Keys(r.removed))
	r.added, r.removed = make(map[uint64]ident.UserID), make(map[uint64]struct{})
	return added, removed
}
