package custody_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/delivery"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/pkg/topology"
	"github.com/linkerhq/linker/pkg/trace"
	"github.com/linkerhq/linker/processor/internal/custody"
)

// traced returns a bench whose state is made with a trace, and what it says of a message, a
// word an event.
func traced(t *testing.T, b *bench, cfg custody.Config) func(ident.MessageID) string {
	t.Helper()
	log := trace.NewLog(trace.Place{Domain: "d", Service: trace.Processor, Name: "p"}, 1, nil)
	cfg.Domain, cfg.Lanes, cfg.Generation, cfg.Trace = "d", 1, 1, log
	if cfg.Network == nil {
		cfg.Network = newWorld(t, 1, custody.Limits{}).net
	}
	b.t, b.now = t, begin
	b.state = custody.New(cfg, newMetrics(t), begin)
	b.record(envelope.Envelope{Kind: envelope.KindEpoch})
	b.step(&custody.Assembled{})
	return func(id ident.MessageID) string {
		var words []string
		for _, e := range log.Find(id) {
			word := fmt.Sprintf("%s@%d", e.Kind, e.Offset)
			switch {
			case e.Lane != 0 || e.At.Before(begin):
				t.Errorf("lane %d, time %v", e.Lane, e.At)
			case e.Road:
				word += " to " + e.Peer
			case e.Session != 0:
				word += fmt.Sprintf(" %d/%s", e.Session, e.Peer)
			}
			if e.User == "" {
				word += fmt.Sprintf(" for %d", e.Users)
			}
			if e.Reason != "" {
				word += " " + e.Reason
			}
			words = append(words, word)
		}
		return strings.Join(words, ", ")
	}
}

func TestWhatAMessageForALiveSessionLeaves(t *testing.T) {
	t.Parallel()
	var b bench
	said := traced(t, &b, custody.Config{})
	b.login(7, "A-1", 0)
	m := msg("A-2", "A-1", 1, true)
	b.record(m)
	b.want("sent", said(m.ID), "taken@2, sent@2 7/c1")
	b.prove(7, 1)
	b.step(&custody.Produced{Token: custody.Token{Confirms: envelope.Position{Generation: 1, Offset: 2}, User: "A-1"}})
	b.want("proved", said(m.ID), "taken@2, sent@2 7/c1, proved@2 7/c1, confirmed@2")
	b.record(m)
	b.want("a copy", said(m.ID), "taken@2, sent@2 7/c1, proved@2 7/c1, confirmed@2, duplicate@3")
	b.want("another message", said(ident.MessageID{1}), "")
}

func TestWhatAMessageThatWaitsLeaves(t *testing.T) {
	t.Parallel()
	var b bench
	said := traced(t, &b, custody.Config{})
	b.login(7, "A-1", 0)
	m := msg("A-2", "A-1", 1, false)
	b.record(m)
	b.after(time.Second)
	b.stored("A-1", 2)
	b.want("no proof came", said(m.ID), "taken@2, sent@2 7/c1, stored@2")
	b.step(custody.Answered{Answers: &delivery.Answers{Epoch: envelope.Position{Generation: 1}, Connector: c1, Gone: []uint64{7}}})
	b.want("the session ended", said(m.ID), "taken@2, sent@2 7/c1, stored@2, returned@2 7/c1")
	b.login(8, "A-1", 0)
	b.record(envelope.Envelope{Kind: envelope.KindFetch, To: []envelope.Recipient{{User: "A-1"}}, Session: 8, Connector: c1, Request: 1, Count: 10})
	rows := []mailbox.Row{{To: "A-1", Pos: envelope.Position{Generation: 1, Offset: 2}, ID: m.ID, Record: m.Append(nil)}}
	for serial := range uint64(50) { // whatever the number of the read is
		b.step(&custody.RowsRead{Read: custody.Read{
			Purpose: custody.ForFetch, Session: 8, Serial: serial, Query: mailbox.Query{To: "A-1"},
		}, Rows: rows})
	}
	b.prove(8, 1)
	b.want("fetched", said(m.ID), "taken@2, sent@2 7/c1, stored@2, returned@2 7/c1, fetched@2 8/c1, proved@2 8/c1, removed@2")
}

