package link_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/linkerhq/linker/pkg/certs/certtest"
	"github.com/linkerhq/linker/pkg/link"
	"github.com/linkerhq/linker/pkg/topology"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	here  = "domain-01" // dials
	there = "domain-02" // is dialled
	key   = "a key that nobody guesses"
)

func keyed() topology.Link    { return topology.Link{N1: here, N2: there, Key: key} }
func insecure() topology.Link { return topology.Link{N1: there, N2: here, Insecure: true} }
func plain() topology.Link    { return topology.Link{N1: here, N2: there} }

// with returns what Accept asks: the one link that there is.
func with(l topology.Link) func(string) (topology.Link, bool) {
	return func(domain string) (topology.Link, bool) { return l, domain == l.N1 || domain == l.N2 }
}

func newEnd(t testing.TB, domain string, certificates link.Certificates) *link.End {
	t.Helper()
	e, err := link.NewEnd(link.Config{Domain: domain, Certificates: certificates})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// port is a link port that accepts until the end of the test.
type port struct {
	net.Listener
	opened chan *link.Conn
	errs   chan error
}

func serve(t testing.TB, e *link.End, linkTo func(string) (topology.Link, bool)) *port {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &port{Listener: listener, opened: make(chan *link.Conn, 100), errs: make(chan error, 100)}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		for {
			raw, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				c, err := e.Accept(ctx, raw, linkTo)
				if err != nil {
					p.errs <- err
					return
				}
				p.opened <- c
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		stop()
		running.Wait()
		for {
			select {
			case c := <-p.opened:
				c.Close()
			default:
				return
			}
		}
	})
	return p
}

func (p *port) address() string { return p.Addr().String() }

// refusal waits for the next one that was not let in.
func (p *port) refusal(t *testing.T) *link.RefusedError {
	t.Helper()
	select {
	case err := <-p.errs:
		is, ok := errors.AsType[*link.RefusedError](err)
		if !ok {
			t.Fatalf("%v is no RefusedError", err)
		}
		return is
	case c := <-p.opened:
		c.Close()
		t.Fatal("it was let in")
	case <-time.After(30 * time.Second):
		t.Fatal("nobody was refused")
	}
	return nil
}

// open opens a link and returns both ends.
func open(t testing.TB, client, server *link.End, l topology.Link) (dialled, accepted *link.Conn) {
	t.Helper()
	p := serve(t, server, with(l))
	dialled, err := client.Dial(t.Context(), p.address(), l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dialled.Close)
	accepted = <-p.opened
	t.Cleanup(accepted.Close)
	return dialled, accepted
}

// pair opens a link with a key over TCP.
func pair(t testing.TB) (dialled, accepted *link.Conn) {
	t.Helper()
	return open(t, newEnd(t, here, link.Certificates{}), newEnd(t, there, link.Certificates{}), keyed())
}

// running is a connection that runs.
type running struct {
	*link.Conn
	got   chan link.Message
	ended chan error // gets what Run returned, and is closed
}

// run runs a connection; what it hands over is in got, which holds all that tests
// send.
func run(ctx context.Context, c *link.Conn) *running {
	r := &running{Conn: c, got: make(chan link.Message, 100000), ended: make(chan error, 1)}
	go func() {
		defer close(r.ended)
		r.ended <- c.Run(ctx, func(m link.Message) error {
			r.got <- m
			return nil
		})
	}()
	return r
}

// stop ends the connection and waits for it.
func (r *running) stop() error {
	r.Close()
	return <-r.ended
}

func reasonOf(t *testing.T, err error) link.Reason {
	t.Helper()
	is, ok := errors.AsType[*link.RefusedError](err)
	if !ok {
		t.Fatalf("%v is no RefusedError", err)
	}
	return is.Reason
}

// What follows speaks the protocol without package link: it holds the wire format fast.

const alpn = "linker-link/1"

func frame(kind byte, body []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(body)+1))
	return append(append(b, kind), body...)
}

func text[T ~string | ~[]byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func hello(version uint64, from, to string, proof byte, mac []byte) []byte {
	b := text(text(binary.AppendUvarint(nil, version), from), to)
	return frame(1, text(append(b, proof), mac))
}

func proof(t *testing.T, conn *tls.Conn, key, label, client, server string) []byte {
	t.Helper()
	state := conn.ConnectionState()
	material, err := state.ExportKeyingMaterial("EXPORTER-linker-link", nil, 32)
	if err != nil {
		t.Fatal(err)
	}
	h := hmac.New(sha256.New, []byte(key))
	h.Write(text(text(text(text(nil, label), client), server), material))
	return h.Sum(nil)
}

// stranger is a TLS client that checks nothing.
func stranger(protocols ...string) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, NextProtos: protocols, ServerName: there}
}

// authority signs certificates of domains.
type authority struct{ *certtest.Authority }

func newAuthority(t *testing.T) *authority {
	t.Helper()
	return &authority{certtest.NewAuthority(t)}
}

// issue writes a new certificate of a domain over the files and returns its serial
// number.
func (a *authority) issue(t *testing.T, c link.Certificates, domain string, usages ...x509.ExtKeyUsage) int64 {
	t.Helper()
	return a.IssueTo(c.CertFile, c.KeyFile, domain, usages...)
}

// files returns the files of a domain with a certificate.
func (a *authority) files(t *testing.T, domain string, usages ...x509.ExtKeyUsage) link.Certificates {
	t.Helper()
	dir := t.TempDir()
	c := link.Certificates{CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem"), CAFile: a.File()}
	a.issue(t, c, domain, usages...)
	return c
}

// cable is a connection in memory that can be cut: what is written to its end then
// goes nowhere.
type cable struct {
	net.Conn
	cut atomic.Bool
}

func (c *cable) Write(b []byte) (int, error) {
	if c.cut.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// inMemory opens a link over a connection in memory, for bubbles of synctest.
func inMemory(t *testing.T) (dialled, accepted *link.Conn, dialler, listener *cable) {
	t.Helper()
	a, b := net.Pipe()
	dialler, listener = &cable{Conn: a}, &cable{Conn: b}
	opened := make(chan *link.Conn, 1)
	go func() {
		c, err := newEnd(t, there, link.Certificates{}).Accept(context.Background(), listener, with(keyed()))
		if err != nil {
			t.Error(err)
		}
		opened <- c
	}()
	dialled, err := newEnd(t, here, link.Certificates{}).DialOver(context.Background(), dialler, keyed())
	if err != nil {
		t.Fatal(err)
	}
	accepted = <-opened
	return dialled, accepted, dialler, listener
}
