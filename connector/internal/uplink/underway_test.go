package uplink

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestWaitingEndsWhenNothingIsUnderWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var w underWay
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := w.wait(ended); err != nil {
			t.Errorf("nothing is under way: %v", err)
		}
		w.add(2)
		if err := w.wait(ended); !errors.Is(err, context.Canceled) {
			t.Errorf("two are under way: %v", err)
		}
		var waiting sync.WaitGroup
		for range 3 {
			waiting.Go(func() {
				if err := w.wait(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		w.add(-1)
		began := time.Now()
		waiting.Go(func() {
			time.Sleep(time.Hour)
			w.add(-1)
		})
		waiting.Wait()
		if waited := time.Since(began); waited != time.Hour {
			t.Errorf("ended after %s with one under way, want an hour", waited)
		}
		if err := w.wait(ended); err != nil {
			t.Error(err)
		}
	})
}

// Who waits while others come and go misses the end of none.
func TestWaitingNeverMissesTheEnd(t *testing.T) {
	t.Parallel()
	var w underWay
	for range 2000 {
		w.add(2)
		var going sync.WaitGroup
		going.Go(func() { w.add(-1) })
		going.Go(func() { w.add(1); w.add(-2) })
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		err := w.wait(ctx)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		going.Wait()
	}
}
