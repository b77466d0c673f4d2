package main

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/pkg/mailbox/sqlite"
	"github.com/linkerhq/linker/pkg/run"
	"github.com/linkerhq/linker/pkg/topology"
	"github.com/linkerhq/linker/processor/internal/deadletters"
)

const token = "a-token-of-operators"

// log takes every record.
type log struct{ records atomic.Int32 }

func (l *log) Append(_ int, _ string, _ []byte, done func(int64, error)) error {
	l.records.Add(1)
	done(0, nil)
	return nil
}

type network struct{ *topology.Snapshot }

func (n network) Current() *topology.Snapshot { return n.Snapshot }

// processor is the HTTP port of one with three dead letters, for those who have the token.
func processor(t *testing.T) (url string, out *log) {
	t.Helper()
	store, err := sqlite.Open(t.TempDir(), slog.New(slog.DiscardHandler))
	must(t, err)
	t.Cleanup(func() { must(t, store.Close()) })
	letter := func(offset int64, reason string, users ...ident.UserID) mailbox.DeadLetter {
		e := envelope.Envelope{
			Kind: envelope.KindMessage, From: "A-9", ID: ident.StreamMessageID(1, "A-1", uint64(offset)), CreatedAt: 1_700_000_000_000,
			Reference: "ref\x1b[31m", Frame: []byte(`{"type":"MESSAGE","data":{"content":"hello"}}`),
		}
		for _, u := range users {
			e.To = append(e.To, envelope.Recipient{User: u, N: 1})
		}
		return mailbox.DeadLetter{
			Pos: envelope.Position{Generation: 1, Offset: offset}, Reason: reason, At: 1_700_000_000_000 + 1000*offset, Users: users, Lane: 2, Offset: -1, Record: e.Append(nil),
		}
	}
	bad := letter(3, "UNDECODABLE", "A-1")
	bad.Record = []byte("\x1b")
	must(t, store.PutDead(t.Context(), []mailbox.DeadLetter{letter(1, "EXPIRED", "A-1"), letter(2, "MAILBOX_FULL", "A-2", "A-3", "A-4"), bad}))
	s, err := topology.New(1, topology.Network{
		Domains: []topology.Domain{{Name: "d", URLs: []string{"ws://127.0.0.1:1"}}}, Apps: []topology.App{{Name: "A", AppID: "a", Master: "A-0"}},
	})
	must(t, err)
	out = &log{}
	letters, err := deadletters.New(deadletters.Config{
		Domain: "d", Lanes: 4, Generation: 1, Store: store, Log: out, Network: network{s}, Logger: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	})
	must(t, err)
	mux := http.NewServeMux()
	for pattern, handler := range letters.Handlers() {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer "+token {
				http.Error(w, "no", http.StatusUnauthorized)
				return
			}
			handler.ServeHTTP(w, r)
		})
	}
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL, out
}

// ctlOf runs the program.
func ctlOf(t *testing.T, environ []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = execute(t.Context(), run.Process{Args: args, Environ: environ, Stdout: &out, Stderr: &errs})
	return code, out.String(), errs.String()
}

func TestAnOperatorListsShowsReplaysAndPurgesDeadLetters(t *testing.T) {
	t.Parallel()
	url, out := processor(t)
	step := func(want string, args ...string) {
		t.Helper()
		code, stdout, stderr := ctlOf(t, []string{tokenVariable + "=" + token}, append([]string{"--url", url}, args...)...)
		if code != exitDone || stderr != "" || stdout != want {
			t.Errorf("%v: code %d\n%s%s\nwant\n%s", args, code, stdout, stderr, want)
		}
	}
	const head = "ID   REASON        DIED                      FOR             FROM  KIND     BYTES  MESSAGE\n"
	step(head+
		"1-1  EXPIRED       2023-11-14T22:13:21.000Z  A-1             A-9   message  98     "+ident.StreamMessageID(1, "A-1", 1).String()+"\n"+
		"1-2  MAILBOX_FULL  2023-11-14T22:13:22.000Z  A-2 and 2 more  A-9   message  108    "+ident.StreamMessageID(1, "A-1", 2).String()+"\n"+
		"1-3  UNDECODABLE   2023-11-14T22:13:23.000Z  A-1             -     -        1      -\n", "dead", "list")
	step("ID   REASON   DIED                      FOR  FROM  KIND     BYTES  MESSAGE\n"+
		"1-1  EXPIRED  2023-11-14T22:13:21.000Z  A-1  A-9   message  98     "+ident.StreamMessageID(1, "A-1", 1).String()+"\n"+
		"there are more: --after 1-1\n", "dead", "list", "--limit", "1", "--user=A-1")
	step("no dead letters in d\n", "dead", "list", "--reason", "NO_ROUTE")
	step("no dead letters in d\n", "dead", "list", "--before", "2023-11-14T22:13:21Z")
	step(`{
  "domain": "d",
  "letters": [
    {
      "id": "1-3",
      "domain": "d",
      "reason": "UNDECODABLE",
      "at": 1700000003000,
      "user": "A-1",
      "size": 1,
      "lane": 2
    }
  ]
}
`, "--json", "dead", "list", "--after", "1-2")
	step("id         1-1\ndomain     d\nreason     EXPIRED\ndied       2023-11-14T22:13:21.000Z\nfor        A-1\nfrom       A-9\nkind       message\n"+
		"message    "+ident.StreamMessageID(1, "A-1", 1).String()+"\nreference  ref�[31m\ncreated    2023-11-14T22:13:20.000Z\nsize       98 bytes\nlane       2\n"+
		`frame      {"type":"MESSAGE","data":{"content":"hello"}}`+"\n", "dead", "show", "1-1", "--content")
	step("replayed: 1\n", "dead", "replay", "1-1")
	step("replayed: 1\nleft, since they can never be replayed: 1\n", "dead", "replay", "--all")
	if n := out.records.Load(); n < 2 || n > 4 { // one for each lane with receivers
		t.Errorf("%d records", n)
	}
	step("{\n  \"purged\": 0\n}\n", "dead", "purge", "--before", "100000h", "--json")
	step("purged: 1\n", "dead", "purge", "1-3")
	step("no dead letters in d\n", "dead", "list")
}

