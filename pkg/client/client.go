// Package client speaks to a Linker network for one user: it logs in, stays
// connected, sends, and hands over what arrives.
//
// It owns the websocket and everything that a connection which breaks would
// lose. It promises:
//
//   - Send returns when the network has the message and answers for it. Messages
//     to one receiver arrive in the order sent, whatever breaks on the way.
//   - Messages yields each message once and in order, over any number of
//     connections. A message is acknowledged when the loop asks for the next
//     one, not before.
//   - It comes back by itself after every end of a connection that the protocol
//     allows to come back from, and goes where the user's home is.
//
// What is not accepted yet is kept in memory, or in a file (OpenOutbox), so that
// it is sent even if the program ends before.
package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/linkerhq/linker/pkg/ident"
)

// Defaults of Config.
const (
	DefaultMinPause   = 500 * time.Millisecond
	DefaultMaxPause   = 30 * time.Second
	DefaultMaxFrame   = 64 << 10 // bytes
	DefaultMaxWaiting = 16384    // messages
	DefaultRemember   = 131072   // ids
)

// maxFrameLimit is the most that a server can be set to take.
const maxFrameLimit = 128 << 10

// Config says who connects, and to where. URLs, AppID and UserID are needed.
type Config struct {
	// URLs are the addresses of connectors, ws://HOST:PORT or wss://HOST, with or
	// without the path /ws. They are tried in turn.
	URLs []string

	AppID  string
	UserID string // <appName>-<number>

	// Token is asked before each login; an error is like a connection that fails,
	// it is asked again after a pause. nil: the empty token. It is never logged.
	Token func(ctx context.Context) (string, error)

	// Outbox keeps what was not accepted yet over a restart of the program; see
	// OpenOutbox. It is of this user, and no other client has it. nil: in memory
	// only. The client does not close it.
	Outbox Outbox

	// MinPause and MaxPause bound the pauses between attempts to connect: each is
	// drawn at random from 0 to a limit that starts with MinPause and doubles up
	// to MaxPause. Default: 500 ms and 30 s.
	MinPause, MaxPause time.Duration

	// MaxFrame is the largest frame in bytes that the servers take (their
	// frame-limit). What is larger is not sent, since it would end the
	// connection. Default: 64 KiB.
	MaxFrame int

	// MaxWaiting bounds the messages that are not accepted yet; Send returns
	// ErrFull beyond it. What an outbox has left from an earlier run counts.
	// Default: 16384.
	MaxWaiting int

	// Memory knows what was taken before, so that a copy is known as one; see
	// there. nil: one for DefaultRemember ids, which ends with the client.
	Memory *Memory

	// HTTPClient makes the connections. nil: http.DefaultClient.
	HTTPClient *http.Client

	// Log gets a line when a connection begins or ends, never tokens or contents.
	// nil: nothing is logged.
	Log *slog.Logger

	// Confirmed, Presence, Failed and State are called one after another, in the
	// order of the events, by one goroutine. They may call Send, but not Close. A
	// confirmation or a presence event is acknowledged when its call returns.
	// Each may be nil.
	Confirmed func(Confirmation)
	Presence  func(PresenceEvent)
	Failed    func(Failure)
	State     func(State)
}

// State says how a client stands.
type State int

// The states of a client.
const (
	Disconnected State = iota // trying to connect
	Connected                 // logged in
	Ended                     // will not come back: closed, or Err says why
)

// String returns the state in lower case.
func (s State) String() string {
	switch s {
	case Disconnected:
		return "disconnected"
	case Connected:
		return "connected"
	case Ended:
		return "ended"
	default:
		return fmt.Sprintf("State(%d)", int(s))
	}
}

// Stats are counts since Connect.
type Stats struct {
	Logins     uint64 // that succeeded
	Sent       uint64 // messages written, each time
	Resent     uint64 // of these, messages that had been written before
	Accepted   uint64
	Refused    uint64 // messages that the server cannot send
	Received   uint64 // messages handed to Messages
	Duplicates uint64 // copies that were dropped
	// Overflow counts frames that came faster than they were taken, beyond what
	// the server's window allows: FAST ones. They are dropped; what was RELIABLE
	// among them comes again over a new connection.
	Overflow uint64
	// MissedEvents counts calls of Failed and State that were left out since
	// more than 1024 waited; the oldest go.
	MissedEvents uint64
}

// Client is a user's connection to the network. Its methods may be called by any
// goroutine.
type Client struct {
	// Static after Connect.
	cfg    Config
	log    *slog.Logger
	cancel context.CancelFunc // ends all goroutines
	ended  chan struct{}      // closed when all goroutines have ended
	final  chan struct{}      // closed when the client will not come back
	fasts  chan struct{}      // capacity maxFasts: slots for FAST messages that wait for the writer
	seen   *Memory            // of what was taken

	mu       sync.Mutex
	closed   bool                       // guarded by mu; Close was called
	err      error                      // guarded by mu; why final is closed
	lastErr  error                      // guarded by mu; of the last attempt to connect
	online   chan struct{}              // guarded by mu; closed at the first login
	conn     *conn                      // guarded by mu; logged in; nil: none
	line     lineup                     // guarded by mu; what is not accepted
	fast     []*fastItem                // guarded by mu; at most maxFasts
	lastKey  uint64                     // guarded by mu; of the item added last
	unproved confirmations              // guarded by mu
	closing  map[string]chan *SendError // guarded by mu; CloseUser calls that wait, by reference
	inbox    inbox                      // guarded by mu
	events   events                     // guarded by mu
	stats    Stats                      // guarded by mu
}

