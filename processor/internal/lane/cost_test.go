package lane_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/delivery"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/processor/internal/custody"
)

// BenchmarkStoring stores messages for users who are away, in four lanes.
func BenchmarkStoring(b *testing.B) {
	const lanes, users = 4, 10_000
	s := serve(b, lanes, custody.Limits{}, unchanged)
	s.describe()
	s.send(0, inLane(0, lanes, 1), 1)
	s.stored(inLane(0, lanes, 1), 1) // the lanes have been taken
	b.ResetTimer()
	s.fill(b.N, func(i int) ident.UserID { return ident.UserID(fmt.Sprintf("A-%d", 1_000_000+i%users)) }, lanes)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

// fill lets n messages be stored.
func (b *bench) fill(n int, to func(i int) ident.UserID, lanes int) {
	b.t.Helper()
	already := counted(b.t, b.registry, "linker_lane_stored_total")
	frame := make([]byte, 1100)
	next := map[ident.UserID]uint64{}
	var running sync.WaitGroup
	for i := range n {
		user := to(i)
		next[user]++
		e := envelope.Envelope{
			Kind: envelope.KindMessage, From: "A-2", Stream: 7, ID: ident.StreamMessageID(7, user, next[user]),
			To: []envelope.Recipient{{User: user, N: next[user]}}, Frame: frame,
		}
		running.Add(1)
		for b.producer.Append(user.Lane(lanes), string(user), e.Encode(), func(_ int64, err error) {
			if err != nil {
				b.t.Error(err)
			}
			running.Done()
		}) != nil {
			time.Sleep(time.Millisecond) // its queue is full
		}
	}
	running.Wait()
	eventually(b.t, "all are stored", func() bool { return counted(b.t, b.registry, "linker_lane_stored_total") >= already+float64(n) })
}

// BenchmarkFetch fetches 2000 messages among many others, by a session that takes and
// proves at once whatever it gets.
func BenchmarkFetch(b *testing.B) { benchmarkFetch(b, false) }

// BenchmarkFetchBesideStoring fetches while messages for others are stored as fast as they
// can be.
func BenchmarkFetchBesideStoring(b *testing.B) { benchmarkFetch(b, true) }

func benchmarkFetch(b *testing.B, storing bool) {
	const stored, others = 2000, 50_000
	s := serve(b, 1, custody.Limits{}, unchanged)
	s.describe()
	s.send(0, "A-3", 1)
	s.stored("A-3", 1)
	other := func(i int) ident.UserID { return ident.UserID(fmt.Sprintf("A-%d", 1_000_000+i%10_000)) }
	s.fill(others, other, 1)
	c := ident.Connector{Name: "c", Incarnation: ident.Incarnation{1}}
	complete := s.connect(c)
	took := time.Duration(0)
	for i := range b.N {
		user := ident.UserID(fmt.Sprintf("A-%d", 10+i))
		s.fill(stored, func(int) ident.UserID { return user }, 1)
		var beside sync.WaitGroup
		if storing {
			beside.Go(func() {
				s.fill(others, func(k int) ident.UserID { return other(k) + ident.UserID(fmt.Sprint(i+1)) }, 1)
			})
		}
		for _, e := range []envelope.Envelope{
			{Kind: envelope.KindLogin, Session: uint64(i + 1), Connector: c},
			{Kind: envelope.KindFetch, Session: uint64(i + 1), Connector: c, Request: 1, Count: stored},
		} {
			e.To = []envelope.Recipient{{User: user}}
			must(b, s.producer.Append(0, string(user), e.Encode(), func(_ int64, err error) { s.appended <- err }))
			must(b, <-s.appended)
		}
		begun := time.Now()
		if n := <-complete; n != stored {
			b.Fatalf("%d messages, not %d", n, stored)
		}
		took += time.Since(begun)
		beside.Wait()
	}
	b.ReportMetric(float64(took.Milliseconds())/float64(b.N), "ms/fetch")
}

// connect serves a connector whose sessions prove at once what they get. It says how many
// messages came before the end of each fetch.
func (b *bench) connect(c ident.Connector) (complete <-chan int) {
	b.t.Helper()
	ends, got := make(chan int, 1), 0
	sub, err := b.plane.Subscribe(delivery.ConnectorSubject("d", c, 0), func(data []byte) {
		batch, err := delivery.DecodeBatch(data)
		if err != nil {
			b.t.Error(err)
			return
		}
		a := delivery.Answers{Lane: batch.Lane, Epoch: batch.Epoch, Connector: c}
		for _, it := range batch.Items {
			for _, to := range it.Targets {
				if to.D > 0 {
					a.Progress = append(a.Progress, delivery.Progress{Session: to.Session, Taken: to.D, Proved: to.D})
				}
			}
			switch {
			case it.Token != 0:
				ends <- got
				got = 0
			case it.Kind == delivery.KindFrame:
				got++
			}
		}
		if err := b.plane.Publish(delivery.LaneSubject("d", batch.Lane), a.Append(nil)); err != nil {
			b.t.Error(err)
		}
	})
	must(b.t, err)
	b.t.Cleanup(func() { must(b.t, sub.Stop()) })
	return ends
}
