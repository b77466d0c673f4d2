package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/linkerhq/linker/pkg/seldom"
)

const (
	fetchWait     = 500 * time.Millisecond // how long the broker holds a request for which there is nothing
	maxFetchBytes = 1 << 20                // a larger record comes alone
	fetchBackoff  = time.Second
	commitTimeout = 2 * time.Second
)

// Record is one record of a lane. Nobody else writes to its memory; while it is
// kept, up to 32 KiB of what was read with it are.
type Record struct {
	Offset     int64
	Key, Value []byte
	Report     *Report // of a dead letter; nil: it is none
}

// Lane is a lane that this process owns, for as long as the ctx lives that came
// with it. Read is for one goroutine at a time; the other methods are for any.
type Lane struct {
	// Static after construction.
	number     int
	topic      string
	client     *client
	membership *membership
	metrics    *groupMetrics
	log        *slog.Logger
	lines      *seldom.Line // shared by the lanes of a group

	committed atomic.Int64
}

func newLane(g *Group, m *membership, a kafka.PartitionAssignment) *Lane {
	l := &Lane{number: a.ID, topic: g.topic, client: g.client, membership: m, metrics: g.metrics, log: g.log, lines: &g.lines}
	l.committed.Store(max(a.Offset, -1)) // below: nothing was ever committed
	return l
}

// Number returns which lane it is, from 0.
func (l *Lane) Number() int { return l.number }

// Committed returns where the group stands: the offset of the first record that
// was not settled at the last commit; -1 if there was never one.
func (l *Lane) Committed() int64 { return l.committed.Load() }

// Healthy says whether the coordinator has, within half a session (3 s) on the
// monotonic and on the wall clock, answered a heartbeat or commit of this
// process in the generation that owns the lane. Age counts from when the
// request was sent; heartbeats go out several times in that. When it says false, another
// process may own the lane: do nothing that cannot be fenced, give the lane up.
func (l *Lane) Healthy() bool { return l.membership.alive() }

// Bounds returns the offset of the first record that the log holds and of the
// next one it will get. It tries again until ctx ends.
func (l *Lane) Bounds(ctx context.Context) (int64, int64, error) {
	for attempt := 0; ; attempt++ {
		epoch := l.client.epoch.Load()
		offsets, err := l.offsets(ctx)
		if err == nil {
			return offsets.FirstOffset, offsets.LastOffset, nil
		}
		l.client.renew(epoch, err)
		if pause(ctx, attempt, fetchBackoff) != nil {
			return 0, 0, fmt.Errorf("bounds of lane %d: %w: %w", l.number, ctx.Err(), err)
		}
	}
}

func (l *Lane) offsets(ctx context.Context) (kafka.PartitionOffsets, error) {
	res, err := l.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{
		l.topic: {kafka.FirstOffsetOf(l.number), kafka.LastOffsetOf(l.number)},
	}})
	if err != nil {
		return kafka.PartitionOffsets{}, err
	}
	for _, p := range res.Topics[l.topic] {
		if p.Partition == l.number {
			return p, p.Error
		}
	}
	return kafka.PartitionOffsets{}, kafka.UnknownTopicOrPartition
}

// Read hands all records from the offset on to handle, as they come, in order
// and without a gap: what one fetch brought, at least one record at a time.
// handle owns the slice and the records. While handle works, nothing is fetched:
// that is the back-pressure.
//
// Read tries again after whatever may pass, for ever. It returns ctx's error,
// handle's error, or ErrOutOfRange when the log does not hold the offset.
func (l *Lane) Read(ctx context.Context, from int64, handle func([]Record) error) error {
	leader := l.client.leader(l.topic, l.number)
	defer leader.close()
	for attempt := 0; ; {
		epoch := l.client.epoch.Load()
		batch, err := leader.fetch(ctx, from)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if len(batch) > 0 {
			attempt = 0
			from = batch[len(batch)-1].Offset + 1
			l.metrics.read.Add(float64(len(batch)))
			if err := handle(batch); err != nil {
				return err
			}
		}
		if err == nil {
			continue
		}
		if errors.Is(err, kafka.OffsetOutOfRange) {
			return fmt.Errorf("read lane %d from %d: %w: %w", l.number, from, ErrOutOfRange, err)
		}
		l.metrics.fetchFailures.Inc()
		l.client.renew(epoch, err)
		if pause(ctx, attempt, fetchBackoff) != nil {
			return ctx.Err()
		}
		attempt++
		if l.lines.Due() {
			l.log.Warn("reading again", "lane", l.number, "offset", from, "attempt", attempt, "error", l.client.server.explain(err))
		}
	}
}

// Commit says that every record before next is settled. It is fenced: if the
// lane has gone to another process, ErrFenced is returned and nothing changes.
// Any error is a reason to give the lane up, but context.DeadlineExceeded: the brokers
// took too long, and the next commit may do better. After an error other than
// ErrFenced the commit may have been made.
//
// Commit does not stop when ctx ends, so that a lane can commit as the last
// thing before it is given up; it takes at most 2 s.
func (l *Lane) Commit(ctx context.Context, next int64) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	for attempt := 0; ; attempt++ {
		epoch := l.client.epoch.Load()
		sent := time.Now()
		err := l.membership.judge(sent, l.commit(ctx, next))
		if err == nil {
			l.metrics.commits.Inc()
			l.committed.Store(next)
			return nil
		}
		if !errors.Is(err, ErrFenced) {
			l.client.renew(epoch, err)
			if pause(ctx, attempt, maxBackoff) == nil {
				continue
			}
		}
		l.metrics.unsure.Inc()
		if ctx.Err() != nil && !errors.Is(err, ErrFenced) { // which the library reports in several ways
			err = errors.Join(ctx.Err(), err)
		}
		return fmt.Errorf("commit %d of lane %d: %w", next, l.number, err)
	}
}

func (l *Lane) commit(ctx context.Context, next int64) error {
	m := l.membership
	res, err := l.client.OffsetCommit(ctx, &kafka.OffsetCommitRequest{
		GroupID: m.group, GenerationID: int(m.generation), MemberID: m.member,
		Topics: map[string][]kafka.OffsetCommit{l.topic: {{Partition: l.number, Offset: next}}},
	})
	if err != nil {
		return err
	}
	for _, p := range res.Topics[l.topic] {
		if p.Partition == l.number {
			return p.Error
		}
	}
	return kafka.UnknownTopicOrPartition
}
