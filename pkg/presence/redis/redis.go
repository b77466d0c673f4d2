// Package redis keeps the leases of a domain's connectors and who is connected
// where, in Redis. Everything here is soft state: it may be lost at the price of
// seconds, and the connectors write it anew.
//
// Time is the server's. All keys of a domain begin with linker:{<domain>}: and
// share one hash slot.
package redis

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/presence"
)

// ErrTaken says that another incarnation holds the lease of that name: two
// processes run under one name, and the second must not.
var ErrTaken = errors.New("another process holds the lease of this connector name")

// ErrBuried says that the connector was declared dead: the lanes have ended its
// sessions, or will. It holds for this incarnation for ever.
var ErrBuried = errors.New("the connector was declared dead")

const (
	// buriedFor is how long a connector that was declared dead can learn of it.
	buriedFor = 7 * 24 * time.Hour

	dialTimeout = time.Second
	ioTimeout   = 500 * time.Millisecond
	maxRetries  = 1 // everything here is idempotent

	putChunk = 500 // sessions in one round trip
)

// Config says which Redis, and which domain in it.
type Config struct {
	Server

	Domain string
	Log    *slog.Logger
}

// Registry is the leases and places of one domain. All methods can be called
// from any goroutine; each fails within about two seconds when Redis is away.
type Registry struct {
	client *redis.Client // static
	prefix string        // static
	log    *slog.Logger  // static

	renew, release, bury, view *redis.Script // static

	mu     sync.Mutex
	marker string // guarded by mu: of the last view
}

// Open returns a registry. It does not connect: that happens when it is needed.
// A Redis that refuses us is asked again with each call, like one that is away,
// and it is logged once. An error means that the configuration is wrong.
func Open(cfg Config) (*Registry, error) {
	if !ident.IsDomainName(cfg.Domain) {
		return nil, fmt.Errorf("open presence: %q is not a domain name", cfg.Domain)
	}
	options, err := cfg.options()
	if err != nil {
		return nil, fmt.Errorf("open presence: %w", err)
	}
	options.ContextTimeoutEnabled = true
	options.DialTimeout = dialTimeout
	options.ReadTimeout = ioTimeout
	options.WriteTimeout = ioTimeout
	options.MaxRetries = maxRetries
	options.DialerRetries = 1 // of each attempt, so one: a server that does not answer would cost five times as long
	// Notices of a managed service's moves: one more handshake for nothing here.
	options.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	// The library has one logger for the process, which writes to stderr in a form
	// of its own, for each call while Redis is away. Callers get the same errors.
	logging.Disable()
	client := redis.NewClient(options)
	client.AddHook(&watcher{log: cfg.Log, encrypted: options.TLSConfig != nil})
	return &Registry{
		client:  client,
		prefix:  "linker:{" + cfg.Domain + "}:",
		log:     cfg.Log,
		renew:   redis.NewScript(renewScript),
		release: redis.NewScript(releaseScript),
		bury:    redis.NewScript(buryScript),
		view:    redis.NewScript(viewScript),
	}, nil
}

// Close ends all connections.
func (r *Registry) Close() error {
	if err := r.client.Close(); err != nil {
		return fmt.Errorf("close presence: %w", err)
	}
	return nil
}

// The leases are one hash: name → "<incarnation> <expires, ms since 1970>". A
// field that has expired counts as absent; View clears it away.
const (
	clock = `
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)`

	// unburied goes on if the incarnation was not buried: holder is then who has a
	// lease of that name that stands, or nil.
	unburied = `
if redis.call('EXISTS', KEYS[2]) == 1 then
  return 2
end` + clock + `
local holder, expires
local held = redis.call('HGET', KEYS[1], ARGV[1])
if held then
  holder, expires = string.match(held, '^(%x+) (%d+)$')
  if tonumber(expires) <= now then
    holder = nil
  end
end`

	renewScript = unburied + `
if holder and holder ~= ARGV[2] then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. string.format('%.0f', now + tonumber(ARGV[3])))
return 1`

	buryScript = unburied + `
if holder == ARGV[2] then
  return 0
end
redis.call('SET', KEYS[2], '1', 'PX', ARGV[3])
return 1`

	releaseScript = `
redis.call('SET', KEYS[2], '1', 'PX', ARGV[3])
local held = redis.call('HGET', KEYS[1], ARGV[1])
if held and string.match(held, '^(%x+) ') == ARGV[2] then
  redis.call('HDEL', KEYS[1], ARGV[1])
end
return 1`

	viewScript = `
local marker = redis.call('GET', KEYS[2])
if not marker then
  marker = ARGV[1]
  redis.call('SET', KEYS[2], marker)
end` + clock + `
local answer = {marker}
local leases = redis.call('HGETALL', KEYS[1])
for i = 1, #leases, 2 do
  local incarnation, expires = string.match(leases[i + 1], '^(%x+) (%d+)$')
  if tonumber(expires) > now then
    answer[#answer + 1] = leases[i]
    answer[#answer + 1] = incarnation
  else
    redis.call('HDEL', KEYS[1], leases[i])
  end
end
return answer`
)

