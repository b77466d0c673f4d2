package e2e

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/link"
	"github.com/linkerhq/linker/pkg/topology"
)

// strangers tries to act as a neighbour of domain-02, which has a link with a key to
// domain-01 and one with certificates to domain-03.
type strangers struct {
	*network
	address string // domain-02's link port
}

const linkKey = "the key of the link, which nobody guesses"

func TestNobodyComesInOverALinkPort(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, networkSetup{yaml: describeNetwork(3, []edge{{a: 1, b: 2, more: ", key: '" + linkKey + "'"}, {a: 2, b: 3}})})
	n.settle(t, 3)
	if by := [2]string{n.linkTo(t, 2, 1).Proof, n.linkTo(t, 2, 3).Proof}; by != [2]string{"key", "certificate"} {
		t.Fatalf("domain 2 proves itself by %v", by)
	}
	s := &strangers{n, strings.TrimPrefix(n.place(2).Link, "tcp://")}
	alpn := func(list ...string) *tls.Config {
		return &tls.Config{InsecureSkipVerify: true, NextProtos: list, MinVersion: tls.VersionTLS12}
	}
	old := alpn("linker-link/1")
	old.MaxVersion = tls.VersionTLS12
	for _, c := range []struct {
		name, reason string
		try          func(*testing.T) (told []byte)
	}{
		{"plain bytes", "handshake", func(t *testing.T) []byte { return s.plain(t, "hello, I am domain-01\r\n") }},
		{"HTTP", "handshake", func(t *testing.T) []byte { return s.plain(t, "GET /metrics HTTP/1.1\r\nHost: domain-02\r\n\r\n") }},
		{"a websocket", "handshake", func(t *testing.T) []byte {
			return s.plain(t, "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
		}},
		{"nothing", "closed", s.nothing},
		{"TLS without a protocol", "handshake", func(t *testing.T) []byte { return s.tls(t, alpn(), nil) }},
		{"TLS of a browser", "handshake", func(t *testing.T) []byte { return s.tls(t, alpn("h2", "http/1.1"), nil) }},
		{"TLS that is too old", "handshake", func(t *testing.T) []byte { return s.tls(t, old, nil) }},
		{"no frames after TLS", "malformed", func(t *testing.T) []byte {
			return s.tls(t, alpn("linker-link/1"), []byte("GET / HTTP/1.1\r\nHost: domain-02\r\n\r\n"))
		}},
		{"a frame of zeros", "malformed", func(t *testing.T) []byte { return s.tls(t, alpn("linker-link/1"), make([]byte, 64)) }},
		{"another key", "wrong_proof", func(t *testing.T) []byte { return s.link(t, "domain-01", topology.Link{Key: "a key that was guessed"}) }},
		{"no key", "no_proof", func(t *testing.T) []byte { return s.link(t, "domain-01", topology.Link{Insecure: true}) }},
		{"no certificate", "no_proof", func(t *testing.T) []byte { return s.link(t, "domain-03", topology.Link{Insecure: true}) }},
		{"a key in place of a certificate", "no_proof", func(t *testing.T) []byte { return s.link(t, "domain-03", topology.Link{Key: linkKey}) }},
		{"a domain that is no neighbour", "unknown_domain", func(t *testing.T) []byte { return s.link(t, "domain-07", topology.Link{Key: linkKey}) }},
	} {
		reason := fmt.Sprintf("reason=%q", c.reason)
		count := func() float64 { return total(t, n.place(2).Connector, "linker_linkport_refused_total", reason) }
		before, all := count(), total(t, n.place(2).Connector, "linker_linkport_refused_total")
		if told := c.try(t); len(told) > 0 {
			t.Errorf("%s: it was told %q", c.name, told)
		}
		patiently(t, "counted: "+c.name, patience, func() bool { return total(t, n.place(2).Connector, "linker_linkport_refused_total") > all })
		if got := count(); got != before+1 {
			_, metrics := get(t, n.place(2).Connector+"/metrics")
			var told []string
			for line := range strings.Lines(metrics) {
				if strings.HasPrefix(line, "linker_linkport_refused_total") && !strings.HasSuffix(line, " 0\n") {
					told = append(told, line)
				}
			}
			t.Errorf("%s: %v refusals are counted as %s, want %v; got %v", c.name, got, c.reason, before+1, told)
		}
	}
	// Nobody was disturbed.
	if missing := n.MissingLinks(); len(missing) > 0 {
		t.Errorf("links not up: %v", missing)
	}
	s.meddle(t)
	n.settle(t, 3)
	reaches(t, n, 1, 3)
}

