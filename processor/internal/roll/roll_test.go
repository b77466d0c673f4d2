package roll_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/presence"
	"github.com/linkerhq/linker/processor/internal/roll"
)

// registry says what a test wants it to say.
type registry struct {
	mu      sync.Mutex
	view    presence.View
	err     error
	renewed bool // the connector was quicker than the burial
}

func (r *registry) Bury(context.Context, ident.Connector) (dead, news bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.renewed, true, r.err
}

func (r *registry) View(context.Context) (presence.View, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.view, r.err
}

func (r *registry) set(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

func (r *registry) say(err error, leases ...ident.Connector) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.view, r.err = presence.View{Leases: leases, Marker: "m"}, err
}

func TestARollFollowsTheLeases(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := ident.Connector{Name: "c"}
		var reg registry
		reg.say(errors.New("away"))
		r, err := roll.New(&reg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			if err := r.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		expect := func(when string, alive int, known, dead bool) {
			t.Helper()
			synctest.Wait()
			list, read := r.Alive()
			if len(list) != alive || read != known || r.Dead(c) != dead {
				t.Errorf("%s: alive %v, known %v, dead %v; want %d, %v, %v", when, list, read, r.Dead(c), alive, known, dead)
			}
		}
		expect("before the registry answers", 0, false, false)
		reg.say(nil, c)
		time.Sleep(time.Second)
		expect("with a lease", 1, true, false)
		reg.say(errors.New("away"))
		time.Sleep(10 * time.Second)
		expect("while the registry is away", 1, true, false)
		reg.say(nil)
		time.Sleep(time.Second)
		expect("when the lease has just gone", 0, true, false)
		reg.set(func() { reg.renewed = true })
		time.Sleep(2 * time.Second)
		expect("when it has been missing for a while, but renews its lease just then", 0, true, false)
		reg.set(func() { reg.renewed = false })
		time.Sleep(4 * time.Second)
		expect("when it has been missing for a while", 0, true, true)
		if !r.Settled() {
			t.Error("not settled after seven seconds")
		}
		reg.say(nil, c)
		time.Sleep(time.Second)
		expect("when it was declared dead before", 1, true, true)
		reg.say(errors.New("away"))
		time.Sleep(time.Second)
		if r.Settled() {
			t.Error("settled while the registry is away")
		}
		cancel()
		running.Wait()
	})
}
