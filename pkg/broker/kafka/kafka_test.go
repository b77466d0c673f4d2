package kafka_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	kafkago "github.com/segmentio/kafka-go"

	"github.com/linkerhq/linker/pkg/broker/kafka"
	"github.com/linkerhq/linker/pkg/embedded"
)

const lanes = 4

// startBroker starts a broker that ends with the test.
func startBroker(t *testing.T, dir string, port int) *embedded.KafkaBroker {
	t.Helper()
	broker, err := embedded.Kafka(dir, port, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	return broker
}

func configFor(addr string) kafka.Config {
	return kafka.Config{
		Server: kafka.Server{Brokers: []string{addr}}, Domain: "domain-01", Lanes: lanes,
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	}
}

// newDomain creates the topics of a domain that nobody else has: on the brokers
// named in KAFKA_HOSTS, or else on one in memory.
func newDomain(t *testing.T) kafka.Config {
	t.Helper()
	var cfg kafka.Config
	if hosts := os.Getenv("KAFKA_HOSTS"); hosts != "" {
		cfg = configFor("")
		cfg.Brokers, cfg.Domain = strings.Split(hosts, ","), "t-"+strings.ToLower(rand.Text())
		t.Cleanup(func() { deleteTopics(t, cfg) })
	} else {
		cfg = configFor(startBroker(t, "", 0).Addr())
	}
	if err := kafka.EnsureTopics(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func deleteTopics(t *testing.T, cfg kafka.Config) {
	t.Helper()
	transport := &kafkago.Transport{}
	defer transport.CloseIdleConnections()
	client := kafkago.Client{Addr: kafkago.TCP(cfg.Brokers...), Transport: transport}
	topics := []string{"in." + cfg.Domain, "dead." + cfg.Domain}
	if _, err := client.DeleteTopics(context.WithoutCancel(t.Context()), &kafkago.DeleteTopicsRequest{Topics: topics}); err != nil {
		t.Errorf("delete the topics: %v", err)
	}
}

// start runs something until the test ends, or until the returned function is
// called, which waits for it.
func start(t *testing.T, run func(context.Context) error) func() {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	stop := func() {
		cancel()
		if err, open := <-ended; open {
			close(ended)
			if err != nil {
				t.Errorf("run: %v", err)
			}
		}
	}
	t.Cleanup(stop)
	return stop
}

func newProducer(t *testing.T, cfg kafka.Config) *kafka.Producer {
	t.Helper()
	p, err := kafka.NewProducer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	start(t, p.Run)
	return p
}

// appendAll appends values and returns their offsets when all are in the log.
func appendAll(t *testing.T, p *kafka.Producer, lane int, values ...string) []int64 {
	t.Helper()
	type result struct {
		offset int64
		err    error
	}
	results := make(chan result, len(values))
	for _, v := range values {
		err := p.Append(lane, "key", []byte(v), func(offset int64, err error) { results <- result{offset, err} })
		if err != nil {
			t.Fatal(err)
		}
	}
	offsets := make([]int64, 0, len(values))
	for range values {
		r := <-results
		if r.err != nil {
			t.Fatal(r.err)
		}
		offsets = append(offsets, r.offset)
	}
	return offsets
}

func numbered(n int) []string {
	values := make([]string, n)
	for i := range values {
		values[i] = fmt.Sprintf("value %d", i)
	}
	return values
}

// receive waits for a value, for at most 30 s.
func receive[T any](t *testing.T, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(30 * time.Second):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

func TestEnsureTopicsCanBeRepeated(t *testing.T) {
	t.Parallel()
	cfg := newDomain(t)
	if err := kafka.EnsureTopics(t.Context(), cfg); err != nil {
		t.Error(err)
	}
}

func TestEnsureTopicsRefusesAnotherNumberOfLanes(t *testing.T) {
	t.Parallel()
	cfg := newDomain(t)
	cfg.Lanes = lanes + 1
	if err := kafka.EnsureTopics(t.Context(), cfg); !errors.Is(err, kafka.ErrTopicMismatch) {
		t.Errorf("got %v, want %v", err, kafka.ErrTopicMismatch)
	}
}

func TestEnsureTopicsRefusesATopicThatDoesNotTakeTheLargestRecord(t *testing.T) {
	t.Parallel()
	cfg := newDomain(t)
	cfg.MaxRecord = 100 << 20
	if err := kafka.EnsureTopics(t.Context(), cfg); !errors.Is(err, kafka.ErrTopicMismatch) {
		t.Errorf("got %v, want %v", err, kafka.ErrTopicMismatch)
	}
}

func TestEnsureTopicsWaitsForTheBrokerUntilItsContextEnds(t *testing.T) {
	t.Parallel()
	broker := startBroker(t, "", 0)
	broker.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := kafka.EnsureTopics(ctx, configFor(broker.Addr())); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
	}
}

func TestConfigMistakesAreReportedTogether(t *testing.T) {
	t.Parallel()
	_, err := kafka.NewProducer(kafka.Config{Domain: "No Domain", MaxRecord: -1})
	joined, ok := errors.Unwrap(err).(interface{ Unwrap() []error })
	if !ok || len(joined.Unwrap()) != 4 {
		t.Errorf("got %v, want four mistakes", err)
	}
}
