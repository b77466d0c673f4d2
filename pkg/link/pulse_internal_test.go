package link

import (
	"errors"
	"testing"
	"time"
)

func TestTheTimeOfAFullInboxIsNoSilence(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	at := func(seconds int) time.Time { return begin.Add(time.Duration(seconds) * time.Second) }
	p := &pulse{silence: 14 * time.Second}
	p.begin(begin)
	p.block(at(1))
	if until, err := p.verdict(at(14)); err != nil || until != at(15) {
		t.Errorf("while it is full: until %s, %v", until, err)
	}
	p.unblock(at(14)) // 13 seconds later
	if until, err := p.verdict(at(26)); err != nil || until != at(27) {
		t.Errorf("when there is room again: until %s, %v", until, err)
	}
	if _, err := p.verdict(at(27)); !errors.Is(err, ErrSilent) {
		t.Errorf("after 14 seconds in which an answer would have been read: %v", err)
	}
	p.block(at(27))
	if _, err := p.verdict(at(41)); !errors.Is(err, ErrStuck) {
		t.Errorf("full for 14 seconds: %v", err)
	}
}

func TestAPongAnswersAllPingsBeforeItAndProvesOnlyOnce(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	p := &pulse{silence: 14 * time.Second}
	p.begin(begin)
	for n := range 3 {
		p.ping(begin.Add(time.Duration(n) * time.Second))
	}
	if err := p.pong(3, begin.Add(2500*time.Millisecond)); err != nil || p.roundTrip() != 500*time.Millisecond {
		t.Errorf("%v, round trip %s", err, p.roundTrip())
	}
	for _, n := range []uint64{0, 1, 3} {
		if err := p.pong(n, begin.Add(10*time.Second)); err != nil || p.roundTrip() != 500*time.Millisecond {
			t.Errorf("pong %d again: %v, round trip %s", n, err, p.roundTrip())
		}
	}
	if until, err := p.verdict(begin.Add(10 * time.Second)); err != nil || until != begin.Add(16500*time.Millisecond) {
		t.Errorf("until %s after the begin, %v", until.Sub(begin), err)
	}
	if err := p.pong(4, begin.Add(10*time.Second)); !errors.Is(err, ErrProtocol) {
		t.Errorf("a ping that was not sent: %v", err)
	}
}
