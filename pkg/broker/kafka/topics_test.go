package kafka_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/linkerhq/linker/pkg/broker/kafka"
	"github.com/linkerhq/linker/pkg/logtest"
)

// makeTopic makes a topic as an operator would.
func makeTopic(t *testing.T, cluster *kfake.Cluster, topic string, partitions, replicas int, configs ...string) {
	t.Helper()
	c := kafkago.TopicConfig{Topic: topic, NumPartitions: partitions, ReplicationFactor: replicas}
	for _, config := range configs {
		key, value, _ := strings.Cut(config, "=")
		c.ConfigEntries = append(c.ConfigEntries, kafkago.ConfigEntry{ConfigName: key, ConfigValue: value})
	}
	transport := &kafkago.Transport{}
	defer transport.CloseIdleConnections()
	client := kafkago.Client{Addr: kafkago.TCP(cluster.ListenAddrs()...), Transport: transport}
	res, err := client.CreateTopics(t.Context(), &kafkago.CreateTopicsRequest{Topics: []kafkago.TopicConfig{c}})
	if err := errors.Join(err, res.Errors[topic]); err != nil {
		t.Fatal(err)
	}
}

func TestTopicsThatCouldLoseRecordsAreRefusedWithWhatToSet(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		brokers, replicas int
		configs           string
		want              []string // nothing: they are taken
	}{
		"compaction":                        {1, 1, "cleanup.policy=compact", []string{"cleanup.policy of in.domain-01", "set cleanup.policy=delete"}},
		"compaction as well":                {1, 1, "cleanup.policy=compact,delete", []string{"set cleanup.policy=delete"}},
		"less than a day":                   {1, 1, "retention.ms=86399999", []string{"retention.ms of in.domain-01 is 86399999", "set retention.ms=604800000", "kafka-configs.sh --alter"}},
		"a day":                             {1, 1, "retention.ms=86400000", nil},
		"for ever":                          {1, 1, "retention.ms=-1", nil},
		"few bytes":                         {1, 1, "retention.bytes=67108863", []string{"retention.bytes of in.domain-01", "64 MiB", "set retention.bytes=-1"}},
		"enough bytes":                      {1, 1, "retention.bytes=67108864", nil},
		"small messages":                    {1, 1, "max.message.bytes=100000", []string{"max.message.bytes of in.domain-01", "set max.message.bytes=589824"}},
		"two mistakes":                      {1, 1, "retention.ms=1000 max.message.bytes=1000", []string{"retention.ms", "max.message.bytes"}},
		"one replica in a cluster":          {3, 1, "min.insync.replicas=1", []string{"replication factor of 1", "3 brokers", "raise it to 3", "set min.insync.replicas=2"}},
		"one in sync in a cluster":          {3, 3, "min.insync.replicas=1", []string{"min.insync.replicas of in.domain-01 is 1", "set min.insync.replicas=2"}},
		"more in sync than there are":       {3, 2, "min.insync.replicas=3", []string{"nothing can ever be written"}},
		"two replicas, of which both count": {2, 2, "min.insync.replicas=2", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := newCluster(t, kfake.NumBrokers(c.brokers))
			makeTopic(t, cluster, "in.domain-01", lanes, c.replicas, strings.Fields(c.configs)...)
			err := kafka.EnsureTopics(t.Context(), configFor(cluster.ListenAddrs()[0]))
			if c.want == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, kafka.ErrTopicMismatch) {
				t.Fatalf("got %v, want %v", err, kafka.ErrTopicMismatch)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want a line with %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("it is more than a line: %v", err)
			}
		})
	}
}

func TestTopicsAreCreatedSoThatTheyFit(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		brokers int
		configs map[string]string // of the brokers
		want    map[string]string
		bytes   int64
	}{
		"as the brokers say": {
			1,
			map[string]string{"log.retention.ms": "-1", "log.retention.bytes": "100000000"},
			map[string]string{"retention.ms": "-1", "retention.bytes": "100000000", "cleanup.policy": "delete", "min.insync.replicas": "1"},
			100000000,
		},
		"or, where that is too little, for a week": {
			1,
			map[string]string{"log.retention.ms": "3600000", "log.retention.bytes": "1000"},
			map[string]string{"retention.ms": "604800000", "retention.bytes": "-1"},
			-1,
		},
		"with two of three replicas in a cluster": {
			3,
			nil,
			map[string]string{"retention.ms": "604800000", "retention.bytes": "-1", "min.insync.replicas": "2"},
			-1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := newCluster(t, kfake.NumBrokers(c.brokers), kfake.BrokerConfigs(c.configs))
			cfg := configFor(cluster.ListenAddrs()[0])
			if err := kafka.EnsureTopics(t.Context(), cfg); err != nil {
				t.Fatal(err)
			}
			for _, topic := range []string{"in.domain-01", "dead.domain-01"} {
				info := cluster.TopicInfo(topic)
				for key, want := range c.want {
					got := "1" // the broker's default of min.insync.replicas
					if set := info.Configs[key]; set != nil {
						got = *set
					}
					if got != want {
						t.Errorf("%s of %s is %s, want %s", key, topic, got, want)
					}
				}
			}
			if got, err := kafka.Retention(t.Context(), cfg); err != nil || got != c.bytes {
				t.Errorf("it retains %d bytes, %v; want %d", got, err, c.bytes)
			}
		})
	}
}

func TestWhatShouldBeBetterIsSaidOnce(t *testing.T) {
	t.Parallel()
	cluster := newCluster(
		t, kfake.BrokerConfigs(map[string]string{"offsets.retention.minutes": "1440"}),
		kfake.EnableSASL(), kfake.Superuser("PLAIN", user, password),
	)
	cfg := configFor(cluster.ListenAddrs()[0])
	cfg.SASL, cfg.User, cfg.Password = "plain", user, password
	log, lines := logtest.New()
	cfg.Log = log
	if err := kafka.EnsureTopics(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"lives on one machine", "offsets.retention.minutes of the brokers is 1440", "travels unprotected"} {
		if lines.Lines(want) != 1 {
			t.Errorf("%q is said %d times: %s", want, lines.Lines(want), lines)
		}
	}
	if strings.Contains(lines.String(), password) {
		t.Errorf("a password was logged: %s", lines)
	}
}

func TestAnEmbeddedBrokerAndAClusterAreNotWarnedOf(t *testing.T) {
	t.Parallel()
	embedded, cluster := startBroker(t, "", 0), newCluster(t, kfake.NumBrokers(3))
	for addr, want := range map[string]int{embedded.Addr(): 1, cluster.ListenAddrs()[0]: 0} {
		cfg := configFor(addr)
		log, lines := logtest.New()
		cfg.Log = log
		for range 2 {
			if err := kafka.EnsureTopics(t.Context(), cfg); err != nil {
				t.Fatal(err)
			}
		}
		if got := lines.Lines("WARN"); got != 2*want {
			t.Errorf("%d warnings, want %d: %s", got, 2*want, lines)
		}
	}
}

func TestRetentionIsAskedForUntilItIsTold(t *testing.T) {
	t.Parallel()
	cfg := configFor(newCluster(t).ListenAddrs()[0])
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := kafka.Retention(ctx, cfg); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without the topics: %v", err)
	}
}
