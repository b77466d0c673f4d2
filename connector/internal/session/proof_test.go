package session

import (
	"testing"
	"time"
)

func TestAPingRidesWithAFrameOrGoesAlone(t *testing.T) {
	t.Parallel()
	frame := []byte("frame")
	for name, test := range map[string]struct {
		change func(p *proof)
		after  time.Duration // since the last ping
		with   []byte        // what is written anyway
		ping   bool
		due    time.Duration // if there is no ping, when there will be one after the last; 0: never
	}{
		"after a pause it rides at once":       {nil, time.Hour, frame, true, 0},
		"soon after another it waits":          {nil, 0, frame, false, pingEvery},
		"after half of its time it rides":      {nil, rideAfter, frame, true, 0},
		"without a frame it waits longer":      {nil, rideAfter, nil, false, pingEvery},
		"at the end of its time it goes":       {nil, pingEvery, nil, true, 0},
		"urgently it goes at once":             {func(p *proof) { p.urgent = true }, 0, frame, true, 0},
		"one is under way":                     {func(p *proof) { p.underWay = true }, time.Second, frame, false, 0},
		"nothing is owed":                      {func(p *proof) { p.owed = 0 }, time.Second, frame, false, 0},
		"the client acknowledges by itself":    {func(p *proof) { p.byAck = true }, time.Second, frame, false, 0},
		"a silent socket is asked in any case": {func(p *proof) { *p = proof{idle: true, underWay: true} }, 0, nil, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := time.Unix(1000, 0)
			p := proof{askedAt: now}
			p.owe(1, false)
			if test.change != nil {
				test.change(&p)
			}
			b, due := p.ride(test.with, now.Add(test.after), 1)
			if ping := len(b) > len(test.with); ping != test.ping {
				t.Errorf("ping %v, want %v", ping, test.ping)
			}
			var want time.Time
			if test.due > 0 {
				want = now.Add(test.due)
			}
			if !due.Equal(want) {
				t.Errorf("due %s, want %s", due, want)
			}
		})
	}
}

func TestOnlyThePongOfTheLastPingCounts(t *testing.T) {
	t.Parallel()
	var p proof
	now := time.Unix(1000, 0)
	if _, ok := p.answered([]byte("0")); ok {
		t.Error("a pong was taken that nobody asked for")
	}
	p.owe(1, true)
	p.ride(nil, now, 1)
	p.idle = true
	p.ride(nil, now, 5)
	if _, ok := p.answered([]byte("1")); ok {
		t.Error("an earlier pong was taken")
	}
	if seq, ok := p.answered([]byte("2")); !ok || seq != 5 {
		t.Errorf("got %d, %v", seq, ok)
	}
	if _, ok := p.answered([]byte("2")); ok {
		t.Error("a pong was taken twice")
	}
}

func TestTokensAreBounded(t *testing.T) {
	t.Parallel()
	var p proof
	for n := range uint64(maxTokens + 5) {
		p.want(n, n+1)
	}
	if got := p.take(maxTokens + 5); len(got) != maxTokens || got[0] != 5 {
		t.Errorf("%d tokens from %d", len(got), got[0])
	}
}