// Connect logs in. It returns when the client is logged in for the first time, or
// with a *LoginError or a *CloseError where coming back is of no use, or when ctx
// ends; until then it tries again after every other error. ctx bounds Connect
// only: the client lives until Close.
func Connect(ctx context.Context, cfg Config) (*Client, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	c := &Client{
		cfg: cfg, log: cfg.Log.With("user", cfg.UserID),
		ended: make(chan struct{}), final: make(chan struct{}), online: make(chan struct{}),
		fasts: make(chan struct{}, maxFasts), seen: cfg.Memory,
		line: newLineup(), closing: map[string]chan *SendError{},
		inbox: newInbox(), events: newEvents(), unproved: newConfirmations(),
	}
	if err := c.loadOutbox(); err != nil {
		return nil, err
	}
	root, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c.cancel = cancel
	go func() {
		defer close(c.ended)
		c.live(root)
	}()
	select {
	case <-c.online:
		return c, nil
	case <-c.final:
		<-c.ended
		return nil, c.Err()
	case <-ctx.Done():
		_ = c.Close() // it never got in; there is nothing to tell
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.lastErr != nil {
			return nil, fmt.Errorf("connect: %w; the last attempt: %w", context.Cause(ctx), c.lastErr)
		}
		return nil, fmt.Errorf("connect: %w", context.Cause(ctx))
	}
}

// complete checks the configuration and fills in defaults.
func (cfg *Config) complete() error {
	cfg.MinPause = cmp.Or(cfg.MinPause, DefaultMinPause)
	cfg.MaxPause = cmp.Or(cfg.MaxPause, max(DefaultMaxPause, cfg.MinPause))
	cfg.MaxFrame = cmp.Or(cfg.MaxFrame, DefaultMaxFrame)
	cfg.MaxWaiting = cmp.Or(cfg.MaxWaiting, DefaultMaxWaiting)
	if cfg.Memory == nil {
		cfg.Memory = NewMemory(DefaultRemember)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	var errs []error
	wrong := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf("config: "+format, args...))
		}
	}
	wrong(len(cfg.URLs) == 0, "URLs: none, expected at least one such as ws://HOST:8088")
	wrong(cfg.AppID == "", "AppID: empty, expected the id of the client app")
	if _, err := ident.ParseUserID(cfg.UserID); err != nil {
		wrong(true, "UserID: %w", err)
	}
	wrong(cfg.MinPause < 0, "MinPause: %v, expected a positive duration", cfg.MinPause)
	wrong(cfg.MaxPause < cfg.MinPause, "MaxPause: %v, expected at least MinPause, %v", cfg.MaxPause, cfg.MinPause)
	wrong(cfg.MaxFrame < 1024 || cfg.MaxFrame > maxFrameLimit, "MaxFrame: %d, expected 1024 to %d", cfg.MaxFrame, maxFrameLimit)
	wrong(cfg.MaxWaiting < 0, "MaxWaiting: %d, expected a positive number", cfg.MaxWaiting)
	urls := make([]string, len(cfg.URLs))
	for i, u := range cfg.URLs {
		var err error
		if urls[i], err = endpoint(u); err != nil {
			wrong(true, "URLs: %w", err)
		}
	}
	cfg.URLs = urls
	return errors.Join(errs...)
}

// endpoint returns the address of the websocket that a url means.
func endpoint(raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", fmt.Errorf("%q, expected ws://HOST:PORT or wss://HOST:PORT", raw)
	}
	if u.Scheme != "ws" && u.Scheme != "wss" || u.Host == "" || u.User != nil || u.Fragment != "" {
		return "", fmt.Errorf("%q, expected ws://HOST:PORT or wss://HOST:PORT", raw)
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/ws"
	}
	return u.String(), nil
}

// Close ends the connection and waits until all goroutines have ended. What was
// taken is acknowledged before. Send returns ErrClosed, and ErrUnknown where a
// message may be on its way, or ErrPending with an outbox. A callback must not
// call Close. Calling it again does nothing.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	<-c.ended
	return nil
}

// Done is closed when the client will not come back: after Close, or when Err
// says why.
func (c *Client) Done() <-chan struct{} { return c.final }

// Err says why the client will not come back: ErrClosed after Close, a
// *LoginError or *CloseError if the server does not want it. nil: it lives.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Stats returns what was counted since Connect.
func (c *Client) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

// Waiting returns how many messages are not accepted yet.
func (c *Client) Waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.line.count
}
