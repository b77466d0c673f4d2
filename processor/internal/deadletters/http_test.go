package deadletters_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/broker/kafka"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/pkg/polltest"
	"github.com/linkerhq/linker/pkg/topology"
	"github.com/linkerhq/linker/processor/internal/deadletters"
)

// log takes everything, or says why not.
type log struct {
	refuse, fail error

	mu    sync.Mutex
	taken []written // guarded by mu
}

func (l *log) Append(lane int, key string, value []byte, done func(int64, error)) error {
	if l.refuse != nil {
		return l.refuse
	}
	e, err := envelope.Decode(value)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.taken = append(l.taken, written{lane, key, e})
	go done(int64(len(l.taken)), l.fail) // from another goroutine, as the producer does
	return nil
}

// take returns what was taken since the last call.
func (l *log) take() []written {
	l.mu.Lock()
	defer l.mu.Unlock()
	taken := l.taken
	l.taken = nil
	return taken
}

// filled is a domain with letters of several kinds and a log that takes everything.
func filled(t *testing.T) (*domain, *log) {
	t.Helper()
	d := &domain{t: t, store: newStore(t)}
	group := message("A-1", "A-2", 5)
	group.To = append(group.To, envelope.Recipient{User: "A-150", N: 1}, envelope.Recipient{User: "A-3", N: 1})
	undecodable := stored(6, message("A-1", "A-2", 6), "UNDECODABLE") // the program has failed on it
	windows := envelope.Envelope{Kind: envelope.KindWindows, To: []envelope.Recipient{{User: "A-2"}}, Frame: []byte{1}, Moved: true}
	put(
		t, d.store, stored(1, message("A-1", "A-2", 1), "EXPIRED"), stored(2, message("A-1", "A-2", 2), "MAILBOX_FULL"),
		stored(3, message("A-1", "A-3", 3), "EXPIRED"), stored(4, message("A-1", "B-1", 4), "UNKNOWN_APP"),
		stored(5, group, "HOPS_EXHAUSTED"), undecodable, stored(7, windows, "MAILBOX_FULL"),
	)
	return d, &log{}
}

