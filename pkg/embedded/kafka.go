package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

// RetentionBytes is how much of a partition the log keeps, consumed or not; it is
// trimmed by whole segments. It must never become empty: after a restart an empty
// log starts again at 0 while its group stays where it was. All of it is read into
// memory when it is opened after a crash, so partitions times RetentionBytes
// should stay below 1 GB.
const RetentionBytes = 64 << 20

const (
	segmentBytes = 16 << 20

	// maxMessageBytes is above the largest frame that can be configured, with
	// its envelope and the ids of a whole group.
	maxMessageBytes = 12 << 20

	offsetRetentionMinutes = 10 * 365 * 24 * 60 // a group that pauses for long must not start over

	retentionInterval = 30 * time.Second
)

// KafkaBroker is a Kafka broker in this process. Everything acknowledged
// survives kill -9; it does not survive a power failure, since nothing is synced.
type KafkaBroker struct {
	cluster *kfake.Cluster
	addr    string
}

// Kafka starts a broker whose log lies in dir, which is created if need be and
// must not be used by anybody else: the caller locks it. With dir "" the log is
// in memory and ends with the broker.
func Kafka(dir string, port int, log *slog.Logger) (*KafkaBroker, error) {
	opts := []kfake.Opt{
		kfake.Ports(port), // on 127.0.0.1
		kfake.ClusterID("linker"),
		kfake.WithLogger(kafkaLog{log}),
		kfake.BrokerConfigs(map[string]string{
			"log.retention.ms":          "-1",
			"log.retention.bytes":       strconv.Itoa(RetentionBytes),
			"log.segment.bytes":         strconv.Itoa(segmentBytes),
			"message.max.bytes":         strconv.Itoa(maxMessageBytes),
			"offsets.retention.minutes": strconv.Itoa(offsetRetentionMinutes),
		}),
	}
	if dir != "" {
		// The members of the last run are gone; with their sessions loaded the
		// new ones would wait for them.
		err := os.Remove(filepath.Join(dir, "session_state.json"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("start the embedded Kafka: %w", err)
		}
		opts = append(opts, kfake.DataDir(dir))
	}
	cluster, err := kfake.NewCluster(opts...)
	if err != nil {
		return nil, fmt.Errorf("start the embedded Kafka: %w", err)
	}
	return &KafkaBroker{cluster: cluster, addr: cluster.ListenAddrs()[0]}, nil
}

// Addr returns host:port.
func (b *KafkaBroker) Addr() string { return b.addr }

// Run trims the log until ctx ends, and returns nil. Without it the log grows
// for ever: the broker's own timer does not start again with a log that is
// already there.
func (b *KafkaBroker) Run(ctx context.Context) error {
	return every(ctx, retentionInterval, b.cluster.ApplyRetention)
}

// Close stops the broker and leaves the log ready to be opened again. Members
// of groups should have left before.
func (b *KafkaBroker) Close() { b.cluster.Close() }

// kafkaLog passes on what an operator should see.
type kafkaLog struct{ log *slog.Logger }

func (l kafkaLog) Logf(level kfake.LogLevel, format string, args ...any) {
	switch level {
	case kfake.LogLevelError:
		l.log.Error("embedded Kafka", "message", fmt.Sprintf(format, args...))
	case kfake.LogLevelWarn:
		l.log.Warn("embedded Kafka", "message", fmt.Sprintf(format, args...))
	case kfake.LogLevelNone, kfake.LogLevelInfo, kfake.LogLevelDebug:
	}
}
