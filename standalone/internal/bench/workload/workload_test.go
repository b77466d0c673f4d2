package workload_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/linkerhq/linker/standalone/internal/bench/figures"
	"github.com/linkerhq/linker/standalone/internal/bench/workload"
)

// counts are those of a run that a faulty server changes.
type counts struct {
	sent, delivered, confirmed, accepted                                int64
	unsent, refused, lost, unconfirmed, duplicates, disordered, damaged int64
}

func countsOf(r figures.Run) counts {
	return counts{r.Sent, r.Deliveries, r.Confirmed, r.Accepted, r.Unsent, r.Refused, r.Lost, r.Unconfirmed, r.Duplicates, r.Disordered, r.Damaged}
}

func TestAnOpenLoopCountsEveryFault(t *testing.T) {
	t.Parallel()
	held := map[string]string{} // by the one client that has any
	for name, c := range map[string]struct {
		answer func(user string, n int, r received) []string
		with   func(o *workload.Options)
		want   counts
		errors []string
	}{
		"none": {answer: echo, want: counts{delivered: 500}},
		"every tenth message is lost": {
			answer: func(user string, n int, r received) []string {
				if n%10 == 0 {
					return nil
				}
				return echo(user, n, r)
			},
			want: counts{delivered: 450, lost: 50},
		},
		"every fourth comes twice": {
			answer: func(user string, n int, r received) []string {
				if n%4 == 1 {
					return []string{r.delivery(user), r.delivery(user)}
				}
				return echo(user, n, r)
			},
			want: counts{delivered: 500, duplicates: 125},
		},
		"every fifth comes behind the next one": {
			answer: func(user string, n int, r received) []string {
				switch {
				case n%5 == 0 && n < 100:
					held[user] = r.delivery(user)
					return nil
				case n%5 == 1 && n > 1:
					return []string{r.delivery(user), held[user]}
				default:
					return echo(user, n, r)
				}
			},
			with: func(o *workload.Options) { o.Connections, o.Rate = 1, 200 },
			want: counts{sent: 100, delivered: 100, disordered: 19},
		},
		"every tenth is refused": {
			answer: func(user string, n int, r received) []string {
				if n%10 == 0 {
					return []string{`{"type":"DELIVER_FAILED","data":{"code":"RATE_LIMITED","message":"m"}}`}
				}
				return echo(user, n, r)
			},
			want: counts{delivered: 450, refused: 50}, errors: []string{"RATE_LIMITED"},
		},
		"every hundredth is damaged": {
			answer: func(user string, n int, r received) []string {
				if n%100 == 0 {
					r.Data.Content = r.Data.Content[1:]
				}
				return echo(user, n, r)
			},
			want: counts{delivered: 495, damaged: 5, lost: 5},
		},
		"messages of another run come as well": {
			answer: func(user string, n int, r received) []string {
				other := r
				other.Data.Content = "OTHERRUN" + r.Data.Content[8:]
				return []string{other.delivery(user), r.delivery(user)}
			},
			want: counts{delivered: 500}, errors: []string{"message-of-another-run"},
		},
		"confirmations are lost and come twice": {
			answer: func(user string, n int, r received) []string {
				switch {
				case n%10 == 0:
					return []string{r.delivery(user)}
				case n%10 == 1:
					return []string{r.delivery(user), r.confirmation(), r.confirmation()}
				default:
					return []string{r.delivery(user), r.confirmation()}
				}
			},
			with: func(o *workload.Options) { o.References = true },
			want: counts{delivered: 500, confirmed: 450, unconfirmed: 50, duplicates: 50},
		},
		"acceptances are counted": {
			answer: func(user string, n int, r received) []string {
				return []string{`{"type":"MESSAGE_ACCEPTED","data":{"id":"x"}}`, r.delivery(user)}
			},
			want: counts{delivered: 500, accepted: 500},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options()
			if c.with != nil {
				c.with(&o)
			}
			if c.want.sent == 0 {
				c.want.sent = sentByOptions
			}
			r := run(t, "open", o, &fake{answer: c.answer})
			if got := countsOf(r); got != c.want {
				t.Errorf("got %+v\nexpected %+v; errors: %v", got, c.want, r.Errors)
			}
			for _, code := range c.errors {
				if r.Errors[code] == 0 {
					t.Errorf("no error %s in %v", code, r.Errors)
				}
			}
			if r.Latency.Count == 0 || r.Latency.Max <= 0 || r.Latency.P50 > r.Latency.Max || *r.DeliveryRate <= 0 {
				t.Errorf("got the latencies %+v, %v/s", r.Latency, *r.DeliveryRate)
			}
		})
	}
}

