package link

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/linkerhq/linker/pkg/certs"
)

// Certificates are the files with which a domain proves who it is on links
// without a key, all in PEM and reread when they change. The zero value: it has
// none.
type Certificates struct {
	CertFile string // of this domain; its name is a DNS name in it
	KeyFile  string
	CAFile   string // who signs the certificates of the neighbours
}

// Validate says which of the files is missing: there are all three or none.
func (c Certificates) Validate() error {
	if c == (Certificates{}) {
		return nil
	}
	var missing []error
	for _, file := range []struct{ what, name string }{
		{"link certificate", c.CertFile}, {"link key", c.KeyFile}, {"link CA", c.CAFile},
	} {
		if file.name == "" {
			missing = append(missing, fmt.Errorf("%s: no file given, expected one, since links need certificate, key and CA together", file.what))
		}
	}
	return errors.Join(missing...)
}

// openCertificates loads the files of the domain.
func (e *End) openCertificates(c Certificates) error {
	pair, err := certs.OpenPair(c.CertFile, c.KeyFile, e.log)
	if err != nil {
		return err
	}
	if err := pair.Certificate().Leaf.VerifyHostname(e.domain); err != nil {
		return fmt.Errorf("certificate file %s: it is not for the domain %s, expected that as a DNS name: %w", c.CertFile, e.domain, err)
	}
	trust, err := openTrust(c.CAFile, e.log)
	if err != nil {
		return err
	}
	e.pair, e.trust = pair, trust
	return nil
}

// certificate returns what a client is shown that calls us by this name. Who does
// not know the name of the domain does not learn it.
func (e *End) certificate(hello *tls.ClientHelloInfo) *tls.Certificate {
	if e.pair != nil && hello.ServerName == e.domain {
		return e.pair.Certificate()
	}
	return e.ephemeral
}

// newEphemeral makes a certificate that only encrypts: it names nobody, and the
// key of the link proves the rest.
func newEphemeral() (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key for links: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280: no end
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate for links: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// lookEvery is how often the CA file is looked at, at most.
const lookEvery = time.Second

// trust is who signs the certificates of the neighbours. Its file is looked at
// when a handshake begins, once a second at most. If it has changed, the new
// authorities count from then on; if it cannot be used, this is logged once and the
// old ones stay.
type trust struct {
	file string       // static
	log  *slog.Logger // static

	current atomic.Pointer[x509.CertPool]

	mu     sync.Mutex // held while the file is read; who finds it held goes on with what there is
	looked time.Time  // guarded by mu
	seen   stamp      // guarded by mu: of the file that was read last, good or not
}

// stamp changes when the file does: nanoseconds since 1970, bytes; both 0: it
// cannot be looked at.
type stamp struct{ changed, size int64 }

func openTrust(file string, log *slog.Logger) (*trust, error) {
	t := &trust{file: file, log: log, looked: time.Now(), seen: stampOf(file)}
	pool, err := certs.Pool(file)
	if err != nil {
		return nil, err
	}
	t.current.Store(pool)
	return t, nil
}

// pool returns who counts now.
func (t *trust) pool() *x509.CertPool {
	if t.mu.TryLock() {
		t.lookLocked(time.Now())
		t.mu.Unlock()
	}
	return t.current.Load()
}

func (t *trust) lookLocked(now time.Time) {
	if now.Sub(t.looked) < lookEvery {
		return
	}
	t.looked = now
	// The stamp is taken first: what changes while the file is read is read again
	// the next time.
	seen := stampOf(t.file)
	if seen == t.seen {
		return
	}
	t.seen = seen
	pool, err := certs.Pool(t.file)
	if err != nil {
		t.log.Error("the new CA file of links cannot be used, the old one stays", "error", err)
		return
	}
	t.current.Store(pool)
	t.log.Info("CA file of links replaced", "file", t.file)
}

func stampOf(file string) stamp {
	info, err := os.Stat(file)
	if err != nil {
		return stamp{}
	}
	return stamp{changed: info.ModTime().UnixNano(), size: info.Size()}
}
