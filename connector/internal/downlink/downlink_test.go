package downlink_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/connector/internal/downlink"
	"github.com/linkerhq/linker/connector/internal/roster"
	"github.com/linkerhq/linker/connector/internal/session"
	"github.com/linkerhq/linker/connector/internal/session/sessiontest"
	"github.com/linkerhq/linker/pkg/delivery"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/trace"
	"github.com/linkerhq/linker/pkg/wire"
)

// plane is a live plane within the test: what is published comes out of a
// channel, what the lane sends is handed to the handlers.
type plane struct {
	answers    chan delivery.Answers
	subscribed chan struct{}
	refused    chan struct{}

	mu       sync.Mutex
	handlers map[string]func([]byte)
	away     bool
}

func (p *plane) Publish(_ string, data []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.away {
		p.refused <- struct{}{}
		return errors.New("away")
	}
	a, err := delivery.DecodeAnswers(data)
	if err != nil {
		return err
	}
	p.answers <- a
	return nil
}

func (p *plane) Subscribe(subject string, handle func([]byte)) (func() error, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.handlers[subject] = handle
	p.subscribed <- struct{}{}
	return func() error { return nil }, nil
}

func (p *plane) SubscribeMore(subject string, _ int, handle func([]byte, bool)) (func() error, error) {
	return p.Subscribe(subject, func(data []byte) { handle(data, false) })
}

func (p *plane) setAway(away bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = away
}

func (p *plane) handler(subject string) func([]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.handlers[subject]
}

type noSender struct{ session.Sender }

type fixture struct {
	t       *testing.T
	plane   *plane
	roster  *roster.Roster
	d       *downlink.Downlink
	self    ident.Connector
	changed chan int
	proofs  *sessiontest.Proofs
	trace   *trace.Log
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{
		t: t, plane: &plane{
			answers: make(chan delivery.Answers, 1000), subscribed: make(chan struct{}, 2), refused: make(chan struct{}, 1000),
			handlers: make(map[string]func([]byte)),
		},
		roster: roster.New(2), self: ident.Connector{Name: "c-1"}, changed: make(chan int, 10), proofs: &sessiontest.Proofs{},
		trace: trace.NewLog(trace.Place{Domain: "d", Name: "c-1"}, 1, nil),
	}
	var err error
	f.d, err = downlink.New(downlink.Config{
		Domain: "d", Connector: f.self, Lanes: 2, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
		OwnerChanged: func(lane int) { f.changed <- lane }, Trace: f.trace,
	}, f.plane, f.roster)
	if err != nil {
		t.Fatal(err)
	}
	f.proofs.Target = f.d
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { _ = f.d.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	<-f.plane.subscribed
	<-f.plane.subscribed
	return f
}

// login makes a session on lane 1.
func (f *fixture) login(id uint64) (*session.Session, *sessiontest.Client) {
	f.t.Helper()
	s, c := sessiontest.New(f.t, f.proofs, func(*session.Session) session.Identity {
		return session.Identity{ID: id, User: "ANZ-1", Lane: 1, Sender: noSender{}}
	})
	f.roster.Add(s)
	return s, c
}

func (f *fixture) deliver(e int64, items ...delivery.Item) {
	b := delivery.Batch{Lane: 1, Epoch: epoch(e), Items: items}
	f.plane.handler(delivery.ConnectorSubject("d", f.self, 1))(b.Append(nil))
}

func (f *fixture) announce(a delivery.Announcement) {
	a.Lane = 1
	f.plane.handler(delivery.EpochSubject("d"))(a.Append(nil))
}

// answer returns the next answers of which want is true.
func (f *fixture) answer(what string, want func(delivery.Answers) bool) delivery.Answers {
	f.t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		select {
		case a := <-f.plane.answers:
			if want(a) {
				return a
			}
		case <-timeout:
			f.t.Fatalf("no answer: %s", what)
		}
	}
}

func progress(want delivery.Progress) func(delivery.Answers) bool {
	return func(a delivery.Answers) bool { return slices.Contains(a.Progress, want) }
}

func epoch(n int64) envelope.Position { return envelope.Position{Generation: 1, Offset: n} }

