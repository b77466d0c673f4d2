package stack_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/connector"
	"github.com/linkerhq/linker/metaserver"
	"github.com/linkerhq/linker/pkg/broker/kafka"
	"github.com/linkerhq/linker/pkg/broker/nats"
	"github.com/linkerhq/linker/pkg/embedded"
	"github.com/linkerhq/linker/pkg/presence/redis"
	"github.com/linkerhq/linker/processor"
)

// TestSocketsSurviveAProcessorThatStopsAndItsSuccessor lets one processor give
// its lanes up while messages flow between open sockets, and another one take
// them: nothing may be lost, doubled or out of order, and nobody be announced as
// gone.
func TestSocketsSurviveAProcessorThatStopsAndItsSuccessor(t *testing.T) {
	t.Parallel()
	d := newDomain(t)
	stop := d.processor(t)
	url := d.connector(t)

	master := dial(t, url, "ANZ-123223", "app-id-343")
	alice := dial(t, url, "ANZ-1", "app-id-343")
	bob := dial(t, url, "ANZ-2", "app-id-343")
	for range 2 {
		master.expect(t, "USER_CONNECTED")
	}
	const phase = 300
	send := func(from int) {
		for n := from; n < from+phase; n++ {
			alice.send(t, fmt.Sprintf(`{"type":"MESSAGE","data":{"to":"ANZ-2","content":"%d"}}`, n))
		}
	}
	receive := func(from int) {
		for n := from; n < from+phase; n++ {
			if got := bob.expect(t, "MESSAGE").Data.Content; got != fmt.Sprint(n) {
				t.Fatalf("got message %s, want %d", got, n)
			}
		}
	}
	send(0)
	receive(0)
	send(phase)
	stop() // with some of them under way
	send(2 * phase)
	stop = d.processor(t)
	receive(phase)
	receive(2 * phase)
	send(3 * phase)
	receive(3 * phase)

	// The master hears of the next event only: nobody was thought to be away.
	carol := dial(t, url, "ANZ-3", "app-id-343")
	if got := master.expect(t, "USER_CONNECTED").Data.UserID; got != "ANZ-3" {
		t.Errorf("the master heard of %s, want ANZ-3", got)
	}
	carol.close()
	if got := master.expect(t, "USER_DISCONNECTED").Data.UserID; got != "ANZ-3" {
		t.Errorf("the master heard that %s has gone, want ANZ-3", got)
	}
	stop()
}

// domain is what a processor and a connector stand on.
type domain struct {
	dir   string
	log   *slog.Logger
	kafka *embedded.KafkaBroker
	nats  *embedded.NATSServer
	redis *embedded.RedisServer
	meta  string
}

const token = "a secret of this test"

func newDomain(t *testing.T) *domain {
	t.Helper()
	d := &domain{dir: t.TempDir(), log: slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))}
	var err error
	if d.kafka, err = embedded.Kafka("", 0, d.log); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.kafka.Close)
	if d.nats, err = embedded.NATS(0, d.log); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.nats.Close)
	if d.redis, err = embedded.Redis(0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.redis.Close)
	background(t, d.redis.Run)
	file := filepath.Join(d.dir, "network.yaml")
	write(t, file, metaserver.DefaultFile(1, 1))
	meta, err := metaserver.New(metaserver.Config{Addr: "127.0.0.1:0", File: file, Token: token, Log: d.log, Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	background(t, meta.Run)
	d.meta = "http://" + meta.Addr().String()
	return d
}

// processor starts one; stop ends it in good order.
func (d *domain) processor(t *testing.T) (stop func()) {
	t.Helper()
	p, err := processor.New(processor.Config{
		Domain: "domain-01", HTTP: "127.0.0.1:0", Kafka: kafka.Server{Brokers: []string{d.kafka.Addr()}}, Lanes: 2,
		NATS: nats.Server{URL: d.nats.URL()}, Redis: redis.Server{URL: d.redis.URL()}, MailboxURL: "file:" + filepath.Join(d.dir, "mailbox"), MetaURL: d.meta, MetaToken: token,
	}, processor.Deps{Log: d.log, Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	return background(t, p.Run)
}

func (d *domain) connector(t *testing.T) (url string) {
	t.Helper()
	c, err := connector.New(connector.Config{
		Domain: "domain-01", Listen: "127.0.0.1:0", Link: "127.0.0.1:0", HTTP: "127.0.0.1:0",
		Kafka: kafka.Server{Brokers: []string{d.kafka.Addr()}}, Lanes: 2,
		NATS: nats.Server{URL: d.nats.URL()}, Redis: redis.Server{URL: d.redis.URL()}, MetaURL: d.meta, MetaToken: token,
	}, connector.Deps{Log: d.log, Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	background(t, c.Run)
	waitReady(t, "http://"+c.HTTPAddr().String())
	return "ws://" + c.Addr().String() + "/ws"
}

// client is a websocket that speaks the base protocol.
type client struct{ conn *websocket.Conn }

type frame struct {
	Type string
	Data struct {
		Content         string
		UserID          string `json:"userId"`
		IsAuthenticated bool
	}
}

const patience = 15 * time.Second

func dial(t *testing.T, url, user, app string, features ...string) *client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, url, nil) //nolint:bodyclose // it has none after an upgrade
	if err != nil {
		t.Fatal(err)
	}
	conn.SetReadLimit(1 << 20)
	c := &client{conn}
	t.Cleanup(c.close)
	list := ""
	if len(features) > 0 {
		list = fmt.Sprintf(`,"features":["%s"]`, strings.Join(features, `","`))
	}
	c.send(t, fmt.Sprintf(`{"type":"AUTH_CLIENT","data":{"appId":%q,"userId":%q,"token":""%s}}`, app, user, list))
	if !c.expect(t, "AUTH_CLIENT_REPLY").Data.IsAuthenticated {
		t.Fatalf("%s was not let in", user)
	}
	return c
}

func (c *client) close() { _ = c.conn.CloseNow() }

func (c *client) send(t *testing.T, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := c.conn.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

func (c *client) expect(t *testing.T, kind string) frame {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, data, err := c.conn.Read(ctx)
	if err != nil {
		t.Fatalf("waiting for %s: %v", kind, err)
	}
	var f frame
	if err := json.Unmarshal(data, &f); err != nil || f.Type != kind {
		t.Fatalf("got %s, want %s", strings.TrimSpace(string(data)), kind)
	}
	return f
}
