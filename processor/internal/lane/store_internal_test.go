package lane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/processor/internal/custody"
)

func TestWhatReadsWaitsForTheEarlierRowsOfItsTargetAndForNoOthers(t *testing.T) {
	t.Parallel()
	const all = "read A-1 A-2, count A-1 A-2, usage A-1 A-2, proved A-1 A-2"
	const one = "read A-1, count A-1, usage A-1, proved A-1"
	const two = "read A-2, count A-2, usage A-2, proved A-2"
	const none = "read, count, usage, proved"
	for _, c := range []struct {
		name      string
		rows      string // targets, in the order in which they are to be stored; ? asks about
		now, next string
	}{
		{"few rows", "A-1 A-2 ?", "put A-1 A-2, " + all, "put, " + none},
		{"rows of one beyond the limit", "A-1 A-1 A-1 A-2 A-3 ?", "put A-1 A-1 A-1, " + one, "put A-2 A-3, " + two},
		{"of one who has some on both sides", "A-1 A-2 A-3 A-1 ?", "put A-1 A-2 A-3, " + two, "put A-1, " + one},
		{"of others only", "A-3 A-3 A-3 A-3 ?", "put A-3 A-3 A-3, " + all, "put A-3, " + none},
		{"the row just before", "A-3 A-3 A-3 A-1 ? A-2", "put A-3 A-3 A-3, " + two, "put A-1 A-2, " + one},
		{"later rows", "A-2 A-3 A-1 ? A-1 A-2", "put A-2 A-3 A-1, " + all, "put A-1 A-2, " + none},
		{"later rows on both sides", "A-2 ? A-3 A-1 A-1 A-2", "put A-2 A-3 A-1, " + all, "put A-1 A-2, " + none},
		{"before all rows", "? A-1 A-2 A-1 A-2", "put A-1 A-2 A-1, " + all, "put A-2, " + none},
		{"earlier and later rows beyond the limit", "A-3 A-3 A-3 A-1 ? A-1 A-2 A-2", "put A-3 A-3 A-3, " + two, "put A-1 A-1 A-2 A-2, " + one},
	} {
		job := storeJob{first: 7}
		for to := range strings.FieldsSeq(c.rows) {
			fx := custody.Effects{Put: []mailbox.Row{{To: to}}}
			if to == "?" {
				fx = custody.Effects{}
				for _, to := range []string{"A-1", "A-2"} {
					ask(&fx, to)
				}
			}
			job.add(&fx)
		}
		next := job.cut(3)
		if got := describeJob(&job); got != c.now {
			t.Errorf("%s: now %q, want %q", c.name, got, c.now)
		}
		if got := describeJob(&next); got != c.next {
			t.Errorf("%s: next %q, want %q", c.name, got, c.next)
		}
		if want := job.first + uint64(len(job.put)); job.first != 7 || next.first != want {
			t.Errorf("%s: the rows begin with number %d, and then with %d, not with 7 and %d", c.name, job.first, next.first, want)
		}
	}
}

// ask asks about a target in all ways.
func ask(fx *custody.Effects, to string) {
	q := mailbox.Query{To: to}
	fx.Reads = append(fx.Reads, custody.Read{Query: q})
	fx.Counts = append(fx.Counts, custody.Count{Query: q})
	fx.Usages = append(fx.Usages, ident.UserID(to))
	fx.DeleteProved = append(fx.DeleteProved, custody.ProvedRows{To: to})
}

func describeJob(j *storeJob) string {
	var s strings.Builder
	s.WriteString("put")
	for _, r := range j.put {
		s.WriteString(" " + r.To)
	}
	return s.String() + ", read" + describe(j.asked.reads) + ", count" + describe(j.asked.counts) + ", usage" + describe(j.asked.usages) + ", proved" + describe(j.proved)
}

func describe[T any](list []after[T]) string {
	var s strings.Builder
	for _, e := range list {
		s.WriteString(" " + e.to)
	}
	return s.String()
}

func TestATargetWhoseRowsNeverEndIsReadAllTheSame(t *testing.T) {
	t.Parallel()
	q := &storeQueue{wake: make(chan struct{}, 1)}
	rows := func(n int) {
		fx := custody.Effects{Put: make([]mailbox.Row, n)}
		for i := range fx.Put {
			fx.Put[i].To = "A-2"
		}
		fx.Put[n-1].To = "A-1"
		q.effects(&fx)
	}
	rows(maxJobRows + 100) // the store is a little behind
	var question custody.Effects
	ask(&question, "A-1")
	q.effects(&question)
	for i := range 2 {
		job, _ := q.take()
		want := "read, count, usage, proved"
		if i == 1 { // its row was put before the question, and is in this job
			want = "read A-1, count A-1, usage A-1, proved A-1"
		}
		if got := describeJob(&job); !strings.HasSuffix(got, ", "+want) {
			t.Errorf("job %d: %q, not %q", i, got[strings.Index(got, ", read")+2:], want)
		}
		rows(maxJobRows) // what arrives while the job is under way
	}
}

