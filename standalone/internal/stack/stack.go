// Package stack runs a whole domain in one process: the three services as they
// run in production, and beside them embedded brokers and stores that speak the
// real protocols on loopback. The services get URLs and cannot tell.
package stack

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/connector"
	"github.com/linkerhq/linker/metaserver"
	"github.com/linkerhq/linker/pkg/embedded"
	"github.com/linkerhq/linker/pkg/run"
	"github.com/linkerhq/linker/processor"
	"github.com/linkerhq/linker/standalone/internal/console"
)

// Domain is the name of the one domain.
const Domain = "domain-01"

const (
	lanes = 4
	// backlogBytes is half of what the embedded log retains of a lane: more than
	// that is not accepted.
	backlogBytes = embedded.RetentionBytes / 2
	// What may wait in a mailbox: the defaults of a processor of its own.
	quotaRows   = 100_000
	quotaBytes  = 256 << 20
	expireAfter = 30 * 24 * time.Hour
	// readyEvery is how often Ready asks.
	readyEvery = 20 * time.Millisecond
)

// Ports are where the domain listens; 0 picks a free one.
type Ports struct {
	Websocket     int
	Link          int
	ConnectorHTTP int
	ProcessorHTTP int
	Meta          int
	Console       int
}

// DefaultPorts are those that the documentation names.
func DefaultPorts() Ports {
	return Ports{Websocket: 8088, Link: 9089, ConnectorHTTP: 8080, ProcessorHTTP: 8081, Meta: 9000, Console: 4400}
}

// Config is what a person sets.
type Config struct {
	Data       string // directory of everything that lasts; made if need be
	Meta       string // YAML file of the network; empty: network.yaml in Data, written once
	Host       string // interface to listen on; empty: all
	Ports      Ports
	FrameLimit int           // bytes; 0: the default of 64 KiB
	Origins    []string      // of pages that may connect; empty: any
	DrainFor   time.Duration // 0: the default
	Log        *slog.Logger
}

// Stack is one domain with everything that it needs.
type Stack struct {
	cfg   Config
	meta  string // the YAML file
	lock  *os.File
	parts []part // in the order of starting

	kafka     *embedded.KafkaBroker
	nats      *embedded.NATSServer
	redis     *embedded.RedisServer
	metaserv  *metaserver.Server
	processor *processor.Processor
	connector *connector.Connector
	console   *console.Server
}

// part is something that runs until its context ends.
type part struct {
	name string
	run  func(context.Context) error
}

