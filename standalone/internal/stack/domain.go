package stack

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/linkerhq/linker/connector"
	"github.com/linkerhq/linker/processor"
)

// domain is the services of one domain.
type domain struct {
	name      string
	processor *processor.Processor
	connector *connector.Connector
}

// openDomain binds the ports of the n-th domain. It starts nothing.
func (s *Stack) openDomain(name string, n int) (*domain, error) {
	ports, err := s.cfg.Ports.of(n)
	if err != nil {
		return nil, err
	}
	dir, err := s.directoryOf(name)
	if err != nil {
		return nil, err
	}
	certificates, err := s.authority.certificates(name)
	if err != nil {
		return nil, err
	}
	cfg, metaURL := s.cfg, s.MetaURL()
	if cfg.MetaURL != nil {
		metaURL = cfg.MetaURL(name)
	}
	waiting := cfg.Waiting.limits()
	proc := processor.Config{
		Domain: name, HTTP: listenOn(cfg.Host, ports.ProcessorHTTP), Lanes: lanes, LinkTLS: certificates,
		MailboxURL: "file:" + filepath.Join(dir, "mailbox"), MetaURL: metaURL, MetaToken: s.metaToken,
		MetaCache: filepath.Join(dir, "processor-network.json"), BacklogBytes: backlogBytes,
		QuotaRows: waiting.QuotaRows, QuotaBytes: waiting.QuotaBytes, ExpireAfter: waiting.ExpireAfter, DeadRetain: waiting.DeadRetain,
		LinkRows: linkRows, LinkBytes: linkBytes, TraceEvents: traceEvents,
	}
	proc.Kafka.Brokers, proc.NATS.URL, proc.Redis.URL = []string{s.kafka.Addr()}, s.nats.URL(), s.redis.URL()
	proc.Kafka.Dial, proc.NATS.Dial = s.kafka.Dial, s.nats.Dial // the same protocol without the detour over the network
	registry, err := newRegistry()
	if err != nil {
		return nil, err
	}
	d := &domain{name: name}
	if d.processor, err = processor.New(proc, processor.Deps{Log: cfg.Log, Metrics: registry, Ready: s.started}); err != nil {
		return nil, err
	}
	if registry, err = newRegistry(); err != nil {
		d.processor.Close()
		return nil, err
	}
	conn := connector.Config{
		Domain: name, Listen: listenOn(cfg.Host, ports.Websocket), Link: listenOn(cfg.Host, ports.Link), HTTP: listenOn(cfg.Host, ports.ConnectorHTTP),
		Lanes: lanes, LinkTLS: certificates, MetaURL: metaURL, MetaToken: s.metaToken, MetaCache: filepath.Join(dir, "connector-network.json"),
		FrameLimit: cfg.FrameLimit, AllowedOrigins: cfg.Origins, DrainFor: cfg.DrainFor, TraceEvents: traceEvents, DrainSpread: cfg.DrainSpread,
	}
	conn.Kafka, conn.NATS, conn.Redis = proc.Kafka, proc.NATS, proc.Redis
	d.connector, err = connector.New(conn, connector.Deps{
		Log: cfg.Log.With("service", "connector", "domain", name), Metrics: registry, Ready: s.started,
	})
	if err != nil {
		d.processor.Close()
		return nil, err
	}
	return d, nil
}

// directoryOf is where a domain keeps its own. That of domain-01 is the data
// directory itself, whatever place it has in the network: it was the only domain
// once, and its mailbox must never become another's.
func (s *Stack) directoryOf(name string) (string, error) {
	if name == Domain {
		return s.cfg.Data, nil
	}
	if slices.Contains([]string{"kafka", "links", "lock", "mailbox"}, name) {
		name += ".domain" // the data directory has something of that name
	}
	dir := filepath.Join(s.cfg.Data, name)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return "", fmt.Errorf("data directory of a domain: %w", err)
	}
	return dir, nil
}

// run serves until ctx ends; then the connector drains, before its processor gives
// up the lanes.
func (d *domain) run(ctx context.Context) error {
	err := runParts(ctx, []part{{"processor", d.processor.Run}, {"connector", d.connector.Run}})
	if err != nil {
		return fmt.Errorf("%s: %w", d.name, err)
	}
	return nil
}

// close releases a domain that is never run.
func (d *domain) close() error {
	d.processor.Close()
	return d.connector.Close()
}

// ready says why no client of the domain can log in and send.
func (d *domain) ready() error {
	if err := d.processor.Ready(); err != nil {
		return err
	}
	return d.connector.Ready()
}
