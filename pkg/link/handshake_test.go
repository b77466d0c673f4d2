package link_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/linkerhq/linker/pkg/link"
	"github.com/linkerhq/linker/pkg/logtest"
	"github.com/linkerhq/linker/pkg/polltest"
	"github.com/linkerhq/linker/pkg/topology"
)

func TestBothSidesOpenALinkByEachProof(t *testing.T) {
	t.Parallel()
	authority := newAuthority(t)
	for name, c := range map[string]struct {
		link           topology.Link
		client, server link.Certificates
		want           link.Proof
	}{
		"key":                       {keyed(), link.Certificates{}, link.Certificates{}, link.ByKey},
		"key, one with certificate": {keyed(), link.Certificates{}, authority.files(t, there), link.ByKey},
		"certificates":              {plain(), authority.files(t, here), authority.files(t, there), link.ByCertificate},
		"insecure":                  {insecure(), link.Certificates{}, link.Certificates{}, link.Insecure},
	} {
		client, server := newEnd(t, here, c.client), newEnd(t, there, c.server)
		if got := client.Proof(c.link); got != c.want || got.String() == "" {
			t.Errorf("%s: the end says %s", name, got)
		}
		dialled, accepted := open(t, client, server, c.link)
		if dialled.Peer() != there || accepted.Peer() != here || dialled.Proof() != c.want || accepted.Proof() != c.want {
			t.Errorf("%s: %s by %s, %s by %s", name, dialled.Peer(), dialled.Proof(), accepted.Peer(), accepted.Proof())
		}
		if dialled.RemoteAddr().String() == "" {
			t.Errorf("%s: no remote address", name)
		}
		a, b := run(t.Context(), dialled), run(t.Context(), accepted)
		a.Send(link.Fast{Record: []byte("over")})
		if got := <-b.got; string(got.(link.Fast).Record) != "over" {
			t.Errorf("%s: got %v", name, got)
		}
		b.Send(link.Fast{Record: []byte("back")})
		if got := <-a.got; string(got.(link.Fast).Record) != "back" {
			t.Errorf("%s: got %v", name, got)
		}
		a.stop()
		<-b.ended
	}
}

func TestNeitherSideOpensALinkThatProvesNothing(t *testing.T) {
	t.Parallel()
	client, server := newEnd(t, here, link.Certificates{}), newEnd(t, there, link.Certificates{})
	p := serve(t, server, with(plain()))
	_, err := client.Dial(t.Context(), p.address(), plain())
	if err == nil || !strings.Contains(err.Error(), "link domain-01–domain-02 has neither a key nor certificates") || !strings.Contains(err.Error(), "link-cert") {
		t.Errorf("dial: %v", err)
	}
	_, err = client.Dial(t.Context(), p.address(), insecure())
	if got := reasonOf(t, err); got != link.ReasonClosed {
		t.Errorf("a client that would not mind: %v", err)
	}
	if got := p.refusal(t); got.Reason != link.ReasonNoProof || got.Domain != here {
		t.Errorf("accept: %v", got)
	}
}

