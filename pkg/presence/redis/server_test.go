package redis_test

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"

	"github.com/linkerhq/linker/pkg/certs/certtest"
	"github.com/linkerhq/linker/pkg/logtest"
	"github.com/linkerhq/linker/pkg/presence/redis"
)

const user, password = "linker", "p@ss:word/1"

func openServer(t *testing.T, s redis.Server) (*redis.Registry, *logtest.Log) {
	t.Helper()
	log, lines := logtest.New()
	r, err := redis.Open(redis.Config{Server: s, Domain: "domain-01", Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r, lines
}

func at(scheme, addr, user, password string) string {
	u := url.URL{Scheme: scheme, Host: addr}
	if password != "" {
		u.User = url.UserPassword(user, password)
	}
	return u.String()
}

func TestLeasesAreKeptOverTLSWithUserAndPassword(t *testing.T) {
	t.Parallel()
	authority := certtest.NewAuthority(t)
	server := miniredis.NewMiniRedis()
	must(t, server.StartTLS(authority.Server()))
	t.Cleanup(server.Close)
	server.RequireUserAuth(user, password)
	r, lines := openServer(t, redis.Server{URL: at("rediss", server.Addr(), user, password), CAFile: authority.File()})
	c := connector("c1", 1)
	must(t, r.Renew(t.Context(), c, ttl))
	must(t, r.Put(t.Context(), c, nil, nil, ttl))
	if got := leases(t, r); len(got) != 1 {
		t.Errorf("got %v", got)
	}
	if text := lines.String(); text != "" {
		t.Errorf("logged: %s", text)
	}
}

func TestARefusalIsSaidOnceAndTriedAgain(t *testing.T) {
	t.Parallel()
	server := miniredis.NewMiniRedis()
	must(t, server.Start())
	t.Cleanup(server.Close)
	r, lines := openServer(t, redis.Server{URL: at("redis", server.Addr(), "", password)})
	c := connector("c1", 1)
	for range 2 {
		server.RequireAuth("another")
		before := lines.Lines("cannot be used")
		for range 3 {
			if err := r.Renew(t.Context(), c, ttl); err == nil {
				t.Fatal("it was let in")
			}
		}
		if got := lines.Lines("refuses the user or the password") - before; got != 1 {
			t.Errorf("it is said %d times: %s", got, lines)
		}
		server.RequireAuth(password)
		must(t, r.Renew(t.Context(), c, ttl))
		server.Close() // connections that are logged in stay so
		must(t, server.Restart())
	}
	if lines.Lines("lets us in again") != 2 || strings.Contains(lines.String(), password) {
		t.Errorf("logged: %s", lines)
	}
}

func TestWhyRedisCannotBeUsedIsSaid(t *testing.T) {
	t.Parallel()
	authority, stranger := certtest.NewAuthority(t), certtest.NewAuthority(t)
	start := func(start func(*miniredis.Miniredis) error) *miniredis.Miniredis {
		server := miniredis.NewMiniRedis()
		must(t, start(server))
		t.Cleanup(server.Close)
		return server
	}
	secret := start((*miniredis.Miniredis).Start)
	secret.RequireAuth(password)
	secure := start(func(m *miniredis.Miniredis) error { return m.StartTLS(authority.Server()) })
	for name, c := range map[string]struct {
		server redis.Server
		want   string
	}{
		"no password":            {redis.Server{URL: at("redis", secret.Addr(), "", "")}, "wants a password"},
		"a wrong user":           {redis.Server{URL: at("redis", secret.Addr(), "nobody", password)}, "refuses the user or the password"},
		"TLS that nobody speaks": {redis.Server{URL: at("rediss", secret.Addr(), "", password)}, "speaks no TLS"},
		"a server nobody trusts": {redis.Server{URL: at("rediss", secure.Addr(), "", ""), CAFile: stranger.File()}, "signed by nobody"},
	} {
		r, lines := openServer(t, c.server)
		for range 2 {
			if err := r.Renew(t.Context(), connector("c1", 1), ttl); err == nil {
				t.Errorf("%s: no error", name)
			}
		}
		if lines.Lines(c.want) != 1 || strings.Contains(lines.String(), password) {
			t.Errorf("%s: want one line with %q: %s", name, c.want, lines)
		}
	}
}

func TestMistakesOfTheServerAreNamedWithoutSecrets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	junk, missing := filepath.Join(dir, "junk"), filepath.Join(dir, "missing")
	must(t, os.WriteFile(junk, []byte("junk"), 0o600))
	for _, c := range []struct {
		server redis.Server
		want   string
	}{
		{redis.Server{}, "URL of Redis is missing"},
		{redis.Server{URL: "redis://linker:hush/hush@127.0.0.1:6379"}, "is not valid"},
		{redis.Server{URL: "redis://linker:hush@127.0.0.1:6379/zero"}, "is not valid"},
		{redis.Server{URL: "http://linker:hush@127.0.0.1:6379"}, `begins with "http"`},
		{redis.Server{URL: "127.0.0.1:6379"}, "is not valid"},
		{redis.Server{URL: "redis://127.0.0.1:6379", CAFile: missing}, "rediss://"},
		{redis.Server{URL: "rediss://127.0.0.1:6379", CAFile: missing}, missing},
		{redis.Server{URL: "rediss://127.0.0.1:6379", CAFile: junk}, junk},
	} {
		err := c.server.Validate()
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("got %v, want a line with %q", err, c.want)
		}
	}
}