// Renew takes the lease of a connector, or prolongs it: it lasts ttl from now.
// ErrTaken if another incarnation holds a lease of that name that has not ended,
// ErrBuried if this one was declared dead.
func (r *Registry) Renew(ctx context.Context, c ident.Connector, ttl time.Duration) error {
	held, err := r.renew.Run(ctx, r.client, []string{r.leasesKey(), r.buriedKey(c)}, c.Name, c.Incarnation.String(), ttl.Milliseconds()).Int()
	if err != nil {
		return fmt.Errorf("renew the lease of %s: %w", c.Name, err)
	}
	switch held {
	case 0:
		return fmt.Errorf("renew the lease of %s: %w", c.Name, ErrTaken)
	case 2:
		return fmt.Errorf("renew the lease of %s: %w", c.Name, ErrBuried)
	}
	return nil
}

// Bury declares a connector dead, unless its lease stands: then dead is false. news
// says that nobody knew: neither had it been declared dead before, nor had it
// released its lease. A connector that is buried learns of it with its next renewal,
// so that nobody is taken for dead who does not know.
func (r *Registry) Bury(ctx context.Context, c ident.Connector) (dead, news bool, err error) {
	answer, err := r.bury.Run(ctx, r.client, []string{r.leasesKey(), r.buriedKey(c)}, c.Name, c.Incarnation.String(), buriedFor.Milliseconds()).Int()
	if err != nil {
		return false, false, fmt.Errorf("declare %s dead: %w", c.Name, err)
	}
	return answer > 0, answer == 1, nil
}

// Release ends the lease of a connector, if it is this incarnation's. The incarnation
// cannot take one again.
func (r *Registry) Release(ctx context.Context, c ident.Connector) error {
	err := r.release.Run(ctx, r.client, []string{r.leasesKey(), r.buriedKey(c)}, c.Name, c.Incarnation.String(), buriedFor.Milliseconds()).Err()
	if err != nil {
		return fmt.Errorf("release the lease of %s: %w", c.Name, err)
	}
	return nil
}

// View returns the live leases, sorted by name, and a marker that changes when
// Redis was emptied, was started again, or is another server than before.
func (r *Registry) View(ctx context.Context) (presence.View, error) {
	info, err := r.client.Info(ctx).Result()
	if err != nil {
		return presence.View{}, fmt.Errorf("view the leases: %w", err)
	}
	answer, err := r.view.Run(ctx, r.client, []string{r.leasesKey(), r.prefix + "marker"}, rand.Text()).StringSlice()
	if err != nil {
		return presence.View{}, fmt.Errorf("view the leases: %w", err)
	}
	view := presence.View{Marker: answer[0] + "/" + runID(info)}
	for pair := range slices.Chunk(answer[1:], 2) {
		c, err := parseConnector(pair[0], pair[1])
		if err != nil {
			return presence.View{}, fmt.Errorf("view the leases: %w", err)
		}
		view.Leases = append(view.Leases, c)
	}
	slices.SortFunc(view.Leases, compareConnectors)
	r.noteMarker(view.Marker)
	return view, nil
}

// noteMarker tells the operator of a Redis that is not what it was.
func (r *Registry) noteMarker(marker string) {
	r.mu.Lock()
	before := r.marker
	r.marker = marker
	r.mu.Unlock()
	if before != "" && before != marker {
		r.log.Warn("Redis was started again or emptied, presence is being filled again")
	}
}

// Leases returns the live leases, sorted by name.
func (r *Registry) Leases(ctx context.Context) ([]ident.Connector, error) {
	view, err := r.View(ctx)
	return view.Leases, err
}

