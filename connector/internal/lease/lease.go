// Package lease keeps the connector's lease, by which the domain knows that it
// is alive, and notes which users it has.
//
// The store may be away: then nothing is concluded by anybody, and it is filled
// again when it comes back.
package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/presence"
)

const (
	// ttl is how long a lease lives that is not renewed.
	ttl        = 5 * time.Second
	renewEvery = time.Second
	// takenFor is how long a start waits for the lease of a predecessor of the
	// same name that was killed.
	takenFor = ttl + 2*time.Second
	// asleepAfter is how long no attempt to renew may have been made: the domain
	// may have taken the connector for dead by then.
	asleepAfter = ttl + 1500*time.Millisecond
	// placesTTL and placesEvery are how long the places of users last, and how
	// often all of them are noted again.
	placesTTL   = time.Minute
	placesEvery = 20 * time.Second
	releaseTime = time.Second
)

// ErrLost says that the domain has taken the connector for dead, or may have: its
// sessions are gone for the lanes. It has to begin anew, as another incarnation.
var ErrLost = errors.New("the domain has taken this connector for dead")

// Registry is where leases and places are kept. Each call fails within some
// seconds when the store is away.
type Registry interface {
	Renew(ctx context.Context, c ident.Connector, ttl time.Duration) error
	Release(ctx context.Context, c ident.Connector) error
	View(ctx context.Context) (presence.View, error)
	Put(ctx context.Context, c ident.Connector, added map[uint64]ident.UserID, removed []uint64, ttl time.Duration) error
}

// Places are the sessions of the connector.
type Places interface {
	All() map[uint64]ident.UserID
	TakeChanges() (added map[uint64]ident.UserID, removed []uint64)
}

// Config says whose lease it is. Every field is needed.
type Config struct {
	Connector ident.Connector
	// Taken is the error that Renew wraps when another process holds the lease of
	// this name.
	Taken error
	// Buried is the error that Renew wraps when the connector was declared dead.
	Buried  error
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// Lease is the lease of one connector.
type Lease struct {
	cfg      Config
	registry Registry
	places   Places
	failures prometheus.Counter
	ours     chan struct{} // closed when the name is ours, or nobody can say
}

// New returns a Lease that is not taken before Run.
func New(cfg Config, registry Registry, places Places) (*Lease, error) {
	l := &Lease{
		cfg: cfg, registry: registry, places: places, ours: make(chan struct{}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{Name: "linker_lease_failures_total", Help: "Renewals and notes that the presence store did not take."}),
	}
	if err := cfg.Metrics.Register(l.failures); err != nil {
		return nil, fmt.Errorf("register lease metrics: %w", err)
	}
	return l, nil
}

// Ready says whether clients may be let in: no other process of the name is known to
// be there. While the store is away nothing is concluded, and everything goes on.
func (l *Lease) Ready() error {
	select {
	case <-l.ours:
		return nil
	default:
		return errors.New("the lease of our name is not ours yet")
	}
}

// Ours is closed once no other process of the name is known to be there: the lease
// is held, or the store does not answer.
func (l *Lease) Ours() <-chan struct{} { return l.ours }

// Run keeps the lease until ctx ends. It returns an error when another process
// holds the lease of this name and keeps it, and ErrLost when the domain has taken
// the connector for dead, or may have, since it did not run for some time.
func (l *Lease) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var notes sync.WaitGroup
	notes.Go(func() { l.notePlaces(ctx) })
	err := l.renew(ctx)
	cancel()
	notes.Wait()
	return err
}

// Release gives the lease back, so that nobody waits for its end. Run must have
// returned.
func (l *Lease) Release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, releaseTime)
	defer cancel()
	if err := l.registry.Release(ctx, l.cfg.Connector); err != nil {
		l.cfg.Log.Warn("lease not released, it ends by itself", "error", err)
	}
}

func (l *Lease) renew(ctx context.Context) error {
	ticker := time.NewTicker(renewEvery)
	defer ticker.Stop()
	tried := time.Now()
	var held, away bool
	ours := sync.OnceFunc(func() { close(l.ours) })
	var taken time.Time // when another was first seen to hold it; zero: it was not
	for {
		now := time.Now()
		if now.Sub(tried) > asleepAfter {
			return fmt.Errorf("%w: it did not run for %s", ErrLost, now.Sub(tried).Round(time.Millisecond))
		}
		err := l.registry.Renew(ctx, l.cfg.Connector, ttl)
		tried = time.Now()
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			held, away, taken = true, false, time.Time{}
			ours()
		case errors.Is(err, l.cfg.Buried):
			return fmt.Errorf("%w: %w", ErrLost, err)
		case errors.Is(err, l.cfg.Taken) && (held || !taken.IsZero() && tried.Sub(taken) > takenFor):
			return err
		default:
			if !errors.Is(err, l.cfg.Taken) {
				ours()
			} else if taken.IsZero() {
				taken = tried
			}
			l.failures.Inc()
			if !away {
				l.cfg.Log.Warn("lease not renewed", "error", err)
			}
			away = true
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// notePlaces notes changes soon after they happen, and everything now and then,
// or when the store has forgotten it.
func (l *Lease) notePlaces(ctx context.Context) {
	ticker := time.NewTicker(renewEvery)
	defer ticker.Stop()
	var all time.Time // when everything was noted last
	marker := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		view, err := l.registry.View(ctx)
		if err != nil {
			l.failures.Inc()
			continue
		}
		added, removed := l.places.TakeChanges()
		everything := view.Marker != marker || time.Since(all) >= placesEvery
		if everything {
			added = l.places.All()
		}
		if len(added)+len(removed) == 0 {
			continue
		}
		if err := l.registry.Put(ctx, l.cfg.Connector, added, removed, placesTTL); err != nil {
			l.failures.Inc()
			marker = "" // what was taken is not noted
			continue
		}
		if everything {
			marker, all = view.Marker, time.Now()
		}
	}
}
