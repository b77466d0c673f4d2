package otel_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	wire "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/polltest"
	"github.com/linkerhq/linker/pkg/trace"
	"github.com/linkerhq/linker/pkg/trace/otel"
)

// at is when everything begins; spans do not stay open for ever.
var at = time.Now().Truncate(time.Second)

// sink is a collector.
type sink struct {
	*httptest.Server
	answer func(n int) int // the code of the nth request

	mu       sync.Mutex
	requests int          // guarded by mu
	spans    []*wire.Span // guarded by mu
	services []string     // guarded by mu; one for each request
	paths    []string     // guarded by mu
}

func newSink(t *testing.T) *sink {
	t.Helper()
	c := &sink{answer: func(int) int { return http.StatusOK }}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var request collector.ExportTraceServiceRequest
		if err != nil || proto.Unmarshal(body, &request) != nil {
			t.Errorf("no request of OTLP: %v", err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.requests++
		c.paths = append(c.paths, r.URL.Path)
		if code := c.answer(c.requests); code != http.StatusOK {
			w.WriteHeader(code)
			return
		}
		for _, rs := range request.ResourceSpans {
			var text strings.Builder
			for _, a := range rs.Resource.Attributes {
				text.WriteString(a.Key + "=" + a.Value.GetStringValue() + " ")
			}
			c.services = append(c.services, text.String())
			for _, ss := range rs.ScopeSpans {
				c.spans = append(c.spans, ss.Spans...)
			}
		}
	}))
	t.Cleanup(c.Close)
	return c
}

// got are the spans as words, by their beginning and name.
func (c *sink) got() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []string
	for _, s := range c.spans {
		var text strings.Builder
		text.WriteString(fmt.Sprintf("%d-%d %s", since(s.StartTimeUnixNano), since(s.EndTimeUnixNano), s.Name))
		for _, a := range s.Attributes {
			if a.Key == "linker.outcome" {
				text.WriteString(" " + a.Value.GetStringValue())
			}
		}
		for _, e := range s.Events {
			text.WriteString(fmt.Sprintf(" +%s@%d", e.Name, since(e.TimeUnixNano)))
		}
		if s.Status.GetCode() == wire.Status_STATUS_CODE_ERROR {
			text.WriteString(" !" + s.Status.Message)
		}
		list = append(list, text.String())
	}
	slices.Sort(list)
	return list
}

func since(nanos uint64) int64 { return time.Unix(0, int64(nanos)).Sub(at).Milliseconds() }

type running struct {
	*otel.Spans
	metrics *prometheus.Registry
	stop    func()
}

