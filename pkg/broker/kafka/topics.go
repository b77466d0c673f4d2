package kafka

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/segmentio/kafka-go"
)

// EnsureTopics creates in.<domain> with one partition a lane and dead.<domain>
// with one, where they are missing, and checks those that are there. It tries
// again while the brokers are away, until ctx ends. ErrTopicMismatch, which
// says what does not fit, is returned at once.
func EnsureTopics(ctx context.Context, cfg Config) error {
	if err := cfg.validate(); err != nil {
		return fmt.Errorf("ensure topics: %w", err)
	}
	for attempt := 0; ; attempt++ {
		err := ensureTopics(ctx, cfg)
		if err == nil {
			return nil
		}
		if errors.Is(err, ErrTopicMismatch) {
			return fmt.Errorf("ensure topics: %w", err)
		}
		if pause(ctx, attempt, maxBackoff) != nil {
			return fmt.Errorf("ensure topics: %w: %w", ctx.Err(), err)
		}
		cfg.Log.Warn("topics are not ready", "domain", cfg.Domain, "attempt", attempt+1, "error", err)
	}
}

// ensureTopics makes one attempt, with connections and metadata of its own.
func ensureTopics(ctx context.Context, cfg Config) error {
	c := newClient(cfg)
	defer c.close()
	for topic, want := range map[string]int{cfg.topic(): cfg.Lanes, cfg.deadTopic(): 1} {
		have, err := c.partitions(ctx, topic)
		if err != nil {
			return err
		}
		if have == 0 {
			if err := c.create(ctx, topic, want, cfg.maxMessageBytes()); err != nil {
				return err
			}
			if have, err = c.partitions(ctx, topic); err != nil {
				return err
			}
		}
		if have == 0 {
			return fmt.Errorf("%s was created and is not yet known", topic)
		}
		if have != want {
			return fmt.Errorf("%w: %s has %d partitions, configured are %d; the number of lanes can never change", ErrTopicMismatch, topic, have, want)
		}
		if err := c.checkLimit(ctx, topic, cfg.maxMessageBytes()); err != nil {
			return err
		}
	}
	return nil
}

func (c *client) create(ctx context.Context, topic string, partitions, maxBytes int) error {
	t := kafka.TopicConfig{Topic: topic, NumPartitions: partitions, ReplicationFactor: -1}
	if maxBytes > defaultMaxBytes {
		t.ConfigEntries = []kafka.ConfigEntry{{ConfigName: "max.message.bytes", ConfigValue: strconv.Itoa(maxBytes)}}
	}
	res, err := c.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{t}})
	if err != nil {
		return fmt.Errorf("create %s: %w", topic, err)
	}
	// Another service of the domain may have been quicker; what it made is
	// checked like any other.
	if err := res.Errors[topic]; err != nil && !errors.Is(err, kafka.TopicAlreadyExists) {
		return fmt.Errorf("create %s: %w", topic, err)
	}
	return nil
}

// checkLimit refuses a topic that would refuse our batches.
func (c *client) checkLimit(ctx context.Context, topic string, need int) error {
	const name = "max.message.bytes"
	res, err := c.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{Resources: []kafka.DescribeConfigRequestResource{
		{ResourceType: kafka.ResourceTypeTopic, ResourceName: topic, ConfigNames: []string{name}},
	}})
	if err != nil {
		return fmt.Errorf("describe %s: %w", topic, err)
	}
	for _, r := range res.Resources {
		if r.Error != nil {
			return fmt.Errorf("describe %s: %w", topic, r.Error)
		}
		for _, entry := range r.ConfigEntries {
			if entry.ConfigName != name {
				continue
			}
			have, err := strconv.Atoi(entry.ConfigValue)
			if err != nil {
				return fmt.Errorf("describe %s: %s: %w", topic, name, err)
			}
			if have < need {
				return fmt.Errorf("%w: %s of %s is %d and must be at least %d", ErrTopicMismatch, name, topic, have, need)
			}
		}
	}
	return nil
}