// Whatever the store refuses meanwhile: rows are stored in order; what concerns a target comes
// after all of its rows that were put before, once, and not much later.
func TestWhatIsReadShowsAllThatWasPutBefore(t *testing.T) {
	t.Parallel()
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				metrics, err := NewMetrics(prometheus.NewRegistry())
				if err != nil {
					t.Fatal(err)
				}
				s := &shelf{t: t, rng: rand.New(rand.NewPCG(seed, 1)), put: map[string]int{}, stored: map[string]int{}, open: map[question]*promise{}}
				log := slog.New(slog.DiscardHandler)
				s.queue = newStoreQueue(Deps{Store: s, Metrics: metrics, Complaints: new(Complaints)}, mine{}, log, newInbox())
				s.round(3 * maxJobRows)
				ctx, cancel := context.WithCancel(t.Context())
				var running sync.WaitGroup
				running.Go(func() { s.queue.run(ctx, func(err error) { t.Errorf("the lane has ended: %v", err) }) })
				s.queue.drain(time.Now().Add(time.Hour))
				cancel()
				running.Wait()
				if s.allStored != s.allPut || len(s.open) > 0 {
					t.Errorf("%d rows of %d were stored, and %d questions of %d are open", s.allStored, s.allPut, len(s.open), s.asked)
				}
				if s.asked < 100 {
					t.Errorf("only %d questions were asked", s.asked)
				}
			})
		})
	}
}

// mine is a lane that this process owns all the time.
type mine struct{}

func (mine) Number() int   { return 0 }
func (mine) Healthy() bool { return true }

// shelf is a store that looks at the order in which it is used. It fails now and then, and
// while it stores rows more are put and more is asked.
type shelf struct {
	mailbox.Store // nil: nothing else is asked for
	t             *testing.T
	queue         *storeQueue

	mu                sync.Mutex // guards all below
	rng               *rand.Rand
	put, stored       map[string]int // rows, by target
	allPut, allStored int
	open              map[question]*promise
	asked             int
}

// question is one of a kind, about a target.
type question struct {
	kind, to string
	id       int64
}

// promise is what a question has to show.
type promise struct {
	rows  int // of its target
	all   int // rows that were put before it
	fails int // attempts that were in vain
}

// round puts n rows, and asks something then.
func (s *shelf) round(n int) {
	var fx custody.Effects
	for range n {
		to := fmt.Sprintf("A-%d", s.rng.IntN(4))
		s.put[to]++
		s.allPut++
		fx.Put = append(fx.Put, mailbox.Row{To: to, Pos: envelope.Position{Offset: int64(s.allPut)}})
	}
	for range s.rng.IntN(6) {
		q := question{to: fmt.Sprintf("A-%d", s.rng.IntN(6)), id: int64(s.asked)} // two have no rows
		s.asked++
		at := envelope.Position{Offset: q.id}
		switch s.rng.IntN(4) {
		case 0:
			q.kind = "read"
			fx.Reads = append(fx.Reads, custody.Read{Query: mailbox.Query{To: q.to, After: at}})
		case 1:
			q.kind = "count"
			fx.Counts = append(fx.Counts, custody.Count{Query: mailbox.Query{To: q.to, After: at}})
		case 2:
			q.kind = "proved"
			fx.DeleteProved = append(fx.DeleteProved, custody.ProvedRows{To: q.to, Before: at})
		default:
			q.kind, q.id = "usage", 0
			if s.open[q] != nil {
				continue // cannot be told from the one before it
			}
			fx.Usages = append(fx.Usages, ident.UserID(q.to))
		}
		s.open[q] = &promise{rows: s.put[q.to], all: s.allPut}
	}
	s.queue.effects(&fx)
}

func (s *shelf) Put(_ context.Context, rows []mailbox.Row) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.allPut < 40*maxJobRows {
		s.round(s.rng.IntN(2 * maxPutRows)) // as many as are stored, on average
	}
	switch s.rng.IntN(20) {
	case 0:
		return mailbox.ErrNoRoom
	case 1:
		return errors.New("not now")
	}
	for i := range rows {
		s.allStored++
		s.stored[rows[i].To]++
		if rows[i].Pos.Offset != int64(s.allStored) {
			s.t.Errorf("row %d is stored as number %d", rows[i].Pos.Offset, s.allStored)
		}
	}
	return nil
}

// answer answers a question, or fails.
func (s *shelf) answer(kind, to string, id int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := question{kind, to, id}
	p := s.open[q]
	switch {
	case p == nil:
		s.t.Errorf("%v was not asked, or is answered again", q)
		return nil
	case s.stored[to] < p.rows:
		s.t.Errorf("%v shows %d rows, and %d were put before", q, s.stored[to], p.rows)
	case s.allStored > p.all+(1+p.fails)*maxJobRows:
		s.t.Errorf("%v comes after %d rows, and only %d were put before; %d attempts were in vain", q, s.allStored, p.all, p.fails)
	}
	if s.rng.IntN(4) == 0 {
		p.fails++
		return errors.New("not now")
	}
	delete(s.open, q)
	return nil
}

func (s *shelf) Read(_ context.Context, q mailbox.Query) ([]mailbox.Row, bool, error) {
	return nil, false, s.answer("read", q.To, q.After.Offset)
}

func (s *shelf) Count(_ context.Context, q mailbox.Query) (int, error) {
	return 0, s.answer("count", q.To, q.After.Offset)
}

func (s *shelf) DeleteProved(_ context.Context, to string, before envelope.Position) error {
	return s.answer("proved", to, before.Offset)
}

func (s *shelf) Usage(_ context.Context, to string) (mailbox.Usage, error) {
	return mailbox.Usage{}, s.answer("usage", to, 0)
}
