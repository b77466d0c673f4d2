// Package presence says which connectors of a domain are alive. Each connector
// holds a lease that it renews; a Watch looks at what the store of the leases
// says over time and concludes who is dead.
//
// The store may be away or lose what it holds. Neither kills anybody: a
// connector is dead when its lease has been missing for a while from a store
// that answered all that time and forgot nothing.
package presence

import (
	"time"

	"github.com/linkerhq/linker/pkg/ident"
)

// Patience is how long a lease must be missing before its connector is dead.
const Patience = 2 * time.Second

// settledAfter is how long a store must have answered and forgotten nothing until
// everybody who is alive has renewed a lease in it.
const settledAfter = 3 * time.Second

// View is what the store says at one moment.
type View struct {
	Leases []ident.Connector // the live leases of the domain
	// Marker changes whenever the store may have forgotten something: when it
	// was emptied or started again.
	Marker string
}

// Place is where a user is connected.
type Place struct {
	User       ident.UserID
	Connectors []ident.Connector // each once, sorted by name
}

// State is what a Watch knows about a connector. The zero value is Unsure.
type State int

// The states.
const (
	Unsure State = iota // it may be alive; nothing follows
	Alive               // the last view showed its lease
	Dead                // its lease has been missing for Patience
)

// String names the state.
func (s State) String() string {
	switch s {
	case Unsure:
		return "unsure"
	case Alive:
		return "alive"
	case Dead:
		return "dead"
	default:
		return "invalid"
	}
}

// Watch draws conclusions from views. The zero value has seen nothing. It has
// no clock and no goroutine, and it is not safe for concurrent use.
type Watch struct {
	marker string    // of the store in the current stretch
	since  time.Time // first view of the current stretch; zero if there is none
	last   time.Time // last view of the current stretch

	// known holds the connectors that the last view showed (with a zero time),
	// and those that went missing in this stretch and are not yet dead (with
	// the time of the first view without them).
	known map[ident.Connector]time.Time
}

// Observe takes in one look at the store: what it said, or the error. It
// returns the connectors that this view has made dead, in no particular order,
// each once unless it came back in between.
//
// Views count as one stretch as long as they come without errors, without a new
// marker and without a pause longer than Patience; only within a stretch does
// time pass for leases that are missing. Look several times within Patience.
func (w *Watch) Observe(now time.Time, v View, err error) []ident.Connector {
	if err != nil {
		w.since = time.Time{}
		return nil
	}
	if w.since.IsZero() || v.Marker != w.marker || now.Sub(w.last) > Patience {
		w.since, w.marker = now, v.Marker
		for c, missing := range w.known {
			if !missing.IsZero() {
				w.known[c] = now
			}
		}
	}
	w.last = now
	return w.take(v.Leases)
}

func (w *Watch) take(leases []ident.Connector) []ident.Connector {
	shown := make(map[ident.Connector]time.Time, len(leases))
	for _, c := range leases {
		shown[c] = time.Time{}
	}
	var died []ident.Connector
	for c, missing := range w.known {
		if _, ok := shown[c]; ok {
			continue
		}
		if missing.IsZero() {
			missing = w.last
		}
		if w.last.Sub(missing) >= Patience {
			died = append(died, c)
			continue
		}
		shown[c] = missing
	}
	w.known = shown
	return died
}

// State says what is known about a connector after the last view, also about
// one that no view has shown: it is dead once a whole stretch of Patience has
// gone by without it. After an error everybody who is not known to be alive is
// unsure, and whoever was alive stays so until views come again.
func (w *Watch) State(c ident.Connector) State {
	missing, ok := w.known[c]
	switch {
	case ok && missing.IsZero():
		return Alive
	case ok || w.since.IsZero() || w.last.Sub(w.since) < Patience:
		return Unsure
	default:
		return Dead
	}
}

// Settled says whether the store has answered, and forgotten nothing, for so long
// that whoever has no lease in it is not there.
func (w *Watch) Settled() bool { return !w.since.IsZero() && w.last.Sub(w.since) >= settledAfter }

// Alive returns the connectors that the last view showed, in no particular order.
func (w *Watch) Alive() []ident.Connector {
	var alive []ident.Connector
	for c, missing := range w.known {
		if missing.IsZero() {
			alive = append(alive, c)
		}
	}
	return alive
}
