package deadletters_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/broker/kafka"
	"github.com/linkerhq/linker/pkg/embedded"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/pkg/mailbox/sqlite"
	"github.com/linkerhq/linker/pkg/topology"
	"github.com/linkerhq/linker/processor/internal/deadletters"
)

const (
	lanes   = 8
	content = "what nobody else may read"
)

// network is a network of two domains: are at home in d, A-100 to A-199 in e,
// and of app B nobody knows.
type network struct{ *topology.Snapshot }

func (n network) Current() *topology.Snapshot { return n.Snapshot }

func newNetwork(t *testing.T) network {
	t.Helper()
	s, err := topology.New(1, topology.Network{
		Domains:       []topology.Domain{{Name: "d", URLs: []string{"ws://127.0.0.1:1", "tcp://127.0.0.1:2"}}, {Name: "e", URLs: []string{"ws://127.0.0.1:3", "tcp://127.0.0.1:4"}}},
		Links:         []topology.Link{{N1: "d", N2: "e", Key: "0123456789abcdef0123456789abcdef"}},
		Apps:          []topology.App{{Name: "A", AppID: "a", Master: "A-0"}},
		Distributions: []topology.Distribution{{DomainName: "d", To: 99}, {DomainName: "e", From: 100, To: 199}},
	})
	must(t, err)
	return network{s}
}

// domain is a log and a store on their own.
type domain struct {
	t        *testing.T
	kafka    kafka.Config
	store    *sqlite.Store
	producer *kafka.Producer
}

func newDomain(t *testing.T) *domain {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	broker, err := embedded.Kafka("", 0, log)
	must(t, err)
	t.Cleanup(broker.Close)
	d := &domain{t: t, store: newStore(t)}
	d.kafka = kafka.Config{Server: kafka.Server{Brokers: []string{broker.Addr()}}, Domain: "d", Lanes: lanes, Generation: 1, Log: log, Metrics: prometheus.NewRegistry()}
	must(t, kafka.EnsureTopics(t.Context(), d.kafka))
	d.producer, err = kafka.NewProducer(d.kafka)
	must(t, err)
	d.begin(d.producer.Run)
	return d
}

func newStore(t *testing.T) *sqlite.Store {
	t.Helper()
	store, err := sqlite.Open(t.TempDir(), slog.New(slog.DiscardHandler))
	must(t, err)
	t.Cleanup(func() { must(t, store.Close()) })
	return store
}

// begin runs something until the test ends, or until the returned function is called.
func (d *domain) begin(run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(d.t.Context()))
	var running sync.WaitGroup
	running.Go(func() {
		if err := run(ctx); err != nil {
			d.t.Error(err)
		}
	})
	stop = func() {
		cancel()
		running.Wait()
	}
	d.t.Cleanup(stop)
	return stop
}

// letters returns the letters of a processor of the domain; nothing keeps them yet.
func (d *domain) letters(change func(*deadletters.Config)) (*deadletters.Letters, *prometheus.Registry) {
	d.t.Helper()
	cfg := deadletters.Config{
		Domain: "d", Lanes: lanes, Generation: 1, Store: d.store, Network: newNetwork(d.t), Logger: slog.New(slog.DiscardHandler),
	}
	if d.producer != nil {
		cfg.Log = d.producer
	}
	if change != nil {
		change(&cfg)
	}
	registry := prometheus.NewRegistry()
	cfg.Metrics = registry
	letters, err := deadletters.New(cfg)
	must(d.t, err)
	return letters, registry
}

// keep lets a processor take its part in keeping the letters.
func (d *domain) keep(letters *deadletters.Letters) (stop func()) {
	d.t.Helper()
	group, err := kafka.NewDeadGroup(d.kafka, func(ctx context.Context, topic *kafka.Lane) error { return letters.Keep(ctx, topic) })
	must(d.t, err)
	return d.begin(group.Run)
}

