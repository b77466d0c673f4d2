package session

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/linkerhq/linker/pkg/delivery"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/wire"
)

// tick looks after a session as the gateway does, for a while or until its end.
func tick(s *Session, d time.Duration) {
	ticker := time.NewTicker(500 * time.Millisecond)
	defer ticker.Stop()
	for range int(d / (500 * time.Millisecond)) {
		select {
		case <-ticker.C:
			s.Tick()
		case <-s.Gone():
			return
		}
	}
}

func TestBeforeTheLoginNothingElseIsTaken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newPipes(), 0)
		c, _ := w.connect()
		for _, step := range []struct{ in, out string }{
			{`{"type":"MESSAGE","data":{"to":"ANZ-1","content":"x"}}`, `{"type":"AUTH_REQUIRED","data":{}}`},
			{`{"type":"MESSAGE"}`, `{"type":"AUTH_REQUIRED","data":{}}`},
			{`{"type":"WHATEVER"}`, `{"type":"AUTH_REQUIRED","data":{}}`},
			{`{"type":"USER_CONNECTED"}`, `{"type":"AUTH_REQUIRED","data":{}}`},
			{`{`, `"code":"BAD_JSON"`},
			{`{}`, `"code":"UNKNOWN_TYPE"`},
			{`{"type":"AUTH_CLIENT","type":"AUTH_CLIENT"}`, `"code":"DUPLICATE_KEY"`},
		} {
			c.send(step.in)
			if got := c.read(); !strings.Contains(got, step.out) {
				t.Errorf("%s: got %s, want %s", step.in, got, step.out)
			}
		}
	})
}

func TestASecondLoginIsRefusedAtAnyTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newPipes(), 0)
		w.holds = true
		c, s := w.connect()
		login := `{"type":"AUTH_CLIENT","data":{"appId":"a","userId":"ANZ-1"},"reference":"r"}`
		c.send(login)
		<-w.logins
		c.send(login)
		if got := c.read(); !strings.Contains(got, "ALREADY_AUTHENTICATED") || !strings.Contains(got, `"reference":"r"`) {
			t.Errorf("while authenticating: got %s", got)
		}
		w.admit(s, "ANZ-1")
		c.read()
		c.send(login)
		if got := c.read(); !strings.Contains(got, "ALREADY_AUTHENTICATED") {
			t.Errorf("after the login: got %s", got)
		}
	})
}

func TestWithoutALoginTheSocketIsClosedAfter15Seconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newPipes(), 0)
		c, s := w.connect()
		go tick(s, 20*time.Second)
		began := time.Now()
		if code := c.closed(); code != wire.CloseLoginTimeout {
			t.Errorf("closed with %d", code)
		}
		if took := time.Since(began); took < 14*time.Second || took > 16*time.Second {
			t.Errorf("closed after %s", took)
		}
	})
}

func TestTimeInOurOwnQueueDoesNotCountForTheLogin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newPipes(), 0)
		w.holds = true
		c, s := w.connect()
		c.send(`{"type":"AUTH_CLIENT","data":{"appId":"a","userId":"ANZ-1"}}`)
		<-w.logins
		read := c.CloseRead(t.Context())
		s.HoldLogin(true)
		tick(s, 30*time.Second)
		s.HoldLogin(false)
		tick(s, 10*time.Second)
		select {
		case <-s.Gone():
			t.Fatalf("the session has ended: %s", s.endedBy())
		default:
		}
		tick(s, 10*time.Second)
		if ended := <-w.ended; ended.endedBy() != CauseLoginTimeout {
			t.Errorf("ended by %s", ended.endedBy())
		}
		<-read.Done()
	})
}

func TestDeliveriesWaitForTheReplyToTheLogin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newPipes(), 0)
		w.holds = true
		c, s := w.connect()
		c.send(`{"type":"AUTH_CLIENT","data":{"appId":"a","userId":"ANZ-1"}}`)
		<-w.logins
		s.Register(Identity{ID: 7, User: "ANZ-1", Sender: w.sender})
		if verdict, _ := s.deliver(frameItem(1, 1, `{"type":"MESSAGE"}`)); verdict != Taken {
			t.Fatalf("got %v", verdict)
		}
		synctest.Wait()
		s.Admit([]byte(`{"type":"AUTH_CLIENT_REPLY"}`))
		if first, second := c.read(), c.read(); first != `{"type":"AUTH_CLIENT_REPLY"}` || second != `{"type":"MESSAGE"}` {
			t.Errorf("got %s, then %s", first, second)
		}
	})
}

