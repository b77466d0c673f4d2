package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"

	"github.com/linkerhq/linker/pkg/failpoint"
	"github.com/linkerhq/linker/pkg/seldom"
)

const (
	// maxWaiting bounds what all lanes hold together, in bytes. When it is
	// reached, Append refuses: back-pressure, nothing is dropped.
	maxWaiting = 64 << 20
	// recordOverhead is what a queued record costs besides key and value, so
	// that empty records are bounded, too.
	recordOverhead = 96
	// maxSpare is how many records' room a lane keeps for its next batches.
	maxSpare = 8 * maxBatchRecords
	// patience is how long a batch may be under way before its lane refuses
	// more and counts as failing.
	patience = time.Second

	probeInterval = time.Second
	probeAgain    = 100 * time.Millisecond // after a look that failed
	probeTimeout  = 2 * time.Second
)

// Producer appends records to the lanes of a domain.
type Producer struct {
	// Static after construction.
	topic     string
	deadTopic string
	client    *client
	log       *slog.Logger
	metrics   *producerMetrics
	queues    []*queue

	waiting atomic.Int64 // bytes queued or under way in all lanes
	lines   seldom.Line

	mu     sync.Mutex
	probed error // guarded by mu: what the last look at the lanes' leaders said
}

// queue is one lane's side of the producer.
type queue struct {
	lane int           // static
	wake chan struct{} // capacity 1, never closed: something was queued

	mu      sync.Mutex
	records []record  // guarded by mu: what has not been taken up; bounded by maxWaiting
	since   time.Time // guarded by mu: when the batch under way was first sent; zero if there is none
	failed  error     // guarded by mu: what its last attempt ended with; nil if none has failed
	stopped bool      // guarded by mu
}

type record struct {
	key   string
	value []byte
	done  func(offset int64, err error)
}

func (r *record) size() int64 { return int64(len(r.key)+len(r.value)) + recordOverhead }

// NewProducer returns a producer; Run makes it work.
func NewProducer(cfg Config) (*Producer, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("producer: %w", err)
	}
	client, err := newClient(cfg)
	if err != nil {
		return nil, fmt.Errorf("producer: %w", err)
	}
	p := &Producer{
		topic:     cfg.topic(),
		deadTopic: cfg.deadTopic(),
		client:    client,
		log:       cfg.Log,
		queues:    make([]*queue, cfg.Lanes),
		probed:    fmt.Errorf("%w: not yet seen", ErrUnavailable),
	}
	for lane := range p.queues {
		p.queues[lane] = &queue{lane: lane, wake: make(chan struct{}, 1)}
	}
	metrics, err := newProducerMetrics(cfg.Metrics, &p.waiting)
	if err != nil {
		return nil, err
	}
	p.metrics = metrics
	return p, nil
}

// Append queues one record for a lane of this domain; lane must be below the
// configured number. It never blocks, and it may be called before Run.
//
// If Append returns nil, done is called exactly once, from the producer's
// goroutine of that lane and in the order of the lane's Appends: with the
// record's offset once all replicas have it; or with ErrTooLarge, which
// concerns this record only; or with ErrStopped after Run has ended. done must
// not block. If Append returns an error, done is never called: ErrUnavailable
// when more than 64 MiB wait or the lane's current batch has been under way for
// more than a second, ErrStopped after Run has ended.
//
// The producer owns value until done is called: nobody may write to it before that.
func (p *Producer) Append(lane int, key string, value []byte, done func(offset int64, err error)) error {
	r := record{key: key, value: value, done: done}
	if err := p.enqueue(p.queues[lane], r); err != nil {
		p.metrics.refused.Inc()
		return fmt.Errorf("append to lane %d: %w", lane, err)
	}
	return nil
}

func (p *Producer) enqueue(q *queue, r record) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.stopped {
		return ErrStopped
	}
	if q.failingLocked() || p.waiting.Load()+r.size() > maxWaiting {
		return ErrUnavailable
	}
	p.waiting.Add(r.size())
	q.records = append(q.records, r)
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return nil
}

