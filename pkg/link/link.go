// Package link is what neighbouring domains say to each other: how they prove who
// they are, how messages are framed, and how a connection is kept alive. It is used
// by processors, which dial, and by connectors, which are dialled.
//
// Over a link a record stays in the custody of the side that sends it until the
// other side says, by Ack, that its own log has it.
//
// A connection is TLS 1.3. In it the client says HELLO and the server answers
// WELCOME; each proves who it is by what the link demands, or the other side closes
// the connection without a word. Then both send frames: four bytes of length,
// big-endian, of what follows; one byte that says what it is; the body.
package link

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/topology"
)

const (
	// handshakeTime is how long TLS and the proofs may take together.
	handshakeTime = 5 * time.Second
	// dialTime is how long the TCP connection may take.
	dialTime = 3 * time.Second
	// pingEvery is how often an end asks whether the other one is there.
	pingEvery = 5 * time.Second
	// silence is how long nothing may prove the round trip, how long a write may
	// make no progress, and how long the handler may leave no room for what was
	// read: then the connection ends.
	silence = 14 * time.Second
)

// timing is how long things may take; only tests change it.
type timing struct{ handshake, ping, silence time.Duration }

// Config is what an end is told.
type Config struct {
	Domain       string // our own
	Certificates Certificates
	Log          *slog.Logger
}

// End is one process's end of its domain's links. Its methods may be called by any
// number of goroutines.
type End struct {
	domain    string           // static
	pair      pair             // static; nil: the domain has no certificate
	trust     *trust           // static; nil: the domain has no certificate
	ephemeral *tls.Certificate // static: names nobody
	log       *slog.Logger     // static
	timing    timing           // static
}

// pair is a certificate that is read again when its files change.
type pair interface{ Certificate() *tls.Certificate }

// NewEnd loads the certificates, if there are any, and names what is wrong with them.
func NewEnd(cfg Config) (*End, error) {
	if !ident.IsDomainName(cfg.Domain) {
		return nil, fmt.Errorf("domain: %q, expected lower-case letters, digits and dashes", cfg.Domain)
	}
	e := &End{domain: cfg.Domain, log: cfg.Log, timing: timing{handshake: handshakeTime, ping: pingEvery, silence: silence}}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if err := cfg.Certificates.Validate(); err != nil {
		return nil, err
	}
	if cfg.Certificates != (Certificates{}) {
		if err := e.openCertificates(cfg.Certificates); err != nil {
			return nil, fmt.Errorf("certificates of links: %w", err)
		}
	}
	var err error
	e.ephemeral, err = newEphemeral()
	if err != nil {
		return nil, err
	}
	return e, nil
}

// Proof is how the two ends of a link prove who they are.
type Proof uint8

// The proofs. They are sent: numbers are never used again.
const (
	NoProof       Proof = 0 // there is no way to prove it: the link cannot open
	ByKey         Proof = 1 // the key that both sides know
	ByCertificate Proof = 2 // certificates, each with the name of its domain
	Insecure      Proof = 3 // nobody proves anything, because the link says so
)

// String returns the word for people.
func (p Proof) String() string {
	switch p {
	case NoProof:
		return "none"
	case ByKey:
		return "key"
	case ByCertificate:
		return "certificate"
	case Insecure:
		return "insecure"
	}
	return fmt.Sprintf("proof %d", uint8(p))
}

// Proof says how the ends of l prove who they are, as far as this end can: by the
// key of the link, else by certificates, else not at all if the link allows it.
func (e *End) Proof(l topology.Link) Proof {
	switch {
	case l.Key != "":
		return ByKey
	case e.pair != nil:
		return ByCertificate
	case l.Insecure:
		return Insecure
	default:
		return NoProof
	}
}

// peerOf returns the domain at the other end of l.
func (e *End) peerOf(l topology.Link) (string, error) {
	switch {
	case l.N1 == e.domain && l.N2 != e.domain:
		return l.N2, nil
	case l.N2 == e.domain && l.N1 != e.domain:
		return l.N1, nil
	default:
		return "", fmt.Errorf("link %s: it does not join %s with another domain", name(l), e.domain)
	}
}

// name is what people call a link.
func name(l topology.Link) string { return l.N1 + "–" + l.N2 }

// errUnprotected tells the operator what a link lacks.
func errUnprotected(l topology.Link) error {
	return fmt.Errorf("link %s has neither a key nor certificates: give it a key in the description of the network, "+
		"or set link-cert, link-key and link-ca in both domains, or allow it as it is with insecure: true", name(l))
}

// Reason is why the other end was not let in.
type Reason string

// The reasons.
const (
	ReasonHandshake     Reason = "handshake"      // no TLS, or not ours
	ReasonMalformed     Reason = "malformed"      // what follows TLS is none of our frames
	ReasonVersion       Reason = "version"        // another version of the protocol
	ReasonUnknownDomain Reason = "unknown_domain" // the network has no link with the domain that it says it is
	ReasonWrongDomain   Reason = "wrong_domain"   // it looks for another domain
	ReasonNoProof       Reason = "no_proof"       // it proves nothing, or in another way than the link demands
	ReasonWrongProof    Reason = "wrong_proof"    // another key, or a certificate that does not count
	ReasonTimeout       Reason = "timeout"        // it took too long
	ReasonClosed        Reason = "closed"         // it went away in the middle
	ReasonStopped       Reason = "stopped"        // our side had enough: the context ended
)

// Reasons lists all reasons, for counters that exist from the start.
func Reasons() []Reason {
	return []Reason{
		ReasonHandshake, ReasonMalformed, ReasonVersion, ReasonUnknownDomain, ReasonWrongDomain,
		ReasonNoProof, ReasonWrongProof, ReasonTimeout, ReasonClosed, ReasonStopped,
	}
}

// RefusedError says why no link was opened with whoever is at the other end. It
// holds no secrets.
type RefusedError struct {
	Reason Reason
	Domain string // who it said it was, or whom we dialled; empty: it did not come that far
	Err    error  // what exactly was wrong
}

// Error implements error.
func (e *RefusedError) Error() string {
	if e.Domain == "" {
		return fmt.Sprintf("link refused (%s): %v", e.Reason, e.Err)
	}
	return fmt.Sprintf("link with %s refused (%s): %v", e.Domain, e.Reason, e.Err)
}

// Unwrap returns what exactly was wrong.
func (e *RefusedError) Unwrap() error { return e.Err }

// refused builds a RefusedError.
func refused(reason Reason, domain, format string, args ...any) error {
	return &RefusedError{Reason: reason, Domain: domain, Err: fmt.Errorf(format, args...)}
}

// Why a connection ends, for errors.Is.
var (
	ErrGone     = errors.New("the other side has ended the connection")
	ErrSilent   = errors.New("the other side shows no sign of life")
	ErrStuck    = errors.New("what arrives is not taken on this side")
	ErrProtocol = errors.New("the other side breaks the protocol")
	ErrMisuse   = errors.New("this side breaks the protocol")
	ErrClosed   = errors.New("closed on this side")
)
