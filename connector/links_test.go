package connector_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/linkerhq/linker/connector"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/link"
	"github.com/linkerhq/linker/pkg/presence/redis"
	"github.com/linkerhq/linker/pkg/topology"
)

// neighbourLink is the link that the tests' network has with another domain.
func neighbourLink() topology.Link {
	return topology.Link{N1: "domain-02", N2: "domain-01", Key: "a key that both know"}
}

// neighbour is what dials the link port of a connector.
type neighbour struct {
	*link.Conn
	t     *testing.T
	got   chan link.Message
	ended chan struct{}
}

func dialLink(t *testing.T, c *connector.Connector) *neighbour {
	t.Helper()
	end, err := link.NewEnd(link.Config{Domain: "domain-02", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	n := &neighbour{t: t, got: make(chan link.Message, 100), ended: make(chan struct{})}
	eventually(t, "the connector serves links", func() bool {
		n.Conn, err = end.Dial(t.Context(), c.LinkAddr().String(), neighbourLink())
		return err == nil
	})
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	go func() {
		defer close(n.ended)
		_ = n.Run(ctx, func(m link.Message) error {
			if _, is := m.(link.States); !is {
				n.got <- m
			}
			return nil
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-n.ended
	})
	return n
}

// bring hands one message over and waits until it is acknowledged.
func (n *neighbour) bring(number uint64, frame string) {
	n.t.Helper()
	e := envelope.Envelope{
		Kind: envelope.KindMessage, From: "ANZ-7", Stream: 1, Frame: []byte(frame),
		To: []envelope.Recipient{{User: "ANZ-2", N: number}},
	}
	e.ID[0] = byte(number)
	if !n.Send(link.Records{Channel: 1, First: number, Records: [][]byte{e.Append(nil)}}) {
		n.t.Fatal("the record was not sent")
	}
	select {
	case m := <-n.got:
		if want := (link.Ack{Channel: 1, UpTo: number}); m != want {
			n.t.Fatalf("got %+v, want %+v", m, want)
		}
	case <-n.ended:
		n.t.Fatal("the link has ended")
	}
}

func TestWhatANeighbourBringsReachesTheSockets(t *testing.T) {
	t.Parallel()
	d := newDomain(t)
	c, stop := d.start()
	receiver := d.login(c, "ANZ-2")
	n := dialLink(t, c)
	for number := range uint64(10) {
		n.bring(number+1, `{"type":"MESSAGE","data":{"from":"ANZ-7","content":"far"}}`)
		receiver.want(`{"type":"MESSAGE","data":{"from":"ANZ-7","content":"far"}`)
	}
	_, body := get(t, c, "/metrics")
	for _, line := range []string{
		`linker_linkport_links{neighbour="domain-02"} 1`, `linker_linkport_records_total{neighbour="domain-02"} 10`,
		`linker_linkport_refused_total{reason="wrong_proof"} 0`,
	} {
		if !strings.Contains(body, line) {
			t.Errorf("/metrics has no line %s", line)
		}
	}
	go func() { _, _, _ = receiver.Read(context.WithoutCancel(t.Context())) }()
	if err := stop(); err != nil {
		t.Errorf("Run returned %v", err)
	}
	<-n.ended
}

func TestANewLifeServesLinksAgain(t *testing.T) {
	t.Parallel()
	d := newDomain(t)
	c, _ := d.start()
	first := dialLink(t, c)
	registry, err := redis.Open(redis.Config{Server: d.cfg.Redis, Domain: d.cfg.Domain, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer registry.Close()
	leases, err := registry.Leases(t.Context())
	if err != nil || len(leases) != 1 {
		t.Fatalf("leases %v, %v", leases, err)
	}
	eventually(t, "it is declared dead", func() bool {
		if err := registry.Release(t.Context(), leases[0]); err != nil {
			t.Fatal(err)
		}
		buried, _, err := registry.Bury(t.Context(), leases[0])
		return err == nil && buried // it may have renewed its lease in between
	})
	<-first.ended
	dialLink(t, c).bring(1, `{"type":"MESSAGE","data":{"from":"ANZ-7","content":"far"}}`)
}