func TestADeliveryForAnotherUserOrSessionIsRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newPipes(), 0)
		_, s := w.login()
		for _, to := range []delivery.Target{{Session: 7, User: "ANZ-2", D: 1}, {Session: 8, User: "ANZ-1", D: 1}} {
			it, _ := frameItem(1, 1, `{}`)
			if verdict, _ := s.deliver(it, to); verdict != Gone {
				t.Errorf("%+v: got %v", to, verdict)
			}
		}
	})
}

func TestAPongProvesWhatWasWrittenBeforeItsPing(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		urgent bool
		second time.Duration // when the second ping goes
	}{{false, pingEvery}, {true, 0}} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, newPipes(), 0)
			c, s := w.login()
			frames := c.frames()
			began := time.Now()
			for d, want := range []time.Duration{0, test.second} {
				it, to := frameItem(uint64(d+1), byte(d+1), `{"type":"MESSAGE"}`)
				it.Urgent = test.urgent
				s.deliver(it, to)
				<-frames
				<-w.proofs
				if took := time.Since(began); took != want {
					t.Errorf("urgent %v: proved after %s, want %s", test.urgent, took, want)
				}
				if p := s.Progress(); p.Taken != uint64(d+1) || p.Proved != uint64(d+1) {
					t.Errorf("got %+v", p)
				}
			}
			_ = c.CloseNow()
		})
	}
}

func TestWhoHasReadTheEndOfAFetchHasProvedWhatWasFetched(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newPipes(), 0)
		c, s := w.login()
		for d := range uint64(10) {
			s.deliver(frameItem(d+1, byte(d+1), `{"type":"MESSAGE"}`))
		}
		end, to := frameItem(11, 0, `{"type":"FETCH_MISSING_MESSAGES_COMPLETE"}`)
		end.Token = 1
		s.deliver(end, to)
		for range 11 {
			c.read()
		}
		synctest.Wait() // the client goes without reading on
		if p := s.Progress(); p.Proved != 10 {
			t.Errorf("got %+v", p)
		}
	})
}

func TestAnAnsweredCloseProvesEverything(t *testing.T) {
	t.Parallel()
	for _, features := range []envelope.Features{0, envelope.FeatureAck} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, newPipes(), features)
			c, s := w.login()
			c.mute = true
			s.deliver(frameItem(1, 1, `{"type":"MESSAGE"}`))
			s.End(wire.CloseRestarting, CauseShutdown)
			c.read()
			c.closed()
			<-w.ended
			want := uint64(1)
			if features.Has(envelope.FeatureAck) {
				want = 0 // such a client says itself what it has
			}
			if p := s.Progress(); p.Proved != want {
				t.Errorf("features %d: got %+v", features, p)
			}
		})
	}
}

func TestAClientThatAcknowledgesMayDoSoUntilItHasReadTheClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newPipes(), envelope.FeatureAck)
		c, s := w.login()
		for d := range uint64(3) {
			s.deliver(frameItem(d+1, byte(d+1), `{"type":"MESSAGE"}`))
		}
		s.End(wire.CloseRestarting, CauseShutdown)
		if verdict, _ := s.deliver(frameItem(4, 4, `{"type":"MESSAGE"}`)); verdict != Parting {
			t.Errorf("a delivery behind the end: %d, want that it waits for the logout", verdict)
		}
		for range 3 {
			c.read()
		}
		c.send(`{"type":"MESSAGE_ACK","data":{"upTo":2}}`)
		c.send(`{"type":"MESSAGE","data":{"to":"ANZ-2","content":"x"}}`)
		c.send(`{"type":"MESSAGE_ACK","data":{"upTo":7}}`)
		if code := c.closed(); code != wire.CloseRestarting {
			t.Errorf("closed with %d", code)
		}
		<-w.ended
		if p := s.Progress(); p.Taken != 3 || p.Proved != 2 {
			t.Errorf("got %+v", p)
		}
		if len(w.sender.frames) > 0 {
			t.Error("a message behind the end was taken")
		}
	})
}

