package client_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/linkerhq/linker/pkg/client"
)

// take returns the next n messages.
func take(t *testing.T, c *client.Client, n int) []client.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var got []client.Message
	for m, err := range c.Messages(ctx) {
		if err != nil {
			t.Fatalf("after %d messages: %v", len(got), err)
		}
		if got = append(got, m); len(got) == n {
			break
		}
	}
	return got
}

// sending is a Send that runs.
type sending struct {
	sent *client.Sent
	err  error
	done chan struct{}
}

func sendAsync(ctx context.Context, c *client.Client, to, content string, opts ...client.SendOption) *sending {
	s := &sending{done: make(chan struct{})}
	go func() {
		defer close(s.done)
		s.sent, s.err = c.Send(ctx, to, content, opts...)
	}()
	return s
}

func (s *sending) wait(t *testing.T) error {
	t.Helper()
	select {
	case <-s.done:
		return s.err
	case <-time.After(patience):
		t.Fatal("Send does not return")
		return nil
	}
}

func TestTheLoginAsksForTheTokenAndAllFeatures(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	cfg := config(s.url, "ANZ-1")
	asked := 0
	cfg.Token = func(context.Context) (string, error) {
		if asked++; asked == 1 {
			return "", errors.New("not yet")
		}
		return fmt.Sprint("token-", asked), nil
	}
	_, p := s.meet(cfg)
	if p.auth.Type != "AUTH_CLIENT" || p.auth.Data["appId"] != "app-id-343" || p.auth.Data["userId"] != "ANZ-1" || p.auth.Data["token"] != "token-2" {
		t.Errorf("got %+v", p.auth)
	}
	if features := fmt.Sprint(p.auth.Data["features"]); features != "[accept ack push]" {
		t.Errorf("got the features %s", features)
	}
}

func TestARefusedLoginEndsConnect(t *testing.T) {
	t.Parallel()
	for _, reason := range []string{"REFUSED", "UNKNOWN_APP", "AUTH_NOT_CONFIGURED", "INVALID_USER_ID"} {
		t.Run(reason, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			go func() {
				p := s.next()
				p.write(frame{Type: "AUTH_CLIENT_REPLY", Data: map[string]any{"isAuthenticated": false, "reason": reason}})
				p.close(4403)
			}()
			_, err := client.Connect(t.Context(), config(s.url, "ANZ-1"))
			var refused *client.LoginError
			if !errors.As(err, &refused) || refused.Reason != reason {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestALoginThatMaySucceedLaterIsTriedAgain(t *testing.T) {
	t.Parallel()
	for _, reason := range []string{"AUTH_UNAVAILABLE", "TOO_MANY_SOCKETS", "A_NEW_ONE"} {
		t.Run(reason, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			refused := make(chan struct{})
			go func() {
				defer close(refused)
				p := s.next()
				p.write(frame{Type: "AUTH_CLIENT_REPLY", Data: map[string]any{"isAuthenticated": false, "reason": reason}})
				p.close(4503)
				s.admit()
			}()
			connect(t, config(s.url, "ANZ-1"))
			<-refused
		})
	}
}

func TestConnectEndsWithItsContextAndSaysWhatWasWrong(t *testing.T) {
	t.Parallel()
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cfg := config("ws"+strings.TrimPrefix(closed.URL, "http"), "ANZ-1")
	asked := 0
	cfg.Token = func(context.Context) (string, error) {
		if asked++; asked == 3 {
			cancel()
		}
		return "", nil
	}
	_, err := client.Connect(ctx, cfg)
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("got %v", err)
	}
}

func TestABadConfigurationIsRefusedWithAllItsMistakes(t *testing.T) {
	t.Parallel()
	_, err := client.Connect(t.Context(), client.Config{URLs: []string{"http://h:1", "ws://"}, UserID: "ANZ-007", MinPause: -1, MaxFrame: 3, MaxWaiting: -1})
	for _, name := range []string{"http://h:1", "ws://", "AppID", "ANZ-007", "MinPause", "MaxFrame", "MaxWaiting"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("the error does not name %s: %v", name, err)
		}
	}
	if _, err := client.Connect(t.Context(), client.Config{}); err == nil || !strings.Contains(err.Error(), "URLs") {
		t.Errorf("got %v", err)
	}
}

func TestAWrongDomainIsFollowed(t *testing.T) {
	t.Parallel()
	home, other := newStage(t), newStage(t)
	go func() { // whoever asks is sent home
		for {
			select {
			case p := <-other.peers:
				p.write(frame{Type: "AUTH_CLIENT_REPLY", Data: map[string]any{
					"isAuthenticated": false, "reason": "WRONG_DOMAIN", "domain": "domain-02", "urls": []string{"tcp://nowhere:1", home.url},
				}})
				p.close(4403)
			case <-t.Context().Done():
				return
			}
		}
	}()
	c, p := home.meet(config(other.url, "ANZ-1"))
	p.close(4421) // it has moved: ask again
	p = home.admit()
	p.deliver(1, "a", "welcome")
	if got := take(t, c, 1); got[0].Content != "welcome" {
		t.Errorf("got %v", got)
	}
}

func TestFromSomeClosesAClientDoesNotComeBack(t *testing.T) {
	t.Parallel()
	for _, code := range []websocket.StatusCode{1003, 1007, 1009, 4400, 4403, 4410} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			var mu sync.Mutex
			var states []client.State
			cfg := config(s.url, "ANZ-1")
			cfg.State = func(s client.State) {
				mu.Lock()
				defer mu.Unlock()
				states = append(states, s)
			}
			go func() { s.admit().close(code) }()
			c := connect(t, cfg)
			select {
			case <-c.Done():
			case <-time.After(patience):
				t.Fatal("it lives")
			}
			var closed *client.CloseError
			if !errors.As(c.Err(), &closed) || closed.Code != int(code) {
				t.Errorf("got %v", c.Err())
			}
			if _, err := c.Send(t.Context(), "ANZ-2", "too late"); !errors.As(err, &closed) {
				t.Errorf("Send returned %v", err)
			}
			for _, err := range c.Messages(t.Context()) {
				if !errors.As(err, &closed) {
					t.Errorf("Messages yielded %v", err)
				}
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			if !errors.As(c.Err(), &closed) {
				t.Errorf("after Close it is %v", c.Err())
			}
			mu.Lock()
			defer mu.Unlock()
			if want := []client.State{client.Connected, client.Disconnected, client.Ended}; !slices.Equal(states, want) {
				t.Errorf("the states were %v, want %v", states, want)
			}
		})
	}
}

