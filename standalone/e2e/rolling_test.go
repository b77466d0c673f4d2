package e2e

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// rolling is a load of raw sockets that do what GO_AWAY asks for: they read on until
// the close frame, and come back.
type rolling struct {
	t       *testing.T
	cluster *cluster

	mu       sync.Mutex
	accepted map[string]int              // guarded by mu; by "from to", how many were accepted, in order
	arrived  map[string]map[string][]int // guarded by mu; by receiver and sender
	written  map[string]map[int]int      // guarded by mu; by "from to", when each was written last, counted
	writes   int                         // guarded by mu
	goodbyes int                         // guarded by mu; GO_AWAY
}

// connect logs in at a connector that takes it.
func (r *rolling) connect(ctx context.Context, user string, place int, features ...string) (*websocket.Conn, error) {
	for ; ctx.Err() == nil; place++ {
		list := r.cluster.running("connector")
		if len(list) == 0 {
			continue
		}
		ws, err := r.try(ctx, list[place%len(list)].websocket(), user, features...)
		if err == nil {
			return ws, nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(reconnectWait):
		}
	}
	return nil, ctx.Err()
}

func (r *rolling) try(ctx context.Context, url, user string, features ...string) (*websocket.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	ws, res, err := websocket.Dial(ctx, url, nil)
	if err != nil {
		return nil, err
	}
	if res.Body != nil {
		_ = res.Body.Close()
	}
	ws.SetReadLimit(-1)
	err = ws.Write(ctx, websocket.MessageText, []byte(auth(user, features...)))
	if err == nil {
		var f *frame
		f, err = read(ctx, ws)
		if err == nil && (f.Data.IsAuthenticated == nil || !*f.Data.IsAuthenticated) {
			err = fmt.Errorf("got %v", f)
		}
	}
	if err != nil {
		_ = ws.CloseNow()
		return nil, err
	}
	return ws, nil
}

func read(ctx context.Context, ws *websocket.Conn) (*frame, error) {
	_, b, err := ws.Read(ctx)
	if err != nil {
		return nil, err
	}
	return parseFrame(b)
}

// send sends numbered messages to all receivers in turn until sending ends, each
// until it is accepted.
func (r *rolling) send(ctx, sending context.Context, user string, receivers []string, place int) {
	const under = 20
	next, waiting := 0, []int{}
	for {
		ws, err := r.connect(ctx, user, place, "accept")
		if err != nil {
			return
		}
		frames, readErr := make(chan *frame), make(chan error, 1)
		go func() {
			for {
				f, err := read(ctx, ws)
				if err != nil {
					readErr <- err
					return
				}
				frames <- f
			}
		}()
		var writing sync.Mutex
		write := func(n int) {
			writing.Lock()
			defer writing.Unlock()
			// What cannot be written is found by the reader.
			if ws.Write(ctx, websocket.MessageText, fmt.Appendf(nil, `{"type":"MESSAGE","data":{"to":"%s","content":"%d"},"reference":"%d","confirmationEnabled":false}`,
				receivers[n%len(receivers)], n/len(receivers), n)) == nil {
				r.wasWritten(user, receivers[n%len(receivers)], n/len(receivers))
			}
		}
		for _, n := range waiting {
			write(n)
		}
		tick := time.NewTicker(4 * time.Millisecond)
		for open, going := true, false; open; {
			select {
			case <-tick.C:
				if sending.Err() == nil && !going && len(waiting) < under {
					waiting = append(waiting, next)
					write(next)
					next++
				}
				if sending.Err() != nil && len(waiting) == 0 {
					_ = ws.CloseNow()
					<-readErr
					tick.Stop()
					return
				}
			case f := <-frames:
				switch f.Type {
				case "GO_AWAY":
					going = true
					r.saidGoodbye()
				case "MESSAGE_ACCEPTED":
					n, err := strconv.Atoi(f.Data.Reference)
					if err != nil || !slices.Contains(waiting, n) {
						r.t.Errorf("%s: got %v", user, f)
						continue
					}
					waiting = slices.DeleteFunc(waiting, func(other int) bool { return other == n })
					r.wasAccepted(user, receivers[n%len(receivers)])
				case "DELIVER_FAILED":
					n, err := strconv.Atoi(f.reference())
					if err != nil || !*f.Data.Retryable {
						r.t.Errorf("%s: got %v", user, f)
						continue
					}
					time.AfterFunc(time.Duration(f.Data.RetryAfterMs)*time.Millisecond, func() { write(n) })
				default:
					r.t.Errorf("%s: got %v", user, f)
				}
			case err := <-readErr:
				if code := websocket.CloseStatus(err); code != websocket.StatusServiceRestart && ctx.Err() == nil {
					r.t.Errorf("%s: the connection ended with %v", user, err)
				}
				open = false
			}
		}
		tick.Stop()
		_ = ws.CloseNow()
		place++
	}
}