func TestLatencyInAnOpenLoopCountsFromWhenAMessageWasDue(t *testing.T) {
	t.Parallel()
	// The server reads nothing for a while: what was due meanwhile has waited.
	const stall = 200 * time.Millisecond
	o := options()
	o.Connections, o.Size, o.Rate = 1, 60_000, 500
	o.Drain = workload.Span(30 * time.Second)
	r := run(t, "open", o, &fake{answer: func(user string, n int, r received) []string {
		if n == 60 {
			<-time.After(stall)
		}
		return echo(user, n, r)
	}})
	if r.Lost != 0 || r.Unsent != 0 || r.Sent != sentByOptions/2 {
		t.Errorf("got %+v", countsOf(r))
	}
	if r.Latency.Max < 190 {
		t.Errorf("the longest latency is %v ms", r.Latency.Max)
	}
	// Of 200 messages 100 were due in the stall: a loop that waits would have seen one.
	if r.Latency.P90 < 50 {
		t.Errorf("9 of 10 have taken at most %v ms", r.Latency.P90)
	}
}

func TestWhatCannotBeSentIsCounted(t *testing.T) {
	t.Parallel()
	stop := make(chan struct{})
	defer close(stop)
	o := options()
	o.Connections, o.Size, o.Rate = 1, 500_000, 100
	r := run(t, "open", o, &fake{answer: func(user string, n int, r received) []string {
		if n == 1 {
			return echo(user, n, r)
		}
		select { // reads nothing more
		case <-stop:
		case <-t.Context().Done():
		}
		return nil
	}})
	if r.Unsent == 0 || r.Sent+r.Unsent != 50 || r.Lost != r.Sent-1 {
		t.Errorf("got %+v", countsOf(r))
	}
}

func TestAClosedLoopWaitsForItsMessageAndPauses(t *testing.T) {
	t.Parallel()
	o := options()
	o.Rate, o.Pause = 0, workload.Span(20*time.Millisecond)
	r := run(t, "closed", o, &fake{answer: echo})
	// In 500 ms each client can send 25 at most.
	if r.Sent == 0 || r.Sent > 26*5 || r.Deliveries != r.Sent || r.Lost != 0 || r.GivenUp != 0 {
		t.Errorf("got %+v", countsOf(r))
	}
}

func TestAClosedLoopGoesOnWhenAMessageDoesNotCome(t *testing.T) {
	t.Parallel()
	o := options()
	o.Rate, o.Pause, o.Patience = 0, workload.Span(time.Millisecond), workload.Span(20*time.Millisecond)
	r := run(t, "closed", o, &fake{answer: func(user string, n int, r received) []string {
		if n%3 == 0 {
			return nil
		}
		return echo(user, n, r)
	}})
	if r.Lost == 0 || r.GivenUp == 0 || r.Sent != r.Deliveries+r.Lost || r.Sent < 5*4 { // each has sent more than the first 3
		t.Errorf("got %+v, %d given up", countsOf(r), r.GivenUp)
	}
}

func TestAClosedLoopWithReferencesWaitsForConfirmations(t *testing.T) {
	t.Parallel()
	o := options()
	o.Rate, o.Pause, o.References = 0, 0, true
	var early atomic.Int64
	answered := map[string]bool{} // of the one client
	o.Connections = 1
	r := run(t, "closed", o, &fake{answer: func(user string, _ int, r received) []string {
		if len(answered) > 0 && !answered[user] {
			early.Add(1)
		}
		answered[user] = true
		return []string{r.delivery(user), r.confirmation()}
	}})
	if r.Confirmed != r.Sent || r.Unconfirmed != 0 || r.Confirmation.Count == 0 || *r.ConfirmationRate <= 0 || early.Load() > 0 {
		t.Errorf("got %+v, %+v", countsOf(r), r.Confirmation)
	}
}

func TestPingsAreAnsweredAndFramesAcknowledged(t *testing.T) {
	t.Parallel()
	o := options()
	o.Features = []string{"ack"}
	var seq atomic.Int64
	f := &fake{pings: true, answer: func(user string, _ int, r received) []string {
		seq.Add(1)
		return []string{strings.Replace(r.delivery(user), `"MESSAGE"`, `"MESSAGE","seq":7`, 1)}
	}}
	r := run(t, "open", o, f)
	if r.Deliveries != sentByOptions || f.acked.Load() == 0 || f.acked.Load() > sentByOptions || f.pongs.Load() == 0 {
		t.Errorf("got %d deliveries, %d acknowledgements, %d pongs", r.Deliveries, f.acked.Load(), f.pongs.Load())
	}
}

