// Package stack runs a network of domains in one process: the services of each
// domain and the meta server as they run in production, and beside them embedded
// brokers and stores that speak the real protocols on loopback. The services get
// URLs, and dialers that lead to the brokers through memory, and cannot tell.
//
// All domains share the data directory, the brokers, the meta server and the
// console; each has a connector, a processor and a mailbox of its own. Which
// domains there are is what the network file says, and one that is added to it
// while the stack runs is started.
package stack

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/metaserver"
	"github.com/linkerhq/linker/pkg/embedded"
	"github.com/linkerhq/linker/pkg/run"
	"github.com/linkerhq/linker/standalone/internal/console"
)

// Domain is the name of the first domain of a network that nobody has described.
const Domain = "domain-01"

const (
	// MaxRing is how many domains can be asked for by their number.
	MaxRing = 16
	// maxDomains is how many a described network may have in one process.
	maxDomains = 64

	lanes = 4
	// backlogBytes is half of what the embedded log retains of a lane: more than
	// that is not accepted.
	backlogBytes = embedded.RetentionBytes / 2
	// What may wait for the road to another domain: the defaults of a processor of
	// its own.
	linkRows  = 1_000_000
	linkBytes = 4 << 30
	// traceEvents is what a service remembers of messages: a quarter of what one that
	// runs alone does, since there may be many in one process.
	traceEvents = 32 << 10
)

// Config is what a person sets.
type Config struct {
	Data       string // directory of everything that lasts; made if need be
	Meta       string // YAML file of the network; empty: network.yaml in Data, written once
	Domains    int    // how many the network has, 1 to MaxRing; 0: as many as its file says, and one in a file that is written
	Host       string // interface to listen on; empty: all
	Ports      Ports
	FrameLimit int           // bytes; 0: the default of 64 KiB
	Origins    []string      // of pages that may connect; empty: any
	Waiting    Waiting       // in mailboxes
	DrainFor   time.Duration // 0: the default

	DrainSpread time.Duration // over which clients are sent away at the end; 0: all at once
	Log         *slog.Logger

	// MetaURL returns where the services of a domain reach the meta server, if
	// something stands between; nil: they reach it directly. Nobody asks there
	// before Run.
	MetaURL func(domain string) string
}

// Validate names every setting that cannot be used.
func (c Config) Validate() error {
	var domains error
	if c.Domains < 0 || c.Domains > MaxRing {
		domains = fmt.Errorf("--domains %d: expected 1 to %d; without it, a file of --meta may describe %d", c.Domains, MaxRing, maxDomains)
	}
	_, ports := c.Ports.of(min(max(c.Domains, 1), MaxRing))
	return errors.Join(domains, c.Ports.validate(), ports)
}

// Stack is a network of domains with everything that it needs.
type Stack struct {
	cfg       Config
	meta      string // the YAML file
	metaToken string // what services show to the meta server
	lock      *os.File
	parts     []part // in the order of starting
	authority *authority
	readiness readiness

	kafka    *embedded.KafkaBroker
	nats     *embedded.NATSServer
	redis    *embedded.RedisServer
	metaserv *metaserver.Server
	console  *console.Server

	mu      sync.Mutex
	domains []*domain // guarded by mu; the n-th domain at n-1; only ever grows
}

// New opens the data, starts the embedded brokers and binds every port. Nothing
// is served before Run.
func New(cfg Config) (*Stack, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Stack{cfg: cfg, metaToken: rand.Text()}
	err := s.open()
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// open is straight wiring: each part is given the addresses of those before it.
func (s *Stack) open() error {
	cfg, log := s.cfg, s.cfg.Log
	if err := s.openData(); err != nil {
		return err
	}
	var err error
	if s.kafka, err = embedded.Kafka(filepath.Join(cfg.Data, "kafka"), 0, log.With("service", "kafka")); err != nil {
		return err
	}
	if s.nats, err = embedded.NATS(0, log.With("service", "nats")); err != nil {
		return err
	}
	if s.redis, err = embedded.Redis(0); err != nil {
		return err
	}
	registry, err := newRegistry()
	if err != nil {
		return err
	}
	s.metaserv, err = metaserver.New(metaserver.Config{
		Addr: listenOn(cfg.Host, cfg.Ports.Meta), File: s.meta, Token: s.metaToken, Log: log.With("service", "metaserver"),
		Metrics: registry, Ready: s.readyz(),
	})
	if err != nil {
		return err
	}
	if err := s.openDomains(); err != nil {
		return err
	}
	s.console, err = console.New(listenOn(cfg.Host, cfg.Ports.Console), console.Config{
		Find: s.offered, Apps: console.NewNetwork(s.MetaURL()).Apps, Ready: s.readyz(), Log: log.With("service", "console"),
	})
	if err != nil {
		return err
	}
	s.parts = []part{
		{"kafka", s.kafka.Run},
		{"nats", s.nats.Run},
		{"redis", s.redis.Run},
		{"metaserver", s.metaserv.Run},
		{"domains", s.runDomains},
		{"readiness", s.watchReadiness},
		{"console", s.console.Run},
	}
	return nil
}

// openData makes the data directory and takes it for this process alone.
func (s *Stack) openData() error {
	if err := os.MkdirAll(s.cfg.Data, 0o750); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	var err error
	if s.lock, err = lockDirectory(s.cfg.Data); err != nil {
		return err
	}
	if s.authority, err = openAuthority(filepath.Join(s.cfg.Data, "links")); err != nil {
		return err
	}
	return s.writeNetwork()
}

func newRegistry() (*prometheus.Registry, error) {
	registry := prometheus.NewRegistry()
	return registry, run.RuntimeMetrics(registry)
}

// offered is what the console offers to connect to: the domains that run.
func (s *Stack) offered() []console.Domain {
	var list []console.Domain
	for _, d := range s.running() {
		list = append(list, console.Domain{Name: d.name, Port: portOf(d.connector.Addr()), Processor: d.place().Processor})
	}
	return list
}

// Run serves until ctx ends or a part fails, then stops the parts in reverse
// order, each after those that need it.
func (s *Stack) Run(ctx context.Context) error {
	defer s.closeStores()
	return runParts(ctx, s.parts)
}

// closeStores closes what Run's parts do not close themselves.
func (s *Stack) closeStores() {
	if s.redis != nil {
		s.redis.Close()
	}
	if s.nats != nil {
		s.nats.Close()
	}
	if s.kafka != nil {
		s.kafka.Close()
	}
	if s.lock != nil {
		unlockDirectory(s.lock)
	}
}

// Close releases a stack that is never run.
func (s *Stack) Close() {
	if s.console != nil {
		s.closing("console", s.console.Close())
	}
	for _, d := range s.running() {
		s.closing(d.name, d.close())
	}
	if s.metaserv != nil {
		s.closing("metaserver", s.metaserv.Close())
	}
	s.closeStores()
}

func (s *Stack) closing(what string, err error) {
	if err != nil {
		s.cfg.Log.Warn("close", "what", what, "error", err)
	}
}
