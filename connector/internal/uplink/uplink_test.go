package uplink_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/connector/internal/session"
	"github.com/linkerhq/linker/connector/internal/session/sessiontest"
	"github.com/linkerhq/linker/connector/internal/uplink"
	"github.com/linkerhq/linker/pkg/delivery"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/topology"
	"github.com/linkerhq/linker/pkg/trace"
)

const lanes = 4

// record is what came into the log, with the answer still owed.
type record struct {
	envelope.Envelope
	lane int
	done func(offset int64, err error)
}

// brokers are the log, the live plane, the lanes and the network of the test.
type brokers struct {
	trace   *trace.Log
	records chan record
	fast    chan envelope.Envelope

	mu       sync.Mutex
	refusing error
	away     error
	silent   bool
	full     map[int]bool
	limits   topology.Limits // of ANZ
}

func (b *brokers) Append(lane int, _ string, value []byte, done func(int64, error)) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refusing != nil {
		return b.refusing
	}
	e, err := envelope.Decode(value)
	if err != nil {
		return err
	}
	b.records <- record{e, lane, done}
	return nil
}

func (b *brokers) Publish(subject string, data []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.away != nil {
		return b.away
	}
	for rest := bytes.Clone(data); len(rest) > 0; { // which will be used again
		var record []byte
		var err error
		if record, rest, err = delivery.NextFast(rest); err != nil {
			return fmt.Errorf("%s: %w", subject, err)
		}
		e, err := envelope.Decode(record)
		if err != nil || subject != delivery.FastSubject("domain-01", e.User().Lane(lanes)) {
			return fmt.Errorf("%s: %w", subject, err)
		}
		b.fast <- e
	}
	return nil
}

func (b *brokers) Accepts(lane int) (heard, room bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.silent, !b.full[lane]
}

func (b *brokers) set(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
}

func (b *brokers) Current() *topology.Snapshot {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, err := topology.New(1, topology.Network{
		Domains: []topology.Domain{{Name: "domain-01", URLs: []string{"ws://127.0.0.1:1"}}, {Name: "domain-02", URLs: []string{"ws://127.0.0.1:2"}}},
		Apps: []topology.App{
			{Name: "ANZ", AppID: "a", Master: "ANZ-1", AllowedApps: []string{"CNZ"}, Limits: b.limits},
			{Name: "BNZ", AppID: "b", Master: "BNZ-1"},
			{Name: "CNZ", AppID: "c", Master: "CNZ-1", AllowedApps: []string{"ANZ"}},
		},
		Distributions: []topology.Distribution{{DomainName: "domain-01", From: 0, To: 999}, {DomainName: "domain-02", From: 1000, To: 1999}},
	})
	if err != nil {
		panic(err)
	}
	return s
}

type fixture struct {
	t *testing.T
	*brokers
	u *uplink.Uplink
	s *session.Session
	c *sessiontest.Client
	x *uplink.Sender
}

func newUplink(t *testing.T) (*brokers, *uplink.Uplink) {
	t.Helper()
	b := &brokers{records: make(chan record, 10000), fast: make(chan envelope.Envelope, 1000), full: make(map[int]bool), trace: trace.NewLog(trace.Place{Domain: "domain-01", Name: "c-1"}, 1, nil)}
	u, err := uplink.New(uplink.Config{
		Domain: "domain-01", Connector: ident.Connector{Name: "c-1"}, Lanes: lanes,
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	}, uplink.Deps{Log: b, Plane: b, Lanes: b, Network: b, Trace: b.trace})
	if err != nil {
		t.Fatal(err)
	}
	return b, u
}

func newFixture(t *testing.T, user ident.UserID, features envelope.Features) *fixture {
	t.Helper()
	f := &fixture{t: t}
	f.brokers, f.u = newUplink(t)
	f.s, f.c = sessiontest.New(t, &sessiontest.Proofs{}, func(s *session.Session) session.Identity {
		f.x = f.u.Open(s, 7, user, features)
		return session.Identity{ID: 7, User: user, Lane: user.Lane(lanes), Features: features, Sender: f.x}
	})
	return f
}

// next returns the next record of the log.
func (f *fixture) next() record {
	f.t.Helper()
	select {
	case r := <-f.records:
		return r
	case <-time.After(10 * time.Second):
		f.t.Fatal("nothing came into the log")
		return record{}
	}
}

