package authcall

import (
	"testing"
	"time"
)

func TestTheBreakerProbesWithGrowingPauses(t *testing.T) {
	t.Parallel()
	var b breaker
	now := time.Unix(0, 0)
	for range failuresToOpen {
		if allowed, probe := b.allow(now); !allowed || probe {
			t.Fatal("closed too early")
		}
		b.record(now, false, false)
	}
	for _, pause := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		pause *= time.Second
		if allowed, _ := b.allow(now.Add(pause - 1)); allowed {
			t.Fatalf("allowed before %s", pause)
		}
		now = now.Add(pause)
		if allowed, probe := b.allow(now); !allowed || !probe {
			t.Fatalf("no probe after %s", pause)
		}
		if allowed, _ := b.allow(now); allowed {
			t.Fatal("two probes at once")
		}
		b.record(now, false, false) // one that was under way says nothing about the probe
		if allowed, _ := b.allow(now); allowed {
			t.Fatal("two probes at once")
		}
		b.record(now, true, false)
	}
	now = now.Add(longestPause)
	b.allow(now)
	b.forget(true)
	if allowed, probe := b.allow(now); !allowed || !probe {
		t.Fatal("a probe that was given up blocks the next")
	}
	b.record(now, true, true)
	if allowed, probe := b.allow(now); !allowed || probe {
		t.Error("an answer did not close the breaker")
	}
}

func TestOneAnswerForgivesFailures(t *testing.T) {
	t.Parallel()
	var b breaker
	now := time.Unix(0, 0)
	for range 3 {
		for range failuresToOpen - 1 {
			b.record(now, false, false)
		}
		b.record(now, false, true)
	}
	if allowed, _ := b.allow(now); !allowed {
		t.Error("open without five failures in a row")
	}
}
