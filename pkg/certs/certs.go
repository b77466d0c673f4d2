// Package certs reads certificates from files: the pair that a server shows,
// which is read again when its files change, and what a client trusts and shows.
// It says in an operator's words what is wrong with a file and why a handshake
// failed. Keys and passwords are never in what it logs or returns.
package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
)

// Client returns how a client speaks TLS, 1.2 at least. It trusts what the CA
// file holds, or without one what the system trusts, and shows the certificate
// if there is one; then there is a key, too. All files are checked now. The
// certificate is read again for each handshake, so a new one needs no restart;
// the CA file is not.
func Client(caFile, certFile, keyFile string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile != "" {
		pool, err := Pool(caFile)
		if err != nil {
			return nil, err
		}
		config.RootCAs = pool
	}
	if certFile == "" && keyFile == "" {
		return config, nil
	}
	if _, err := load(certFile, keyFile); err != nil {
		return nil, err
	}
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return load(certFile, keyFile)
	}
	return config, nil
}

// Pool returns the certificates of a file in PEM form.
func Pool(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("CA file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("CA file %s: it holds no certificate in PEM form", file)
	}
	return pool, nil
}

// Check says what is wrong with the files of a certificate and its key: both
// have to be there.
func Check(certFile, keyFile string) error {
	_, err := load(certFile, keyFile)
	return err
}

// load reads a certificate, with its chain, and its key.
func load(certFile, keyFile string) (*tls.Certificate, error) {
	switch {
	case certFile == "":
		return nil, fmt.Errorf("key file %s: there is no certificate file that it belongs to", keyFile)
	case keyFile == "":
		return nil, fmt.Errorf("certificate file %s: there is no key file for it", certFile)
	}
	cert, err := os.ReadFile(certFile)
	if err != nil {
		return nil, fmt.Errorf("certificate file: %w", err)
	}
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	if !holds(cert, "CERTIFICATE") {
		return nil, fmt.Errorf("certificate file %s: it holds no certificate in PEM form", certFile)
	}
	if !holds(key, "PRIVATE KEY") {
		return nil, fmt.Errorf("key file %s: it holds no private key in PEM form", keyFile)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("certificate file %s and key file %s: %w", certFile, keyFile, err)
	}
	return &pair, nil
}

// holds says whether there is a block whose type ends so.
func holds(text []byte, kind string) bool {
	for block, rest := pem.Decode(bytes.TrimSpace(text)); block != nil; block, rest = pem.Decode(rest) {
		if strings.HasSuffix(block.Type, kind) {
			return true
		}
	}
	return false
}

// Explain says what a handshake or a connection failed for, if it was TLS; else
// it returns "".
func Explain(err error) string {
	var (
		unknown  x509.UnknownAuthorityError
		host     x509.HostnameError
		invalid  x509.CertificateInvalidError
		verify   *tls.CertificateVerificationError
		plain    tls.RecordHeaderError
		op       *net.OpError
		expected = func(what string) string { return "its certificate " + what }
	)
	switch {
	case errors.As(err, &unknown):
		return expected("is signed by nobody who is trusted here: name its CA file, or correct it")
	case errors.As(err, &host):
		return expected("is not for the host name by which it is called")
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return expected("has expired, or a clock is wrong")
	case errors.As(err, &invalid), errors.As(err, &verify):
		return expected("is not accepted")
	case errors.As(err, &plain):
		return "it does not speak TLS on this port"
	case errors.As(err, &op) && op.Op == "remote error":
		return "it ends the TLS handshake: it may want another client certificate, or another version of TLS"
	default:
		return ""
	}
}