// What the client has sent is answered before the close frame, if that takes no
// longer than a moment.
func TestTheCloseWaitsForTheAnswersToWhatWasSent(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		cause  Cause
		within time.Duration
		waits  bool
	}{
		"in time":            {CauseShutdown, settleFor / 2, true},
		"too late":           {CauseShutdown, 2 * settleFor, false},
		"the client's fault": {CauseBadFrames, settleFor / 2, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, newPipes(), envelope.FeatureAccept)
				client, s := w.login()
				s.Begin(10)
				s.Begin(10)
				began := time.Now()
				s.End(wire.CloseRestarting, c.cause)
				go func() {
					time.Sleep(c.within)
					s.Finish(10, []byte(`{"answer":1}`))
					s.Finish(10, nil)
				}()
				frames := client.frames()
				<-w.ended
				synctest.Wait()
				took, want := time.Since(began), c.within
				if !c.waits {
					want = min(settleFor, c.within)
				}
				if c.cause == CauseBadFrames {
					want = 0
				}
				if len(frames) != map[bool]int{true: 1}[c.waits] || took != want {
					t.Errorf("%d answers after %v, want it after %v", len(frames), took, want)
				}
				time.Sleep(time.Minute) // the answers come in any case
			})
		})
	}
}

func TestAClientThatClosesByItselfProvesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newPipes(), 0)
		c, s := w.login()
		c.mute = true
		s.deliver(frameItem(1, 1, `{"type":"MESSAGE"}`))
		c.read()
		_ = c.Close(websocket.StatusNormalClosure, "")
		<-w.ended
		if p := s.Progress(); p.Proved != 0 {
			t.Errorf("got %+v", p)
		}
	})
}

func TestFastDeliveriesAreProvedByTheirTokens(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newPipes(), 0)
		c, s := w.login()
		to := delivery.Target{Session: 7, User: "ANZ-1"}
		s.deliver(&delivery.Item{Kind: delivery.KindFast, Token: 42, Frame: []byte(`{"type":"MESSAGE"}`)}, to)
		c.read()
		go func() { _, _, _ = c.Read(t.Context()) }()
		if tokens := <-w.proofs; !slices.Equal(tokens, []uint64{42}) {
			t.Errorf("got %v", tokens)
		}
		c.CloseNow()
	})
}

func TestAClientThatAnswersNoPingProvesNothingAndKeepsItsSocket(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newPipes(), 0)
		c, s := w.login()
		c.mute = true
		for d := range uint64(200) {
			s.deliver(frameItem(d+1, byte(d), `{"type":"MESSAGE"}`))
			c.read()
			tick(s, 500*time.Millisecond)
		}
		if p := s.Progress(); p.Taken != 200 || p.Proved != 0 {
			t.Errorf("got %+v", p)
		}
	})
}

func TestAClientThatAcknowledgesProvesBySeq(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newPipes(), envelope.FeatureAck)
		c, s := w.login()
		s.deliver(frameItem(1, 1, `{"type":"MESSAGE"}`))
		s.deliver(frameItem(2, 0, `{"type":"FETCH_MISSING_MESSAGES_COMPLETE"}`))
		it, to := frameItem(3, 3, `{"type":"MESSAGE"}`)
		it.Late = true
		s.deliver(it, to)
		for _, want := range []string{`{"type":"MESSAGE","seq":1}`, `{"type":"FETCH_MISSING_MESSAGES_COMPLETE"}`, `{"type":"MESSAGE","late":true,"seq":2}`} {
			if got := c.read(); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		}
		for _, step := range []struct {
			upTo   string
			proved uint64
			answer string
		}{
			{"3", 0, "data.upTo"}, {"-1", 0, "data.upTo"}, {"1", 2, ""}, {"0", 2, ""}, {"2", 3, ""}, {"1", 3, ""},
		} {
			c.send(`{"type":"MESSAGE_ACK","data":{"upTo":` + step.upTo + `}}`)
			if step.answer != "" && !strings.Contains(c.read(), step.answer) {
				t.Errorf("upTo %s: no %s", step.upTo, step.answer)
			}
			synctest.Wait()
			if p := s.Progress(); p.Proved != step.proved {
				t.Errorf("upTo %s: proved %d, want %d", step.upTo, p.Proved, step.proved)
			}
		}
	})
}