func (f *fixture) want(parts ...string) {
	f.t.Helper()
	got := f.c.Read()
	for _, part := range parts {
		if !strings.Contains(got, part) {
			f.t.Errorf("got %s, want %s", got, part)
		}
	}
}

func message(to, more string) string {
	return `{"type":"MESSAGE","data":{"to":"` + to + `","content":"x\u00e9"}` + more + `}`
}

func TestAMessageIsARecordOfItsReceiversLane(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "ANZ-2", 0)
	for n := range uint64(3) {
		f.c.Send(message("ANZ-3", `,"reference":"r"`))
		r := f.next()
		want := ident.StreamMessageID(r.Stream, "ANZ-3", n+1)
		if r.Kind != envelope.KindMessage || r.lane != ident.UserID("ANZ-3").Lane(lanes) || r.From != "ANZ-2" || len(r.To) != 1 ||
			r.To[0] != (envelope.Recipient{User: "ANZ-3", N: n + 1}) || r.Stream == 0 || r.ID != want || !r.Confirm || r.Remember || r.Reference != "r" {
			t.Errorf("got %+v", r.Envelope)
		}
		frame := fmt.Sprintf(`{"type":"MESSAGE","data":{"from":"ANZ-2","content":"x\u00e9"},"reference":"r","id":"%s","createdAt":%d}`, want, r.CreatedAt)
		if string(r.Frame) != frame {
			t.Errorf("got %s\nwant %s", r.Frame, frame)
		}
		r.done(1, nil)
	}
}

func TestConfirmationsAreForNamedDirectMessagesOnly(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "ANZ-2", 0)
	for _, frame := range []string{
		message("ANZ-3", ""), message("ANZ-3", `,"reference":" \t"`), message("ANZ-3", `,"reference":"r","confirmationEnabled":false`),
		`{"type":"GROUP_MESSAGE","data":{"to":["ANZ-3"],"content":"x"},"reference":"r"}`,
	} {
		f.c.Send(frame)
		if r := f.next(); r.Confirm {
			t.Errorf("%s: wants a confirmation", frame)
		}
	}
}

func TestAcceptedMeansAcknowledged(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "ANZ-2", envelope.FeatureAccept)
	f.c.Send(message("ANZ-3", `,"reference":"r1"`))
	f.c.Send(message("ANZ-3", `,"reference":"r2"`))
	first, second := f.next(), f.next()
	second.done(0, errors.New("refused"))
	f.want("DELIVER_FAILED", "QUEUE_UNAVAILABLE", `"retryable":true,"retryAfterMs":1000`, `"reference":"r2"`)
	first.done(1, nil)
	f.want(`{"type":"MESSAGE_ACCEPTED","data":{"reference":"r1","id":"` + first.ID.String() + `"}}`)
}

func TestAClientIDNamesTheMessage(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "ANZ-2", envelope.FeatureAccept)
	for range 2 {
		f.c.Send(message("ANZ-3", `,"id":"mine"`))
		r := f.next()
		if r.ID != ident.ClientMessageID("ANZ-2", "ANZ-3", "mine") || !r.Remember {
			t.Errorf("got %+v", r.Envelope)
		}
	}
	f.c.Send(message("ANZ-3", `,"id":7,"reference":"r"`))
	f.want("INVALID_MESSAGE", "INVALID_FIELD", "id: 7", `"reference":"r"`)
}

func TestWithoutTheFeatureAnIDIsAnUnknownField(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "ANZ-2", 0)
	for _, id := range []string{`7`, `"mine"`} {
		f.c.Send(message("ANZ-3", `,"id":`+id))
		if r := f.next(); r.Remember {
			t.Errorf("id %s was taken", id)
		}
	}
}

func TestWhoeverCannotBeReachedIsNamed(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "ANZ-2", 0)
	group := func(to string) string {
		return `{"type":"GROUP_MESSAGE","data":{"to":["ANZ-3",` + to + `],"content":"x"}}`
	}
	for _, test := range []struct{ in, code, says string }{
		{message("XXX-1", `,"reference":"r"`), "UNKNOWN_APP", `"reference":"r"`},
		{message("BNZ-5", ""), "FORBIDDEN_APP", "BNZ-5"},
		{message("ANZ-1500", ""), "NO_ROUTE", "domain-02"},
		{message("ANZ-1500", `,"feature":"FAST"`), "NO_ROUTE", "domain-02"},
		{group(`"XXX-1"`), "UNKNOWN_APP", "XXX-1"},
		{group(`"BNZ-5"`), "FORBIDDEN_APP", "BNZ-5"},
		{group(`"ANZ-1500"`), "NO_ROUTE", "ANZ-1500"},
		{`{"type":"CLOSE_CONNECTION","data":{"userId":"ANZ-3"}}`, "FORBIDDEN", "master"},
	} {
		f.c.Send(test.in)
		f.want("DELIVER_FAILED", `"code":"`+test.code+`"`, test.says, `"retryable":false`)
	}
	f.c.Send(message("CNZ-5", ""))
	if r := f.next(); r.User() != "CNZ-5" {
		t.Errorf("got %+v", r.Envelope)
	}
}