func (r *rolling) saidGoodbye() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.goodbyes++
}

func (r *rolling) wasAccepted(from, to string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.accepted[from+" "+to]++
}

func (r *rolling) wasWritten(from, to string, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := from + " " + to
	if r.written[key] == nil {
		r.written[key] = map[int]int{}
	}
	r.writes++
	r.written[key][n] = r.writes
}

// take receives until ctx ends, and acknowledges or fetches as its features ask for.
func (r *rolling) take(ctx context.Context, user string, place int, features ...string) {
	push, ack := slices.Contains(features, "push"), slices.Contains(features, "ack")
	for ; ; place++ {
		ws, err := r.connect(ctx, user, place, features...)
		if err != nil {
			return
		}
		fetching, stop := context.WithCancel(ctx)
		var asking sync.WaitGroup
		if !push {
			asking.Go(func() {
				for tick := time.NewTicker(time.Second); fetching.Err() == nil; {
					_ = ws.Write(fetching, websocket.MessageText, []byte(`{"type":"FETCH_MISSING_MESSAGES_REQUEST","data":{"count":2000}}`))
					select {
					case <-tick.C:
					case <-fetching.Done():
						tick.Stop()
					}
				}
			})
		}
		for {
			f, err := read(ctx, ws)
			if err != nil {
				if code := websocket.CloseStatus(err); code != websocket.StatusServiceRestart && ctx.Err() == nil {
					r.t.Errorf("%s: the connection ended with %v", user, err)
				}
				break
			}
			switch f.Type {
			case "GO_AWAY":
				r.saidGoodbye()
				stop() // nothing new is begun
			case "MESSAGE":
				r.arrives(user, f)
			case "MISSING_MESSAGES_AVAILABLE", "FETCH_MISSING_MESSAGES_COMPLETE":
			default:
				if f.Type != "DELIVER_FAILED" || f.Data.Code != "QUEUE_UNAVAILABLE" {
					r.t.Errorf("%s: got %v", user, f)
				}
			}
			if ack && f.Seq > 0 {
				_ = ws.Write(ctx, websocket.MessageText, fmt.Appendf(nil, `{"type":"MESSAGE_ACK","data":{"upTo":%d}}`, f.Seq))
			}
		}
		stop()
		asking.Wait()
		_ = ws.CloseNow()
	}
}

