package system

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

const cleanTime = 30 * time.Second

// Clean takes away what the system has left on real servers; what is in Redis expires
// by itself. The system must have ended, and nothing can be observed of it any more.
func (s *System) Clean(ctx context.Context) error {
	if s.cfg.Servers == (Servers{}) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, cleanTime)
	defer cancel()
	var topics, groups []string
	for _, domain := range s.names {
		topics = append(topics, "in."+domain, "dead."+domain)
		groups = append(groups, "lanes."+domain+".1")
	}
	return errors.Join(s.deleteTopics(ctx, topics, groups), s.dropDatabases(ctx))
}

func (s *System) deleteTopics(ctx context.Context, topics, groups []string) error {
	transport := &kafka.Transport{}
	defer transport.CloseIdleConnections()
	client := &kafka.Client{Addr: kafka.TCP(strings.Split(s.cfg.Servers.Kafka, ",")...), Transport: transport}
	if _, err := client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: topics}); err != nil {
		return fmt.Errorf("delete the topics: %w", err)
	}
	if _, err := client.DeleteGroups(ctx, &kafka.DeleteGroupsRequest{GroupIDs: groups}); err != nil {
		return fmt.Errorf("delete the groups: %w", err)
	}
	return nil
}

func (s *System) dropDatabases(ctx context.Context) error {
	client, err := mongo.Connect(options.Client().ApplyURI(s.cfg.Servers.MongoDB))
	if err != nil {
		return fmt.Errorf("connect to MongoDB: %w", err)
	}
	defer func() { _ = client.Disconnect(context.WithoutCancel(ctx)) }()
	for _, domain := range s.names {
		if err := client.Database("linker_" + domain).Drop(ctx); err != nil {
			return fmt.Errorf("drop the database of %s: %w", domain, err)
		}
	}
	return nil
}
