package embedded

import (
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/linkerhq/linker/pkg/internal/disk"
	"github.com/linkerhq/linker/pkg/seldom"
)

const (
	// kafkaStorageError is Kafka's own code for a disk that it cannot write to.
	// Producers try again after it.
	kafkaStorageError = 56

	// deadTopics is how the names of topics for dead letters begin. Who writes one
	// has something to settle: they are taken for as long as the mailbox takes rows.
	deadTopics = "dead."

	// A disk that has so many bytes more than everybody's reserve is not looked at
	// again for so long: nobody fills it that fast.
	plenty    = 1 << 30
	plentyFor = 20 * time.Millisecond
)

// room keeps the broker from filling its disk. The broker does not acknowledge
// what it could not write; but without a last bit of room nobody could store,
// confirm or commit what it has acknowledged before.
type room struct {
	dir    string       // static
	opened time.Time    // static
	log    *slog.Logger // static
	low    atomic.Bool  // whether the last look found too little
	until  atomic.Int64 // until when there is plenty, in nanoseconds since opened
	lines  seldom.Line
}

// guard refuses new records and new topics while the disk is low. It looks when
// there are requests, and nobody has to look now and then.
func (r *room) guard(cluster *kfake.Cluster) {
	cluster.Fault(kfake.Fault{
		Keys:  []kmsg.Key{kmsg.Produce, kmsg.CreateTopics},
		Err:   &kerr.Error{Message: disk.ErrLow.Error(), Code: kafkaStorageError, Retriable: true},
		Count: -1,
		When:  r.refuses,
	})
}

// refuses says whether a request finds no room. A disk that cannot be looked at
// refuses nothing: the write itself will tell.
func (r *room) refuses(req kmsg.Request) bool {
	now := time.Since(r.opened)
	if int64(now) < r.until.Load() {
		return false
	}
	reserve, wanted := needs(req)
	if reserve.Check(r.dir, wanted+plenty) == nil {
		r.until.Store(int64(now + plentyFor))
	}
	err := reserve.Check(r.dir, wanted)
	if !errors.Is(err, disk.ErrLow) {
		if r.low.CompareAndSwap(true, false) {
			r.log.Info("embedded Kafka takes records again")
		}
		return false
	}
	r.low.Store(true)
	if r.lines.Due() {
		r.log.Warn("embedded Kafka takes nothing new", "error", err)
	}
	return true
}

// needs is what a request leaves to others, and how many bytes it adds to the log.
func needs(req kmsg.Request) (disk.Reserve, int64) {
	produce, ok := req.(*kmsg.ProduceRequest)
	if !ok {
		return disk.Log, 0
	}
	reserve, wanted := disk.Mailbox, 0
	for _, topic := range produce.Topics {
		if !strings.HasPrefix(topic.Topic, deadTopics) {
			reserve = disk.Log
		}
		for _, partition := range topic.Partitions {
			wanted += len(partition.Records)
		}
	}
	return reserve, int64(wanted)
}
