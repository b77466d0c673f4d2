package link

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/linkerhq/linker/pkg/certs"
	"github.com/linkerhq/linker/pkg/topology"
)

const (
	// protocol is what the TLS of links carries, and asking the same with questions and
	// answers. Both sides offer all they know, and TLS picks: so an end of an older version
	// never sees a frame that it does not know, and nobody in the middle can change that.
	protocol = "linker-link/1"
	asking   = "linker-link/1+questions"

	readBuffer = 64 << 10
)

// Dial opens a link to the neighbour at the other end of l, at address HOST:PORT,
// and returns when both sides have proved who they are. TCP gets 3 s, the rest 5 s.
// The error is a *RefusedError if TCP came about.
func (e *End) Dial(ctx context.Context, address string, l topology.Link) (*Conn, error) {
	peer, err := e.peerOf(l)
	if err != nil {
		return nil, err
	}
	if e.Proof(l) == NoProof {
		return nil, errUnprotected(l)
	}
	dialer := net.Dialer{Timeout: dialTime}
	raw, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("link with %s: %w", peer, err)
	}
	c, err := e.open(ctx, raw, func(ctx context.Context, line *line) (*Conn, error) { return e.greet(ctx, line, peer, l) })
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Accept lets the neighbour in that has dialled raw, or closes raw and returns
// *RefusedError. linkTo returns the link that the description of the network has with a
// domain.
func (e *End) Accept(ctx context.Context, raw net.Conn, linkTo func(domain string) (topology.Link, bool)) (*Conn, error) {
	return e.open(ctx, raw, func(ctx context.Context, line *line) (*Conn, error) { return e.meet(ctx, line, linkTo) })
}

// open runs one side of the handshake, in the time for it.
func (e *End) open(ctx context.Context, raw net.Conn, side func(context.Context, *line) (*Conn, error)) (*Conn, error) {
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stop()
	err := raw.SetDeadline(time.Now().Add(e.timing.handshake))
	var c *Conn
	if err == nil {
		c, err = side(ctx, &line{Conn: raw})
	}
	if err == nil {
		err = raw.SetDeadline(time.Time{})
	}
	if err == nil && !stop() {
		err = ctx.Err()
	}
	if err != nil {
		_ = raw.Close() // it is refused without a word
		return nil, classify(ctx, err)
	}
	return c, nil
}

// classify finds the reason of an error that has none yet, and corrects those that
// only follow from the end of ctx or of the time.
func classify(ctx context.Context, err error) error {
	is := &RefusedError{Reason: ReasonHandshake, Err: err}
	if known, ok := errors.AsType[*RefusedError](err); ok {
		is = known
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		return &RefusedError{Reason: ReasonTimeout, Domain: is.Domain, Err: is.Err}
	case ctx.Err() != nil:
		return &RefusedError{Reason: ReasonStopped, Domain: is.Domain, Err: context.Cause(ctx)}
	case is.Reason == ReasonHandshake && isEnd(err):
		return &RefusedError{Reason: ReasonClosed, Domain: is.Domain, Err: is.Err}
	}
	return is
}

// isEnd says whether the other side has just gone away.
func isEnd(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe)
}

