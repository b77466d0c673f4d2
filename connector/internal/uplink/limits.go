package uplink

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/linkerhq/linker/connector/internal/session"
	"github.com/linkerhq/linker/pkg/topology"
	"github.com/linkerhq/linker/pkg/wire"
)

const (
	// A socket is closed when for floodFor seconds on end more than floodShare of
	// its messages were refused for each that was taken: it does not listen.
	floodFor   = 10
	floodShare = 2
	// mostDenied is how many messages of a socket are refused in one second; then it is
	// not read until the next. So it costs next to nothing what it sends in vain.
	mostDenied = 200
)

// kind says which limit a message was above. The list is closed.
type kind string

const (
	ofSocket kind = "socket"
	ofApp    kind = "app"
)

// pace is a limit as arithmetic: a message is due every so often, and may come
// ahead of that by some slack. Times are nanoseconds. The zero value has no limit.
type pace struct{ every, slack int64 }

func paceOf(l topology.Limit) pace {
	if l.PerSecond == 0 {
		return pace{}
	}
	every := int64(time.Second) / int64(l.PerSecond)
	return pace{every: every, slack: every * int64(l.AtOnce()-1)}
}

// take asks for one message now, when the next one was due then. It returns when
// the one after it is due, or how long to wait. A due time that an earlier, slower
// limit has put far ahead is brought back to what this one can lead to.
func (p pace) take(due, now int64) (next int64, wait time.Duration) {
	due = min(max(due, now), now+p.slack+p.every)
	if early := due - now - p.slack; early > 0 {
		return due, time.Duration(early)
	}
	return due + p.every, 0
}

// limits is what one session may send. It is owned by Submit.
type limits struct {
	network *topology.Snapshot // which the limits were read from
	bounds  *bounds            // nil: there has never been a limit
}

// bounds are the limits of a session, and how near to them it is.
type bounds struct {
	socket topology.Limit
	pace   pace  // of socket
	due    int64 // when the next message of the socket is
	app    *shared
	flood  flood
}

// shared is the limit of an app at this connector. Sessions take from it without
// a lock.
type shared struct {
	limit topology.Limit // static
	pace  pace           // static
	due   *atomic.Int64  // of the app, whatever its limit was before
}

// appLimits are the limits of apps at this connector.
type appLimits struct {
	mu      sync.Mutex
	network *topology.Snapshot // guarded by mu; which the rest was read from
	apps    map[string]*shared // guarded by mu; those with a limit, by name
}

// of returns the limit of an app, nil if it has none.
func (a *appLimits) of(app string, network *topology.Snapshot) *shared {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.network != network {
		a.network = network
		a.read(network)
	}
	return a.apps[app]
}

// read takes the limits of a network; what apps have sent still counts.
func (a *appLimits) read(network *topology.Snapshot) {
	before := a.apps
	a.apps = make(map[string]*shared)
	for _, app := range network.Network().Apps {
		limit := app.Limits.App
		if limit == (topology.Limit{}) {
			continue
		}
		due := new(atomic.Int64)
		if old, known := before[app.Name]; known {
			due = old.due
		}
		a.apps[app.Name] = &shared{limit: limit, pace: paceOf(limit), due: due}
	}
}

func (s *shared) take(now int64) time.Duration {
	for {
		due := s.due.Load()
		next, wait := s.pace.take(due, now)
		if next == due || s.due.CompareAndSwap(due, next) {
			return wait
		}
	}
}

// admit says whether the limits let a message pass; if not, it answers the client.
// Without a limit it costs nothing but the look whether there is a newer network.
func (x *Sender) admit(network *topology.Snapshot, reference string) bool {
	if network != x.limits.network {
		x.limits.read(x.user.App(), network, &x.u.appLimits)
	}
	l := x.limits.bounds
	if l == nil || l.pace == (pace{}) && l.app == nil {
		return true
	}
	now, next := int64(time.Since(x.u.began)), int64(0)
	if l.pace != (pace{}) {
		var wait time.Duration
		next, wait = l.pace.take(l.due, now)
		if wait > 0 {
			l.due = next
			x.limited(ofSocket, l.socket, reference, wait)
			x.denied(l, now)
			if l.flood.seconds >= floodFor {
				x.s.End(wire.CloseSendingFast, session.CauseFast)
			}
			return false
		}
	}
	if l.app != nil {
		if wait := l.app.take(now); wait > 0 { // the socket keeps its turn
			x.limited(ofApp, l.app.limit, reference, wait)
			x.denied(l, now)
			l.flood.seconds = 0 // others may have left it no room
			return false
		}
	}
	l.due = next
	l.flood.taken(now)
	return true
}

// denied counts a refusal. After many of them the socket is not read for the rest of
// the second.
func (x *Sender) denied(l *bounds, now int64) {
	f := &l.flood
	f.refused(now)
	if f.denied >= max(mostDenied, (floodShare+1)*l.socket.PerSecond) {
		x.s.Rest(time.Duration(f.began + int64(time.Second) - now))
	}
}

func (l *limits) read(app string, network *topology.Snapshot, apps *appLimits) {
	l.network = network
	described, _ := network.App(app) // whose app is gone is sent away by others
	if l.bounds == nil {
		if described.Limits == (topology.Limits{}) {
			return
		}
		l.bounds = new(bounds)
	}
	b := l.bounds
	b.socket = described.Limits.Socket
	b.pace = paceOf(b.socket)
	b.app = nil
	if described.Limits.App != (topology.Limit{}) {
		b.app = apps.of(app, network)
	}
}

// limited answers a message that came too early.
func (x *Sender) limited(which kind, limit topology.Limit, reference string, wait time.Duration) {
	x.u.metrics.limited[which].Inc()
	x.u.metrics.failed[wire.CodeRateLimited].Inc()
	whose := "one socket"
	if which == ofApp {
		whose = "all sockets of the app together"
	}
	x.s.Reply(wire.AppendDeliverFailed(nil, wire.Failure{
		Code:      wire.CodeRateLimited,
		Message:   fmt.Sprintf("too many messages of %s, expected at most %d in a second, %d at once", whose, limit.PerSecond, limit.AtOnce()),
		Retryable: true, RetryAfterMs: int((wait + time.Millisecond - 1) / time.Millisecond), Reference: reference,
	}))
}

// flood notices a socket that goes on sending whatever it is told. It counts in
// seconds.
type flood struct {
	began    int64 // nanoseconds
	accepted int
	denied   int
	seconds  int // on end, in which most was refused
}

func (f *flood) taken(now int64) {
	f.turn(now)
	f.accepted++
}

func (f *flood) refused(now int64) {
	f.turn(now)
	f.denied++
}

// turn closes a second that is over. A second without any message ends the row.
func (f *flood) turn(now int64) {
	passed := now - f.began
	if passed < int64(time.Second) {
		return
	}
	if f.denied > floodShare*f.accepted && passed < 2*int64(time.Second) {
		f.seconds++
	} else {
		f.seconds = 0
	}
	f.began, f.accepted, f.denied = now, 0, 0
}
