// Package processor owns the lanes of a domain: it decides for each message
// whether it goes to sockets of this domain or into the mailbox, serves fetches,
// and tells masters who comes and goes. Any number of processors share a domain's
// lanes.
package processor

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/linkerhq/linker/pkg/broker/kafka"
	"github.com/linkerhq/linker/pkg/broker/nats"
	"github.com/linkerhq/linker/pkg/link"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/pkg/mailbox/mongo"
	"github.com/linkerhq/linker/pkg/mailbox/sqlite"
	"github.com/linkerhq/linker/pkg/presence/redis"
	"github.com/linkerhq/linker/pkg/run"
	"github.com/linkerhq/linker/pkg/topology/feed"
	"github.com/linkerhq/linker/pkg/trace"
	"github.com/linkerhq/linker/pkg/trace/otel"
	"github.com/linkerhq/linker/processor/internal/custody"
	"github.com/linkerhq/linker/processor/internal/deadletters"
	"github.com/linkerhq/linker/processor/internal/lane"
	"github.com/linkerhq/linker/processor/internal/roads"
	"github.com/linkerhq/linker/processor/internal/roll"
	"github.com/linkerhq/linker/processor/internal/tracing"
	"github.com/linkerhq/linker/processor/internal/whereabouts"
)

// Config is what an operator sets. All processors of a domain have the same but
// for HTTP.
type Config struct {
	Domain string
	HTTP   string // where /healthz, /readyz, /metrics and /v1/… are served, HOST:PORT; default ":8081"

	HTTPToken string // who shows it may see /v1/… from other machines too; empty: nobody

	LinkTLS link.Certificates // proves to neighbouring domains who we are, on links without a key; zero: nothing does

	Kafka           kafka.Server
	KafkaGeneration uint32 // raised when the log's topic was made anew; default 1
	Lanes           int    // partitions of the domain's log; never changes; default 24
	NATS            nats.Server
	Redis           redis.Server
	MetaURL         string
	MetaToken       string
	MetaCache       string // where the last good description of the network is kept; empty: nowhere

	MailboxURL   string        // mongodb://…, mongodb+srv://…, file:DIR or file:DIR?shared=true
	QuotaRows    int           // rows that may wait for one user; 0: no limit
	QuotaBytes   int64         // bytes that may wait for one user; 0: no limit
	ExpireAfter  time.Duration // how long a message waits at most; 0: for ever
	LinkRows     int           // records that may wait for one other domain; 0: no limit
	LinkBytes    int64         // bytes that may wait for one other domain; 0: no limit
	DeadRetain   time.Duration // how long a dead letter is kept; 0: for ever
	OtelEndpoint string        // collector of OpenTelemetry that gets spans of a share of all messages, http://HOST:PORT; empty: none does
	OtelRatio    float64       // that share, 0 to 1
	TraceEvents  int           // events of messages that are remembered, for those who ask where one is; 0: none
	BacklogBytes int64         // of one lane, from which on connectors accept nothing for it; 0: half of what the log retains
}

// Deps are what the process around a processor lends it. Every field but Ready is
// needed.
type Deps struct {
	Log     *slog.Logger
	Metrics *prometheus.Registry
	Ready   func() error // asked by GET /readyz, from many goroutines, once the processor is ready; nil: nothing more
}

// Processor is one processor.
type Processor struct {
	cfg      Config
	log      *slog.Logger
	ops      *run.Ops
	store    mailbox.Store
	plane    *nats.Conn
	registry *redis.Registry
	feed     *feed.Feed
	producer *kafka.Producer
	roll     *roll.Roll
	roads    *roads.Roads
	kafka    kafka.Config
	lanes    *lane.Metrics
	letters  *deadletters.Letters
	trace    *trace.Log
	witness  *trace.Witness
	spans    *otel.Spans // nil: nobody wants any
	group    atomic.Pointer[kafka.Group]
}