// rest returns what the other side says until it ends the connection.
func restOf(t *testing.T, conn net.Conn) []byte {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	told, err := io.ReadAll(conn)
	if timeout, is := errors.AsType[net.Error](err); is && timeout.Timeout() {
		t.Errorf("the connection is still open after %v", patience)
	}
	return told
}

func (s *strangers) dial(t *testing.T) net.Conn {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// plain sends bytes and returns the answer, without the alert of TLS that says that
// this is not TLS.
func (s *strangers) plain(t *testing.T, text string) []byte {
	t.Helper()
	conn := s.dial(t)
	_, _ = io.WriteString(conn, text)
	return withoutAlert(restOf(t, conn))
}

// withoutAlert removes an alert of TLS: seven bytes that say nothing of us.
func withoutAlert(told []byte) []byte {
	const alert, size = 21, 7
	if len(told) == size && told[0] == alert {
		return nil
	}
	return told
}

func (s *strangers) nothing(t *testing.T) []byte {
	t.Helper()
	conn := s.dial(t)
	_ = conn.(*net.TCPConn).CloseWrite()
	return restOf(t, conn)
}

// tls sends bytes over TLS, if it comes to that.
func (s *strangers) tls(t *testing.T, config *tls.Config, text []byte) []byte {
	t.Helper()
	conn := tls.Client(s.dial(t), config)
	if conn.HandshakeContext(t.Context()) == nil {
		names := conn.ConnectionState().PeerCertificates
		if len(text) > 0 && len(names) > 0 && strings.Contains(names[0].Subject.String()+strings.Join(names[0].DNSNames, ","), linkKey) {
			t.Errorf("the certificate tells %v", names[0].Subject)
		}
		_, _ = conn.Write(text)
	}
	return restOf(t, conn)
}

// link says that it is a domain, and proves it in its own way.
func (s *strangers) link(t *testing.T, as string, l topology.Link) []byte {
	t.Helper()
	end, err := link.NewEnd(link.Config{Domain: as})
	if err != nil {
		t.Fatal(err)
	}
	l.N1, l.N2 = as, "domain-02"
	c, err := end.Dial(t.Context(), s.address, l)
	if err == nil {
		c.Close()
		return []byte("welcome")
	}
	if refused, is := errors.AsType[*link.RefusedError](err); !is || refused.Reason != link.ReasonClosed {
		t.Errorf("as %s: got %v, want an end without a word", as, err)
	}
	return nil
}

// meddle puts a man in the middle of the link with a key, who ends TLS on both sides
// and passes everything on.
func (s *strangers) meddle(t *testing.T) {
	t.Helper()
	way := s.way(domainName(1), domainName(2))
	refused := func() float64 {
		return total(t, s.place(2).Connector, "linker_linkport_refused_total", `reason="wrong_proof"`)
	}
	before := refused()
	way.cut()
	way.forward(newMiddle(t, s.address))
	way.heal()
	patiently(t, "the man in the middle noticed", backOff, func() bool { return refused() > before })
	if missing := s.MissingLinks(); !slices.Equal(missing, []string{"domain-01–domain-02"}) {
		t.Errorf("links not up: %v", missing)
	}
	if l := s.linkTo(t, 1, 2); l.State != "down" || l.LastError == "" || strings.Contains(l.LastError, linkKey) {
		t.Errorf("domain 1 says %+v", l)
	}
	way.cut()
	way.forward(s.address)
	way.heal()
	patiently(t, "the link without him", backOff, func() bool { return len(s.MissingLinks()) == 0 })
}

// newMiddle listens as a man in the middle of links does, until the test ends, and
// returns where.
func newMiddle(t *testing.T, target string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{domainName(2)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"linker-link/1"}, MinVersion: tls.VersionTLS13,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	t.Cleanup(func() {
		stop()
		_ = listener.Close()
		serving.Wait()
	})
	serving.Go(func() {
		for {
			victim, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { passOn(ctx, victim, target) })
		}
	})
	return listener.Addr().String()
}

