package system

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
)

// Offset is how far a lane has been committed.
type Offset struct {
	Domain    string
	Lane      int
	Committed int64 // the next record to read; -1: nothing was ever committed
	End       int64 // of the log
}

const offsetTimeout = 5 * time.Second

// OffsetReader asks Kafka how far the lanes of a domain are.
type OffsetReader struct {
	domain    string
	transport *kafka.Transport
	client    *kafka.Client
}

// Offsets returns a reader for each domain; none for standalone, whose Kafka nobody
// else can reach.
func (s *System) Offsets() []*OffsetReader {
	if s.cfg.Standalone {
		return nil
	}
	var list []*OffsetReader
	for n, domain := range s.names {
		transport := &kafka.Transport{Dial: (&net.Dialer{Timeout: offsetTimeout}).DialContext, MetadataTopics: []string{"in." + domain}}
		list = append(list, &OffsetReader{domain: domain, transport: transport, client: &kafka.Client{
			Addr: kafka.TCP(strings.Split(s.on(n).Kafka, ",")...), Timeout: offsetTimeout, Transport: transport,
		}})
	}
	return list
}

// Close releases the connections.
func (r *OffsetReader) Close() { r.transport.CloseIdleConnections() }

// Read returns the offsets of all lanes.
func (r *OffsetReader) Read(ctx context.Context) ([]Offset, error) {
	topic := "in." + r.domain
	partitions := make([]int, lanes)
	ends := make([]kafka.OffsetRequest, lanes)
	for lane := range lanes {
		partitions[lane], ends[lane] = lane, kafka.LastOffsetOf(lane)
	}
	// What is committed is read first: it never lies behind the end of the log.
	committed, err := r.client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: "lanes." + r.domain + ".1", Topics: map[string][]int{topic: partitions}})
	if err == nil {
		err = committed.Error
	}
	if err != nil {
		return nil, fmt.Errorf("committed offsets of %s: %w", r.domain, err)
	}
	last, err := r.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic: ends}})
	if err != nil {
		return nil, fmt.Errorf("ends of the log of %s: %w", r.domain, err)
	}
	byLane := map[int]int64{}
	for _, p := range last.Topics[topic] {
		if p.Error != nil {
			return nil, fmt.Errorf("end of lane %d of %s: %w", p.Partition, r.domain, p.Error)
		}
		byLane[p.Partition] = p.LastOffset
	}
	var list []Offset
	for _, p := range committed.Topics[topic] {
		if p.Error != nil {
			return nil, fmt.Errorf("committed offset of lane %d of %s: %w", p.Partition, r.domain, p.Error)
		}
		list = append(list, Offset{Domain: r.domain, Lane: p.Partition, Committed: p.CommittedOffset, End: byLane[p.Partition]})
	}
	return list, nil
}
