package linkport_test

import (
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/connector/internal/linkport"
	"github.com/linkerhq/linker/pkg/link"
	"github.com/linkerhq/linker/pkg/topology"
)

// connect opens a connection that proves nothing.
func (w *world) connect() net.Conn {
	w.t.Helper()
	conn, err := new(net.Dialer).DialContext(w.t.Context(), "tcp", w.port.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (w *world) refusals(why string) func() bool {
	before := w.metric("linker_linkport_refused_total", why)
	return func() bool { return w.metric("linker_linkport_refused_total", why) == before+1 }
}

func TestAStrangerIsRefusedLearnsNothingAndIsCounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve()
	w.dial("domain-02")
	for _, said := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", strings.Repeat("x", 100)} {
		more := w.refusals("handshake")
		conn := w.connect()
		if _, err := conn.Write([]byte(said)); err != nil {
			t.Fatal(err)
		}
		if answer, _ := io.ReadAll(conn); len(answer) > 0 {
			t.Errorf("the port said %q, want only the end", answer)
		}
		eventually(t, "it is counted", more)
	}
	secret := "a key that nobody may read"
	for why, c := range map[string]struct {
		domain string
		link   topology.Link
	}{
		"wrong_proof":    {"domain-02", topology.Link{N1: "domain-01", N2: "domain-02", Key: secret}},
		"no_proof":       {"domain-03", topology.Link{N1: "domain-01", N2: "domain-03", Insecure: true}},
		"unknown_domain": {"domain-04", topology.Link{N1: "domain-01", N2: "domain-04", Key: secret}},
	} {
		more := w.refusals(why)
		if _, err := w.try(c.domain, c.link); err == nil {
			t.Errorf("%s: it was let in", why)
		}
		eventually(t, "it is counted as "+why, more)
		eventually(t, "it is logged as "+why, func() bool {
			return strings.Contains(w.log.String(), "level=WARN msg=\"link refused\" remote=127.0.0.1:") && strings.Contains(w.log.String(), "reason="+why)
		})
	}
	for _, l := range append(network().Links, topology.Link{Key: secret}) {
		if strings.Contains(w.log.String(), l.Key) {
			t.Errorf("the log has the key of %s and %s", l.N1, l.N2)
		}
	}
	w.lint()
}

func TestWithoutALifeNobodyIsServed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	refused := func() {
		t.Helper()
		more := w.refusals("not_serving")
		if said, err := io.ReadAll(w.connect()); len(said) > 0 || err != nil {
			t.Errorf("the port said %q, %v; want only the end", said, err)
		}
		eventually(t, "it is counted", more)
	}
	refused()
	end := w.serve()
	first := w.dial("domain-02")
	end()
	first.gone()
	w.counted("linker_linkport_links", "domain-02", 0)
	refused()
	w.serve()
	second := w.dial("domain-02")
	second.send(1, 1, message("A-1000", 1, "A-1"))
	w.next().done(0, nil)
	second.acknowledged(1, 1)
}

func TestBeforeTheNetworkIsKnownNobodyIsServed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.feed.mu.Lock()
	w.feed.current = nil
	w.feed.mu.Unlock()
	w.serve()
	more := w.refusals("not_serving")
	if said, err := io.ReadAll(w.connect()); len(said) > 0 || err != nil {
		t.Errorf("the port said %q, %v; want only the end", said, err)
	}
	eventually(t, "it is counted", more)
	w.feed.set(t, 5, network())
	w.dial("domain-03")
}

func TestALinkThatTheNetworkHasNoMoreOrWithAnotherKeyIsClosed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve()
	second, third := w.dial("domain-02"), w.dial("domain-03")

	n := network()
	n.Apps[0].AppID = "another"
	n.Links[0].Cost = 7
	w.feed.set(t, 6, n) // concerns nobody's proof
	n.Links[1].Key = "another key of 01 and 03"
	w.feed.set(t, 7, n)
	third.gone()
	second.send(1, 1, message("A-1000", 1, "A-1"))
	w.next().done(0, nil)
	second.acknowledged(1, 1)
	w.dial("domain-03") // with the new key

	n.Links = n.Links[1:]
	w.feed.set(t, 8, n)
	second.gone()
	eventually(t, "the log says why", func() bool {
		return strings.Contains(w.log.String(), "link ended") && strings.Contains(w.log.String(), "this link no more, or with another key")
	})
	more := w.refusals("unknown_domain")
	if _, err := w.try("domain-02", network().Links[0]); err == nil {
		t.Error("a domain without a link was let in")
	}
	eventually(t, "it is counted", more)
	families, err := w.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "neighbour" && l.GetValue() == "domain-02" {
					t.Errorf("%s still has domain-02", f.GetName())
				}
			}
		}
	}
}

func TestThoseWhoOnlyStayKeepNoNeighbourOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve()
	w.dial("domain-02")
	more := w.refusals("busy")
	silent := make([]net.Conn, 64)
	for i := range silent {
		silent[i] = w.connect()
	}
	// There is no room for one more: one of the silent goes, without a word.
	w.dial("domain-03")
	eventually(t, "it is counted", more)
	gone := 0
	for _, conn := range silent {
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
		said, err := io.ReadAll(conn)
		if len(said) > 0 {
			t.Errorf("the port said %q", said)
		}
		if err == nil {
			gone++
		}
	}
	if gone != 1 {
		t.Errorf("%d of the silent were sent away, want 1", gone)
	}
}

func TestWhatANeighbourMayNotSayEndsTheLink(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve()
	n := w.dial("domain-02")
	n.put(link.Records{Channel: 1, First: 1, Records: [][]byte{{1}}})
	n.put(link.Refusal{Channel: 1, N: 1, Code: "X"})
	n.gone()
}

func TestAPortThatIsTakenIsAnError(t *testing.T) {
	t.Parallel()
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	cfg := linkport.Config{Domain: here, Address: taken.Addr().String(), Lanes: 1, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()}
	if _, err := linkport.New(cfg); err == nil {
		t.Error("a taken port was bound")
	}
	cfg.Certificates.CertFile = "missing"
	if _, err := linkport.New(cfg); err == nil || !strings.Contains(err.Error(), "link") {
		t.Errorf("a certificate without a key: %v", err)
	}
}
