package e2e

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// What overload may cost those who have nothing to do with it.
const (
	memoryLimit = 16 << 20 // of a connector, for one reader that has stopped
	// latencyFactor is how much longer than before the slowest of a hundred messages
	// may take.
	latencyFactor = 2
)

// latencyFloor is what is not judged: a machine on which other tests run adds that
// much by itself.
func latencyFloor() time.Duration {
	if slowly() {
		return 30 * time.Millisecond
	}
	return time.Second
}

// ping sends messages from one user to another, one after another, until ctx ends,
// and returns how long each has taken.
func ping(ctx context.Context, from, to *client) ([]time.Duration, error) {
	var took []time.Duration
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ctx.Err() == nil; n++ {
		began := time.Now()
		if err := from.write(message(to.user, strconv.Itoa(n), "", "RELIABLE")); err != nil {
			return nil, err
		}
		f, err := to.receive(patience)
		if err != nil {
			return nil, err
		}
		if f.Data.Content != strconv.Itoa(n) {
			return nil, fmt.Errorf("got %v, want %d", f, n)
		}
		took = append(took, time.Since(began))
		<-tick.C
	}
	return took, nil
}

func percentile(list []time.Duration, percent int) time.Duration {
	sorted := slices.Sorted(slices.Values(list))
	return sorted[(len(sorted)-1)*percent/100]
}

// side watches a domain while something happens to it: the memory of its connector,
// and how long messages between two others take.
type side struct {
	t         *testing.T
	connector *member
	from, to  *client
	memory    int // before
	peak      int
	before    time.Duration // p99
	during    []time.Duration
	stop      context.CancelFunc
	watching  sync.WaitGroup
	mistake   error
}

// watchSide measures how it is before, and goes on measuring until judge.
func watchSide(t *testing.T, m *member) *side {
	t.Helper()
	s := &side{t: t, connector: m}
	s.from, s.to = login(t, m.websocket(), loadApp+"-901"), login(t, m.websocket(), loadApp+"-902")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	took, err := ping(ctx, s.from, s.to)
	if err != nil {
		t.Fatal(err)
	}
	s.before, s.memory = percentile(took, 99), m.memory(t)
	s.peak = s.memory
	ctx, s.stop = context.WithCancel(t.Context())
	t.Cleanup(func() { s.stop(); s.watching.Wait() })
	s.watching.Go(func() { s.during, s.mistake = ping(ctx, s.from, s.to) })
	s.watching.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			s.peak = max(s.peak, m.memory(t))
			<-tick.C
		}
	})
	return s
}

// end returns by how much the memory has grown at most, and the p99 of messages
// between the others before and meanwhile.
func (s *side) end() (grown int, before, during time.Duration) {
	s.t.Helper()
	s.stop()
	s.watching.Wait()
	if s.mistake != nil {
		s.t.Fatalf("the others: %v", s.mistake)
	}
	return s.peak - s.memory, s.before, percentile(s.during, 99)
}

// judge ends the watch and checks the promises: by how much the memory may have grown,
// and how long others may wait for their messages in any case.
func (s *side) judge(what string, memory int, latency time.Duration) {
	s.t.Helper()
	grown, before, during := s.end()
	s.t.Logf("%s: the connector had %.1f MiB and grew by %.1f MiB at most; p99 of others %v before, %v meanwhile (%d messages)",
		what, float64(s.memory)/(1<<20), float64(grown)/(1<<20), before.Round(10*time.Microsecond), during.Round(10*time.Microsecond), len(s.during))
	if !judged() {
		return
	}
	if grown >= memory {
		s.t.Errorf("%s: the connector grew by %d MiB", what, grown>>20)
	}
	if during > max(latencyFactor*before, latency) {
		s.t.Errorf("%s: p99 of others went from %v to %v", what, before, during)
	}
}

// sendAll sends so many messages of this size, spread over a time, or as fast as they
// are accepted.
func sendAll(from *client, to string, count, size int, feature string, over time.Duration) error {
	const window = 40
	accepted, began := 0, time.Now()
	await := func() error {
		f, err := from.receive(patience)
		if err == nil && f.Type != "MESSAGE_ACCEPTED" {
			err = fmt.Errorf("got %v", f)
		}
		accepted++
		return err
	}
	for n := range count {
		time.Sleep(time.Until(began.Add(over * time.Duration(n) / time.Duration(count)))) // the pace
		if err := from.write(message(to, padded(n, size), strconv.Itoa(n), feature)); err != nil {
			return err
		}
		for feature == "RELIABLE" && n-accepted >= window {
			if err := await(); err != nil {
				return err
			}
		}
	}
	for feature == "RELIABLE" && accepted < count {
		if err := await(); err != nil {
			return err
		}
	}
	return nil
}