func TestMessageAckNeedsTheFeature(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newPipes(), 0)
		c, _ := w.login()
		c.send(`{"type":"MESSAGE_ACK","data":{"upTo":0}}`)
		if got := c.read(); !strings.Contains(got, "INVALID_FIELD") {
			t.Errorf("got %s", got)
		}
	})
}

func TestAMessageThatTheSocketHasIsNotWrittenAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newPipes(), 0)
		c, s := w.login()
		s.deliver(frameItem(1, 1, `{"n":1}`))
		if verdict, _ := s.deliver(frameItem(2, 1, `{"n":1}`)); verdict != Duplicate {
			t.Errorf("got %v", verdict)
		}
		s.deliver(frameItem(3, 3, `{"n":3}`))
		if first, second := c.read(), c.read(); first != `{"n":1}` || second != `{"n":3}` {
			t.Errorf("got %s and %s", first, second)
		}
	})
}

func TestADeliveryWithoutAFrameIsNotTaken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newPipes(), envelope.FeatureAck)
		c, s := w.login()
		if verdict, _ := s.deliver(frameItem(1, 1, "")); verdict != Gap {
			t.Errorf("got %v", verdict)
		}
		s.deliver(&delivery.Item{Kind: delivery.KindFast}, delivery.Target{Session: 7, User: "ANZ-1"})
		s.deliver(frameItem(1, 1, `{"n":1}`))
		if got := c.read(); got != `{"n":1,"seq":1}` {
			t.Errorf("got %s", got)
		}
		if verdict, _ := s.deliver(frameItem(1, 1, "")); verdict != Again { // it only asks
			t.Errorf("got %v", verdict)
		}
	})
}

func TestTheEndOfAFetchIsToldWhenItWasWritten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newPipes(), 0)
		c, s := w.login()
		it, to := frameItem(1, 0, `{}`)
		it.Token = 5
		s.deliver(it, to)
		synctest.Wait()
		c.read()
		if got := <-w.sender.fetches; got != 5 {
			t.Errorf("got %d", got)
		}
	})
}

func TestOfTheFastFramesForASlowClientTheOldestGo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newPipes(), 0)
		c, s := w.login()
		deliver := func(from, to int) {
			for n := from; n < to; n++ {
				s.deliver(&delivery.Item{Kind: delivery.KindFast, Frame: fmt.Appendf(nil, `{"n":%d}`, n)}, delivery.Target{Session: 7, User: "ANZ-1"})
				synctest.Wait() // the first one fills the pipe, in which nothing fits
			}
		}
		deliver(0, 200)
		time.Sleep(fastPatience)
		deliver(200, 201)
		for _, want := range []string{`{"n":0}`, `{"n":73}`, `{"n":74}`} {
			if got := c.read(); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		}
	})
}

func TestABurstOfFastFramesIsBounded(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ size, fit int }{
		"many":  {10, maxBurst},
		"large": {64 << 10, maxBurstBytes >> 16},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSession(&Env{Metrics: newMetrics(t)}, &socket{})
			s.Register(Identity{ID: 7, User: "ANZ-1"})
			for range test.fit + 10 {
				s.Deliver(&delivery.Item{Kind: delivery.KindFast, Frame: make([]byte, test.size)}, delivery.Target{Session: 7, User: "ANZ-1"})
			}
			if len(s.fast) != test.fit || s.fastBytes != test.fit*test.size {
				t.Errorf("%d frames, %d bytes", len(s.fast), s.fastBytes)
			}
		})
	}
}

func TestASilentSocketIsPingedAndLivesAsLongAsItTakesThePings(t *testing.T) {
	t.Parallel()
	for _, mute := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, newPipes(), 0)
			c, s := w.login()
			c.mute = mute
			read := c.CloseRead(t.Context())
			tick(s, 2*time.Minute)
			select {
			case <-s.Gone():
				t.Fatalf("mute %v: dropped", mute)
			default:
			}
			_ = c.CloseNow()
			<-read.Done()
		})
	}
}

func TestASocketWithoutASignOfLifeIsDropped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newPipes(), 0)
		_, s := w.login()
		began := time.Now()
		go tick(s, 2*time.Minute)
		<-s.Gone()
		if took := time.Since(began); took < 35*time.Second || took > 36*time.Second {
			t.Errorf("dropped after %s", took)
		}
		if ended := <-w.ended; ended.endedBy() != CauseSilent {
			t.Errorf("ended by %s", ended.endedBy())
		}
	})
}

func TestAClientThatTakesNothingIsClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newPipes(), 0)
		_, s := w.login()
		began := time.Now()
		s.deliver(frameItem(1, 1, `{}`))
		go tick(s, time.Minute)
		<-s.Gone()
		if took := time.Since(began); took < 30*time.Second || took > 33*time.Second {
			t.Errorf("closed after %s", took)
		}
		if ended := <-w.ended; ended.endedBy() != CauseSlow {
			t.Errorf("ended by %s", ended.endedBy())
		}
	})
}

func TestTooManyBadFramesCloseTheSocket(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newPipes(), 0)
		c, _ := w.login()
		for range wire.MaxBadFramesPerMin {
			c.send(`{`)
			c.read()
		}
		time.Sleep(time.Minute)
		for range wire.MaxBadFramesPerMin {
			c.send(`{`)
			c.read()
		}
		c.send(`{`)
		if code := c.closed(); code != wire.CloseBadFrames {
			t.Errorf("closed with %d", code)
		}
	})
}

func TestTooManyPingsCloseTheSocket(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newPipes(), 0)
		c, _ := w.login()
		read := c.CloseRead(t.Context())
		for range wire.MaxPingsPerSecond {
			if err := c.Ping(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Ping(t.Context()); err == nil {
			t.Error("the ping beyond the limit was answered")
		}
		<-read.Done()
		if ended := <-w.ended; ended.endedBy() != CauseFast {
			t.Errorf("ended by %s", ended.endedBy())
		}
	})
}

func TestReadingStopsWhileTooMuchIsUnderWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newPipes(), 0)
		c, s := w.login()
		for range maxPending {
			s.Begin(10)
		}
		c.send(`{"type":"FETCH_MISSING_MESSAGES_REQUEST"}`) // the reader waits for this one already
		<-w.sender.frames
		go func() {
			if err := c.Write(context.Background(), websocket.MessageText, []byte(`{"type":"FETCH_MISSING_MESSAGES_REQUEST"}`)); err != nil {
				t.Errorf("send: %v", err)
			}
		}()
		synctest.Wait()
		if len(w.sender.frames) != 0 {
			t.Error("a frame was read beyond the limit")
		}
		tick(s, time.Minute) // it is we who do not read
		s.Finish(10, []byte(`{"done":1}`))
		<-w.sender.frames
		if got := c.read(); got != `{"done":1}` {
			t.Errorf("got %s", got)
		}
	})
}

func TestASocketThatHasToRestIsNotReadMeanwhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newPipes(), 0)
		var s *Session
		w.sender.submitted = func() { s.Rest(time.Minute) }
		var c *client
		c, s = w.login()
		fetch := `{"type":"FETCH_MISSING_MESSAGES_REQUEST"}`
		c.send(fetch)
		<-w.sender.frames
		began := time.Now()
		go func() {
			if err := c.Write(context.Background(), websocket.MessageText, []byte(fetch)); err != nil {
				t.Errorf("send: %v", err)
			}
		}()
		tick(s, 50*time.Second) // it is we who do not read
		if len(w.sender.frames) != 0 {
			t.Error("a frame was read too early")
		}
		<-w.sender.frames
		if took := time.Since(began); took != time.Minute {
			t.Errorf("it was read after %v", took)
		}
		ending := time.Now()
		s.End(wire.CloseSendingFast, CauseFast) // who ends rests no longer
		if code := c.closed(); code != wire.CloseSendingFast {
			t.Errorf("closed with %d", code)
		}
		<-w.ended
		if took := time.Since(ending); took > time.Second {
			t.Errorf("it ended after %v", took)
		}
	})
}

// Whoever goes on sending after the end is read for a while, so that it can take the
// close frame, but not for more than so many bytes.
func TestWhoSendsOnAfterTheEndIsCut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newPipes(), 0)
		c, s := w.login()
		s.End(wire.CloseBadFrames, CauseBadFrames)
		began, sent := time.Now(), 0
		frame := []byte(strings.Repeat("x", 60_000))
		for c.Write(context.Background(), websocket.MessageText, frame) == nil {
			sent += len(frame)
		}
		<-w.ended
		if sent < partingBytes-len(frame) || sent > partingBytes+2*len(frame) || time.Since(began) > time.Second {
			t.Errorf("%d bytes were read in %v after the end, want %d", sent, time.Since(began), partingBytes)
		}
	})
}

