package linkport

import (
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestWhatIsAcknowledgedIsInTheLogUpToThere(t *testing.T) {
	t.Parallel()
	const channels, records = 3, 500
	a := newAcks()
	type piece struct{ channel, n uint64 }
	var pieces []piece
	left := make(map[piece]int)
	for channel := range uint64(channels) {
		for n := range uint64(records) {
			p := piece{channel, n + 1}
			left[p] = 1 + rand.IntN(3)
			if err := a.begin(p.channel, p.n, left[p]); err != nil {
				t.Fatal(err)
			}
			for range left[p] {
				pieces = append(pieces, p)
			}
		}
	}
	rand.Shuffle(len(pieces), func(i, j int) { pieces[i], pieces[j] = pieces[j], pieces[i] })
	told := make(map[uint64]uint64)
	for _, p := range pieces {
		a.settle(p.channel, p.n)
		left[p]--
		if rand.IntN(10) > 0 {
			continue
		}
		for channel, upTo := range a.take() {
			if upTo <= told[channel] {
				t.Fatalf("channel %d: %d after %d", channel, upTo, told[channel])
			}
			told[channel] = upTo
			for n := range upTo {
				if left[piece{channel, n + 1}] > 0 {
					t.Fatalf("channel %d is acknowledged up to %d, but %d is not in the log", channel, upTo, n+1)
				}
			}
		}
	}
	maps.Copy(told, a.take())
	for channel := range uint64(channels) {
		if told[channel] != records {
			t.Errorf("channel %d is acknowledged up to %d, want %d", channel, told[channel], records)
		}
	}
	if len(a.channels) > 0 {
		t.Errorf("%d channels without anything open are remembered", len(a.channels))
	}
}

func TestRecordsOfAChannelAreNumberedWithoutGaps(t *testing.T) {
	t.Parallel()
	a := newAcks()
	if err := a.begin(1, 1, 1); err != nil {
		t.Fatal(err)
	}
	for _, n := range []uint64{0, 1, 3} {
		if err := a.begin(1, n, 1); err == nil || !strings.Contains(err.Error(), "expected 2") {
			t.Errorf("%d after 1: %v", n, err)
		}
	}
}

func TestARecordIsRefusedOnce(t *testing.T) {
	t.Parallel()
	a := newAcks()
	for n := range uint64(2) {
		if err := a.begin(1, n+1, 2); err != nil {
			t.Fatal(err)
		}
	}
	if !a.refuse(1, 2) || a.refuse(1, 2) || !a.refuse(1, 1) {
		t.Error("a refusal was forgotten, or told twice")
	}
}