func TestAGroupIsOneRecordALane(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "ANZ-2", envelope.FeatureAccept)
	members := make([]string, 40)
	inLanes := make(map[int]int)
	for i := range members {
		user := fmt.Sprintf("ANZ-%d", i+10)
		members[i] = `"` + user + `"`
		inLanes[ident.UserID(user).Lane(lanes)]++
	}
	f.c.Send(`{"type":"GROUP_MESSAGE","data":{"to":[` + strings.Join(members, ",") + `],"content":"x"},"reference":"g"}`)
	var records []record
	for range inLanes {
		r := f.next()
		if len(r.To) != inLanes[r.lane] || r.ID != ident.GroupMessageID(r.Stream, 1) {
			t.Errorf("lane %d: %d members, id %s", r.lane, len(r.To), r.ID)
		}
		for _, to := range r.To {
			if to.N != 1 || to.User.Lane(lanes) != r.lane {
				t.Errorf("lane %d holds %+v", r.lane, to)
			}
		}
		records = append(records, r)
	}
	for _, r := range records {
		r.done(1, nil)
	}
	f.want("MESSAGE_ACCEPTED", `"reference":"g"`)
	f.c.Send(message("ANZ-10", ""))
	if r := f.next(); r.To[0].N != 2 {
		t.Errorf("a direct message behind the group has n %d", r.To[0].N)
	}
}

func TestAGroupThatFailsInOneLaneFails(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "ANZ-2", envelope.FeatureAccept)
	f.c.Send(`{"type":"GROUP_MESSAGE","data":{"to":["ANZ-3","ANZ-4","ANZ-5","ANZ-6","ANZ-7","ANZ-8"],"content":"x"}}`)
	first, second := f.next(), f.next()
	first.done(0, errors.New("refused"))
	second.done(1, nil)
	for done := len(first.To) + len(second.To); done < 6; {
		r := f.next()
		done += len(r.To)
		r.done(1, nil)
	}
	f.want("DELIVER_FAILED", "QUEUE_UNAVAILABLE")
}

// What waits for the log is used again for later messages: each is answered with its own
// reference, id and outcome, in whatever order the log answers.
func TestEachMessageGetsItsOwnAnswer(t *testing.T) {
	t.Parallel()
	const messages, each = 600, 5 // every fifth fails
	f := newFixture(t, "ANZ-2", envelope.FeatureAccept)
	ids := make(chan [2]string, 10*messages)
	var answering sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for range 3 {
		answering.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case r := <-f.records:
					ids <- [2]string{r.Reference, r.ID.String()}
					n, err := strconv.Atoi(r.Reference)
					if err == nil && n%each == 0 {
						err = errors.New("refused")
					}
					r.done(int64(n), err)
				}
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		answering.Wait()
	})
	answers := make(map[string]string)
	for n := range messages {
		if n%3 == 0 {
			f.c.Send(fmt.Sprintf(`{"type":"GROUP_MESSAGE","data":{"to":["ANZ-3","ANZ-4","ANZ-5","ANZ-6","ANZ-%d"],"content":"x"},"reference":"%d"}`, 10+n%100, n))
		} else {
			f.c.Send(message(fmt.Sprintf("ANZ-%d", 3+n%7), fmt.Sprintf(`,"reference":"%d"`, n)))
		}
		if n < 50 { // so many are under way
			continue
		}
		f.answer(answers)
	}
	for range 50 {
		f.answer(answers)
	}
	for len(ids) > 0 {
		record := <-ids
		n, err := strconv.Atoi(record[0])
		if err != nil {
			t.Fatal(err)
		}
		want := record[1]
		if n%each == 0 {
			want = "QUEUE_UNAVAILABLE"
		}
		if answers[record[0]] != want {
			t.Errorf("message %d was answered with %q, want %q", n, answers[record[0]], want)
		}
	}
	if len(answers) != messages {
		t.Errorf("%d answers for %d messages", len(answers), messages)
	}
}

