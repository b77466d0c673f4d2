package custody_test

import (
	"encoding/binary"
	"fmt"
	"runtime"
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

// cost is a lane with sessions that take and prove at once whatever they get, everything
// encoded and decoded as it is on its way through a driver and a connector.
type cost struct {
	b      *testing.B
	state  *custody.State
	now    time.Time
	offset int64
	fx     custody.Effects
	epoch  envelope.Position

	users   []ident.UserID
	numbers []uint64          // of the messages to each user
	records [costRound][]byte // those of a round are settled before the next one is written
	written uint64            // messages
	frame   []byte
	header  []byte
	packet  []byte
	answers []byte
	events  []custody.Event
	event   custody.RecordRead
}

func newCost(b *testing.B, users int) *cost {
	b.Helper()
	net, err := topology.New(1, topology.Network{
		Domains: []topology.Domain{{Name: "d", URLs: []string{"ws://127.0.0.1:1"}}},
		Apps:    []topology.App{{Name: "A", AppID: "a", Master: "A-0"}},
		Distributions: []topology.Distribution{
			{DomainName: "d", From: 0, To: 999_999_999_999},
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	m, err := custody.NewMetrics(prometheus.NewRegistry())
	if err != nil {
		b.Fatal(err)
	}
	c := &cost{b: b, now: begin, epoch: envelope.Position{Generation: 1}, numbers: make([]uint64, users), frame: make([]byte, 1100)}
	for i := range users {
		c.users = append(c.users, ident.UserID(fmt.Sprintf("A-%d", 1_000_000+i)))
	}
	log := trace.NewLog(trace.Place{Domain: "d", Service: trace.Processor, Name: "p"}, 1<<17, nil)
	c.state = custody.New(custody.Config{Domain: "d", Lanes: 1, Generation: 1, Network: net, Trace: log}, m, begin)
	header := delivery.Batch{Epoch: c.epoch}
	c.header = header.AppendHeader(nil)
	c.record(&envelope.Envelope{Kind: envelope.KindEpoch})
	c.step(&custody.Assembled{})
	for i := range users {
		u := c.users[i]
		c.record(&envelope.Envelope{
			Kind: envelope.KindLogin, To: []envelope.Recipient{{User: u}}, Session: uint64(i + 1), Connector: c1, Features: envelope.FeatureAccept,
		})
		c.step(&custody.Loaded{User: u})
		c.step(&custody.AnnouncedSaved{Announced: mailbox.Announced{User: u, N: 1}})
		c.step(&custody.Produced{Token: custody.Token{User: u, Presence: 1}})
		c.fx.Reset()
	}
	c.state.SettleWindows(c.now)
	return c
}

func (c *cost) step(e custody.Event) { c.state.Step(c.now, e, &c.fx) }

// record reads a record as a driver does.
func (c *cost) record(e *envelope.Envelope) { c.read(e.Append(nil)) }

func (c *cost) read(value []byte) {
	e, err := envelope.DecodeNew(value)
	if err != nil {
		c.b.Fatal(err)
	}
	c.event = custody.RecordRead{Offset: c.offset, Envelope: e}
	c.step(&c.event)
	c.offset++
}

// round carries the effects out: the connector takes and proves everything.
func (c *cost) round() {
	if len(c.fx.Put) > 0 {
		c.b.Fatal("something is stored")
	}
	a := delivery.Answers{Epoch: c.epoch, Connector: c1}
	for from := 0; from < len(c.fx.Deliveries); {
		c.packet = append(c.packet[:0], c.header...)
		for from < len(c.fx.Deliveries) && len(c.packet) < delivery.MaxMessageSize-1500 {
			c.packet = c.fx.Deliveries[from].Item.Append(c.packet)
			from++
		}
		batch, err := delivery.DecodeBatch(c.packet)
		if err != nil {
			c.b.Fatal(err)
		}
		for i := range batch.Items {
			for _, t := range batch.Items[i].Targets {
				if t.D > 0 {
					a.Progress = append(a.Progress, delivery.Progress{Session: t.Session, Taken: t.D, Proved: t.D})
				}
			}
		}
	}
	c.events = c.events[:0]
	for i := range c.fx.Produce {
		c.events = append(c.events, &custody.Produced{Token: c.fx.Produce[i].Token})
	}
	c.fx.Reset()
	if len(a.Progress) > 0 {
		c.answers = a.Append(c.answers[:0])
		got, err := delivery.DecodeAnswers(c.answers)
		if err != nil {
			c.b.Fatal(err)
		}
		c.step(custody.Answered{Answers: &got})
	}
	for _, e := range c.events {
		c.step(e)
	}
	for i := range c.fx.Produce {
		c.step(&custody.Produced{Token: c.fx.Produce[i].Token})
	}
	c.fx.Reset()
	c.now = c.now.Add(time.Millisecond)
	if c.now.Sub(begin)%(100*time.Millisecond) == 0 {
		c.step(&custody.Ticked{})
		c.state.SettleWindows(c.now)
	}
	if c.now.Sub(begin)%time.Second == 0 {
		c.state.Change(c.now)
	}
}

const costRound = 32 // records

// message writes the next message to a user, the ith of its round.
func (c *cost) message(i, user int, confirm bool) []byte {
	c.written++
	c.numbers[user]++
	e := envelope.Envelope{
		Kind: envelope.KindMessage, From: c.users[user], Stream: 5, CreatedAt: 1_700_000_000_000, Network: 1, Confirm: confirm, Frame: c.frame,
	}
	binary.LittleEndian.PutUint64(e.ID[:], c.written*0x9E3779B97F4A7C15)
	if confirm {
		e.Reference = "reference-1"
	}
	to := [1]envelope.Recipient{{User: c.users[user], N: c.numbers[user]}}
	e.To = to[:]
	c.records[i] = e.Append(c.records[i][:0])
	return c.records[i]
}

func benchmarkMessages(b *testing.B, sessions int, confirm bool) {
	c := newCost(b, sessions)
	active := min(sessions, 1000)
	b.ReportAllocs()
	b.ResetTimer()
	for done := 0; done < b.N; done += costRound {
		for i := range costRound {
			c.read(c.message(i, (done+i)%active, confirm))
		}
		c.round()
	}
	b.StopTimer()
	if n := c.state.Unsettled(); n > 0 {
		b.Fatalf("%d records are not settled", n)
	}
}

func BenchmarkReliable(b *testing.B)          { benchmarkMessages(b, 1000, false) }
func BenchmarkReliableConfirmed(b *testing.B) { benchmarkMessages(b, 1000, true) }

// BenchmarkReliableAmongIdle has 50,000 other sessions in the lane while time passes.
func BenchmarkReliableAmongIdle(b *testing.B) { benchmarkMessages(b, 51_000, false) }

func BenchmarkFast(b *testing.B) {
	c := newCost(b, 1000)
	b.ReportAllocs()
	b.ResetTimer()
	for done := 0; done < b.N; done += costRound {
		for i := range costRound {
			e, err := envelope.DecodeNew(c.message(i, (done+i)%1000, false))
			if err != nil {
				b.Fatal(err)
			}
			c.step(custody.FastArrived{Envelope: e})
		}
		c.round()
	}
}

// BenchmarkGroup counts deliveries.
func BenchmarkGroup(b *testing.B) {
	const members = 1000
	c := newCost(b, members)
	e := envelope.Envelope{Kind: envelope.KindMessage, From: c.users[0], Stream: 5, CreatedAt: 1_700_000_000_000, Frame: make([]byte, 1100)}
	for i := range members {
		e.To = append(e.To, envelope.Recipient{User: c.users[i]})
	}
	b.ReportAllocs()
	b.ResetTimer()
	for done := 0; done < b.N; done += members {
		for i := range e.To {
			e.To[i].N++
		}
		e.ID = ident.GroupMessageID(5, e.To[0].N)
		c.record(&e)
		c.round()
	}
	b.StopTimer()
	if n := c.state.Unsettled(); n > 0 {
		b.Fatalf("%d records are not settled", n)
	}
}

// BenchmarkTick has 50,000 sessions that are still.
func BenchmarkTick(b *testing.B) {
	c := newCost(b, 50_000)
	c.now = c.now.Add(time.Minute)
	c.step(&custody.Ticked{})
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		c.now = c.now.Add(100 * time.Millisecond)
		c.step(&custody.Ticked{})
		c.state.Connectors()
		c.fx.Reset()
	}
}

// BenchmarkFigures reads what is published twice a second.
func BenchmarkFigures(b *testing.B) {
	c := newCost(b, 50_000)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		c.state.Behind()
		c.state.Oldest()
		c.state.Waiting()
		c.state.Unadopted()
	}
}

// BenchmarkIdleSession measures the memory of a session that has had one message.
func BenchmarkIdleSession(b *testing.B) {
	const users = 50_000
	memory := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for range b.N {
		before := memory()
		c := newCost(b, users)
		for i := range users {
			c.read(append([]byte(nil), c.message(0, i, false)...))
			c.round()
		}
		c.now = c.now.Add(time.Minute)
		c.step(&custody.Ticked{})
		c.state.SettleWindows(c.now)
		c.state.Change(c.now)
		b.ReportMetric(float64(memory()-before-64<<17)/users, "B/session") // without the trace
		runtime.KeepAlive(c)
	}
}
