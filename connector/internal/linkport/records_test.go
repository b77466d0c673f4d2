package linkport_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/broker/kafka"
	"github.com/linkerhq/linker/pkg/delivery"
	"github.com/linkerhq/linker/pkg/embedded"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/link"
)

func TestANeighbourHearsOfARecordWhenTheLogHasItAndNotBefore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve()
	n := w.dial("domain-02")
	to := []ident.UserID{inLane(0, 0), inLane(1, 0)}
	for i := range uint64(6) {
		n.send(1, i+1, message("A-1000", i+1, to[i%2]))
		n.send(2, i+1, message("A-1001", i+1, to[i%2]))
	}
	open := make(map[uint64][]appended) // by channel
	for range 12 {
		r := w.next()
		channel := uint64(1)
		if r.From == "A-1001" {
			channel = 2
		}
		open[channel] = append(open[channel], r)
		if r.lane != r.User().Lane(lanes) || r.key != string(r.User()) || !slices.Equal(r.Path, []string{"domain-02"}) {
			t.Errorf("%+v in lane %d, key %s, path %v", r.To, r.lane, r.key, r.Path)
		}
	}
	// Lane 1 answers first: only what is complete from the beginning is told.
	for _, i := range []int{1, 3, 5} {
		open[1][i].done(int64(i), nil)
	}
	open[1][0].done(0, nil)
	n.want(link.Ack{Channel: 1, UpTo: 2})
	open[2][0].done(0, nil)
	n.want(link.Ack{Channel: 2, UpTo: 1})
	open[1][4].done(4, nil)
	n.silent()
	open[1][2].done(2, nil)
	n.want(link.Ack{Channel: 1, UpTo: 6})

	// The end of the link leaves nothing behind that the log could stumble over.
	n.Close()
	w.counted("linker_linkport_links", "domain-02", 0)
	for _, r := range open[2][1:] {
		r.done(0, nil)
	}
	n.silent()
	w.counted("linker_linkport_records_total", "domain-02", 12)
	if w.metric("linker_linkport_bytes_total", "domain-02") < 12*20 {
		t.Error("the bytes are not counted")
	}
}

func TestAGroupIsCutUpAndAcknowledgedWhenAllLanesHaveIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve()
	n := w.dial("domain-03")
	var all []ident.UserID
	for lane := range lanes {
		all = append(all, inLane(lane, 0), inLane(lane, 500))
	}
	away := []ident.UserID{"A-1500", "A-1600"}
	group := message("A-3000", 7, append(slices.Clone(all), away...)...)
	group.Path = []string{"domain-04"}
	n.send(1, 1, group)
	var parts []appended
	for range lanes + 1 {
		parts = append(parts, w.next())
	}
	for lane, r := range parts[:lanes] {
		if want := users(append(group.To[:0:0], group.To[2*lane:2*lane+2]...)); !slices.Equal(users(r.To), want) || r.To[0].User.Lane(lanes) != r.lane {
			t.Errorf("lane %d gets %v, want %v", r.lane, users(r.To), want)
		}
	}
	if r := parts[lanes]; !slices.Equal(users(r.To), away) || r.lane != group.From.Lane(lanes) || r.key != string(group.From) {
		t.Errorf("on its way: %v in lane %d, key %s", users(r.To), r.lane, r.key)
	}
	for i, r := range parts {
		if !slices.Equal(r.Path, []string{"domain-04", "domain-03"}) || r.To[0].N != 7 || r.From != group.From || string(r.Frame) != string(group.Frame) {
			t.Errorf("part %d is %+v", i, r.Envelope)
		}
		n.silent()
		r.done(0, nil)
	}
	n.want(link.Ack{Channel: 1, UpTo: 1})
}

func TestWhatIsOnItsWayStaysInTheLaneOfItsSender(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve()
	n := w.dial("domain-02")
	for i := range uint64(50) {
		n.send(1, i+1, message("A-1000", i+1, ident.UserID(fmt.Sprintf("A-%d", 2000+i))))
	}
	for i := range uint64(50) {
		r := w.next()
		if r.lane != ident.UserID("A-1000").Lane(lanes) || r.key != "A-1000" || r.To[0].N != i+1 {
			t.Fatalf("record %d: %+v in lane %d, key %s", i+1, r.To, r.lane, r.key)
		}
		r.done(0, nil)
	}
	n.acknowledged(1, 50)
}

