package stack

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/linkerhq/linker/pkg/run"
)

const (
	// readyEvery is how often the start is looked at.
	readyEvery = 20 * time.Millisecond
	// linksFor is how long the start waits for links once all domains serve: one
	// that is down for longer must not keep the others from working.
	linksFor = 10 * time.Second
)

// readiness remembers whether the start is over. It is for all goroutines.
type readiness struct {
	mu      sync.Mutex
	over    bool  // guarded by mu; never taken back
	waiting error // guarded by mu; what the start waits for
}

// started is what the domains' own /readyz say beside what they know of themselves: what
// the start waits for, and the links that are not up.
func (s *Stack) started() error {
	if err := s.readiness.starting(); err != nil {
		return err
	}
	if missing := notUp(s.MissingLinks()); missing != nil {
		return run.Remark{Text: missing.Error()}
	}
	return nil
}

// starting says what the start waits for; nil: it is over.
func (r *readiness) starting() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.over:
		return nil
	case r.waiting == nil:
		return errors.New("the start has not begun")
	default:
		return r.waiting
	}
}

func (r *readiness) set(over bool, waiting error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over, r.waiting = over, waiting
}

// watchReadiness ends the start when every domain serves and every link is up, or
// has had its time. Then it waits for ctx.
func (s *Stack) watchReadiness(ctx context.Context) error {
	tick := time.NewTicker(readyEvery)
	defer tick.Stop()
	var serving time.Time // since when all domains serve
	for s.readiness.starting() != nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		err := s.serving()
		if err != nil {
			s.readiness.set(false, err)
			continue
		}
		if serving.IsZero() {
			serving = time.Now()
		}
		missing := s.MissingLinks()
		late := time.Since(serving) >= linksFor
		s.readiness.set(len(missing) == 0 || late, notUp(missing))
		if late && len(missing) > 0 {
			s.cfg.Log.Warn("the start is over without some links", "links", missing)
		}
	}
	<-ctx.Done()
	return nil
}

func notUp(links []string) error {
	if len(links) == 0 {
		return nil
	}
	return errors.New("links not up: " + strings.Join(links, ", "))
}

// serving says which domain of the network does not serve, and why.
func (s *Stack) serving() error {
	opened := map[string]*domain{}
	for _, d := range s.running() {
		opened[d.name] = d
	}
	snapshot, _ := s.metaserv.Network()
	for _, described := range snapshot.Network().Domains {
		d := opened[described.Name]
		if d == nil {
			return fmt.Errorf("%s: not started", described.Name)
		}
		if err := d.ready(); err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
	}
	return nil
}

// Ready returns when the start is over: clients can log in and send, and links are
// up or have had their time; or when ctx ends.
func (s *Stack) Ready(ctx context.Context) error {
	tick := time.NewTicker(readyEvery)
	defer tick.Stop()
	for s.readiness.starting() != nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), s.readiness.starting())
		}
	}
	return nil
}

// readyz tells how the network as a whole is: 503 during the start and when a
// domain does not serve, else 200, with the links that are not up.
func (s *Stack) readyz() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		err := s.readiness.starting()
		if err == nil {
			err = s.serving()
		}
		if err != nil {
			http.Error(w, "not ready: "+err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		if missing := notUp(s.MissingLinks()); missing != nil {
			fmt.Fprintln(w, "ready; "+missing.Error())
			return
		}
		fmt.Fprintln(w, "ready")
	})
}