func (r *rolling) arrives(user string, f *frame) {
	n, err := strconv.Atoi(f.Data.Content)
	if err != nil {
		r.t.Errorf("%s: got %v", user, f)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.arrived[user] == nil {
		r.arrived[user] = map[string][]int{}
	}
	r.arrived[user][f.Data.From] = append(r.arrived[user][f.Data.From], n)
}

func (r *rolling) total() (accepted, arrived int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.accepted {
		accepted += n
	}
	for _, by := range r.arrived {
		for _, list := range by {
			arrived += len(list)
		}
	}
	return accepted, arrived
}

func TestARollingRestartUnderLoadLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	spread := 2 * time.Second
	if slowly() {
		spread = 10 * time.Second
	}
	c := apart(t, setup{network: loadNetwork(), drainSpread: spread}, 2, 2)
	r := &rolling{t: t, cluster: c, accepted: map[string]int{}, arrived: map[string]map[string][]int{}, written: map[string]map[int]int{}}
	ctx, cancel := context.WithCancel(t.Context())
	sending, stopSending := context.WithCancel(ctx)
	defer cancel()
	defer stopSending()
	kinds := [][]string{nil, {}, {"ack"}, {"push"}, {"push", "ack"}, nil, {"push"}, {"ack"}}
	var receivers []string
	var receiving, writing sync.WaitGroup
	for n, features := range kinds {
		user := fmt.Sprintf("%s-%d", loadApp, 200+n)
		receivers = append(receivers, user)
		receiving.Go(func() { r.take(ctx, user, n, features...) })
	}
	for n := range 4 {
		user := fmt.Sprintf("%s-%d", loadApp, 100+n)
		writing.Go(func() { r.send(ctx, sending, user, receivers, n) })
	}
	flows := func() {
		t.Helper()
		_, before := r.total()
		eventually(t, "messages flow", func() bool { _, now := r.total(); return now > before+200 })
	}
	flows()
	for _, program := range []string{"metaserver", "connector", "processor"} {
		for _, m := range c.all(program) {
			began := time.Now()
			if err := m.terminate(); err != nil {
				t.Error(err)
			}
			took := time.Since(began)
			if took > 25*time.Second {
				t.Errorf("a %s has taken %v to end", program, took)
			}
			flows()
			if err := m.start(); err != nil {
				t.Fatal(err)
			}
			awaitCluster(t, c)
			t.Logf("a %s ended in %v, and was ready again after %v", program, took.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
			flows()
		}
	}
	stopSending()
	writing.Wait()
	end := time.Now().Add(patience)
	for accepted, arrived := r.total(); arrived < accepted && time.Now().Before(end); accepted, arrived = r.total() {
		time.Sleep(20 * time.Millisecond) // what is missing is named below
	}
	time.Sleep(2 * time.Second) // a second copy would come in this time
	cancel()
	receiving.Wait()
	r.judge(kinds, receivers)
}

// judge compares what was accepted with what has come.
func (r *rolling) judge(kinds [][]string, receivers []string) {
	r.t.Helper()
	accepted, arrived := r.total()
	r.t.Logf("%d messages were accepted, %d have come; %d times a socket was told to go away", accepted, arrived, r.goodbyes)
	if r.goodbyes == 0 {
		r.t.Error("nobody was told to go away")
	}
	for i, user := range receivers {
		var lost, twice, shuffled []string
		for key, count := range r.accepted {
			var from, to string
			if _, err := fmt.Sscan(key, &from, &to); err != nil || to != user {
				continue
			}
			seen := map[int]int{}
			list := r.arrived[user][from]
			for j, n := range list {
				seen[n]++
				// One that was refused comes behind those that were written before it was sent again.
				if j > 0 && r.written[key][n] < r.written[key][list[j-1]] && slices.Contains(kinds[i], "push") {
					shuffled = append(shuffled, fmt.Sprintf("%s: %d after %d", from, n, list[j-1]))
				}
			}
			for n := range count {
				switch {
				case seen[n] == 0:
					lost = append(lost, fmt.Sprintf("%s: %d", from, n))
				case seen[n] > 1:
					twice = append(twice, fmt.Sprintf("%s: %d", from, n))
				}
			}
		}
		what := fmt.Sprintf("%s with the features %v", user, kinds[i])
		tell(r.t, "lost at "+what, lost)
		tell(r.t, "doubled at "+what, twice)
		tell(r.t, "out of order at "+what, shuffled)
	}
}