// A reader that stops costs its connector next to nothing and harms nobody; what is
// sent to it meanwhile comes later, all of it and in order.
func TestAReaderThatStopsCostsNothingAndGetsEverythingLater(t *testing.T) {
	alone(t)
	count, size, pause := 500, 20_000, 5*time.Second // 10 MB
	if slowly() {
		count, pause = 2500, time.Minute // 50 MB
	}
	for name, features := range map[string][]string{"base protocol": nil, "ack": {"ack"}, "push": {"push"}, "push and ack": {"push", "ack"}} {
		t.Run(name, func(t *testing.T) {
			alone(t)
			c := apart(t, setup{network: loadNetwork()}, 1, 1)
			connector, user := c.all("connector")[0], loadApp+"-1"
			side := watchSide(t, connector)
			stopped := loginRaw(t, connector.websocket(), user, features...)
			sender := login(t, connector.websocket(), loadApp+"-2", "accept")
			if err := sendAll(sender, user, count, size, "RELIABLE", pause); err != nil {
				t.Fatal(err)
			}
			side.judge(fmt.Sprintf("%d MB in %v to a reader that has stopped", count*size/1_000_000, pause), memoryLimit, latencyFloor())
			seen := map[int]string{}
			last := -1
			take := func(f *frame) (enough bool) {
				t.Helper()
				if f.Type != "MESSAGE" {
					return false
				}
				n := number(f)
				if n < 0 || f.Data.Content != padded(n, size) {
					t.Fatalf("got %v", f)
				}
				switch id, again := seen[n]; {
				case again && id != f.ID:
					t.Fatalf("%d came as %s and as %s", n, id, f.ID)
				case again:
				case n != last+1:
					t.Fatalf("%d came after %d", n, last)
				default:
					seen[n], last = f.ID, n
				}
				return len(seen) == count
			}
			stopped.drainTo(t, take)
			if len(seen) < count { // it was closed for reading too slowly: it comes back
				t.Logf("%d were read from the old connection", len(seen))
				again := login(t, connector.websocket(), user, features...)
				for end := time.Now().Add(2 * patience); len(seen) < count && time.Now().Before(end); {
					if !slices.Contains(features, "push") {
						again.send(`{"type":"FETCH_MISSING_MESSAGES_REQUEST","data":{"count":2000}}`)
					}
					for f, err := again.receive(time.Second); err == nil; f, err = again.receive(time.Second) {
						take(f)
						if f.Seq > 0 {
							again.send(`{"type":"MESSAGE_ACK","data":{"upTo":%d}}`, f.Seq)
						}
						if f.Type == "FETCH_MISSING_MESSAGES_COMPLETE" || len(seen) == count {
							break
						}
					}
				}
			}
			if len(seen) != count {
				t.Errorf("%d of %d have come", len(seen), count)
			}
			t.Logf("the connector has %.1f MiB in the end", float64(connector.memory(t))/(1<<20))
		})
	}
}

// number is what a padded content begins with, -1 if it does not.
func number(f *frame) int {
	digits, _, _ := strings.Cut(f.Data.Content, ".")
	n, err := strconv.Atoi(digits)
	if err != nil {
		return -1
	}
	return n
}

// drainTo reads on, answers pings and acknowledges, until there is enough or the
// connection ends.
func (r *rawSocket) drainTo(t *testing.T, take func(*frame) (enough bool)) {
	t.Helper()
	for enough := false; !enough; {
		r.within(t, patience)
		op, payload, err := r.read()
		if err != nil {
			return
		}
		switch op {
		case opPing:
			_, err = r.conn.Write(masked(fin|opPong, payload))
		case opClose:
			_, err = r.conn.Write(masked(fin|opClose, payload))
		case opText:
			var f *frame
			if f, err = parseFrame(payload); err != nil {
				t.Fatal(err)
			}
			enough = take(f)
			if f.Seq > 0 {
				_, err = r.conn.Write(masked(fin|opText, fmt.Append(nil, `{"type":"MESSAGE_ACK","data":{"upTo":`, f.Seq, `}}`)))
			}
		}
		if err != nil || op == opClose {
			return
		}
	}
}

// FAST messages for a reader that has stopped are dropped, all but the newest, and
// counted.
func TestFastMessagesForAReaderThatStopsAreDroppedAndCounted(t *testing.T) {
	alone(t)
	count, size, pause := 500, 20_000, 5*time.Second
	if slowly() { // and not closed yet for reading too slowly
		count, pause = 2000, 20*time.Second
	}
	c := apart(t, setup{network: loadNetwork()}, 1, 1)
	connector, user := c.all("connector")[0], loadApp+"-1"
	side := watchSide(t, connector)
	stopped := loginRaw(t, connector.websocket(), user)
	sender := login(t, connector.websocket(), loadApp+"-2")
	if err := sendAll(sender, user, count, size, "FAST", pause); err != nil {
		t.Fatal(err)
	}
	sender.works()
	eventually(t, "dropped and counted", func() bool { return connector.metric(t, "linker_session_dropped_frames_total", "fast_queue_full") > 0 })
	side.judge(fmt.Sprintf("%d MB of FAST in %v to a reader that has stopped", count*size/1_000_000, pause), memoryLimit, latencyFloor())
	got, last := 0, -1
	stopped.drainTo(t, func(f *frame) (enough bool) {
		if f.Type == "MESSAGE" {
			if n := number(f); n <= last {
				t.Fatalf("got %v after %d", f, last)
			}
			last = number(f)
			got++
		}
		return last == count-1
	})
	dropped := int(connector.metric(t, "linker_session_dropped_frames_total", "fast_queue_full"))
	t.Logf("%d came, %d were dropped", got, dropped)
	if got+dropped != count || last != count-1 {
		t.Errorf("%d came and %d were dropped of %d, the last was %d", got, dropped, count, last)
	}
}