// answer reads an answer and notes, by reference, its id or its code.
func (f *fixture) answer(answers map[string]string) {
	f.t.Helper()
	var got struct {
		Data      struct{ Reference, ID, Code string }
		Reference string
	}
	if err := json.Unmarshal([]byte(f.c.Read()), &got); err != nil {
		f.t.Fatal(err)
	}
	reference := got.Data.Reference + got.Reference
	if _, twice := answers[reference]; twice {
		f.t.Errorf("%s was answered twice", reference)
	}
	answers[reference] = got.Data.ID + got.Data.Code
}

func TestAFailedRecordBeginsANewStream(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "ANZ-2", 0)
	f.c.Send(message("ANZ-3", ""))
	first := f.next()
	first.done(1, nil)
	f.set(func() { f.refusing = errors.New("away") })
	f.c.Send(message("ANZ-3", ""))
	f.want("QUEUE_UNAVAILABLE")
	f.set(func() { f.refusing = nil })
	f.c.Send(message("ANZ-3", ""))
	if r := f.next(); r.Stream == first.Stream || r.To[0].N != 1 {
		t.Errorf("stream %x after %x, n %d", r.Stream, first.Stream, r.To[0].N)
	}
}

func TestFastGoesOverTheLivePlane(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "ANZ-2", envelope.FeatureAccept)
	for n := range uint64(3) {
		f.c.Send(message("ANZ-3", `,"feature":"FAST","reference":"r"`))
		e := <-f.fast
		if e.Kind != envelope.KindMessage || !e.Confirm || e.To[0].N != n+1 || e.ID != ident.StreamMessageID(e.Stream, "ANZ-3", n+1) || e.From != "ANZ-2" {
			t.Errorf("got %+v", e)
		}
	}
	// The room that one message was written in is used for the next.
	for _, text := range []string{"a long text", "", "short"} {
		f.c.Send(`{"type":"GROUP_MESSAGE","data":{"to":["ANZ-3","ANZ-4","ANZ-5","ANZ-6","ANZ-7"],"content":"` + text + `"},"feature":"FAST"}`)
		members := 0
		for members < 5 {
			e := <-f.fast
			frame := fmt.Sprintf(`{"type":"MESSAGE","data":{"from":"ANZ-2","content":"%s"},"id":"%s","createdAt":%d}`, text, e.ID, e.CreatedAt)
			if string(e.Frame) != frame || e.Confirm || e.Reference != "" {
				t.Errorf("got %s, want %s", e.Frame, frame)
			}
			for _, to := range e.To {
				if to.User.Lane(lanes) != e.User().Lane(lanes) || to.N != e.To[0].N {
					t.Errorf("got %+v beside %+v", to, e.To[0])
				}
				members++
			}
		}
	}
	f.set(func() { f.away = errors.New("away") })
	f.c.Send(message("ANZ-3", `,"feature":"FAST","reference":"r"`))
	f.want("DELIVER_FAILED", "QUEUE_UNAVAILABLE", `"reference":"r"`)
	f.set(func() { f.away, f.silent = nil, true })
	f.c.Send(message("ANZ-3", `,"feature":"FAST","reference":"s"`))
	f.want("DELIVER_FAILED", "QUEUE_UNAVAILABLE", `"reference":"s"`)
}

func TestAFullLaneAcceptsNothingReliable(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "ANZ-2", 0)
	f.set(func() { f.full[ident.UserID("ANZ-3").Lane(lanes)] = true })
	f.c.Send(message("ANZ-3", ""))
	f.want("DELIVER_FAILED", "QUEUE_UNAVAILABLE", "retryAfterMs")
	f.c.Send(message("ANZ-3", `,"feature":"FAST"`))
	<-f.fast
}

func TestTheMasterClosesConnections(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "ANZ-1", 0)
	f.c.Send(`{"type":"CLOSE_CONNECTION","data":{"userId":"ANZ-3"},"reference":"r"}`)
	r := f.next()
	if r.Kind != envelope.KindClose || r.User() != "ANZ-3" || r.From != "ANZ-1" || r.Reference != "r" || r.lane != ident.UserID("ANZ-3").Lane(lanes) {
		t.Errorf("got %+v", r.Envelope)
	}
	r.done(0, errors.New("refused"))
	f.want("DELIVER_FAILED", "QUEUE_UNAVAILABLE")
	for user, code := range map[string]string{"BNZ-3": "FORBIDDEN", "CNZ-3": "FORBIDDEN", "XXX-3": "UNKNOWN_APP", "ANZ-1500": "NO_ROUTE"} {
		f.c.Send(`{"type":"CLOSE_CONNECTION","data":{"userId":"` + user + `"}}`)
		f.want("DELIVER_FAILED", `"code":"`+code+`"`)
	}
}

