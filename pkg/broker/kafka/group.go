package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"

	"github.com/linkerhq/linker/pkg/seldom"
)

const (
	sessionTimeout    = 6 * time.Second
	heartbeatInterval = 500 * time.Millisecond
	rebalanceTimeout  = 3 * time.Second
	joinBackoff       = 200 * time.Millisecond
	coordinatorLimit  = 3 * time.Second // for one request to the coordinator

	aliveInterval = 500 * time.Millisecond
	aliveFor      = sessionTimeout / 2
	// aliveTimeout is after how long an answer to a heartbeat says nothing any more.
	aliveTimeout = aliveFor
	// maxBeats may be under way: with a slow broker the next one does not wait for
	// the answer to the one before.
	maxBeats = 4

	settledAfter = 30 * time.Second // a membership that lasted longer was a success
)

var (
	errReturned  = errors.New("the owner returned although the lane was still its own")
	errNotJoined = errors.New("the brokers could not be asked")
)

// Group owns lanes of the domain, together with the other processes that run a
// Group of the same domain and generation: Kafka gives each lane to one of them.
type Group struct {
	// Static after construction.
	cfg     Config
	name    string // of the group
	topic   string
	lanes   int // partitions of the topic
	own     func(ctx context.Context, lane *Lane) error
	client  *client
	metrics *groupMetrics
	log     *slog.Logger
	lines   seldom.Line

	member atomic.Bool // of a generation, with lanes or without
}

// NewGroup returns a group; Run makes it work.
//
// own is called in a goroutine of its own for each lane that this process gets.
// Its ctx ends when the lane is to be given up. It must then return within
// 3 s, better within 2, or Kafka evicts the process; until it has returned the
// lane is still this process's, and Commit still works. If own returns
// while its ctx is live, whether with an error or without, the process gives
// up all its lanes in good order, leaves the group, and joins again after a
// pause: a lane is never left unowned while the process looks healthy.
func NewGroup(cfg Config, own func(ctx context.Context, lane *Lane) error) (*Group, error) {
	g, err := newGroup(cfg, own)
	if err != nil {
		return nil, err
	}
	g.name, g.topic, g.lanes = cfg.group(), cfg.topic(), cfg.Lanes
	return g, register(cfg.Metrics, g.metrics.all()...)
}

// NewDeadGroup returns a group whose members own the topic of dead letters in place of
// lanes: it has one partition, lane 0, so that one of them has it and the others stand
// by. What Producer.Dead was told is the Report of a record. The group has no metrics.
func NewDeadGroup(cfg Config, own func(ctx context.Context, lane *Lane) error) (*Group, error) {
	g, err := newGroup(cfg, own)
	if err != nil {
		return nil, err
	}
	g.name, g.topic, g.lanes = cfg.deadGroup(), cfg.deadTopic(), 1
	return g, nil
}

func newGroup(cfg Config, own func(ctx context.Context, lane *Lane) error) (*Group, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("group: %w", err)
	}
	client, err := newClient(cfg)
	if err != nil {
		return nil, fmt.Errorf("group: %w", err)
	}
	return &Group{cfg: cfg, own: own, client: client, metrics: newGroupMetrics(), log: cfg.Log}, nil
}

