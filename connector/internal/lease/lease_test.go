package lease_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/connector/internal/lease"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/presence"
)

var (
	errTaken  = errors.New("taken")
	errBuried = errors.New("buried")
)

// registry is a presence store in memory.
type registry struct {
	mu      sync.Mutex
	err     error
	stuck   time.Duration
	marker  string
	renewed []time.Time
	places  map[uint64]ident.UserID
	puts    int
	gone    bool
}

func (r *registry) Renew(context.Context, ident.Connector, time.Duration) error {
	r.mu.Lock()
	stuck := r.stuck
	r.stuck = 0
	r.mu.Unlock()
	time.Sleep(stuck)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.renewed = append(r.renewed, time.Now())
	}
	return r.err
}

func (r *registry) Release(context.Context, ident.Connector) error {
	r.set(func() { r.gone = true })
	return nil
}

func (r *registry) View(context.Context) (presence.View, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return presence.View{Marker: r.marker}, r.err
}

func (r *registry) Put(_ context.Context, _ ident.Connector, added map[uint64]ident.UserID, removed []uint64, _ time.Duration) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return r.err
	}
	r.puts++
	maps.Copy(r.places, added)
	for _, id := range removed {
		delete(r.places, id)
	}
	return nil
}

func (r *registry) set(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

func (r *registry) has(id uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, there := r.places[id]
	return there
}

// places are the sessions of a connector.
type places struct {
	mu      sync.Mutex
	all     map[uint64]ident.UserID
	added   map[uint64]ident.UserID
	removed []uint64
}

func (p *places) All() map[uint64]ident.UserID {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all
}

func (p *places) TakeChanges() (added map[uint64]ident.UserID, removed []uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	added, removed = p.added, p.removed
	p.added, p.removed = nil, nil
	return added, removed
}

func (p *places) put(id uint64, user ident.UserID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = map[uint64]ident.UserID{id: user}
	p.added = map[uint64]ident.UserID{id: user}
}

type fixture struct {
	*registry
	places *places
	l      *lease.Lease
	ended  chan error
	stop   context.CancelFunc
}

func start(t *testing.T, r *registry) *fixture {
	t.Helper()
	r.marker, r.places = "m-1", make(map[uint64]ident.UserID)
	f := &fixture{registry: r, places: &places{}, ended: make(chan error, 1)}
	var err error
	f.l, err = lease.New(lease.Config{
		Taken: errTaken, Buried: errBuried, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	}, r, f.places)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	f.stop = cancel
	go func() { f.ended <- f.l.Run(ctx) }()
	return f
}

func TestTheLeaseIsRenewedUntilTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := start(t, &registry{})
		synctest.Wait()
		if err := f.l.Ready(); err != nil {
			t.Error(err)
		}
		time.Sleep(10*time.Second + 500*time.Millisecond) // between two renewals
		f.set(func() {
			if len(f.renewed) != 11 {
				t.Errorf("renewed %d times in 10 s", len(f.renewed))
			}
			f.err = errors.New("away")
		})
		time.Sleep(6 * time.Second)
		if err := f.l.Ready(); err != nil {
			t.Errorf("while the store is away: %v", err)
		}
		f.set(func() { f.err = nil })
		f.stop()
		if err := <-f.ended; err != nil {
			t.Error(err)
		}
		f.l.Release(t.Context())
		if !f.gone {
			t.Error("not released")
		}
	})
}

func TestTheLeaseOfAKilledPredecessorIsWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := start(t, &registry{err: errTaken})
		time.Sleep(5 * time.Second)
		if f.l.Ready() == nil {
			t.Error("ready while another holds the lease")
		}
		f.set(func() { f.err = nil })
		time.Sleep(2 * time.Second)
		if err := f.l.Ready(); err != nil {
			t.Error(err)
		}
		f.set(func() { f.err = errTaken })
		if err := <-f.ended; !errors.Is(err, errTaken) {
			t.Errorf("lost the lease to another, and got %v", err)
		}
		f.stop()
	})
}

func TestASecondProcessOfTheNameGivesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		f := start(t, &registry{err: errTaken})
		if err := <-f.ended; !errors.Is(err, errTaken) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(began); took < 7*time.Second || took > 10*time.Second {
			t.Errorf("gave up after %s", took)
		}
		f.stop()
	})
}

func TestTheNameIsOursWhenNobodyElseIsKnownToHaveIt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err  error
		ours bool
	}{
		"held": {nil, true}, "the store is away": {errors.New("away"), true}, "taken": {errTaken, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := start(t, &registry{err: c.err})
			time.Sleep(3 * time.Second)
			select {
			case <-f.l.Ours():
				if !c.ours {
					t.Errorf("%s: ours", name)
				}
			default:
				if c.ours {
					t.Errorf("%s: not ours", name)
				}
			}
			f.set(func() { f.err = nil })
			<-f.l.Ours()
			f.stop()
			<-f.ended
		})
	}
}

func TestASlowStoreIsNotTakenForSleep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := start(t, &registry{stuck: 10 * time.Second})
		time.Sleep(11 * time.Second)
		f.stop()
		if err := <-f.ended; err != nil {
			t.Error(err)
		}
	})
}

func TestAConnectorThatWasDeclaredDeadIsTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := start(t, &registry{})
		time.Sleep(5 * time.Second)
		f.set(func() { f.err = errBuried })
		if err := <-f.ended; !errors.Is(err, lease.ErrLost) {
			t.Errorf("got %v", err)
		}
		f.stop()
	})
}

func TestPlacesAreNotedAndNotedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := start(t, &registry{})
		f.places.put(1, "ANZ-1")
		time.Sleep(2 * time.Second)
		if !f.has(1) {
			t.Error("not noted")
		}
		f.set(func() { f.registry.places, f.marker = make(map[uint64]ident.UserID), "m-2" }) // emptied
		time.Sleep(3 * time.Second)
		if !f.has(1) {
			t.Error("not noted again after the store was emptied")
		}
		f.set(func() { f.err = errors.New("away") })
		f.places.put(2, "ANZ-2")
		time.Sleep(3 * time.Second)
		f.set(func() { f.err, f.puts = nil, 0 })
		time.Sleep(2 * time.Second)
		if !f.has(2) {
			t.Error("not noted after the store came back")
		}
		time.Sleep(21 * time.Second)
		f.set(func() {
			if f.puts < 2 {
				t.Errorf("noted %d times", f.puts)
			}
		})
		f.stop()
		<-f.ended
	})
}
