// Package deadletters keeps what could not be delivered, so that an operator can look at
// it, send it again, or throw it away.
//
// The topic of dead letters is the durable report: who gives a message up writes it there.
// Keep, which one processor of the domain runs at a time, brings every record of the topic
// into the store, and only then commits it. A letter is named by its position in the topic.
// If a processor dies between the two, the letter is stored again by the next one; one that
// was replayed or purged in that moment comes back.
//
// A replay writes the message into the log again, as a new record under the old id, and
// deletes the letter when the log has it. The receiver's lane drops it if it has taken the
// same message meanwhile. One that dies again is a new letter.
package deadletters

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/broker/kafka"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/pkg/seldom"
	"github.com/linkerhq/linker/pkg/topology"
)

const (
	// reasonUnknown stands where the topic does not say why: something else has written
	// to it.
	reasonUnknown    = "UNKNOWN"
	reasonLength     = 64 // bytes of a reason; the rest is cut off
	retryAtFirst     = 50 * time.Millisecond
	retryAtMost      = 2 * time.Second
	lookAgain        = 5 * time.Second // after the topic did not hold what was wanted of it
	countEvery       = 15 * time.Second
	purgeAtLeast     = time.Second // between two looks for letters that are too old
	purgeAtMost      = time.Minute
	purgeAtOnce      = 500             // letters in one request of the store
	storeTime        = 5 * time.Second // for one request of the store, where nobody else bounds it
	purgedByAge      = "age"
	purgedByOperator = "operator"
)

// Log is what letters are written to again.
type Log interface {
	// Append queues a record for a lane; done is called when it is in the log, or cannot
	// be.
	Append(lane int, key string, value []byte, done func(offset int64, err error)) error
}

// Network is the current description of the network; nil before the first has come.
type Network interface{ Current() *topology.Snapshot }

// Topic is the topic of dead letters, for as long as this process owns it.
type Topic interface {
	// Committed is the offset of the first record that is not stored; -1 if none was.
	Committed() int64
	// Bounds returns the offset of the first record there is and of the next one there
	// will be.
	Bounds(ctx context.Context) (first, next int64, err error)
	// Read hands all records from an offset on to handle, until it fails or ctx ends.
	Read(ctx context.Context, from int64, handle func([]kafka.Record) error) error
	// Commit says that every record before next is stored.
	Commit(ctx context.Context, next int64) error
}

// Config says whose letters they are, and what they are kept with.
type Config struct {
	Domain     string
	Lanes      int
	Generation uint32        // of the log
	Retain     time.Duration // how long a letter is kept; 0: for ever
	Store      mailbox.DeadLetters
	Log        Log
	Network    Network
	Logger     *slog.Logger
	Metrics    prometheus.Registerer
}

// Letters are the dead letters of a domain.
type Letters struct {
	cfg     Config // static
	log     *slog.Logger
	metrics *metrics
	lines   seldom.Line
}

// New returns the letters. It starts nothing.
func New(cfg Config) (*Letters, error) {
	m, err := newMetrics(cfg.Metrics)
	if err != nil {
		return nil, err
	}
	return &Letters{cfg: cfg, log: cfg.Logger, metrics: m}, nil
}

// Keep brings what is written to the topic into the store, and removes what is too old,
// until ctx ends; it returns nil then. An error means that the topic has to be given up.
func (l *Letters) Keep(ctx context.Context, topic Topic) error {
	ctx, stop := context.WithCancel(ctx)
	var aside sync.WaitGroup
	defer aside.Wait()
	defer stop()
	aside.Go(func() { l.tidy(ctx) })
	for {
		from, err := l.begin(ctx, topic)
		if err == nil {
			err = topic.Read(ctx, from, func(records []kafka.Record) error { return l.take(ctx, topic, records) })
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, kafka.ErrOutOfRange):
			if wait(ctx, lookAgain) != nil {
				return nil
			}
		default:
			return err
		}
	}
}

// begin returns the first offset to read. Letters that the topic has dropped before they
// were stored are counted; a topic that was made anew is for the operator to say so.
func (l *Letters) begin(ctx context.Context, topic Topic) (int64, error) {
	first, next, err := topic.Bounds(ctx)
	if err != nil {
		return 0, err
	}
	from := topic.Committed()
	switch {
	case from < 0:
		return first, nil
	case from < first:
		l.metrics.missed.Add(float64(first - from))
		l.log.Error("the topic has dropped dead letters before they were stored", "from", from, "to", first)
		return first, topic.Commit(ctx, first)
	case from > next:
		if l.lines.Due() {
			l.log.Error("the topic of dead letters was made anew: they are not stored before kafka-generation is raised", "stored_to", from, "ends_at", next)
		}
		return 0, kafka.ErrOutOfRange
	}
	return from, nil
}