// Run owns lanes until ctx ends; it then gives them up in good order, leaves
// the group and returns nil. Brokers that are away are waited for.
func (g *Group) Run(ctx context.Context) error {
	defer g.client.close()
	var lines seldom.Line
	for attempt := 0; ; attempt++ {
		joined := time.Now()
		err := g.join(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(joined) > settledAfter {
			attempt = 0
		}
		g.metrics.left.Inc()
		if !errors.Is(err, errNotJoined) || lines.Due() {
			g.log.Error("not in the group, joining again", "group", g.name, "error", g.client.server.explain(err))
		}
		if pause(ctx, attempt+2, maxBackoff) != nil {
			return nil
		}
	}
}

// Member says whether this process is a member of the group: it owns the lanes
// that Kafka has given to it, or stands by if others have them all.
func (g *Group) Member() bool { return g.member.Load() }

// join is one membership of the group. It returns when ctx has ended or an
// owner has failed, after all owners have returned.
func (g *Group) join(ctx context.Context) error {
	epoch := g.client.epoch.Load()
	topic, err := g.client.look(ctx, g.topic)
	have := topic.partitions
	if err != nil || have == 0 {
		g.client.renew(epoch, err)
		return fmt.Errorf("%w: %w", errNotJoined, cmp.Or(err, fmt.Errorf("%s is not known", g.topic)))
	}
	if have != g.lanes {
		return fmt.Errorf("%w: %s has %d partitions, configured are %d", ErrTopicMismatch, g.topic, have, g.lanes)
	}
	group, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID:                g.name,
		Brokers:           g.cfg.Brokers,
		Dialer:            g.client.dialer(),
		Topics:            []string{g.topic},
		HeartbeatInterval: heartbeatInterval,
		SessionTimeout:    sessionTimeout,
		RebalanceTimeout:  rebalanceTimeout,
		JoinGroupBackoff:  joinBackoff,
		StartOffset:       kafka.FirstOffset,
		Timeout:           coordinatorLimit,
	})
	if err != nil {
		return fmt.Errorf("join %s: %w", g.name, err)
	}
	ctx, fail := context.WithCancelCause(ctx)
	var owners sync.WaitGroup
	g.follow(ctx, group, func(gen *kafka.Generation) { g.serve(ctx, gen, &owners, fail) })
	g.member.Store(false)
	cause := context.Cause(ctx)
	fail(nil)
	err = group.Close() // ends the owners' contexts, waits for them, leaves
	owners.Wait()
	return errors.Join(cause, err)
}

// follow hands each generation to start, until ctx ends.
func (g *Group) follow(ctx context.Context, group *kafka.ConsumerGroup, start func(*kafka.Generation)) {
	var lines seldom.Line
	for {
		gen, err := group.Next(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil { // the library waits between its attempts
			g.member.Store(false)
			g.metrics.joinFailures.Inc()
			if lines.Due() {
				g.log.Warn("joining the group", "group", g.name, "error", g.client.server.explain(err))
			}
			continue
		}
		g.metrics.generations.Inc()
		start(gen)
	}
}

// serve starts the owners of one generation.
func (g *Group) serve(ctx context.Context, gen *kafka.Generation, owners *sync.WaitGroup, fail context.CancelCauseFunc) {
	m := &membership{
		client: g.client,
		group:  gen.GroupID, member: gen.MemberID, generation: gen.ID,
	}
	if err := m.beat(ctx); err != nil {
		fail(fmt.Errorf("first heartbeat: %w", err))
		return
	}
	gen.Start(m.run)
	assigned := gen.Assignments[g.topic]
	lanes := make([]int, 0, len(assigned))
	for _, a := range assigned {
		lanes = append(lanes, a.ID)
	}
	g.member.Store(true)
	g.log.Info("lanes assigned", "group", gen.GroupID, "generation", gen.ID, "lanes", lanes)
	for _, a := range assigned {
		lane := newLane(g, m, a)
		owners.Add(1)
		gen.Start(func(ended context.Context) {
			defer owners.Done()
			if ended.Err() == nil {
				g.serveLane(ctx, ended, lane, fail)
			}
		})
	}
}

// serveLane runs the owner of one lane. ended is the library's own kind of
// context, which carries nothing and says its own kind of error when it ends:
// the owner gets an ordinary one.
func (g *Group) serveLane(ctx, ended context.Context, lane *Lane, fail context.CancelCauseFunc) {
	laneCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ended, cancel)
	defer stop()
	g.metrics.owned.Inc()
	defer g.metrics.owned.Dec()
	err := g.own(laneCtx, lane)
	if laneCtx.Err() != nil {
		if err != nil && !errors.Is(err, context.Canceled) {
			g.log.Warn("lane given up with an error", "lane", lane.number, "error", err)
		}
		return
	}
	if err == nil {
		err = errReturned
	}
	fail(fmt.Errorf("own lane %d: %w", lane.number, err))
	// Returning ends the generation, and the library would join the next one at
	// once: first let the membership end.
	<-ended.Done()
}

