package load

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/linkerhq/linker/standalone/internal/torture/history"
)

const (
	fetchEvery  = 2 * time.Second
	fetchMost   = 500
	slowAck     = 3 * time.Second // the longest that a slow client waits before it acknowledges
	watchEvery  = 3 * time.Second
	lateLeast   = 15 * time.Second // before a bystander comes back: longer than it takes to be announced as gone
	lateMost    = 18 * time.Second
	dozeOften   = 25 // one in so many frames is read late by those who doze
	dozeLeast   = 200 * time.Millisecond
	dozeMost    = 1500 * time.Millisecond
	visitLeast  = 2 * time.Second
	visitMost   = 8 * time.Second
	absentLeast = 4 * time.Second
	absentMost  = 12 * time.Second
)

// receiver takes what comes for a user over one socket after another.
type receiver struct {
	load   *Load
	user   *user
	habit  habit
	random *rand.Rand // owned by run
}

// receiver makes a receiver of the kind that its habit says.
func (l *Load) receiver(u *user, h habit) participant {
	r := &receiver{load: l, user: u, habit: h, random: l.random("life of " + u.id + h.client)}
	if h.client == history.ClientGo {
		return &goReceiver{*r}
	}
	return r
}

// features are those of a login; nil: none are named.
func (h habit) features() []string {
	if h.bare {
		return nil
	}
	features := []string{}
	if h.push {
		features = append(features, featurePush)
	}
	if h.client == history.ClientAck {
		features = append(features, featureAck)
	}
	return features
}

// goes says whether the receiver goes by itself now and then.
func (r *receiver) goes() bool { return r.habit.visits != stays && !r.load.staying.over() }

// gone says whether it goes for good.
func (r *receiver) gone() bool { return r.user.role != history.RoleMaster && r.load.leaving.over() }

func (r *receiver) run(ctx context.Context) {
	for ctx.Err() == nil && !r.gone() {
		s, err := r.load.login(ctx, r.user, r.habit.client, r.habit.features())
		if err != nil {
			r.user.next()
			pause(ctx, between(r.random, 0, maxPause), nil)
			continue
		}
		broke := r.serve(ctx, s)
		r.away(ctx, broke)
	}
}

// away is the time between two visits.
func (r *receiver) away(ctx context.Context, broke bool) {
	d := between(r.random, 0, maxPause)
	switch {
	case r.load.staying.over():
	case broke && r.habit.late:
		d = between(r.random, lateLeast, lateMost)
	case broke:
		r.user.next()
	case r.habit.visits == seldom:
		d = between(r.random, absentLeast, absentMost)
	}
	pause(ctx, d, r.load.staying.done)
}

// serve takes what a socket brings until it ends, and says whether it broke. A user
// who goes leaves in an orderly way.
func (r *receiver) serve(ctx context.Context, s *socket) (broke bool) {
	reading, cancel := context.WithCancel(ctx)
	k := &keeper{receiver: r, socket: s, goAway: make(chan time.Duration, 1), random: rand.New(rand.NewPCG(r.random.Uint64(), 0)), dozing: rand.New(rand.NewPCG(r.random.Uint64(), 1))}
	var keeping sync.WaitGroup
	keeping.Go(func() { k.run(reading) })
	err := s.each(reading, func(f *frame) error {
		err := k.take(f)
		k.doze(reading)
		return err
	})
	cancel()
	keeping.Wait()
	s.closed(k.how, err)
	return !k.how.orderly
}

// keeper does for a socket what is not reading.
type keeper struct {
	*receiver
	socket *socket
	goAway chan time.Duration // capacity 1, never closed; what does not fit was said before
	random *rand.Rand         // owned by run
	dozing *rand.Rand         // owned by the reader

	fetching atomic.Bool

	// Owned by run, then by serve.
	how parting
}

// take is called by the reader with every frame.
func (k *keeper) take(f *frame) error {
	switch f.Type {
	case "MESSAGE", "MESSAGE_CONFIRMATION", "USER_CONNECTED", "USER_DISCONNECTED":
		if k.socket.byAck && !k.habit.slow {
			return k.socket.acknowledge()
		}
	case "FETCH_MISSING_MESSAGES_COMPLETE":
		if f.Data.LeftMissingCount == nil {
			k.socket.strange(f)
		} else if *f.Data.LeftMissingCount > 0 {
			return k.socket.fetch(fetchMost)
		}
		k.fetching.Store(false)
	case "MISSING_MESSAGES_AVAILABLE":
		if k.socket.bare {
			k.socket.strange(f)
		}
	case "GO_AWAY":
		if k.socket.bare {
			k.socket.strange(f)
		}
		select {
		case k.goAway <- time.Duration(f.Data.ReconnectInMs) * time.Millisecond:
		default:
		}
	default:
		k.fetching.Store(false)
		if f.Type != "DELIVER_FAILED" || f.Data.Code != "QUEUE_UNAVAILABLE" { // about a fetch, while the log was away
			k.socket.strange(f)
		}
	}
	return nil
}

func (k *keeper) run(ctx context.Context) {
	var going <-chan time.Time
	if k.goes() {
		timer := time.NewTimer(between(k.random, visitLeast, visitMost))
		defer timer.Stop()
		going = timer.C
	}
	fetch, ack, watch := every(fetchEvery, !k.habit.push), every(slowAck/2+1, k.habit.slow), every(watchEvery, !k.habit.patient)
	defer fetch.stop()
	defer ack.stop()
	defer watch.stop()
	leaving := k.load.leaving.done
	if k.user.role == history.RoleMaster {
		leaving = nil
	}
	told := false // to go away
	k.ask()
	for {
		select {
		case <-ctx.Done():
			return
		case <-leaving:
			k.leave()
			return
		case <-going:
			if told || k.goes() {
				k.leave()
				return
			}
		case after := <-k.goAway:
			timer := time.NewTimer(after)
			defer timer.Stop()
			going, told = timer.C, true
		case <-fetch.c:
			k.ask()
		case <-ack.c:
			if k.random.IntN(2) == 0 && k.socket.acknowledge() != nil {
				return
			}
		case <-watch.c:
			if k.socket.ping(silence) != nil {
				_ = k.socket.ws.CloseNow()
				return
			}
		}
	}
}

func (k *keeper) leave() {
	k.how = k.socket.leave()
}

// doze now and then keeps the reader from reading: what comes then waits in the
// buffers of the system, and is not received. Called by the reader.
func (k *keeper) doze(ctx context.Context) {
	if k.habit.dozes && !k.load.staying.over() && k.dozing.IntN(dozeOften) == 0 {
		pause(ctx, between(k.dozing, dozeLeast, dozeMost), k.load.staying.done)
	}
}

// ask fetches, unless a fetch is under way.
func (k *keeper) ask() {
	if !k.habit.push && k.fetching.CompareAndSwap(false, true) {
		_ = k.socket.fetch(1 + k.random.IntN(fetchMost)) // the reader sees what is wrong
	}
}

// ticker ticks, or does not.
type ticker struct {
	c      <-chan time.Time
	ticker *time.Ticker // nil: it does not
}

func every(d time.Duration, wanted bool) ticker {
	if !wanted {
		return ticker{}
	}
	t := time.NewTicker(d)
	return ticker{t.C, t}
}

func (t ticker) stop() {
	if t.ticker != nil {
		t.ticker.Stop()
	}
}