func TestADiallerLearnsWhatIsWrong(t *testing.T) {
	t.Parallel()
	authority, other := newAuthority(t), newAuthority(t)
	wrongKey := topology.Link{N1: here, N2: there, Key: "another key"}
	none := func(string) (topology.Link, bool) { return topology.Link{}, false }
	for name, c := range map[string]struct {
		domain         string // who is dialled
		linkTo         func(string) (topology.Link, bool)
		client, server link.Certificates
		dial           topology.Link
		ours, theirs   link.Reason
		says           string
	}{
		"wrong key":       {there, with(wrongKey), link.Certificates{}, link.Certificates{}, keyed(), link.ReasonClosed, link.ReasonWrongProof, "another key"},
		"wrong domain":    {"domain-03", with(keyed()), link.Certificates{}, link.Certificates{}, keyed(), link.ReasonClosed, link.ReasonWrongDomain, "another domain"},
		"no such link":    {there, none, link.Certificates{}, link.Certificates{}, keyed(), link.ReasonClosed, link.ReasonUnknownDomain, "no link with us"},
		"key, insecure":   {there, with(keyed()), link.Certificates{}, link.Certificates{}, insecure(), link.ReasonClosed, link.ReasonNoProof, "demands a key"},
		"insecure, key":   {there, with(insecure()), link.Certificates{}, link.Certificates{}, keyed(), link.ReasonClosed, link.ReasonNoProof, "another key"},
		"no certificate":  {there, with(plain()), link.Certificates{}, authority.files(t, there), insecure(), link.ReasonClosed, link.ReasonNoProof, "a certificate"},
		"client's CA":     {there, with(plain()), withCA(other.files(t, here), authority), authority.files(t, there), plain(), link.ReasonClosed, link.ReasonWrongProof, "does not accept our certificate"},
		"client's usage":  {there, with(plain()), authority.files(t, here, x509.ExtKeyUsageServerAuth), authority.files(t, there), plain(), link.ReasonClosed, link.ReasonWrongProof, "does not accept our certificate"},
		"server's CA":     {there, with(plain()), authority.files(t, here), other.files(t, there), plain(), link.ReasonWrongProof, link.ReasonHandshake, "signed by nobody"},
		"server's name":   {"domain-03", with(plain()), authority.files(t, here), authority.files(t, "domain-03"), plain(), link.ReasonWrongProof, link.ReasonHandshake, "certificate"},
		"server has none": {there, with(plain()), authority.files(t, here), link.Certificates{}, plain(), link.ReasonWrongProof, link.ReasonHandshake, "certificate"},
	} {
		p := serve(t, newEnd(t, c.domain, c.server), c.linkTo)
		conn, err := newEnd(t, here, c.client).Dial(t.Context(), p.address(), c.dial)
		if err == nil {
			conn.Close()
			t.Errorf("%s: it was let in", name)
			continue
		}
		if got := reasonOf(t, err); got != c.ours || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), key) {
			t.Errorf("%s: the dialler says %v, want %s and %q", name, err, c.ours, c.says)
		}
		got := p.refusal(t)
		// The TLS alert of a dialler that goes away may be lost with its connection.
		gone := c.theirs == link.ReasonHandshake && got.Reason == link.ReasonClosed
		if got.Reason != c.theirs && !gone || strings.Contains(got.Error(), key) {
			t.Errorf("%s: the other side says %v, want %s", name, got, c.theirs)
		}
	}
}

// listenAs listens with a certificate, and speaks as links do.
func listenAs(t *testing.T, certificate tls.Certificate) net.Listener {
	t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{alpn}})
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// withCA trusts another authority than the one that has signed the certificate.
func withCA(c link.Certificates, a *authority) link.Certificates {
	c.CAFile = a.File()
	return c
}

func TestALinkOfOthersIsNotDialled(t *testing.T) {
	t.Parallel()
	e := newEnd(t, "domain-03", link.Certificates{})
	if _, err := e.Dial(t.Context(), "127.0.0.1:1", keyed()); err == nil || !strings.Contains(err.Error(), "does not join domain-03") {
		t.Errorf("got %v", err)
	}
}

func TestAServiceThatIsNoLinkPortIsNamed(t *testing.T) {
	t.Parallel()
	authority := newAuthority(t)
	files := authority.files(t, there)
	certificate, err := tls.LoadX509KeyPair(files.CertFile, files.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		answer func(net.Conn)
		says   string
		reason link.Reason
	}{
		"speaks first": {func(c net.Conn) { _, _ = c.Write([]byte("220 mail.example.org ESMTP\r\n")) }, "does not speak TLS", link.ReasonHandshake},
		"other TLS": {func(c net.Conn) {
			_ = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{certificate}}).Handshake()
		}, "not the protocol of links", link.ReasonHandshake},
	} {
		listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var answering sync.WaitGroup
		answering.Go(func() {
			raw, err := listener.Accept()
			if err != nil {
				return
			}
			c.answer(raw)
			_, _ = io.Copy(io.Discard, raw)
			_ = raw.Close()
		})
		_, err = newEnd(t, here, link.Certificates{}).Dial(t.Context(), listener.Addr().String(), keyed())
		if err == nil || !strings.Contains(err.Error(), c.says) || reasonOf(t, err) != c.reason {
			t.Errorf("%s: got %v", name, err)
		}
		_ = listener.Close()
		answering.Wait()
	}
}

