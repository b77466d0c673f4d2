package link

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"fmt"

	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/internal/bin"
)

const (
	// version of what is said over TLS.
	version = 1
	// exporter names the keying material of a TLS connection that proofs are bound
	// to: who stands in the middle has another one on each side.
	exporter = "EXPORTER-linker-link"

	clientLabel = "linker link client"
	serverLabel = "linker link server"
)

// hello is what the client says first.
type hello struct {
	version  uint64
	from, to string // the client's domain, and the one that it looks for
	proof    Proof
	mac      []byte // if the proof is the key; else empty
}

// welcome is the server's answer, if everything is right.
type welcome struct{ mac []byte }

func (hello) message()   {}
func (welcome) message() {}

func appendHello(b []byte, h hello) []byte {
	b = binary.AppendUvarint(b, h.version)
	b = bin.AppendString(b, h.from)
	b = bin.AppendString(b, h.to)
	b = append(b, byte(h.proof))
	return bin.AppendString(b, h.mac)
}

// decodeHello reads a hello. Of another version it reads no more than that.
func decodeHello(body []byte) (hello, error) {
	r := bin.NewReader(body)
	h := hello{version: r.Uvarint()}
	if h.version != version {
		if h.version == 0 {
			return hello{}, bin.ErrMalformed
		}
		return h, nil
	}
	h.from, h.to, h.proof, h.mac = r.String(), r.String(), Proof(r.Byte()), r.Bytes()
	if err := r.Close(); err != nil {
		return hello{}, err
	}
	for _, domain := range []string{h.from, h.to} {
		if !ident.IsDomainName(domain) {
			return hello{}, fmt.Errorf("domain: %.80q, expected lower-case letters, digits and dashes", domain)
		}
	}
	if err := checkMAC(h.proof, h.mac); err != nil {
		return hello{}, err
	}
	return h, nil
}

func decodeWelcome(body []byte) (welcome, error) {
	r := bin.NewReader(body)
	w := welcome{mac: r.Bytes()}
	return w, r.Close()
}

// checkMAC says what is wrong with the length of what came along with a proof.
func checkMAC(p Proof, mac []byte) error {
	want := 0
	if p == ByKey {
		want = sha256.Size
	}
	if len(mac) != want {
		return fmt.Errorf("proof by %s: %d bytes, expected %d", p, len(mac), want)
	}
	return nil
}

// sign is what a side proves its knowledge of the key with, on this TLS connection
// only.
func sign(key, label, client, server string, state *tls.ConnectionState) ([]byte, error) {
	material, err := state.ExportKeyingMaterial(exporter, nil, 32)
	if err != nil {
		return nil, fmt.Errorf("export keying material: %w", err)
	}
	h := hmac.New(sha256.New, []byte(key))
	text := bin.AppendString(nil, label)
	text = bin.AppendString(text, client)
	text = bin.AppendString(text, server)
	_, _ = h.Write(bin.AppendString(text, material)) // never fails
	return h.Sum(nil), nil
}
