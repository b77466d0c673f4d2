package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"slices"
)

// A change is what one caller wants written. Changes that queued while a commit
// was under way are committed together, by the caller among them that gets the
// next turn: no goroutine, no timer, one fsync for all.
type change struct {
	apply func(*sql.Tx) error
	done  chan struct{} // closed by the caller that has the turn, once err is set
	err   error
}

// commit returns when apply's work is on disk. A context that ends takes the
// change back while it waits; once its commit is under way, commit waits for
// the outcome: apply may read its caller's memory until then.
func (s *Store) commit(ctx context.Context, apply func(*sql.Tx) error) error {
	err := ctx.Err()
	if err != nil {
		return err
	}
	c := &change{apply: apply, done: make(chan struct{})}
	s.mu.Lock()
	s.queue = append(s.queue, c)
	s.mu.Unlock()
	select {
	case <-c.done:
	case s.turn <- struct{}{}:
		s.commitQueue()
		<-s.turn
		<-c.done
	case <-ctx.Done():
		if s.withdraw(c) {
			return ctx.Err()
		}
		<-c.done
	}
	return c.err
}

// commitQueue writes all that has queued. Only the caller with the turn calls it.
func (s *Store) commitQueue() {
	s.mu.Lock()
	group := s.queue
	s.queue = nil
	s.mu.Unlock()
	if len(group) == 0 {
		return
	}
	err := s.applyAll(group)
	for _, c := range group {
		c.err = err
		close(c.done)
	}
	if err == nil {
		_ = s.release() // what it could not give back now goes with one of the next commits
	}
}

// applyAll commits a group as a whole. What can fail here, a disk that is full
// or broken, concerns every change in it alike.
func (s *Store) applyAll(group []*change) error {
	tx, err := s.write.Begin()
	if err != nil {
		return err
	}
	for _, c := range group {
		if err := c.apply(tx); err != nil {
			return errors.Join(err, tx.Rollback())
		}
	}
	return tx.Commit()
}

// withdraw takes c out of the queue, unless a commit has taken it already.
func (s *Store) withdraw(c *change) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.queue, c)
	if i < 0 {
		return false
	}
	s.queue = slices.Delete(s.queue, i, i+1)
	return true
}
