package kafka_test

import (
	"context"
	"crypto/tls"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/linkerhq/linker/pkg/broker/kafka"
	"github.com/linkerhq/linker/pkg/certs/certtest"
	"github.com/linkerhq/linker/pkg/logtest"
	"github.com/linkerhq/linker/pkg/polltest"
)

const (
	user, password = "linker", "pass,word=1"

	saslHandshakeKey    = 17
	saslAuthenticateKey = 36
)

func newCluster(t *testing.T, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	cluster, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return cluster
}

// secured starts a broker that wants TLS, with a certificate of the client's
// own, and a login; and returns how to get in.
func secured(t *testing.T, authority *certtest.Authority, mechanism string) kafka.Config {
	t.Helper()
	cfg, _ := securedCluster(t, authority, mechanism)
	return cfg
}

func securedCluster(t *testing.T, authority *certtest.Authority, mechanism string) (kafka.Config, *kfake.Cluster) {
	t.Helper()
	server := authority.Server()
	server.ClientAuth, server.ClientCAs = tls.RequireAndVerifyClientCert, authority.Pool()
	cluster := newCluster(t, kfake.TLS(server), kfake.EnableSASL(), kfake.Superuser(strings.ToUpper(mechanism), user, password))
	cfg := configFor(cluster.ListenAddrs()[0])
	cfg.CAFile = authority.File()
	cfg.CertFile, cfg.KeyFile = authority.Files()
	cfg.SASL, cfg.User, cfg.Password = mechanism, user, password
	return cfg, cluster
}

func TestRecordsTravelOverTLSWithEveryWayToLogIn(t *testing.T) {
	t.Parallel()
	for _, mechanism := range []string{"plain", "scram-sha-256", "scram-sha-512"} {
		t.Run(mechanism, func(t *testing.T) {
			t.Parallel()
			cfg := secured(t, certtest.NewAuthority(t), mechanism)
			if err := kafka.EnsureTopics(t.Context(), cfg); err != nil {
				t.Fatal(err)
			}
			appendAll(t, newProducer(t, cfg), 2, "over TLS")
			if got := readAll(t, cfg, 2, 1); got[0] != "over TLS" {
				t.Errorf("got %q", got)
			}
		})
	}
}

