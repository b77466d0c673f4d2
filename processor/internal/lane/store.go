package lane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/linkerhq/linker/pkg/broker/kafka"
	"github.com/linkerhq/linker/pkg/failpoint"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/processor/internal/custody"
)

const (
	sideBySide   = 16             // requests of one kind at once, for one lane
	maxPutRows   = 512            // in one request
	maxJobRows   = 2 * maxPutRows // stored in one job: whoever reads does not wait for all that is stored for others
	retryAtFirst = 50 * time.Millisecond
	retryAtMost  = 2 * time.Second
	readAttempts = 3                      // in one job; then it is tried with the next one
	readAgain    = 250 * time.Millisecond // after a job whose reads were in vain
)

// storeQueue is the lane's way to the store: whatever gathers while one job is
// under way becomes the next one. It is bounded by what the lane holds in memory.
type storeQueue struct {
	store    mailbox.Store
	lane     ownership
	producer *kafka.Producer
	metrics  *Metrics
	says     *Complaints
	log      *slog.Logger
	inbox    *inbox

	stop context.CancelCauseFunc // ends the lane; set by run

	wake chan struct{} // capacity 1; never closed
	mu   sync.Mutex
	next storeJob      // guarded by mu
	busy bool          // guarded by mu
	idle chan struct{} // guarded by mu; closed when nothing waits and nothing is under way
}

// ownership says which lane it is, and whether this process is sure to own it.
type ownership interface {
	Number() int
	Healthy() bool
}

func newStoreQueue(deps Deps, lane ownership, log *slog.Logger, in *inbox) *storeQueue {
	return &storeQueue{
		store: deps.Store, lane: lane, producer: deps.Producer, metrics: deps.Metrics, says: deps.Complaints, log: log, inbox: in, wake: make(chan struct{}, 1),
	}
}