// TestStrangersAreRefusedAndToldNothing speaks the protocol by hand.
func TestStrangersAreRefusedAndToldNothing(t *testing.T) {
	t.Parallel()
	mac := make([]byte, 32)
	say := func(b []byte) func(*testing.T, *tls.Conn) []byte {
		return func(*testing.T, *tls.Conn) []byte { return b }
	}
	signed := func(label, client, server string) func(*testing.T, *tls.Conn) []byte {
		return func(t *testing.T, c *tls.Conn) []byte {
			return hello(1, here, there, 1, proof(t, c, key, label, client, server))
		}
	}
	p := serve(t, newEnd(t, there, link.Certificates{}), with(keyed()))
	for name, c := range map[string]struct {
		hello func(*testing.T, *tls.Conn) []byte
		want  link.Reason
	}{
		"a frame that is too large":  {say(binary.BigEndian.AppendUint32(nil, 4097)), link.ReasonMalformed},
		"a frame without a type":     {say([]byte{0, 0, 0, 0}), link.ReasonMalformed},
		"another frame":              {say(frame(3, make([]byte, 8))), link.ReasonMalformed},
		"an unknown frame":           {say(frame(77, nil)), link.ReasonMalformed},
		"an HTTP request in TLS":     {say([]byte("GET / HTTP/1.1\r\n\r\n")), link.ReasonMalformed},
		"an empty hello":             {say(frame(1, nil)), link.ReasonMalformed},
		"junk at its end":            {say(frame(1, append(hello(1, here, there, 1, mac)[5:], 0))), link.ReasonMalformed},
		"no name":                    {say(hello(1, "", there, 1, mac)), link.ReasonMalformed},
		"no name of a domain":        {say(hello(1, "Domain 01\n", there, 1, mac)), link.ReasonMalformed},
		"a short proof":              {say(hello(1, here, there, 1, mac[1:])), link.ReasonMalformed},
		"a proof that is none":       {say(hello(1, here, there, 3, mac)), link.ReasonMalformed},
		"version 0":                  {say(hello(0, here, there, 1, mac)), link.ReasonMalformed},
		"version 2":                  {say(hello(2, here, there, 1, mac)), link.ReasonVersion},
		"a later version's contents": {say(frame(1, []byte{200, 1, 1, 2, 3})), link.ReasonVersion},
		"a domain that is unknown":   {say(hello(1, "domain-09", there, 1, mac)), link.ReasonUnknownDomain},
		"the domain itself":          {say(hello(1, there, there, 1, mac)), link.ReasonUnknownDomain},
		"for another domain":         {say(hello(1, here, "domain-03", 1, mac)), link.ReasonWrongDomain},
		"no proof at all":            {say(hello(1, here, there, 0, nil)), link.ReasonNoProof},
		"insecure":                   {say(hello(1, here, there, 3, nil)), link.ReasonNoProof},
		"certificate":                {say(hello(1, here, there, 2, nil)), link.ReasonNoProof},
		"an unknown proof":           {say(hello(1, here, there, 9, nil)), link.ReasonNoProof},
		"a wrong proof":              {say(hello(1, here, there, 1, mac)), link.ReasonWrongProof},
		"the server's proof":         {signed("linker link server", here, there), link.ReasonWrongProof},
		"other domains":              {signed("linker link client", there, here), link.ReasonWrongProof},
		"a proof of another TLS connection": {func(t *testing.T, _ *tls.Conn) []byte {
			other, err := tls.Dial("tcp", p.address(), stranger(alpn))
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				_ = other.Close()
				p.refusal(t)
			}()
			return hello(1, here, there, 1, proof(t, other, key, "linker link client", here, there))
		}, link.ReasonWrongProof},
	} {
		config := stranger(alpn)
		config.ClientSessionCache = tls.NewLRUClientSessionCache(1) // it would take a ticket
		conn, err := tls.Dial("tcp", p.address(), config)
		if err != nil {
			t.Fatal(err)
		}
		for _, shown := range conn.ConnectionState().PeerCertificates {
			if shown.Subject.String() != "" || shown.Issuer.String() != "" || len(shown.DNSNames) > 0 {
				t.Errorf("%s: the certificate names %s", name, shown.Subject)
			}
		}
		if _, err := conn.Write(c.hello(t, conn)); err != nil {
			t.Fatal(err)
		}
		if got := p.refusal(t); got.Reason != c.want {
			t.Errorf("%s: %v, want %s", name, got, c.want)
		}
		// Below TLS: not even an alert comes, nor a ticket.
		if told, _ := io.ReadAll(conn.NetConn()); len(told) > 0 {
			t.Errorf("%s: it is told %d bytes", name, len(told))
		}
		_ = conn.Close()
	}
}

