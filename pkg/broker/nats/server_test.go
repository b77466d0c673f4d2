package nats_test

import (
	"crypto/tls"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/broker/nats"
	"github.com/linkerhq/linker/pkg/certs/certtest"
	"github.com/linkerhq/linker/pkg/internal/porttest"
	"github.com/linkerhq/linker/pkg/logtest"
	"github.com/linkerhq/linker/pkg/polltest"
)

const user, password = "linker", "p@ss:word/1"

// startReal starts a server of the test's own making.
func startReal(t *testing.T, options *server.Options) *server.Server {
	t.Helper()
	options.Host, options.NoSigs, options.NoLog = "127.0.0.1", true, true
	if options.Port == 0 {
		options.Port = server.RANDOM_PORT
	}
	s, err := server.NewServer(options)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { stopReal(s) })
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server does not start")
	}
	return s
}

func stopReal(s *server.Server) {
	s.Shutdown()
	s.WaitForShutdown()
}

// connectTo returns a connection, and what it logs.
func connectTo(t *testing.T, s nats.Server) (*nats.Conn, *logtest.Log) {
	t.Helper()
	log, lines := logtest.New()
	c, err := nats.Connect(nats.Config{Server: s, Name: "test", Log: log, Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, lines
}

func at(scheme string, who *url.Userinfo, s *server.Server) string {
	u := url.URL{Scheme: scheme, User: who, Host: s.Addr().String()}
	return u.String()
}

func tlsOptions(config *tls.Config) *server.Options {
	return &server.Options{TLSConfig: config, TLSTimeout: 2}
}

func TestEveryWayToLogInOverTLSWorks(t *testing.T) {
	t.Parallel()
	authority := certtest.NewAuthority(t)
	withUser, withToken := tlsOptions(authority.Server()), tlsOptions(authority.Server())
	withUser.Username, withUser.Password = user, password
	withToken.Authorization = password
	operator, credentials := operatorOptions(t)
	for name, s := range map[string]nats.Server{
		"user and password": {URL: at("tls", url.UserPassword(user, password), startReal(t, withUser)), CAFile: authority.File()},
		"token":             {URL: at("nats", url.User(password), startReal(t, withToken)), CAFile: authority.File()},
		"credentials":       {URL: at("nats", nil, startReal(t, operator)), CredentialsFile: credentials},
	} {
		c, lines := connectTo(t, s)
		polltest.Eventually(t, name+" are accepted", c.Connected)
		polltest.Eventually(t, name+" are logged", func() bool { return lines.Lines("live plane connected") == 1 })
		if strings.Contains(lines.String(), password) || strings.Contains(lines.String(), url.PathEscape(password)) {
			t.Errorf("%s: a secret was logged: %s", name, lines)
		}
	}
}

// operatorOptions returns a server that lets in who has a token signed by an
// account, and the file of such a user.
func operatorOptions(t *testing.T) (*server.Options, string) {
	t.Helper()
	pair := func(kp nkeys.KeyPair, err error) (nkeys.KeyPair, string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		public, err := kp.PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		return kp, public
	}
	must := func(text string, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	operator, operatorName := pair(nkeys.CreateOperator())
	account, accountName := pair(nkeys.CreateAccount())
	member, memberName := pair(nkeys.CreateUser())
	accountToken := must(jwt.NewAccountClaims(accountName).Encode(operator))
	memberToken := must(jwt.NewUserClaims(memberName).Encode(account))
	seed, err := member.Seed()
	if err != nil {
		t.Fatal(err)
	}
	credentials, err := jwt.FormatUserConfig(memberToken, seed)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "user.creds")
	if err := os.WriteFile(file, credentials, 0o600); err != nil {
		t.Fatal(err)
	}
	resolver := &server.MemAccResolver{}
	if err := resolver.Store(accountName, accountToken); err != nil {
		t.Fatal(err)
	}
	return &server.Options{TrustedKeys: []string{operatorName}, AccountResolver: resolver}, file
}

func TestARefusedConnectionIsSoughtUntilItIsLetIn(t *testing.T) {
	t.Parallel()
	port := porttest.Lasting(t)
	refusing := startReal(t, &server.Options{Port: port, Username: user, Password: "another"})
	c, lines := connectTo(t, nats.Server{URL: at("nats", url.UserPassword(user, password), refusing)})
	polltest.Eventually(t, "the refusal is said", func() bool { return lines.Lines("refuses the user, the password") > 0 })
	began := time.Now()
	polltest.Eventually(t, "more attempts were made", func() bool { return time.Since(began) > 2*time.Second })
	if c.Connected() {
		t.Error("it is connected")
	}
	if got := lines.Lines("live plane not reached"); got != 1 {
		t.Errorf("%d lines: %s", got, lines)
	}
	stopReal(refusing)
	accepting := startReal(t, &server.Options{Port: port, Username: user, Password: password})
	polltest.Eventually(t, "it is let in", c.Connected)

	// And the same after it was connected.
	stopReal(accepting)
	refusing = startReal(t, &server.Options{Port: port, Username: user, Password: "another"})
	polltest.Eventually(t, "the refusal is said again", func() bool { return lines.Lines("refuses the user, the password") > 1 })
	began = time.Now()
	polltest.Eventually(t, "more attempts were made", func() bool { return time.Since(began) > 2*time.Second })
	stopReal(refusing)
	startReal(t, &server.Options{Port: port, Username: user, Password: password})
	polltest.Eventually(t, "it is let in again", c.Connected)
	if strings.Contains(lines.String(), password) || strings.Contains(lines.String(), url.PathEscape(password)) || lines.Lines("closed for good") > 0 {
		t.Errorf("logged: %s", lines)
	}
}

func TestWhyThereIsNoConnectionIsSaid(t *testing.T) {
	t.Parallel()
	authority, stranger := certtest.NewAuthority(t), certtest.NewAuthority(t)
	open, closed := startReal(t, &server.Options{}), startReal(t, tlsOptions(authority.Server()))
	wanting := authority.Server()
	wanting.ClientAuth, wanting.ClientCAs = tls.RequireAndVerifyClientCert, authority.Pool()
	strict := startReal(t, tlsOptions(wanting))
	nobody := "nats://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(porttest.Lasting(t)))
	for name, c := range map[string]struct {
		server nats.Server
		want   string
	}{
		"nobody there":            {nats.Server{URL: nobody}, "no servers available"},
		"no TLS there":            {nats.Server{URL: at("tls", nil, open)}, "the server speaks no TLS"},
		"a server nobody trusts":  {nats.Server{URL: at("tls", nil, closed), CAFile: stranger.File()}, "signed by nobody"},
		"a client without a cert": {nats.Server{URL: at("tls", nil, strict), CAFile: authority.File()}, "does not fit our TLS"},
	} {
		_, lines := connectTo(t, c.server)
		polltest.Eventually(t, name+" is said", func() bool { return lines.Lines("live plane not reached") == 1 })
		if lines.Lines(c.want) != 1 {
			t.Errorf("%s: %q is missing: %s", name, c.want, lines)
		}
	}
}

func TestAServerThatTakesLittleIsWarnedOf(t *testing.T) {
	t.Parallel()
	for most, want := range map[int32]int{1<<20 - 1: 1, 1 << 20: 0} {
		c, lines := connectTo(t, nats.Server{URL: at("nats", nil, startReal(t, &server.Options{MaxPayload: most}))})
		polltest.Eventually(t, "it is connected", func() bool { return lines.Lines("live plane connected") == 1 })
		if err := c.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		polltest.Eventually(t, "the warning", func() bool { return lines.Lines("max_payload") == want })
		if got := c.MaxPayload(); got != int64(most) {
			t.Errorf("it takes %d bytes, want %d", got, most)
		}
	}
}

func TestMistakesOfTheServerAreNamedWithoutSecrets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	junk, missing := filepath.Join(dir, "junk"), filepath.Join(dir, "missing")
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	const good = "nats://127.0.0.1:4222"
	for _, c := range []struct {
		server nats.Server
		want   string
	}{
		{nats.Server{}, "URL of NATS is missing"},
		{nats.Server{URL: good + ","}, "URL of NATS is missing"},
		{nats.Server{URL: "nats://linker:hush/hush@127.0.0.1:4222"}, "is not valid"},
		{nats.Server{URL: "nats://linker:hush@127.0.0.1:port"}, "is not valid"},
		{nats.Server{URL: good + ",ws://linker:hush@127.0.0.1:4222"}, `begins with "ws"`},
		{nats.Server{URL: "127.0.0.1:4222"}, "is not valid"},
		{nats.Server{URL: good, CAFile: missing}, missing},
		{nats.Server{URL: good, CAFile: junk}, junk},
		{nats.Server{URL: good, CredentialsFile: missing}, missing},
		{nats.Server{URL: good, CredentialsFile: junk}, junk},
	} {
		log, _ := logtest.New()
		_, err := nats.Connect(nats.Config{Server: c.server, Log: log, Metrics: prometheus.NewRegistry()})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("got %v, want a line with %q", err, c.want)
		}
	}
	if err := (nats.Server{URL: good + ", tls://linker:hush@127.0.0.1:4223"}).Validate(); err != nil {
		t.Error(err)
	}
}
