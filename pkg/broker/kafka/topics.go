package kafka

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/segmentio/kafka-go"

	"github.com/linkerhq/linker/pkg/seldom"
)

const (
	// fewReplicas is how many machines have to have a record before it counts as
	// written, where there are several.
	fewReplicas = 2
	// replicas is how many a topic of ours gets, if there are so many brokers.
	replicas = 3
)

// EnsureTopics creates in.<domain> with one partition a lane and dead.<domain>
// with one, where they are missing, and checks those that are there: whether
// anything in their settings could lose records, or refuse ours. It tries again
// while the brokers are away or refuse us, until ctx ends, and logs why every 5 s
// at most. ErrTopicMismatch, which says what does not fit and what to do about
// it, is returned at once.
//
// Topics that it creates delete and never compact, keep records for as long and
// as many as the brokers say for all topics, or, where that is too little or is
// not told, for 7 days and without a limit of bytes; and in a cluster of several
// brokers they have up to 3 replicas, of which 2 must have a record.
func EnsureTopics(ctx context.Context, cfg Config) error {
	err := untilDone(ctx, cfg, func(ctx context.Context, c *client) error {
		warnings, err := c.ensureTopics(ctx, cfg)
		if err == nil {
			for _, w := range warnings {
				cfg.Log.Warn(w.text, "topic", cfg.topic(), "reason", w.reason)
			}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("ensure topics: %w", err)
	}
	return nil
}

// Retention returns how many bytes the log keeps of each lane, consumed or not;
// -1 if it has no such limit. It tries again until ctx ends. The topics have to
// be there.
func Retention(ctx context.Context, cfg Config) (int64, error) {
	bytes := int64(-1)
	err := untilDone(ctx, cfg, func(ctx context.Context, c *client) error {
		s, err := c.describe(ctx, kafka.ResourceTypeTopic, cfg.topic())
		if err != nil {
			return err
		}
		if have, told := s.number(retentionBytes); told {
			bytes = have
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("retention: %w", err)
	}
	return bytes, nil
}

// untilDone makes attempts, each with connections and metadata of its own, until
// one succeeds, finds ErrTopicMismatch, or ctx ends.
func untilDone(ctx context.Context, cfg Config, try func(context.Context, *client) error) error {
	if err := cfg.validate(); err != nil {
		return err
	}
	var lines seldom.Line
	for attempt := 0; ; attempt++ {
		c, err := newClient(cfg)
		if err == nil {
			err = try(ctx, c)
			c.close()
		}
		if err == nil || errors.Is(err, ErrTopicMismatch) {
			return err
		}
		if ctx.Err() == nil && lines.Due() {
			cfg.Log.Warn("topics are not ready", "topic", cfg.topic(), "attempt", attempt+1, "error", cfg.explain(err))
		}
		if pause(ctx, attempt, maxBackoff) != nil {
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		}
	}
}

func (c *client) ensureTopics(ctx context.Context, cfg Config) ([]warning, error) {
	brokers, err := c.brokers(ctx)
	if err != nil {
		return nil, err
	}
	found := finding{cfg: cfg, brokers: len(brokers)}
	// Not being told how brokers are set up is no reason to refuse them.
	common, err := c.describe(ctx, kafka.ResourceTypeBroker, strconv.Itoa(brokers[0].ID))
	if err != nil {
		found.warn("the brokers do not tell their settings", cfg.explain(err).Error())
	}
	for _, t := range []struct {
		name       string
		partitions int
	}{{cfg.topic(), cfg.Lanes}, {cfg.deadTopic(), 1}} {
		seen, err := c.look(ctx, t.name)
		if err != nil {
			return nil, err
		}
		if seen.partitions == 0 {
			if err := c.create(ctx, newTopic(cfg, t.name, t.partitions, len(brokers), common)); err != nil {
				return nil, err
			}
			if seen, err = c.look(ctx, t.name); err != nil {
				return nil, err
			}
		}
		if seen.partitions == 0 {
			return nil, fmt.Errorf("%s was created and is not yet known", t.name)
		}
		s, err := c.describe(ctx, kafka.ResourceTypeTopic, t.name)
		if err != nil {
			return nil, err
		}
		found.lookAt(t.name, t.partitions, seen, s)
	}
	found.lookAtBroker(common)
	return found.warnings, found.mistakes()
}

// newTopic is how a topic of ours is created. What the brokers say for all
// topics is written down in it, so that it does not change with them.
func newTopic(cfg Config, name string, partitions, brokers int, common settings) kafka.TopicConfig {
	t := kafka.TopicConfig{Topic: name, NumPartitions: partitions, ReplicationFactor: -1}
	set := func(key, value string) {
		t.ConfigEntries = append(t.ConfigEntries, kafka.ConfigEntry{ConfigName: key, ConfigValue: value})
	}
	set(cleanupPolicy, policyDelete)
	keep, told := common.retention()
	if !told || tooShort(keep) {
		keep = newRetention
	}
	set(retentionMillis, strconv.FormatInt(keep, 10))
	most, told := common.number("log." + retentionBytes)
	if !told || tooSmall(most) {
		most = unlimited
	}
	set(retentionBytes, strconv.FormatInt(most, 10))
	if need := cfg.maxMessageBytes(); need > defaultMaxBytes {
		set(maxMessage, strconv.Itoa(need))
	}
	if brokers > 1 {
		t.ReplicationFactor = min(brokers, replicas)
		set(minInSync, strconv.Itoa(fewReplicas))
	}
	return t
}

func (c *client) create(ctx context.Context, t kafka.TopicConfig) error {
	res, err := c.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{t}})
	if err != nil {
		return fmt.Errorf("create %s: %w", t.Topic, err)
	}
	// Another service of the domain may have been quicker; what it made is
	// checked like any other.
	if err := res.Errors[t.Topic]; err != nil && !errors.Is(err, kafka.TopicAlreadyExists) {
		return fmt.Errorf("create %s: %w", t.Topic, err)
	}
	return nil
}

// layout is what the metadata tell of a topic.
type layout struct {
	partitions int // 0: there is no such topic
	replicas   int // of the partition that has the fewest
}

func (c *client) look(ctx context.Context, topic string) (layout, error) {
	res, err := c.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
	if err != nil {
		return layout{}, fmt.Errorf("read the metadata of %s: %w", topic, err)
	}
	t := res.Topics[0]
	if t.Error != nil && !errors.Is(t.Error, kafka.UnknownTopicOrPartition) {
		return layout{}, fmt.Errorf("read the metadata of %s: %w", topic, t.Error)
	}
	seen := layout{partitions: len(t.Partitions), replicas: math.MaxInt}
	for _, p := range t.Partitions {
		seen.replicas = min(seen.replicas, len(p.Replicas))
	}
	return seen, nil
}

// brokers returns those that are up, at least one.
func (c *client) brokers(ctx context.Context) ([]kafka.Broker, error) {
	res, err := c.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{}})
	if err != nil {
		return nil, fmt.Errorf("read the metadata: %w", err)
	}
	if len(res.Brokers) == 0 {
		return nil, errors.New("read the metadata: no broker is known")
	}
	return res.Brokers, nil
}

// describe returns the settings of a topic or of a broker.
func (c *client) describe(ctx context.Context, kind kafka.ResourceType, name string) (settings, error) {
	res, err := c.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{Resources: []kafka.DescribeConfigRequestResource{
		{ResourceType: kind, ResourceName: name},
	}})
	if err != nil {
		return nil, fmt.Errorf("describe %s: %w", name, err)
	}
	s := settings{}
	for _, r := range res.Resources {
		if r.Error != nil {
			return nil, fmt.Errorf("describe %s: %w", name, r.Error)
		}
		for _, entry := range r.ConfigEntries {
			s[entry.ConfigName] = entry.ConfigValue
		}
	}
	return s, nil
}