func TestEndingWritesWhatIsQueuedAndThenTheCode(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newPipes(), envelope.FeatureHints)
		c, s := w.login()
		s.deliver(frameItem(1, 1, `{"n":1}`))
		s.GoAway("shutting_down", 1500*time.Millisecond)
		s.End(wire.CloseRestarting, CauseShutdown)
		s.End(wire.CloseRefused, CauseRefused)
		got := []string{c.read(), c.read()}
		slices.Sort(got)
		if got[0] != `{"n":1}` || got[1] != `{"type":"GO_AWAY","data":{"reason":"shutting_down","reconnectInMs":1500}}` {
			t.Errorf("got %q", got)
		}
		if code := c.closed(); code != wire.CloseRestarting {
			t.Errorf("closed with %d", code)
		}
		<-w.ended
	})
}

func TestGoAwayIsForThoseWhoUnderstandIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newPipes(), 0)
		c, s := w.login()
		s.GoAway("shutting_down", time.Second)
		s.End(wire.CloseRestarting, CauseShutdown)
		if _, b, err := c.Read(t.Context()); err == nil {
			t.Errorf("got %s", b)
		}
	})
}

func TestACloseByTheMasterComesBehindWhatWasDelivered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newPipes(), 0)
		c, s := w.login()
		s.deliver(frameItem(1, 1, `{"n":1}`))
		s.deliver(&delivery.Item{Kind: delivery.KindClose}, delivery.Target{Session: 7, User: "ANZ-1", D: 2})
		if got := c.read(); got != `{"n":1}` {
			t.Errorf("got %s", got)
		}
		if code := c.closed(); code != wire.CloseByMaster {
			t.Errorf("closed with %d", code)
		}
	})
}

func TestWhatIsAgainstTheProtocolIsClosedWithItsCode(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		send func(c *client) error
		want wire.CloseCode
	}{
		"binary":       {func(c *client) error { return c.Write(c.t.Context(), websocket.MessageBinary, []byte("{}")) }, wire.CloseBinary},
		"not UTF-8":    {func(c *client) error { return c.Write(c.t.Context(), websocket.MessageText, []byte("\"\xff\"")) }, wire.CloseNotUTF8},
		"not masked":   {func(c *client) error { _, err := c.raw.Write([]byte{0x81, 2, '{', '}'}); return err }, wire.CloseProtocolError},
		"reserved bit": {func(c *client) error { _, err := c.raw.Write([]byte{0xc1, 0x80, 0, 0, 0, 0}); return err }, wire.CloseProtocolError},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, newPipes(), 0)
				c, _ := w.login()
				if err := test.send(c); err != nil {
					t.Fatal(err)
				}
				if code := c.closed(); code != test.want {
					t.Errorf("closed with %d, want %d", code, test.want)
				}
			})
		})
	}
}

func TestStateTellsANewOwnerEverything(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		features envelope.Features
		l, last  envelope.Position
		fetched  uint64
	}{
		{features: 0, l: pos(9), fetched: 1},
		{features: envelope.FeaturePush, last: pos(1)}, // to which nothing is fetched
	} {
		s := newSession(&Env{}, &socket{})
		s.Register(Identity{ID: 7, User: "ANZ-1", Features: test.features})
		s.LoggedIn(pos(9))
		it, to := frameItem(1, 4, `{}`)
		s.Deliver(it, to)
		got, err := json.Marshal(s.State())
		if err != nil {
			t.Fatal(err)
		}
		want, err := json.Marshal(delivery.SessionState{
			Progress: delivery.Progress{Session: 7, Taken: 1}, User: "ANZ-1", L: test.l, Last: test.last, Features: test.features,
			Unproved: []delivery.Unproved{{D: 1, Pos: pos(1), ID: id(4)}},
		})
		if err != nil || string(got) != string(want) {
			t.Errorf("got %s\nwant %s", got, want)
		}
		if got := s.FetchedFrames(); got != test.fetched {
			t.Errorf("%d fetched frames, want %d", got, test.fetched)
		}
	}
}
