package connector_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/connector"
	"github.com/linkerhq/linker/pkg/broker/kafka"
	"github.com/linkerhq/linker/pkg/broker/nats"
	"github.com/linkerhq/linker/pkg/delivery"
	"github.com/linkerhq/linker/pkg/embedded"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/polltest"
	"github.com/linkerhq/linker/pkg/presence/redis"
	"github.com/linkerhq/linker/pkg/topology"
	"github.com/linkerhq/linker/pkg/wire"
)

const lanes = 2

// domain is everything that a connector talks to: real brokers in this process,
// a meta server that knows one app, and owners of the lanes that do the least.
type domain struct {
	t     *testing.T
	cfg   connector.Config
	plane *nats.Conn

	mu       sync.Mutex
	sessions map[ident.UserID]*receiver
	proved   map[uint64]uint64 // by session
	logouts  map[uint64]bool
}

// receiver is a session as a lane knows it.
type receiver struct {
	session   uint64
	connector ident.Connector
	d         uint64
}

func newDomain(t *testing.T) *domain {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	broker, err := embedded.Kafka("", 0, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	server, err := embedded.NATS(0, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	store, err := embedded.Redis(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	network, err := topology.New(1, topology.Network{
		Domains: []topology.Domain{{Name: "domain-01", URLs: []string{"ws://127.0.0.1:1", "tcp://127.0.0.1:2"}}, {Name: "domain-02", URLs: []string{"tcp://127.0.0.1:3"}}},
		Links:   []topology.Link{neighbourLink()},
		Apps:    []topology.App{{Name: "ANZ", AppID: "app-1", Master: "ANZ-1"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	meta := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"1"`)
		if r.Header.Get("If-None-Match") == `"1"` {
			select {
			case <-r.Context().Done():
			case <-time.After(time.Second):
			}
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_ = json.NewEncoder(w).Encode(network)
	}))
	t.Cleanup(meta.Close)
	d := &domain{
		t: t, sessions: make(map[ident.UserID]*receiver), proved: make(map[uint64]uint64), logouts: make(map[uint64]bool),
		cfg: connector.Config{
			Domain: "domain-01", Name: "c-1", Listen: "127.0.0.1:0", HTTP: "127.0.0.1:0", Link: "127.0.0.1:0", Lanes: lanes,
			Kafka: kafka.Server{Brokers: []string{broker.Addr()}}, NATS: nats.Server{URL: server.URL()}, Redis: redis.Server{URL: store.URL()}, MetaURL: meta.URL, MetaToken: "token",
		},
	}
	d.serve(log)
	return d
}

// serve owns the lanes until the end of the test.
func (d *domain) serve(log *slog.Logger) {
	d.t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(d.t.Context()))
	cfg := kafka.Config{Server: d.cfg.Kafka, Domain: d.cfg.Domain, Lanes: lanes, Log: log, Metrics: prometheus.NewRegistry()}
	if err := kafka.EnsureTopics(ctx, cfg); err != nil {
		d.t.Fatal(err)
	}
	var err error
	d.plane, err = nats.Connect(nats.Config{Server: d.cfg.NATS, Log: log, Metrics: prometheus.NewRegistry()})
	if err != nil {
		d.t.Fatal(err)
	}
	group, err := kafka.NewGroup(cfg, d.own)
	if err != nil {
		d.t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() { _ = group.Run(ctx) })
	for lane := range lanes {
		if _, err := d.plane.Subscribe(delivery.LaneSubject(d.cfg.Domain, lane), d.answer); err != nil {
			d.t.Fatal(err)
		}
		running.Go(func() { d.announce(ctx, lane) })
	}
	d.t.Cleanup(func() {
		cancel()
		running.Wait()
		d.plane.Close()
	})
}

func (d *domain) announce(ctx context.Context, lane int) {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		a := delivery.Announcement{Lane: lane, Epoch: envelope.Position{Generation: 1, Offset: 1}}
		_ = d.plane.Publish(delivery.EpochSubject(d.cfg.Domain), a.Append(nil))
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (d *domain) own(ctx context.Context, lane *kafka.Lane) error {
	return lane.Read(ctx, max(lane.Committed(), 0), func(records []kafka.Record) error {
		for _, r := range records {
			e, err := envelope.Decode(r.Value)
			if err != nil {
				return err
			}
			d.record(lane.Number(), r.Offset, &e)
		}
		return lane.Commit(ctx, records[len(records)-1].Offset+1)
	})
}

// record does what a lane does, as long as nothing goes wrong.
func (d *domain) record(lane int, offset int64, e *envelope.Envelope) {
	d.mu.Lock()
	defer d.mu.Unlock()
	pos := envelope.Position{Generation: 1, Offset: offset}
	item := delivery.Item{ID: e.ID, Pos: pos, Frame: e.Frame}
	to := d.sessions[e.User()]
	switch e.Kind {
	case envelope.KindLogin:
		to = &receiver{session: e.Session, connector: e.Connector}
		d.sessions[e.User()] = to
		item.Kind = delivery.KindLoggedIn
	case envelope.KindLogout:
		delete(d.sessions, e.User())
		d.logouts[e.Session] = true
		return
	case envelope.KindFetch:
		item.Kind, item.Token, item.Frame = delivery.KindFrame, e.Request, wire.AppendFetchComplete(nil, 0)
	case envelope.KindClose:
		item.Kind = delivery.KindClose
	default:
		item.Kind = delivery.KindFrame
	}
	if to == nil {
		return
	}
	target := delivery.Target{Session: to.session, User: e.User()}
	if item.Kind != delivery.KindLoggedIn {
		to.d++
		target.D = to.d
	}
	item.Targets = []delivery.Target{target}
	b := delivery.Batch{Lane: lane, Epoch: envelope.Position{Generation: 1, Offset: 1}, Items: []delivery.Item{item}}
	if err := d.plane.Publish(delivery.ConnectorSubject(d.cfg.Domain, to.connector, lane), b.Append(nil)); err != nil {
		d.t.Errorf("deliver: %v", err)
	}
}

func (d *domain) answer(data []byte) {
	a, err := delivery.DecodeAnswers(data)
	if err != nil {
		d.t.Errorf("answers: %v", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range a.Progress {
		d.proved[p.Session] = p.Proved
	}
}

// has waits until what the lanes know is as wanted.
func (d *domain) has(what string, want func() bool) {
	d.t.Helper()
	eventually(d.t, what, func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return want()
	})
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	polltest.Within(t, 20*time.Second, what, ok)
}

// start runs a connector and waits until it is ready. stop ends it and returns
// what Run returned.
func (d *domain) start() (c *connector.Connector, stop func() error) {
	d.t.Helper()
	c, err := connector.New(d.cfg, connector.Deps{Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
	if err != nil {
		d.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(d.t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	d.t.Cleanup(func() { _ = stop() })
	if !eventuallyReady(d.t, c) {
		d.t.FailNow()
	}
	return c, stop
}

func eventuallyReady(t *testing.T, c *connector.Connector) bool {
	t.Helper()
	last := ""
	deadline := time.Now().Add(20 * time.Second)
	for time.Now().Before(deadline) {
		status, body := get(t, c, "/readyz")
		if status == http.StatusOK {
			return true
		}
		last = body
		time.Sleep(5 * time.Millisecond)
	}
	t.Errorf("never ready: %s", last)
	return false
}

func get(t *testing.T, c *connector.Connector, path string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+c.HTTPAddr().String()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

type client struct {
	*websocket.Conn
	t *testing.T
}

func (d *domain) login(c *connector.Connector, user string) *client {
	d.t.Helper()
	ws, response, err := websocket.Dial(d.t.Context(), "ws://"+c.Addr().String()+"/ws", nil)
	if err != nil {
		d.t.Fatal(err)
	}
	if response.Body != nil {
		_ = response.Body.Close()
	}
	d.t.Cleanup(func() { _ = ws.CloseNow() })
	k := &client{ws, d.t}
	k.send(`{"type":"AUTH_CLIENT","data":{"appId":"app-1","userId":"` + user + `","features":["accept"]}}`)
	k.want(`"isAuthenticated":true`)
	return k
}

func (c *client) send(text string) {
	c.t.Helper()
	if err := c.Write(c.t.Context(), websocket.MessageText, []byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) want(parts ...string) {
	c.t.Helper()
	_, b, err := c.Read(c.t.Context())
	if err != nil {
		c.t.Fatalf("want %s: %v", parts, err)
	}
	for _, part := range parts {
		if !strings.Contains(string(b), part) {
			c.t.Fatalf("got %s, want %s", b, part)
		}
	}
}

func TestMessagesGoFromSocketToLaneToSocket(t *testing.T) {
	t.Parallel()
	d := newDomain(t)
	c, _ := d.start()
	sender, receiver := d.login(c, "ANZ-1"), d.login(c, "ANZ-2")
	for n := range 100 {
		sender.send(fmt.Sprintf(`{"type":"MESSAGE","data":{"to":"ANZ-2","content":"%d"},"reference":"r%d"}`, n, n))
	}
	for n := range 100 {
		sender.want("MESSAGE_ACCEPTED", fmt.Sprintf(`"reference":"r%d"`, n))
		receiver.want(fmt.Sprintf(`{"type":"MESSAGE","data":{"from":"ANZ-1","content":"%d"},"reference":"r%d","id":"`, n, n))
	}
	d.mu.Lock()
	session := d.sessions["ANZ-2"].session
	d.mu.Unlock()
	go func() { _, _, _ = receiver.Read(context.WithoutCancel(t.Context())) }() // answers the last ping
	d.has("everything is proved", func() bool { return d.proved[session] == 100 })

	sender.send(`{"type":"FETCH_MISSING_MESSAGES_REQUEST"}`)
	sender.want(`{"type":"FETCH_MISSING_MESSAGES_COMPLETE","data":{"leftMissingCount":0}}`)
	sender.send(`{"type":"FETCH_MISSING_MESSAGES_REQUEST"}`)
	sender.want("FETCH_MISSING_MESSAGES_COMPLETE")
	sender.send(`{"type":"CLOSE_CONNECTION","data":{"userId":"ANZ-2"}}`)
	d.has("the closed session is logged out", func() bool { return d.logouts[session] })

	if status, body := get(t, c, "/metrics"); status != http.StatusOK || !strings.Contains(body, `linker_session_frames_total{direction="in",type="MESSAGE"} 100`) {
		t.Errorf("metrics: %d", status)
	}
	if status, _ := get(t, c, "/healthz"); status != http.StatusOK {
		t.Errorf("healthz: %d", status)
	}
}

func TestTheEndDrains(t *testing.T) {
	t.Parallel()
	d := newDomain(t)
	c, stop := d.start()
	one := d.login(c, "ANZ-1")
	d.mu.Lock()
	session := d.sessions["ANZ-1"].session
	d.mu.Unlock()
	ended := make(chan error, 1)
	go func() { ended <- stop() }()
	one.want(`{"type":"GO_AWAY","data":{"reason":"shutting_down"`)
	_, _, err := one.Read(t.Context())
	var ce websocket.CloseError
	if !errors.As(err, &ce) || ce.Code != websocket.StatusServiceRestart {
		t.Errorf("got %v", err)
	}
	if err := <-ended; err != nil {
		t.Errorf("Run returned %v", err)
	}
	d.has("the session is logged out", func() bool { return d.logouts[session] })

	// The lease is free again: a successor of the same name is ready at once.
	began := time.Now()
	_, stop = d.start()
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("the successor was ready after %s", took)
	}
	began = time.Now()
	if err := stop(); err != nil {
		t.Errorf("Run returned %v", err)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("without sessions the end took %s", took)
	}
}

func TestAConnectorThatWasDeclaredDeadBeginsANewLife(t *testing.T) {
	t.Parallel()
	d := newDomain(t)
	c, stop := d.start()
	user := d.login(c, "ANZ-1")
	registry, err := redis.Open(redis.Config{Server: d.cfg.Redis, Domain: d.cfg.Domain, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer registry.Close()
	lease := func() ident.Connector {
		list, err := registry.Leases(t.Context())
		if err != nil || len(list) > 1 {
			t.Fatalf("leases %v, %v", list, err)
		}
		if len(list) == 0 {
			return ident.Connector{}
		}
		return list[0]
	}
	first := lease()
	eventually(t, "it is declared dead", func() bool {
		if err := registry.Release(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		buried, _, err := registry.Bury(t.Context(), first)
		return err == nil && buried // it may have renewed its lease in between
	})
	user.want(`{"type":"GO_AWAY","data":{"reason":"shutting_down"`)
	_, _, err = user.Read(t.Context())
	var ce websocket.CloseError
	if !errors.As(err, &ce) || ce.Code != websocket.StatusServiceRestart {
		t.Errorf("got %v", err)
	}
	eventually(t, "another incarnation holds the lease", func() bool { return lease().Name == first.Name && lease() != first })
	if !eventuallyReady(t, c) {
		t.FailNow()
	}
	sender, receiver := d.login(c, "ANZ-1"), d.login(c, "ANZ-2")
	sender.send(`{"type":"MESSAGE","data":{"to":"ANZ-2","content":"again"}}`)
	receiver.want(`{"type":"MESSAGE","data":{"from":"ANZ-1","content":"again"}`)
	if _, body := get(t, c, "/metrics"); !strings.Contains(body, "linker_connector_lives_total 2") {
		t.Error("the second life is not counted")
	}
	if err := stop(); err != nil {
		t.Errorf("Run returned %v", err)
	}
}

func TestTwoProcessesOfOneNameDoNotRunTogether(t *testing.T) {
	t.Parallel()
	d := newDomain(t)
	_, _ = d.start()
	second, err := connector.New(d.cfg, connector.Deps{Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "another process holds the lease of this connector name") {
		t.Errorf("got %v", err)
	}
}

func TestATakenPortIsNamed(t *testing.T) {
	t.Parallel()
	cfg := connector.Config{Domain: "d", Kafka: kafka.Server{Brokers: []string{"127.0.0.1:1"}}, NATS: nats.Server{URL: "nats://127.0.0.1:1"}, Redis: redis.Server{URL: "redis://127.0.0.1:1"}, MetaURL: "http://127.0.0.1:1", Listen: "127.0.0.1:0", HTTP: "127.0.0.1:0", Link: "127.0.0.1:0"}
	deps := connector.Deps{Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()}
	first, err := connector.New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	for _, change := range []func(*connector.Config) string{
		func(c *connector.Config) string { c.Listen = first.Addr().String(); return c.Listen },
		func(c *connector.Config) string { c.HTTP = first.HTTPAddr().String(); return c.HTTP },
	} {
		changed := cfg
		addr := change(&changed)
		if _, err := connector.New(changed, deps); err == nil || !strings.Contains(err.Error(), addr) {
			t.Errorf("%s: got %v", addr, err)
		}
	}
}

func TestAllMistakesOfAConfigurationAreReported(t *testing.T) {
	t.Parallel()
	_, err := connector.New(connector.Config{Domain: "UPPER", Name: "-", Lanes: -1, FrameLimit: 1, AllowedOrigins: []string{"a.example", "["}, DrainFor: -1}, connector.Deps{})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, part := range []string{"domain:", "name:", "lanes:", "no broker address", "URL of NATS", "URL of Redis", "meta server URL:", "frame limit:", "allowed origin:", "drain time:"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in %v", part, err)
		}
	}
}