// New opens what the processor works with and binds its HTTP port. It starts
// nothing.
func New(cfg Config, deps Deps) (*Processor, error) {
	cfg.HTTP = cmp.Or(cfg.HTTP, ":8081")
	cfg.KafkaGeneration = cmp.Or(cfg.KafkaGeneration, 1)
	cfg.Lanes = cmp.Or(cfg.Lanes, 24)
	p := &Processor{cfg: cfg, log: deps.Log.With("service", "processor", "domain", cfg.Domain)}
	err := p.open(deps)
	if err != nil {
		p.release()
		return nil, err
	}
	return p, nil
}

func (p *Processor) open(deps Deps) error {
	cfg := p.cfg
	var err error
	if p.ops, err = run.NewOps(cfg.HTTP, deps.Metrics, p.log, p.readyz(deps.Ready)); err != nil {
		return err
	}
	store, err := openMailbox(cfg, p.log)
	if err != nil {
		return err // store is not nil: it holds no adapter
	}
	p.store = store
	p.kafka = kafka.Config{
		Server: cfg.Kafka, Domain: cfg.Domain, Lanes: cfg.Lanes, Generation: cfg.KafkaGeneration,
		Log: p.log, Metrics: deps.Metrics,
	}
	if p.producer, err = kafka.NewProducer(p.kafka); err != nil {
		return err
	}
	if p.plane, err = nats.Connect(nats.Config{Server: cfg.NATS, Name: "processor." + cfg.Domain, Log: p.log, Metrics: deps.Metrics}); err != nil {
		return err
	}
	if p.registry, err = redis.Open(redis.Config{Server: cfg.Redis, Domain: cfg.Domain, Log: p.log}); err != nil {
		return err
	}
	if p.feed, err = feed.New(feed.Config{Domain: cfg.Domain, URL: cfg.MetaURL, Token: cfg.MetaToken, Cache: cfg.MetaCache, Log: p.log, Metrics: deps.Metrics}); err != nil {
		return err
	}
	if p.roll, err = roll.New(p.registry, p.log, deps.Metrics); err != nil {
		return err
	}
	if p.roads, err = roads.New(roads.Config{
		Domain: cfg.Domain, Certificates: cfg.LinkTLS, Network: p.feed, Plane: nats.Plane{Conn: p.plane}, Log: p.log, Metrics: deps.Metrics,
	}); err != nil {
		return err
	}
	p.ops.RevealProfiles(cfg.HTTPToken)
	states := p.roads.Handler()
	for _, path := range []string{"/v1/links", "/v1/routes", "/v1/network"} {
		p.ops.Reveal("GET "+path, states, cfg.HTTPToken)
	}
	if p.letters, err = deadletters.New(deadletters.Config{
		Domain: cfg.Domain, Lanes: cfg.Lanes, Generation: cfg.KafkaGeneration, Retain: cfg.DeadRetain,
		Store: p.store, Log: p.producer, Network: p.feed, Logger: p.log, Metrics: deps.Metrics,
	}); err != nil {
		return err
	}
	for path, handler := range p.letters.Handlers() {
		p.ops.Reveal(path, handler, cfg.HTTPToken)
	}
	if err := p.openTrace(deps); err != nil {
		return err
	}
	p.ops.Reveal("GET /v1/messages/{id}", tracing.Handler(p.witness, p.feed), cfg.HTTPToken)
	p.ops.Reveal("GET /v1/users", whereabouts.Handler(cfg.Domain, p.registry, p.log), cfg.HTTPToken)
	p.lanes, err = lane.NewMetrics(deps.Metrics)
	return err
}

