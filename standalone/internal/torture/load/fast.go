package load

import (
	"context"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/linkerhq/linker/standalone/internal/torture/history"
)

// maxFastSize keeps FAST messages small: they have no window.
const maxFastSize = 2 << 10

// fastSender sends FAST messages, which nobody answers.
type fastSender struct {
	load   *Load
	user   *user
	pace   time.Duration
	choose *chooser
	random *rand.Rand // owned by run and its pump
	last   int64      // owned by run and its pump
}

func (s *fastSender) run(ctx context.Context) {
	for ctx.Err() == nil && !s.load.leaving.over() {
		socket, err := s.load.login(ctx, s.user, history.ClientRaw, []string{featurePush})
		if err == nil {
			s.serve(ctx, socket)
		}
		s.user.next()
		pause(ctx, between(s.random, 0, maxPause), nil)
	}
}

func (s *fastSender) serve(ctx context.Context, socket *socket) {
	reading, cancel := context.WithCancel(ctx)
	goAway := make(chan time.Duration, 1)
	var pumping sync.WaitGroup
	var how parting
	pumping.Go(func() { how = s.pump(reading, socket, goAway) })
	err := socket.each(reading, func(f *frame) error {
		switch f.Type {
		case "MESSAGE_CONFIRMATION", "MISSING_MESSAGES_AVAILABLE":
		case "DELIVER_FAILED":
			s.failed(socket, f)
		case "GO_AWAY":
			select {
			case goAway <- time.Duration(f.Data.ReconnectInMs) * time.Millisecond:
			default:
			}
		default:
			socket.strange(f)
		}
		return nil
	})
	cancel()
	pumping.Wait()
	socket.closed(how, err)
}

func (s *fastSender) failed(socket *socket, f *frame) {
	n, err := int64(0), error(nil)
	if f.Reference != nil {
		n, err = strconv.ParseInt(*f.Reference, 10, 64)
	}
	if err != nil || n < 1 {
		socket.strange(f)
		return
	}
	s.load.write(history.Op{Kind: history.KindRefused, User: s.user.id, Session: socket.session, N: n, Code: f.Data.Code, Final: true})
}

func (s *fastSender) pump(ctx context.Context, socket *socket, goAway <-chan time.Duration) parting {
	tick := time.NewTicker(s.pace)
	defer tick.Stop()
	watch := time.NewTicker(watchEvery)
	defer watch.Stop()
	var going <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return parting{}
		case <-s.load.leaving.done:
			return socket.leave()
		case after := <-goAway:
			going = time.After(after)
		case <-going:
			return socket.leave()
		case <-watch.C:
			if socket.ping(silence) != nil {
				_ = socket.ws.CloseNow()
				return parting{}
			}
		case <-tick.C:
			if !s.load.stopping.over() && !s.send(socket) {
				return parting{}
			}
		}
	}
}

// send sends one message. false: the socket is broken.
func (s *fastSender) send(socket *socket) bool {
	to := s.choose.one(func(string) bool { return true })
	s.last++
	d := &draft{message: message{s.user.id, s.last}, to: []string{to}}
	text, sum := s.load.content(d.message, to, minSize+s.random.IntN(min(s.load.cfg.MaxSize, maxFastSize)-minSize+1))
	confirm := s.random.Float64() < s.load.cfg.Confirm
	s.load.ledger.sendFast()
	s.load.write(history.Op{
		Kind: history.KindSend, User: s.user.id, Session: socket.session, N: d.n, To: d.to, Feature: history.FeatureFast,
		Sum: sum, Size: len(text), Confirm: confirm, Attempt: 1,
	})
	return socket.write(d.encode(text, confirm, history.FeatureFast)) == nil
}
