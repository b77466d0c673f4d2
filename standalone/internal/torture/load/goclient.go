package load

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/linkerhq/linker/pkg/client"
	"github.com/linkerhq/linker/standalone/internal/torture/history"
)

const (
	goMinPause = 50 * time.Millisecond
	// lines are how many messages of one Go client are sent at the same time, each
	// to receivers of its own.
	lines = 6
)

// visit is one Go client from Connect to Close.
type visit struct {
	*client.Client
	load    *Load
	user    *user
	session int64
	asked   int64
	opened  sync.Once
	got     atomic.Int64
}

// connect makes a Go client, which comes back by itself as long as it lives.
func (l *Load) connect(ctx context.Context, u *user) (*visit, error) {
	v := &visit{load: l, user: u, session: l.sessions.Add(1), asked: l.cfg.History.Now()}
	u.mu.Lock()
	urls := slices.Clone(u.urls)
	first := u.place % len(urls)
	u.mu.Unlock()
	var err error
	v.Client, err = client.Connect(ctx, client.Config{
		URLs: slices.Concat(urls[first:], urls[:first]), AppID: u.app.ID, UserID: u.id,
		MinPause: goMinPause, MaxPause: maxPause, Memory: u.memory,
		Confirmed: func(c client.Confirmation) {
			v.open()
			l.confirmed(u, v.session, c.Reference, c.ID)
			v.got.Add(1)
		},
		Failed: v.failed,
	})
	if err != nil {
		if ctx.Err() == nil {
			l.write(history.Op{Kind: history.KindStrange, User: u.id, Note: "the client gave up: " + shortened(err.Error())})
		}
		v.ended(history.Op{Broken: true})
		return nil, err
	}
	v.open()
	return v, nil
}

func (v *visit) open() {
	v.opened.Do(func() {
		v.load.ledger.count(v.user.id, 1)
		v.load.write(history.Op{
			Kind: history.KindOpen, User: v.user.id, Session: v.session, Client: history.ClientGo,
			Features: []string{featureAccept, featureAck, featurePush}, Asked: v.asked,
		})
	})
}

func (v *visit) failed(f client.Failure) {
	v.open()
	n, _, ok := parseReference(f.Reference)
	if !ok {
		v.load.write(history.Op{Kind: history.KindStrange, User: v.user.id, Session: v.session, Note: f.Code + ": " + shortened(f.Message)})
		return
	}
	v.load.write(history.Op{Kind: history.KindFailed, User: v.user.id, Session: v.session, N: n, Code: f.Code})
	v.load.ledger.fail(message{v.user.id, n})
}

// close ends the client. What it has taken was acknowledged.
func (v *visit) close() {
	final := v.Err()
	_ = v.Close() // has no errors
	op := history.Op{Proved: v.got.Load()}
	if final != nil {
		op.Note = shortened(final.Error())
		v.load.write(history.Op{Kind: history.KindStrange, User: v.user.id, Session: v.session, Note: "the client gave up: " + op.Note})
	}
	v.ended(op)
}

// ended writes down that the client has ended, if it was ever there.
func (v *visit) ended(op history.Op) {
	there := true
	v.opened.Do(func() { there = false })
	if !there {
		return
	}
	op.Kind, op.User, op.Session = history.KindClose, v.user.id, v.session
	v.load.write(op)
	v.load.ledger.count(v.user.id, -1)
}

// until returns a context that also ends when done is closed.
func until(ctx context.Context, done <-chan struct{}) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-done:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// goReceiver takes what comes for a user with one Go client after another.
type goReceiver struct{ receiver }

func (r *goReceiver) run(ctx context.Context) {
	ctx, cancel := until(ctx, r.load.leaving.done)
	defer cancel()
	for ctx.Err() == nil {
		v, err := r.load.connect(ctx, r.user)
		if err != nil {
			pause(ctx, between(r.random, 0, maxPause), nil)
			continue
		}
		r.take(ctx, v)
		v.close()
		r.away(ctx, false)
	}
}

