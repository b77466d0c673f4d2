package kafka

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/linkerhq/linker/pkg/failpoint"
)

// The headers of a dead letter.
const (
	reasonHeader = "reason"
	laneHeader   = "lane"
	offsetHeader = "offset"
)

// Unknown is a lane, or an offset, that nobody knows.
const Unknown = -1

// Report says of a record why it is a dead letter.
type Report struct {
	Reason     string
	Lane       int       // that has given it up, or Unknown
	LaneOffset int64     // its place in that lane, or Unknown
	Time       time.Time // when it was written; set by Dead
}

// Dead appends to dead.<domain> and returns when all replicas have the record.
// It tries again until ctx ends; then the outcome is unknown. The report travels
// in headers. Dead touches no lane and works before Run and beside it; the
// connections are given back when Run ends.
func (p *Producer) Dead(ctx context.Context, key string, value []byte, report Report) error {
	at := time.Now() // of the death, not of the attempt that succeeds
	for attempt := 0; ; attempt++ {
		epoch := p.client.epoch.Load()
		err := p.bury(ctx, kafka.Record{
			Time:    at,
			Key:     kafka.NewBytes([]byte(key)),
			Value:   kafka.NewBytes(value),
			Headers: report.headers(),
		})
		if err == nil {
			p.metrics.dead.Inc()
			return nil
		}
		if isTooLarge(err) {
			return fmt.Errorf("append to %s: %w: %w", p.deadTopic, ErrTooLarge, err)
		}
		p.metrics.failures.Inc()
		p.client.renew(epoch, err)
		if pause(ctx, attempt, maxBackoff) != nil {
			return fmt.Errorf("append to %s: %w: %w", p.deadTopic, ctx.Err(), err)
		}
	}
}

// bury makes one request.
func (p *Producer) bury(ctx context.Context, letter kafka.Record) error {
	res, err := p.client.Produce(ctx, &kafka.ProduceRequest{
		Topic: p.deadTopic, RequiredAcks: kafka.RequireAll, Records: kafka.NewRecordReader(letter),
	})
	if err != nil {
		return err
	}
	if err := failpoint.Hit(failpoint.ProducerAfterAppend); err != nil {
		return err
	}
	return res.Error
}

func (r *Report) headers() []kafka.Header {
	return []kafka.Header{
		{Key: reasonHeader, Value: []byte(r.Reason)},
		{Key: laneHeader, Value: strconv.AppendInt(nil, int64(r.Lane), 10)},
		{Key: offsetHeader, Value: strconv.AppendInt(nil, r.LaneOffset, 10)},
	}
}

// readReport reads what Dead has written, as far as it is there: earlier versions wrote
// the reason only, and something else may write to the topic.
func readReport(headers []kafka.Header, at time.Time) *Report {
	report := Report{Lane: Unknown, LaneOffset: Unknown, Time: at}
	for _, h := range headers {
		switch h.Key {
		case reasonHeader:
			report.Reason = string(h.Value)
		case laneHeader:
			if n, err := strconv.Atoi(string(h.Value)); err == nil && n >= 0 {
				report.Lane = n
			}
		case offsetHeader:
			if n, err := strconv.ParseInt(string(h.Value), 10, 64); err == nil && n >= 0 {
				report.LaneOffset = n
			}
		}
	}
	return &report
}