// open prepares spans and starts nothing.
func open(t *testing.T, c *sink, ratio float64) *running {
	t.Helper()
	r := &running{metrics: prometheus.NewRegistry()}
	m, err := otel.NewMetrics(r.metrics)
	if err != nil {
		t.Fatal(err)
	}
	r.Spans, err = otel.New(otel.Config{
		Endpoint: c.URL, Ratio: ratio, Place: trace.Place{Domain: "d", Service: trace.Processor, Name: "p"}, Log: slog.New(slog.DiscardHandler), Metrics: m,
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func run(t *testing.T, c *sink, ratio float64) *running {
	t.Helper()
	r := open(t, c, ratio)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

func id(n byte) ident.MessageID { return ident.MessageID{1, 2, 3, 4, 5, 6, 7, n, n, 10, 11} }

func TestAMessageIsATraceWithOneRoot(t *testing.T) {
	t.Parallel()
	c := newSink(t)
	s := run(t, c, 1)
	log := trace.NewLog(trace.Place{Domain: "d", Service: trace.Processor, Name: "p"}, 0, s)
	ms := func(n int) time.Time { return at.Add(time.Duration(n) * time.Millisecond) }
	add := func(n int, kind trace.Kind, e trace.Event) {
		e.At, e.Kind, e.Message, e.User, e.Lane = ms(n), kind, id(1), "A-1", 2
		log.Add(e)
	}
	add(9, trace.Accepted, trace.Event{Since: at, Offset: 5})
	add(10, trace.Taken, trace.Event{Offset: 5})
	log.Note(&trace.Note{At: ms(10), Kind: trace.Sent, Message: id(1), User: log.User("A-1"), Session: 7, Peer: log.Name("c"), Lane: 2, Offset: 5})
	add(1010, trace.Stored, trace.Event{Offset: 5})
	add(2000, trace.Fetched, trace.Event{Offset: 5, Session: 8, Peer: "c"})
	add(2040, trace.Proved, trace.Event{Offset: 5, Session: 8, Peer: "c"})
	add(2041, trace.Removed, trace.Event{Offset: 5})
	add(2050, trace.Confirmed, trace.Event{Offset: 5})
	log.Add(trace.Event{At: ms(1), Kind: trace.Taken, Message: id(2), Users: 3, Peer: "e", Road: true})
	log.Add(trace.Event{At: ms(4), Kind: trace.HandedOver, Message: id(2), Users: 3, Peer: "e", Road: true})
	log.Add(trace.Event{At: ms(5), Kind: trace.Held, Message: id(3), User: "A-2"})
	log.Add(trace.Event{At: ms(6), Kind: trace.Taken, Message: id(4), User: "A-2"})
	log.Add(trace.Event{At: ms(8), Kind: trace.Dead, Message: id(4), User: "A-2", Reason: "EXPIRED"})
	want := []string{
		"0-9 accepted", "1-4 custody handed_over", "10-1010 custody stored +sent@10", "2000-2040 delivery proved +fetched@2000", "2050-2050 confirmed", "6-8 custody dead !EXPIRED",
	}
	polltest.Eventually(t, "all spans have arrived", func() bool { return len(c.got()) >= len(want) })
	if got := c.got(); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	s.stop() // what is open ends
	if got := c.got(); len(got) != len(want)+1 || !slices.ContainsFunc(got, func(text string) bool { return strings.HasSuffix(text, " hold open") }) {
		t.Errorf("after the end: %v", got)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, span := range c.spans {
		message := ident.MessageID(span.TraceId)
		switch root := span.Name == "accepted"; {
		case root && (len(span.ParentSpanId) != 0 || string(span.SpanId) != string(message[:8])):
			t.Errorf("the root %x has the parent %x", span.SpanId, span.ParentSpanId)
		case !root && (string(span.ParentSpanId) != string(message[:8]) || len(span.SpanId) != 8):
			t.Errorf("%s has the parent %x, want the root %x", span.Name, span.ParentSpanId, message[:8])
		}
	}
	if want := "linker.domain=d service.instance.id=p service.name=linker-processor "; c.services[0] != want || c.paths[0] != "/v1/traces" {
		t.Errorf("got %q at %s, want %q", c.services[0], c.paths[0], want)
	}
	if got := testutil.CollectAndCount(s.metrics); got != 4 {
		t.Errorf("%d series", got)
	}
	if problems, err := testutil.GatherAndLint(s.metrics); err != nil || len(problems) > 0 {
		t.Errorf("metrics: %v, %v", problems, err)
	}
}

func TestAllProcessesChooseTheSameMessages(t *testing.T) {
	t.Parallel()
	c := newSink(t)
	one, two, none, all := run(t, c, 0.25), run(t, c, 0.25), run(t, c, 0), run(t, c, 1)
	chosen := 0
	const messages = 10000
	for n := range uint64(messages) {
		m := ident.StreamMessageID(1, "A-1", n)
		if one.Wants(m) != two.Wants(m) || none.Wants(m) || !all.Wants(m) {
			t.Fatal("they do not agree")
		}
		if one.Wants(m) {
			chosen++
		}
	}
	if chosen < messages/5 || chosen > messages*3/10 {
		t.Errorf("of %d messages %d are traced, want a quarter", messages, chosen)
	}
}

func count(t *testing.T, r *running, series string) float64 {
	t.Helper()
	families, err := r.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var name strings.Builder
			name.WriteString(f.GetName())
			for _, l := range m.GetLabel() {
				name.WriteString(" " + l.GetValue())
			}
			if name.String() == series {
				return m.GetCounter().GetValue()
			}
		}
	}
	return -1
}

func TestWhatTheCollectorDoesNotTakeIsTriedAgainAndThenCounted(t *testing.T) {
	t.Parallel()
	c := newSink(t)
	c.answer = func(n int) int {
		switch n {
		case 1:
			return http.StatusServiceUnavailable // later
		case 2:
			return http.StatusOK
		default:
			return http.StatusBadRequest // never
		}
	}
	s := run(t, c, 1)
	s.Take(trace.Event{At: at, Kind: trace.Received, Message: id(1)})
	polltest.Eventually(t, "it is sent once more", func() bool { return count(t, s, "linker_otel_spans_total") == 1 })
	s.Take(trace.Event{At: at, Kind: trace.Received, Message: id(2)})
	polltest.Eventually(t, "it is counted as dropped", func() bool { return count(t, s, "linker_otel_dropped_total collector") == 1 })
}

func TestNobodyWaitsForTheCollector(t *testing.T) {
	t.Parallel()
	c := newSink(t)
	r := open(t, c, 1)
	for range 10000 { // nobody makes spans of them
		r.Take(trace.Event{At: at, Kind: trace.Received, Message: id(1)})
	}
	if got := count(t, r, "linker_otel_dropped_total queue_full"); got != 10000-8192 {
		t.Errorf("%v events are counted as dropped", got)
	}
}

func TestAConfigurationThatIsWrongIsSaid(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		endpoint string
		ratio    float64
		want     string
	}{
		{"", 1, "expected http://HOST:PORT"},
		{"collector:4318", 1, "expected http://HOST:PORT"},
		{"grpc://collector:4317", 1, "expected http://HOST:PORT"},
		{"http://collector:4318", 1.5, "expected 0 to 1"},
		{"http://collector:4318", -1, "expected 0 to 1"},
	} {
		_, err := otel.New(otel.Config{Endpoint: c.endpoint, Ratio: c.ratio, Log: slog.New(slog.DiscardHandler)})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: got %v", c, err)
		}
	}
}