// New opens the data, starts the embedded brokers and binds every port. Nothing
// is served before Run.
func New(cfg Config) (*Stack, error) {
	s := &Stack{cfg: cfg}
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
	token := rand.Text()
	registry, err := newRegistry()
	if err != nil {
		return err
	}
	s.metaserv, err = metaserver.New(metaserver.Config{
		Addr: s.addr(cfg.Ports.Meta), File: s.meta, Token: token, Log: log.With("service", "metaserver"), Metrics: registry,
	})
	if err != nil {
		return err
	}
	if !s.metaserv.Serves(Domain) {
		return fmt.Errorf("meta file %s does not describe %s, the domain of this process", s.meta, Domain)
	}
	metaURL := "http://" + loopback(s.metaserv.Addr())
	if registry, err = newRegistry(); err != nil {
		return err
	}
	proc := processor.Config{
		Domain: Domain, HTTP: s.addr(cfg.Ports.ProcessorHTTP), Lanes: lanes,
		MailboxURL: "file:" + filepath.Join(cfg.Data, "mailbox"), MetaURL: metaURL, MetaToken: token,
		MetaCache: filepath.Join(cfg.Data, "processor-network.json"), BacklogBytes: backlogBytes,
		QuotaRows: quotaRows, QuotaBytes: quotaBytes, ExpireAfter: expireAfter,
	}
	proc.Kafka.Brokers, proc.NATS.URL, proc.Redis.URL = []string{s.kafka.Addr()}, s.nats.URL(), s.redis.URL()
	if s.processor, err = processor.New(proc, processor.Deps{Log: log, Metrics: registry}); err != nil {
		return err
	}
	if registry, err = newRegistry(); err != nil {
		return err
	}
	conn := connector.Config{
		Domain: Domain, Listen: s.addr(cfg.Ports.Websocket), Link: s.addr(cfg.Ports.Link), HTTP: s.addr(cfg.Ports.ConnectorHTTP), Lanes: lanes,
		MetaURL: metaURL, MetaToken: token, MetaCache: filepath.Join(cfg.Data, "connector-network.json"),
		FrameLimit: cfg.FrameLimit, AllowedOrigins: cfg.Origins, DrainFor: cfg.DrainFor,
	}
	conn.Kafka, conn.NATS, conn.Redis = proc.Kafka, proc.NATS, proc.Redis
	if s.connector, err = connector.New(conn, connector.Deps{Log: log.With("service", "connector"), Metrics: registry}); err != nil {
		return err
	}
	s.console, err = console.New(s.addr(cfg.Ports.Console), console.Config{
		Domains: []console.Domain{{Name: Domain, Port: port(s.connector.Addr())}},
		Apps:    console.NewNetwork(metaURL).Apps, Log: log.With("service", "console"),
	})
	if err != nil {
		return err
	}
	s.parts = []part{
		{"kafka", s.kafka.Run},
		{"nats", s.nats.Run},
		{"redis", s.redis.Run},
		{"metaserver", s.metaserv.Run},
		{"processor", s.processor.Run},
		{"connector", s.connector.Run},
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
	s.meta = s.cfg.Meta
	if s.meta != "" {
		return nil
	}
	s.meta = filepath.Join(s.cfg.Data, "network.yaml")
	file, err := os.OpenFile(s.meta, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if errors.Is(err, fs.ErrExist) {
		return nil // the operator's
	}
	if err != nil {
		return fmt.Errorf("write the description of the network: %w", err)
	}
	_, err = file.Write(s.defaultNetwork())
	return errors.Join(err, file.Close())
}

// defaultNetwork is the meta server's example with the ports of this run, where
// they are fixed.
func (s *Stack) defaultNetwork() []byte {
	return metaserver.DefaultFile(portOr(s.cfg.Ports.Link, 9089), portOr(s.cfg.Ports.Websocket, 8088))
}

func portOr(port, standard int) int {
	if port == 0 {
		return standard
	}
	return port
}

func newRegistry() (*prometheus.Registry, error) {
	registry := prometheus.NewRegistry()
	return registry, run.RuntimeMetrics(registry)
}

func (s *Stack) addr(port int) string { return net.JoinHostPort(s.cfg.Host, strconv.Itoa(port)) }

func port(a net.Addr) int {
	_, p, err := net.SplitHostPort(a.String())
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(p)
	if err != nil {
		return 0
	}
	return n
}

// loopback is how this machine reaches an address that it listens on.
func loopback(a net.Addr) string {
	host, p, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, p)
}

// Endpoint is one place where the stack listens.
type Endpoint struct{ Name, URL string }

// Endpoints lists where what listens.
func (s *Stack) Endpoints() []Endpoint {
	return []Endpoint{
		{"websocket", s.WebsocketURL()},
		{"link", "tcp://" + loopback(s.connector.LinkAddr())},
		{"connector", s.ConnectorURL()},
		{"processor", s.ProcessorURL()},
		{"meta server", s.MetaURL()},
		{"console", s.ConsoleURL()},
	}
}

// WebsocketURL is where clients connect.
func (s *Stack) WebsocketURL() string { return "ws://" + loopback(s.connector.Addr()) + "/ws" }

// ConnectorURL is the connector's health and metrics.
func (s *Stack) ConnectorURL() string { return "http://" + loopback(s.connector.HTTPAddr()) }

// ProcessorURL is the processor's health and metrics.
func (s *Stack) ProcessorURL() string { return "http://" + loopback(s.processor.Addr()) }

// MetaURL is the meta server.
func (s *Stack) MetaURL() string { return "http://" + loopback(s.metaserv.Addr()) }

// ConsoleURL is the page for people.
func (s *Stack) ConsoleURL() string { return "http://" + loopback(s.console.Addr()) + "/" }

// NetworkFile is the YAML file that describes the network.
func (s *Stack) NetworkFile() string { return s.meta }

// Ready returns when a client can log in and send, or when ctx ends.
func (s *Stack) Ready(ctx context.Context) error {
	tick := time.NewTicker(readyEvery)
	defer tick.Stop()
	for {
		if s.ready(ctx) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *Stack) ready(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.ConnectorURL()+"/readyz", nil)
	if err != nil {
		return false
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	_ = res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// Run serves until ctx ends or a part fails, then stops the parts in reverse
// order, each after those that need it.
func (s *Stack) Run(ctx context.Context) error {
	defer s.closeStores()
	failed := make(chan error, len(s.parts))
	var running []*runner
	for _, p := range s.parts {
		running = append(running, start(context.WithoutCancel(ctx), p, failed))
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	for i := len(running) - 1; i >= 0; i-- {
		err = errors.Join(err, running[i].stop())
	}
	return err
}

// runner is a part that has been started.
type runner struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when the part has ended
	err    error         // readable once done is closed
}

func start(ctx context.Context, p part, failed chan<- error) *runner {
	ctx, cancel := context.WithCancel(ctx)
	r := &runner{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		err := p.run(ctx)
		if ctx.Err() == nil {
			failed <- fmt.Errorf("%s has ended: %w", p.name, errors.Join(err, errEnded))
			return
		}
		r.err = err
	}()
	return r
}

var errEnded = errors.New("it should run until it is told to stop")

func (r *runner) stop() error {
	r.cancel()
	<-r.done
	return r.err
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
	closing := func(what string, err error) {
		if err != nil {
			s.cfg.Log.Warn("close", "what", what, "error", err)
		}
	}
	if s.console != nil {
		closing("console", s.console.Close())
	}
	if s.connector != nil {
		closing("connector", s.connector.Close())
	}
	if s.processor != nil {
		s.processor.Close()
	}
	if s.metaserv != nil {
		closing("metaserver", s.metaserv.Close())
	}
	s.closeStores()
}

// Validate names every port that cannot be one.
func (p Ports) Validate() error {
	var mistakes []error
	for _, c := range []struct {
		flag string
		port int
	}{
		{"websocket-port", p.Websocket},
		{"link-port", p.Link},
		{"connector-http-port", p.ConnectorHTTP},
		{"processor-http-port", p.ProcessorHTTP},
		{"meta-port", p.Meta},
		{"console-port", p.Console},
	} {
		if c.port < 0 || c.port > 65535 {
			mistakes = append(mistakes, fmt.Errorf("--%s %d: expected 0 to 65535", c.flag, c.port))
		}
	}
	return errors.Join(mistakes...)
}