// add changes the next job.
func (q *storeQueue) add(change func(*storeJob)) {
	q.mu.Lock()
	change(&q.next)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// effects adds what a round of the actor wants of the store.
func (q *storeQueue) effects(fx *custody.Effects) {
	if wanted(fx) {
		q.add(func(j *storeJob) { j.add(fx) })
	}
}

// drain waits until nothing waits and nothing is under way, or until the time.
func (q *storeQueue) drain(until time.Time) {
	q.mu.Lock()
	if !q.busy && q.next.empty() {
		q.mu.Unlock()
		return
	}
	if q.idle == nil {
		q.idle = make(chan struct{})
	}
	idle := q.idle
	q.mu.Unlock()
	select {
	case <-idle:
	case <-time.After(time.Until(until)):
	}
}

// take returns the next job, or false when there is none.
func (q *storeQueue) take() (storeJob, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	job := q.next
	q.next = job.cut(maxJobRows)
	q.busy = !job.empty()
	if !q.busy && q.idle != nil {
		close(q.idle)
		q.idle = nil
	}
	return job, q.busy
}

// run carries jobs out until ctx ends; stop ends the lane when it is no longer
// sure to be the owner.
func (q *storeQueue) run(ctx context.Context, stop context.CancelCauseFunc) {
	q.stop = stop
	for {
		select {
		case <-q.wake:
		case <-ctx.Done():
			return
		}
		for job, some := q.take(); some; job, some = q.take() {
			begun := time.Now()
			if !q.do(ctx, &job) {
				return
			}
			q.metrics.storeTime.Observe(time.Since(begun).Seconds())
			if !q.leave(ctx, &job) {
				return
			}
		}
	}
}

// leave gives what a job could not read to the next one, after a pause: what one
// user's rows do not let through must not hold up everybody else's.
func (q *storeQueue) leave(ctx context.Context, j *storeJob) bool {
	if j.asked.empty() && len(j.put) == 0 {
		return true
	}
	q.add(func(next *storeJob) {
		next.put, next.first = append(j.put, next.put...), j.first
		next.proved = append(j.proved, next.proved...)
		j.asked.append(&next.asked)
		next.asked = j.asked
		next.round = max(next.round, j.round)
	})
	select {
	case <-time.After(readAgain):
		return true
	case <-ctx.Done():
		return false
	}
}

// do carries one job out. Every write is repeated until the store has done it; false
// means that ctx ended before. Reads that were in vain stay in the job.
func (q *storeQueue) do(ctx context.Context, j *storeJob) bool {
	for len(j.put) > 0 {
		n := min(len(j.put), maxPutRows)
		ok, room := q.put(ctx, j.put[:n])
		if !ok {
			return false
		}
		if !room {
			break
		}
		j.put, j.first = j.put[n:], j.first+uint64(n)
	}
	later, proved := j.behind(j.put, j.first)
	steps := []struct {
		name string
		run  func(context.Context) error
	}{
		{"write dead letters", func(ctx context.Context) error { return q.bury(ctx, j) }},
		{"mark rows as proved", func(ctx context.Context) error {
			return some(j.mark, func() error { return q.store.MarkProved(ctx, j.mark) })
		}},
		{"delete rows", func(ctx context.Context) error {
			return some(j.del, func() error { return q.remove(ctx, j.del) })
		}},
		{"delete proved rows", func(ctx context.Context) error { return q.deleteProved(ctx, j) }},
		{"save announced users", func(ctx context.Context) error { return q.announce(ctx, j) }},
		{"save windows", func(ctx context.Context) error {
			if j.save == nil {
				return nil
			}
			return q.store.SaveLane(ctx, q.lane.Number(), *j.save)
		}},
	}
	for _, s := range steps {
		if !q.repeat(ctx, s.name, s.run) {
			return false
		}
	}
	attempts := 0
	defer func() {
		j.asked.append(&later)
		j.proved = proved
	}()
	return q.repeat(ctx, "read rows", func(ctx context.Context) error {
		attempts++
		err := q.read(ctx, j)
		if err != nil && attempts == readAttempts && ctx.Err() == nil {
			q.complain("read rows", err)
			return nil
		}
		return err
	})
}

func some[T any](list []T, run func() error) error {
	if len(list) == 0 {
		return nil
	}
	return run()
}

// repeat tries until it succeeds, with growing jittered pauses, as long as this
// process is the owner.
func (q *storeQueue) repeat(ctx context.Context, what string, run func(context.Context) error) bool {
	for pause := retryAtFirst; ; pause = min(2*pause, retryAtMost) {
		if !q.lane.Healthy() {
			q.stop(errNotOwner)
			return false
		}
		err := run(ctx)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		if errors.Is(err, mailbox.ErrLaneTaken) {
			q.stop(fmt.Errorf("%s: %w", what, err))
			return false
		}
		q.metrics.storeFailed.Inc()
		q.complain(what, err)
		select {
		case <-time.After(rand.N(pause) + 1):
		case <-ctx.Done():
			return false
		}
	}
}

func (q *storeQueue) complain(what string, err error) {
	if q.says.storing.Due() {
		q.log.Warn("the mailbox has not done it; trying again", "what", what, "error", err)
	}
}

// put stores rows. room is false if the store has none for them: what makes some goes on.
func (q *storeQueue) put(ctx context.Context, rows []mailbox.Row) (ok, room bool) {
	room = true
	ok = q.repeat(ctx, "store rows", func(ctx context.Context) error {
		err := q.store.Put(ctx, rows)
		if errors.Is(err, mailbox.ErrNoRoom) {
			q.metrics.storeFailed.Inc()
			q.complain("store rows", err)
			room = false
			return nil
		}
		if err != nil {
			return err
		}
		return failpoint.Hit(failpoint.LaneAfterStore)
	})
	if !ok || !room {
		return ok, room
	}
	keys := make([]mailbox.Key, len(rows))
	for i := range rows {
		keys[i] = mailbox.Key{To: rows[i].To, Pos: rows[i].Pos, ID: rows[i].ID}
	}
	q.inbox.put(&custody.Stored{Keys: keys})
	return true, true
}

func (q *storeQueue) remove(ctx context.Context, keys []mailbox.Key) error {
	if err := failpoint.Hit(failpoint.LaneBeforeDelete); err != nil {
		return err
	}
	if err := q.store.Delete(ctx, keys); err != nil {
		return err
	}
	return failpoint.Hit(failpoint.LaneAfterDelete)
}

// deleteProved deletes rows; what is done is taken off the job.
func (q *storeQueue) deleteProved(ctx context.Context, j *storeJob) error {
	for ; len(j.proved) > 0; j.proved = j.proved[1:] {
		p := &j.proved[0]
		if err := q.store.DeleteProved(ctx, p.to, p.what.Before); err != nil {
			return err
		}
	}
	return nil
}

// announce saves entries, no user's twice in one job; what is saved is taken off it.
func (q *storeQueue) announce(ctx context.Context, j *storeJob) (err error) {
	j.announce, err = each(j.announce, func(a mailbox.Announced) error {
		if err := q.store.PutAnnounced(ctx, q.lane.Number(), a); err != nil {
			return err
		}
		q.inbox.put(&custody.AnnouncedSaved{Announced: a})
		return nil
	})
	return err
}

// bury writes dead letters; what is written is taken off the job.
func (q *storeQueue) bury(ctx context.Context, j *storeJob) (err error) {
	j.bury, err = each(j.bury, func(b custody.Burial) error {
		report := kafka.Report{Reason: b.Reason, Lane: q.lane.Number(), LaneOffset: b.Offset}
		if err := q.producer.Dead(ctx, string(b.User), b.Record, report); err != nil {
			return err
		}
		q.inbox.put(&custody.Buried{Burial: b})
		return nil
	})
	return err
}

// each does something with all entries, side by side, and returns those with which
// it was in vain, and the first error.
func each[T any](list []T, do func(T) error) ([]T, error) {
	var mu sync.Mutex
	var left []T
	var group errgroup.Group
	group.SetLimit(sideBySide)
	for _, entry := range list {
		group.Go(func() error {
			err := do(entry)
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				left = append(left, entry)
			}
			return err
		})
	}
	err := group.Wait()
	return left, err
}

