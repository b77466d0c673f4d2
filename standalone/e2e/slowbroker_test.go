package e2e

import (
	"context"
	"log/slog"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/embedded"
)

// slowServers are the brokers of a domain, in this process, each behind a proxy.
type slowServers struct{ kafka, nats, redis *proxy }

// newSlowServers runs them until the test ends, and returns where they are found.
func newSlowServers(t *testing.T) (slowServers, servers) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	s := slowServers{newProxy(t), newProxy(t), newProxy(t)}
	kafka, err := embedded.KafkaBehind(s.kafka.addr(), "", 0, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(kafka.Close)
	s.kafka.forward(kafka.Addr())
	nats, err := embedded.NATS(0, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nats.Close)
	s.nats.forward(nats.Addr())
	redis, err := embedded.Redis(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(redis.Close)
	s.redis.forward(redis.Addr())
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- redis.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	mailbox := url.URL{Scheme: "file", Opaque: filepath.Join(t.TempDir(), "mailbox"), RawQuery: "shared=true"}
	return s, servers{
		kafka: s.kafka.addr(), nats: "nats://" + s.nats.addr(), redis: "redis://" + s.redis.addr(), mongo: mailbox.String(),
	}
}

// Servers that take 300 ms for every answer, let little through, or say nothing for
// a while under load: nothing is lost, nothing comes twice through one
// connection or out of order, nobody is taken for gone, and messages flow again
// when the servers do. As long as they answer, lanes stay where they are.
func TestSlowServersCostTimeAndNothingElse(t *testing.T) {
	ofStandalone(t)
	t.Parallel()
	slow, on := newSlowServers(t)
	c, err := newCluster(t.TempDir(), on, setup{network: loadNetwork()})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range c.all("console") {
		c.remove(m)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the domain ended with %v", err)
		}
	})
	awaitCluster(t, c)
	l := startLoad(t, c)
	l.flows(t, time.Now(), healLimit)
	members := append(c.all("connector"), c.all("processor")...)
	began := map[*member]int{}
	for _, m := range members {
		began[m] = m.memory(t)
	}
	generations := func() (n float64) {
		for _, m := range c.all("processor") {
			n += m.metric(t, "linker_kafka_generations_total")
		}
		return n
	}

	before := generations()
	for _, p := range []*proxy{slow.redis, slow.nats, slow.kafka} {
		p.Delay(150 * time.Millisecond)
		l.flows(t, time.Now(), healLimit)
		p.heal()
	}
	if n := generations() - before; judged() && n > 0 {
		t.Errorf("lanes changed hands %.0f times while every server answered within 300 ms", n)
	}
	for name, p := range map[string]*proxy{"redis": slow.redis, "nats": slow.nats, "kafka": slow.kafka} {
		for what, fault := range map[string]func(){"silent": p.Freeze, "slow": func() { p.Throttle(10_000) }} {
			fault()
			time.Sleep(2 * time.Second) // the fault itself
			p.heal()
			back := time.Now()
			t.Logf("%s was %s for 2 s: messages flow after %v", name, what, l.flows(t, back, healLimit).Round(time.Millisecond))
		}
	}
	const most = 128 << 20
	for _, m := range members {
		if grown := m.memory(t) - began[m]; judged() && grown > most {
			t.Errorf("%s has grown by %d MiB", m.program, grown>>20)
		}
	}
	l.finish(t)
}