// Run works until ctx ends, and returns nil when all its goroutines have ended
// and every done has been called. What is still under way then gets ErrStopped:
// who wants it in the log waits for it first.
func (p *Producer) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, q := range p.queues {
		wg.Go(func() { p.serve(ctx, q) })
	}
	wg.Go(func() { p.probe(ctx) })
	wg.Wait()
	p.client.close()
	return nil
}

// Healthy returns nil if the leaders of all lanes have answered within the last
// seconds and no lane is failing.
func (p *Producer) Healthy() error {
	p.mu.Lock()
	err := p.probed
	p.mu.Unlock()
	if err != nil {
		return err
	}
	for _, q := range p.queues {
		if err := q.failing(); err != nil {
			return err
		}
	}
	return nil
}

// serve is the goroutine of one lane: it takes whatever was queued while the
// last request was in flight.
func (p *Producer) serve(ctx context.Context, q *queue) {
	to := p.client.leader(p.topic, q.lane)
	defer to.close()
	var taken, spare []record
	for {
		select {
		case <-ctx.Done():
			p.abandon(q, nil)
			return
		case <-q.wake:
		}
		// Whoever woke us is likely to have more: let it queue that first.
		runtime.Gosched()
		taken, spare = q.take(spare), taken
		for rest := taken; len(rest) > 0; {
			n := batchLength(rest)
			if !p.append(ctx, q, to, rest[:n]) {
				p.abandon(q, rest)
				return
			}
			rest = rest[n:]
		}
		if cap(taken) > maxSpare {
			taken = nil
		}
	}
}

// append puts one batch into the log, however long it takes. It returns false
// if ctx ended first; then some of the batch are not done.
func (p *Producer) append(ctx context.Context, q *queue, to *leader, batch []record) bool {
	start := time.Now()
	q.setSince(start)
	defer q.setSince(time.Time{})
	for attempt := 0; ; attempt++ {
		epoch := p.client.epoch.Load()
		offset, err := p.produce(ctx, to, batch)
		switch {
		case err == nil:
			p.metrics.batches.Observe(float64(len(batch)))
			p.metrics.latency.Observe(time.Since(start).Seconds())
			p.finish(batch, offset)
			return true
		case isTooLarge(err) && len(batch) == 1:
			p.metrics.tooLarge.Inc()
			p.done(&batch[0], fmt.Errorf("append to lane %d: %w: %w", q.lane, ErrTooLarge, err))
			return true
		case isTooLarge(err):
			return p.appendEach(ctx, q, to, batch)
		}
		p.metrics.failures.Inc()
		p.client.renew(epoch, err)
		err = p.client.server.explain(err)
		q.setFailed(err)
		if pause(ctx, attempt, maxBackoff) != nil {
			return false
		}
		if p.lines.Due() {
			p.log.Warn("appending again", "lane", q.lane, "records", len(batch), "attempt", attempt+1, "error", err)
		}
	}
}

// appendEach finds out which record of a refused batch is the offending one.
func (p *Producer) appendEach(ctx context.Context, q *queue, to *leader, batch []record) bool {
	for i := range batch {
		if !p.append(ctx, q, to, batch[i:i+1]) {
			return false
		}
	}
	return true
}

// finish completes a batch that is in the log.
func (p *Producer) finish(batch []record, offset int64) {
	size := int64(0)
	for i := range batch {
		size += batch[i].size()
	}
	p.waiting.Add(-size)
	p.metrics.appended.Add(float64(len(batch)))
	for i := range batch {
		batch[i].done(offset+int64(i), nil)
		batch[i] = record{}
	}
}

// done completes a record that is not in the log; one that is completed already is passed over.
func (p *Producer) done(r *record, err error) {
	if r.done == nil {
		return
	}
	p.waiting.Add(-r.size())
	r.done(0, err)
	*r = record{}
}

// abandon ends a lane: what is left is completed with ErrStopped, in order.
func (p *Producer) abandon(q *queue, left []record) {
	q.mu.Lock()
	q.stopped = true
	queued := q.records
	q.records = nil
	q.mu.Unlock()
	for _, records := range [][]record{left, queued} {
		for i := range records {
			p.done(&records[i], ErrStopped)
		}
	}
}

