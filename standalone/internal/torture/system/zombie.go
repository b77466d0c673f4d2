package system

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/broker/nats"
	"github.com/linkerhq/linker/pkg/delivery"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/wire"
)

const (
	// haunting is how long a zombie leaves a lane alone after it has haunted it.
	haunting = 50 * time.Millisecond
	// neverSent is added to the number that the content of a message names: nobody
	// sends so many.
	neverSent = 1 << 25
	// The parts of a content that package load makes: from, bound for, number, sum,
	// padding.
	contentParts  = 5
	contentNumber = 2
)

// Haunt plays a processor that has slept through the end of its ownership of all
// lanes of a domain. Until ctx ends it listens to what their owners deliver, and
// each time delivers itself, as the owner that it was before: a message that nobody
// has sent, and one that was sent under another id. No connector may take any of it.
// Haunt returns how often it has done so.
func (s *System) Haunt(ctx context.Context, domain string) (int, error) {
	for n, name := range s.names {
		if name == domain && !s.cfg.Standalone {
			return haunt(ctx, domain, s.on(n).NATS)
		}
	}
	return 0, fmt.Errorf("there is no live plane of %q that can be reached", domain)
}

func haunt(ctx context.Context, domain, url string) (times int, err error) {
	conn, err := nats.Connect(nats.Config{
		Server: nats.Server{URL: url}, Name: "zombie", Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		return 0, fmt.Errorf("haunt %s: %w", domain, err)
	}
	defer conn.Close()
	z := &zombie{conn: conn, domain: domain, heard: map[hauntedPath]*nats.Subscription{}, lanes: map[int]*hauntedLane{}}
	var answers []*nats.Subscription
	for lane := range lanes {
		var sub *nats.Subscription
		if sub, err = conn.Subscribe(delivery.LaneSubject(domain, lane), z.answer); err != nil {
			break
		}
		answers = append(answers, sub)
	}
	if err == nil {
		<-ctx.Done()
	}
	for _, sub := range answers {
		err = errors.Join(err, sub.Stop())
	}
	for _, sub := range z.connectors() {
		err = errors.Join(err, sub.Stop())
	}
	if !conn.Connected() {
		err = nil // the live plane is away: there is nothing to haunt
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.times, err
}

// connectors are the subscriptions to what goes to connectors.
func (z *zombie) connectors() []*nats.Subscription {
	z.mu.Lock()
	defer z.mu.Unlock()
	return slices.Collect(maps.Values(z.heard))
}

// zombie is a processor that believes to own lanes.
type zombie struct {
	conn   *nats.Conn
	domain string

	mu    sync.Mutex
	heard map[hauntedPath]*nats.Subscription // guarded by mu
	lanes map[int]*hauntedLane               // guarded by mu
	times int                                // guarded by mu
}

// hauntedPath is what goes from a lane to a connector.
type hauntedPath struct {
	connector ident.Connector
	lane      int
}

// hauntedLane is what a zombie knows of a lane.
type hauntedLane struct {
	owner envelope.Position // the epoch of its owner
	last  time.Time         // when it was haunted last
}

// answer hears of connectors.
func (z *zombie) answer(data []byte) {
	a, err := delivery.DecodeAnswers(data)
	if err != nil {
		return // the owner says so
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	path := hauntedPath{a.Connector, a.Lane}
	if z.heard[path] != nil {
		return
	}
	subject := delivery.ConnectorSubject(z.domain, a.Connector, a.Lane)
	sub, err := z.conn.Subscribe(subject, func(data []byte) { z.delivered(subject, data) })
	if err == nil { // otherwise the next answer is another chance
		z.heard[path] = sub
	}
}

// delivered hears what the owner of a lane delivers, and haunts the sessions that it
// is for.
func (z *zombie) delivered(subject string, data []byte) {
	b, err := delivery.DecodeBatch(data)
	if err != nil {
		return // the connector says so
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	l := z.lanes[b.Lane]
	if l == nil {
		l = &hauntedLane{}
		z.lanes[b.Lane] = l
	}
	if b.Epoch.Before(l.owner) { // its own, or of a zombie that is none of ours
		return
	}
	l.owner = b.Epoch
	if time.Since(l.last) < haunting {
		return
	}
	b.Epoch = earlier(b.Epoch)
	b.Items = hauntedItems(b.Items)
	if len(b.Items) == 0 || z.conn.Publish(subject, b.Append(nil)) != nil {
		return
	}
	l.last = time.Now()
	z.times++
}

// earlier is an epoch before another one.
func earlier(p envelope.Position) envelope.Position {
	p.Offset--
	return p
}

// hauntedItems makes of what an owner delivers what its predecessor could come up
// with: under the next numbers of the sessions, other messages.
func hauntedItems(items []delivery.Item) []delivery.Item {
	var list []delivery.Item
	next := map[uint64]uint64{} // by session
	for i := range items {
		for _, to := range items[i].Targets {
			next[to.Session] = max(next[to.Session], to.D+1)
		}
	}
	for i := range items {
		it := &items[i]
		if it.Kind != delivery.KindFrame {
			continue
		}
		forged, again, ok := haunted(it.Frame)
		if !ok {
			continue
		}
		for _, message := range []ghost{forged, again} {
			other := *it
			other.ID, other.Frame, other.Token = message.id, message.frame, 0
			other.Targets = nil
			for _, to := range it.Targets {
				other.Targets = append(other.Targets, delivery.Target{Session: to.Session, User: to.User, D: next[to.Session]})
				next[to.Session]++
			}
			list = append(list, other)
		}
	}
	return list
}

// ghost is a message that nobody has sent so.
type ghost struct {
	id    ident.MessageID
	frame []byte
}

// haunted makes of the frame of a message one that nobody has sent, and one with the
// same content under another id. false: the frame is of nothing that anybody wrote.
func haunted(frame []byte) (forged, again ghost, ok bool) {
	var f struct {
		Type      string
		Data      struct{ From, Content string }
		Reference string
		CreatedAt int64
	}
	if json.Unmarshal(frame, &f) != nil || f.Type != string(wire.TypeMessage) {
		return ghost{}, ghost{}, false
	}
	parts := strings.SplitN(f.Data.Content, "|", contentParts)
	if len(parts) != contentParts {
		return ghost{}, ghost{}, false
	}
	n, err := strconv.Atoi(parts[contentNumber])
	if err != nil {
		return ghost{}, ghost{}, false
	}
	write := func(content string) ghost {
		var g ghost
		_, _ = rand.Read(g.id[:]) // never fails
		text, err := json.Marshal(content)
		if err == nil { // always: it is a string
			g.frame = wire.AppendMessage(nil, ident.UserID(f.Data.From), text, f.Reference, wire.Stamp{ID: g.id, CreatedAt: f.CreatedAt})
		}
		return g
	}
	again = write(f.Data.Content)
	parts[contentNumber] = strconv.Itoa(n%neverSent + neverSent)
	return write(strings.Join(parts, "|")), again, true
}
