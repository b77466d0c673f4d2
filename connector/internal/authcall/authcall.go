// Package authcall asks a client app whether a user may log in: one POST to the
// app's authUrl.
//
// Apps do not touch each other: each has its own connections, its own limit of
// calls under way, its own bounded queue and its own circuit breaker. After 5
// results in a row that say nothing (a time-out, a 5xx, an unreadable answer) the
// breaker opens for 1 s; then one call probes, and each probe that fails doubles
// the pause, up to 30 s.
package authcall

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/ident"
)

const (
	connectTimeout = time.Second
	callTimeout    = 3 * time.Second // of a call in all; waiting in the queue is not part of it
	maxCalls       = 64              // of one app at once
	maxQueued      = 1000            // of one app; whoever comes when it is full is told so at once
	maxBody        = 16 << 10
	idleTimeout    = 90 * time.Second
)

// Answer is what came of a call.
type Answer int

// The answers.
const (
	Allowed     Answer = iota // the app says yes
	Refused                   // the app says no
	Unavailable               // the app says nothing: to be tried again later
)

// Request is one question. The token is never logged.
type Request struct {
	App    string // the app's name: its calls share connections and limits
	URL    string
	AppID  string
	UserID ident.UserID
	Token  string
	// Waiting is called with true when the call begins to wait in the queue of
	// its app, and with false when it goes out.
	Waiting func(bool)
}

// Caller asks. Its methods may be called by any goroutine.
type Caller struct {
	log     *slog.Logger
	latency prometheus.Histogram
	calls   map[Answer]prometheus.Counter

	mu    sync.Mutex
	desks map[string]*desk // guarded by mu; by app name
}

// New returns a Caller.
func New(log *slog.Logger, r prometheus.Registerer) (*Caller, error) {
	calls := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "linker_authcall_calls_total", Help: "Auth callbacks by answer; unavailable ones include those that were not made."}, []string{"answer"})
	c := &Caller{
		log:     log,
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "linker_authcall_duration_seconds", Help: "Duration of auth callbacks.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 13)}),
		calls: map[Answer]prometheus.Counter{
			Allowed: calls.WithLabelValues("allowed"), Refused: calls.WithLabelValues("refused"), Unavailable: calls.WithLabelValues("unavailable"),
		},
		desks: make(map[string]*desk),
	}
	for _, m := range []prometheus.Collector{calls, c.latency} {
		if err := r.Register(m); err != nil {
			return nil, fmt.Errorf("register authcall metrics: %w", err)
		}
	}
	return c, nil
}

// desk is where the calls of one app go out.
type desk struct {
	client  *http.Client
	slots   chan struct{} // holds one element for each call under way; never closed
	queue   chan struct{} // holds one element for each call that waits; never closed
	breaker breaker
}

func (c *Caller) desk(app string) *desk {
	c.mu.Lock()
	defer c.mu.Unlock()
	d, known := c.desks[app]
	if !known {
		d = &desk{
			client: &http.Client{
				Transport: &http.Transport{
					DialContext:         (&net.Dialer{Timeout: connectTimeout}).DialContext,
					MaxConnsPerHost:     maxCalls,
					MaxIdleConnsPerHost: maxCalls,
					IdleConnTimeout:     idleTimeout,
					ForceAttemptHTTP2:   true,
				},
				CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			},
			slots: make(chan struct{}, maxCalls),
			queue: make(chan struct{}, maxQueued),
		}
		c.desks[app] = d
	}
	return d
}

// Close lets go of idle connections. No Ask may be under way.
func (c *Caller) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.desks {
		d.client.CloseIdleConnections()
	}
}

// Ask asks, and returns when there is an answer or ctx ends; then the answer is
// Unavailable and counts for nothing.
func (c *Caller) Ask(ctx context.Context, r Request) Answer {
	d := c.desk(r.App)
	answer := d.ask(ctx, c, r)
	c.calls[answer].Inc()
	return answer
}

func (d *desk) ask(ctx context.Context, c *Caller, r Request) Answer {
	if !d.enter(ctx, r.Waiting) {
		return Unavailable
	}
	defer func() { <-d.slots }()
	allowed, probe := d.breaker.allow(time.Now())
	if !allowed {
		return Unavailable
	}
	began := time.Now()
	answer, err := d.call(ctx, r)
	c.latency.Observe(time.Since(began).Seconds())
	if ctx.Err() != nil {
		d.breaker.forget(probe)
		return Unavailable
	}
	if d.breaker.record(time.Now(), probe, answer != Unavailable) {
		c.log.Warn("auth callback unavailable, pausing", "app", r.App, "error", err)
	}
	return answer
}

// enter waits for a free slot. It reports false if too many wait already, or
// ctx ends.
func (d *desk) enter(ctx context.Context, waiting func(bool)) bool {
	select {
	case d.slots <- struct{}{}:
		return true
	default:
	}
	select {
	case d.queue <- struct{}{}:
	default:
		return false
	}
	defer func() { <-d.queue }()
	waiting(true)
	defer waiting(false)
	select {
	case d.slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// call makes one call. The error says why it is Unavailable; it holds neither
// the token nor the URL, which may carry secrets.
func (d *desk) call(ctx context.Context, r Request) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	body, err := json.Marshal(struct {
		AppID  string       `json:"appId"`
		UserID ident.UserID `json:"userId"`
		Token  string       `json:"token"`
	}{r.AppID, r.UserID, r.Token})
	if err != nil {
		return Unavailable, fmt.Errorf("encode question: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.URL, bytes.NewReader(body))
	if err != nil {
		return Unavailable, errors.New("the authUrl is not valid")
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json")
	response, err := d.client.Do(request)
	if err != nil {
		return Unavailable, fmt.Errorf("call: %w", errors.Unwrap(err)) // what it wraps names no URL
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxBody+1))
	switch status := response.StatusCode; {
	case status == http.StatusRequestTimeout || status == http.StatusTooManyRequests:
		return Unavailable, fmt.Errorf("status %d", status)
	case status >= 400 && status < 500:
		return Refused, nil
	case status < 200 || status > 299:
		return Unavailable, fmt.Errorf("status %d", status)
	case err != nil:
		return Unavailable, fmt.Errorf("read answer: %w", err)
	case len(text) > maxBody:
		return Unavailable, errors.New("the answer is larger than 16 KiB")
	}
	return read(text, r)
}

// read reads the body of a 2xx. Names match exactly; the answer must repeat who
// it is about.
func read(text []byte, r Request) (Answer, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil || fields == nil {
		return Unavailable, errors.New("the answer is not a JSON object")
	}
	var yes bool
	if raw, there := fields["isAuthenticated"]; there && json.Unmarshal(raw, &yes) != nil {
		return Unavailable, errors.New("isAuthenticated in the answer is not true or false")
	}
	if !yes {
		return Refused, nil
	}
	var appID, userID *string
	if json.Unmarshal(fields["appId"], &appID) != nil || json.Unmarshal(fields["userId"], &userID) != nil || appID == nil || userID == nil {
		return Refused, nil
	}
	if *appID != r.AppID || *userID != string(r.UserID) {
		return Refused, nil
	}
	return Allowed, nil
}