func TestWhatAMessageForAnotherDomainLeaves(t *testing.T) {
	t.Parallel()
	var b bench
	said := traced(t, &b, custody.Config{Channels: 100, Network: regions(t, 1, "d", "e", "f", "island")})
	m := msg("A-2", "A-101", 1, false)
	m.To = append(m.To, envelope.Recipient{User: "A-102", N: 1})
	b.cross(m)
	b.storedAll()
	b.want("no road", said(m.ID), "taken@1 to e for 2, stored@1 to e for 2")
	b.roads(9)
	direct := msg("A-3", "A-101", 1, false)
	b.cross(direct)
	b.crossing(&custody.HandedOver{Channel: b.channel, UpTo: 1})
	one := said(direct.ID)
	if one == "" {
		t.Error("nothing is said of the second")
	}
	dead := msg("A-2", "Z-1", 5, false)
	b.cross(dead)
	b.step(&custody.Buried{Burial: custody.Burial{Offset: 3, User: "Z-1", Record: dead.Append(nil), Reason: "UNKNOWN_APP"}})
	b.want("nobody", said(dead.ID), "dead@3 UNKNOWN_APP")
}

// BenchmarkLiveMessage takes messages the usual way: read, sent to the one session of their
// receiver, proved, settled; without a trace, and with one. Sixteen go together, as under
// load.
func BenchmarkLiveMessage(b *testing.B) {
	b.Run("traced=no", func(b *testing.B) { takeLiveMessages(b, nil) })
	b.Run("traced=yes", func(b *testing.B) { takeLiveMessages(b, trace.NewLog(trace.Place{Domain: "d"}, 1<<17, nil)) })
}

func takeLiveMessages(b *testing.B, log *trace.Log) {
	metrics, err := custody.NewMetrics(prometheus.NewRegistry())
	if err != nil {
		b.Fatal(err)
	}
	net, err := topology.New(1, topology.Network{
		Domains: []topology.Domain{{Name: "d", URLs: []string{"ws://127.0.0.1:1"}}},
		Apps:    []topology.App{{Name: "A", AppID: "a", Master: "A-0"}},
	})
	if err != nil {
		b.Fatal(err)
	}
	now := time.Unix(1_700_000_000, 0)
	s := custody.New(custody.Config{Domain: "d", Lanes: 1, Generation: 1, Network: net, Trace: log}, metrics, now)
	var fx custody.Effects
	step := func(e custody.Event) {
		s.Step(now, e, &fx)
		fx.Reset()
	}
	offset := int64(0)
	record := func(e envelope.Envelope) {
		step(&custody.RecordRead{Offset: offset, Envelope: &e})
		offset++
	}
	const user = ident.UserID("A-1234567")
	record(envelope.Envelope{Kind: envelope.KindEpoch})
	record(envelope.Envelope{Kind: envelope.KindLogin, To: []envelope.Recipient{{User: user}}, Session: 7, Connector: c1})
	step(&custody.Loaded{User: user})
	step(&custody.AnnouncedSaved{Announced: mailbox.Announced{User: user, N: 1}})
	step(&custody.Produced{Token: custody.Token{User: user, Presence: 1}})
	frame := make([]byte, 200)
	n := uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		n++
		id := ident.MessageID{byte(n), byte(n >> 8), byte(n >> 16), 1}
		record(envelope.Envelope{
			Kind: envelope.KindMessage, From: "A-2", Stream: 5, ID: id, To: []envelope.Recipient{{User: user, N: n}}, Frame: frame,
		})
		if n%16 == 0 {
			now = now.Add(time.Millisecond)
			step(custody.Answered{Answers: &delivery.Answers{
				Epoch: envelope.Position{Generation: 1}, Connector: c1, Progress: []delivery.Progress{{Session: 7, Taken: n, Proved: n}},
			}})
			step(&custody.Ticked{})
		}
	}
	if low := s.Low(); low < int64(n)-16 {
		b.Fatalf("%d messages, settled up to %d", n, low)
	}
}
