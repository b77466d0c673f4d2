// Package otel makes spans of OpenTelemetry of what happens to messages, and sends them to
// a collector (OTLP over HTTP).
//
// A trace is one message: its id is that of the message, and which messages are traced
// follows from it, so that the spans of all processes of all domains meet. The root is the
// acceptance, whose span id follows from the message's as well; all others are its children.
//
// Nothing waits for it: what finds no room in its queues is dropped and counted.
package otel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"

	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/seldom"
	"github.com/linkerhq/linker/pkg/trace"
)

const (
	maxQueued  = 8192             // events that were not looked at yet; further ones are dropped
	maxOpen    = 16384            // spans that have begun and not ended; further ones end at once
	maxWaiting = 8                // batches that wait for the collector; further ones are dropped
	batchSpans = 512              // in one request
	batchEvery = time.Second      // how long a span waits for others to travel with
	openFor    = 2 * time.Minute  // spans end after that, whatever their message waits for
	exportFor  = 10 * time.Second // one request, with its repetitions
	stopFor    = 2 * time.Second  // what is left at the end gets so long
)

// Config says what is traced, and where it goes. Every field is needed but Ratio.
type Config struct {
	Endpoint string  // of the collector, http://HOST:PORT; /v1/traces is added if there is no path
	Ratio    float64 // the share of messages, 0 to 1
	Place    trace.Place
	Log      *slog.Logger
	Metrics  *Metrics
}

// Spans makes spans of events. It implements trace.Sink.
type Spans struct {
	// Static after construction.
	log       *slog.Logger
	threshold uint64
	nothing   bool
	metrics   *Metrics
	provider  *sdk.TracerProvider
	exporter  *otlptrace.Exporter
	complains seldom.Line

	queue   chan trace.Event        // never closed
	batches chan []sdk.ReadOnlySpan // closed by the maker when it ends

	// Owned by the maker, of Run.
	open map[key]*opened
	done []sdk.ReadOnlySpan
}

// New prepares everything and starts nothing. The collector may be away. As with every
// program that speaks OTLP, headers, such as a token, may stand in the variable
// OTEL_EXPORTER_OTLP_HEADERS.
func New(cfg Config) (*Spans, error) {
	endpoint, err := url.Parse(cfg.Endpoint)
	if err != nil || endpoint.Host == "" || endpoint.Scheme != "http" && endpoint.Scheme != "https" {
		return nil, fmt.Errorf("endpoint of the collector: %q, expected http://HOST:PORT or https://HOST:PORT", cfg.Endpoint)
	}
	if endpoint.Path == "" || endpoint.Path == "/" {
		endpoint.Path = "/v1/traces"
	}
	if !(cfg.Ratio >= 0 && cfg.Ratio <= 1) {
		return nil, fmt.Errorf("share of messages that are traced: %v, expected 0 to 1", cfg.Ratio)
	}
	s := &Spans{
		log: cfg.Log, metrics: cfg.Metrics, nothing: cfg.Ratio == 0, threshold: threshold(cfg.Ratio),
		queue: make(chan trace.Event, maxQueued), batches: make(chan []sdk.ReadOnlySpan, maxWaiting), open: map[key]*opened{},
	}
	s.exporter = otlptrace.NewUnstarted(otlptracehttp.NewClient(
		otlptracehttp.WithEndpointURL(endpoint.String()),
		otlptracehttp.WithTimeout(exportFor),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{
			Enabled: true, InitialInterval: 500 * time.Millisecond, MaxInterval: 2 * time.Second, MaxElapsedTime: exportFor,
		}),
	))
	s.provider = sdk.NewTracerProvider(
		sdk.WithSpanProcessor(collector{s}),
		sdk.WithIDGenerator(ids{}),
		sdk.WithSampler(sdk.AlwaysSample()), // who is not to be traced is not heard of here
		sdk.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "linker-"+cfg.Place.Service),
			attribute.String("service.instance.id", cfg.Place.Name),
			attribute.String("linker.domain", cfg.Place.Domain),
		)),
	)
	return s, nil
}

// threshold is the highest number of a message that is traced, if they are spread evenly.
func threshold(ratio float64) uint64 {
	if ratio >= 1 {
		return math.MaxUint64
	}
	return uint64(ratio * (1 << 63) * 2)
}

// Wants implements trace.Sink: every process chooses the same messages.
func (s *Spans) Wants(message ident.MessageID) bool {
	return !s.nothing && binary.BigEndian.Uint64(message[8:]) <= s.threshold
}

// Take implements trace.Sink.
func (s *Spans) Take(e trace.Event) {
	select {
	case s.queue <- e:
	default:
		s.metrics.dropped[droppedQueue].Inc()
	}
}

// Run makes spans and sends them until ctx ends; then what is there is sent, as far as two
// seconds allow.
func (s *Spans) Run(ctx context.Context) error {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(stopFor, stop) })()
	if err := s.exporter.Start(work); err != nil {
		return fmt.Errorf("prepare the exporter of spans: %w", err)
	}
	var parts sync.WaitGroup
	parts.Go(func() { s.make(ctx) })
	parts.Go(func() { s.send(work) })
	parts.Wait()
	// Nothing is under way any more.
	return errors.Join(s.provider.Shutdown(context.WithoutCancel(ctx)), s.exporter.Shutdown(context.WithoutCancel(ctx)))
}

// make turns events into spans.
func (s *Spans) make(ctx context.Context) {
	defer close(s.batches)
	tick := time.NewTicker(batchEvery)
	defer tick.Stop()
	for {
		select {
		case e := <-s.queue:
			s.take(&e)
			if len(s.done) >= batchSpans {
				s.hand()
			}
		case now := <-tick.C:
			s.expire(now)
			s.hand()
		case <-ctx.Done():
			for range len(s.queue) {
				e := <-s.queue
				s.take(&e)
			}
			s.expire(time.Now().Add(openFor))
			s.hand()
			return
		}
	}
}

// hand gives what is done to the sender.
func (s *Spans) hand() {
	if len(s.done) == 0 {
		return
	}
	batch := s.done
	s.done = nil
	select {
	case s.batches <- batch:
	default:
		s.metrics.dropped[droppedCollector].Add(float64(len(batch)))
	}
}

// send sends batches to the collector.
func (s *Spans) send(ctx context.Context) {
	for batch := range s.batches {
		bounded, cancel := context.WithTimeout(ctx, exportFor)
		err := s.exporter.ExportSpans(bounded, batch)
		cancel()
		if err == nil {
			s.metrics.sent.Add(float64(len(batch)))
			continue
		}
		s.metrics.dropped[droppedCollector].Add(float64(len(batch)))
		if s.complains.Due() {
			s.log.Warn("the collector of spans takes none", "spans", len(batch), "error", err)
		}
	}
}

// collector hears of spans that have ended.
type collector struct{ *Spans }

// OnStart implements sdk.SpanProcessor.
func (collector) OnStart(context.Context, sdk.ReadWriteSpan) {}

// OnEnd implements sdk.SpanProcessor. It is called by the maker only, which ends all spans.
func (c collector) OnEnd(span sdk.ReadOnlySpan) { c.done = append(c.done, span) }

// Shutdown implements sdk.SpanProcessor.
func (collector) Shutdown(context.Context) error { return nil }

// ForceFlush implements sdk.SpanProcessor.
func (collector) ForceFlush(context.Context) error { return nil }