// read carries out all reads side by side; each reports its result once, and those
// that were in vain stay in the job.
func (q *storeQueue) read(ctx context.Context, j *storeJob) error {
	var errs [6]error
	j.asked.reads, errs[0] = each(j.asked.reads, func(r after[custody.Read]) error {
		rows, more, err := q.store.Read(ctx, r.what.Query)
		if err == nil {
			err = failpoint.Hit(failpoint.LaneAfterRead)
		}
		if err == nil {
			q.inbox.put(&custody.RowsRead{Read: r.what, Rows: rows, More: more})
		}
		return err
	})
	j.asked.counts, errs[1] = each(j.asked.counts, func(c after[custody.Count]) error {
		n, err := q.store.Count(ctx, c.what.Query)
		if err == nil {
			q.inbox.put(&custody.Counted{Count: c.what, N: n, AsOf: j.round})
		}
		return err
	})
	j.asked.loads, errs[2] = each(j.asked.loads, func(u ident.UserID) error {
		a, found, err := q.store.GetAnnounced(ctx, q.lane.Number(), u)
		if err == nil {
			q.inbox.put(&custody.Loaded{User: u, Announced: a, Found: found})
		}
		return err
	})
	j.asked.usages, errs[3] = each(j.asked.usages, func(u after[ident.UserID]) error {
		usage, err := q.store.Usage(ctx, u.to)
		if err == nil {
			q.inbox.put(&custody.UsageRead{User: u.what, Usage: usage})
		}
		return err
	})
	j.asked.expire, errs[4] = each(j.asked.expire, func(e custody.Expiration) error {
		rows, err := q.store.Expired(ctx, q.lane.Number(), e.Before, e.Limit)
		if err == nil {
			q.inbox.put(&custody.RowsExpired{Expiration: e, Rows: rows})
		}
		return err
	})
	j.asked.lists, errs[5] = each(j.asked.lists, func(l custody.List) error {
		targets, err := q.store.Targets(ctx, q.lane.Number(), l.After, l.Limit)
		if err == nil {
			q.inbox.put(&custody.TargetsListed{List: l, Targets: targets})
		}
		return err
	})
	return errors.Join(errs[:]...)
}
