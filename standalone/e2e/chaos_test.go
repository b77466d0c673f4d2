package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// chaosTime is how long everything breaks at random unless LINKER_TEST_CHAOS says
// otherwise.
const chaosTime = 30 * time.Second

// chaos breaks everything at random, several things at once, and waits until all
// is mended and everything flows. LINKER_TEST_SEED repeats the choices of another
// run, though not its timing.
func (f *faults) chaos(t *testing.T) {
	limit := chaosTime
	if text := os.Getenv("LINKER_TEST_CHAOS"); text != "" {
		var err error
		if limit, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	seed := rand.Uint64()
	if text := os.Getenv("LINKER_TEST_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("for %v, with LINKER_TEST_SEED=%d", limit, seed)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var breaking sync.WaitGroup
	var targets uint64
	begin := func(breakOnce func(context.Context, *rand.Rand) error) {
		targets++
		random := rand.New(rand.NewPCG(seed, targets))
		breaking.Go(func() {
			for pause(ctx, random, 10*time.Second) {
				if err := breakOnce(ctx, random); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for _, program := range []string{"processor", "connector", "metaserver"} {
		for _, m := range f.cluster.all(program) {
			begin(m.breakOnce)
		}
	}
	if os.Getenv("LINKER_NATIVE") != "" {
		for _, name := range []string{"nats", "redis", "mongodb", "kafka"} {
			begin(func(ctx context.Context, random *rand.Rand) error { return breakServer(ctx, random, name) })
		}
	}
	breaking.Wait()
	mended := time.Now()
	ready, cancelReady := context.WithTimeout(t.Context(), readyPatience)
	defer cancelReady()
	if err := f.cluster.Ready(ready); err != nil {
		t.Error(err)
	}
	t.Logf("everybody is ready %v after the last fault, messages flow after %v",
		time.Since(mended).Round(10*time.Millisecond), f.load.flows(t, mended, readyPatience).Round(10*time.Millisecond))
}

// pause waits for a random time and says whether ctx still goes on.
func pause(ctx context.Context, random *rand.Rand, most time.Duration) bool {
	select {
	case <-time.After(time.Duration(random.Int64N(int64(most)))):
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// breakOnce breaks the process in one way and mends it.
func (m *member) breakOnce(ctx context.Context, random *rand.Rand) error {
	switch random.IntN(3) {
	case 0:
		if err := m.kill(); err != nil {
			return err
		}
	case 1:
		if err := m.terminate(); err != nil {
			return err
		}
	default:
		if err := m.signal(syscall.SIGSTOP); err != nil {
			return m.named(err)
		}
		pause(ctx, random, 12*time.Second)
		return m.named(m.signal(syscall.SIGCONT))
	}
	pause(ctx, random, 5*time.Second)
	return m.start()
}

// breakServer breaks one of the servers in one way and mends it.
func breakServer(ctx context.Context, random *rand.Rand, name string) error {
	fault, mend := "kill", "start"
	if random.IntN(2) == 0 {
		fault, mend = "pause", "resume"
	}
	if err := runServices(fault, name); err != nil {
		return err
	}
	pause(ctx, random, 8*time.Second)
	return runServices(mend, name)
}

// runServices runs a command of deploy/native/services, which ends by itself.
func runServices(what string, names ...string) error {
	if out, err := nativeServices(what, names...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %v: %w: %s", what, names, err, out)
	}
	return nil
}