// passOn passes everything on between two TLS connections.
func passOn(ctx context.Context, victim net.Conn, target string) {
	defer victim.Close()
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"linker-link/1"}, MinVersion: tls.VersionTLS13}}
	other, err := dialer.DialContext(ctx, "tcp", target)
	if err != nil {
		return
	}
	defer other.Close()
	stop := context.AfterFunc(ctx, func() { _, _ = victim.Close(), other.Close() })
	defer stop()
	var passing sync.WaitGroup
	pass := func(to, from net.Conn) {
		_, _ = io.Copy(to, bufio.NewReader(from))
		_, _ = to.Close(), from.Close()
	}
	passing.Go(func() { pass(victim, other) })
	passing.Go(func() { pass(other, victim) })
	passing.Wait()
}

// nobodyActsAsADomain is about the websocket port.
func nobodyActsAsADomain(t *testing.T, n *network) {
	for _, user := range []string{"domain-02", "domain-01", "domain2-1", "domain-02-1", "connector-1", "link-1", "INTERNAL-1", ""} {
		c := dial(t, n.place(1).Websocket)
		c.send(`{"type":"AUTH_CLIENT","data":{"appId":"app-id-343","userId":%s,"token":""}}`, quoted(user))
		if f := c.expect("AUTH_CLIENT_REPLY"); f.Data.IsAuthenticated == nil || *f.Data.IsAuthenticated || f.Data.Reason == "" {
			t.Errorf("%q: got %v", user, f)
		}
		c.expectClosed(4403)
	}
	victim := n.login(t, 2, userIn(2))
	c := n.login(t, 1, userIn(1))
	for _, kind := range []string{
		"INTERNAL_MESSAGE", "INTERNAL", "HELLO", "WELCOME", "RECORDS", "STATES", "DOMAIN_MESSAGE", "AUTH_DOMAIN", "AUTH_INTERNAL",
		"USER_CONNECTED", "USER_DISCONNECTED", "MESSAGE_CONFIRMATION", "AUTH_CLIENT_REPLY", "GO_AWAY", "DELIVER_FAILED",
	} {
		c.send(`{"type":%q,"data":{"to":%q,"userId":%q,"from":"ANZ-7","content":"forged","domain":"domain-02"},"reference":"r"}`, kind, victim.user, victim.user)
		if f := c.expect("INVALID_MESSAGE"); f.Data.Code == "" || f.reference() != "r" {
			t.Errorf("%s: got %v", kind, f)
		}
		if kind == "DOMAIN_MESSAGE" { // before too many are bad
			c.works()
			c.cut()
			c = n.login(t, 1, userIn(1))
		}
	}
	// A MESSAGE that says who it is from is from whoever has sent it.
	c.send(`{"type":"MESSAGE","data":{"to":%q,"from":"ANZ-7","content":"forged"},"from":"ANZ-7","path":["domain-02"]}`, victim.user)
	victim.expectMessage(c.user, "forged")
	victim.works()
	// A link's bytes are none of a websocket's.
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimSuffix(strings.TrimPrefix(n.place(1).Websocket, "ws://"), "/ws"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"linker-link/1"}}).HandshakeContext(t.Context()); err == nil {
		t.Error("the websocket port speaks the TLS of links")
	}
}
