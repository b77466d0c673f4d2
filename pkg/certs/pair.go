package certs

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// lookEvery is how often the files are looked at, at most.
	lookEvery = time.Second
	// warnBefore is how long before the end of a certificate the warnings begin,
	// and warnEvery how often they come.
	warnBefore = 14 * 24 * time.Hour
	warnEvery  = 24 * time.Hour
)

// Pair is the certificate that a server shows, and its key. Its files are looked
// at when a handshake begins or the metrics are asked for, once a second at
// most: no goroutine is needed. If they have changed, the new pair is shown from
// then on; if that cannot be used, this is logged once and the old one stays.
type Pair struct {
	certFile, keyFile string       // static
	log               *slog.Logger // static

	current atomic.Pointer[tls.Certificate]

	mu     sync.Mutex // held while files are read; who finds it held goes on with what there is
	looked time.Time  // guarded by mu
	seen   stamp      // guarded by mu: of the files that were read last, good or not
	warned time.Time  // guarded by mu: when the end of the certificate was last warned of
}

// stamp changes when one of the files does.
type stamp struct{ cert, key fileStamp }

type fileStamp struct{ changed, size int64 } // nanoseconds since 1970, bytes; both 0: it cannot be looked at

// OpenPair reads a certificate, with its chain, and its key, both in PEM form.
func OpenPair(certFile, keyFile string, log *slog.Logger) (*Pair, error) {
	p := &Pair{certFile: certFile, keyFile: keyFile, log: log}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.looked, p.seen = time.Now(), p.stamp()
	cert, err := load(certFile, keyFile)
	if err != nil {
		return nil, err
	}
	p.current.Store(cert)
	p.warnLocked(p.looked)
	return p, nil
}

// Server returns how a server that shows the pair speaks TLS: 1.2 at least, and
// HTTP/1.1 above it, which is what websockets need.
func (p *Pair) Server() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return p.Certificate(), nil },
	}
}

// Certificate returns what is to be shown now. It never waits for a file that
// another call is reading.
func (p *Pair) Certificate() *tls.Certificate {
	if p.mu.TryLock() {
		p.lookLocked(time.Now())
		p.mu.Unlock()
	}
	return p.current.Load()
}

// Register registers the metrics of the pair; a registry takes those of one.
func (p *Pair) Register(r prometheus.Registerer) error {
	err := r.Register(prometheus.NewGaugeFunc(
		prometheus.GaugeOpts{Name: "linker_certs_expiry_timestamp_seconds", Help: "When the certificate that clients see ends, in seconds since 1970."},
		func() float64 { return float64(p.Certificate().Leaf.NotAfter.Unix()) },
	))
	if err != nil {
		return fmt.Errorf("register metrics of the certificate: %w", err)
	}
	return nil
}

func (p *Pair) lookLocked(now time.Time) {
	if now.Sub(p.looked) < lookEvery {
		return
	}
	p.looked = now
	// The stamp is taken first: what changes while the files are read is read
	// again the next time.
	if seen := p.stamp(); seen != p.seen {
		p.seen = seen
		cert, err := load(p.certFile, p.keyFile)
		switch {
		case err != nil:
			p.log.Error("the new certificate cannot be used, the old one stays", "error", err)
		case now.After(cert.Leaf.NotAfter) && now.Before(p.current.Load().Leaf.NotAfter):
			p.log.Error("the new certificate has expired, the old one stays", "expired", cert.Leaf.NotAfter)
		default:
			p.current.Store(cert)
			p.warned = time.Time{}
			p.log.Info("certificate replaced", "file", p.certFile, "expires", cert.Leaf.NotAfter)
		}
	}
	p.warnLocked(now)
}

func (p *Pair) warnLocked(now time.Time) {
	leaf := p.current.Load().Leaf
	if leaf.NotAfter.Sub(now) > warnBefore || !p.warned.IsZero() && now.Sub(p.warned) < warnEvery {
		return
	}
	p.warned = now
	if now.After(leaf.NotAfter) {
		p.log.Error("the certificate has expired: clients refuse it", "file", p.certFile, "expires", leaf.NotAfter)
		return
	}
	p.log.Warn("the certificate expires soon", "file", p.certFile, "expires", leaf.NotAfter)
}

func (p *Pair) stamp() stamp { return stamp{cert: stampOf(p.certFile), key: stampOf(p.keyFile)} }

func stampOf(file string) fileStamp {
	info, err := os.Stat(file)
	if err != nil {
		return fileStamp{}
	}
	return fileStamp{changed: info.ModTime().UnixNano(), size: info.Size()}
}