func TestWhatCannotBeDoneIsSaidInWordsAndByTheExitCode(t *testing.T) {
	t.Parallel()
	url, _ := processor(t)
	file := filepath.Join(t.TempDir(), "token")
	must(t, os.WriteFile(file, []byte(token+"\n"), 0o600))
	empty := filepath.Join(t.TempDir(), "empty")
	must(t, os.WriteFile(empty, []byte("\n"), 0o600))
	good := []string{"--url", url, "--token-file", file}
	with := func(args ...string) []string { return append(append([]string{}, good...), args...) }
	for what, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"no command":           {nil, exitUsage, "expected a command: "},
		"another command":      {[]string{"undead"}, exitUsage, `unknown command "undead", expected dead`},
		"another flag":         {[]string{"--urls", "x"}, exitUsage, "flag provided but not defined: -urls"},
		"no address":           {[]string{"--url", "processor:8081", "dead", "list"}, exitUsage, "--url: expected http://HOST:PORT"},
		"a password":           {[]string{"--url", "http://u:p@h:1", "dead", "list"}, exitUsage, "without a user"},
		"nobody there":         {[]string{"--url", "http://127.0.0.1:1", "dead", "list"}, exitFailed, "the processor at 127.0.0.1:1 cannot be asked: "},
		"no token":             {[]string{"--url", url, "dead", "list"}, exitFailed, "wants a token"},
		"no file":              {[]string{"--token-file", file + "x", "dead", "list"}, exitFailed, "the token: open "},
		"an empty file":        {[]string{"--token-file", empty, "dead", "list"}, exitFailed, "expected one line with it"},
		"what about them":      {with("dead"), exitUsage, "expected list, show ID, replay or purge"},
		"another verb":         {with("dead", "bury"), exitUsage, `unknown "bury"`},
		"another flag of list": {with("dead", "list", "--users", "x"), exitUsage, "dead list: flag provided but not defined"},
		"an argument":          {with("dead", "list", "1-1"), exitUsage, `unexpected "1-1"`},
		"a bad limit":          {with("dead", "list", "--limit", "0"), exitFailed, `limit "0": expected a whole number from 1 to 500`},
		"a bad time":           {with("dead", "list", "--before", "-1h"), exitUsage, `--before "-1h": expected a time`},
		"show nothing":         {with("dead", "show"), exitUsage, "expected the ID of one letter"},
		"show what is not":     {with("dead", "show", "1-77"), exitFailed, "there is no dead letter 1-77"},
		"a bad id":             {with("dead", "show", "../../metrics"), exitFailed, "expected that of a dead letter"},
		"replay what cannot":   {with("dead", "replay", "1-3"), exitFailed, "cannot be replayed, only purged"},
		"purge what":           {with("dead", "purge"), exitUsage, "expected the IDs of letters, or --user"},
		"both":                 {with("dead", "purge", "1-1", "--all"), exitUsage, "expected IDs or a filter, not both"},
		"all and some":         {with("dead", "replay", "--all", "--user", "A-1"), exitUsage, "expected --all, or --user"},
		"some that are not":    {with("dead", "purge", "1-78", "1-79"), exitFailed, "1-79"},
	} {
		code, _, stderr := ctlOf(t, nil, c.args...)
		if code != c.code || !strings.Contains(stderr, c.want) || !strings.HasPrefix(stderr, "linkerctl: ") {
			t.Errorf("%s: code %d, %s; want %d and %s", what, code, stderr, c.code, c.want)
		}
		if strings.Contains(stderr, token) {
			t.Errorf("%s: the token is told: %s", what, stderr)
		}
	}
	if code, stdout, _ := ctlOf(t, []string{tokenVariable + "_FILE=" + file}, "--url", url, "dead", "list"); code != exitDone || !strings.Contains(stdout, "1-3") {
		t.Errorf("bad requests have changed something, or the file of the variable is not read: %d %s", code, stdout)
	}
}