// TestWhatABrokerRefusesIsSaidAndTriedAgain goes on until the line was logged,
// and a little longer, to see that it is logged seldom.
func TestWhatABrokerRefusesIsSaidAndTriedAgain(t *testing.T) {
	t.Parallel()
	authority, stranger := certtest.NewAuthority(t), certtest.NewAuthority(t)
	open := configFor(newCluster(t).ListenAddrs()[0])
	strict, cluster := securedCluster(t, authority, "plain")
	cluster.ControlKey(saslHandshakeKey, func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		res := req.ResponseKind().(*kmsg.SASLHandshakeResponse)
		if req.(*kmsg.SASLHandshakeRequest).Mechanism != "PLAIN" {
			res.ErrorCode = 33 // unsupported SASL mechanism
		}
		return res, nil, res.ErrorCode != 0
	})
	cluster.ControlKey(saslAuthenticateKey, func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		res := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		res.ErrorCode = 58 // SASL authentication failed
		return res, nil, true
	})
	for name, c := range map[string]struct {
		cfg    kafka.Config
		change func(*kafka.Config)
		want   string
	}{
		"a wrong password over SCRAM": {
			secured(t, authority, "scram-sha-512"), func(c *kafka.Config) { c.Password = "wrong" }, "it refuses the user or the password",
		},
		"a wrong password": {
			secured(t, authority, "plain"), func(c *kafka.Config) { c.Password = "wrong" }, "it refuses the user or the password",
		},
		"a wrong password, and the broker says so": {
			strict, func(*kafka.Config) {}, "the broker refuses the user or the password",
		},
		"another mechanism than the broker offers": {
			strict, func(c *kafka.Config) { c.SASL = "scram-sha-512" }, "does not offer the SASL mechanism scram-sha-512",
		},
		"no login": {
			secured(t, authority, "plain"), func(c *kafka.Config) { c.SASL, c.User, c.Password = "", "", "" }, "it wants a login",
		},
		"no TLS where it is wanted": {
			secured(t, authority, "plain"), func(c *kafka.Config) { c.CAFile, c.CertFile, c.KeyFile = "", "", "" }, "its port wants TLS",
		},
		"TLS where there is none": {
			open, func(c *kafka.Config) { c.CAFile = authority.File() }, "its port speaks no TLS",
		},
		"a broker that nobody trusts": {
			secured(t, authority, "plain"), func(c *kafka.Config) { c.CAFile = stranger.File() }, "signed by nobody",
		},
		"a client that nobody trusts": {
			secured(t, authority, "plain"), func(c *kafka.Config) { c.CertFile, c.KeyFile = stranger.Files() }, "client certificate",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := c.cfg
			c.change(&cfg)
			log, lines := logtest.New()
			cfg.Log = log
			ctx, cancel := context.WithCancel(t.Context())
			ensured := make(chan error, 1)
			go func() { ensured <- kafka.EnsureTopics(ctx, cfg) }()
			stop := newGroup(t, cfg, func(context.Context, *kafka.Lane) error { return nil })
			for _, line := range []string{"topics are not ready", "not in the group"} {
				polltest.Eventually(t, "it is said: "+line, func() bool { return lines.Lines(line) > 0 })
			}
			began := time.Now()
			polltest.Eventually(t, "more attempts were made", func() bool { return time.Since(began) > time.Second })
			select {
			case err := <-ensured:
				t.Errorf("it gave up: %v", err)
			default:
			}
			cancel()
			stop()
			for _, line := range []string{"topics are not ready", "not in the group"} {
				if lines.Lines(line) != 1 {
					t.Errorf("%q is said %d times", line, lines.Lines(line))
				}
			}
			if lines.Lines(c.want) != 2 {
				t.Errorf("%q is missing: %s", c.want, lines)
			}
			if text := lines.String(); strings.Contains(text, "wrong") || strings.Contains(text, password) {
				t.Errorf("a password was logged: %s", text)
			}
		})
	}
}

func TestMistakesOfTheServerAreNamed(t *testing.T) {
	t.Parallel()
	certFile, keyFile := certtest.NewAuthority(t).Files()
	missing := filepath.Join(t.TempDir(), "missing.pem")
	for name, c := range map[string]struct {
		server kafka.Server
		want   string
	}{
		"an unknown mechanism":      {kafka.Server{SASL: "SCRAM", User: user, Password: password}, `"SCRAM": expected plain, scram-sha-256 or scram-sha-512`},
		"a user without mechanism":  {kafka.Server{User: user}, "no SASL mechanism"},
		"a mechanism without user":  {kafka.Server{SASL: "plain", Password: password}, "plain without a user"},
		"a missing password":        {kafka.Server{SASL: "scram-sha-256", User: user}, "scram-sha-256 without a password"},
		"a strange password":        {kafka.Server{SASL: "scram-sha-256", User: user, Password: "\u0000"}, "characters that SCRAM does not allow"},
		"a CA file that is missing": {kafka.Server{CAFile: missing}, missing},
		"a key without certificate": {kafka.Server{KeyFile: keyFile}, "no certificate file"},
		"a certificate without key": {kafka.Server{CertFile: certFile}, "no key file"},
	} {
		c.server.Brokers = []string{"127.0.0.1:1"}
		err := c.server.Validate()
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), password) {
			t.Errorf("%s: got %v, want a line with %q", name, err, c.want)
		}
		cfg := configFor("")
		cfg.Server = c.server
		if _, err := kafka.NewProducer(cfg); err == nil {
			t.Errorf("%s: a producer was made", name)
		}
	}
	good := kafka.Server{Brokers: []string{"127.0.0.1:1"}, CertFile: certFile, KeyFile: keyFile, SASL: "plain", User: user, Password: password}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
}