// membership knows whether the coordinator still counts this process in. The
// library does not tell about its heartbeats, so this sends some of its own and
// looks at the answers.
type membership struct {
	client     *client // static
	group      string  // static
	member     string  // static
	generation int32   // static

	last   atomic.Pointer[time.Time] // when the last answered heartbeat or commit was sent; set before run
	fenced atomic.Bool               // the coordinator has said no; it never takes that back
}

// run keeps sending heartbeats until ctx ends.
func (m *membership) run(ctx context.Context) {
	ticker := time.NewTicker(aliveInterval)
	defer ticker.Stop()
	var beats sync.WaitGroup
	defer beats.Wait()
	room := make(chan struct{}, maxBeats)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		select {
		case room <- struct{}{}:
			beats.Go(func() {
				defer func() { <-room }()
				// A failure shows as age: alive turns false when it lasts.
				_ = m.beat(ctx)
			})
		default:
		}
	}
}

// beat sends a heartbeat, again if a connection was stale.
func (m *membership) beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, aliveTimeout)
	defer cancel()
	for attempt := 0; ; attempt++ {
		epoch := m.client.epoch.Load()
		sent := time.Now()
		res, err := m.client.Heartbeat(ctx, &kafka.HeartbeatRequest{
			GroupID: m.group, GenerationID: m.generation, MemberID: m.member,
		})
		if err == nil {
			err = res.Error
		}
		if errors.Is(err, kafka.RebalanceInProgress) {
			err = nil // told to members only
		}
		if err = m.judge(sent, err); err == nil || errors.Is(err, ErrFenced) {
			return err
		}
		m.client.renew(epoch, err)
		if pause(ctx, attempt, maxBackoff) != nil {
			return err
		}
	}
}

// judge draws the conclusions from the coordinator's answer to a request that
// named our member and generation.
func (m *membership) judge(sent time.Time, err error) error {
	switch {
	case err == nil:
		m.note(sent)
		return nil
	case errors.Is(err, kafka.UnknownMemberId), errors.Is(err, kafka.IllegalGeneration), errors.Is(err, kafka.FencedInstanceID):
		m.fenced.Store(true)
		return fmt.Errorf("%w: %w", ErrFenced, err)
	default:
		return err
	}
}

// note remembers when a request was sent that was answered, unless a later one was.
func (m *membership) note(sent time.Time) {
	for {
		last := m.last.Load()
		if last != nil && last.After(sent) || m.last.CompareAndSwap(last, &sent) {
			return
		}
	}
}

// alive says whether the last answer is younger than half a session on both
// clocks: the monotonic one does not pass while a machine sleeps, the other
// jumps.
func (m *membership) alive() bool {
	if m.fenced.Load() {
		return false
	}
	now, last := time.Now(), *m.last.Load()
	return now.Sub(last) < aliveFor && now.Round(0).Sub(last.Round(0)) < aliveFor
}

type groupMetrics struct {
	owned                                                                 prometheus.Gauge
	generations, joinFailures, left, read, fetchFailures, commits, unsure prometheus.Counter
}

func newGroupMetrics() *groupMetrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "linker_kafka_" + name, Help: help})
	}
	return &groupMetrics{
		owned:         prometheus.NewGauge(prometheus.GaugeOpts{Name: "linker_kafka_owned_lanes", Help: "Lanes this process owns."}),
		generations:   counter("generations_total", "Generations of the group that this process took part in."),
		joinFailures:  counter("join_failures_total", "Attempts to join the group that failed."),
		left:          counter("memberships_failed_total", "Memberships of the group that ended because of a failure."),
		read:          counter("read_records_total", "Records read from owned lanes."),
		fetchFailures: counter("fetch_failures_total", "Requests for records that failed and were made again."),
		commits:       counter("commits_total", "Positions committed."),
		unsure:        counter("commit_failures_total", "Commits that were refused or not answered."),
	}
}

func (m *groupMetrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.owned, m.generations, m.joinFailures, m.left, m.read, m.fetchFailures, m.commits, m.unsure}
}