// openTrace prepares to say what becomes of messages, and to ask others.
func (p *Processor) openTrace(deps Deps) error {
	cfg := p.cfg
	place := trace.Place{Domain: cfg.Domain, Service: trace.Processor, Name: newName()}
	p.log.Info("processor is called so in traces of messages", "name", place.Name)
	metrics, err := otel.NewMetrics(deps.Metrics)
	if err != nil {
		return err
	}
	var sink trace.Sink
	if cfg.OtelEndpoint != "" {
		if p.spans, err = otel.New(otel.Config{Endpoint: cfg.OtelEndpoint, Ratio: cfg.OtelRatio, Place: place, Log: p.log, Metrics: metrics}); err != nil {
			return err
		}
		sink = p.spans
	}
	p.trace = trace.NewLog(place, cfg.TraceEvents, sink)
	p.witness, err = trace.NewWitness(trace.Config{
		Place: place, Log: p.trace, Plane: nats.Plane{Conn: p.plane}, Neighbours: p.roads, Expected: p.connectors, Logger: p.log, Metrics: deps.Metrics,
		Rows: &tracing.Rows{Domain: cfg.Domain, Generation: cfg.KafkaGeneration, Lanes: cfg.Lanes, Store: p.store, Network: p.feed},
	})
	return err
}

// newName tells processors apart in traces; nobody gives them names.
func newName() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return "processor-" + hex.EncodeToString(b[:])
}

// connectors are the names of those whose leases stand.
func (p *Processor) connectors() []string {
	var names []string
	alive, _ := p.roll.Alive()
	for _, c := range alive {
		names = append(names, c.Name)
	}
	return names
}

// shared stands at the end of a mailbox URL whose directory several processors of
// this machine and of one domain have open.
const shared = "?shared=true"

// openMailbox opens the store that the scheme of the URL names. The URL may carry
// a password: it is not repeated in errors.
func openMailbox(cfg Config, log *slog.Logger) (mailbox.Store, error) {
	scheme, rest, _ := strings.Cut(cfg.MailboxURL, ":")
	switch {
	case scheme == "file" && strings.TrimSuffix(rest, shared) != "":
		if dir, several := strings.CutSuffix(rest, shared); several {
			return sqlite.OpenShared(dir, log)
		}
		return sqlite.Open(rest, log)
	case scheme == "mongodb" || scheme == "mongodb+srv":
		return mongo.Open(mongo.Config{URL: cfg.MailboxURL, Database: "linker_" + cfg.Domain, Log: log})
	default:
		return nil, errors.New("mailbox URL: expected mongodb://…, mongodb+srv://…, file:DIR or file:DIR?shared=true")
	}
}

// release closes what New had opened when it failed, or what Run leaves.
func (p *Processor) release() {
	if p.plane != nil {
		p.plane.Close()
	}
	if p.registry != nil {
		p.closing("registry", p.registry.Close())
	}
	if p.store != nil {
		p.closing("mailbox", p.store.Close())
	}
	if p.ops != nil {
		_ = p.ops.Close() // closed already if Run has served it
	}
}

func (p *Processor) closing(what string, err error) {
	if err != nil {
		p.log.Warn("close", "what", what, "error", err)
	}
}

// Close releases a processor that is never run.
func (p *Processor) Close() { p.release() }

// Addr is the address of the HTTP port.
func (p *Processor) Addr() net.Addr { return p.ops.Addr() }

