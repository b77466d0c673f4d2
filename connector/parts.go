package connector

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/connector/internal/downlink"
	"github.com/linkerhq/linker/connector/internal/gateway"
	"github.com/linkerhq/linker/connector/internal/lease"
	"github.com/linkerhq/linker/connector/internal/linkport"
	"github.com/linkerhq/linker/connector/internal/roster"
	"github.com/linkerhq/linker/connector/internal/uplink"
	"github.com/linkerhq/linker/pkg/broker/kafka"
	"github.com/linkerhq/linker/pkg/broker/nats"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/presence/redis"
	"github.com/linkerhq/linker/pkg/topology/feed"
	"github.com/linkerhq/linker/pkg/trace"
)

// parts is what a running connector consists of. This file is the only one that
// knows all of them.
type parts struct {
	topics   atomic.Bool // they are there
	producer *kafka.Producer
	nats     *nats.Conn
	redis    *redis.Registry
	feed     *feed.Feed
	uplink   *uplink.Uplink
	downlink *downlink.Downlink
	gateway  *gateway.Gateway
	trace    *trace.Log
	witness  *trace.Witness
	lease    *lease.Lease
}

// assemble makes all parts, for one life. It is straight wiring: each one needs
// those before.
func (c *Connector) assemble(metrics prometheus.Registerer) (p *parts, err error) {
	cfg, log := c.cfg, c.deps.Log
	self := ident.Connector{Name: cfg.Name, Incarnation: newIncarnation()}
	p = &parts{trace: c.trace}
	defer func() {
		if err != nil {
			p.disconnect()
			err = fmt.Errorf("assemble connector: %w", err)
		}
	}()
	if p.producer, err = kafka.NewProducer(c.kafka(metrics)); err != nil {
		return p, err
	}
	if p.feed, err = feed.New(feed.Config{Domain: cfg.Domain, URL: cfg.MetaURL, Token: cfg.MetaToken, Cache: cfg.MetaCache, Log: log, Metrics: metrics}); err != nil {
		return p, err
	}
	if p.redis, err = redis.Open(redis.Config{Server: cfg.Redis, Domain: cfg.Domain, Log: log}); err != nil {
		return p, err
	}
	if p.nats, err = nats.Connect(nats.Config{Server: cfg.NATS, Name: cfg.Name, Log: log, Metrics: metrics}); err != nil {
		return p, err
	}
	sessions := roster.New(cfg.Lanes)
	p.downlink, err = downlink.New(downlink.Config{
		Domain: cfg.Domain, Connector: self, Lanes: cfg.Lanes, Log: log, Metrics: metrics,
		OwnerChanged: func(lane int) {
			for _, s := range sessions.Lane(lane) {
				s.Identity().Sender.OwnerChanged()
			}
		},
		Trace: p.trace,
	}, nats.Plane{Conn: p.nats}, sessions)
	if err != nil {
		return p, err
	}
	p.uplink, err = uplink.New(
		uplink.Config{Domain: cfg.Domain, Connector: self, Generation: cfg.KafkaGeneration, Lanes: cfg.Lanes, Log: log, Metrics: metrics},
		uplink.Deps{Log: p.producer, Plane: p.nats, Lanes: p.downlink, Network: p.feed, Trace: p.trace},
	)
	if err != nil {
		return p, err
	}
	p.gateway, err = gateway.New(
		gateway.Config{Domain: cfg.Domain, Lanes: cfg.Lanes, FrameLimit: cfg.FrameLimit, AllowedOrigins: cfg.AllowedOrigins, Limits: cfg.limits(), Log: log, Metrics: metrics},
		gateway.Deps{Network: p.feed, Roster: sessions, Uplink: p.uplink, Proofs: p.downlink},
	)
	if err != nil {
		return p, err
	}
	p.witness, err = trace.NewWitness(trace.Config{Place: cfg.place(), Log: p.trace, Plane: nats.Plane{Conn: p.nats}, Logger: log, Metrics: metrics})
	if err != nil {
		return p, err
	}
	p.lease, err = lease.New(lease.Config{
		Connector: self, Taken: redis.ErrTaken, Buried: redis.ErrBuried, Log: log, Metrics: metrics,
	}, p.redis, sessions)
	return p, err
}

func (c *Connector) kafka(metrics prometheus.Registerer) kafka.Config {
	return kafka.Config{
		Server: c.cfg.Kafka, Domain: c.cfg.Domain, Lanes: c.cfg.Lanes, Generation: c.cfg.KafkaGeneration,
		Log: c.deps.Log, Metrics: metrics,
	}
}

// runners are the parts that work by themselves, by what they do.
func (p *parts) runners(c *Connector) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"write to the log":    p.producer.Run,
		"follow the network":  p.feed.Run,
		"bring deliveries":    p.downlink.Run,
		"answer questions":    p.witness.Run,
		"keep the lease":      p.lease.Run,
		"repeat logouts":      func(ctx context.Context) error { p.uplink.Run(ctx); return nil },
		"look after sessions": func(ctx context.Context) error { p.gateway.Run(ctx); return nil },
		"prepare the log":     func(ctx context.Context) error { return p.prepare(ctx, c.kafka(nil)) },
	}
}

func (p *parts) prepare(ctx context.Context, cfg kafka.Config) error {
	err := kafka.EnsureTopics(ctx, cfg)
	if ctx.Err() != nil {
		return nil
	}
	p.topics.Store(err == nil)
	return err
}

// ready says what is missing for a client to log in and send.
func (p *parts) ready() error {
	switch {
	case p.feed.Current() == nil:
		return errors.New("the network is not known yet")
	case !p.feed.Describes():
		return errors.New("the network has no domain of our name")
	case !p.topics.Load():
		return errors.New("the topics of the log are not there yet")
	case !p.nats.Connected():
		return errors.New("the live plane is not connected")
	}
	if err := p.producer.Healthy(); err != nil {
		return err
	}
	if err := p.lease.Ready(); err != nil {
		return err
	}
	return p.downlink.Ready()
}

// links is what neighbouring domains bring their messages to.
func (p *parts) links() linkport.Deps {
	return linkport.Deps{
		Log: p.producer, Plane: nats.Plane{Conn: p.nats}, Lanes: p.downlink, Network: p.feed, Trace: p.trace, Asked: p.witness.Asked,
		Unavailable: kafka.ErrUnavailable, TooLarge: kafka.ErrTooLarge,
	}
}

// close gives back the lease and ends all connections. Nothing may run any more.
func (p *parts) close(ctx context.Context) {
	p.lease.Release(ctx)
	p.disconnect()
}

func (p *parts) disconnect() {
	if p.nats != nil {
		p.nats.Close()
	}
	if p.redis != nil {
		_ = p.redis.Close() // nothing is under way that could be lost
	}
}