// produce makes one request.
func (p *Producer) produce(ctx context.Context, to *leader, batch []record) (int64, error) {
	offset, refused, err := to.produce(ctx, batch)
	if err != nil {
		return 0, err
	}
	if err := failpoint.Hit(failpoint.ProducerAfterAppend); err != nil {
		return 0, err
	}
	return offset, refused
}

// probe looks at the leaders of all lanes every second, sooner after an error, so that Healthy knows
// about brokers that nobody has needed lately.
func (p *Producer) probe(ctx context.Context) {
	offsets := make([]kafka.OffsetRequest, len(p.queues))
	for lane := range offsets {
		offsets[lane] = kafka.LastOffsetOf(lane)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		epoch := p.client.epoch.Load()
		err := p.probeOnce(ctx, offsets)
		timer.Reset(probeInterval)
		if err != nil {
			timer.Reset(probeAgain)
			p.client.renew(epoch, err)
			err = fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		p.mu.Lock()
		p.probed = err
		p.mu.Unlock()
	}
}

func (p *Producer) probeOnce(ctx context.Context, offsets []kafka.OffsetRequest) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	res, err := p.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{p.topic: offsets}})
	if err != nil {
		return err
	}
	for _, partition := range res.Topics[p.topic] {
		if partition.Error != nil {
			return fmt.Errorf("lane %d: %w", partition.Partition, partition.Error)
		}
	}
	return nil
}

// take returns everything that is queued and leaves spare, emptied, in its place.
func (q *queue) take(spare []record) []record {
	q.mu.Lock()
	defer q.mu.Unlock()
	taken := q.records
	q.records = spare[:0]
	return taken
}

// setSince notes that a batch is under way, or that none is.
func (q *queue) setSince(t time.Time) {
	q.mu.Lock()
	q.since, q.failed = t, nil
	q.mu.Unlock()
}

func (q *queue) setFailed(err error) {
	q.mu.Lock()
	q.failed = err
	q.mu.Unlock()
}

// failing says that the lane takes no more, and why; nil: it does.
func (q *queue) failing() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case !q.failingLocked():
		return nil
	case q.failed == nil:
		return fmt.Errorf("%w: lane %d has had no answer for more than %v", ErrUnavailable, q.lane, patience)
	default:
		return fmt.Errorf("%w: lane %d is failing: %w", ErrUnavailable, q.lane, q.failed)
	}
}

func (q *queue) failingLocked() bool { return !q.since.IsZero() && time.Since(q.since) > patience }

// batchLength is how many of the records make up the next request: at least
// one, at most what the limits allow.
func batchLength(records []record) int {
	size := 0
	for i := range records {
		size += len(records[i].key) + len(records[i].value)
		if i > 0 && size > maxBatchBytes || i == maxBatchRecords {
			return i
		}
	}
	return len(records)
}

func isTooLarge(err error) bool {
	return errors.Is(err, kafka.MessageSizeTooLarge) || errors.Is(err, kafka.RecordListTooLarge)
}

type producerMetrics struct {
	appended, refused, tooLarge, failures, dead prometheus.Counter
	batches, latency                            prometheus.Histogram
}

func newProducerMetrics(r prometheus.Registerer, waiting *atomic.Int64) (*producerMetrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "linker_kafka_" + name, Help: help})
	}
	m := &producerMetrics{
		appended: counter("appended_records_total", "Records that all replicas of a lane have acknowledged."),
		refused:  counter("refused_records_total", "Records that were not queued because the log was not available."),
		tooLarge: counter("too_large_records_total", "Records that the broker refused for their size."),
		failures: counter("append_failures_total", "Requests that failed and were made again."),
		dead:     counter("dead_records_total", "Records written to the dead letters."),
		batches: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "linker_kafka_batch_records", Help: "Records in one request.", Buckets: prometheus.ExponentialBuckets(1, 4, 6),
		}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "linker_kafka_append_seconds", Help: "From the first attempt for a batch to its acknowledgement.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 10),
		}),
	}
	gauge := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "linker_kafka_waiting_bytes", Help: "Bytes queued or under way.",
	}, func() float64 { return float64(waiting.Load()) })
	return m, register(r, m.appended, m.refused, m.tooLarge, m.failures, m.dead, m.batches, m.latency, gauge)
}