func frame(session, d uint64, id byte) delivery.Item {
	return delivery.Item{
		Kind: delivery.KindFrame, ID: ident.MessageID{id}, Pos: epoch(int64(d)), Frame: []byte(`{"type":"MESSAGE"}`),
		Targets: []delivery.Target{{Session: session, User: "ANZ-1", D: d}},
	}
}

func TestWhatIsTakenAndProvedIsTold(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	_, c := f.login(7)
	c.Drain()
	f.deliver(5, frame(7, 1, 1), frame(7, 2, 2))
	f.answer("proved", progress(delivery.Progress{Session: 7, Taken: 2, Proved: 2}))
}

func TestWhatIsOnlyTakenIsToldSoon(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.login(7) // its client reads nothing, so nothing is proved
	f.deliver(5, frame(7, 1, 1))
	a := f.answer("taken", progress(delivery.Progress{Session: 7, Taken: 1}))
	if a.Lane != 1 || a.Epoch != epoch(5) || a.Connector != f.self || a.Join.Parts > 0 {
		t.Errorf("got %+v", a)
	}
}

func TestAGapIsRefusedUntilItIsFilled(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.login(7)
	f.deliver(5, frame(7, 1, 1), frame(7, 3, 3))
	f.answer("gap", progress(delivery.Progress{Session: 7, Taken: 1, Gap: true}))
	f.deliver(5, frame(7, 2, 2), frame(7, 3, 3))
	f.answer("filled", progress(delivery.Progress{Session: 7, Taken: 3}))
}

func TestWhatComesAgainIsAnsweredAndNotWritten(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s, _ := f.login(7)
	f.deliver(5, frame(7, 1, 1))
	f.answer("taken", progress(delivery.Progress{Session: 7, Taken: 1}))
	f.deliver(5, frame(7, 1, 1))
	f.answer("again", progress(delivery.Progress{Session: 7, Taken: 1}))
	if p := s.Progress(); p.Taken != 1 {
		t.Errorf("got %+v", p)
	}
}

func TestUnknownSessionsAndOtherUsersAreGone(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.login(7)
	other := frame(7, 1, 1)
	other.Targets[0].User = "ANZ-2"
	in := delivery.Item{Kind: delivery.KindLoggedIn, Targets: []delivery.Target{{Session: 9, User: "ANZ-1"}}}
	f.deliver(5, frame(8, 1, 1), other, in)
	want := []uint64{7, 8, 9}
	f.answer("gone", func(a delivery.Answers) bool {
		want = slices.DeleteFunc(want, func(id uint64) bool { return slices.Contains(a.Gone, id) })
		return len(want) == 0
	})
}

// What a session that ends in good order has not proved is freed by its logout, and
// not before: its client may be about to prove it.
func TestASessionThatIsPartingIsNotGone(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s, _ := f.login(1)
	f.deliver(1, frame(1, 1, 1))
	s.End(wire.CloseRestarting, session.CauseShutdown)
	f.deliver(1, frame(1, 2, 2), frame(9, 1, 1))
	got := f.answer("only the other one", func(a delivery.Answers) bool { return len(a.Gone) > 0 })
	if len(got.Gone) != 1 || got.Gone[0] != 9 {
		t.Errorf("got %v, want only 9", got.Gone)
	}
}

func TestAnEarlierEpochIsIgnored(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s, _ := f.login(7)
	f.announce(delivery.Announcement{Epoch: epoch(6)})
	f.deliver(5, frame(7, 1, 1))
	f.announce(delivery.Announcement{Epoch: epoch(5), Full: true})
	if p := s.Progress(); p.Taken != 0 {
		t.Errorf("taken from an earlier owner: %+v", p)
	}
	if heard, room := f.d.Accepts(1); !heard || !room {
		t.Errorf("an earlier owner is listened to")
	}
	f.deliver(7, frame(7, 1, 1))
	f.deliver(6, frame(7, 2, 2))
	if p := s.Progress(); p.Taken != 1 {
		t.Errorf("a delivery did not raise the epoch: %+v", p)
	}
}

