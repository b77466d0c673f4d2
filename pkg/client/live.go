package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"sync"
	"time"
)

const (
	// maxRedirects bounds how often the server may send the client elsewhere in a
	// row; then it pauses.
	maxRedirects = 3
	// goodAfter is how long a connection has to last before the pauses begin
	// anew.
	goodAfter = 10 * time.Second
	// maxAway is the longest pause that GO_AWAY can ask for.
	maxAway = 2 * time.Minute
)

// live keeps the client connected until ctx ends or it must not come back. When it
// returns all goroutines have ended.
func (c *Client) live(ctx context.Context) {
	var tasks sync.WaitGroup
	tasks.Go(c.dispatch)
	c.finish(c.stayConnected(ctx))
	tasks.Wait()
}

// finish ends everything that waits.
func (c *Client) finish(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		err = ErrClosed
	}
	c.err = err
	c.endLineLocked(err)
	c.inbox.clear()
	c.stateLocked(Ended)
	c.events.close()
	close(c.final)
}

// ending is how an attempt or a connection has ended.
type ending struct {
	err      error
	loggedIn bool
	lasted   time.Duration // since the login
	final    bool          // do not come back
	again    bool          // come back at once
	after    time.Time     // come back then, as the server has said; zero: after a pause
	urls     []string      // WRONG_DOMAIN: go there
}

// stayConnected connects again and again, and returns why it must not.
func (c *Client) stayConnected(ctx context.Context) error {
	to := targets{home: c.cfg.URLs, urls: c.cfg.URLs}
	failures, redirects := 0, 0
	for {
		target := to.current()
		e := c.connection(ctx, target)
		if ctx.Err() != nil {
			return ErrClosed
		}
		if e.final {
			c.log.Error("the connection has ended for good", "url", hostOf(target), "error", e.err)
			return e.err
		}
		if e.loggedIn {
			redirects = 0
			if e.lasted >= goodAfter {
				failures = 0
			}
		}
		c.log.Info("not connected", "url", hostOf(target), "error", logged(e.err))
		pause := time.Duration(0)
		switch {
		case e.again:
		case len(e.urls) > 0 && redirects < maxRedirects:
			redirects++
		case !e.after.IsZero() && e.lasted >= goodAfter:
			pause = time.Until(e.after)
		default:
			redirects = 0
			pause = jitter(c.cfg.MinPause, c.cfg.MaxPause, failures)
			failures++
			if !e.after.IsZero() {
				pause = max(pause, time.Until(e.after))
			}
		}
		switch {
		case len(e.urls) > 0:
			to.redirect(e.urls)
		case !e.again:
			to.next()
		}
		if !sleep(ctx, pause) {
			return ErrClosed
		}
	}
}

// connection makes one attempt, and serves the connection until its end.
func (c *Client) connection(ctx context.Context, target string) ending {
	cn, err := c.login(ctx, target)
	if err != nil {
		c.mu.Lock()
		if ctx.Err() == nil { // else it is the end of ctx
			c.lastErr = err
		}
		c.mu.Unlock()
		return c.judge(err)
	}
	c.begin(cn)
	c.log.Info("connected", "url", hostOf(target))
	began := time.Now()
	err = c.serve(ctx, cn)
	c.mu.Lock()
	after := cn.comeBack
	c.mu.Unlock()
	e := c.judge(err)
	e.loggedIn = true
	e.lasted = time.Since(began)
	if e.after.IsZero() {
		e.after = after
	}
	return e
}

// begin makes a connection that is logged in the present one.
func (c *Client) begin(cn *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn = cn
	c.stats.Logins++
	if c.stats.Logins == 1 {
		close(c.online)
	}
	c.stateLocked(Connected)
}

// judge says what the end of a connection or of an attempt means.
func (c *Client) judge(err error) ending {
	e := ending{err: err}
	var wrong *wrongDomain
	var refused *LoginError
	var closed *CloseError
	var busy *busyError
	switch {
	case errors.As(err, &wrong):
		e.urls = wrong.urls
	case errors.As(err, &refused):
		e.final = true
	case errors.As(err, &closed):
		e.final = isFinal(closed.Code)
	case errors.As(err, &busy):
		e.after = time.Now().Add(busy.after)
	case errors.Is(err, errOverflow):
		e.again = true
	}
	return e
}

// targets are the addresses to try. It belongs to stayConnected.
type targets struct {
	home []string // those of the configuration
	urls []string // those that are tried
	at   int
}

func (t *targets) current() string { return t.urls[t.at] }

// next moves on; after the last address of where we were sent come those of the
// configuration.
func (t *targets) next() {
	t.at++
	if t.at < len(t.urls) {
		return
	}
	t.urls, t.at = t.home, 0
}

func (t *targets) redirect(urls []string) {
	t.urls, t.at = urls, 0
}

// jitter draws a pause from 0 to a limit that doubles with each failure. Both are
// above 0, and the first is not the longer one.
func jitter(shortest, longest time.Duration, failures int) time.Duration {
	limit := shortest
	for ; failures > 0 && limit < longest; failures-- {
		limit += min(limit, longest-limit)
	}
	return rand.N(limit) + 1
}

// sleep reports whether the time has passed before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// hostOf is what of an address may be logged.
func hostOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	return u.Host
}

// tokenError wraps an error of Config.Token, whose text is not ours to log.
type tokenError struct{ err error }

func (e *tokenError) Error() string { return fmt.Sprintf("ask for the token: %v", e.err) }
func (e *tokenError) Unwrap() error { return e.err }

// logged returns what of an error may be logged.
func logged(err error) string {
	var token *tokenError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &token):
		return "no token"
	default:
		return err.Error()
	}
}
