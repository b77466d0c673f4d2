package e2e

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// What a socket may cost that nothing limits and that sends as fast as it can: all the
// processors of the machine, but no more memory than this, and nobody waits for ever.
const (
	floodMemory  = 64 << 20
	floodLatency = 5 * time.Second
)

// A socket that sends as fast as it can is slowed down or closed. It costs its
// connector next to nothing, and the others are still served.
func TestASocketThatSendsAsFastAsItCanHarmsNobody(t *testing.T) {
	alone(t)
	long := 2 * time.Second
	if slowly() {
		long = 12 * time.Second
	}
	const limit = ", limits: {socket: {messagesPerSecond: 300}}" // above what the others send
	to := loadApp + "-2"
	tiny, huge := message(to, "x", "", "RELIABLE"), message(to, strings.Repeat("x", 60_000), "", "RELIABLE")
	members := make([]string, 4096)
	for n := range members {
		members[n] = fmt.Sprintf("%s-%d", loadApp, 10_000+n)
	}
	for _, c := range []struct {
		name   string
		frame  []byte
		reads  bool // what it is sent
		online bool // the receiver
		code   int  // it is closed with; 0: it is not
		limits string
	}{
		{"tiny messages", masked(fin|opText, []byte(tiny)), true, true, 0, ""},
		{"tiny messages to somebody who is away", masked(fin|opText, []byte(tiny)), true, false, 0, ""},
		{"tiny messages with a limit", masked(fin|opText, []byte(tiny)), true, true, 4429, limit},
		{"tiny FAST messages with a limit", masked(fin|opText, []byte(strings.Replace(tiny, "RELIABLE", "FAST", 1))), false, true, 4429, limit},
		{"huge messages with a limit", masked(fin|opText, []byte(huge)), true, true, 4429, limit},
		{"huge messages", masked(fin|opText, []byte(huge)), true, true, 0, ""},
		{"tiny messages without reading the answers", masked(fin|opText, []byte(tiny)), false, true, 0, ""},
		{"tiny FAST messages", masked(fin|opText, []byte(strings.Replace(tiny, "RELIABLE", "FAST", 1))), true, true, 0, ""},
		{"huge FAST messages", masked(fin|opText, []byte(strings.Replace(huge, "RELIABLE", "FAST", 1))), true, true, 0, ""},
		{"FAST messages to large groups", masked(fin|opText, []byte(group(members, "x", "", "FAST"))), true, true, 0, ""},
		{"fetches", masked(fin|opText, []byte(`{"type":"FETCH_MISSING_MESSAGES_REQUEST"}`)), true, true, 4400, ""},
		{"frames that are none", masked(fin|opText, []byte(`{`)), true, true, 4400, ""},
		{"messages to nobody", masked(fin|opText, []byte(message("XXX-1", "x", "", "RELIABLE"))), false, true, 0, ""},
		{"pings", masked(fin|opPing, []byte("x")), true, true, 4429, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			alone(t)
			network := strings.Replace(loadNetwork(), ", masterUserId", c.limits+", masterUserId", 1)
			// What is judged is what a flood makes the connector hold. How much garbage may lie
			// between two collections is bounded as well, by run.PaceCollector.
			d := apart(t, setup{network: network, frameLimit: 128 << 10, environ: []string{"GOGC=100"}}, 1, 1)
			connector := d.all("connector")[0]
			side := watchSide(t, connector)
			var received atomic.Int64
			if c.online {
				receiver := loginRaw(t, connector.websocket(), to)
				go receiver.discard(func(frame) { received.Add(1) })
			}
			flood := loginRaw(t, connector.websocket(), loadApp+"-1", "accept")
			flood.within(t, 3*patience)
			var closing sync.WaitGroup
			code := 0
			if c.reads {
				closing.Go(func() { code = flood.discard(func(frame) {}) })
			}
			sent, began := 0, time.Now()
			batch := c.frame
			for len(batch) < 16<<10 {
				batch = append(batch, c.frame...)
			}
			_ = flood.conn.SetWriteDeadline(began.Add(long))
			for time.Since(began) < long {
				n, err := flood.conn.Write(batch)
				sent += n
				if err != nil {
					break
				}
			}
			took := time.Since(began)
			latency := floodLatency
			if c.limits != "" {
				latency = latencyFloor()
			}
			side.judge(fmt.Sprintf("%.1f MB (%d frames) in %v, of which %d were received", float64(sent)/1e6, sent/len(c.frame), took.Round(time.Millisecond), received.Load()), floodMemory, latency)
			if c.limits != "" && long < 10*time.Second {
				c.code = 0 // so soon
			}
			if c.code == 0 && took < long-100*time.Millisecond {
				t.Errorf("it was closed after %v", took)
			}
			if c.code != 0 && c.reads {
				closing.Wait()
				if code != c.code && code != -1 {
					t.Errorf("it was closed with %d, want %d", code, c.code)
				}
			}
			_ = flood.conn.Close()
			closing.Wait()
			side.from.works()
		})
	}
}

// discard reads until the connection ends, answers pings, and returns the close code,
// -1 if there was none.
func (r *rawSocket) discard(each func(frame)) int {
	for {
		op, payload, err := r.read()
		switch {
		case err != nil:
			return -1
		case op == opPing:
			_, err = r.conn.Write(masked(fin|opPong, payload))
		case op == opClose && len(payload) >= 2:
			return int(payload[0])<<8 | int(payload[1])
		case op == opText:
			each(frame{})
		}
		if err != nil {
			_, _ = io.Copy(io.Discard, r.in)
			return -1
		}
	}
}
