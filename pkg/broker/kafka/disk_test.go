package kafka_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/linkerhq/linker/pkg/broker/kafka"
	"github.com/linkerhq/linker/pkg/disktest"
	"github.com/linkerhq/linker/pkg/polltest"
)

// copied is what a crash would leave of a directory now.
func copied(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

func TestADiskThatIsAlmostFullTakesNothingNewAndWhatItTookStays(t *testing.T) {
	t.Parallel()
	disk := disktest.Small(t, 24<<20)
	dir := filepath.Join(disk, "kafka")
	cfg := configFor(startBroker(t, dir, 0).Addr())
	if err := kafka.EnsureTopics(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	p := newProducer(t, cfg)
	polltest.Eventually(t, "the producer is healthy", func() bool { return p.Healthy() == nil })
	value := strings.Repeat("x", 4<<10)
	type result struct {
		value  string
		offset int64
	}
	done := make(chan result, 1<<20)
	appended := 0
	appendOne := func() {
		v := fmt.Sprintf("%08d %s", appended, value)
		err := p.Append(0, "key", []byte(v), func(offset int64, err error) {
			if err == nil {
				done <- result{v, offset}
			}
		})
		if err == nil {
			appended++
		}
	}

	// Somebody else fills the disk as far as the log leaves it.
	empty := disktest.Fill(t, disk, 8<<20)
	polltest.Eventually(t, "the log takes nothing new, and says why", func() bool {
		if appended-len(done) < 100 { // no more than the disk will hold in the end
			appendOne()
		}
		err := p.Healthy()
		return errors.Is(err, kafka.ErrUnavailable) && strings.Contains(err.Error(), "the disk is almost full")
	})
	if left := disktest.Free(t, disk); left < 5<<20 {
		t.Errorf("%d KiB are left: too little for those who have something to settle", left>>10)
	}
	taken := len(done)
	if taken == 0 || taken == appended {
		t.Fatalf("%d of %d records were taken", taken, appended)
	}
	crashed := cfg
	crashed.Server = configFor(startBroker(t, copied(t, dir), 0).Addr()).Server
	for i, got := range readAll(t, crashed, 0, taken) {
		if want := <-done; want.offset != int64(i) || got != want.value {
			t.Fatalf("after a crash the record at %d is %.8s; %.8s was taken at %d", i, got, want.value, want.offset)
		}
	}

	// What was queued meanwhile goes on where it was when there is room.
	empty()
	polltest.Eventually(t, "all that was queued is in the log", func() bool { return len(done) == appended-taken })
	for i, got := range readAll(t, cfg, 0, appended) {
		if !strings.HasPrefix(got, fmt.Sprintf("%08d ", i)) {
			t.Fatalf("record %d is %.8s", i, got)
		}
	}
	polltest.Eventually(t, "the producer is healthy again", func() bool { return p.Healthy() == nil })
}

func TestPositionsThatAFullDiskTookOnlyHalfDoNotHideLaterOnes(t *testing.T) {
	t.Parallel()
	disk := disktest.Small(t, 4<<20)
	dir := filepath.Join(disk, "kafka")
	cfg := configFor(startBroker(t, dir, 0).Addr())
	if err := kafka.EnsureTopics(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	commit := func(offset int64) {
		t.Helper()
		res, err := groups(t, cfg).OffsetCommit(t.Context(), &kafkago.OffsetCommitRequest{
			GroupID: "group", GenerationID: -1,
			Topics: map[string][]kafkago.OffsetCommit{"in.domain-01": {{Partition: 0, Offset: offset}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range res.Topics["in.domain-01"] {
			if p.Error != nil {
				t.Fatal(p.Error)
			}
		}
	}
	size := func() int64 {
		info, err := os.Stat(filepath.Join(dir, "groups.log"))
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	commit(1)
	empty := disktest.Fill(t, disk, 0)
	next := int64(2)
	for before := int64(0); size() > before; next++ { // to the end of the last block
		before = size()
		commit(next)
	}
	empty()
	for range 10 {
		commit(next)
		next++
	}
	// A broker that mends nothing, as one that is about to write the file anew.
	plain, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(copied(t, dir)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(plain.Close) // after its clients
	for _, crashed := range []kafka.Config{cfg, configFor(plain.ListenAddrs()[0])} {
		res, err := groups(t, crashed).OffsetFetch(t.Context(), &kafkago.OffsetFetchRequest{
			GroupID: "group", Topics: map[string][]int{"in.domain-01": {0}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := res.Topics["in.domain-01"]; len(got) != 1 || got[0].CommittedOffset != next-1 {
			t.Errorf("committed is %+v, want %d", got, next-1)
		}
	}
}

// groups returns a client that commits and asks what was committed.
func groups(t *testing.T, cfg kafka.Config) *kafkago.Client {
	t.Helper()
	transport := &kafkago.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &kafkago.Client{Addr: kafkago.TCP(cfg.Brokers...), Transport: transport}
}
