package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/coder/websocket"
)

const (
	dialTimeout  = 10 * time.Second
	loginTimeout = 30 * time.Second // the server may wait for the app's callback
	writeTimeout = 10 * time.Second
	partTimeout  = 2 * time.Second // for the goodbye
	settleWithin = time.Second     // for what is under way when a connection is given up

	// silenceAfter is how long a connection may be silent before it is asked for
	// a sign of life; the server pings every 25 s. pongTimeout is how long that
	// may take.
	silenceAfter = 40 * time.Second
	pongTimeout  = 10 * time.Second

	// readLimit is the largest frame that is read; servers take at most 128 KiB.
	readLimit = 1 << 20
)

var (
	errSilent   = errors.New("the connection is silent")
	errOverflow = errors.New("frames had to be dropped, they will be asked for again")
	errGoAway   = errors.New("the server asks to connect again")
	errLeaving  = errors.New("leaving")
)

// conn is one connection that is logged in. What is not static is guarded by the
// client's mutex.
type conn struct {
	ws   *websocket.Conn // static
	wake chan struct{}   // static; capacity 1, never closed: the writer has work

	acks     acks
	heard    time.Time // when something came
	overflow bool      // frames were dropped: the connection has to be made anew
	comeBack time.Time // when GO_AWAY lets us come back; zero: there was none
	retired  error     // why it is given up: nothing more is sent, but acknowledgements; nil: it is not
	partBy   time.Time // then it ends at the latest, if it is given up
}

// retireLocked lets a connection end as soon as what is under way is answered.
func (cn *conn) retireLocked(why error, partBy time.Time) {
	if cn.retired == nil {
		cn.retired, cn.partBy = why, partBy
	}
}

// wrongDomain says where the user is at home.
type wrongDomain struct {
	domain string
	urls   []string
}

func (e *wrongDomain) Error() string {
	return fmt.Sprintf("the user is at home in domain %q", e.domain)
}

// busyError is a handshake that was refused with a hint when to come back.
type busyError struct {
	err   error
	after time.Duration
}

func (e *busyError) Error() string { return e.err.Error() }
func (e *busyError) Unwrap() error { return e.err }

// login connects and logs in.
func (c *Client) login(ctx context.Context, target string) (*conn, error) {
	token := ""
	if c.cfg.Token != nil {
		ask, cancel := context.WithTimeout(ctx, loginTimeout)
		defer cancel()
		var err error
		token, err = c.cfg.Token(ask)
		if err != nil {
			return nil, &tokenError{err}
		}
	}
	cn := &conn{wake: make(chan struct{}, 1), heard: time.Now()}
	if err := c.dial(ctx, cn, target); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	if err := c.authenticate(ctx, cn, token); err != nil {
		_ = cn.ws.CloseNow() // the error says more
		return nil, err
	}
	return cn, nil
}

func (c *Client) dial(ctx context.Context, cn *conn, target string) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	alive := func() {
		c.mu.Lock()
		cn.heard = time.Now()
		c.mu.Unlock()
	}
	ws, res, err := websocket.Dial(ctx, target, &websocket.DialOptions{
		HTTPClient:      c.cfg.HTTPClient,
		CompressionMode: websocket.CompressionDisabled,
		OnPingReceived:  func(context.Context, []byte) bool { alive(); return true },
		OnPongReceived:  func(context.Context, []byte) { alive() },
	})
	if res != nil && res.Body != nil && err != nil {
		_ = res.Body.Close() // a few bytes that the library has kept
	}
	if err != nil {
		err = fmt.Errorf("dial: %w", err)
		if after := retryAfter(res); after > 0 {
			return &busyError{err, after}
		}
		return err
	}
	ws.SetReadLimit(readLimit)
	cn.ws = ws
	return nil
}

// retryAfter is the pause that the answer to a handshake asks for, 0 if it does
// not.
func retryAfter(res *http.Response) time.Duration {
	if res == nil || res.StatusCode != http.StatusServiceUnavailable && res.StatusCode != http.StatusTooManyRequests {
		return 0
	}
	seconds, err := strconv.ParseInt(res.Header.Get("Retry-After"), 10, 32)
	if err != nil {
		return 0 // absent, or a date, which nobody sends here
	}
	return milliseconds(seconds*1000, maxRetryAfter)
}

