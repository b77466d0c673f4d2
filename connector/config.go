package connector

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/connector/internal/gateway"
	"github.com/linkerhq/linker/pkg/broker/kafka"
	"github.com/linkerhq/linker/pkg/broker/nats"
	"github.com/linkerhq/linker/pkg/certs"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/link"
	"github.com/linkerhq/linker/pkg/presence/redis"
	"github.com/linkerhq/linker/pkg/trace"
	"github.com/linkerhq/linker/pkg/wire"
)

// Config is everything a connector can be told. Fields without a default are
// needed.
type Config struct {
	Domain string // the domain it belongs to
	Name   string // unique in the domain; default: connector- and 8 random hexadecimal digits
	Listen string // HOST:PORT of the websockets, default ":8088"; port 0 picks a free one
	Link   string // HOST:PORT of the links of neighbouring domains, default ":9089"; port 0 picks a free one
	HTTP   string // HOST:PORT of health and metrics, default ":8080"; port 0 picks a free one

	// TLSCert and TLSKey are files of the certificate and the key for wss, reread
	// when they change; both empty: ws.
	TLSCert, TLSKey string

	LinkTLS link.Certificates // proves to neighbouring domains who we are, on links without a key; zero: nothing does

	Kafka           kafka.Server
	KafkaGeneration uint32 // raised by an operator after the topic was made anew; default 1
	Lanes           int    // of the domain, the same for ever; default 24
	NATS            nats.Server
	Redis           redis.Server
	MetaURL         string
	MetaToken       string
	MetaCache       string // file of the last good snapshot, for a start without the meta server; empty: none

	// OtelEndpoint is the collector of OpenTelemetry that gets spans of a share of all
	// messages, http://HOST:PORT; empty: none does.
	OtelEndpoint string
	OtelRatio    float64 // that share, 0 to 1

	TraceEvents int // events of messages that are remembered, for those who ask where one is; 0: none

	FrameLimit     int      // bytes of one message of a client; default 64 KiB
	AllowedOrigins []string // hosts of pages that may connect, as patterns of path.Match; empty: any

	// What is let in at once, 0: any number. Of MaxSockets at most a tenth may be
	// without a login. An IPv6 address counts for its network of 64 bits.
	MaxSockets, MaxSocketsPerUser, MaxSocketsPerAddress int

	DrainFor    time.Duration // how long the end may take at most; default 25 s
	DrainSpread time.Duration // over which clients are sent away then, at most half of DrainFor; 0: all at once
}

// Deps is what the surrounding program gives. Every field but Ready is needed.
type Deps struct {
	Log     *slog.Logger
	Metrics *prometheus.Registry
	Ready   func() error // asked by GET /readyz, from many goroutines, once the connector is ready; nil: nothing more
}

const (
	defaultGeneration = 1
	defaultLanes      = 24
	defaultDrainFor   = 25 * time.Second
	// maxFrameLimit keeps every message, with all receivers of a group, within
	// one record of the log.
	maxFrameLimit = 128 << 10
)

func (c Config) withDefaults() Config {
	c.Name = cmp.Or(c.Name, "connector-"+randomHex(4))
	c.Listen = cmp.Or(c.Listen, ":8088")
	c.Link = cmp.Or(c.Link, ":9089")
	c.HTTP = cmp.Or(c.HTTP, ":8080")
	c.KafkaGeneration = cmp.Or(c.KafkaGeneration, defaultGeneration)
	c.Lanes = cmp.Or(c.Lanes, defaultLanes)
	c.FrameLimit = cmp.Or(c.FrameLimit, wire.DefaultFrameLimit)
	c.DrainFor = cmp.Or(c.DrainFor, defaultDrainFor)
	return c
}

// validate reports all mistakes together.
func (c Config) validate() error {
	var mistakes []error
	wrong := func(is bool, format string, args ...any) {
		if is {
			mistakes = append(mistakes, fmt.Errorf(format, args...))
		}
	}
	wrong(!ident.IsDomainName(c.Domain), "domain: %q, expected lower-case letters, digits and dashes", c.Domain)
	wrong(!ident.IsConnectorName(c.Name), "name: %q, expected lower-case letters, digits and dashes", c.Name)
	if c.TLSCert != "" || c.TLSKey != "" {
		err := certs.Check(c.TLSCert, c.TLSKey)
		wrong(err != nil, "TLS for clients: %w", err)
	}
	wrong(c.Lanes < 1, "lanes: %d, expected at least 1", c.Lanes)
	mistakes = append(mistakes, c.LinkTLS.Validate(), c.Kafka.Validate(), c.NATS.Validate(), c.Redis.Validate())
	wrong(c.MetaURL == "", "meta server URL: none given")
	wrong(c.FrameLimit < 1024 || c.FrameLimit > maxFrameLimit, "frame limit: %d bytes, expected 1024 to %d", c.FrameLimit, maxFrameLimit)
	for _, origin := range c.AllowedOrigins {
		_, err := path.Match(origin, "")
		wrong(origin == "" || err != nil, "allowed origin: %q, expected HOST, HOST:PORT or a pattern of them", origin)
	}
	wrong(c.MaxSockets < 0, "largest number of sockets: %d, expected no less than 0", c.MaxSockets)
	wrong(c.MaxSocketsPerUser < 0, "largest number of sockets of a user: %d, expected no less than 0", c.MaxSocketsPerUser)
	wrong(c.MaxSocketsPerAddress < 0, "largest number of sockets of an address: %d, expected no less than 0", c.MaxSocketsPerAddress)
	wrong(c.TraceEvents < 0, "events to remember: %d, expected no less than 0", c.TraceEvents)
	wrong(c.DrainFor < 0, "drain time: %s, expected no less than 0", c.DrainFor)
	wrong(c.DrainSpread < 0, "drain spread: %s, expected no less than 0", c.DrainSpread)
	return errors.Join(mistakes...)
}

// place is who the connector is in traces.
func (c Config) place() trace.Place {
	return trace.Place{Domain: c.Domain, Service: trace.Connector, Name: c.Name}
}

func (c Config) limits() gateway.Limits {
	return gateway.Limits{Sockets: c.MaxSockets, PerUser: c.MaxSocketsPerUser, PerAddress: c.MaxSocketsPerAddress}
}

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

func newIncarnation() ident.Incarnation {
	var i ident.Incarnation
	_, _ = rand.Read(i[:]) // never fails
	return i
}