func TestFetchesAreServedOneAfterAnother(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "ANZ-2", 0)
	fetch := func(count int) string {
		return fmt.Sprintf(`{"type":"FETCH_MISSING_MESSAGES_REQUEST","data":{"count":%d},"reference":"f%d"}`, count, count)
	}
	for n := range 17 {
		f.c.Send(fetch(n + 1))
	}
	f.c.Send(fetch(18))
	f.want("INVALID_MESSAGE", "RATE_LIMITED", `"reference":"f18"`)
	for n := range 16 {
		r := f.next()
		if r.Kind != envelope.KindFetch || r.Session != 7 || r.Request != uint64(n+1) || r.Count != n+1 || r.User() != "ANZ-2" || r.Connector.Name != "c-1" {
			t.Errorf("got %+v", r.Envelope)
		}
		if len(f.records) > 0 {
			t.Fatal("two fetches at once")
		}
		r.done(1, nil)
		f.x.FetchDone(99) // of nobody
		f.x.FetchDone(r.Request)
	}
	f.next().done(0, errors.New("refused"))
	f.want("DELIVER_FAILED", "QUEUE_UNAVAILABLE", `"reference":"f17"`)
}

func TestANewOwnerIsAskedForTheRestOfAFetch(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "ANZ-2", 0)
	f.s.LoggedIn(envelope.Position{Generation: 1, Offset: 100})
	f.x.OwnerChanged()
	f.c.Send(`{"type":"FETCH_MISSING_MESSAGES_REQUEST","data":{"count":10}}`)
	first := f.next()
	for d, offset := range []int64{1, 2, 200} { // two fetched, one live
		it := delivery.Item{Kind: delivery.KindFrame, ID: ident.MessageID{byte(d + 1)}, Pos: envelope.Position{Generation: 1, Offset: offset}, Frame: []byte(`{}`)}
		f.s.Deliver(&it, delivery.Target{Session: 7, User: "ANZ-2", D: uint64(d + 1)})
	}
	f.x.OwnerChanged()
	if r := f.next(); r.Request != first.Request || r.Count != 8 {
		t.Errorf("got request %d for %d", r.Request, r.Count)
	}
	if len(f.records) > 0 {
		t.Error("the owner was asked without a fetch")
	}
}

func TestLoginAndLogoutAreRecordsOfTheUsersLane(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "ANZ-2", envelope.FeatureAccept)
	f.x.Leave()
	if len(f.records) > 0 {
		t.Error("a logout without a login")
	}
	entered := make(chan error)
	go func() { entered <- f.x.Enter(t.Context()) }()
	r := f.next()
	if r.Kind != envelope.KindLogin || r.Session != 7 || r.User() != "ANZ-2" || r.Features != envelope.FeatureAccept || r.Connector.Name != "c-1" || r.lane != ident.UserID("ANZ-2").Lane(lanes) {
		t.Errorf("got %+v", r.Envelope)
	}
	r.done(1, nil)
	if err := <-entered; err != nil {
		t.Error(err)
	}
	f.x.Leave()
	if r := f.next(); r.Kind != envelope.KindLogout || r.Session != 7 {
		t.Errorf("got %+v", r.Envelope)
	}
}

func TestALoginThatMayBeInTheLogIsFollowedByALogout(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "ANZ-2", 0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.x.Enter(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	f.next()
	f.x.Leave()
	if r := f.next(); r.Kind != envelope.KindLogout {
		t.Errorf("got %+v", r.Envelope)
	}
}

func TestALogoutIsRepeatedUntilTheLogHasIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, u := newUplink(t)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { u.Run(ctx) })
		x := u.Open(new(session.Session), 7, "ANZ-2", 0)
		go func() { (<-b.records).done(1, nil) }()
		if err := x.Enter(ctx); err != nil {
			t.Fatal(err)
		}
		b.set(func() { b.refusing = errors.New("away") })
		x.Leave()
		time.Sleep(10 * time.Second)
		short, cancelShort := context.WithTimeout(ctx, time.Second)
		defer cancelShort()
		if err := u.Settled(short); err == nil {
			t.Error("settled with a logout left")
		}
		b.set(func() { b.refusing = nil })
		(<-b.records).done(0, errors.New("refused"))
		(<-b.records).done(1, nil)
		if err := u.Settled(ctx); err != nil {
			t.Error(err)
		}
		cancel()
		running.Wait()
	})
}