func TestLettersAreListedByFilterAndPageByPage(t *testing.T) {
	t.Parallel()
	d, _ := filled(t)
	letters, _ := d.letters(nil)
	s := server(t, letters)
	for query, want := range map[string]string{
		"":                                 "1-1 1-2 1-3 1-4 1-5 1-6 1-7",
		"?user=A-2":                        "1-1 1-2 1-5 1-6 1-7",
		"?user=A-3":                        "1-3 1-5",
		"?user=A-99":                       "",
		"?reason=EXPIRED":                  "1-1 1-3",
		"?reason=EXPIRED&user=A-2":         "1-1",
		"?reason=NO_ROUTE":                 "",
		"?before=1700000000003":            "1-1 1-2",
		"?before=2023-11-14T22:13:20.003Z": "1-1 1-2",
		"?after=1-5":                       "1-6 1-7",
		"?limit=2":                         "1-1 1-2, next 1-2",
		"?limit=2&after=1-2":               "1-3 1-4, next 1-4",
		"?limit=1&after=1-1&user=A-2":      "1-2, next 1-2",
		"?limit=2&after=1-5":               "1-6 1-7",
	} {
		found, next := list(t, s, query)
		got := ids(found)
		if next != "" {
			got += ", next " + next
		}
		if got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
}

func TestTheMessageIsShownOnlyWhenItIsAskedFor(t *testing.T) {
	t.Parallel()
	d, _ := filled(t)
	put(t, d.store, mailbox.DeadLetter{Pos: envelope.Position{Generation: 1, Offset: 8}, Reason: "UNDECODABLE", At: 1, Lane: -1, Offset: -1, Record: []byte{1, 2, 255}})
	letters, _ := d.letters(nil)
	s := server(t, letters)
	one := func(path string) (l shown, body string) {
		t.Helper()
		body = request(t, s, "GET", path, http.StatusOK)
		must(t, json.Unmarshal([]byte(body), &l))
		return l, body
	}
	for _, path := range []string{"/v1/dead/1-1", "/v1/dead/1-1?content=false"} {
		if l, body := one(path); l.ID != "1-1" || l.Frame != "" || strings.Contains(body, content) {
			t.Errorf("%s: %s", path, body)
		}
	}
	if l, body := one("/v1/dead/1-1?content=true"); l.Frame != string(message("A-1", "A-2", 1).Frame) || l.Raw != "" {
		t.Errorf("with its message: %s", body)
	}
	if l, body := one("/v1/dead/1-8?content=true"); l.Frame != "" || l.Raw != base64.StdEncoding.EncodeToString([]byte{1, 2, 255}) {
		t.Errorf("undecodable: %s", body)
	}
	if l, body := one("/v1/dead/1-8"); strings.Contains(body, "lane") || strings.Contains(body, "offset") || l.Size != 3 {
		t.Errorf("of no known place: %s", body)
	}
	if l, _ := one("/v1/dead/1-5"); !slices.Equal(slices.Sorted(slices.Values(l.Users)), []string{"A-150", "A-2", "A-3"}) || !slices.Contains(l.Users, l.User) {
		t.Errorf("a group: %s, %v", l.User, l.Users)
	}
}

func TestAReplayedLetterIsAnOrdinaryRecordUnderItsOldIDMarkedAsLate(t *testing.T) {
	t.Parallel()
	d := newDomain(t)
	letters, metrics := d.letters(nil)
	d.keep(letters)
	records := d.records()
	dead := message("A-150", "A-1", 1)
	d.bury(dead, "EXPIRED")
	s := server(t, letters)
	polltest.Eventually(t, "the letter is listed", func() bool { letters, _ := list(t, s, ""); return len(letters) == 1 })
	if got := request(t, s, "POST", "/v1/dead/1-0/replay", http.StatusOK); got != `{"replayed":1,"refused":0}` {
		t.Errorf("the answer is %s", got)
	}
	want := envelope.Envelope{
		Kind: envelope.KindMessage, Confirm: true, Remember: true, Late: true, ID: dead.ID, From: "A-150", CreatedAt: dead.CreatedAt, Reference: "ref",
		To: []envelope.Recipient{{User: "A-1"}}, Frame: dead.Frame, Path: []string{"e"}, Home: "e",
	}
	select {
	case got := <-records:
		if got.lane != ident.UserID("A-1").Lane(lanes) || got.key != "A-1" || string(got.Append(nil)) != string(want.Append(nil)) || !got.Replayed() {
			t.Errorf("in lane %d under %s:\n%+v, want\n%+v", got.lane, got.key, got.Envelope, want)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("nothing was written")
	}
	if found, _ := list(t, s, ""); len(found) != 0 {
		t.Errorf("still listed: %s", ids(found))
	}
	request(t, s, "POST", "/v1/dead/1-0/replay", http.StatusNotFound)
	if n := counted(t, metrics, "linker_dead_letters_replayed_total"); n != 1 {
		t.Errorf("%v replayed", n)
	}
}

func TestReceiversAtHomeHereGetAReplayInTheirLanesTheOthersInTheSenders(t *testing.T) {
	t.Parallel()
	d, out := filled(t)
	presence := envelope.Envelope{Kind: envelope.KindPresence, From: "A-1", To: []envelope.Recipient{{User: "A-101", N: 3}}, Stream: 8, Frame: []byte("{}")}
	confirmation := envelope.Envelope{Kind: envelope.KindConfirmation, From: "A-1", To: []envelope.Recipient{{User: "A-500"}}, Home: "e", Path: []string{"d", "e"}, Frame: []byte("{}")}
	put(t, d.store, stored(10, presence, "MAILBOX_FULL"), stored(11, confirmation, "NO_ROUTE"))
	letters, _ := d.letters(func(c *deadletters.Config) { c.Log = out })
	s := server(t, letters)
	lane := func(u ident.UserID) int { return u.Lane(lanes) }
	for _, c := range []struct {
		id   string
		want []written
	}{
		{"1-2", []written{{lane("A-2"), "A-2", envelope.Envelope{To: []envelope.Recipient{{User: "A-2"}}, Path: []string{"e"}}}}},
		{"1-4", []written{{lane("B-1"), "B-1", envelope.Envelope{To: []envelope.Recipient{{User: "B-1"}}, Path: []string{"e"}}}}},
		{"1-5", []written{
			{lane("A-2"), "A-2", envelope.Envelope{To: []envelope.Recipient{{User: "A-2"}}, Path: []string{"e"}}},
			{lane("A-1"), "A-1", envelope.Envelope{To: []envelope.Recipient{{User: "A-150"}}, Path: []string{"e"}}},
			{lane("A-3"), "A-3", envelope.Envelope{To: []envelope.Recipient{{User: "A-3"}}, Path: []string{"e"}}},
		}},
		{"1-10", []written{{lane("A-1"), "A-1", envelope.Envelope{To: []envelope.Recipient{{User: "A-101"}}}}}},
		{"1-11", []written{{lane("A-1"), "A-1", envelope.Envelope{To: []envelope.Recipient{{User: "A-500"}}, Home: "e"}}}},
	} {
		request(t, s, "POST", "/v1/dead/"+c.id+"/replay", http.StatusOK)
		taken := out.take()
		if len(taken) != len(c.want) {
			t.Errorf("%s: %d records, want %d: %+v", c.id, len(taken), len(c.want), taken)
			continue
		}
		for i, want := range c.want {
			got := taken[i]
			if got.lane != want.lane || got.key != want.key || len(got.To) != 1 || got.To[0] != want.To[0] || strings.Join(got.Path, " ") != strings.Join(want.Path, " ") {
				t.Errorf("%s: record %d in lane %d under %s to %v, path %v; want lane %d under %s to %v, path %v",
					c.id, i, got.lane, got.key, got.To, got.Path, want.lane, want.key, want.To, want.Path)
			}
			if !got.Replayed() || got.Released || got.Moved || got.Network != 0 || c.id == "1-11" && got.Home != "e" {
				t.Errorf("%s: record %d is %+v", c.id, i, got.Envelope)
			}
		}
	}
}

func TestWhatNoLaneCouldReadIsNotReplayed(t *testing.T) {
	t.Parallel()
	d, out := filled(t)
	letters, _ := d.letters(func(c *deadletters.Config) { c.Log = out })
	s := server(t, letters)
	for id, want := range map[string]string{"1-6": "could not be decoded", "1-7": "kind windows, expected message"} {
		if got := request(t, s, "POST", "/v1/dead/"+id+"/replay", http.StatusConflict); !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", id, got, want)
		}
	}
	var answer struct{ Replayed, Refused int }
	must(t, json.Unmarshal([]byte(request(t, s, "POST", "/v1/dead/replay?all=true", http.StatusOK)), &answer))
	if answer.Replayed != 5 || answer.Refused != 2 {
		t.Errorf("of all: %+v", answer)
	}
	if found, n := first(list(t, s, "")), len(out.take()); ids(found) != "1-6 1-7" || n != 7 {
		t.Errorf("left are %s, %d records", ids(found), n)
	}
}

func TestManyAreReplayedOrPurgedByFilterButNotWhatIsReportedMeanwhile(t *testing.T) {
	t.Parallel()
	d := &domain{t: t, store: newStore(t)}
	out := &log{}
	letters, metrics := d.letters(func(c *deadletters.Config) { c.Log = out })
	s := server(t, letters)
	var many []mailbox.DeadLetter
	for n := range int64(1300) {
		many = append(many, stored(n, message("A-1", ident.UserID([]string{"A-2", "A-3"}[n%2]), uint64(n+1)), "EXPIRED"))
	}
	future := stored(5000, message("A-1", "A-2", 5000), "EXPIRED")
	future.At = time.Now().Add(time.Hour).UnixMilli()
	put(t, d.store, append(many, future)...)
	if got := request(t, s, "POST", "/v1/dead/replay?user=A-2", http.StatusOK); !strings.HasPrefix(got, `{"replayed":650,"refused":0,"before":`) {
		t.Errorf("replayed: %s", got)
	}
	for i, got := range out.take() {
		if got.User() != "A-2" || got.ID != idOf(t, &many[2*i]) {
			t.Fatalf("record %d is for %s: %s", i, got.User(), got.ID)
		}
	}
	if got := request(t, s, "DELETE", "/v1/dead?before=1700000000100", http.StatusOK); !strings.HasPrefix(got, `{"purged":50,`) {
		t.Errorf("purged: %s", got)
	}
	if got := request(t, s, "DELETE", "/v1/dead?all=true", http.StatusOK); !strings.HasPrefix(got, `{"purged":600,`) || strings.Contains(got, "more") {
		t.Errorf("purged: %s", got)
	}
	if found, _ := list(t, s, ""); ids(found) != "1-5000" {
		t.Errorf("left are %s", ids(found))
	}
	if got := request(t, s, "DELETE", "/v1/dead/1-5000", http.StatusOK); got != `{"purged":1}` {
		t.Errorf("purged: %s", got)
	}
	request(t, s, "DELETE", "/v1/dead/1-5000", http.StatusNotFound)
	if n := counted(t, metrics, "linker_dead_letters_purged_total"); n != 651 {
		t.Errorf("%v purged", n)
	}
}

func TestALetterStaysUntilTheLogHasIt(t *testing.T) {
	t.Parallel()
	for what, out := range map[string]*log{
		"the log takes nothing":     {refuse: kafka.ErrUnavailable},
		"the log does not say so":   {fail: kafka.ErrStopped},
		"the log finds it too long": {fail: kafka.ErrTooLarge},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			d, _ := filled(t)
			letters, metrics := d.letters(func(c *deadletters.Config) { c.Log = out })
			s := server(t, letters)
			text := errors.Join(out.refuse, out.fail).Error()
			for _, path := range []string{"/v1/dead/1-1/replay", "/v1/dead/replay?all=true"} {
				if got := request(t, s, "POST", path, http.StatusServiceUnavailable); !strings.Contains(got, text) {
					t.Errorf("%s: %s, want %s", path, got, text)
				}
			}
			if found, _ := list(t, s, ""); len(found) != 7 {
				t.Errorf("left are %s", ids(found))
			}
			if n := counted(t, metrics, "linker_dead_letters_replayed_total"); n != 0 {
				t.Errorf("%v replayed", n)
			}
		})
	}
}

