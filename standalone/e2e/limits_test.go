package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// limited is a network whose first app has these limits, and a second one without.
func limited(limits string) string {
	app := func(name, more string) string {
		return fmt.Sprintf("  - {appName: %s, appId: %s, masterUserId: %s%s}\n", name, appID(name), masterOf(name), more)
	}
	if limits != "" {
		limits = ", limits: " + limits
	}
	return "domains:\n  - {name: " + home + ", urls: ['ws://127.0.0.1:8088']}\nclientApps:\n" + app("LIM", limits) + app("FREE", "")
}

// tooFast sends what write sends until it is refused, and returns the refusal.
func (c *client) tooFast(write func(reference string)) *frame {
	c.t.Helper()
	for n := range 10_000 {
		write(fmt.Sprint(n))
		for f := c.next(); ; f = c.next() {
			if f.Type == "DELIVER_FAILED" && f.Data.Code == "RATE_LIMITED" {
				if f.reference() != fmt.Sprint(n) || f.Data.Retryable == nil || !*f.Data.Retryable || f.Data.RetryAfterMs < 1 || f.Data.Message == "" {
					c.t.Errorf("got %v", f)
				}
				return f
			}
			if f.Type == "MESSAGE_ACCEPTED" || f.Type == "FETCH_MISSING_MESSAGES_COMPLETE" || f.Type == "DELIVER_FAILED" && f.Data.Code == "NOT_CONNECTED" {
				break
			}
			c.t.Fatalf("got %v", f)
		}
	}
	c.t.Fatal("nothing was refused")
	return nil
}

func TestWhoSendsAboveTheLimitOfASocketIsToldWhenToComeBack(t *testing.T) {
	t.Parallel()
	s := start(t, setup{network: limited("{socket: {messagesPerSecond: 2, burst: 6}}")})
	sender, free := s.login(t, "LIM-7", "accept"), s.login(t, "FREE-1", "accept")
	for name, write := range map[string]func(reference string){
		"message": func(r string) { sender.say("LIM-9", "x", r) },
		"group": func(r string) {
			sender.send(`{"type":"GROUP_MESSAGE","data":{"to":["LIM-9","LIM-10","LIM-11"],"content":"x"},"reference":"%s"}`, r)
		},
		"fetch": func(r string) {
			sender.send(`{"type":"FETCH_MISSING_MESSAGES_REQUEST","data":{"count":1},"reference":"%s"}`, r)
		},
		"close": func(r string) {
			sender.send(`{"type":"CLOSE_CONNECTION","data":{"userId":"LIM-12"},"reference":"%s"}`, r)
		},
	} {
		f := sender.tooFast(write)
		if f.Data.RetryAfterMs > 500 {
			t.Errorf("%s: got %v, want that it can come again within half a second", name, f)
		}
		time.Sleep(time.Duration(f.Data.RetryAfterMs) * time.Millisecond) // what it was told
		sender.say("LIM-9", "in time", "r")
		if f := sender.next(); f.Type != "MESSAGE_ACCEPTED" {
			t.Errorf("%s: after the time that was told: got %v", name, f)
		}
	}
	fast := 0
	for range 20 {
		sender.sayFast("LIM-9", "x", "")
	}
	s.login(t, "LIM-7", "accept").works() // the limit is each socket's own
	for range 100 {
		free.say("FREE-1", "x", "")
	}
	for range 200 {
		if f := free.next(); f.Type == "DELIVER_FAILED" {
			t.Fatalf("an app without limits: got %v", f)
		}
	}
	for fast < 10 {
		if f := sender.next(); f.Type != "DELIVER_FAILED" || f.Data.Code != "RATE_LIMITED" {
			t.Fatalf("FAST: got %v", f)
		}
		fast++
	}
}

func TestTheLimitOfAnAppIsSharedAndFollowsTheNetworkFile(t *testing.T) {
	t.Parallel()
	s := start(t, setup{network: limited("{app: {messagesPerSecond: 1, burst: 1}}")})
	url := s.WebsocketURL() // of one connector: each counts for itself
	one, two := login(t, url, "LIM-1", "accept"), login(t, url, "LIM-2", "accept")
	began := time.Now()
	one.tooFast(func(r string) { one.say("LIM-9", "x", r) })
	const more = 10
	taken := 0
	for range more {
		two.say("LIM-9", "x", "r")
		if two.next().Type != "DELIVER_FAILED" {
			taken++
		}
	}
	if room := 1 + int(time.Since(began)/time.Second); taken > room {
		t.Errorf("%d of %d messages were taken, another socket had left room for %d", taken, more, room)
	}
	edit(t, s.NetworkFile(), "limits: {app: {messagesPerSecond: 1, burst: 1}}", "authEnabled: false")
	began = time.Now()
	eventually(t, "without a limit", func() bool {
		two.say("LIM-9", "x", "r")
		two.say("LIM-9", "x", "r")
		first, second := two.next(), two.next()
		return first.Type == "MESSAGE_ACCEPTED" && second.Type == "MESSAGE_ACCEPTED"
	})
	within(t, "the limit to go", 5*time.Second, began)
	edit(t, s.NetworkFile(), "authEnabled: false", "limits: {socket: {messagesPerSecond: 1}}")
	began = time.Now()
	two.tooFast(func(r string) { two.say("LIM-9", "x", r) })
	within(t, "the limit to come", 5*time.Second, began)
	edit(t, s.NetworkFile(), "messagesPerSecond: 1", "messagesPerSecond: 0")
	eventually(t, "refused", func() bool {
		return strings.Contains(problems(t, s), "limits.socket.messagesPerSecond: must be a whole number from 1")
	})
	two.tooFast(func(r string) { two.say("LIM-9", "x", r) })
}

// A socket that goes on, whatever it is told, is closed; one that waits stays.
func TestASocketThatNeverWaitsIsClosedAfterTenSeconds(t *testing.T) {
	t.Parallel()
	s := start(t, setup{network: limited("{socket: {messagesPerSecond: 5, burst: 5}}")})
	flood, polite := s.login(t, "LIM-1"), s.login(t, "LIM-2", "accept")
	began := time.Now()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for range tick.C {
			if flood.write(message("LIM-9", "x", "r", "RELIABLE")) != nil {
				return
			}
		}
	}()
	for over := false; !over; {
		select {
		case <-ended:
			over = true
		default:
			polite.say("LIM-9", "x", "r")
			if f := polite.next(); f.Type == "DELIVER_FAILED" {
				time.Sleep(time.Duration(f.Data.RetryAfterMs) * time.Millisecond) // what it was told
			}
		}
	}
	took := time.Since(began)
	if code := flood.closed(); code != 4429 || took < 9*time.Second || took > 25*time.Second {
		t.Errorf("closed with %d after %v, want 4429 after 10 s", code, took)
	}
	polite.say("LIM-9", "still here", "r")
	if f := polite.next(); f.Type != "MESSAGE_ACCEPTED" && f.Data.Code != "RATE_LIMITED" {
		t.Errorf("got %v", f)
	}
}