// greet is the client's side of the handshake.
func (e *End) greet(ctx context.Context, line *line, peer string, l topology.Link) (*Conn, error) {
	proof := e.Proof(l)
	conn := tls.Client(line, e.clientTLS(peer, proof))
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, handshakeError(peer, err)
	}
	state := conn.ConnectionState()
	if !slices.Contains(protocols(), state.NegotiatedProtocol) {
		return nil, refused(ReasonHandshake, peer, "it speaks TLS, but not the protocol of links (%s): another service listens there", protocol)
	}
	h := hello{version: version, from: e.domain, to: peer, proof: proof}
	var want []byte
	if proof == ByKey {
		var err error
		if h.mac, err = sign(l.Key, clientLabel, e.domain, peer, &state); err != nil {
			return nil, refused(ReasonHandshake, peer, "%w", err)
		}
		if want, err = sign(l.Key, serverLabel, e.domain, peer, &state); err != nil {
			return nil, refused(ReasonHandshake, peer, "%w", err)
		}
	}
	if _, err := conn.Write(appendFrame(nil, h)); err != nil {
		return nil, unanswered(peer, proof, err)
	}
	in := frames{r: bufio.NewReaderSize(conn, readBuffer)}
	k, body, err := in.next(maxHello)
	if err != nil {
		return nil, unanswered(peer, proof, err)
	}
	if k != kindWelcome {
		return nil, refused(ReasonMalformed, peer, "it answers with a frame of type %d, expected %d", k, kindWelcome)
	}
	w, err := decodeWelcome(body)
	if err != nil {
		return nil, refused(ReasonMalformed, peer, "welcome: %w", err)
	}
	if !hmac.Equal(w.mac, want) {
		return nil, refused(ReasonWrongProof, peer, "it does not prove that it knows the key of the link %s", name(l))
	}
	return newConn(e, line, conn, in.r, peer, proof), nil
}

// handshakeError says why TLS did not come about.
func handshakeError(peer string, err error) error {
	reason := ReasonHandshake
	if _, is := errors.AsType[*tls.CertificateVerificationError](err); is {
		reason = ReasonWrongProof
	}
	if explained := certs.Explain(err); explained != "" {
		return refused(reason, peer, "%s: %w", explained, err)
	}
	return refused(reason, peer, "TLS: %w", err)
}

// unanswered says what it may mean that no welcome has come.
func unanswered(peer string, proof Proof, err error) error {
	if errors.Is(err, ErrProtocol) {
		return refused(ReasonMalformed, peer, "%w", err)
	}
	if !isEnd(err) {
		return refused(ReasonHandshake, peer, "no answer: %w", err)
	}
	mayBe := ""
	switch proof {
	case ByKey:
		mayBe = "it has another key for this link, "
	case ByCertificate:
		mayBe = "it does not accept our certificate or has none, "
	case Insecure:
		mayBe = "it demands a key or a certificate, "
	case NoProof: // is never dialled
	}
	return refused(ReasonClosed, peer, "it ends the connection without an answer: %sit knows of no link with us, or it is another domain: %w", mayBe, err)
}

// clientTLS is how a client speaks TLS with a peer. With a key, and on a link that
// is insecure, no certificate is checked: the key proves more, or nothing is proved.
func (e *End) clientTLS(peer string, proof Proof) *tls.Config {
	config := e.tls()
	config.ServerName = peer
	if proof != ByCertificate {
		config.InsecureSkipVerify = true
		return config
	}
	config.RootCAs = e.trust.pool()
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return e.pair.Certificate(), nil }
	return config
}

// serverTLS is how a server speaks TLS. Certificates of clients are asked for, and
// checked once it is known who the client says it is.
func (e *End) serverTLS() *tls.Config {
	config := e.tls()
	config.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) { return e.certificate(h), nil }
	config.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		if !slices.ContainsFunc(h.SupportedProtos, func(offered string) bool { return slices.Contains(protocols(), offered) }) {
			return nil, fmt.Errorf("the client offers the protocols %.80q, expected %s", h.SupportedProtos, protocol)
		}
		return nil, nil // go on with this one
	}
	if e.pair != nil {
		config.ClientAuth = tls.RequestClientCert
	}
	return config
}

// protocols are those that an end knows, the best one first.
func protocols() []string { return []string{asking, protocol} }

// tls is what both sides have in common. Sessions are not resumed: each proof is
// made anew, and a server says nothing before it.
func (e *End) tls() *tls.Config {
	return &tls.Config{
		MinVersion:                  tls.VersionTLS13,
		NextProtos:                  protocols(),
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true, // for throughput: nobody waits for half a frame
	}
}

