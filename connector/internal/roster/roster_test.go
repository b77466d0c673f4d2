package roster_test

import (
	"testing"

	"github.com/linkerhq/linker/connector/internal/roster"
	"github.com/linkerhq/linker/connector/internal/session"
	"github.com/linkerhq/linker/pkg/ident"
)

func newSession(id uint64, user ident.UserID, lane int) *session.Session {
	s := new(session.Session)
	s.Register(session.Identity{ID: id, User: user, Lane: lane})
	return s
}

func TestSessionsAreFoundInTheirLane(t *testing.T) {
	t.Parallel()
	r := roster.New(2)
	a, b := newSession(1, "ANZ-1", 0), newSession(2, "ANZ-2", 1)
	r.Add(a)
	r.Add(b)
	if r.Find(0, 1) != a || r.Find(1, 2) != b || r.Find(0, 2) != nil {
		t.Error("a session is not where it belongs")
	}
	if lane := r.Lane(1); len(lane) != 1 || lane[0] != b {
		t.Errorf("got %v", lane)
	}
	if all := r.All(); len(all) != 2 || all[1] != "ANZ-1" || all[2] != "ANZ-2" {
		t.Errorf("got %v", all)
	}
	r.Remove(a)
	if r.Find(0, 1) != nil || len(r.All()) != 1 {
		t.Error("a removed session is there")
	}
}

func TestChangesAreTakenOnce(t *testing.T) {
	t.Parallel()
	r := roster.New(1)
	a, b := newSession(1, "ANZ-1", 0), newSession(2, "ANZ-2", 0)
	r.Add(a)
	r.Add(b)
	r.Remove(b)
	added, removed := r.TakeChanges()
	if len(added) != 1 || added[1] != "ANZ-1" || len(removed) != 1 || removed[0] != 2 {
		t.Errorf("got %v and %v", added, removed)
	}
	added, removed = r.TakeChanges()
	if len(added)+len(removed) != 0 {
		t.Errorf("got %v and %v again", added, removed)
	}
}

func TestSocketsEnterAndLeave(t *testing.T) {
	t.Parallel()
	r := roster.New(1)
	s := new(session.Session)
	r.Enter(s)
	if got := r.Sockets(); len(got) != 1 || got[0] != s {
		t.Errorf("got %v", got)
	}
	r.Leave(s)
	if got := r.Sockets(); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}
