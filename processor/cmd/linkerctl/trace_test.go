package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/topology"
	"github.com/linkerhq/linker/pkg/trace"
	"github.com/linkerhq/linker/processor/internal/tracing"
)

// witness knows one message, whose id begins with a dash.
type witness struct{ asked []ident.UserID }

var traceable = ident.MessageID{0xf8, 1, 2, 3}

func (w *witness) Ask(_ context.Context, message ident.MessageID, users []ident.UserID) trace.Report {
	w.asked = users
	at := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	r := trace.Report{Asked: []trace.Place{{Domain: "d", Service: trace.Processor, Name: "p"}}}
	if message != traceable {
		return r
	}
	r.Events = []trace.Event{
		{At: at, Place: trace.Place{Domain: "d", Service: trace.Connector, Name: "c"}, Kind: trace.Accepted, User: "A-1", Session: 255, Lane: 3, Offset: 9, Peer: "e", Road: true},
		{At: at.Add(1500 * time.Microsecond), Place: trace.Place{Domain: "d", Service: trace.Processor, Name: "p"}, Kind: trace.Dead, User: "A-1", Lane: 3, Offset: 9, Reason: "HOPS\x1b[31m"},
		{At: at.Add(2 * time.Second), Place: trace.Place{Domain: "e", Service: trace.Connector, Name: "c"}, Kind: trace.Received, Users: 4, Lane: trace.NoOffset, Offset: trace.NoOffset, Peer: "d"},
	}
	return r
}

// traceServer is the HTTP port of a processor that knows the message.
func traceServer(t *testing.T) (string, *witness) {
	t.Helper()
	s, err := topology.New(1, topology.Network{
		Domains: []topology.Domain{{Name: "d", URLs: []string{"ws://127.0.0.1:1"}}, {Name: "e", URLs: []string{"ws://127.0.0.1:2"}}},
		Apps:    []topology.App{{Name: "A", AppID: "a", Master: "A-0"}},
	})
	must(t, err)
	w, mux := &witness{}, http.NewServeMux()
	mux.Handle("GET /v1/messages/{id}", tracing.Handler(w, network{s}))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL, w
}

func TestATraceIsATableForPeople(t *testing.T) {
	t.Parallel()
	url, w := traceServer(t)
	id := traceable.String()
	if id[0] != '-' {
		t.Fatalf("%s does not begin with a dash", id)
	}
	code, out, errs := ctlOf(t, nil, "--url", url, "trace", id, "--user", "A-1", "--user=A-2")
	if code != exitDone || errs != "" {
		t.Fatalf("exit %d, %s", code, errs)
	}
	want := strings.Join([]string{
		"A-1: dead, d, HOPS�[31m, since 2026-11-21T12:00:00.001500Z",
		"",
		"TIME             +MS       DOMAIN  WHO          WHAT",
		"12:00:00.000000  0.000     d       connector c  accepted for A-1 to e session ff lane 3 offset 9",
		"12:00:00.001500  1.500     d       processor p  dead HOPS�[31m for A-1 lane 3 offset 9",
		"12:00:02.000000  2000.000  e       connector c  received for 4 users from d",
		"",
		"No answer from e; answered have d.",
		"",
	}, "\n")
	if out != want {
		t.Errorf("got\n%s\nwant\n%s", out, want)
	}
	if len(w.asked) != 2 || w.asked[0] != "A-1" || w.asked[1] != "A-2" {
		t.Errorf("asked for %v", w.asked)
	}
	code, out, _ = ctlOf(t, nil, "--url", url, "--json", "trace", id)
	if code != exitDone || !strings.Contains(out, `"kind": "accepted"`) || !strings.Contains(out, `"missing": [`) {
		t.Errorf("exit %d, %s", code, out)
	}
}

func TestATraceThatIsNotThereIsSaid(t *testing.T) {
	t.Parallel()
	url, _ := traceServer(t)
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"trace", ident.MessageID{5}.String()}, exitFailed, "answers 404: message BQAAAAAAAAAAAAAAAAAAAA is not known"},
		{[]string{"trace", "abc"}, exitFailed, `answers 400: message id "abc": 3 characters, expected 22`},
		{[]string{"trace", traceable.String(), "--user", "x"}, exitFailed, `user id "x" is not`},
		{[]string{"trace"}, exitUsage, "trace: expected the ID of one message"},
		{[]string{"trace", "a", "b"}, exitUsage, "trace: expected the ID of one message"},
		{[]string{"trace", "--nonsense", "a"}, exitUsage, "nonsense"},
	} {
		if code, _, errs := ctlOf(t, nil, append([]string{"--url", url}, c.args...)...); code != c.code || !strings.Contains(errs, c.want) {
			t.Errorf("%v: exit %d, %s, want %d, %s", c.args, code, errs, c.code, c.want)
		}
	}
	if code, out, _ := ctlOf(t, nil, "trace", "--help"); code != exitDone || !strings.Contains(out, "linkerctl [flags] trace ID") {
		t.Errorf("exit %d, %s", code, out)
	}
}
