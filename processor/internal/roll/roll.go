// Package roll keeps the roll of a domain's connectors: who is there, and who is
// certainly gone, by the leases that connectors hold.
package roll

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

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
	// Bury declares a connector dead, unless its lease stands: then dead is false.
	// A connector that was buried learns of it. news says that nobody knew, and that
	// it did not say goodbye.
	Bury(ctx context.Context, c ident.Connector) (dead, news bool, err error)
}

// Roll follows the registry. Its methods may be called by any goroutine.
type Roll struct {
	registry Registry
	log      *slog.Logger
	failures prometheus.Counter

	mu    sync.Mutex
	watch presence.Watch // guarded by mu
	// suspects holds, guarded by mu, whom the watch takes for dead.
	suspects map[ident.Connector]suspect
	read     bool // guarded by mu: the registry has answered at least once
	away     bool // guarded by mu: its last answer was an error
}

// suspect is a connector that seems to be dead.
type suspect struct {
	buried bool // the registry has it: it is dead, for ever
	// asked is when somebody first asked about a connector that no view has shown,
	// which may be about to take its lease; zero if the watch has seen it go.
	asked time.Time
}

// New returns a roll on which nobody is known yet.
func New(registry Registry, log *slog.Logger, metrics prometheus.Registerer) (*Roll, error) {
	r := &Roll{
		registry: registry, log: log, suspects: map[ident.Connector]suspect{},
		failures: prometheus.NewCounter(prometheus.CounterOpts{Name: "linker_roll_failures_total", Help: "Looks at the connectors' leases that were in vain."}),
	}
	connectors := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "linker_roll_connectors_count", Help: "Connectors of the domain whose leases stand."}, func() float64 {
		alive, _ := r.Alive()
		return float64(len(alive))
	})
	for _, c := range []prometheus.Collector{r.failures, connectors} {
		if err := metrics.Register(c); err != nil {
			return nil, fmt.Errorf("register the metrics of the roll: %w", err)
		}
	}
	return r, nil
}

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
	for _, c := range r.watch.Observe(time.Now(), view, err) {
		if !r.suspects[c].buried {
			r.suspects[c] = suspect{}
		}
	}
	changed := r.away != (err != nil)
	r.away = err != nil
	r.read = r.read || err == nil
	r.mu.Unlock()
	if err == nil {
		r.bury(bounded)
	} else {
		r.failures.Inc()
	}
	switch {
	case changed && err != nil:
		r.log.Warn("presence is frozen: the registry does not answer", "error", err)
	case changed:
		r.log.Info("the registry answers again")
	}
}

// bury declares those dead who seem so. It is not true before the registry has
// it: until then a connector can come back with its sessions.
func (r *Roll) bury(ctx context.Context) {
	r.mu.Lock()
	var list []ident.Connector
	for c, s := range r.suspects {
		if !s.buried && time.Since(s.asked) >= presence.Patience {
			list = append(list, c)
		}
	}
	r.mu.Unlock()
	for _, c := range list {
		buried, news, err := r.registry.Bury(ctx, c)
		if err != nil {
			r.log.Warn("connector not declared dead yet", "connector", c.Name, "error", err)
			return
		}
		r.mu.Lock()
		if buried {
			r.suspects[c] = suspect{buried: true}
		} else {
			delete(r.suspects, c)
		}
		r.mu.Unlock()
		if news {
			r.log.Warn("connector is dead: its lease has run out", "connector", c.Name, "incarnation", c.Incarnation.String())
		}
	}
}

// Alive returns the connectors whose leases stand; known is false as long as the
// registry has not answered.
func (r *Roll) Alive() (list []ident.Connector, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.watch.Alive(), r.read
}

// Settled says whether the registry has answered, and forgotten nothing, for so
// long that every connector that is there has shown itself.
func (r *Roll) Settled() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.watch.Settled()
}

// Dead says whether a connector is gone for certain, and for ever. Of one that
// only seems so it is known a moment later.
func (r *Roll) Dead(c ident.Connector) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, noted := r.suspects[c]
	if !noted && r.watch.State(c) == presence.Dead {
		r.suspects[c] = suspect{asked: time.Now()}
	}
	return s.buried
}
