package workload_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linkerhq/linker/standalone/internal/bench/figures"
	"github.com/linkerhq/linker/standalone/internal/bench/workload"
)

// postOffice is a fake server that keeps what is sent, and can be asked and killed. It
// loses, doubles and refuses what it is told to.
type postOffice struct {
	lose, double, refuse int // one in so many; 0: none
	silent               bool

	mu      sync.Mutex
	kept    map[string][]string // guarded by mu; by receiver
	taken   map[string]bool     // guarded by mu; references that were refused
	stored  int                 // guarded by mu
	killed  int                 // guarded by mu
	dropped int                 // guarded by mu
}

func (p *postOffice) answer(user string, n int, r received) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.Type == "FETCH_MISSING_MESSAGES_REQUEST" {
		all := p.kept[user]
		p.kept[user] = nil
		return append(all, `{"type":"FETCH_MISSING_MESSAGES_COMPLETE","data":{"leftMissingCount":0}}`)
	}
	if p.silent {
		return nil
	}
	if p.refuse > 0 && n%p.refuse == 0 && !p.taken[r.Reference] {
		p.taken[r.Reference] = true
		return []string{fmt.Sprintf(`{"type":"DELIVER_FAILED","data":{"code":"QUEUE_UNAVAILABLE","message":"m"},"reference":%q}`, r.Reference)}
	}
	to := fmt.Sprint(r.Data.To)
	p.stored++
	answers := []string{fmt.Sprintf(`{"type":"MESSAGE_ACCEPTED","data":{"reference":%q,"id":"x"}}`, r.Reference)}
	var deliveries []string
	switch {
	case p.lose > 0 && p.stored%p.lose == 0:
		p.dropped++
	case p.double > 0 && p.stored%p.double == 0:
		deliveries = []string{r.delivery(user), r.delivery(user)}
	default:
		deliveries = []string{r.delivery(user)}
	}
	if to == user {
		return append(answers, deliveries...)
	}
	p.kept[to] = append(p.kept[to], deliveries...)
	return answers
}

// Metric says that everything is stored.
func (p *postOffice) Metric(_ context.Context, name string) (float64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if name == "linker_lane_stored_total" {
		return float64(p.stored), nil
	}
	return 0, nil
}

// Crash only counts.
func (p *postOffice) Crash(context.Context, workload.Victim) (func() error, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.killed++
	return func() error { return nil }, nil
}

// Home gives each domain 100 users.
func (p *postOffice) Home(domain int) (first, end int64) {
	return int64(domain) * 100, int64(domain+1) * 100
}

// serve runs a workload on the post office.
func (p *postOffice) serve(t *testing.T, name string, o workload.Options) (figures.Run, error) {
	t.Helper()
	needLinux(t)
	p.kept, p.taken = map[string][]string{}, map[string]bool{}
	w, known := workload.Find(name)
	if !known {
		t.Fatalf("there is no workload %s", name)
	}
	url := (&fake{answer: p.answer}).start(t)
	return w.Run(t.Context(), workload.Env{Options: o, URLs: []string{url}, Observer: &observer{}, Progress: &workload.Progress{}, Server: p})
}

// away are the options of a short run: 3 users of whom each has 50 messages, and 100 for others.
func away() workload.Options {
	o := options()
	o.Connections, o.Users, o.Stored, o.Others, o.InFlight = 4, 3, 50, 100, 8
	o.Patience = workload.Span(20 * time.Second)
	return o
}

func TestFetchesCountWhatHasBeenLost(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		office       *postOffice
		lost, copies int64
	}{
		"nothing":            {office: &postOffice{}},
		"every tenth":        {office: &postOffice{lose: 10}, lost: 1}, // at least: some are the others'
		"copies":             {office: &postOffice{double: 10}, copies: 1},
		"some refused first": {office: &postOffice{refuse: 7}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := c.office.serve(t, "fetch", away())
			if err != nil {
				t.Fatal(err)
			}
			if r.Stored != 250 || r.Accepted != 250 || r.Deliveries+r.Lost != 150 || r.Fetch.Count != 3 || r.Disordered+r.Damaged > 0 {
				t.Errorf("got %+v", r)
			}
			if r.Lost < c.lost || r.Lost > int64(c.office.dropped) || (r.Duplicates > 0) != (c.copies > 0) {
				t.Errorf("got %d lost, %d copies; %d were dropped", r.Lost, r.Duplicates, c.office.dropped)
			}
			if refused := r.Errors["QUEUE_UNAVAILABLE"]; (refused > 0) != (c.office.refuse > 0) {
				t.Errorf("got %v", r.Errors)
			}
		})
	}
}

func TestStoringCountsWhatHasBeenLost(t *testing.T) {
	t.Parallel()
	o := away()
	o.Duration = workload.Span(200 * time.Millisecond)
	for _, office := range []*postOffice{{}, {lose: 10}} {
		r, err := office.serve(t, "store", o)
		if err != nil {
			t.Fatal(err)
		}
		// All of the three users are looked at.
		if r.Stored < 10 || r.Lost != int64(office.dropped) || r.Deliveries+r.Lost != r.Stored || *r.StoredRate <= 0 || *r.AcceptedRate < *r.StoredRate {
			t.Errorf("%d were dropped: got %+v", office.dropped, r)
		}
	}
}

func TestAServerThatAcceptsNothingEndsTheRun(t *testing.T) {
	t.Parallel()
	o := away()
	o.Patience = workload.Span(200 * time.Millisecond)
	if _, err := (&postOffice{silent: true}).serve(t, "store", o); err == nil || !strings.Contains(err.Error(), "nothing was accepted for 200ms") {
		t.Errorf("got %v", err)
	}
}

func TestCrashesCountWhatHasBeenLost(t *testing.T) {
	t.Parallel()
	for _, office := range []*postOffice{{}, {lose: 50}, {refuse: 20}} {
		o := away()
		o.Crashes, o.Rate = 1, 200
		r, err := office.serve(t, "recover", o)
		if err != nil {
			t.Fatal(err)
		}
		if office.killed != 1 || r.Crashes != 1 || r.Stuck != 0 || r.Recovery.Count != 4 || r.Accepted != r.Sent || r.Lost != int64(office.dropped) || r.Sent < 100 {
			t.Errorf("killed %d, dropped %d: got %+v", office.killed, office.dropped, r)
		}
	}
}

func TestHopsNeedADomainForEachDistance(t *testing.T) {
	t.Parallel()
	o := away()
	o.Domains = 2
	if _, err := (&postOffice{}).serve(t, "hops", o); err == nil || !strings.Contains(err.Error(), "1 URLs: expected one of each of 2 domains") {
		t.Errorf("got %v", err)
	}
	o.Domains = 1
	if _, err := (&postOffice{}).serve(t, "hops", o); err == nil || !strings.Contains(err.Error(), "--first-user 300000: expected 0 to 92") {
		t.Errorf("got %v", err)
	}
}