// Whatever a socket sends counts, whether it could be delivered or not; the answer
// says when to come back. The limit follows the network.
func TestAboveItsLimitASocketIsToldToWait(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "ANZ-1", envelope.FeatureAccept)
	f.set(func() { f.limits.Socket = topology.Limit{PerSecond: 1, Burst: 100} })
	for range 100 {
		f.c.Send(message("XXX-1", ""))
		f.want("UNKNOWN_APP")
	}
	for began := time.Now(); ; { // a turn comes every second
		f.c.Send(message("XXX-1", ""))
		if strings.Contains(f.c.Read(), "RATE_LIMITED") {
			break
		}
		if time.Since(began) > 10*time.Second {
			t.Fatal("nothing is refused")
		}
	}
	refused := 0
	for _, frame := range []string{
		message("ANZ-3", `,"reference":"r"`), message("ANZ-3", `,"reference":"r","feature":"FAST"`),
		`{"type":"GROUP_MESSAGE","data":{"to":["ANZ-3","ANZ-4"],"content":"x"},"reference":"r"}`,
		`{"type":"CLOSE_CONNECTION","data":{"userId":"BNZ-3"},"reference":"r"}`,
		`{"type":"FETCH_MISSING_MESSAGES_REQUEST","data":{"count":1},"reference":"r"}`,
	} {
		f.set(func() { f.limits.Socket = topology.Limit{PerSecond: 1, Burst: 1} }) // behind it there is at least a second
		f.c.Send(message("XXX-1", ""))
		f.c.Read()
		began := time.Now()
		f.c.Send(frame)
		f.c.Send(message("XXX-1", `,"reference":"end"`))
		got := f.c.Read()
		if strings.Contains(got, `"reference":"end"`) && time.Since(began) > 900*time.Millisecond {
			continue // the machine was so slow that it was in time
		}
		refused++
		for _, part := range []string{"DELIVER_FAILED", `"code":"RATE_LIMITED"`, "one socket", "at most 1 in a second, 1 at once", `"retryable":true,"retryAfterMs":`, `"reference":"r"`} {
			if !strings.Contains(got, part) {
				t.Errorf("%s: got %s, want %s", frame, got, part)
			}
		}
		f.want(`"reference":"end"`)
	}
	if refused == 0 {
		t.Error("nothing was refused")
	}
}

func TestAnAppsLimitIsSharedAndTakesNothingFromTheSocket(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "ANZ-2", 0)
	f.set(func() {
		f.limits = topology.Limits{App: topology.Limit{PerSecond: 1, Burst: 1}, Socket: topology.Limit{PerSecond: 1, Burst: 100}}
	})
	_, c := sessiontest.New(t, &sessiontest.Proofs{}, func(s *session.Session) session.Identity {
		return session.Identity{ID: 8, User: "ANZ-5", Sender: f.u.Open(s, 8, "ANZ-5", 0)}
	})
	_, d := sessiontest.New(t, &sessiontest.Proofs{}, func(s *session.Session) session.Identity {
		return session.Identity{ID: 9, User: "CNZ-5", Sender: f.u.Open(s, 9, "CNZ-5", 0)}
	})
	began := time.Now()
	c.Send(message("ANZ-3", ""))
	f.next()
	f.set(func() { f.refusing = errors.New("away") }) // what is let through after all is answered, too
	for range 300 {
		f.c.Send(message("ANZ-3", ""))
		got := f.c.Read()
		if time.Since(began) > 900*time.Millisecond {
			break // a turn may have come: fewer had to do
		}
		if !strings.Contains(got, "RATE_LIMITED") || !strings.Contains(got, "all sockets of the app together") {
			t.Fatalf("got %s", got)
		}
	}
	f.set(func() { f.refusing = nil })
	for range 3 {
		d.Send(message("CNZ-3", ""))
		f.next()
	}
	f.set(func() { f.limits.App = topology.Limit{} })
	for range 50 { // refusals of the app have taken nothing
		f.c.Send(message("ANZ-3", ""))
		f.next()
	}
}
