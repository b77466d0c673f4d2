package uplink_test

import (
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/connector/internal/session"
	"github.com/linkerhq/linker/connector/internal/uplink"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/topology"
	"github.com/linkerhq/linker/pkg/trace"
	"github.com/linkerhq/linker/pkg/wire"
)

// memory is a log and a live plane that cost next to nothing: a record is acknowledged
// when the next one comes, and nothing is kept.
type memory struct {
	network *topology.Snapshot
	prompt  bool // acknowledges at once
	pending func(offset int64, err error)
	offset  int64
	bytes   int
}

func (m *memory) Append(_ int, _ string, value []byte, done func(offset int64, err error)) error {
	if m.pending != nil {
		m.offset++
		m.pending(m.offset, nil)
	}
	m.pending = done
	m.bytes += len(value)
	if m.prompt {
		m.pending = nil
		done(m.offset, nil)
	}
	return nil
}

func (m *memory) Publish(_ string, data []byte) error {
	m.bytes += len(data)
	return nil
}

func (*memory) Accepts(int) (heard, room bool) { return true, true }
func (m *memory) Current() *topology.Snapshot  { return m.network }

func newMemory(b *testing.B) (*memory, *uplink.Uplink) {
	b.Helper()
	network, err := topology.New(1, topology.Network{
		Domains: []topology.Domain{{Name: "domain-01", URLs: []string{"ws://127.0.0.1:1"}}, {Name: "domain-02", URLs: []string{"ws://127.0.0.1:2"}}},
		Links:   []topology.Link{{N1: "domain-01", N2: "domain-02", Insecure: true}},
		Apps:    []topology.App{{Name: "ANZ", AppID: "a", Master: "ANZ-1"}, {Name: "BNZ", AppID: "b", Master: "BNZ-1"}},
		Distributions: []topology.Distribution{
			{DomainName: "domain-01", From: 0, To: 999_999}, {DomainName: "domain-02", From: 1_000_000, To: 1_999_999},
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	m := &memory{network: network}
	u, err := uplink.New(uplink.Config{
		Domain: "domain-01", Connector: ident.Connector{Name: "c-1"}, Lanes: lanes,
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	}, uplink.Deps{Log: m, Plane: m, Lanes: m, Network: m, Trace: trace.NewLog(trace.Place{Domain: "domain-01", Name: "c-1"}, 1<<17, nil)})
	if err != nil {
		b.Fatal(err)
	}
	return m, u
}

// BenchmarkSubmit measures the way of a message from the bytes of a frame to the record
// that the log or the live plane has, its acknowledgement included.
func BenchmarkSubmit(b *testing.B) {
	content := strings.Repeat("some words to send. ", 50)
	message := func(more string) string {
		return `{"type":"MESSAGE","data":{"to":"ANZ-123224","content":"` + content + `"}` + more + `}`
	}
	group := func(members int, more string) string {
		to := make([]string, members)
		for i := range to {
			to[i] = fmt.Sprintf(`"ANZ-%d"`, 100000+i)
		}
		return `{"type":"GROUP_MESSAGE","data":{"to":[` + strings.Join(to, ",") + `],"content":"` + content + `"}` + more + `}`
	}
	for _, test := range []struct{ name, in string }{
		{"reliable", message("")},
		{"reliable, reference", message(`,"reference":"abc123"`)},
		{"fast", message(`,"feature":"FAST"`)},
		{"fast, reference", message(`,"feature":"FAST","reference":"abc123"`)},
		{"group of 1000", group(1000, "")},
		{"fast group of 1000", group(1000, `,"feature":"FAST"`)},
	} {
		b.Run(test.name, func(b *testing.B) {
			_, u := newMemory(b)
			x := u.Open(new(session.Session), 7, "ANZ-123223", 0)
			in := []byte(test.in)
			b.ReportAllocs()
			for b.Loop() {
				f, problem := wire.Decode(in)
				if problem != nil {
					b.Fatal(problem.Message)
				}
				x.Submit(&f)
			}
		})
	}
}

// BenchmarkLogin measures what a login and a logout cost here.
func BenchmarkLogin(b *testing.B) {
	m, u := newMemory(b)
	m.prompt = true
	s := new(session.Session)
	b.ReportAllocs()
	for b.Loop() {
		x := u.Open(s, 7, "ANZ-123223", envelope.FeatureAccept)
		if err := x.Enter(b.Context()); err != nil {
			b.Fatal(err)
		}
		x.Leave()
	}
}

// BenchmarkIdle measures what memory the sender of a session holds that has logged in and
// sends nothing.
func BenchmarkIdle(b *testing.B) {
	_, u := newMemory(b)
	s := new(session.Session)
	const many = 10_000
	for b.Loop() {
		senders := make([]*uplink.Sender, many)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range senders {
			senders[i] = u.Open(s, uint64(i), "ANZ-1", envelope.FeatureAccept)
		}
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/many, "B/session")
		runtime.KeepAlive(senders)
	}
}
