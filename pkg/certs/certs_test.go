package certs_test

import (
	"crypto/tls"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/certs"
	"github.com/linkerhq/linker/pkg/certs/certtest"
	"github.com/linkerhq/linker/pkg/logtest"
	"github.com/linkerhq/linker/pkg/polltest"
)

const month = 30 * 24 * time.Hour

// serve answers every handshake until the end of the test.
func serve(t *testing.T, config *tls.Config) net.Addr {
	t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(conn, conn)
				_ = conn.Close()
			}()
		}
	}()
	return listener.Addr()
}

// shake makes one handshake and says something above it.
func shake(t *testing.T, addr net.Addr, config *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	dialer := tls.Dialer{Config: config}
	conn, err := dialer.DialContext(t.Context(), "tcp", addr.String())
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("x")); err != nil {
		return tls.ConnectionState{}, err
	}
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		return tls.ConnectionState{}, err
	}
	return conn.(*tls.Conn).ConnectionState(), nil
}

func TestANewPairIsShownWithoutARestartAndABrokenOneIsNot(t *testing.T) {
	t.Parallel()
	authority := certtest.NewAuthority(t)
	certFile, keyFile := authority.Files()
	log, lines := logtest.New()
	pair, err := certs.OpenPair(certFile, keyFile, log)
	if err != nil {
		t.Fatal(err)
	}
	addr := serve(t, pair.Server())
	client, err := certs.Client(authority.File(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	serial := func() int64 {
		state, err := shake(t, addr, client)
		if err != nil {
			t.Fatal(err)
		}
		return state.PeerCertificates[0].SerialNumber.Int64()
	}
	first := serial()

	good, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(keyFile, []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	polltest.Eventually(t, "the broken key is noticed", func() bool {
		if got := serial(); got != first {
			t.Fatalf("certificate %d is shown, want the old one, %d", got, first)
		}
		return lines.Lines("cannot be used") > 0
	})
	if !strings.Contains(lines.String(), keyFile) || strings.Contains(lines.String(), string(good)) {
		t.Errorf("the log does not name the file, or names too much: %s", lines)
	}

	second := authority.Issue(certFile, keyFile, time.Now().Add(month))
	polltest.Eventually(t, "the new certificate is shown", func() bool { return serial() == second })
	if got := lines.Lines("certificate replaced"); got != 1 {
		t.Errorf("%d lines say that it was replaced: %s", got, lines)
	}
	if lines.Lines("expires soon") != 0 {
		t.Errorf("a certificate that is good for a month is warned of: %s", lines)
	}
}

func TestABrokenPairIsLoggedOnce(t *testing.T) {
	t.Parallel()
	certFile, keyFile := certtest.NewAuthority(t).Files()
	log, lines := logtest.New()
	pair, err := certs.OpenPair(certFile, keyFile, log)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(certFile); err != nil {
		t.Fatal(err)
	}
	polltest.Eventually(t, "the file is missed", func() bool { return pair.Certificate() != nil && lines.Lines("cannot be used") > 0 })
	replaced := time.Now()
	polltest.Eventually(t, "it was looked for again", func() bool { return pair.Certificate() != nil && time.Since(replaced) > 2500*time.Millisecond })
	if got := lines.Lines("cannot be used"); got != 1 {
		t.Errorf("%d lines: %s", got, lines)
	}
}

func TestAnEndThatIsNearIsWarnedOfAndExported(t *testing.T) {
	t.Parallel()
	authority := certtest.NewAuthority(t)
	certFile, keyFile := authority.Files()
	until := time.Now().Add(13 * 24 * time.Hour)
	authority.Issue(certFile, keyFile, until)
	log, lines := logtest.New()
	pair, err := certs.OpenPair(certFile, keyFile, log)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		pair.Certificate()
	}
	if got := lines.Lines("expires soon"); got != 1 {
		t.Errorf("%d warnings: %s", got, lines)
	}
	registry := prometheus.NewRegistry()
	if err := pair.Register(registry); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if name, value := families[0].GetName(), families[0].GetMetric()[0].GetGauge().GetValue(); name != "linker_certs_expiry_timestamp_seconds" || value != float64(until.Unix()) {
		t.Errorf("%s is %v, want %d", name, value, until.Unix())
	}
	if err := pair.Register(registry); err == nil {
		t.Error("a second pair was registered")
	}

	authority.Issue(certFile, keyFile, time.Now().Add(-time.Minute))
	if _, err := certs.OpenPair(certFile, keyFile, log); err != nil {
		t.Fatal(err)
	}
	if lines.Lines("has expired") != 1 {
		t.Errorf("nothing says that it has expired: %s", lines)
	}
}

func TestOnlyHTTP1IsSpokenAboveTLS(t *testing.T) {
	t.Parallel()
	authority := certtest.NewAuthority(t)
	certFile, keyFile := authority.Files()
	log, _ := logtest.New()
	pair, err := certs.OpenPair(certFile, keyFile, log)
	if err != nil {
		t.Fatal(err)
	}
	addr := serve(t, pair.Server())
	state, err := shake(t, addr, &tls.Config{RootCAs: authority.Pool(), NextProtos: []string{"h2", "http/1.1"}})
	if err != nil || state.NegotiatedProtocol != "http/1.1" {
		t.Errorf("got %q, %v", state.NegotiatedProtocol, err)
	}
	if _, err := shake(t, addr, &tls.Config{RootCAs: authority.Pool(), MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1 was spoken")
	}
}

func TestFilesThatCannotBeUsedAreNamedWithTheReason(t *testing.T) {
	t.Parallel()
	authority := certtest.NewAuthority(t)
	certFile, keyFile := authority.Files()
	_, otherKey := authority.Files()
	junk, missing := filepath.Join(t.TempDir(), "junk.pem"), filepath.Join(t.TempDir(), "missing.pem")
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	log, _ := logtest.New()
	for _, c := range []struct{ cert, key, file, reason string }{
		{missing, keyFile, missing, "no such file"},
		{certFile, missing, missing, "no such file"},
		{junk, keyFile, junk, "holds no certificate"},
		{certFile, junk, junk, "holds no private key"},
		{keyFile, certFile, keyFile, "holds no certificate"},
		{certFile, otherKey, otherKey, "does not match"},
		{certFile, "", certFile, "no key file"},
		{"", keyFile, keyFile, "no certificate file"},
	} {
		for what, err := range map[string]error{
			"server": func() error { _, err := certs.OpenPair(c.cert, c.key, log); return err }(),
			"client": func() error { _, err := certs.Client("", c.cert, c.key); return err }(),
		} {
			if err == nil || !strings.Contains(err.Error(), c.file) || !strings.Contains(err.Error(), c.reason) {
				t.Errorf("%s: got %v, want a line with %s and %q", what, err, c.file, c.reason)
			}
		}
	}
	for _, file := range []string{missing, junk} {
		if _, err := certs.Client(file, "", ""); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("CA file: got %v, want a line with %s", err, file)
		}
	}
}

func TestAFailedHandshakeIsExplained(t *testing.T) {
	t.Parallel()
	authority, stranger := certtest.NewAuthority(t), certtest.NewAuthority(t)
	server := authority.Server()
	plain, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	go func() {
		for {
			conn, err := plain.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("+PONG, and nothing that looks like TLS\r\n"))
		}
	}()
	wantsCert := server.Clone()
	wantsCert.ClientAuth, wantsCert.ClientCAs = tls.RequireAndVerifyClientCert, authority.Pool()
	expired := server.Clone()
	certFile, keyFile := authority.Files()
	authority.Issue(certFile, keyFile, time.Now().Add(-time.Minute))
	old, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	expired.Certificates = []tls.Certificate{old}
	for name, c := range map[string]struct {
		addr   net.Addr
		client *tls.Config
		want   string
	}{
		"unknown authority":       {serve(t, server), &tls.Config{RootCAs: stranger.Pool()}, "signed by nobody"},
		"another host":            {serve(t, server), &tls.Config{RootCAs: authority.Pool(), ServerName: "elsewhere"}, "host name"},
		"expired":                 {serve(t, expired), &tls.Config{RootCAs: authority.Pool()}, "expired"},
		"no TLS":                  {plain.Addr(), &tls.Config{RootCAs: authority.Pool()}, "does not speak TLS"},
		"no client certificate":   {serve(t, wantsCert), &tls.Config{RootCAs: authority.Pool()}, "client certificate"},
		"no version of TLS alike": {serve(t, server), &tls.Config{RootCAs: authority.Pool(), MaxVersion: tls.VersionTLS10, MinVersion: tls.VersionTLS10}, "version of TLS"},
	} {
		if _, err := shake(t, c.addr, c.client); !strings.Contains(certs.Explain(err), c.want) {
			t.Errorf("%s: %v is explained as %q, want %q", name, err, certs.Explain(err), c.want)
		}
	}
	if got := certs.Explain(io.EOF); got != "" {
		t.Errorf("EOF is explained as %q", got)
	}
}

func TestAClientShowsTheCertificateThatItsFilesHoldNow(t *testing.T) {
	t.Parallel()
	authority := certtest.NewAuthority(t)
	certFile, keyFile := authority.Files()
	client, err := certs.Client(authority.File(), certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	server := authority.Server()
	server.ClientAuth, server.ClientCAs = tls.RequireAndVerifyClientCert, authority.Pool()
	shown := make(chan int64, 2)
	server.VerifyConnection = func(s tls.ConnectionState) error {
		shown <- s.PeerCertificates[0].SerialNumber.Int64()
		return nil
	}
	addr := serve(t, server)
	if _, err := shake(t, addr, client); err != nil {
		t.Fatal(err)
	}
	first := <-shown
	second := authority.Issue(certFile, keyFile, time.Now().Add(month))
	if _, err := shake(t, addr, client); err != nil {
		t.Fatal(err)
	}
	if got := <-shown; got != second || got == first {
		t.Errorf("certificates %d and %d were shown, want %d last", first, got, second)
	}
}