// unknown is a network that has not come yet.
type unknown struct{}

func (unknown) Current() *topology.Snapshot { return nil }

func TestNothingIsReplayedBeforeTheNetworkIsKnown(t *testing.T) {
	t.Parallel()
	d, out := filled(t)
	letters, _ := d.letters(func(c *deadletters.Config) { c.Log, c.Network = out, unknown{} })
	s := server(t, letters)
	for _, path := range []string{"/v1/dead/1-1/replay", "/v1/dead/replay?all=true"} {
		if got := request(t, s, "POST", path, http.StatusServiceUnavailable); !strings.Contains(got, "description of the network") {
			t.Errorf("%s: %s", path, got)
		}
	}
	if n := len(out.take()); n != 0 {
		t.Errorf("%d records", n)
	}
}

func TestBadRequestsSayWhatWasExpectedAndChangeNothing(t *testing.T) {
	t.Parallel()
	d, out := filled(t)
	letters, _ := d.letters(func(c *deadletters.Config) { c.Log = out })
	s := server(t, letters)
	for asked, want := range map[string]string{
		"GET /v1/dead?limit=0":                             `limit "0": expected a whole number from 1 to 500`,
		"GET /v1/dead?limit=501":                           `limit "501"`,
		"GET /v1/dead?limit=ten":                           `limit "ten"`,
		"GET /v1/dead?after=5":                             `after "5": expected the id of a dead letter`,
		"GET /v1/dead?user=A":                              `user "A": expected a user id`,
		"GET /v1/dead?user=":                               `user "": expected a user id`,
		"GET /v1/dead?reason=":                             `reason "": expected one such as EXPIRED`,
		"GET /v1/dead?before=yesterday":                    `before "yesterday": expected milliseconds`,
		"GET /v1/dead?before=-5":                           `before "-5"`,
		"GET /v1/dead?usr=A-1":                             `"usr": expected limit, after, user, reason, before`,
		"GET /v1/dead?user=A-1&user=A-2":                   "user: expected it once",
		"GET /v1/dead?%zz":                                 "the query cannot be read",
		"GET /v1/dead/1-1?content=yes":                     `content "yes": expected true or false`,
		"GET /v1/dead/1-01":                                `id "1-01": expected that of a dead letter`,
		"GET /v1/dead/" + strings.Repeat("9", 99):          "expected that of a dead letter",
		"GET /v1/dead/1--1":                                `id "1--1"`,
		"DELETE /v1/dead":                                  "expected user, reason or before, or all=true",
		"DELETE /v1/dead?all=false":                        "expected user, reason or before, or all=true",
		"DELETE /v1/dead?all=yes":                          `all "yes": expected true or false`,
		"DELETE /v1/dead?all=true&user=A-2":                "all=true: expected without user and reason",
		"DELETE /v1/dead?usre=A-2&all=true":                `"usre": expected user, reason, before, all`,
		"DELETE /v1/dead/1-1?all=true":                     `"all": expected no parameters`,
		"DELETE /v1/dead/x":                                `id "x"`,
		"POST /v1/dead/replay":                             "expected user, reason or before, or all=true",
		"POST /v1/dead/replay?all=true&limit=5":            `"limit": expected after, user, reason, before, all`,
		"POST /v1/dead/x/replay":                           `id "x"`,
		"POST /v1/dead/1-1/replay?user=A-2":                `"user": expected no parameters`,
		"GET /v1/dead?user=" + url.QueryEscape("A-1\n<b>"): `user "A-1\n<b>"`,
	} {
		method, path, _ := strings.Cut(asked, " ")
		if got := request(t, s, method, path, http.StatusBadRequest); !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", asked, got, want)
		}
	}
	for _, path := range []string{"GET /v1/dead/1-9", "POST /v1/dead/1-9/replay", "DELETE /v1/dead/2-1"} {
		method, path, _ := strings.Cut(path, " ")
		if got := request(t, s, method, path, http.StatusNotFound); !strings.Contains(got, "there is no dead letter") {
			t.Errorf("%s: %s", path, got)
		}
	}
	if found, n := first(list(t, s, "")), len(out.take()); len(found) != 7 || n != 0 {
		t.Errorf("left are %s, %d records", ids(found), n)
	}
}

