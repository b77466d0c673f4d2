package downlink

import (
	"context"
	"runtime"
	"sync"
	"time"

	"github.com/linkerhq/linker/connector/internal/session"
	"github.com/linkerhq/linker/pkg/delivery"
)

const (
	// answerEvery is how long a lane may wait to hear of what nothing waits for, and
	// when answers are tried again that could not be published.
	answerEvery = 100 * time.Millisecond
	// maxGone and maxTokens bound what waits while the live plane is away; the
	// oldest goes. The lane finds both out by itself: nobody answers for a session
	// that is gone, and a FAST confirmation is lost like any FAST message.
	maxGone   = 1 << 16
	maxTokens = 1 << 16
	// A message of answers holds so many sessions, ids and tokens at most.
	maxPerMessage = 1000
	// maxPartBytes bounds the parts of the list of sessions that a new owner gets.
	// One session takes no more than 200 KiB, and a server of the live plane that
	// nobody configured takes messages of 1 MiB.
	maxPartBytes = 256 << 10
)

// answers is what waits to be told to the owner of one lane.
type answers struct {
	mu       sync.Mutex
	sessions []*session.Session // guarded by mu; those with Answer.Queued
	gone     []uint64           // guarded by mu
	tokens   []uint64           // guarded by mu
	urgent   bool               // guarded by mu
}

// add notes that the lane has to hear of a session; gap says that a delivery was
// refused.
func (a *answers) add(s *session.Session, urgent, gap bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.addLocked(s)
	a.urgent = a.urgent || urgent
	s.Answer.Gap = s.Answer.Gap || gap
}

func (a *answers) addLocked(s *session.Session) {
	if !s.Answer.Queued {
		s.Answer.Queued = true
		a.sessions = append(a.sessions, s)
	}
}

func (a *answers) addProved(s *session.Session, tokens []uint64, urgent bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.addLocked(s)
	a.tokens = keepLast(append(a.tokens, tokens...), maxTokens)
	a.urgent = a.urgent || urgent
}

func (a *answers) addGone(id uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.gone = keepLast(append(a.gone, id), maxGone)
	a.urgent = true
}

func keepLast(list []uint64, most int) []uint64 { return list[max(0, len(list)-most):] }

// take removes what fits one message. more says that something is left.
func (a *answers) take(all bool) (out delivery.Answers, from []*session.Session, more bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !all && !a.urgent {
		return out, nil, false
	}
	n := min(len(a.sessions), maxPerMessage)
	from = append(from, a.sessions[:n]...)
	clear(a.sessions[:n])
	a.sessions = a.sessions[n:]
	for _, s := range from {
		s.Answer.Queued = false
		p := s.Progress()
		p.Gap = s.Answer.Gap
		s.Answer.Gap = false
		out.Progress = append(out.Progress, p)
	}
	n = min(len(a.gone), maxPerMessage)
	out.Gone, a.gone = a.gone[:n:n], a.gone[n:]
	n = min(len(a.tokens), maxPerMessage)
	out.FastProved, a.tokens = a.tokens[:n:n], a.tokens[n:]
	more = len(a.sessions)+len(a.gone)+len(a.tokens) > 0
	a.urgent = a.urgent && more
	if !more {
		a.sessions, a.gone, a.tokens = nil, nil, nil
	}
	return out, from, more
}

// restore puts back what could not be published.
func (a *answers) restore(out delivery.Answers, from []*session.Session) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, s := range from {
		a.addLocked(s)
		s.Answer.Gap = s.Answer.Gap || out.Progress[i].Gap
	}
	a.gone = keepLast(append(out.Gone, a.gone...), maxGone)
	a.tokens = keepLast(append(out.FastProved, a.tokens...), maxTokens)
}

// answerLoop publishes answers: urgent ones at once, others within answerEvery.
// At its end it publishes what is left.
func (d *Downlink) answerLoop(ctx context.Context) {
	ticker := time.NewTicker(answerEvery)
	defer ticker.Stop()
	for {
		all := false
		select {
		case <-ctx.Done():
			d.answerLanes(true)
			return
		case <-d.wake:
			// Whoever is about to add to this batch does so first.
			runtime.Gosched()
		case <-ticker.C:
			all = true
		}
		d.answerLanes(all)
	}
}

func (d *Downlink) answerLanes(all bool) {
	for i := range d.lanes {
		l := &d.lanes[i]
		for more := true; more; {
			var out delivery.Answers
			var from []*session.Session
			out, from, more = l.answers.take(all)
			if len(out.Progress)+len(out.Gone)+len(out.FastProved) == 0 {
				break
			}
			l.mu.Lock()
			out.Epoch = l.epoch
			l.mu.Unlock()
			out.Lane, out.Connector = l.number, d.cfg.Connector
			if !d.publish(l, &out) {
				l.answers.restore(out, from)
				break
			}
		}
	}
}

// publish sends answers to the owner of a lane. It reports false if that was not
// possible.
func (d *Downlink) publish(l *lane, a *delivery.Answers) bool {
	err := d.plane.Publish(delivery.LaneSubject(d.cfg.Domain, l.number), a.Append(nil))
	if err != nil {
		d.metrics.unanswered.Inc()
		return false
	}
	return true
}
