package otel

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	api "go.opentelemetry.io/otel/trace"

	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/trace"
)

// key is what a span of a processor is about: one receiver, or one road.
type key struct {
	message ident.MessageID
	user    ident.UserID
	towards string
}

// opened is a span that has not ended.
type opened struct {
	span  api.Span
	since time.Time
}

// The names of spans of processors. Those of connectors have the names of their events.
const (
	nameCustody  = "custody"  // from the record on, until somebody else has it
	nameHold     = "hold"     // while it waits for others
	nameDelivery = "delivery" // out of the mailbox, until it has arrived
)

// take makes of an event a span of its own, the beginning or the end of one, or something
// that has happened in one.
func (s *Spans) take(e *trace.Event) {
	k := key{message: e.Message, user: e.User}
	if e.Road {
		k.towards = e.Peer
	}
	switch e.Kind {
	case trace.Accepted, trace.Refused, trace.Received, trace.Reached, trace.Duplicate:
		s.single(e)
	case trace.Taken:
		s.begin(k, nameCustody, e)
	case trace.Held:
		s.begin(k, nameHold, e)
	case trace.Sent, trace.Fetched:
		if s.open[k] == nil {
			s.begin(k, nameDelivery, e)
		}
		s.within(k, e)
	case trace.Late, trace.Confirmed:
		s.within(k, e)
	case trace.Proved, trace.Stored, trace.Released, trace.HandedOver, trace.Returned, trace.Moved, trace.Dead:
		s.end(k, e)
	case trace.Removed: // its proof has ended the span
	}
}

// single is a span of one event.
func (s *Spans) single(e *trace.Event) {
	begun := e.Since
	if begun.IsZero() || begun.After(e.At) {
		begun = e.At
	}
	span := s.start(e.Kind.String(), e, begun)
	finish(span, e)
}

// begin opens a span. One that is open ends: its message is handled once more.
func (s *Spans) begin(k key, name string, e *trace.Event) {
	if was := s.open[k]; was != nil {
		was.span.End(api.WithTimestamp(e.At))
		delete(s.open, k)
	}
	if len(s.open) >= maxOpen {
		s.metrics.cut.Inc()
		finish(s.start(name, e, e.At), e)
		return
	}
	s.open[k] = &opened{span: s.start(name, e, e.At), since: e.At}
}

// within notes an event in a span.
func (s *Spans) within(k key, e *trace.Event) {
	if o := s.open[k]; o != nil {
		o.span.AddEvent(e.Kind.String(), api.WithTimestamp(e.At), api.WithAttributes(attributes(e)...))
		return
	}
	s.single(e)
}

// end ends a span.
func (s *Spans) end(k key, e *trace.Event) {
	o := s.open[k]
	if o == nil {
		s.single(e)
		return
	}
	delete(s.open, k)
	o.span.SetAttributes(attribute.String("linker.outcome", e.Kind.String()))
	if e.Peer != "" {
		o.span.SetAttributes(attribute.String("linker.peer", e.Peer))
	}
	finish(o.span, e)
}

// expire ends what has been open for too long.
func (s *Spans) expire(now time.Time) {
	for k, o := range s.open {
		if now.Sub(o.since) < openFor {
			continue
		}
		delete(s.open, k)
		o.span.SetAttributes(attribute.String("linker.outcome", "open"))
		o.span.End(api.WithTimestamp(now))
	}
}

func finish(span api.Span, e *trace.Event) {
	if e.Kind == trace.Dead || e.Kind == trace.Refused {
		span.SetStatus(codes.Error, e.Reason)
	}
	span.End(api.WithTimestamp(e.At))
}

// start begins a span in the trace of the event's message.
func (s *Spans) start(name string, e *trace.Event, at time.Time) api.Span {
	ctx := context.Background()
	if e.Kind == trace.Accepted && !e.Since.IsZero() {
		ctx = context.WithValue(ctx, rootOf{}, e.Message)
	} else {
		ctx = api.ContextWithSpanContext(ctx, api.NewSpanContext(api.SpanContextConfig{
			TraceID: api.TraceID(e.Message), SpanID: rootID(e.Message), TraceFlags: api.FlagsSampled, Remote: true,
		}))
	}
	_, span := s.provider.Tracer("github.com/linkerhq/linker").Start(ctx, name,
		api.WithTimestamp(at), api.WithAttributes(attributes(e)...), api.WithSpanKind(kindOf(e.Kind)))
	return span
}

func kindOf(k trace.Kind) api.SpanKind {
	switch k {
	case trace.Accepted, trace.Refused:
		return api.SpanKindServer
	case trace.Received, trace.Taken:
		return api.SpanKindConsumer
	default:
		return api.SpanKindInternal
	}
}

func attributes(e *trace.Event) []attribute.KeyValue {
	list := []attribute.KeyValue{attribute.String("linker.message", e.Message.String())}
	add := func(is bool, kv attribute.KeyValue) {
		if is {
			list = append(list, kv)
		}
	}
	add(e.User != "", attribute.String("linker.user", string(e.User)))
	add(e.Users > 0, attribute.Int("linker.users", e.Users))
	add(e.Session != 0, attribute.String("linker.session", strconv.FormatUint(e.Session, 16)))
	add(e.Lane >= 0, attribute.Int("linker.lane", e.Lane))
	add(e.Offset >= 0, attribute.Int64("linker.offset", e.Offset))
	add(e.Road, attribute.String("linker.towards", e.Peer))
	add(!e.Road && e.Peer != "", attribute.String("linker.peer", e.Peer))
	add(e.Reason != "", attribute.String("linker.reason", e.Reason))
	return list
}

// rootID is the id of a message's first span.
func rootID(message ident.MessageID) api.SpanID {
	id := api.SpanID(message[:8])
	if !id.IsValid() {
		id[7] = 1
	}
	return id
}

// rootOf is the key of a context in which the first span of a message is begun.
type rootOf struct{}

// ids gives spans their ids.
type ids struct{}

// NewIDs implements sdk.IDGenerator: it is asked for the first span of a trace.
func (g ids) NewIDs(ctx context.Context) (api.TraceID, api.SpanID) {
	message, _ := ctx.Value(rootOf{}).(ident.MessageID)
	return api.TraceID(message), rootID(message)
}

// NewSpanID implements sdk.IDGenerator.
func (ids) NewSpanID(context.Context, api.TraceID) api.SpanID {
	var id api.SpanID
	for !id.IsValid() {
		binary.BigEndian.PutUint64(id[:], rand.Uint64())
	}
	return id
}