// Put notes which sessions a connector has got and lost. It may be repeated.
// What it notes lasts ttl: a connector puts its sessions again before that. A
// removed session that Redis knows nothing of is passed over; where its user was
// noted, that note ends with its ttl.
func (r *Registry) Put(ctx context.Context, c ident.Connector, added map[uint64]ident.UserID, removed []uint64, ttl time.Duration) error {
	sessions := slices.Sorted(maps.Keys(added))
	for chunk := range slices.Chunk(sessions, putChunk) {
		if err := r.add(ctx, c, chunk, added, ttl); err != nil {
			return fmt.Errorf("put sessions of %s: %w", c.Name, err)
		}
	}
	for chunk := range slices.Chunk(removed, putChunk) {
		if err := r.remove(ctx, c, chunk); err != nil {
			return fmt.Errorf("remove sessions of %s: %w", c.Name, err)
		}
	}
	return nil
}

func (r *Registry) add(ctx context.Context, c ident.Connector, sessions []uint64, users map[uint64]ident.UserID, ttl time.Duration) error {
	key := r.sessionsKey(c)
	_, err := r.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, session := range sessions {
			userKey := r.userKey(users[session])
			p.HSet(ctx, key, field(session), string(users[session]))
			p.SAdd(ctx, userKey, place(c, session))
			p.PExpire(ctx, userKey, ttl)
		}
		p.PExpire(ctx, key, ttl)
		return nil
	})
	return err
}

func (r *Registry) remove(ctx context.Context, c ident.Connector, sessions []uint64) error {
	key := r.sessionsKey(c)
	fields := make([]string, len(sessions))
	for i, session := range sessions {
		fields[i] = field(session)
	}
	users, err := r.client.HMGet(ctx, key, fields...).Result()
	if err != nil {
		return err
	}
	_, err = r.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, session := range sessions {
			if user, ok := users[i].(string); ok {
				p.SRem(ctx, r.userKey(ident.UserID(user)), place(c, session))
			}
		}
		p.HDel(ctx, key, fields...)
		return nil
	})
	return err
}

// Locate returns the connectors that a user is connected to and that have a
// live lease, each once, sorted by name. It is for queries: it may lag behind.
func (r *Registry) Locate(ctx context.Context, user ident.UserID) ([]ident.Connector, error) {
	places, err := r.client.SMembers(ctx, r.userKey(user)).Result()
	if err != nil {
		return nil, fmt.Errorf("locate a user: %w", err)
	}
	if len(places) == 0 {
		return nil, nil
	}
	live, err := r.Leases(ctx)
	if err != nil {
		return nil, fmt.Errorf("locate a user: %w", err)
	}
	found, err := connectorsOf(places, live)
	if err != nil {
		return nil, fmt.Errorf("locate a user: %w", err)
	}
	return found, nil
}

// connectorsOf returns the connectors of the places of a user that are alive, each
// once, sorted by name.
func connectorsOf(places []string, live []ident.Connector) ([]ident.Connector, error) {
	var found []ident.Connector
	for _, p := range places {
		name, rest, _ := strings.Cut(p, " ")
		incarnation, _, _ := strings.Cut(rest, " ")
		c, err := parseConnector(name, incarnation)
		if err != nil {
			return nil, err
		}
		if slices.Contains(live, c) && !slices.Contains(found, c) {
			found = append(found, c)
		}
	}
	slices.SortFunc(found, compareConnectors)
	return found, nil
}

func (r *Registry) leasesKey() string { return r.prefix + "leases" }

func (r *Registry) buriedKey(c ident.Connector) string {
	return r.prefix + "buried:" + c.Incarnation.String()
}

func (r *Registry) sessionsKey(c ident.Connector) string {
	return r.prefix + "sessions:" + c.Name + ":" + c.Incarnation.String()
}

func (r *Registry) userKey(user ident.UserID) string { return r.prefix + "user:" + string(user) }

func field(session uint64) string { return strconv.FormatUint(session, 16) }

// place is a session as it stands in the set of its user.
func place(c ident.Connector, session uint64) string {
	return c.Name + " " + c.Incarnation.String() + " " + field(session)
}

func parseConnector(name, incarnation string) (ident.Connector, error) {
	c := ident.Connector{Name: name}
	if len(incarnation) != hex.EncodedLen(len(c.Incarnation)) {
		return c, fmt.Errorf("connector %q has no valid incarnation", name)
	}
	if _, err := hex.Decode(c.Incarnation[:], []byte(incarnation)); err != nil {
		return c, fmt.Errorf("connector %q has no valid incarnation: %w", name, err)
	}
	return c, nil
}

func compareConnectors(a, b ident.Connector) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), slices.Compare(a.Incarnation[:], b.Incarnation[:]))
}

// runID finds in INFO what a Redis draws each time it starts; "" if it is not told.
func runID(info string) string {
	for line := range strings.Lines(info) {
		if id, ok := strings.CutPrefix(line, "run_id:"); ok {
			return strings.TrimSpace(id)
		}
	}
	return ""
}