func TestRecordsThatCannotBeTakenAreRefusedAndTheRestGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve()
	n := w.dial("domain-02")
	long := message("A-1000", 1, "A-1")
	for range 64 {
		long.Path = append(long.Path, "domain-02")
	}
	login := envelope.Envelope{Kind: envelope.KindLogin, From: "A-1000", Session: 1, To: []envelope.Recipient{{User: "A-1"}}}
	released := message("A-1000", 1, "A-1")
	released.Released, released.Session = true, 9
	n.send(1, 1, released)
	n.put(link.Records{Channel: 1, First: 2, Records: [][]byte{{1, 2, 3}}})
	n.send(1, 3, login, message("anybody", 1, "A-1"), long, message("A-1", 1, "A-2"), message("A-2000", 1, "A-2"), message("A-1000", 2, "A-1"))

	for i, code := range []string{"UNDECODABLE", "FORBIDDEN_TYPE", "INVALID_USER_ID", "HOPS_EXHAUSTED", "FORBIDDEN", "FORBIDDEN"} {
		n.want(link.Refusal{Channel: 1, N: uint64(i + 2), Code: code})
	}
	n.silent() // the first is not in the log yet
	first := w.next()
	if first.Released || first.Session != 0 {
		t.Errorf("got %+v, want what only our own lanes say cleared", first.Envelope)
	}
	first.done(0, nil)
	n.acknowledged(1, 7)
	large := w.next()
	large.done(0, fmt.Errorf("append: %w", errTooLarge))
	n.want(link.Refusal{Channel: 1, N: 8, Code: "TOO_LARGE"})
	n.want(link.Ack{Channel: 1, UpTo: 8})
	for code, want := range map[string]float64{
		"UNDECODABLE": 1, "FORBIDDEN_TYPE": 1, "INVALID_USER_ID": 1, "HOPS_EXHAUSTED": 1, "FORBIDDEN": 2, "TOO_LARGE": 1,
	} {
		w.counted("linker_linkport_refused_records_total", code, want)
	}
}

func TestAUserWhoHasMovedIsCredibleAtTheFormerHome(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve()
	n := w.dial("domain-02")
	n.send(1, 1, message("A-1000", 1, "A-1")) // so that the network was looked at
	w.next().done(0, nil)
	n.acknowledged(1, 1)
	moved := network()
	moved.Distributions[1].DomainName, moved.Distributions[2].DomainName = "domain-03", "domain-02"
	w.feed.set(t, 6, moved)
	n.send(1, 2, message("A-1000", 2, "A-1"), message("A-2000", 1, "A-1"), message("A-3000", 1, "A-1"))
	n.want(link.Refusal{Channel: 1, N: 4, Code: "FORBIDDEN"})
	for range 2 {
		w.next().done(0, nil)
	}
}

func TestWhileTheLogTakesNothingTheNeighbourWaitsAndNothingIsLostOrOvertaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve()
	n := w.dial("domain-02")
	const records = 300
	for name, change := range map[string]func(closed bool){
		"the log is not available": func(closed bool) {
			w.refusing = nil
			if closed {
				w.refusing = errUnavailable
			}
		},
		"the lane has no room": func(closed bool) { w.full = closed },
	} {
		w.set(func() { change(true) })
		channel := rand.Uint64()
		for i := range uint64(records) {
			n.send(channel, i+1, message("A-1000", i+1, inLane(int(i%lanes), 0)))
		}
		var asked int
		w.set(func() { asked = w.asked })
		eventually(t, name+": it is tried again", func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.asked > asked+3
		})
		if len(w.records) > 0 {
			t.Fatalf("%s: %d records", name, len(w.records))
		}
		n.silent()
		w.set(func() { change(false) })
		for i := range uint64(records) {
			r := w.next()
			if r.To[0].N != i+1 {
				t.Fatalf("%s: record %d came after %d", name, r.To[0].N, i)
			}
			r.done(0, nil)
		}
		n.acknowledged(channel, records)
	}

	// Whoever waits and is gone is not waited for.
	w.set(func() { w.refusing = errUnavailable })
	n.send(1, 1, message("A-1000", 1, "A-1"))
	n.Close()
	w.counted("linker_linkport_links", "domain-02", 0)
}

