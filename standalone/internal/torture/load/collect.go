package load

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/linkerhq/linker/standalone/internal/torture/history"
)

const (
	// collectors are how many log in at the same time.
	collectors = 16
	// claimTime is how long rows that were sent without proof are withheld from
	// others, and a bit.
	claimTime = 6 * time.Second
	// answerPatience is how long a fetch may take.
	answerPatience = 10 * time.Second
)

// collect lets everybody but the masters log in once more, fetch what is left, and
// stay until ctx ends.
func (l *Load) collect(ctx context.Context, staying *sync.WaitGroup) {
	room := make(chan struct{}, collectors)
	var fetching sync.WaitGroup
	for _, u := range l.users {
		if u.role == history.RoleMaster {
			continue
		}
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			continue
		}
		fetching.Add(1)
		c := &collector{load: l, user: u, answered: sync.OnceFunc(func() { <-room }), fetched: sync.OnceFunc(fetching.Done)}
		staying.Go(func() { c.run(ctx) })
	}
	fetching.Wait()
	if ctx.Err() == nil {
		l.collected.do()
	}
}

// errAgain ends a socket whose user has to try again.
var errAgain = errors.New("try again")

// collector fetches what is left for a user.
type collector struct {
	load     *Load
	user     *user
	answered func() // is called at least once: somebody else may log in
	fetched  func() // is called at least once: everything was fetched
	written  bool   // owned by run; what was left
}

func (c *collector) run(ctx context.Context) {
	defer c.fetched()
	defer c.answered()
	random := c.load.random("end of " + c.user.id)
	for ctx.Err() == nil {
		s, err := c.load.login(ctx, c.user, history.ClientRaw, []string{})
		if err == nil {
			err = c.serve(ctx, s)
			s.closed(parting{}, err)
		}
		c.user.next()
		pause(ctx, between(random, 0, maxPause), nil)
	}
}

// serve fetches until nothing is left, and stays until ctx ends. If something may have
// been sent to an earlier socket without proof, it looks again when that is over.
func (c *collector) serve(ctx context.Context, s *socket) error {
	rounds := 1
	if c.load.cfg.History.Now() < c.load.unproved.Load()+claimTime.Microseconds() {
		rounds = 2
	}
	if err := s.fetch(fetchMost); err != nil {
		return err
	}
	answer := time.AfterFunc(answerPatience, func() { _ = s.ws.CloseNow() })
	defer answer.Stop()
	var pausing sync.WaitGroup
	defer pausing.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return s.each(ctx, func(f *frame) error {
		switch f.Type {
		case "MESSAGE", "MESSAGE_CONFIRMATION", "MISSING_MESSAGES_AVAILABLE":
			return nil
		case "FETCH_MISSING_MESSAGES_COMPLETE":
			answer.Stop()
		case "GO_AWAY", "DELIVER_FAILED": // while the log was away
			return errAgain
		default:
			s.strange(f)
			return nil
		}
		if f.Data.LeftMissingCount == nil {
			s.strange(f)
			return nil
		}
		left := *f.Data.LeftMissingCount
		if left > 0 {
			return s.fetch(fetchMost)
		}
		c.answered()
		if rounds--; rounds > 0 {
			pausing.Go(func() {
				pause(ctx, claimTime, nil)
				_ = s.fetch(fetchMost) // the reader sees what is wrong
			})
			return nil
		}
		if !c.written {
			c.written = true
			c.load.write(history.Op{Kind: history.KindLeft, User: c.user.id, Session: s.session, Count: left})
		}
		c.fetched()
		return nil
	})
}
