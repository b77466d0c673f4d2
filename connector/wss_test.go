package connector_test

import (
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/connector"
	"github.com/linkerhq/linker/pkg/certs/certtest"
)

// secured makes the connector show a certificate.
func (d *domain) secured() *certtest.Authority {
	d.t.Helper()
	authority := certtest.NewAuthority(d.t)
	d.cfg.TLSCert, d.cfg.TLSKey = authority.Files()
	return authority
}

// dialTLS opens a websocket over TLS and returns the serial number of the
// certificate that it was shown.
func dialTLS(t *testing.T, c *connector.Connector, config *tls.Config) (*client, int64, error) {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	ws, response, err := websocket.Dial(t.Context(), "wss://"+c.Addr().String()+"/ws", &websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}})
	if response != nil && response.Body != nil {
		_ = response.Body.Close()
	}
	if err != nil {
		return nil, 0, err
	}
	t.Cleanup(func() { _ = ws.CloseNow() })
	return &client{ws, t}, response.TLS.PeerCertificates[0].SerialNumber.Int64(), nil
}

func TestClientsSpeakTLSAndANewCertificateNeedsNoRestart(t *testing.T) {
	t.Parallel()
	d := newDomain(t)
	authority := d.secured()
	c, stop := d.start()
	trusting := &tls.Config{RootCAs: authority.Pool()}

	// Whoever begins a handshake and does not go on holds up nobody.
	for range 20 {
		slow, err := new(net.Dialer).DialContext(t.Context(), "tcp", c.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer slow.Close()
		if _, err := slow.Write([]byte{22, 3, 1}); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	k, first, err := dialTLS(t, c, trusting)
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("behind slow handshakes a connection took %s", took)
	}
	k.send(`{"type":"AUTH_CLIENT","data":{"appId":"app-1","userId":"ANZ-1","features":["accept"]}}`)
	k.want(`"isAuthenticated":true`)
	for range 50 {
		k.send(`{"type":"MESSAGE","data":{"to":"ANZ-1","content":"` + strings.Repeat("x", 10_000) + `"}}`)
	}
	for range 100 { // as many are accepted as come back
		k.want(`"type":"MESSAGE`)
	}

	second := authority.Issue(d.cfg.TLSCert, d.cfg.TLSKey, time.Now().Add(20*24*time.Hour))
	eventually(t, "the new certificate is shown", func() bool {
		another, shown, err := dialTLS(t, c, trusting)
		if err != nil || shown != first && shown != second {
			t.Fatalf("shown %d, %v", shown, err)
		}
		_ = another.CloseNow()
		return shown == second
	})
	if _, body := get(t, c, "/metrics"); !strings.Contains(body, "linker_certs_expiry_timestamp_seconds") {
		t.Error("the end of the certificate is not exported")
	}
	k.send(`{"type":"FETCH_MISSING_MESSAGES_REQUEST"}`)
	k.want("FETCH_MISSING_MESSAGES_COMPLETE")

	ended := make(chan error, 1)
	go func() { ended <- stop() }()
	k.want(`{"type":"GO_AWAY"`)
	if _, _, err := k.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusServiceRestart {
		t.Errorf("got %v", err)
	}
	if err := <-ended; err != nil {
		t.Errorf("Run returned %v", err)
	}
}

func TestWithoutTrustOrTLSNobodyGetsIn(t *testing.T) {
	t.Parallel()
	d := newDomain(t)
	authority := d.secured()
	c, _ := d.start()
	if _, _, err := dialTLS(t, c, &tls.Config{RootCAs: certtest.NewAuthority(t).Pool()}); err == nil {
		t.Error("a client that does not trust the certificate got in")
	}
	if _, _, err := dialTLS(t, c, &tls.Config{RootCAs: authority.Pool(), MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("a client with TLS 1.1 got in")
	}
	ws, response, err := websocket.Dial(t.Context(), "ws://"+c.Addr().String()+"/ws", nil)
	if err == nil {
		_ = ws.CloseNow()
		t.Fatal("a client without TLS got in")
	}
	if response == nil || response.StatusCode != http.StatusBadRequest {
		t.Errorf("a client without TLS got %v", response)
	}
}

func TestACertificateThatCannotBeUsedIsNamedAtTheStart(t *testing.T) {
	t.Parallel()
	d := newDomain(t)
	d.secured()
	good := d.cfg
	broken := good
	broken.TLSKey = good.TLSCert
	missing := good
	missing.TLSCert += ".missing"
	half := good
	half.TLSKey = ""
	for want, cfg := range map[string]connector.Config{
		"no private key in PEM form": broken,
		missing.TLSCert:              missing,
		"no key file":                half,
	} {
		_, err := connector.New(cfg, connector.Deps{Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want a line with %q", err, want)
		}
	}
}