// take stores what one fetch has brought, and commits it.
func (l *Letters) take(ctx context.Context, topic Topic, records []kafka.Record) error {
	letters := make([]mailbox.DeadLetter, len(records))
	for i := range records {
		letters[i] = l.letter(&records[i])
	}
	err := l.repeat(ctx, "store dead letters", func(ctx context.Context) error { return l.cfg.Store.PutDead(ctx, letters) })
	if err != nil {
		return err
	}
	l.metrics.stored.Add(float64(len(letters)))
	return topic.Commit(ctx, records[len(records)-1].Offset+1)
}

// letter reads a record of the topic. Whatever it is, it becomes a letter.
func (l *Letters) letter(r *kafka.Record) mailbox.DeadLetter {
	letter := mailbox.DeadLetter{
		Pos: envelope.Position{Generation: l.cfg.Generation, Offset: r.Offset}, Reason: reasonUnknown,
		At: time.Now().UnixMilli(), Lane: kafka.Unknown, Offset: kafka.Unknown, Record: r.Value,
	}
	if r.Report != nil {
		letter.Lane, letter.Offset = r.Report.Lane, r.Report.LaneOffset
		reason := r.Report.Reason
		letter.Reason = cmp.Or(strings.ToValidUTF8(reason[:min(len(reason), reasonLength)], ""), reasonUnknown)
		if at := r.Report.Time.UnixMilli(); at > 0 {
			letter.At = at
		}
	}
	if e, err := envelope.Decode(r.Value); err == nil {
		seen := map[ident.UserID]bool{}
		for _, to := range e.To {
			if !seen[to.User] {
				seen[to.User] = true
				letter.Users = append(letter.Users, to.User)
			}
		}
	} else if user, err := ident.ParseUserID(string(r.Key)); err == nil {
		letter.Users = []ident.UserID{user}
	}
	return letter
}

// repeat tries until it succeeds or ctx ends, with growing jittered pauses.
func (l *Letters) repeat(ctx context.Context, what string, run func(context.Context) error) error {
	for pause := retryAtFirst; ; pause = min(2*pause, retryAtMost) {
		err := l.once(ctx, run)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		l.metrics.failures.Inc()
		if l.lines.Due() {
			l.log.Warn("the mailbox has not done it; trying again", "what", what, "error", err)
		}
		if wait(ctx, rand.N(pause)+1) != nil {
			return ctx.Err()
		}
	}
}

// once gives a request of the store its time.
func (l *Letters) once(ctx context.Context, run func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	return run(ctx)
}

// tidy removes letters that are too old and counts those that are left, now and then,
// until ctx ends.
func (l *Letters) tidy(ctx context.Context) {
	defer l.metrics.kept.Set(0) // the next keeper counts them
	purgeEvery := min(max(l.cfg.Retain/10, purgeAtLeast), purgeAtMost)
	purge, count := time.NewTicker(purgeEvery), time.NewTicker(min(countEvery, purgeEvery))
	defer purge.Stop()
	defer count.Stop()
	l.purgeOld(ctx)
	l.count(ctx)
	for {
		select {
		case <-purge.C:
			l.purgeOld(ctx)
		case <-count.C:
			l.count(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// purgeOld removes what was reported too long ago. What fails is done the next time.
func (l *Letters) purgeOld(ctx context.Context) {
	if l.cfg.Retain == 0 {
		return
	}
	filter := mailbox.DeadFilter{Before: time.Now().Add(-l.cfg.Retain).UnixMilli()}
	for {
		n, err := l.purgeSome(ctx, filter, purgedByAge)
		switch {
		case err != nil && ctx.Err() == nil:
			l.metrics.failures.Inc()
			if l.lines.Due() {
				l.log.Warn("dead letters that are too old were not removed", "error", err)
			}
		case n > 0:
			l.log.Info("dead letters removed since they are too old", "count", n, "retain", l.cfg.Retain)
		}
		if err != nil || n < purgeAtOnce {
			return
		}
	}
}

// purgeSome removes letters, at most as many as the store takes at once.
func (l *Letters) purgeSome(ctx context.Context, filter mailbox.DeadFilter, by string) (n int, err error) {
	err = l.once(ctx, func(ctx context.Context) error {
		n, err = l.cfg.Store.PurgeDead(ctx, filter, purgeAtOnce)
		return err
	})
	l.metrics.purged.WithLabelValues(by).Add(float64(n))
	return n, err
}

func (l *Letters) count(ctx context.Context) {
	err := l.once(ctx, func(ctx context.Context) error {
		n, err := l.cfg.Store.CountDead(ctx)
		if err == nil {
			l.metrics.kept.Set(float64(n))
		}
		return err
	})
	if err != nil && ctx.Err() == nil {
		l.metrics.failures.Inc()
		if l.lines.Due() {
			l.log.Warn("dead letters were not counted", "error", err)
		}
	}
}

// wait lets time pass, unless ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// name is how operators name a letter, such as 1-42.
func name(pos envelope.Position) string { return fmt.Sprintf("%d-%d", pos.Generation, pos.Offset) }