func (c *Client) authenticate(ctx context.Context, cn *conn, token string) error {
	frame := encode(outgoing{Type: typeAuth, Data: authData{
		AppID: c.cfg.AppID, UserID: c.cfg.UserID, Token: token, Features: []string{"accept", "ack", "push"},
	}})
	if err := cn.ws.Write(ctx, websocket.MessageText, frame); err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	for {
		f, err := receive(ctx, cn.ws)
		if err != nil {
			return fmt.Errorf("log in: %w", err)
		}
		if f.Type != typeAuthReply {
			continue
		}
		switch {
		case f.Data.IsAuthenticated:
			return nil
		case f.Data.Reason != reasonWrongDomain:
			return refusedLogin(ctx, cn, f.Data.Reason)
		}
		var urls []string
		for _, u := range f.Data.URLs {
			if u, err := endpoint(u); err == nil { // others are not for clients
				urls = append(urls, u)
			}
		}
		if len(urls) == 0 {
			return &LoginError{Reason: f.Data.Reason}
		}
		return &wrongDomain{f.Data.Domain, urls}
	}
}

// refusedLogin says why a login was refused. The close code that follows says
// whether to come back.
func refusedLogin(ctx context.Context, cn *conn, reason string) error {
	refused := &LoginError{Reason: reason}
	ctx, cancel := context.WithTimeout(ctx, partTimeout)
	defer cancel()
	_, err := receive(ctx, cn.ws)
	var closed *CloseError
	if errors.As(err, &closed) && closed.Code == closeTryAgain || reason == reasonAuthUnavailable || reason == reasonTooMany {
		return &tryAgain{refused}
	}
	return refused
}

// tryAgain is a refused login that may succeed later.
type tryAgain struct{ err *LoginError }

func (e *tryAgain) Error() string { return e.err.Error() }

// receive reads one frame. The end of ctx ends the connection.
func receive(ctx context.Context, ws *websocket.Conn) (*incoming, error) {
	kind, b, err := ws.Read(ctx)
	if code := websocket.CloseStatus(err); code != -1 {
		var closed websocket.CloseError
		errors.As(err, &closed)
		return nil, &CloseError{Code: int(code), Reason: closed.Reason}
	}
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	if kind != websocket.MessageText {
		return nil, errors.New("read: a binary frame, expected text")
	}
	return decode(b)
}

// serve runs a connection until its end and returns why it has ended. The end of
// ctx lets it say goodbye.
func (c *Client) serve(ctx context.Context, cn *conn) error {
	inner, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	readerEnded := make(chan struct{})
	var tasks sync.WaitGroup
	tasks.Go(func() {
		defer close(readerEnded)
		cut(c.readLoop(inner, cn))
	})
	tasks.Go(func() {
		err := c.writeLoop(inner, cn, cut)
		if err != nil {
			// What the reader finds, such as a close code, says more.
			timer := time.NewTimer(partTimeout)
			defer timer.Stop()
			select {
			case <-readerEnded:
			case <-timer.C:
			}
		}
		cut(cmp.Or(err, errLeaving))
	})
	tasks.Go(func() { c.watch(inner, cn, cut) })
	select {
	case <-inner.Done():
	case <-ctx.Done():
		c.mu.Lock()
		cn.retireLocked(errLeaving, time.Now())
		c.mu.Unlock()
		signal(cn.wake)
		<-inner.Done()
	}
	_ = cn.ws.CloseNow() // it is of no use any more
	tasks.Wait()
	return c.lost(cn, context.Cause(inner))
}

// lost takes back what a connection that has ended leaves, and returns why it has.
func (c *Client) lost(cn *conn, err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn = nil
	c.line.lost()
	c.inbox.clear() // the server sends again what is not acknowledged
	c.endFastLocked(ErrNotConnected)
	c.stateLocked(Disconnected)
	var closed *CloseError
	if cn.retired != nil && !(errors.As(err, &closed) && isFinal(closed.Code)) {
		return cn.retired
	}
	return err
}

// readLoop takes every frame as it comes: that the application is slow must not
// keep the connection from showing signs of life.
func (c *Client) readLoop(ctx context.Context, cn *conn) error {
	for {
		f, err := receive(ctx, cn.ws)
		if err != nil {
			return err
		}
		c.handle(cn, f)
	}
}

// handle takes one frame.
func (c *Client) handle(cn *conn, f *incoming) {
	c.mu.Lock()
	cn.heard = time.Now()
	c.mu.Unlock()
	switch f.Type {
	case typeAccepted:
		c.accepted(f)
	case typeFailed, typeInvalid:
		c.refused(f)
	case typeGoAway:
		c.goAway(cn, f)
	default:
		if f.ID != "" || f.Seq > 0 {
			c.mu.Lock()
			c.receivedLocked(cn, f)
			c.mu.Unlock()
		}
	}
}