// Ready says why the processor cannot serve lanes; nil means that it can.
func (p *Processor) Ready() error {
	switch {
	case p.feed.Current() == nil:
		return errors.New("the description of the network has not come yet")
	case !p.feed.Describes():
		return fmt.Errorf("the network has no domain %s", p.cfg.Domain)
	case !p.plane.Connected():
		return errors.New("no connection to NATS")
	case p.group.Load() == nil || !p.group.Load().Member():
		return errors.New("not yet a member of the group that shares the lanes")
	}
	if err := p.producer.Healthy(); err != nil {
		return fmt.Errorf("kafka: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := p.store.Ping(ctx); err != nil {
		return fmt.Errorf("mailbox: %w", err)
	}
	return nil
}

// readyz returns what the HTTP port says: the processor first, then what it was told
// to ask in addition, else which links are missing.
func (p *Processor) readyz(more func() error) func() error {
	return func() error {
		err := p.Ready()
		switch {
		case err != nil:
			return err
		case more != nil:
			return more()
		}
		var down []string
		for _, l := range p.roads.Links() {
			if l.State == roads.StateDown {
				down = append(down, p.cfg.Domain+"–"+l.Neighbour)
			}
		}
		if len(down) > 0 {
			return run.Remark{Text: "links not up: " + strings.Join(down, ", ")}
		}
		return nil
	}
}

// Run serves lanes until ctx ends and gives them up in good order. It is called
// once.
func (p *Processor) Run(ctx context.Context) error {
	defer p.release()
	// What lanes need must outlive them: it stops when they have been given up.
	base, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, base := errgroup.WithContext(base)
	group.Go(func() error { return p.ops.Run(base) })
	group.Go(func() error { return p.feed.Run(base) })
	group.Go(func() error { return p.producer.Run(base) })
	group.Go(func() error { return p.roll.Run(base) })
	group.Go(func() error { return p.roads.Run(base) })
	group.Go(func() error { return p.witness.Run(base) })
	if p.spans != nil {
		group.Go(func() error { return p.spans.Run(base) })
	}
	group.Go(func() error {
		defer stop()
		// A part that fails ends the lanes as well.
		lanes, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(base, cancel)()
		return p.serveLanes(lanes)
	})
	err := group.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// serveLanes joins the group that shares the lanes, and the one of which one member keeps
// the dead letters, once it can work.
func (p *Processor) serveLanes(ctx context.Context) error {
	if err := kafka.EnsureTopics(ctx, p.kafka); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("prepare the log: %w", err)
	}
	backlog, err := p.backlog(ctx)
	if err != nil || !p.awaitNetwork(ctx) {
		return nil // ctx has ended
	}
	deps := lane.Deps{
		Domain: p.cfg.Domain, Lanes: p.cfg.Lanes, Generation: p.cfg.KafkaGeneration, BacklogBytes: backlog,
		Limits: p.limits(), Trace: p.trace, Poison: lane.NewPoison(), Complaints: new(lane.Complaints),
		Producer: p.producer, Plane: p.plane, Store: p.store, Connectors: p.roll, Network: p.feed, Roads: p.roads, Metrics: p.lanes, Log: p.log,
	}
	group, err := kafka.NewGroup(p.kafka, func(ctx context.Context, l *kafka.Lane) error {
		return lane.Own(ctx, deps, l)
	})
	if err != nil {
		return err
	}
	dead, err := kafka.NewDeadGroup(p.kafka, func(ctx context.Context, topic *kafka.Lane) error {
		return p.letters.Keep(ctx, topic)
	})
	if err != nil {
		return err
	}
	p.group.Store(group)
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() error { return group.Run(ctx) })
	both.Go(func() error { return dead.Run(ctx) })
	return both.Wait()
}

// limits are those of one lane. What may wait for another domain is shared by the lanes.
func (p *Processor) limits() custody.Limits {
	share := func(of int64) int64 { return (of + int64(p.cfg.Lanes) - 1) / int64(p.cfg.Lanes) }
	return custody.Limits{
		Rows: p.cfg.QuotaRows, Bytes: p.cfg.QuotaBytes, Expire: p.cfg.ExpireAfter,
		RoadRows: int(share(int64(p.cfg.LinkRows))), RoadBytes: share(p.cfg.LinkBytes),
	}
}

// Links returns the state of each link of the domain.
func (p *Processor) Links() []roads.LinkState { return p.roads.Links() }

// backlog is from how many bytes on nothing is accepted for a lane.
func (p *Processor) backlog(ctx context.Context) (int64, error) {
	if p.cfg.BacklogBytes > 0 {
		return p.cfg.BacklogBytes, nil
	}
	retained, err := kafka.Retention(ctx, p.kafka)
	return max(retained/2, 0), err
}

// awaitNetwork waits for the first description of the network.
func (p *Processor) awaitNetwork(ctx context.Context) bool {
	changed, stop := p.feed.Subscribe()
	defer stop()
	for p.feed.Current() == nil {
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
	return true
}