func TestFromOtherEndsAClientComesBack(t *testing.T) {
	t.Parallel()
	for _, code := range []websocket.StatusCode{0, 1000, 1001, 1002, 1012, 4401, 4408, 4421, 4429, 4503} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			go func() {
				p := s.admit()
				if code == 0 {
					p.cut()
				} else {
					p.close(code)
				}
				s.admit().deliver(1, "a", "hello again")
			}()
			c := connect(t, config(s.url, "ANZ-1"))
			if got := take(t, c, 1); got[0].Content != "hello again" {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestSendReturnsWhenTheMessageIsAccepted(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	c, p := s.meet(config(s.url, "ANZ-1"))
	one := sendAsync(t.Context(), c, "ANZ-2", "<hello> & \x00 ünï", client.Reference("my own"), client.ID("order-7"))
	f := p.message("<hello> & \x00 ünï")
	if f.Reference != "my own" || f.ID != "order-7" || f.Confirm == nil || *f.Confirm || f.Data["to"] != "ANZ-2" {
		t.Errorf("got %+v", f)
	}
	select {
	case <-one.done:
		t.Fatal("Send returned before the message was accepted")
	default:
	}
	p.accept(f)
	if err := one.wait(t); err != nil || one.sent.ID != "of-order-7" || one.sent.Reference != "my own" {
		t.Errorf("got %+v, %v", one.sent, err)
	}
}

func TestMessagesToOneReceiverWaitForEachOther(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	c, p := s.meet(config(s.url, "ANZ-1"))
	first := sendAsync(t.Context(), c, "ANZ-2", "1")
	f := p.message("1")
	second := sendAsync(t.Context(), c, "ANZ-2", "2")
	await(t, func() bool { return c.Waiting() == 2 })
	third := sendAsync(t.Context(), c, "ANZ-3", "other") // does not wait
	p.accept(p.message("other"))
	if err := third.wait(t); err != nil {
		t.Error(err)
	}
	p.fail(f, "QUEUE_UNAVAILABLE", true)
	again := p.message("1") // before the second
	if again.ID != f.ID || again.Reference != f.Reference {
		t.Errorf("it was sent again as %+v, before as %+v", again, f)
	}
	p.accept(again)
	p.accept(p.message("2"))
	if err := errors.Join(first.wait(t), second.wait(t)); err != nil {
		t.Error(err)
	}
}

func TestAGroupWaitsForAllItsMembersAndTheyForIt(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	c, p := s.meet(config(s.url, "ANZ-1"))
	sendAsync(t.Context(), c, "ANZ-2", "before")
	before := p.message("before")
	group := make(chan error, 1)
	go func() {
		_, err := c.SendGroup(t.Context(), []string{"ANZ-3", "ANZ-2", "ANZ-3"}, "group")
		group <- err
	}()
	await(t, func() bool { return c.Waiting() == 2 })
	after := sendAsync(t.Context(), c, "ANZ-3", "after")
	await(t, func() bool { return c.Waiting() == 3 })
	p.accept(before)
	f := p.expect("GROUP_MESSAGE")
	if to := fmt.Sprint(f.Data["to"]); to != "[ANZ-2 ANZ-3]" {
		t.Errorf("it went to %s", to)
	}
	p.accept(f)
	if err := <-group; err != nil {
		t.Error(err)
	}
	p.accept(p.message("after"))
	if err := after.wait(t); err != nil {
		t.Error(err)
	}
}

func TestTwoMessagesOfOneReferenceAreNotUnderWayAtOnce(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	c, p := s.meet(config(s.url, "ANZ-1"))
	first := sendAsync(t.Context(), c, "ANZ-2", "1", client.Reference("r"))
	f := p.message("1")
	second := sendAsync(t.Context(), c, "ANZ-3", "2", client.Reference("r"))
	await(t, func() bool { return c.Waiting() == 2 })
	sendAsync(t.Context(), c, "ANZ-4", "3")
	p.message("3")                   // and not the second
	p.fail(f, "MAILBOX_FULL", false) // of an earlier one: before it is accepted none comes
	p.accept(f)
	p.accept(p.message("2"))
	if err := errors.Join(first.wait(t), second.wait(t)); err != nil {
		t.Error(err)
	}
}

func TestARefusalIsAnErrorWithItsCode(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	c, p := s.meet(config(s.url, "ANZ-1"))
	sending := sendAsync(t.Context(), c, "BNZ-2", "x")
	p.fail(p.message("x"), "FORBIDDEN_APP", false)
	var refused *client.SendError
	if err := sending.wait(t); !errors.As(err, &refused) || refused.Code != "FORBIDDEN_APP" || refused.Retryable {
		t.Errorf("got %v", err)
	}
	if n := c.Waiting(); n != 0 {
		t.Errorf("%d messages wait", n)
	}
}

func TestWhatWasNotAcceptedIsSentAgainBeforeAnythingNewer(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	c, p := s.meet(config(s.url, "ANZ-1"))
	first := sendAsync(t.Context(), c, "ANZ-2", "1")
	f := p.message("1")
	second := sendAsync(t.Context(), c, "ANZ-2", "2")
	await(t, func() bool { return c.Waiting() == 2 })
	p.cut()
	p = s.admit()
	again := p.message("1")
	if again.ID != f.ID || f.ID == "" {
		t.Errorf("it was sent as %q, then as %q", f.ID, again.ID)
	}
	p.accept(again)
	p.accept(p.message("2"))
	if err := errors.Join(first.wait(t), second.wait(t)); err != nil {
		t.Error(err)
	}
	if got := c.Stats(); got.Sent != 3 || got.Resent != 1 || got.Accepted != 2 || got.Logins != 2 {
		t.Errorf("got %+v", got)
	}
}

func TestAMessageThatWasNeverWrittenIsWithdrawn(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	c, p := s.meet(config(s.url, "ANZ-1"))
	sendAsync(t.Context(), c, "ANZ-2", "1")
	f := p.message("1")
	ctx, cancel := context.WithCancel(t.Context())
	second := sendAsync(ctx, c, "ANZ-2", "2")
	await(t, func() bool { return c.Waiting() == 2 })
	third := sendAsync(t.Context(), c, "ANZ-2", "3")
	await(t, func() bool { return c.Waiting() == 3 })
	cancel()
	if err := second.wait(t); !errors.Is(err, context.Canceled) || errors.Is(err, client.ErrUnknown) {
		t.Errorf("got %v", err)
	}
	p.accept(f)
	p.accept(p.message("3"))
	if err := third.wait(t); err != nil {
		t.Error(err)
	}
}

func TestOfAMessageThatWasWrittenTheOutcomeIsUnknown(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	failures := make(chan client.Failure, 1)
	cfg := config(s.url, "ANZ-1")
	cfg.Failed = func(f client.Failure) { failures <- f }
	c, p := s.meet(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	first := sendAsync(ctx, c, "ANZ-2", "1")
	f := p.message("1")
	cancel()
	if err := first.wait(t); !errors.Is(err, client.ErrUnknown) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	second := sendAsync(t.Context(), c, "ANZ-2", "2")
	await(t, func() bool { return c.Waiting() == 2 })
	p.cut()
	p = s.admit()
	p.fail(p.message("1"), "NO_ROUTE", false) // it was sent again, so that the second does not overtake it
	p.accept(p.message("2"))
	if err := second.wait(t); err != nil {
		t.Error(err)
	}
	if got := <-failures; got.Code != "NO_ROUTE" || got.Reference != f.Reference {
		t.Errorf("got %+v", got)
	}
}

func TestCloseEndsWhatWaitsAndSaysWhatIsKnown(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	c, p := s.meet(config(s.url, "ANZ-1"))
	first := sendAsync(t.Context(), c, "ANZ-2", "1")
	p.message("1")
	second := sendAsync(t.Context(), c, "ANZ-2", "2")
	await(t, func() bool { return c.Waiting() == 2 })
	p.deliver(1, "a", "hello")
	for m, err := range c.Messages(t.Context()) {
		if err != nil || m.Content != "hello" {
			t.Errorf("got %v, %v", m, err)
		}
		break
	}
	closed := make(chan error, 1)
	go func() { closed <- c.Close() }()
	p.acked(1)
	if _, err := p.tryRead(); websocket.CloseStatus(err) != websocket.StatusNormalClosure {
		t.Errorf("got %v, want a goodbye", err)
	}
	close(p.done)
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if err := first.wait(t); !errors.Is(err, client.ErrClosed) || !errors.Is(err, client.ErrUnknown) {
		t.Errorf("got %v", err)
	}
	if err := second.wait(t); !errors.Is(err, client.ErrClosed) || errors.Is(err, client.ErrUnknown) {
		t.Errorf("got %v", err)
	}
	if _, err := c.Send(t.Context(), "ANZ-2", "x"); !errors.Is(err, client.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestWhatTheServerWouldNotTakeIsNotSent(t *testing.T) {
	t.Parallel()
	n := newNetwork()
	t.Cleanup(n.server.Close)
	cfg := config(n.url(), "ANZ-1")
	cfg.MaxFrame = 2000
	c := connect(t, cfg)
	group := make([]string, 4097)
	for i := range group {
		group[i] = fmt.Sprintf("ANZ-%d", i)
	}
	send := func(to, content string, opts ...client.SendOption) error {
		_, err := c.Send(t.Context(), to, content, opts...)
		return err
	}
	sendGroup := func(to []string, opts ...client.SendOption) error {
		_, err := c.SendGroup(t.Context(), to, "x", opts...)
		return err
	}
	for name, is := range map[string]struct {
		err, want error
		names     string
	}{
		"receiver":        {send("ANZ-007", "x"), client.ErrInvalid, "ANZ-007"},
		"content":         {send("ANZ-2", "\xff"), client.ErrInvalid, "content"},
		"large":           {send("ANZ-2", strings.Repeat("x", 2000)), client.ErrTooLarge, "2000"},
		"long reference":  {send("ANZ-2", "x", client.Reference(strings.Repeat("x", 129))), client.ErrInvalid, "128"},
		"our reference":   {send("ANZ-2", "x", client.Reference("~x")), client.ErrInvalid, "~x"},
		"no reference":    {send("ANZ-2", "x", client.Reference("")), client.ErrInvalid, "reference"},
		"blank reference": {send("ANZ-2", "x", client.Reference(" "), client.Confirm()), client.ErrInvalid, "blank"},
		"long id":         {send("ANZ-2", "x", client.ID(strings.Repeat("x", 65))), client.ErrInvalid, "64"},
		"NUL in id":       {send("ANZ-2", "x", client.ID("a\x00")), client.ErrInvalid, "id"},
		"id of FAST":      {send("ANZ-2", "x", client.ID("a"), client.Fast()), client.ErrInvalid, "FAST"},
		"nobody":          {sendGroup(nil), client.ErrInvalid, "0 users"},
		"too many":        {sendGroup(group), client.ErrInvalid, "4097"},
		"bad member":      {sendGroup([]string{"ANZ-1", "x"}), client.ErrInvalid, `"x"`},
		"confirmed group": {sendGroup([]string{"ANZ-1"}, client.Confirm()), client.ErrInvalid, "groups"},
		"close":           {c.CloseUser(t.Context(), "x"), client.ErrInvalid, `"x"`},
	} {
		if !errors.Is(is.err, is.want) || !strings.Contains(is.err.Error(), is.names) {
			t.Errorf("%s: got %v, want %v that names %s", name, is.err, is.want, is.names)
		}
	}
	if err := send("ANZ-2", "good"); err != nil {
		t.Error(err)
	}
	if got := c.Stats(); got.Logins != 1 || got.Sent != 1 {
		t.Errorf("got %+v", got)
	}
}

func TestARateLimitSlowsTheClientDown(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	c, p := s.meet(config(s.url, "ANZ-1"))
	const many = 5
	for i := range many {
		sendAsync(t.Context(), c, fmt.Sprintf("ANZ-%d", i+2), fmt.Sprint(i))
	}
	for range many { // all at once
		p.fail(p.expect("MESSAGE"), "RATE_LIMITED", true)
	}
	for n := range many { // one after another
		f := p.expect("MESSAGE")
		if sent := c.Stats().Sent; sent != uint64(many+n+1) {
			t.Errorf("%d were sent, want %d", sent, many+n+1)
		}
		p.accept(f)
	}
	await(t, func() bool { return c.Waiting() == 0 })
}

func TestTheQueueOfWhatWaitsIsBounded(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	cfg := config(s.url, "ANZ-1")
	cfg.MaxWaiting = 2
	c, p := s.meet(cfg)
	sendAsync(t.Context(), c, "ANZ-2", "1")
	f := p.message("1")
	sendAsync(t.Context(), c, "ANZ-2", "2")
	await(t, func() bool { return c.Waiting() == 2 })
	if _, err := c.Send(t.Context(), "ANZ-3", "3"); !errors.Is(err, client.ErrFull) {
		t.Errorf("got %v", err)
	}
	p.accept(f)
	p.accept(p.message("2"))
}

func TestNoMoreThan64MessagesAreUnderWay(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	c, p := s.meet(config(s.url, "ANZ-1"))
	for i := range 80 {
		sendAsync(t.Context(), c, fmt.Sprintf("ANZ-%d", i), "x")
	}
	var got []frame
	for range 64 {
		got = append(got, p.message("x"))
	}
	await(t, func() bool { return c.Waiting() == 80 })
	if n := c.Stats().Sent; n != 64 {
		t.Errorf("%d are under way", n)
	}
	for range 16 {
		p.accept(got[0])
		got = append(got[1:], p.message("x"))
	}
}

func TestFastMessagesDoNotWaitForAConnection(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	failures := make(chan client.Failure, 1)
	cfg := config(s.url, "ANZ-1")
	cfg.Failed = func(f client.Failure) { failures <- f }
	down := make(chan struct{}, 8)
	cfg.State = func(s client.State) {
		if s == client.Disconnected {
			down <- struct{}{}
		}
	}
	c, p := s.meet(cfg)
	sent, err := c.Send(t.Context(), "ANZ-2", "quick", client.Fast())
	if err != nil {
		t.Fatal(err)
	}
	f := p.message("quick")
	if f.Feature != "FAST" || f.ID != "" {
		t.Errorf("got %+v", f)
	}
	p.fail(f, "QUEUE_UNAVAILABLE", true)
	if got := <-failures; got.Reference != sent.Reference || got.Code != "QUEUE_UNAVAILABLE" || !got.Retryable {
		t.Errorf("got %+v", got)
	}
	p.cut()
	<-down
	s.next() // connects, and is not let in
	if _, err := c.Send(t.Context(), "ANZ-2", "quick", client.Fast()); !errors.Is(err, client.ErrNotConnected) {
		t.Errorf("got %v", err)
	}
}

func TestAMessageIsAcknowledgedWhenTheLoopAsksForTheNext(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	c, p := s.meet(config(s.url, "ANZ-1"))
	p.deliver(1, "a", "1")
	for m, err := range c.Messages(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		switch m.Content {
		case "1":
			// A message makes the round trip that shows that nothing was
			// acknowledged.
			sendAsync(t.Context(), c, "ANZ-2", "round")
			p.accept(p.message("round"))
			p.deliver(2, "b", "2")
		case "2":
			p.acked(1)
			go c.Close() //nolint:errcheck // the test does not wait for it
			if f, err := p.tryRead(); err == nil {
				t.Errorf("got %+v", f)
			}
			close(p.done)
			return
		}
	}
}

func TestCopiesAreDroppedAndAcknowledged(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	c, p := s.meet(config(s.url, "ANZ-1"))
	p.deliver(1, "a", "1")
	p.deliver(2, "a", "1")
	p.deliver(3, "b", "2")
	got := take(t, c, 2)
	if got[0].Content != "1" || got[1].Content != "2" {
		t.Errorf("got %v", got)
	}
	p.acked(3)
	p.cut()
	p = s.admit()
	p.deliver(1, "b", "2")
	p.deliver(2, "c", "3")
	if got := take(t, c, 1); got[0].Content != "3" {
		t.Errorf("got %v", got)
	}
	p.acked(2)
	if n := c.Stats().Duplicates; n != 2 {
		t.Errorf("%d copies were counted", n)
	}
}

func TestTheNextClientKnowsWhatTheOneBeforeHasTaken(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	cfg := config(s.url, "ANZ-1")
	cfg.Memory = client.NewMemory(0)
	c, p := s.meet(cfg)
	p.deliver(1, "a", "1")
	take(t, c, 1)
	p.cut()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	c, p = s.meet(cfg)
	p.deliver(1, "a", "1")
	p.deliver(2, "b", "2")
	if got := take(t, c, 1); got[0].Content != "2" {
		t.Errorf("got %v", got)
	}
	p.acked(2)
}

func TestWhatWasNotTakenComesAgainInOrder(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	c, p := s.meet(config(s.url, "ANZ-1"))
	p.deliver(1, "a", "1")
	p.deliver(2, "b", "2")
	var got []string
	for m, err := range c.Messages(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, m.Content); m.Content == "1" { // while the body runs
			p.cut()
			p = s.admit()
			p.deliver(1, "a", "1")
			p.deliver(2, "b", "2")
			p.deliver(3, "c", "3")
		}
		if len(got) == 3 {
			break
		}
	}
	if fmt.Sprint(got) != "[1 2 3]" {
		t.Errorf("got %v", got)
	}
	p.acked(3)
}

func TestWhatABrokenConnectionHasLeftIsTheServersAgain(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	c, p := s.meet(config(s.url, "ANZ-1"))
	p.deliver(1, "a", "1")
	sending := sendAsync(t.Context(), c, "ANZ-2", "round") // shows that the first has arrived
	p.accept(p.message("round"))
	if err := sending.wait(t); err != nil {
		t.Error(err)
	}
	p.cut()
	p = s.admit()
	p.deliver(1, "b", "2") // somebody else was given the first
	if got := take(t, c, 1); got[0].Content != "2" {
		t.Errorf("got %v", got)
	}
}

func TestAMessageWhoseBodyPanicsIsNotTaken(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	c, p := s.meet(config(s.url, "ANZ-1"))
	p.deliver(1, "a", "1")
	func() {
		defer func() { _ = recover() }()
		for range c.Messages(t.Context()) {
			panic("no")
		}
	}()
	if got := take(t, c, 1); got[0].Content != "1" {
		t.Errorf("got %v", got)
	}
	p.acked(1)
}

func TestOnlyOneLoopTakesMessages(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	c, p := s.meet(config(s.url, "ANZ-1"))
	p.deliver(1, "a", "1")
	for range c.Messages(t.Context()) {
		for _, err := range c.Messages(t.Context()) {
			if !errors.Is(err, client.ErrBusy) {
				t.Errorf("got %v", err)
			}
		}
		break
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range c.Messages(ctx) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
}

func TestConfirmationsPassMessagesThatNobodyTakes(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	confirmed := make(chan client.Confirmation, 4)
	cfg := config(s.url, "ANZ-1")
	cfg.Confirmed = func(c client.Confirmation) { confirmed <- c }
	c, p := s.meet(cfg)
	sending := sendAsync(t.Context(), c, "ANZ-2", "x", client.Confirm())
	f := p.message("x")
	if f.Confirm != nil && !*f.Confirm {
		t.Errorf("got %+v", f)
	}
	p.accept(f)
	if err := sending.wait(t); err != nil {
		t.Fatal(err)
	}
	p.deliver(1, "a", "1")
	p.write(frame{Type: "MESSAGE_CONFIRMATION", Seq: 2, ID: "c1", Data: map[string]any{"reference": f.Reference}})
	p.write(frame{Type: "MESSAGE_CONFIRMATION", Seq: 3, ID: "c1", Data: map[string]any{"reference": f.Reference}})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := sending.sent.Confirmed(ctx); err != nil {
		t.Error(err)
	}
	if got := <-confirmed; got.Reference != sending.sent.Reference || got.ID != "c1" {
		t.Errorf("got %+v", got)
	}
	take(t, c, 1)
	p.acked(3)
	if len(confirmed) > 0 {
		t.Error("it was told twice")
	}
}

func TestPresenceIsAcknowledgedAfterItsCall(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	told, proceed := make(chan client.PresenceEvent, 8), make(chan struct{})
	cfg := config(s.url, "ANZ-1")
	cfg.Presence = func(e client.PresenceEvent) { told <- e; <-proceed }
	c, p := s.meet(cfg)
	t.Cleanup(func() { close(proceed) }) // before the client is closed, which waits for its calls
	come := frame{Type: "USER_CONNECTED", Seq: 1, ID: "p1", Data: map[string]any{"userId": "ANZ-5"}}
	p.write(come)
	if e := <-told; !e.Connected || e.UserID != "ANZ-5" {
		t.Errorf("got %+v", e)
	}
	p.cut() // the call goes on
	p = s.admit()
	p.write(come)
	round := sendAsync(t.Context(), c, "ANZ-2", "round") // shows that it is not acknowledged
	p.accept(p.message("round"))
	if err := round.wait(t); err != nil {
		t.Error(err)
	}
	round = sendAsync(t.Context(), c, "ANZ-2", "again")
	p.accept(p.message("again"))
	if err := round.wait(t); err != nil {
		t.Error(err)
	}
	p.write(frame{Type: "USER_DISCONNECTED", Seq: 2, ID: "p2", Data: map[string]any{"userId": "ANZ-5"}})
	proceed <- struct{}{}
	if e := <-told; e.Connected || e.UserID != "ANZ-5" {
		t.Errorf("got %+v", e)
	}
	p.acked(1)
	proceed <- struct{}{}
	p.acked(2)
}

func TestGoAwayIsFollowedWhenItIsTime(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	c, p := s.meet(config(s.url, "ANZ-1"))
	began := time.Now()
	p.write(frame{Type: "GO_AWAY", Data: map[string]any{"reason": "shutting_down", "reconnectInMs": 200}})
	sending := sendAsync(t.Context(), c, "ANZ-2", "still here")
	p.accept(p.message("still here"))
	if err := sending.wait(t); err != nil {
		t.Error(err)
	}
	p.deliver(1, "a", "1")
	take(t, c, 1)
	p.acked(1)
	if _, err := p.tryRead(); websocket.CloseStatus(err) != websocket.StatusNormalClosure {
		t.Errorf("got %v, want a goodbye", err)
	}
	close(p.done)
	s.admit()
	if took := time.Since(began); took < 200*time.Millisecond {
		t.Errorf("it came back after %v", took)
	}
}

func TestFramesThatAFastSenderPilesUpAreAskedForAgain(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	c, p := s.meet(config(s.url, "ANZ-1"))
	const most = 8192 // that wait in the client
	for n := range most + 10 {
		p.deliver(uint64(n+1), fmt.Sprint("id", n), fmt.Sprint(n))
	}
	sending := sendAsync(t.Context(), c, "ANZ-2", "it reads on")
	p.accept(p.message("it reads on"))
	if err := sending.wait(t); err != nil {
		t.Error(err)
	}
	next := make(chan *peer, 1)
	go func() {
		p.acked(most)
		_, err := p.tryRead()
		if websocket.CloseStatus(err) != websocket.StatusNormalClosure {
			t.Errorf("got %v, want a goodbye", err)
		}
		close(p.done)
		p := s.admit()
		for n := range 20 {
			p.deliver(uint64(n+1), fmt.Sprint("id", most+n), fmt.Sprint(most+n))
		}
		next <- p
	}()
	for i, m := range take(t, c, most+20) {
		if m.Content != fmt.Sprint(i) {
			t.Fatalf("message %d is %q", i, m.Content)
		}
	}
	(<-next).acked(20)
	if n := c.Stats().Overflow; n != 10 {
		t.Errorf("%d were counted", n)
	}
}

func TestCloseUserTellsARefusal(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	c, p := s.meet(config(s.url, "ANZ-1"))
	ended := make(chan error, 1)
	go func() { ended <- c.CloseUser(t.Context(), "ANZ-2") }()
	f := p.expect("CLOSE_CONNECTION")
	if f.Data["userId"] != "ANZ-2" {
		t.Errorf("got %+v", f)
	}
	p.fail(f, "NOT_CONNECTED", false)
	var refused *client.SendError
	if err := <-ended; !errors.As(err, &refused) || refused.Code != "NOT_CONNECTED" {
		t.Errorf("got %v", err)
	}
	go func() { ended <- c.CloseUser(t.Context(), "ANZ-2") }()
	p.expect("CLOSE_CONNECTION")
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestNothingSecretIsLogged(t *testing.T) {
	t.Parallel()
	n := newNetwork()
	t.Cleanup(n.server.Close)
	var log lockedBuilder
	cfg := config(n.url(), "ANZ-1")
	cfg.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	asked := false
	cfg.Token = func(context.Context) (string, error) {
		if !asked {
			asked = true
			return "", errors.New("the secret is s3cret")
		}
		return "s3cret", nil
	}
	c := connect(t, cfg)
	if _, err := c.Send(t.Context(), "ANZ-1", "s3cret"); err != nil {
		t.Error(err)
	}
	take(t, c, 1)
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if text := log.String(); !strings.Contains(text, "connected") || strings.Contains(text, "s3cret") {
		t.Errorf("the log is %s", text)
	}
}

// lockedBuilder is a strings.Builder for several goroutines.
type lockedBuilder struct {
	mu sync.Mutex
	b  strings.Builder // guarded by mu
}

func (b *lockedBuilder) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuilder) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// await waits until something is so.
func await(t *testing.T, so func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !so(); <-tick.C {
		if time.Now().After(end) {
			t.Fatal("it never was so")
		}
	}
}

func TestWhateverBreaksEverythingArrivesOnceAndInOrder(t *testing.T) {
	t.Parallel()
	const users, each = 4, 100
	n := newNetwork()
	t.Cleanup(n.server.Close)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	n.chaos = rand.New(rand.NewPCG(seed, 1))
	name := func(i int) string { return fmt.Sprintf("ANZ-%d", i+1) }
	clients := make([]*client.Client, users)
	for i := range clients {
		clients[i] = connect(t, config(n.url(), name(i)))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	var tasks sync.WaitGroup
	for i, c := range clients {
		for j := range users {
			tasks.Go(func() { // one after another to each receiver; every tenth to all
				for k := range each {
					var err error
					if k%10 == 9 {
						_, err = c.SendGroup(ctx, []string{name(j), name((j + 1) % users)}, fmt.Sprintf("%d>%d/%d", i, j, k))
					} else {
						_, err = c.Send(ctx, name(j), fmt.Sprintf("%d>%d/%d", i, j, k))
					}
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		tasks.Go(func() {
			next := map[[2]int]int{} // what each sender sent in each line
			got := 0
			for m, err := range c.Messages(ctx) {
				if err != nil {
					t.Errorf("after %d messages: %v", got, err)
					return
				}
				var from, line, k int
				if _, err := fmt.Sscanf(m.Content, "%d>%d/%d", &from, &line, &k); err != nil || m.Reference != "" {
					t.Errorf("got %+v", m)
				}
				want := next[[2]int{from, line}]
				if line != i { // of the line to another one only what went to both
					want = want/10*10 + 9
				}
				if k != want {
					t.Errorf("got %s, want number %d", m.Content, want)
				}
				next[[2]int{from, line}] = k + 1
				if got++; got == users*(each+each/10) {
					return
				}
			}
		})
	}
	tasks.Wait()
	total := client.Stats{}
	for _, c := range clients {
		s := c.Stats()
		total.Logins += s.Logins
		total.Resent += s.Resent
		total.Duplicates += s.Duplicates
		if s.Overflow > 0 {
			t.Errorf("%d frames overflowed", s.Overflow)
		}
	}
	t.Logf("%+v", total)
	if total.Logins < 2*users || total.Resent == 0 || total.Duplicates == 0 {
		t.Error("nothing broke")
	}
}