// take takes messages until the visit is over.
func (r *goReceiver) take(ctx context.Context, v *visit) {
	if r.goes() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, between(r.random, visitLeast, visitMost))
		defer cancel()
	}
	for m, err := range v.Messages(ctx) {
		if err != nil {
			return
		}
		r.load.delivered(r.user, v.session, m.From, m.Content, history.Op{ID: m.ID, Late: m.Late})
		v.got.Add(1)
	}
}

// goSender sends with one Go client.
type goSender struct {
	load   *Load
	user   *user
	pace   time.Duration
	choose *chooser

	mu   sync.Mutex
	last int64 // guarded by mu; the number given last
}

func newGoSender(l *Load, u *user, c *chooser, pace time.Duration) *goSender {
	return &goSender{load: l, user: u, pace: pace, choose: c}
}

func (s *goSender) run(ctx context.Context) {
	ctx, cancel := until(ctx, s.load.leaving.done)
	defer cancel()
	for ctx.Err() == nil {
		v, err := s.load.connect(ctx, s.user)
		if err != nil {
			pause(ctx, maxPause, nil)
			continue
		}
		var sending sync.WaitGroup
		for _, c := range s.choose.split(lines) {
			sending.Go(func() { s.line(ctx, v, c) })
		}
		select {
		case <-ctx.Done():
		case <-v.Done():
		}
		sending.Wait()
		v.close()
		pause(ctx, maxPause, nil)
	}
}

// line sends to the receivers of one chooser, one message after the other.
func (s *goSender) line(ctx context.Context, v *visit, c *chooser) {
	random := rand.New(rand.NewPCG(c.random.Uint64(), 0))
	for !s.load.stopping.over() && v.Err() == nil {
		pause(ctx, between(random, s.pace*lines/2, s.pace*lines*3/2), s.load.stopping.done)
		if ctx.Err() != nil || s.load.stopping.over() {
			return
		}
		to := s.load.receiversOf(c, func(string) bool { return true })
		if len(to) > 0 {
			s.send(ctx, v, to, c.random)
		}
	}
}

// send sends one message and waits until it is accepted.
func (s *goSender) send(ctx context.Context, v *visit, to []string, random *rand.Rand) {
	s.mu.Lock()
	s.last++
	m := message{s.user.id, s.last}
	s.mu.Unlock()
	bound := to[0]
	if len(to) > 1 {
		bound = toMany
	}
	text, sum := s.load.content(m, bound, s.load.size(random))
	options := []client.SendOption{client.Reference(reference(m.n, false))}
	confirm := len(to) == 1 && random.Float64() < s.load.cfg.Confirm
	if confirm {
		options = append(options, client.Confirm())
	}
	s.load.ledger.send()
	s.load.write(history.Op{
		Kind: history.KindSend, User: m.from, Session: v.session, Client: history.ClientGo, N: m.n, To: to,
		Sum: sum, Size: len(text), Confirm: confirm, Attempt: 1,
	})
	var sent *client.Sent
	var err error
	if len(to) > 1 {
		sent, err = v.SendGroup(ctx, to, text, options...)
	} else {
		sent, err = v.Send(ctx, to[0], text, options...)
	}
	var refused *client.SendError
	switch {
	case err == nil:
		s.load.write(history.Op{Kind: history.KindAccepted, User: m.from, Session: v.session, N: m.n, ID: sent.ID})
		s.load.ledger.accept(m, to, confirm)
	case errors.As(err, &refused):
		s.load.write(history.Op{Kind: history.KindRefused, User: m.from, Session: v.session, N: m.n, Code: refused.Code, Final: true})
		s.load.ledger.giveUp()
	case errors.Is(err, client.ErrUnknown) || ctx.Err() != nil || v.Err() != nil:
		s.load.write(history.Op{Kind: history.KindUnknown, User: m.from, Session: v.session, N: m.n, Final: true})
		s.load.ledger.giveUp()
	default:
		s.load.write(history.Op{Kind: history.KindStrange, User: m.from, Session: v.session, N: m.n, Note: shortened(err.Error())})
		s.load.write(history.Op{Kind: history.KindUnknown, User: m.from, Session: v.session, N: m.n, Final: true})
		s.load.ledger.giveUp()
	}
}
