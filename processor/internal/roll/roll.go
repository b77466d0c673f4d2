// Package roll keeps the roll of a domain's connectors: who is there, and who is
// certainly gone, by the leases that connectors hold.
package roll

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/presence"
)

const (
	every    = 500 * time.Millisecond
	deadline = 2 * time.Second // of one look at the registry
)

// Registry is where connectors hold their leases.
type Registry interface {
	View(ctx context.Context) (presence.View, error)
}

// Roll follows the registry. Its methods may be called by any goroutine.
type Roll struct {
	registry Registry
	log      *slog.Logger

	mu    sync.Mutex
	watch presence.Watch // guarded by mu
	read  bool           // guarded by mu: the registry has answered at least once
	away  bool           // guarded by mu: its last answer was an error
}

// New returns a roll on which nobody is known yet.
func New(registry Registry, log *slog.Logger) *Roll { return &Roll{registry: registry, log: log} }

// Run follows the registry until ctx ends.
func (r *Roll) Run(ctx context.Context) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		r.look(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (r *Roll) look(ctx context.Context) {
	bounded, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	view, err := r.registry.View(bounded)
	if ctx.Err() != nil {
		return
	}
	r.mu.Lock()
	died := r.watch.Observe(time.Now(), view, err)
	changed := r.away != (err != nil)
	r.away = err != nil
	r.read = r.read || err == nil
	r.mu.Unlock()
	for _, c := range died {
		r.log.Warn("connector is dead: its lease has run out", "connector", c.Name, "incarnation", c.Incarnation.String())
	}
	switch {
	case changed && err != nil:
		r.log.Warn("presence is frozen: the registry does not answer", "error", err)
	case changed:
		r.log.Info("the registry answers again")
	}
}

// Alive returns the connectors whose leases stand; known is false as long as the
// registry has not answered.
func (r *Roll) Alive() (list []ident.Connector, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.watch.Alive(), r.read
}

// Dead says whether a connector is gone for certain.
func (r *Roll) Dead(c ident.Connector) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.watch.State(c) == presence.Dead
}
