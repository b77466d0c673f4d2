package gateway

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/linkerhq/linker/connector/internal/session"
	"github.com/linkerhq/linker/pkg/wire"
)

const (
	// comeBackWithin spreads the clients that are sent away all at once.
	comeBackWithin = 5 * time.Second
	// partAfter is how long a session goes on after it was told to go, when there is
	// time: a client that opens its next connection first misses nothing.
	partAfter = time.Second
	// reasonShutdown is what GO_AWAY says when the connector ends.
	reasonShutdown = "shutting_down"
)

// Drain lets nobody in any more, ends every session, and returns when all of them
// have ended, or ctx has. The sessions are told to go one after another over the
// time of spread, in no order, and until then work as ever; without a spread they
// are ended at once, and told to come back one after another.
func (g *Gateway) Drain(ctx context.Context, cause session.Cause, spread time.Duration) error {
	g.crowd.close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		g.crowd.there.Wait()
		g.auth.Close()
	}()
	g.sendAway(ctx, cause, spread, ended)
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("end sessions: %w", ctx.Err())
	}
}

// sendAway tells every session to go and ends it. It returns when it has, and early
// when ended is closed or ctx ends.
func (g *Gateway) sendAway(ctx context.Context, cause session.Cause, spread time.Duration, ended <-chan struct{}) {
	var sessions []*session.Session
	for _, s := range g.to.Roster.Sockets() {
		switch {
		case !s.Live():
			s.End(wire.CloseRestarting, cause)
		case spread <= 0:
			s.GoAway(reasonShutdown, rand.N(comeBackWithin))
			s.End(wire.CloseRestarting, cause)
		default:
			sessions = append(sessions, s)
		}
	}
	rand.Shuffle(len(sessions), func(i, j int) { sessions[i], sessions[j] = sessions[j], sessions[i] })
	// The time at which the n-th is told to go; partAfter later it is ended.
	turn := func(n int) time.Duration { return time.Duration(float64(spread) * float64(n) / float64(len(sessions))) }
	began := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for told, left := 0, 0; left < len(sessions); {
		select {
		case <-timer.C:
		case <-ended:
			return
		case <-ctx.Done():
			return
		}
		passed := time.Since(began)
		for ; told < len(sessions) && turn(told) <= passed; told++ {
			sessions[told].GoAway(reasonShutdown, rand.N(partAfter))
		}
		for ; left < told && turn(left)+partAfter <= passed; left++ {
			sessions[left].End(wire.CloseRestarting, cause)
		}
		next := turn(min(left, len(sessions)-1)) + partAfter
		if told < len(sessions) {
			next = min(next, turn(told))
		}
		timer.Reset(next - passed)
	}
}