// goAway takes a GO_AWAY: the connection is used until it is time to come back.
func (c *Client) goAway(cn *conn, f *incoming) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cn.comeBack.IsZero() {
		cn.comeBack = time.Now().Add(milliseconds(f.Data.ReconnectInMs, maxAway))
		signal(cn.wake)
	}
}

// writeLoop writes what there is. It returns nil when it has said goodbye.
func (c *Client) writeLoop(ctx context.Context, cn *conn, cut context.CancelCauseFunc) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		w := c.gather(cn, time.Now())
		if err := c.write(ctx, cn, w); err != nil {
			return err
		}
		switch {
		case w.last:
			return part(cn, cut)
		case w.more:
			continue
		}
		var due <-chan time.Time
		if !w.next.IsZero() {
			timer.Reset(time.Until(w.next))
			due = timer.C
		}
		select {
		case <-cn.wake:
		case <-due:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// load is what is written in one go.
type load struct {
	ack   uint64 // acknowledge up to here; 0: nothing
	fast  []*fastItem
	items []*item
	last  bool      // then say goodbye
	more  bool      // look again at once
	next  time.Time // when to look again, if nothing happens before; zero: never
}

// gather takes what can be written now.
func (c *Client) gather(cn *conn, now time.Time) load {
	c.mu.Lock()
	defer c.mu.Unlock()
	var w load
	earlier := func(t time.Time) {
		if !t.IsZero() && (w.next.IsZero() || t.Before(w.next)) {
			w.next = t
		}
	}
	if !cn.comeBack.IsZero() && !cn.comeBack.After(now) {
		cn.retireLocked(errGoAway, now.Add(settleWithin))
	}
	earlier(cn.comeBack)
	giveUp := cn.retired != nil
	if giveUp {
		w.last = len(c.line.under) == 0 || !cn.partBy.After(now)
		w.next = cn.partBy
	} else {
		w.fast, c.fast = c.fast, nil
		for _, f := range w.fast {
			f.taken = true
		}
		next, sending := c.line.wake(now)
		earlier(next)
		for sending {
			it, again := c.line.next()
			if it == nil {
				break
			}
			c.stats.Sent++
			if again {
				c.stats.Resent++
			}
			w.items = append(w.items, it)
		}
	}
	if upTo := cn.acks.upTo(); upTo > cn.acks.sent && (w.last || !cn.acks.due.After(now)) {
		w.ack, cn.acks.sent = upTo, upTo
		cn.acks.due = time.Time{}
	} else {
		earlier(cn.acks.due)
	}
	w.more = w.ack > 0 || len(w.fast)+len(w.items) > 0
	return w
}

func (c *Client) write(ctx context.Context, cn *conn, w load) error {
	text := func(b []byte) error {
		ctx, cancel := context.WithTimeout(ctx, writeTimeout)
		defer cancel()
		return cn.ws.Write(ctx, websocket.MessageText, b)
	}
	var err error
	if w.ack > 0 {
		err = text(encode(outgoing{Type: typeAck, Data: ackData{UpTo: w.ack}}))
	}
	for _, f := range w.fast {
		if err == nil {
			err = text(f.frame)
		}
		if err != nil {
			f.err = ErrNotConnected
		}
		close(f.done)
	}
	for _, it := range w.items {
		if err == nil {
			err = text(it.frame)
		}
	}
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// part says goodbye. The server has read everything before it when it answers.
func part(cn *conn, cut context.CancelCauseFunc) error {
	stop := time.AfterFunc(partTimeout, func() { cut(errLeaving) })
	defer stop.Stop()
	err := cn.ws.Close(websocket.StatusNormalClosure, "")
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close: %w", err)
	}
	return nil
}

// watch ends a connection that is silent.
func (c *Client) watch(ctx context.Context, cn *conn, cut context.CancelCauseFunc) {
	for wait := silenceAfter; sleep(ctx, wait); {
		now := time.Now()
		c.mu.Lock()
		silence := now.Sub(cn.heard)
		c.seen.expire(now)
		c.mu.Unlock()
		wait = silenceAfter - silence
		if wait > 0 {
			continue
		}
		wait = silenceAfter
		ping, cancel := context.WithTimeout(ctx, pongTimeout)
		err := cn.ws.Ping(ping)
		cancel()
		if err != nil {
			cut(errSilent)
			return
		}
	}
}