func TestALogThatStopsEndsTheLinkWithoutAnAcknowledgement(t *testing.T) {
	t.Parallel()
	for name, stop := range map[string]func(*world, *neighbour){
		"what was taken": func(w *world, n *neighbour) {
			n.send(1, 1, message("A-1000", 1, "A-1"), message("A-1000", 2, "A-1"))
			first, second := w.next(), w.next()
			first.done(0, errStopped)
			second.done(0, nil)
		},
		"what comes": func(w *world, n *neighbour) {
			w.set(func() { w.refusing = errStopped })
			n.send(1, 1, message("A-1000", 1, "A-1"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.serve()
			n := w.dial("domain-02")
			stop(w, n)
			n.gone()
			n.silent()
		})
	}
}

func TestFastGoesToTheLanesOfItsReceiversOrIsDroppedAndCounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve()
	n := w.dial("domain-02")
	fast := func(e envelope.Envelope) { n.put(link.Fast{Record: e.Append(nil)}) }
	to := []ident.UserID{inLane(0, 0), inLane(1, 0)}
	fast(message("A-1000", 3, to[0], to[1], "A-2500"))
	fast(envelope.Envelope{Kind: envelope.KindFailure, To: []envelope.Recipient{{User: to[1]}}, Frame: []byte("{}")})
	fast(envelope.Envelope{Kind: envelope.KindClose, From: "A-1001", To: []envelope.Recipient{{User: to[0]}}})
	for i, want := range []struct {
		lane int
		kind envelope.Kind
		to   ident.UserID
	}{
		{0, envelope.KindMessage, to[0]},
		{1, envelope.KindMessage, to[1]},
		{ident.UserID("A-1000").Lane(lanes), envelope.KindMessage, "A-2500"},
		{1, envelope.KindFailure, to[1]},
		{0, envelope.KindClose, to[0]},
	} {
		select {
		case got := <-w.fast:
			if got.subject != delivery.FastSubject(here, want.lane) || got.Kind != want.kind || len(got.To) != 1 || got.User() != want.to || !slices.Equal(got.Path, []string{"domain-02"}) {
				t.Errorf("%d: %s for %v, path %v, on %s", i, got.Kind, got.To, got.Path, got.subject)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%d never came", i)
		}
	}
	w.counted("linker_linkport_fast_total", "domain-02", 3)

	w.set(func() { w.silent[0] = true })
	fast(message("A-1000", 4, to[0]))
	w.counted("linker_linkport_fast_dropped_total", "silent_lane", 1)
	w.set(func() { w.silent[0], w.away = false, errUnavailable })
	fast(message("A-1000", 5, to[0]))
	w.counted("linker_linkport_fast_dropped_total", "unpublished", 1)
	fast(message("A-3000", 5, to[0]))
	w.counted("linker_linkport_fast_dropped_total", "forbidden", 1)
	n.put(link.Fast{Record: []byte("nonsense")})
	w.counted("linker_linkport_fast_dropped_total", "undecodable", 1)
	fast(envelope.Envelope{Kind: envelope.KindPresence, From: "A-1000", To: []envelope.Recipient{{User: to[0]}}, Frame: []byte("{}")})
	w.counted("linker_linkport_fast_dropped_total", "forbidden_type", 1)
	if len(w.fast) > 0 || len(w.records) > 0 {
		t.Errorf("%d were published, %d came for the log", len(w.fast), len(w.records))
	}
}

// TestInARealLogEachLaneHasTheRecordsOfAChannelInOrder takes the neighbour's word for
// nothing: it reads the lanes.
func TestInARealLogEachLaneHasTheRecordsOfAChannelInOrder(t *testing.T) {
	t.Parallel()
	const channels, records = 3, 1000
	w := newWorld(t)
	log := slog.New(slog.DiscardHandler)
	broker, err := embedded.Kafka("", 0, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	cfg := kafka.Config{Server: kafka.Server{Brokers: []string{broker.Addr()}}, Domain: here, Lanes: lanes, Generation: 1, Log: log, Metrics: prometheus.NewRegistry()}
	if err := kafka.EnsureTopics(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	producer, err := kafka.NewProducer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	got := make(map[string][]uint64) // the numbers, by lane and sender
	total := 0
	group, err := kafka.NewGroup(cfg, func(ctx context.Context, lane *kafka.Lane) error {
		return lane.Read(ctx, max(lane.Committed(), 0), func(list []kafka.Record) error {
			mu.Lock()
			defer mu.Unlock()
			for _, r := range list {
				e, err := envelope.Decode(r.Value)
				if err != nil {
					return err
				}
				if !slices.Equal(e.Path, []string{"domain-02"}) {
					t.Errorf("path %v", e.Path)
				}
				at := fmt.Sprint(lane.Number(), " ", e.From)
				got[at] = append(got[at], e.To[0].N)
				total++
			}
			return lane.Commit(ctx, list[len(list)-1].Offset+1)
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { _ = producer.Run(ctx) })
	running.Go(func() { _ = group.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	w.deps.Log, w.deps.Unavailable, w.deps.TooLarge = producer, kafka.ErrUnavailable, kafka.ErrTooLarge
	w.serve()
	n := w.dial("domain-02")
	next := make([]uint64, channels)
	for done := 0; done < channels*records; {
		channel := rand.IntN(channels)
		var batch []envelope.Envelope
		for range min(rand.IntN(30), records-int(next[channel])) {
			i := next[channel] + uint64(len(batch))
			batch = append(batch, message(ident.UserID(fmt.Sprintf("A-%d", 1000+channel)), i+1, ident.UserID(fmt.Sprintf("A-%d", i%100))))
		}
		if len(batch) > 0 {
			n.send(uint64(channel), next[channel]+1, batch...)
			next[channel] += uint64(len(batch))
			done += len(batch)
		}
	}
	acked := make(map[uint64]uint64)
	for acked[0]+acked[1]+acked[2] < channels*records {
		select {
		case m := <-n.got:
			ack, is := m.(link.Ack)
			if !is || ack.UpTo <= acked[ack.Channel] {
				t.Fatalf("got %+v", m)
			}
			acked[ack.Channel] = ack.UpTo
		case <-n.ended:
			t.Fatal("the link has ended")
		case <-time.After(30 * time.Second):
			t.Fatalf("acknowledged are only %v", acked)
		}
	}
	eventually(t, "the lanes have everything", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return total >= channels*records
	})
	mu.Lock()
	defer mu.Unlock()
	if total != channels*records {
		t.Errorf("the lanes have %d records, want %d", total, channels*records)
	}
	for at, numbers := range got {
		if !slices.IsSorted(numbers) || len(slices.Compact(numbers)) != len(numbers) {
			t.Errorf("lane and sender %s: out of order or twice", at)
		}
	}
}