func TestTheProtocolSpokenByHandIsTheOneOfTheServer(t *testing.T) {
	t.Parallel()
	p := serve(t, newEnd(t, there, link.Certificates{}), with(keyed()))
	conn, err := tls.Dial("tcp", p.address(), stranger(alpn))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(hello(1, here, there, 1, proof(t, conn, key, "linker link client", here, there))); err != nil {
		t.Fatal(err)
	}
	want := frame(2, text(nil, proof(t, conn, key, "linker link server", here, there)))
	got := make([]byte, len(want))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != string(want) {
		t.Errorf("got %x, %v, want %x", got, err, want)
	}
	state := conn.ConnectionState()
	if state.Version != tls.VersionTLS13 {
		t.Errorf("TLS %x", state.Version)
	}
}

func TestADiallerTrustsNoServerThatDoesNotKnowTheKey(t *testing.T) {
	t.Parallel()
	files := newAuthority(t).files(t, there)
	certificate, err := tls.LoadX509KeyPair(files.CertFile, files.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		answer func(c *tls.Conn) []byte
		want   link.Reason
	}{
		"no proof":    {func(*tls.Conn) []byte { return frame(2, text(nil, "")) }, link.ReasonWrongProof},
		"wrong proof": {func(*tls.Conn) []byte { return frame(2, text(nil, make([]byte, 32))) }, link.ReasonWrongProof},
		"the client's": {func(c *tls.Conn) []byte {
			return frame(2, text(nil, proof(t, c, key, "linker link client", here, there)))
		}, link.ReasonWrongProof},
		"another frame":     {func(*tls.Conn) []byte { return frame(9, nil) }, link.ReasonMalformed},
		"a large frame":     {func(*tls.Conn) []byte { return []byte{0, 1, 0, 0} }, link.ReasonMalformed},
		"a broken frame":    {func(*tls.Conn) []byte { return frame(2, []byte{9}) }, link.ReasonMalformed},
		"half of a welcome": {func(*tls.Conn) []byte { return []byte{0, 0} }, link.ReasonClosed},
	} {
		listener := listenAs(t, certificate)
		var answering sync.WaitGroup
		answering.Go(func() {
			raw, err := listener.Accept()
			if err != nil {
				return
			}
			defer raw.Close()
			conn := raw.(*tls.Conn)
			_, _ = io.ReadFull(conn, make([]byte, len(hello(1, here, there, 1, make([]byte, 32)))))
			_, _ = conn.Write(c.answer(conn))
		})
		_, err = newEnd(t, here, link.Certificates{}).Dial(t.Context(), listener.Addr().String(), keyed())
		if got := reasonOf(t, err); got != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
		_ = listener.Close()
		answering.Wait()
	}
}