func TestAConnectionThatIsLostIsCounted(t *testing.T) {
	t.Parallel()
	o := options()
	r := run(t, "open", o, &fake{answer: func(user string, n int, r received) []string {
		if n == 50 && strings.HasSuffix(user, "0") {
			return []string{"close"}
		}
		return echo(user, n, r)
	}})
	if r.ConnectionsClosed != 1 || r.Errors["closed-4410"] != 1 || r.Deliveries != 449 || r.Lost+r.Unsent != 51 {
		t.Errorf("got %+v, %d closed, %v", countsOf(r), r.ConnectionsClosed, r.Errors)
	}
}

func TestARunFailsWhenAllConnectionsAreLost(t *testing.T) {
	t.Parallel()
	o := options()
	o.Drain = workload.Span(time.Hour)
	_, err := runOn(t, "open", o, (&fake{answer: func(string, int, received) []string { return []string{"close"} }}).start(t))
	if err == nil || !strings.Contains(err.Error(), "all connections have ended: 5 × closed-4410") {
		t.Errorf("got %v", err)
	}
}

func TestALoginThatIsRefusedEndsTheRun(t *testing.T) {
	t.Parallel()
	_, err := runOn(t, "closed", options(), (&fake{refused: "WRONG_APP"}).start(t))
	if err == nil || !strings.Contains(err.Error(), "log in as ANZ-300") || !strings.Contains(err.Error(), "WRONG_APP") {
		t.Errorf("got %v", err)
	}
}

func TestWhoIsToldToTryAgainDoes(t *testing.T) {
	t.Parallel()
	var attempts atomic.Int64
	r := run(t, "storm", options(), &fake{enter: func(string) websocket.StatusCode {
		if attempts.Add(1) <= 3 {
			return 4503
		}
		return 0
	}})
	if r.LoginRetries != 3 || r.LoginFailures != 3 || r.Errors["login-closed-4503"] != 3 || r.Login.Count != 5 || r.LoginSeconds < 0.4 || r.Login.Max < 400 {
		t.Errorf("got %d retries, %d failures, %v, %+v", r.LoginRetries, r.LoginFailures, r.Errors, r.Login)
	}
}

func TestARunFailsWhenNotAllGetIn(t *testing.T) {
	t.Parallel()
	o := options()
	o.LoginWithin = workload.Span(200 * time.Millisecond)
	_, err := runOn(t, "idle", o, (&fake{enter: func(string) websocket.StatusCode { return 4503 }}).start(t))
	if err == nil || !strings.Contains(err.Error(), "5 of 5 clients have not got in within 200ms; attempts that failed: 5 × closed-4503") {
		t.Errorf("got %v", err)
	}
	_, err = runOn(t, "idle", o, "ws://127.0.0.1:1/ws")
	if err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("got %v", err)
	}
}

func TestIdleConnectionsSendNothing(t *testing.T) {
	t.Parallel()
	o := options()
	o.Settle = workload.Span(10 * time.Millisecond)
	var frames atomic.Int64
	r := run(t, "idle", o, &fake{answer: func(string, int, received) []string { frames.Add(1); return nil }})
	if frames.Load() != 0 || r.Sent != 0 || r.Connections != 5 || r.Login.Count != 5 || r.Seconds < 0.4 || r.Latency != nil {
		t.Errorf("got %d frames, %+v", frames.Load(), r)
	}
}

func TestOptionsThatCannotBeUsedAreNamed(t *testing.T) {
	t.Parallel()
	o := workload.Defaults()
	if err := o.Check(); err != nil {
		t.Fatal(err)
	}
	o.Connections, o.Size, o.Members, o.Concurrency, o.Rate, o.FirstUser, o.Feature = 0, 3, 0, 0, -1, -1, "SLOW"
	o.Pause, o.Duration, o.Features, o.References, o.Confirm = -1, 0, []string{"accept", "fly"}, true, false
	err := o.Check()
	for _, want := range []string{
		"--connections 0: expected 1", "--size 3: expected 42", "--members 0", "--concurrency 0", "--rate -1", "--first-user -1", `--feature "SLOW": expected FAST or RELIABLE`,
		"--pause -1ns", "--duration 0s", `--features "fly": expected accept, ack and push`, "--references and --confirm=false",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("nothing says %s in %v", want, err)
		}
	}
	for _, url := range []string{"", "http://a", "ws://", "ws://u:p@h/", "://"} {
		if err := workload.CheckURL(url); err == nil || !strings.Contains(err.Error(), "expected ws://HOST:PORT/PATH") {
			t.Errorf("%q: got %v", url, err)
		}
	}
}

func TestSpansAreText(t *testing.T) {
	t.Parallel()
	var s workload.Span
	if err := s.UnmarshalText([]byte("1m30s")); err != nil || s.String() != "1m30s" {
		t.Errorf("got %s, %v", s, err)
	}
	if err := s.UnmarshalText([]byte("soon")); err == nil {
		t.Error("soon was taken")
	}
}
