package redis_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/presence"
	"github.com/linkerhq/linker/pkg/presence/redis"
)

// users returns what the registry says, each user as "ANZ-1@c1,c2".
func users(t *testing.T, r *redis.Registry, limit int) (list []string, total int) {
	t.Helper()
	places, total, err := r.Users(t.Context(), limit)
	must(t, err)
	for _, p := range places {
		list = append(list, place(p))
	}
	return list, total
}

func place(p presence.Place) string {
	var text strings.Builder
	text.WriteString(string(p.User) + "@")
	for i, c := range p.Connectors {
		if i > 0 {
			text.WriteString(",")
		}
		text.WriteString(c.Name)
	}
	return text.String()
}

func TestUsersAreListedWithTheConnectorsThatLive(t *testing.T) {
	t.Parallel()
	r := open(t)
	c1, c2, gone := connector("c1", 1), connector("c2", 1), connector("c3", 1)
	must(t, r.Renew(t.Context(), c1, time.Minute))
	must(t, r.Renew(t.Context(), c2, time.Minute))
	if list, total := users(t, r, 10); len(list) != 0 || total != 0 {
		t.Errorf("nobody is there: got %v of %d", list, total)
	}
	must(t, r.Put(t.Context(), c2, map[uint64]ident.UserID{1: "BNZ-1", 2: "ANZ-10"}, nil, time.Minute))
	must(t, r.Put(t.Context(), c1, map[uint64]ident.UserID{1: "ANZ-10", 2: "ANZ-9", 3: "ANZ-9", 4: "CNZ-1"}, nil, time.Minute))
	must(t, r.Put(t.Context(), c1, nil, []uint64{4}, time.Minute))
	must(t, r.Put(t.Context(), gone, map[uint64]ident.UserID{1: "ANZ-11", 2: "ANZ-9"}, nil, time.Minute))

	for limit, want := range map[int][]string{
		10: {"ANZ-9@c1", "ANZ-10@c1,c2", "BNZ-1@c2"},
		2:  {"ANZ-9@c1", "ANZ-10@c1,c2"},
		0:  nil,
		-1: nil,
	} {
		if list, total := users(t, r, limit); !slices.Equal(list, want) || total != 3 {
			t.Errorf("limit %d: got %v of %d, want %v of 3", limit, list, total, want)
		}
	}
	must(t, r.Release(t.Context(), c2))
	if list, total := users(t, r, 10); !slices.Equal(list, []string{"ANZ-9@c1", "ANZ-10@c1"}) || total != 2 {
		t.Errorf("after the end of a connector: got %v of %d", list, total)
	}
}

func TestUsersOfACrowdAreBoundedAndKnownExactly(t *testing.T) {
	t.Parallel()
	r := open(t)
	crowd := []ident.Connector{connector("c1", 1), connector("c2", 1), connector("c3", 1)}
	const each = 2500
	for i, c := range crowd {
		must(t, r.Renew(t.Context(), c, time.Minute))
		sessions := map[uint64]ident.UserID{}
		for n := range uint64(each) {
			sessions[n] = ident.UserID(fmt.Sprintf("ANZ-%d", n+uint64(i))) // nearly everybody is at all three
		}
		must(t, r.Put(t.Context(), c, sessions, nil, time.Minute))
	}
	const limit = 20
	list, total := users(t, r, limit)
	// The embedded server answers a scan with everything, so that the users can be counted.
	if total != each*len(crowd) && total != each+len(crowd)-1 {
		t.Errorf("got a total of %d", total)
	}
	if len(list) != limit || len(slices.Compact(slices.Clone(list))) != limit {
		t.Errorf("got %v", list)
	}
	places, _, err := r.Users(t.Context(), limit)
	must(t, err)
	for _, p := range places {
		want, err := r.Locate(t.Context(), p.User)
		must(t, err)
		if !slices.Equal(p.Connectors, want) {
			t.Errorf("%s: got %v, want %v", p.User, p.Connectors, want)
		}
	}
}

func TestUsersOfAMissingRedisAreAnError(t *testing.T) {
	t.Parallel()
	server := startServer(t, 0)
	r := openAt(t, server.URL())
	server.Close()
	if list, total, err := r.Users(t.Context(), 10); err == nil || list != nil || total != 0 {
		t.Errorf("got %v of %d, %v", list, total, err)
	}
}