func TestWhatIsNotTheTLSOfLinksIsRefused(t *testing.T) {
	t.Parallel()
	p := serve(t, newEnd(t, there, link.Certificates{}), with(keyed()))
	for name, c := range map[string]struct {
		say  string
		want link.Reason
	}{
		"nothing":        {"", link.ReasonClosed},
		"garbage":        {"\x00\x01garbage that is longer than a header", link.ReasonHandshake},
		"HTTP":           {"GET /healthz HTTP/1.1\r\nHost: domain-02\r\n\r\n", link.ReasonHandshake},
		"half of TLS":    {"\x16\x03\x01\x02\x00\x01\x00", link.ReasonClosed},
		"a broken hello": {"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", link.ReasonHandshake},
	} {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", p.address())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(c.say)); err != nil {
			t.Fatal(err)
		}
		_ = conn.(*net.TCPConn).CloseWrite() // the other side may have gone already
		if got := p.refusal(t); got.Reason != c.want {
			t.Errorf("%s: %v, want %s", name, got, c.want)
		}
		_ = conn.Close()
	}
	for name, config := range map[string]*tls.Config{
		"no protocol":      stranger(),
		"another protocol": stranger("h2", "http/1.1"),
		"TLS 1.2":          {InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, NextProtos: []string{alpn}},
	} {
		if conn, err := tls.Dial("tcp", p.address(), config); err == nil {
			_ = conn.Close()
			t.Errorf("%s: TLS came about", name)
		}
		if got := p.refusal(t); got.Reason != link.ReasonHandshake {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestNobodyKeepsTheServerWaitingForMoreThanFiveSeconds(t *testing.T) {
	t.Parallel()
	// Each says what it likes; then nothing more comes from it.
	drip := func(c net.Conn) {
		for {
			time.Sleep(time.Second)
			if _, err := c.Write([]byte{0}); err != nil {
				return
			}
		}
	}
	greeted := func(c net.Conn) *tls.Conn {
		conn := tls.Client(c, stranger(alpn))
		if err := conn.Handshake(); err != nil {
			t.Error(err)
		}
		return conn
	}
	for name, behave := range map[string]func(net.Conn){
		"says nothing":              func(net.Conn) {},
		"half of the TLS":           func(c net.Conn) { _, _ = c.Write([]byte{0x16, 3, 1}) },
		"nothing after TLS":         func(c net.Conn) { greeted(c) },
		"one byte a second":         func(c net.Conn) { c.Write([]byte{0x16, 3, 1, 9, 9}); drip(c) },
		"one byte a second, in TLS": func(c net.Conn) { conn := greeted(c); conn.Write([]byte{0, 0, 4, 0, 1}); drip(conn) },
	} {
		synctest.Test(t, func(t *testing.T) {
			a, b := net.Pipe()
			var behaving sync.WaitGroup
			behaving.Go(func() { behave(a) })
			begin := time.Now()
			_, err := newEnd(t, there, link.Certificates{}).Accept(t.Context(), b, with(keyed()))
			if got := reasonOf(t, err); got != link.ReasonTimeout || time.Since(begin) != 5*time.Second {
				t.Errorf("%s: %v after %s", name, err, time.Since(begin))
			}
			_ = a.Close()
			behaving.Wait()
		})
	}
}

func TestADiallerDoesNotWaitForEver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, b) }()
		begin := time.Now()
		_, err := newEnd(t, here, link.Certificates{}).DialOver(t.Context(), a, keyed())
		if got := reasonOf(t, err); got != link.ReasonTimeout || time.Since(begin) != 5*time.Second {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, b) }()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := newEnd(t, here, link.Certificates{}).DialOver(ctx, a, keyed())
		if got := reasonOf(t, err); got != link.ReasonTimeout {
			t.Errorf("the caller's deadline: %v", err)
		}
	})
}

