package stack

import (
	"context"
	"errors"
	"fmt"
)

// part is something that runs until its context ends.
type part struct {
	name string
	run  func(context.Context) error
}

// runParts starts parts in their order and runs them until ctx ends or one of them
// does, then stops them in the reverse order, each after those that need it.
func runParts(ctx context.Context, parts []part) error {
	failed := make(chan error, len(parts))
	var running []*runner
	for _, p := range parts {
		running = append(running, start(context.WithoutCancel(ctx), p, failed))
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	for i := len(running) - 1; i >= 0; i-- {
		err = errors.Join(err, running[i].stop())
	}
	return err
}

// runner is a part that has been started.
type runner struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when the part has ended
	err    error         // readable once done is closed
}

func start(ctx context.Context, p part, failed chan<- error) *runner {
	ctx, cancel := context.WithCancel(ctx)
	r := &runner{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		err := p.run(ctx)
		if ctx.Err() != nil {
			r.err = err
			return
		}
		if err == nil {
			err = errEnded
		}
		failed <- fmt.Errorf("%s has ended: %w", p.name, err)
	}()
	return r
}

var errEnded = errors.New("it should run until it is told to stop")

func (r *runner) stop() error {
	r.cancel()
	<-r.done
	return r.err
}
