package tracing_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/pkg/mailbox/sqlite"
	"github.com/linkerhq/linker/pkg/topology"
	"github.com/linkerhq/linker/pkg/trace"
	"github.com/linkerhq/linker/processor/internal/tracing"
)

const lanes = 4

var (
	id   = ident.MessageID{1, 2, 3}
	noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
)

// network has the users 0 to 99 in domain d, 100 to 199 in e.
type network struct{ *topology.Snapshot }

func (n network) Current() *topology.Snapshot { return n.Snapshot }

func newNetwork(t *testing.T) network {
	t.Helper()
	s, err := topology.New(1, topology.Network{
		Domains: []topology.Domain{{Name: "d", URLs: []string{"tcp://127.0.0.1:1"}}, {Name: "e", URLs: []string{"tcp://127.0.0.1:2"}}},
		Links:   []topology.Link{{N1: "d", N2: "e", Insecure: true}},
		Apps:    []topology.App{{Name: "A", AppID: "a", Master: "A-0"}},
		Distributions: []topology.Distribution{
			{DomainName: "d", From: 0, To: 99}, {DomainName: "e", From: 100, To: 199},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return network{s}
}

// witness says what it is told to say.
type witness struct {
	report trace.Report
	asked  func(ctx context.Context, message ident.MessageID, users []ident.UserID)
}

func (w *witness) Ask(ctx context.Context, message ident.MessageID, users []ident.UserID) trace.Report {
	if w.asked != nil {
		w.asked(ctx, message, users)
	}
	r := w.report
	r.Events = slices.Clone(r.Events)
	return r
}

// happened makes events of words such as "d taken", "d stored>e" for the road to e, or
// "e proved A-5"; each is a second later than the one before.
func happened(t *testing.T, words ...string) trace.Report {
	t.Helper()
	var r trace.Report
	for i, w := range words {
		parts := strings.Fields(w)
		kind, towards, road := strings.Cut(parts[1], ">")
		e := trace.Event{
			At: noon.Add(time.Duration(i) * time.Second), Place: trace.Place{Domain: parts[0], Service: trace.Processor, Name: "p"}, Message: id, User: "A-1",
			Lane: 2, Offset: 7, Road: road, Peer: towards,
		}
		for _, k := range trace.Kinds() {
			if k.String() == kind {
				e.Kind = k
			}
		}
		if e.Kind == 0 {
			t.Fatalf("no kind %s", kind)
		}
		switch {
		case len(parts) > 2 && parts[2] == "group":
			e.User, e.Users = "", 3
		case len(parts) > 2:
			e.User = ident.UserID(parts[2])
		}
		if e.Kind == trace.Dead || e.Kind == trace.Refused {
			e.Reason = "WHY"
		}
		r.Events = append(r.Events, e)
		r.Asked = append(r.Asked, e.Place)
	}
	return r
}

type body struct {
	ID     string
	Events []map[string]any
	Where  []struct {
		User, State, Domain, Towards, Since, Reason string
		Users                                       int
	}
	Asked   map[string][]string
	Missing []string
	Cut     bool
}

func (b *body) places() string {
	var list []string
	for _, w := range b.Where {
		text := w.User
		if w.User == "" {
			text = fmt.Sprint(w.Users)
		}
		text += " " + w.State + " " + w.Domain
		if w.Towards != "" {
			text += ">" + w.Towards
		}
		if w.Reason != "" {
			text += " " + w.Reason
		}
		list = append(list, text)
	}
	return strings.Join(list, ", ")
}

func ask(t *testing.T, w tracing.Witness, path string) (int, string) {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("GET /v1/messages/{id}", tracing.Handler(w, newNetwork(t)))
	rec := httptest.NewRecorder()
	mux.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	return rec.Code, rec.Body.String()
}

func read(t *testing.T, w tracing.Witness) *body {
	t.Helper()
	code, text := ask(t, w, "/v1/messages/"+id.String())
	if code != http.StatusOK {
		t.Fatalf("got %d %s", code, text)
	}
	var b body
	if err := json.Unmarshal([]byte(text), &b); err != nil {
		t.Fatal(err)
	}
	return &b
}

func TestWhereAMessageIs(t *testing.T) {
	t.Parallel()
	row := func(domain string, wait trace.Wait, towards string) trace.Found {
		return trace.Found{Domain: domain, User: "A-1", Wait: wait, Towards: towards, Since: noon.Unix()}
	}
	for name, c := range map[string]struct {
		events  []string
		found   []trace.Found
		missing []string
		want    string
	}{
		"accepted":                  {events: []string{"d accepted"}, want: "A-1 on the way d"},
		"sent":                      {events: []string{"d accepted", "d taken", "d sent", "d reached"}, want: "A-1 on the way d"},
		"proved":                    {events: []string{"d taken", "d sent", "d proved"}, want: "A-1 delivered d"},
		"proved, and a copy":        {events: []string{"d taken", "d proved", "d duplicate"}, want: "A-1 delivered d"},
		"only its end remembered":   {events: []string{"d removed"}, want: "A-1 delivered d"},
		"only the confirmation":     {events: []string{"d confirmed"}, want: "A-1 delivered d"},
		"only a copy":               {events: []string{"d duplicate"}, want: "A-1 unknown d"},
		"in the mailbox":            {events: []string{"d taken", "d stored"}, found: []trace.Found{row("d", trace.InMailbox, "")}, want: "A-1 waiting in mailbox d"},
		"found without events":      {found: []trace.Found{row("d", trace.InMailbox, "")}, want: "A-1 waiting in mailbox d"},
		"one session has it":        {found: []trace.Found{{Domain: "d", User: "A-1", Wait: trace.InMailbox, Proved: true}}, want: "A-1 delivered d"},
		"stored, not found":         {events: []string{"d taken", "d stored"}, want: "A-1 unknown d"},
		"stored, mailbox away":      {events: []string{"d taken", "d stored"}, missing: []string{"d/mailbox"}, want: "A-1 waiting in mailbox d"},
		"stored, fetched, returned": {events: []string{"d stored", "d fetched", "d returned"}, found: []trace.Found{row("d", trace.InMailbox, "")}, want: "A-1 waiting in mailbox d"},
		"held":                      {events: []string{"d received", "d held"}, want: "A-1 held d"},
		"held, in the mailbox":      {events: []string{"d held"}, found: []trace.Found{row("d", trace.HeldBack, "")}, want: "A-1 held d"},
		"released":                  {events: []string{"d held", "d released"}, want: "A-1 on the way d"},
		"dead":                      {events: []string{"d taken", "d dead"}, want: "A-1 dead d WHY"},
		"dead and sent again":       {events: []string{"d taken", "d dead", "d taken"}, want: "A-1 on the way d"},
		"found among the dead":      {found: []trace.Found{{Domain: "d", User: "A-1", Wait: trace.Buried, Reason: "EXPIRED"}}, want: "A-1 dead d EXPIRED"},
		"sent again, and waiting":   {found: []trace.Found{{Domain: "d", User: "A-1", Wait: trace.Buried}, row("d", trace.InMailbox, "")}, want: "A-1 waiting in mailbox d"},
		"refused":                   {events: []string{"d refused"}, want: "A-1 refused d WHY"},
		"refused, then accepted":    {events: []string{"d refused", "d accepted"}, want: "A-1 on the way d"},
		"on its way":                {events: []string{"d accepted>e", "d taken>e", "d sent>e"}, want: "A-1 on the way d>e"},
		"waiting for the road":      {events: []string{"d taken>e", "d stored>e"}, found: []trace.Found{row("d", trace.OnRoad, "e")}, want: "A-1 waiting for road d>e"},
		"road, mailbox away":        {events: []string{"d taken>e", "d stored>e"}, missing: []string{"d/mailbox"}, want: "A-1 waiting for road d>e"},
		"handed over":               {events: []string{"d taken>e", "d stored>e", "d handed_over>e"}, want: "A-1 on the way d>e"},
		"the next one has it":       {events: []string{"d taken>e", "e received", "e taken", "d handed_over>e"}, want: "A-1 on the way e"},
		"home has it":               {events: []string{"d taken>f", "e received", "d handed_over>f", "f received", "e handed_over>f", "f taken"}, want: "A-1 on the way f"},
		"clocks differ":             {events: []string{"e received", "e taken", "e proved", "d taken>e", "d handed_over>e"}, want: "A-1 delivered e"},
		"it came back":              {events: []string{"d taken>e", "d handed_over>e", "e taken>d", "d received", "e handed_over>d"}, want: "A-1 on the way d"},
		"two members": {
			events: []string{"d accepted group", "d taken A-1", "d taken A-2", "d proved A-2"}, want: "A-1 on the way d, A-2 delivered d",
		},
		"a group on its way":    {events: []string{"d accepted>e group", "d taken>e group"}, want: "3 on the way d>e"},
		"a group that waits":    {events: []string{"d taken>e group"}, found: []trace.Found{{Domain: "d", Users: 3, Wait: trace.OnRoad, Towards: "e"}}, want: "3 waiting for road d>e"},
		"a group that is there": {events: []string{"d taken>e group", "e taken A-101", "e proved A-102"}, want: "A-101 on the way e, A-102 delivered e"},
	} {
		r := happened(t, c.events...)
		r.Found, r.Missing = c.found, c.missing
		if got := read(t, &witness{report: r}).places(); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

func TestAnAnswerTellsEventsByTimeAndWhoWasAsked(t *testing.T) {
	t.Parallel()
	r := happened(t, "d accepted", "d proved", "d dead")
	r.Events[0].At, r.Events[0].Place, r.Events[0].Session = noon.Add(time.Hour+123456*time.Microsecond), trace.Place{Domain: "d", Service: trace.Connector, Name: "c"}, 255
	r.Events[1].Peer, r.Events[1].Lane, r.Events[1].Offset = "c", trace.NoOffset, trace.NoOffset
	r.Asked, r.Missing, r.Cut = []trace.Place{{Domain: "d", Service: trace.Processor, Name: "p"}, {Domain: "d", Service: trace.Connector, Name: "c"}}, []string{"d/c2"}, true
	b := read(t, &witness{report: r})
	want := []map[string]any{
		{"at": "2026-11-21T12:00:01.000000Z", "domain": "d", "service": "processor", "name": "p", "kind": "proved", "user": "A-1", "peer": "c"},
		{"at": "2026-11-21T12:00:02.000000Z", "domain": "d", "service": "processor", "name": "p", "kind": "dead", "user": "A-1", "lane": 2.0, "offset": 7.0, "reason": "WHY"},
		{"at": "2026-11-21T13:00:00.123456Z", "domain": "d", "service": "connector", "name": "c", "kind": "accepted", "user": "A-1", "lane": 2.0, "offset": 7.0, "session": "ff"},
	}
	if fmt.Sprint(b.Events) != fmt.Sprint(want) {
		t.Errorf("got\n%v\nwant\n%v", b.Events, want)
	}
	if fmt.Sprint(b.Asked) != "map[d:[processor p connector c]]" || fmt.Sprint(b.Missing) != "[d/c2 e]" || !b.Cut || b.ID != id.String() {
		t.Errorf("got %+v", b)
	}
}

func TestWhatCannotBeAnsweredIsSaid(t *testing.T) {
	t.Parallel()
	var asked []ident.UserID
	w := &witness{report: trace.Report{Missing: []string{"d/c2"}}, asked: func(_ context.Context, _ ident.MessageID, users []ident.UserID) { asked = users }}
	code, text := ask(t, w, "/v1/messages/"+id.String()+"?user=A-1&user=A-2")
	if code != http.StatusNotFound || !strings.Contains(text, "message "+id.String()+" is not known") || !strings.Contains(text, "these did not answer: [d d/c2 e]") {
		t.Errorf("got %d %s", code, text)
	}
	if !slices.Equal(asked, []ident.UserID{"A-1", "A-2"}) {
		t.Errorf("asked for %v", asked)
	}
	for path, want := range map[string]string{
		"/v1/messages/x": `message id "x": 1 characters, expected 22`,
		"/v1/messages/" + id.String() + "?user=A":                             `user: user id "A" is not <appName>-<number>`,
		"/v1/messages/" + id.String() + "?" + strings.Repeat("user=A-1&", 17): "user: 17 of them, expected at most 16",
	} {
		if code, text := ask(t, w, path); code != http.StatusBadRequest || !strings.Contains(text, want) {
			t.Errorf("%s: got %d %s, want %s", path, code, text, want)
		}
	}
}

func TestNotEverybodyAsksAtOnce(t *testing.T) {
	t.Parallel()
	inside, goOn := make(chan struct{}), make(chan struct{})
	w := &witness{report: happened(t, "d taken"), asked: func(context.Context, ident.MessageID, []ident.UserID) {
		inside <- struct{}{}
		<-goOn
	}}
	mux := http.NewServeMux()
	mux.Handle("GET /v1/messages/{id}", tracing.Handler(w, newNetwork(t)))
	get := func() int {
		rec := httptest.NewRecorder()
		mux.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/messages/"+id.String(), nil))
		return rec.Code
	}
	codes := make(chan int, 4)
	for range 4 {
		go func() { codes <- get() }()
		<-inside
	}
	if code := get(); code != http.StatusTooManyRequests {
		t.Errorf("the fifth gets %d", code)
	}
	close(goOn)
	for range 4 {
		if code := <-codes; code != http.StatusOK {
			t.Errorf("got %d", code)
		}
	}
}

// newRows returns the mailbox of domain d with what waits in it.
func newRows(t *testing.T, list ...mailbox.Row) *tracing.Rows {
	t.Helper()
	store, err := sqlite.Open(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	if len(list) > 0 {
		if err := store.Put(t.Context(), list); err != nil {
			t.Fatal(err)
		}
	}
	return &tracing.Rows{Domain: "d", Generation: 1, Lanes: lanes, Store: store, Network: newNetwork(t)}
}

// stored is a row with a message for users.
func stored(target string, offset int64, message ident.MessageID, users ...ident.UserID) mailbox.Row {
	e := envelope.Envelope{Kind: envelope.KindMessage, ID: message, From: "A-2", Frame: []byte("x")}
	for _, user := range users {
		e.To = append(e.To, envelope.Recipient{User: user})
	}
	r := mailbox.Row{To: target, Pos: envelope.Position{Generation: 1, Offset: offset}, ID: message, Lane: 1, Stored: noon.Unix(), Record: e.Append(nil)}
	if strings.Contains(target, "/") {
		r.ID = ident.MessageID{99, byte(offset), byte(offset >> 8)}
	}
	return r
}

func TestTheMailboxIsLookedAtWhereAMessageMayWait(t *testing.T) {
	t.Parallel()
	other := ident.MessageID{7}
	r := newRows(t,
		stored("A-1", 5, id, "A-1"), stored("A-1", 6, other, "A-1"), stored("hold/A-3", 8, id, "A-3"), stored("link/e/1", 9, id, "A-101"),
		stored("link/e/2", 10, id, "A-102", "A-103"), stored("link/e/1", 11, other, "A-101"),
	)
	found, err := r.Look(t.Context(), id, []trace.Look{
		{User: "A-1", Lane: 1, Offset: 5},
		{User: "A-1", Lane: 1, Offset: 6},
		{User: "A-1", Lane: 1, Offset: 4},
		{User: "A-3", Lane: 1, Offset: 8},
		{User: "A-101", Lane: 1, Offset: 9},
		{Towards: "e", Lane: 2, Offset: 10},
		{Towards: "e", Lane: 1, Offset: 11},
		{Towards: "e", Lane: 3, Offset: 12},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []trace.Found{
		{Domain: "d", User: "A-1", Wait: trace.InMailbox, Since: noon.Unix()},
		{Domain: "d", User: "A-3", Wait: trace.HeldBack, Since: noon.Unix()},
		{Domain: "d", User: "A-101", Wait: trace.OnRoad, Towards: "e", Since: noon.Unix()},
		{Domain: "d", Users: 2, Wait: trace.OnRoad, Towards: "e", Since: noon.Unix()},
	}
	if !slices.Equal(found, want) {
		t.Errorf("got\n%+v\nwant\n%+v", found, want)
	}
}

func TestTheWholeMailboxOfAUserIsLookedThrough(t *testing.T) {
	t.Parallel()
	var list []mailbox.Row
	for n := range int64(300) {
		list = append(list, stored("A-1", n, ident.MessageID{8, byte(n), byte(n >> 8)}, "A-1"), stored("link/e/3", n, ident.MessageID{9, byte(n), byte(n >> 8)}, "A-101"))
	}
	r := newRows(t, append(list, stored("A-1", 2000, id, "A-1"), stored("link/e/3", 2000, id, "A-101"))...)
	err := r.Store.(interface {
		PutDead(ctx context.Context, letters []mailbox.DeadLetter) error
	}).PutDead(t.Context(), []mailbox.DeadLetter{{
		Pos: envelope.Position{Generation: 1, Offset: 3}, Reason: "EXPIRED", At: noon.UnixMilli(), Users: []ident.UserID{"A-4"}, Lane: 1, Offset: 4, Record: stored("A-4", 1, id, "A-4").Record,
	}})
	if err != nil {
		t.Fatal(err)
	}
	found, whole, err := r.Scan(t.Context(), id, []ident.UserID{"A-1", "A-101", "A-4", "A-5"})
	want := []trace.Found{
		{Domain: "d", User: "A-1", Wait: trace.InMailbox, Since: noon.Unix()},
		{Domain: "d", User: "A-101", Wait: trace.OnRoad, Towards: "e", Since: noon.Unix()},
		{Domain: "d", User: "A-4", Wait: trace.Buried, Reason: "EXPIRED", Since: noon.Unix()},
	}
	if err != nil || !whole || !slices.Equal(found, want) {
		t.Errorf("got\n%+v, %v, %v\nwant\n%+v", found, whole, err, want)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, whole, err := r.Scan(over, id, []ident.UserID{"A-1"}); err != nil || whole {
		t.Errorf("without time: %v, %v", whole, err)
	}
	r.Store = broken{}
	if _, whole, err := r.Scan(t.Context(), id, []ident.UserID{"A-1"}); err == nil || whole {
		t.Errorf("a store that is away: %v, %v", whole, err)
	}
	if _, err := r.Look(t.Context(), id, []trace.Look{{User: "A-1"}}); err == nil {
		t.Error("a store that is away is no error")
	}
}

type broken struct{}

var errAway = errors.New("away")

func (broken) Read(context.Context, mailbox.Query) ([]mailbox.Row, bool, error) {
	return nil, false, errAway
}

func (broken) ListDead(context.Context, mailbox.DeadQuery) ([]mailbox.DeadLetter, bool, error) {
	return nil, false, errAway
}
