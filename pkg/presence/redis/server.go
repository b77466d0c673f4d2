package redis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/redis/go-redis/v9"

	"github.com/linkerhq/linker/pkg/certs"
)

// Server says where Redis is and how to talk to it. The CA file is read once.
type Server struct {
	URL    string // redis://… or rediss://…; it may carry credentials and is never logged
	CAFile string // certificates to trust instead of the system's, with rediss://
}

// Validate says what is wrong, in the file as well. It connects to nobody.
func (s Server) Validate() error {
	_, err := s.options()
	return err
}

// options does not quote the URL in errors: that may hold a password.
func (s Server) options() (*redis.Options, error) {
	scheme, _, found := strings.Cut(s.URL, "://")
	switch {
	case s.URL == "":
		return nil, errors.New("the URL of Redis is missing: expected redis://HOST:PORT or rediss://HOST:PORT")
	case found && scheme != "redis" && scheme != "rediss":
		return nil, fmt.Errorf("the URL of Redis begins with %q: expected redis:// or rediss://", scheme)
	}
	options, err := redis.ParseURL(s.URL)
	if err != nil {
		return nil, errors.New("the URL of Redis is not valid: expected redis://USER:PASSWORD@HOST:PORT/DATABASE, with special characters of a password as %XX")
	}
	if s.CAFile == "" {
		return options, nil
	}
	if options.TLSConfig == nil {
		return nil, errors.New("there is a CA file for Redis, but no TLS: the URL should begin with rediss://")
	}
	pool, err := certs.Pool(s.CAFile)
	if err != nil {
		return nil, fmt.Errorf("TLS towards Redis: %w", err)
	}
	options.TLSConfig.RootCAs = pool
	return options, nil
}

// watcher says once that Redis refuses us, and again after it has let us in. It
// changes nothing of what happens: whoever asked gets the error and asks again.
type watcher struct {
	log       *slog.Logger // static
	encrypted bool         // static
	refused   atomic.Bool
}

// note looks at how a command ended.
func (w *watcher) note(err error) {
	if err == nil || errors.Is(err, redis.Nil) {
		if w.refused.Load() && w.refused.Swap(false) {
			w.log.Info("Redis lets us in again")
		}
		return
	}
	w.say(meaning(err), err)
}

func (w *watcher) say(reason string, err error) {
	if reason != "" && !w.refused.Swap(true) {
		w.log.Error("Redis cannot be used, trying again", "reason", reason, "error", err)
	}
}

// meaning says what is refused; "" if Redis is merely away.
func meaning(err error) string {
	if text := certs.Explain(err); text != "" {
		return "the server does not fit our TLS, " + text
	}
	text := err.Error()
	switch {
	case strings.Contains(text, "WRONGPASS"), strings.Contains(text, "invalid password"), strings.Contains(text, "invalid username-password"):
		return "the server refuses the user or the password"
	case strings.Contains(text, "NOAUTH"):
		return "the server wants a password"
	case strings.Contains(text, "without any password configured"):
		return "the server has no password, and the URL has one"
	case strings.Contains(text, "NOPERM"):
		return "the user lacks rights: it needs the keys linker:* and the commands of hashes, sets, strings and scripts, TIME, PEXPIRE and INFO"
	default:
		return ""
	}
}

// DialHook implements redis.Hook. The handshake belongs to dialing.
func (w *watcher) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := next(ctx, network, addr)
		var silence net.Error
		switch {
		case err == nil, !w.encrypted:
		case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
			w.say("the server ends the TLS handshake: it is stopping, or its port speaks no TLS", err)
		case errors.As(err, &silence) && silence.Timeout():
			w.say("the server does not answer in time: it is away or hangs, or its port speaks no TLS", err)
		}
		return conn, err
	}
}

// ProcessHook implements redis.Hook.
func (w *watcher) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		w.note(err)
		return err
	}
}

// ProcessPipelineHook implements redis.Hook.
func (w *watcher) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		w.note(err)
		return err
	}
}
