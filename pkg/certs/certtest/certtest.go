// Package certtest makes certificates for tests, in files as operators have them.
package certtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Authority signs certificates.
type Authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	next int64 // the serial number of the next certificate
}

// NewAuthority returns an authority of the test's own.
func NewAuthority(t *testing.T) *Authority {
	t.Helper()
	a := &Authority{t: t, dir: t.TempDir(), key: newKey(t), next: 2}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority of a test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der := a.sign(template, template, &a.key.PublicKey)
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a.cert = cert
	writePEM(t, a.File(), "CERTIFICATE", der)
	return a
}

// File is the authority's own certificate, for clients to trust.
func (a *Authority) File() string { return filepath.Join(a.dir, "ca.pem") }

// Pool is the authority's own certificate, for servers to trust.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// Issue writes a certificate for 127.0.0.1 and localhost, for servers and
// clients, that ends then, and its key. It returns the serial number.
func (a *Authority) Issue(certFile, keyFile string, until time.Time) int64 {
	a.t.Helper()
	return a.write(certFile, keyFile, &x509.Certificate{
		Subject: pkix.Name{CommonName: "tester"}, NotAfter: until, ExtKeyUsage: both(),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
	})
}

// IssueTo writes a certificate for a name, that is good for a month, and its key. It is
// for servers and clients, unless usages say what it is for. It returns the serial number.
func (a *Authority) IssueTo(certFile, keyFile, name string, usages ...x509.ExtKeyUsage) int64 {
	a.t.Helper()
	if usages == nil {
		usages = both()
	}
	return a.write(certFile, keyFile, &x509.Certificate{
		NotAfter: time.Now().Add(30 * 24 * time.Hour), ExtKeyUsage: usages, DNSNames: []string{name},
	})
}

func both() []x509.ExtKeyUsage {
	return []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
}

// write completes a certificate, signs it and writes it with a key of its own.
func (a *Authority) write(certFile, keyFile string, template *x509.Certificate) int64 {
	a.t.Helper()
	key := newKey(a.t)
	template.SerialNumber, template.NotBefore, template.KeyUsage = big.NewInt(a.next), time.Now().Add(-time.Hour), x509.KeyUsageDigitalSignature
	a.next++
	writePEM(a.t, certFile, "CERTIFICATE", a.sign(template, a.cert, &key.PublicKey))
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	writePEM(a.t, keyFile, "PRIVATE KEY", der)
	return template.SerialNumber.Int64()
}

// Files returns the files of a certificate that is good for a month.
func (a *Authority) Files() (certFile, keyFile string) {
	a.t.Helper()
	dir := a.t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	a.Issue(certFile, keyFile, time.Now().Add(30*24*time.Hour))
	return certFile, keyFile
}

// Server returns the TLS of a server of this authority.
func (a *Authority) Server() *tls.Config {
	a.t.Helper()
	cert, err := tls.LoadX509KeyPair(a.Files())
	if err != nil {
		a.t.Fatal(err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}
}

func (a *Authority) sign(template, parent *x509.Certificate, key *ecdsa.PublicKey) []byte {
	a.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return der
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func writePEM(t *testing.T, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}