func TestHelpAndVersion(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--help"}, {"dead", "--help"}, {"dead", "list", "--help"}, {"dead", "replay", "-h"}, {"dead", "purge", "--help"}, {"dead", "show", "--help"}, {"--version"}} {
		code, stdout, stderr := ctlOf(t, nil, args...)
		if code != exitDone || stderr != "" || !strings.Contains(stdout, "linkerctl") {
			t.Errorf("%v: %d %q %q", args, code, stdout, stderr)
		}
	}
}

func TestManyLettersTakeSeveralRequests(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var asked []string // guarded by mu
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked = append(asked, r.Method+" "+r.URL.String())
		mu.Unlock()
		body := map[string]string{
			"POST /v1/dead/replay?all=true":                       `{"replayed":5,"refused":1,"next":"1-9","before":77}`,
			"POST /v1/dead/replay?after=1-9&all=true&before=77":   `{"replayed":3,"refused":0,"next":"1-12","before":77}`,
			"POST /v1/dead/replay?after=1-12&all=true&before=77":  `{"replayed":1,"refused":0,"before":77}`,
			"DELETE /v1/dead?reason=EXPIRED":                      `{"purged":500,"more":true,"before":78}`,
			"DELETE /v1/dead?before=78&reason=EXPIRED":            `{"purged":4,"before":78}`,
			"POST /v1/dead/replay?user=A-1":                       `{"replayed":2,"refused":0,"next":"1-9","before":77}`,
			"POST /v1/dead/replay?after=1-9&before=77&user=A-1":   `nonsense`,
			"GET /v1/dead?limit=50":                               `[]`,
			"DELETE /v1/dead?before=1700000000000&reason=EXPIRED": `{"purged":0}`,
		}[r.Method+" "+r.URL.String()]
		if body == "" {
			http.Error(w, "unexpected", http.StatusTeapot)
			return
		}
		_, _ = w.Write([]byte(body))
	}))
	defer server.Close()
	for _, c := range []struct {
		code int
		want string
		args []string
	}{
		{exitDone, "replayed: 9\nleft, since they can never be replayed: 1\n", []string{"dead", "replay", "--all"}},
		{exitDone, "purged: 504\n", []string{"dead", "purge", "--reason", "EXPIRED"}},
		{exitFailed, "replayed: 2\n", []string{"dead", "replay", "--user", "A-1"}},
		{exitFailed, "", []string{"dead", "list"}},
		{exitFailed, "", []string{"dead", "list", "--limit", "7"}},
	} {
		code, stdout, stderr := ctlOf(t, nil, append([]string{"--url", server.URL}, c.args...)...)
		if code != c.code || stdout != c.want {
			mu.Lock()
			t.Errorf("%v: %d %q %q, want %d %q; asked %v", c.args, code, stdout, stderr, c.code, c.want, asked)
			mu.Unlock()
		}
	}
}

func TestATokenIsNotShownToWhoeverTheProcessorNames(t *testing.T) {
	t.Parallel()
	var shown atomic.Bool
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { shown.Store(true) }))
	defer other.Close()
	server := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	defer server.Close()
	code, _, stderr := ctlOf(t, []string{tokenVariable + "=" + token}, "--url", server.URL, "dead", "list")
	if code != exitFailed || !strings.Contains(stderr, "answers 307") || shown.Load() {
		t.Errorf("%d %s, followed %v", code, stderr, shown.Load())
	}
}

func TestMoments(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	for text, want := range map[string]time.Time{"48h": now.Add(-48 * time.Hour), "0s": now, "2023-11-14T22:13:20Z": now, "2023-11-14T23:13:20+01:00": now} {
		if got, err := moment(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%s is %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "yesterday", "-1h", "1000000h", "1969-01-01T00:00:00Z", "5"} {
		var wrong usageError
		if got, err := moment(text, now); !errors.As(err, &wrong) {
			t.Errorf("%s is %v, %v", text, got, err)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
