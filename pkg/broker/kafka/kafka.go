// Package kafka is the durable log of a domain: the topic in.<domain>, whose
// partitions are the lanes, and the topic dead.<domain>, which holds what
// nobody can deliver.
//
// A Producer appends to any lane: naturally batched, one request in flight a
// lane, in order, acknowledged by all replicas, the same batch tried again
// until it is in the log. A Group owns some of the lanes for as long as Kafka
// says so: it reads them and commits, and its commits are fenced.
//
// What a Producer has reported with an offset is in the log. What it could not
// report (a lost answer, a stop) may be in the log, and a batch that was tried
// again may be there twice: readers tell by the numbers in the records.
//
// The library's client does everything but the two requests that carry messages:
// these have a connection for each lane and an encoding of their own (leader.go),
// which cost a fraction of the client's goroutines, timers and copies.
package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"

	"github.com/linkerhq/linker/pkg/ident"
)

// The errors that callers decide on.
var (
	// ErrUnavailable: the log takes nothing more for now. The record was not
	// queued; trying again later makes sense.
	ErrUnavailable = errors.New("the log is not available")
	// ErrTooLarge: the broker refuses this one record for its size, for ever.
	ErrTooLarge = errors.New("the record is too large for the log")
	// ErrStopped: the producer has ended. Whether a record that was under way
	// is in the log is not known.
	ErrStopped = errors.New("the producer has stopped")
	// ErrTopicMismatch: a topic is not what the configuration says it must be.
	// Only an operator can resolve that.
	ErrTopicMismatch = errors.New("the topic does not fit the configuration")
	// ErrOutOfRange: the log does not hold the offset: it was deleted before it
	// was read, or the topic was made anew. Reading on elsewhere would lose
	// records without a word, so that is not done.
	ErrOutOfRange = errors.New("the offset is not in the log")
	// ErrFenced: the lane belongs to another process, or to nobody.
	ErrFenced = errors.New("the lane is no longer owned")
)

const (
	maxBatchRecords = 1000
	maxBatchBytes   = 512 << 10
	batchOverhead   = 64 << 10 // what headers and framing can add to a batch, generously
	defaultMaxBytes = 1048588  // max.message.bytes of a broker that nobody configured

	clientID = "linker" // how brokers call us in their logs and quotas

	requestTimeout = 10 * time.Second
	dialTimeout    = 3 * time.Second

	minBackoff = 50 * time.Millisecond
	maxBackoff = 5 * time.Second
)

// Config says which log it is.
type Config struct {
	Server

	Domain string
	Lanes  int // partitions of in.<domain>; the same for ever

	// Generation is raised by an operator after the topic was made anew: what a
	// group has committed in an earlier generation no longer counts.
	Generation uint32

	// MaxRecord is the largest record that must fit, in bytes: EnsureTopics
	// creates the topics so, or refuses those that do not take it. 0: what fits
	// into a batch of 512 KiB.
	MaxRecord int

	Log *slog.Logger
	// Metrics takes the metrics of one Producer and one Group at most.
	Metrics prometheus.Registerer
}

func (c Config) validate() error {
	errs := c.mistakes()
	if !ident.IsDomainName(c.Domain) {
		errs = append(errs, fmt.Errorf("%q is not a domain name", c.Domain))
	}
	if c.Lanes < 1 {
		errs = append(errs, fmt.Errorf("%d lanes; there must be at least one", c.Lanes))
	}
	if c.MaxRecord < 0 {
		errs = append(errs, fmt.Errorf("a largest record of %d bytes", c.MaxRecord))
	}
	return errors.Join(errs...)
}

func (c Config) topic() string     { return "in." + c.Domain }
func (c Config) deadTopic() string { return "dead." + c.Domain }

func (c Config) group() string     { return c.groupOf("lanes.") }
func (c Config) deadGroup() string { return c.groupOf("dead.") }

func (c Config) groupOf(what string) string {
	if c.Generation == 0 {
		return what + c.Domain
	}
	return fmt.Sprintf("%s%s.%d", what, c.Domain, c.Generation)
}

// maxMessageBytes is what the topics must take in one batch.
func (c Config) maxMessageBytes() int { return max(c.MaxRecord, maxBatchBytes) + batchOverhead }

// client is a connection pool with the metadata of our topics, which can be
// thrown away and built anew.
type client struct {
	kafka.Client // static

	server    Server           // static
	transport *kafka.Transport // static
	epoch     atomic.Uint64    // counts renewals
	renewed   atomic.Int64     // when it was renewed last, in nanoseconds since 1970; 0: never
}

// newClient connects to nobody yet.
func newClient(cfg Config) (*client, error) {
	security, err := cfg.tls()
	if err != nil {
		return nil, err
	}
	mechanism, err := cfg.mechanism()
	if err != nil {
		return nil, err
	}
	transport := &kafka.Transport{
		Dial:           cfg.dial(),
		ClientID:       clientID,
		MetadataTopics: []string{cfg.topic(), cfg.deadTopic()},
		TLS:            security,
		SASL:           mechanism,
	}
	return &client{
		Client:    kafka.Client{Addr: kafka.TCP(cfg.Brokers...), Timeout: requestTimeout, Transport: transport},
		server:    cfg.Server,
		transport: transport,
	}, nil
}

// dialer returns what the library's group connects with: like the client.
func (c *client) dialer() *kafka.Dialer {
	return &kafka.Dialer{
		Timeout: dialTimeout, DualStack: true, ClientID: clientID,
		TLS: c.transport.TLS, SASLMechanism: c.transport.SASL, DialFunc: c.server.Dial,
	}
}

// renew drops pooled connections and cached metadata after a failure: after a
// restart every pooled connection fails once, and metadata read while a broker
// was stopping stays wrong for seconds. Of all who failed in the same epoch one
// renews. Requests under way are not disturbed.
//
// A broker that only takes long would be met with new connections and questions
// for which it takes even longer: for what was not answered in time that is done
// now and then only.
func (c *client) renew(epoch uint64, err error) {
	now := time.Now().UnixNano()
	if isTimeout(err) && now-c.renewed.Load() < int64(requestTimeout) {
		return
	}
	if c.epoch.CompareAndSwap(epoch, epoch+1) {
		c.renewed.Store(now)
		c.transport.CloseIdleConnections()
	}
}

func isTimeout(err error) bool {
	var network net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &network) && network.Timeout()
}

func (c *client) close() { c.transport.CloseIdleConnections() }

// pause waits between two attempts, counted from 0, with full jitter: anything
// from nothing to the ceiling, which doubles with each attempt up to most.
func pause(ctx context.Context, attempt int, most time.Duration) error {
	ceiling := min(most, minBackoff<<min(attempt, 16))
	timer := time.NewTimer(rand.N(ceiling))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// register registers all of the collectors, or says which one is there already.
func register(r prometheus.Registerer, collectors ...prometheus.Collector) error {
	for _, c := range collectors {
		if err := r.Register(c); err != nil {
			return fmt.Errorf("register metrics of the log: %w", err)
		}
	}
	return nil
}