func TestAStoreThatIsAwayIsSaid(t *testing.T) {
	t.Parallel()
	d, out := filled(t)
	letters, _ := d.letters(func(c *deadletters.Config) { c.Log, c.Store = out, away{} })
	s := server(t, letters)
	for _, path := range []string{"GET /v1/dead", "GET /v1/dead/1-1", "POST /v1/dead/1-1/replay", "DELETE /v1/dead/1-1", "POST /v1/dead/replay?all=true", "DELETE /v1/dead?all=true"} {
		method, path, _ := strings.Cut(path, " ")
		if got := request(t, s, method, path, http.StatusServiceUnavailable); !strings.Contains(got, "the store is away") {
			t.Errorf("%s %s: %s", method, path, got)
		}
	}
}

// away is a store that does not answer.
type away struct{ mailbox.DeadLetters }

var errAway = errors.New("the store is away")

func (away) ListDead(context.Context, mailbox.DeadQuery) ([]mailbox.DeadLetter, bool, error) {
	return nil, false, errAway
}

func (away) GetDead(context.Context, envelope.Position) (mailbox.DeadLetter, bool, error) {
	return mailbox.DeadLetter{}, false, errAway
}

func (away) DeleteDead(context.Context, []envelope.Position) (int, error) { return 0, errAway }

func (away) PurgeDead(context.Context, mailbox.DeadFilter, int) (int, error) { return 0, errAway }

func first(letters []shown, _ string) []shown { return letters }

func idOf(t *testing.T, l *mailbox.DeadLetter) ident.MessageID {
	t.Helper()
	e, err := envelope.Decode(l.Record)
	must(t, err)
	return e.ID
}
