package embedded

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/linkerhq/linker/pkg/seldom"
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
//
// It takes nothing new, with Kafka's own code for that, while the disk has less
// than 64 MiB left, or a quarter of a small one; and begins again by itself.
type KafkaBroker struct {
	cluster *kfake.Cluster
	addr    string
	door    *door
}

// Kafka starts a broker whose log lies in dir, which is created if need be and
// must not be used by anybody else: the caller locks it. With dir "" the log is
// in memory and ends with the broker.
func Kafka(dir string, port int, log *slog.Logger) (*KafkaBroker, error) {
	return KafkaBehind("", dir, port, log)
}

// KafkaBehind is Kafka for clients that reach the broker at another place than it
// listens at, such as a proxy: it tells them to come to advertised, HOST:PORT. ""
// is the place where it listens.
func KafkaBehind(advertised, dir string, port int, log *slog.Logger) (*KafkaBroker, error) {
	var (
		door      *door
		listening string
	)
	says := &kafkaLog{log: log, dir: dir, lines: map[string]*seldom.Line{}}
	opts := []kfake.Opt{
		kfake.Ports(port), // on 127.0.0.1
		kfake.ClusterID("linker"),
		kfake.ListenFn(func(network, address string) (net.Listener, error) {
			listener, err := new(net.ListenConfig).Listen(context.Background(), network, address)
			if err != nil {
				return nil, err
			}
			listening = listener.Addr().String()
			door = newDoor(place{listener, cmp.Or(advertised, listening)})
			return door, nil
		}),
		kfake.WithLogger(says),
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
		if err := mendPositions(dir); err != nil {
			return nil, fmt.Errorf("start the embedded Kafka: %w", err)
		}
		opts = append(opts, kfake.DataDir(dir))
	}
	cluster, err := kfake.NewCluster(opts...)
	if err != nil {
		return nil, fmt.Errorf("start the embedded Kafka: %w", err)
	}
	if dir != "" {
		(&room{dir: dir, log: log, opened: time.Now()}).guard(cluster)
	}
	return &KafkaBroker{cluster: cluster, addr: listening, door: door}, nil
}

// place is where the broker listens, under the name that it tells its clients.
type place struct {
	net.Listener
	advertised string // HOST:PORT
}

// Addr implements net.Listener: the broker tells clients what it returns.
func (p place) Addr() net.Addr { return p }

// Network implements net.Addr.
func (p place) Network() string { return p.Listener.Addr().Network() }

// String implements net.Addr.
func (p place) String() string { return p.advertised }

// Addr returns where it listens, host:port.
func (b *KafkaBroker) Addr() string { return b.addr }

// Dial connects a client of this process: in memory to the place where the broker
// listens, over the network to any other. It costs a fraction of a connection over
// loopback.
func (b *KafkaBroker) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if address == b.addr {
		return b.door.dial(ctx)
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

// Run trims the log until ctx ends, and returns nil. Without it the log grows
// for ever: the broker's own timer does not start again with a log that is
// already there.
func (b *KafkaBroker) Run(ctx context.Context) error {
	return every(ctx, retentionInterval, b.cluster.ApplyRetention)
}

// Close stops the broker and leaves the log ready to be opened again. Members
// of groups should have left before.
func (b *KafkaBroker) Close() { b.cluster.Close() }

// kafkaLog passes on what an operator should see, each kind of line now and then:
// a disk that is full fails many times a second. It hears of entries that were
// half written, too, before anything is written behind them.
type kafkaLog struct {
	log *slog.Logger // static
	dir string       // static; "": the log is in memory

	mu    sync.Mutex
	lines map[string]*seldom.Line // guarded by mu; by format, of which the broker has a fixed number
}

// Logf implements kfake.Logger. The broker calls it from the goroutine that
// writes.
func (l *kafkaLog) Logf(level kfake.LogLevel, format string, args ...any) {
	if format == tornWrite && l.dir != "" {
		if err := mendPositions(l.dir); err != nil {
			l.log.Error("embedded Kafka", "error", err)
		}
	}
	switch level {
	case kfake.LogLevelError:
		l.log.Error("embedded Kafka", "message", fmt.Sprintf(format, args...))
	case kfake.LogLevelWarn:
		if l.due(format) {
			l.log.Warn("embedded Kafka", "message", fmt.Sprintf(format, args...))
		}
	case kfake.LogLevelNone, kfake.LogLevelInfo, kfake.LogLevelDebug:
	}
}

func (l *kafkaLog) due(format string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lines[format] == nil {
		l.lines[format] = new(seldom.Line)
	}
	return l.lines[format].Due()
}
