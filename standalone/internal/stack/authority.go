package stack

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/linkerhq/linker/pkg/link"
)

const (
	certificateYears = 10
	// renewBefore is how long before its end a certificate is made anew at a start.
	renewBefore = 180 * 24 * time.Hour
)

// authority signs the certificates with which the domains prove to each other who
// they are, where their link has no key. It keeps everything in one directory, its
// own key included, so that a domain that is added later gets a certificate, too.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// openAuthority reads the authority of a directory, or makes one. The names of its
// own files hold an underscore, which the name of no domain does.
func openAuthority(dir string) (*authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("directory for certificates of links: %w", err)
	}
	a := &authority{dir: dir}
	pair, err := tls.LoadX509KeyPair(a.file(), a.keyFile())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return a, a.create()
	case err != nil:
		return nil, fmt.Errorf("authority for links, %s and %s: %w; remove both to have new ones made", a.file(), a.keyFile(), err)
	case !lasts(pair.Leaf):
		return a, a.create()
	}
	key, is := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !is || !pair.Leaf.IsCA {
		return nil, fmt.Errorf("authority for links, %s and %s: expected a CA with an ECDSA key; remove both to have new ones made", a.file(), a.keyFile())
	}
	a.cert, a.key = pair.Leaf, key
	return a, nil
}

func (a *authority) file() string    { return filepath.Join(a.dir, "root_ca.crt") }
func (a *authority) keyFile() string { return filepath.Join(a.dir, "root_ca.key") }

// create makes the authority anew: what an older one signed is worth nothing then.
func (a *authority) create() error {
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "Linker, links between domains"},
		IsCA:    true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
		NotAfter: time.Now().AddDate(certificateYears, 0, 0),
	}
	var err error
	a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make an authority for links: %w", err)
	}
	a.cert = template // it signs itself
	a.cert, err = a.write(a.file(), a.keyFile(), template, a.key)
	return err
}

// certificates returns the files of a domain. They are made if they are not there,
// are near their end, or were signed by an earlier authority.
func (a *authority) certificates(domain string) (link.Certificates, error) {
	files := link.Certificates{
		CertFile: filepath.Join(a.dir, domain+".crt"), KeyFile: filepath.Join(a.dir, domain+".key"), CAFile: a.file(),
	}
	if pair, err := tls.LoadX509KeyPair(files.CertFile, files.KeyFile); err == nil && a.stands(pair.Leaf, domain) {
		return files, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return files, fmt.Errorf("make a certificate for the links of %s: %w", domain, err)
	}
	_, err = a.write(files.CertFile, files.KeyFile, &x509.Certificate{
		Subject: pkix.Name{CommonName: domain}, DNSNames: []string{domain},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		NotAfter: a.cert.NotAfter, // with a younger one nobody would trust it longer
	}, key)
	return files, err
}

// stands says whether a certificate can be used on.
func (a *authority) stands(cert *x509.Certificate, domain string) bool {
	return cert.CheckSignatureFrom(a.cert) == nil && cert.VerifyHostname(domain) == nil && lasts(cert)
}

func lasts(cert *x509.Certificate) bool { return time.Until(cert.NotAfter) > renewBefore }

// write signs a certificate and writes it, behind its key: without the right key a
// certificate is made anew.
func (a *authority) write(certFile, keyFile string, template *x509.Certificate, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make a certificate for links: %w", err)
	}
	template.SerialNumber, template.NotBefore = serial, time.Now().Add(-time.Hour) // clocks differ
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate for links: %w", err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate for links: %w", err)
	}
	if err := replaceFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600); err != nil {
		return nil, fmt.Errorf("write the key of a certificate: %w", err)
	}
	if err := replaceFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		return nil, fmt.Errorf("write a certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}