func TestTheEndOfTheContextEndsAHandshake(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, err := newEnd(t, there, link.Certificates{}).Accept(ctx, b, with(keyed()))
		if got := reasonOf(t, err); got != link.ReasonStopped || !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if _, err := a.Read(make([]byte, 1)); err == nil {
			t.Error("the connection was not closed")
		}
	})
}

// TestAManInTheMiddleIsRefusedByBothSides ends TLS on both of his sides and copies
// what comes.
func TestAManInTheMiddleIsRefusedByBothSides(t *testing.T) {
	t.Parallel()
	authority := newAuthority(t)
	his := newAuthority(t).files(t, there)
	certificate, err := tls.LoadX509KeyPair(his.CertFile, his.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		link           topology.Link
		client, server link.Certificates
		ours           link.Reason // of the dialler
	}{
		"key":          {keyed(), link.Certificates{}, link.Certificates{}, link.ReasonClosed},
		"certificates": {plain(), authority.files(t, here), authority.files(t, there), link.ReasonWrongProof},
	} {
		p := serve(t, newEnd(t, there, c.server), with(c.link))
		middle := listenAs(t, certificate)
		var copying sync.WaitGroup
		copying.Go(func() {
			left, err := middle.Accept()
			if err != nil {
				return
			}
			right, err := tls.Dial("tcp", p.address(), stranger(alpn))
			if err != nil {
				t.Error(err)
				return
			}
			copying.Go(func() {
				_, _ = io.Copy(left, right)
				_ = left.Close()
			})
			_, _ = io.Copy(right, left)
			_ = right.Close()
		})
		_, err = newEnd(t, here, c.client).Dial(t.Context(), middle.Addr().String(), c.link)
		if got := reasonOf(t, err); got != c.ours {
			t.Errorf("%s: the dialler says %v, want %s", name, err, c.ours)
		}
		if got := p.refusal(t); c.link.Key != "" && got.Reason != link.ReasonWrongProof {
			t.Errorf("%s: the other side says %v", name, got)
		}
		_ = middle.Close()
		copying.Wait()
	}
}