func TestANewOwnerIsToldAllSessions(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s, _ := f.login(7)
	s.LoggedIn(epoch(3))
	f.deliver(5, frame(7, 1, 1))
	joined := func(a delivery.Answers) bool { return a.Join.Parts > 0 }
	f.announce(delivery.Announcement{Epoch: epoch(6), Joining: true})
	a := f.answer("joining", joined)
	if a.Epoch != epoch(6) || len(a.Sessions) != 1 {
		t.Fatalf("got %+v", a)
	}
	if got := a.Sessions[0]; got.Session != 7 || got.Taken != 1 || got.User != "ANZ-1" || got.L != epoch(3) || len(got.Unproved) != 1 || got.Unproved[0].ID != (ident.MessageID{1}) {
		t.Errorf("got %+v", got)
	}
	f.announce(delivery.Announcement{Epoch: epoch(6), Joining: true})
	f.answer("joining, asked again", joined)
	if len(f.changed) != 0 {
		t.Error("the new owner does not deliver yet")
	}
	f.announce(delivery.Announcement{Epoch: epoch(6)})
	if lane := <-f.changed; lane != 1 {
		t.Errorf("lane %d has changed hands", lane)
	}
	f.announce(delivery.Announcement{Epoch: epoch(6)})
	f.announce(delivery.Announcement{Epoch: epoch(8)})
	f.answer("an owner that skipped joining", joined)
	if lane := <-f.changed; lane != 1 || len(f.changed) != 0 {
		t.Errorf("lane %d, and %d more", lane, len(f.changed))
	}
}

func TestReadyMeansThatEveryLaneIsServed(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	announce := func(lane int, joining bool) {
		a := delivery.Announcement{Lane: lane, Epoch: epoch(1), Joining: joining}
		f.plane.handler(delivery.EpochSubject("d"))(a.Append(nil))
	}
	if f.d.Ready() == nil {
		t.Error("ready without any owner")
	}
	announce(0, false)
	announce(1, true)
	if f.d.Ready() == nil {
		t.Error("ready while an owner joins")
	}
	announce(1, false)
	if err := f.d.Ready(); err != nil {
		t.Error(err)
	}
}

func TestAFullLaneHasNoRoom(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	if heard, room := f.d.Accepts(1); heard || !room {
		t.Errorf("before any announcement: heard %v, room %v", heard, room)
	}
	f.announce(delivery.Announcement{Epoch: epoch(1), Full: true})
	if heard, room := f.d.Accepts(1); !heard || room {
		t.Errorf("full: heard %v, room %v", heard, room)
	}
}

func TestTokensOfFastDeliveriesComeBack(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	_, c := f.login(7)
	c.Drain()
	f.deliver(5, delivery.Item{Kind: delivery.KindFast, Token: 99, Frame: []byte(`{}`), Targets: []delivery.Target{{Session: 7, User: "ANZ-1"}}})
	f.answer("token", func(a delivery.Answers) bool { return slices.Contains(a.FastProved, 99) })
}

func TestAnswersWaitForTheLivePlane(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.login(7)
	f.plane.setAway(true)
	f.deliver(5, frame(7, 2, 1), frame(8, 1, 1))
	<-f.plane.refused
	f.plane.setAway(false)
	f.answer("gap and gone", func(a delivery.Answers) bool {
		return slices.Contains(a.Gone, 8) && slices.Contains(a.Progress, delivery.Progress{Session: 7, Gap: true})
	})
}

func TestLoggedInIsToldToTheSession(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s, _ := f.login(7)
	f.deliver(5, delivery.Item{Kind: delivery.KindLoggedIn, Pos: epoch(4), Targets: []delivery.Target{{Session: 7, User: "ANZ-1"}}})
	<-s.Known()
	if l := s.State().L; l != epoch(4) {
		t.Errorf("got %v", l)
	}
}

func TestWhatIsNotUnderstoodIsPassedOver(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s, _ := f.login(7)
	f.plane.handler(delivery.ConnectorSubject("d", f.self, 1))([]byte("?"))
	f.plane.handler(delivery.EpochSubject("d"))([]byte("?"))
	outside := delivery.Batch{Lane: 2, Epoch: epoch(1)}
	f.plane.handler(delivery.ConnectorSubject("d", f.self, 1))(outside.Append(nil))
	f.deliver(5, frame(7, 1, 1))
	if p := s.Progress(); p.Taken != 1 {
		t.Errorf("got %+v", p)
	}
}