// records follows everything that is written to the lanes.
func (d *domain) records() <-chan written {
	d.t.Helper()
	records := make(chan written, 1000)
	cfg := d.kafka
	cfg.Metrics = prometheus.NewRegistry()
	group, err := kafka.NewGroup(cfg, func(ctx context.Context, lane *kafka.Lane) error {
		err := lane.Read(ctx, 0, func(list []kafka.Record) error {
			for _, r := range list {
				e, err := envelope.Decode(r.Value)
				if err != nil {
					return err
				}
				records <- written{lane.Number(), string(r.Key), e}
			}
			return nil
		})
		if ctx.Err() != nil {
			return nil
		}
		return err
	})
	must(d.t, err)
	d.begin(group.Run)
	return records
}

type written struct {
	lane int
	key  string
	envelope.Envelope
}

// bury writes a dead letter to the topic, as a lane does.
func (d *domain) bury(e envelope.Envelope, reason string) {
	d.t.Helper()
	must(d.t, d.producer.Dead(d.t.Context(), string(e.User()), e.Append(nil), kafka.Report{Reason: reason, Lane: 3, LaneOffset: kafka.Unknown}))
}

// message is one that has come through another domain, with everything that belongs to a
// stream.
func message(from, to ident.UserID, n uint64) envelope.Envelope {
	return envelope.Envelope{
		Kind: envelope.KindMessage, Confirm: true, From: from, Stream: 5, ID: ident.StreamMessageID(5, to, n), CreatedAt: 1_700_000_000_000,
		To:        []envelope.Recipient{{User: to, N: n, After: envelope.Mark{Stream: 4, N: 7}}},
		Reference: "ref", Frame: fmt.Appendf(nil, `{"type":"MESSAGE","data":{"content":"%s"}}`, content),
		Path: []string{"e", "f"}, Network: 9, Released: true, Home: "e",
	}
}

// server serves the handlers of letters.
func server(t *testing.T, letters *deadletters.Letters) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	for pattern, handler := range letters.Handlers() {
		mux.Handle(pattern, handler)
	}
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

// request returns the body of an answer that has the status.
func request(t *testing.T, s *httptest.Server, method, path string, status int) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, nil)
	must(t, err)
	res, err := http.DefaultClient.Do(req)
	must(t, err)
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	must(t, err)
	if res.StatusCode != status {
		t.Fatalf("%s %s: %d %s, want %d", method, path, res.StatusCode, body, status)
	}
	return strings.TrimSpace(string(body))
}

// shown is what the tests read of a letter.
type shown struct {
	ID, Domain, Reason, User, From, Kind, MessageID, Reference, Frame, Raw string

	Users                 []string
	At, CreatedAt, Offset int64
	Size, Lane            int
}

func list(t *testing.T, s *httptest.Server, query string) (letters []shown, next string) {
	t.Helper()
	var answer struct {
		Domain  string
		Letters []shown
		Next    string
	}
	body := request(t, s, "GET", "/v1/dead"+query, http.StatusOK)
	if strings.Contains(body, content) {
		t.Errorf("the list shows a message: %s", body)
	}
	must(t, json.Unmarshal([]byte(body), &answer))
	if answer.Domain != "d" {
		t.Errorf("the list is of domain %q", answer.Domain)
	}
	return answer.Letters, answer.Next
}

func ids(letters []shown) string {
	var list []string
	for _, l := range letters {
		list = append(list, l.ID)
	}
	return strings.Join(list, " ")
}

func counted(t *testing.T, registry *prometheus.Registry, metric string) float64 {
	t.Helper()
	families, err := registry.Gather()
	must(t, err)
	total := 0.0
	for _, family := range families {
		if family.GetName() != metric {
			continue
		}
		for _, m := range family.GetMetric() {
			total += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return total
}

// put stores letters without the topic.
func put(t *testing.T, store mailbox.DeadLetters, letters ...mailbox.DeadLetter) {
	t.Helper()
	must(t, store.PutDead(t.Context(), letters))
}

func stored(offset int64, e envelope.Envelope, reason string) mailbox.DeadLetter {
	l := mailbox.DeadLetter{
		Pos: envelope.Position{Generation: 1, Offset: offset}, Reason: reason, At: 1_700_000_000_000 + offset, Lane: 1, Offset: 10, Record: e.Append(nil),
	}
	for _, to := range e.To {
		l.Users = append(l.Users, to.User)
	}
	return l
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