func TestACertificateOfAnotherDomainDoesNotCount(t *testing.T) {
	t.Parallel()
	authority := newAuthority(t)
	p := serve(t, newEnd(t, there, authority.files(t, there)), with(plain()))
	files := authority.files(t, "domain-03")
	certificate, err := tls.LoadX509KeyPair(files.CertFile, files.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	for want, certificates := range map[link.Reason][]tls.Certificate{link.ReasonWrongProof: {certificate}, link.ReasonNoProof: nil} {
		config := stranger(alpn)
		config.Certificates = certificates
		conn, err := tls.Dial("tcp", p.address(), config)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(hello(1, here, there, 2, nil)); err != nil {
			t.Fatal(err)
		}
		if got := p.refusal(t); got.Reason != want || got.Domain != here {
			t.Errorf("got %v, want %s", got, want)
		}
		_ = conn.Close()
	}
}

// shown returns the certificate that who calls by a name sees.
func shown(t *testing.T, p *port, name string) *x509.Certificate {
	t.Helper()
	config := stranger(alpn)
	config.ServerName = name
	conn, err := tls.Dial("tcp", p.address(), config)
	if err != nil {
		t.Fatal(err)
	}
	certificate := conn.ConnectionState().PeerCertificates[0]
	_ = conn.Close()
	p.refusal(t)
	return certificate
}

func TestOnlyWhoKnowsTheDomainSeesItsCertificate(t *testing.T) {
	t.Parallel()
	p := serve(t, newEnd(t, there, newAuthority(t).files(t, there)), with(plain()))
	if got := shown(t, p, there); got.VerifyHostname(there) != nil {
		t.Errorf("by its name: %v", got.DNSNames)
	}
	for _, name := range []string{"domain-03", "", "localhost"} {
		if got := shown(t, p, name); len(got.DNSNames) > 0 || got.Subject.String() != "" {
			t.Errorf("by %q: %v", name, got.DNSNames)
		}
	}
}

func TestNewFilesCountWithoutARestart(t *testing.T) {
	t.Parallel()
	first, second := newAuthority(t), newAuthority(t)
	files := first.files(t, there)
	log, lines := logtest.New()
	server, err := link.NewEnd(link.Config{Domain: there, Certificates: files, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	p := serve(t, server, with(plain()))
	client := newEnd(t, here, first.files(t, here))
	dial := func(e *link.End) error {
		c, err := e.Dial(t.Context(), p.address(), plain())
		if err != nil {
			p.refusal(t)
			return err
		}
		c.Close()
		(<-p.opened).Close()
		return nil
	}
	if err := dial(client); err != nil {
		t.Fatal(err)
	}
	serial := first.issue(t, files, there)
	polltest.Eventually(t, "the new certificate is shown", func() bool { return shown(t, p, there).SerialNumber.Int64() == serial })
	if err := dial(client); err != nil {
		t.Error(err)
	}

	// The server now trusts the second authority only; its own certificate is
	// still of the first.
	stranger := newEnd(t, here, withCA(second.files(t, here), first))
	if err := dial(stranger); err == nil {
		t.Error("somebody whom nobody vouches for was let in")
	}
	old, err := os.ReadFile(first.File())
	if err != nil {
		t.Fatal(err)
	}
	ca := t.TempDir() + "/ca.pem"
	if err := os.WriteFile(ca, old, 0o600); err != nil {
		t.Fatal(err)
	}
	files.CAFile = ca
	if server, err = link.NewEnd(link.Config{Domain: there, Certificates: files, Log: log}); err != nil {
		t.Fatal(err)
	}
	p = serve(t, server, with(plain()))
	if err := os.WriteFile(ca, []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	polltest.Eventually(t, "the broken file is noticed", func() bool {
		if err := dial(client); err != nil {
			t.Fatalf("a broken file has changed who is trusted: %v", err)
		}
		return lines.Lines("cannot be used") > 0
	})
	replaced, err := os.ReadFile(second.File())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ca, replaced, 0o600); err != nil {
		t.Fatal(err)
	}
	polltest.Eventually(t, "the new authority counts", func() bool { return dial(stranger) == nil })
	if err := dial(client); err == nil {
		t.Error("the old authority counts still")
	}
}

func TestAnEndNamesWhatIsWrongWithItsFiles(t *testing.T) {
	t.Parallel()
	authority := newAuthority(t)
	good, other := authority.files(t, here), authority.files(t, here)
	for name, c := range map[string]struct {
		domain string
		files  link.Certificates
		says   []string
	}{
		"no domain":        {"Not A Name", link.Certificates{}, []string{`"Not A Name"`, "expected"}},
		"certificate only": {here, link.Certificates{CertFile: good.CertFile}, []string{"link key", "link CA", "expected"}},
		"no CA":            {here, link.Certificates{CertFile: good.CertFile, KeyFile: good.KeyFile}, []string{"link CA"}},
		"CA only":          {here, link.Certificates{CAFile: good.CAFile}, []string{"link certificate", "link key"}},
		"another domain":   {there, good, []string{good.CertFile, "not for the domain domain-02"}},
		"another key":      {here, link.Certificates{CertFile: good.CertFile, KeyFile: other.KeyFile, CAFile: good.CAFile}, []string{other.KeyFile}},
		"CA without any":   {here, link.Certificates{CertFile: good.CertFile, KeyFile: good.KeyFile, CAFile: good.KeyFile}, []string{good.KeyFile, "no certificate"}},
	} {
		_, err := link.NewEnd(link.Config{Domain: c.domain, Certificates: c.files})
		for _, part := range c.says {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%s: got %v, want %q in it", name, err, part)
			}
		}
	}
}