// meet is the server's side of the handshake. It sends nothing before everything
// is right.
func (e *End) meet(ctx context.Context, line *line, linkTo func(string) (topology.Link, bool)) (*Conn, error) {
	conn := tls.Server(line, e.serverTLS())
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	in := frames{r: bufio.NewReaderSize(conn, readBuffer)}
	k, body, err := in.next(maxHello)
	switch {
	case errors.Is(err, ErrProtocol):
		return nil, refused(ReasonMalformed, "", "%w", err)
	case err != nil:
		return nil, fmt.Errorf("hello: %w", err)
	case k != kindHello:
		return nil, refused(ReasonMalformed, "", "the first frame has the type %d, expected %d", k, kindHello)
	}
	h, err := decodeHello(body)
	if err != nil {
		return nil, refused(ReasonMalformed, "", "hello: %w", err)
	}
	state := conn.ConnectionState()
	answer, proof, err := e.judge(h, &state, linkTo)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(appendFrame(nil, answer)); err != nil {
		return nil, &RefusedError{Reason: ReasonHandshake, Domain: h.from, Err: fmt.Errorf("welcome: %w", err)}
	}
	return newConn(e, line, conn, in.r, h.from, proof), nil
}

// judge says whether the client is who it says it is, and what it is answered.
func (e *End) judge(h hello, state *tls.ConnectionState, linkTo func(string) (topology.Link, bool)) (welcome, Proof, error) {
	if h.version != version {
		return welcome{}, 0, refused(ReasonVersion, "", "it speaks version %d, expected %d", h.version, version)
	}
	if h.to != e.domain {
		return welcome{}, 0, refused(ReasonWrongDomain, h.from, "it looks for %s, this is %s", h.to, e.domain)
	}
	l, is := linkTo(h.from)
	if !is {
		return welcome{}, 0, refused(ReasonUnknownDomain, h.from, "the network has no link with it")
	}
	if peer, err := e.peerOf(l); err != nil || peer != h.from {
		return welcome{}, 0, refused(ReasonUnknownDomain, h.from, "the link %s is none with it", name(l))
	}
	proof := e.Proof(l)
	if proof == NoProof {
		return welcome{}, 0, refused(ReasonNoProof, h.from, "%w", errUnprotected(l))
	}
	if h.proof != proof {
		return welcome{}, 0, refused(ReasonNoProof, h.from, "it proves itself by %s, expected %s", h.proof, proof)
	}
	answer, err := e.verify(h, l, proof, state)
	return answer, proof, err
}

// verify checks the client's proof and makes ours.
func (e *End) verify(h hello, l topology.Link, proof Proof, state *tls.ConnectionState) (welcome, error) {
	switch proof {
	case ByKey:
		want, err := sign(l.Key, clientLabel, h.from, e.domain, state)
		if err != nil {
			return welcome{}, refused(ReasonHandshake, h.from, "%w", err)
		}
		if !hmac.Equal(h.mac, want) {
			return welcome{}, refused(ReasonWrongProof, h.from, "it does not prove that it knows the key of the link %s, or somebody stands in the middle", name(l))
		}
		ours, err := sign(l.Key, serverLabel, h.from, e.domain, state)
		if err != nil {
			return welcome{}, refused(ReasonHandshake, h.from, "%w", err)
		}
		return welcome{mac: ours}, nil
	case ByCertificate:
		return welcome{}, e.verifyChain(h.from, state.PeerCertificates)
	case Insecure:
		return welcome{}, nil
	case NoProof: // was refused
	}
	return welcome{}, refused(ReasonNoProof, h.from, "it proves nothing")
}

// verifyChain checks that a client's certificate is that of a domain.
func (e *End) verifyChain(domain string, chain []*x509.Certificate) error {
	if len(chain) == 0 {
		return refused(ReasonNoProof, domain, "it shows no certificate")
	}
	options := x509.VerifyOptions{
		Roots: e.trust.pool(), Intermediates: x509.NewCertPool(), DNSName: domain,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, c := range chain[1:] {
		options.Intermediates.AddCert(c)
	}
	if _, err := chain[0].Verify(options); err != nil {
		if explained := certs.Explain(err); explained != "" {
			return refused(ReasonWrongProof, domain, "%s: %w", strings.TrimSpace(explained), err)
		}
		return refused(ReasonWrongProof, domain, "its certificate: %w", err)
	}
	return nil
}
