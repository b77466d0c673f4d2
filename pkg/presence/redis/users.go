package redis

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/redis/go-redis/v9"

	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/presence"
)

// fewSessions is how many sessions one call of Users reads, more or less: Redis
// answers with whole buckets.
const fewSessions = 1000

// Users returns where users of the domain are: at most limit of them, sorted by app
// and number, and which connectors with a live lease each is connected to. Its cost
// does not grow with the number of users.
//
// total is how many users are connected, as long as the domain has no more than about
// a thousand sessions; of more it is the number of sessions, which is never less.
// It is for queries: it may lag behind.
func (r *Registry) Users(ctx context.Context, limit int) ([]presence.Place, int, error) {
	live, err := r.Leases(ctx)
	if err != nil {
		return nil, 0, fmt.Errorf("list users: %w", err)
	}
	s := newSurvey(live, max(limit, fewSessions))
	if err := s.run(ctx, r); err != nil {
		return nil, 0, fmt.Errorf("list users: %w", err)
	}
	users := slices.SortedFunc(maps.Keys(s.users), compareUsers)
	users = users[:min(len(users), max(limit, 0))]
	if s.complete() {
		return s.places(users), len(s.users), nil
	}
	places, err := r.placesOf(ctx, users, live)
	if err != nil {
		return nil, 0, fmt.Errorf("list users: %w", err)
	}
	return places, max(s.sessions, len(s.users)), nil
}

// survey reads a part of the sessions of connectors, an equal part of each.
type survey struct {
	cursors  map[ident.Connector]uint64 // where to go on, of those that are not read to their end
	chunk    int64                      // sessions of one connector in one round
	left     int                        // sessions that may still be read; below 1: enough
	sessions int                        // that there are, read or not
	users    map[ident.UserID]map[ident.Connector]bool
}

func newSurvey(live []ident.Connector, most int) *survey {
	s := &survey{cursors: make(map[ident.Connector]uint64, len(live)), left: most, users: map[ident.UserID]map[ident.Connector]bool{}}
	for _, c := range live {
		s.cursors[c] = 0
	}
	s.chunk = int64(max(most/max(len(live), 1), 10))
	return s
}

func (s *survey) complete() bool { return len(s.cursors) == 0 }

func (s *survey) run(ctx context.Context, r *Registry) error {
	for first := true; !s.complete() && s.left > 0; first = false {
		if err := s.round(ctx, r, first); err != nil {
			return err
		}
	}
	return nil
}

// round reads one chunk of each connector in one round trip. The first one also
// counts the sessions.
func (s *survey) round(ctx context.Context, r *Registry, first bool) error {
	counts := make(map[ident.Connector]*redis.IntCmd)
	chunks := make(map[ident.Connector]*redis.ScanCmd, len(s.cursors))
	_, err := r.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for c, cursor := range s.cursors {
			if first {
				counts[c] = p.HLen(ctx, r.sessionsKey(c))
			}
			chunks[c] = p.HScan(ctx, r.sessionsKey(c), cursor, "", s.chunk)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, count := range counts {
		s.sessions += int(count.Val())
	}
	for c, chunk := range chunks {
		pairs, cursor := chunk.Val()
		for pair := range slices.Chunk(pairs, 2) {
			s.note(ident.UserID(pair[1]), c)
		}
		s.left -= len(pairs) / 2
		s.cursors[c] = cursor
		if cursor == 0 {
			delete(s.cursors, c)
		}
	}
	return nil
}

func (s *survey) note(user ident.UserID, c ident.Connector) {
	if s.users[user] == nil {
		s.users[user] = map[ident.Connector]bool{}
	}
	s.users[user][c] = true
}

// places says where users are; everything must have been read.
func (s *survey) places(users []ident.UserID) []presence.Place {
	places := make([]presence.Place, len(users))
	for i, user := range users {
		places[i] = presence.Place{User: user, Connectors: slices.SortedFunc(maps.Keys(s.users[user]), compareConnectors)}
	}
	return places
}

// placesOf looks up where users are. Those who have gone meanwhile are left out.
func (r *Registry) placesOf(ctx context.Context, users []ident.UserID, live []ident.Connector) ([]presence.Place, error) {
	sets := make([]*redis.StringSliceCmd, len(users))
	_, err := r.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, user := range users {
			sets[i] = p.SMembers(ctx, r.userKey(user))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	places := make([]presence.Place, 0, len(users))
	for i, user := range users {
		found, err := connectorsOf(sets[i].Val(), live)
		if err != nil {
			return nil, err
		}
		if len(found) > 0 {
			places = append(places, presence.Place{User: user, Connectors: found})
		}
	}
	return places, nil
}

func compareUsers(a, b ident.UserID) int {
	return cmp.Or(cmp.Compare(a.App(), b.App()), cmp.Compare(a.Number(), b.Number()), cmp.Compare(a, b))
}
