package deadletters

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
)

const (
	standardLimit = 50
	mostListed    = 500
	listedBytes   = 8 << 20          // of records that one list reads
	replayAtOnce  = 100              // letters that are under way to the log together
	askFor        = 5 * time.Second  // how long a request for one letter, or a list, may take
	workFor       = 10 * time.Second // how long one for many works at most; whoever asked goes on then
)

// about is a letter as operators see it. The message itself is shown only when it is asked
// for, and of one letter at a time.
type about struct {
	ID        string         `json:"id"`
	Domain    string         `json:"domain"`
	Reason    string         `json:"reason"`
	At        int64          `json:"at"`              // milliseconds since 1970, as all times here
	User      ident.UserID   `json:"user,omitempty"`  // whom it was for
	Users     []ident.UserID `json:"users,omitempty"` // all of them, if there are several
	From      ident.UserID   `json:"from,omitempty"`
	Kind      string         `json:"kind,omitempty"`
	MessageID string         `json:"messageId,omitempty"`
	Reference string         `json:"reference,omitempty"`
	CreatedAt int64          `json:"createdAt,omitempty"`
	Size      int            `json:"size"` // of the record, in bytes
	Lane      *int           `json:"lane,omitempty"`
	Offset    *int64         `json:"offset,omitempty"` // in the lane, if it was in the log at the time
	Frame     string         `json:"frame,omitempty"`  // the message, if it is text
	Raw       string         `json:"raw,omitempty"`    // the record in base64, if it is not
}

// list is the answer to GET /v1/dead.
type list struct {
	Domain  string  `json:"domain"`
	Letters []about `json:"letters"`
	Next    string  `json:"next,omitempty"` // there are more behind this one
}

// replayAnswer says what a replay has done.
type replayAnswer struct {
	Replayed int    `json:"replayed"`
	Refused  int    `json:"refused"`          // can never be replayed; they are still there
	Next     string `json:"next,omitempty"`   // there are more behind this one …
	Before   int64  `json:"before,omitempty"` // … that were reported before
}

// purgeAnswer says what a purge has done.
type purgeAnswer struct {
	Purged int   `json:"purged"`
	More   bool  `json:"more,omitempty"` // there are more …
	Before int64 `json:"before,omitempty"`
}

// Handlers returns what is served, by the pattern of its path. Who may ask is for the
// caller to decide.
func (l *Letters) Handlers() map[string]http.Handler {
	return map[string]http.Handler{
		"GET /v1/dead":              l.handler(askFor, l.serveList, "limit", "after", "user", "reason", "before"),
		"GET /v1/dead/{id}":         l.handler(askFor, l.serveOne, "content"),
		"POST /v1/dead/{id}/replay": l.handler(workFor, l.serveReplay),
		"DELETE /v1/dead/{id}":      l.handler(askFor, l.serveDelete),
		"POST /v1/dead/replay":      l.handler(2*workFor, l.serveReplayAll, "after", "user", "reason", "before", "all"),
		"DELETE /v1/dead":           l.handler(2*workFor, l.servePurge, "user", "reason", "before", "all"),
	}
}

// problem is an answer that is not a success.
type problem struct {
	status int
	text   string
}

func (p problem) Error() string { return p.text }

func wrong(format string, args ...any) error {
	return problem{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// handler serves what serve returns as JSON, within a time. A parameter that it does not
// know is refused: one that was misspelt must not make a purge take everything.
func (l *Letters) handler(limit time.Duration, serve func(*http.Request, url.Values) (any, error), known ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), limit)
		defer cancel()
		query, err := parameters(r, known)
		var answer any
		if err == nil {
			answer, err = serve(r.WithContext(ctx), query)
		}
		var body []byte
		if err == nil {
			body, err = json.Marshal(answer)
		}
		var p problem
		var never refusal
		switch {
		case err == nil:
		case errors.As(err, &p):
			http.Error(w, p.text, p.status)
			return
		case errors.As(err, &never):
			http.Error(w, never.text, http.StatusConflict)
			return
		default:
			l.log.Warn("a request for dead letters was not carried out", "method", r.Method, "path", r.URL.Path, "error", err)
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_, _ = w.Write(append(body, '\n')) // an error means that whoever asked has gone
	})
}

// parameters reads the query of a request.
func parameters(r *http.Request, known []string) (url.Values, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, wrong("the query cannot be read: %.200s", err)
	}
	for key, values := range query {
		switch {
		case !slices.Contains(known, key) && len(known) == 0:
			return nil, wrong("%.40q: expected no parameters", key)
		case !slices.Contains(known, key):
			return nil, wrong("%.40q: expected %s", key, strings.Join(known, ", "))
		case len(values) > 1:
			return nil, wrong("%s: expected it once", key)
		}
	}
	return query, nil
}

func (l *Letters) serveList(r *http.Request, query url.Values) (any, error) {
	filter, err := filterOf(query)
	if err != nil {
		return nil, err
	}
	q := mailbox.DeadQuery{DeadFilter: filter, Limit: standardLimit, MaxBytes: listedBytes}
	if query.Has("limit") {
		text := query.Get("limit")
		if q.Limit, err = strconv.Atoi(text); err != nil || q.Limit < 1 || q.Limit > mostListed {
			return nil, wrong("limit %.40q: expected a whole number from 1 to %d", text, mostListed)
		}
	}
	if q.After, err = afterOf(query); err != nil {
		return nil, err
	}
	letters, more, err := l.cfg.Store.ListDead(r.Context(), q)
	if err != nil {
		return nil, err
	}
	answer := list{Domain: l.cfg.Domain, Letters: make([]about, len(letters))}
	for i := range letters {
		answer.Letters[i] = l.about(&letters[i], false)
	}
	if more {
		answer.Next = name(letters[len(letters)-1].Pos)
	}
	return answer, nil
}

func (l *Letters) serveOne(r *http.Request, query url.Values) (any, error) {
	content, err := switchOf(query, "content")
	if err != nil {
		return nil, err
	}
	letter, err := l.find(r)
	if err != nil {
		return nil, err
	}
	return l.about(&letter, content), nil
}

func (l *Letters) serveReplay(r *http.Request, _ url.Values) (any, error) {
	letter, err := l.find(r)
	if err != nil {
		return nil, err
	}
	if network := l.cfg.Network.Current(); network != nil {
		if _, err := again(&letter, l.cfg.Domain, l.cfg.Lanes, network); err != nil {
			return nil, err
		}
	}
	n, _, err := l.replay(r.Context(), []mailbox.DeadLetter{letter})
	return replayAnswer{Replayed: n}, err
}

func (l *Letters) serveDelete(r *http.Request, _ url.Values) (any, error) {
	pos, err := parseName(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	n, err := l.cfg.Store.DeleteDead(r.Context(), []envelope.Position{pos})
	switch {
	case err != nil:
		return nil, err
	case n == 0:
		return nil, missing(pos)
	}
	l.metrics.purged.WithLabelValues(purgedByOperator).Inc()
	l.log.Info("dead letter purged by an operator", "letter", name(pos))
	return purgeAnswer{Purged: n}, nil
}

// serveReplayAll replays what a filter selects, of what was reported before it was asked
// for: what dies again has to wait for the next time.
func (l *Letters) serveReplayAll(r *http.Request, query url.Values) (any, error) {
	q := mailbox.DeadQuery{Limit: replayAtOnce, MaxBytes: listedBytes}
	var err error
	if q.DeadFilter, err = manyOf(query); err != nil {
		return nil, err
	}
	if q.After, err = afterOf(query); err != nil {
		return nil, err
	}
	if l.cfg.Network.Current() == nil {
		return nil, errNoNetwork
	}
	answer := replayAnswer{Before: q.Before}
	for begun := time.Now(); ; {
		letters, more, err := l.cfg.Store.ListDead(r.Context(), q)
		if err != nil {
			return nil, err
		}
		replayed, refused, err := l.replay(r.Context(), letters)
		answer.Replayed += replayed
		answer.Refused += refused
		if err != nil {
			return nil, fmt.Errorf("after %d letters were replayed: %w", answer.Replayed, err)
		}
		if !more {
			return answer, nil
		}
		q.After = letters[len(letters)-1].Pos
		if time.Since(begun) > workFor {
			answer.Next = name(q.After)
			return answer, nil
		}
	}
}

// servePurge removes what a filter selects, of what was reported before it was asked for.
func (l *Letters) servePurge(r *http.Request, query url.Values) (any, error) {
	filter, err := manyOf(query)
	if err != nil {
		return nil, err
	}
	answer := purgeAnswer{Before: filter.Before}
	for begun := time.Now(); ; {
		n, err := l.purgeSome(r.Context(), filter, purgedByOperator)
		answer.Purged += n
		if err != nil {
			return nil, fmt.Errorf("after %d letters were purged: %w", answer.Purged, err)
		}
		answer.More = n == purgeAtOnce
		if !answer.More || time.Since(begun) > workFor {
			l.log.Info("dead letters purged by an operator", "count", answer.Purged, "user", string(filter.User), "reason", filter.Reason)
			return answer, nil
		}
	}
}

// find returns the letter that the path names.
func (l *Letters) find(r *http.Request) (mailbox.DeadLetter, error) {
	pos, err := parseName(r.PathValue("id"))
	if err != nil {
		return mailbox.DeadLetter{}, err
	}
	letter, found, err := l.cfg.Store.GetDead(r.Context(), pos)
	if err == nil && !found {
		err = missing(pos)
	}
	return letter, err
}

func missing(pos envelope.Position) error {
	return problem{http.StatusNotFound, fmt.Sprintf("there is no dead letter %s: it was replayed, purged, or never there", name(pos))}
}

// parseName reads what name has written.
func parseName(text string) (envelope.Position, error) {
	first, second, _ := strings.Cut(text, "-")
	generation, err := strconv.ParseUint(first, 10, 32)
	offset, err2 := strconv.ParseInt(second, 10, 64)
	pos := envelope.Position{Generation: uint32(generation), Offset: offset}
	if err != nil || err2 != nil || name(pos) != text || offset < 0 {
		return envelope.Position{}, wrong("id %.60q: expected that of a dead letter, such as 1-42", text)
	}
	return pos, nil
}

// filterOf reads what selects letters.
func filterOf(query url.Values) (mailbox.DeadFilter, error) {
	var f mailbox.DeadFilter
	if query.Has("user") {
		text := query.Get("user")
		user, err := ident.ParseUserID(text)
		if err != nil {
			return f, wrong("user %.60q: expected a user id, such as ANZ-1", text)
		}
		f.User = user
	}
	if query.Has("reason") {
		f.Reason = query.Get("reason")
		if f.Reason == "" || len(f.Reason) > reasonLength {
			return f, wrong("reason %.80q: expected one such as EXPIRED", f.Reason)
		}
	}
	if query.Has("before") {
		text := query.Get("before")
		at, err := strconv.ParseInt(text, 10, 64)
		if err != nil || at < 1 {
			when, err := time.Parse(time.RFC3339, text)
			if err != nil || when.UnixMilli() < 1 {
				return f, wrong("before %.60q: expected milliseconds since 1970, or a time such as 2026-01-31T12:00:00Z", text)
			}
			at = when.UnixMilli()
		}
		f.Before = at
	}
	return f, nil
}

// manyOf reads what selects the letters of a change to many. To mean all, it has to be
// said. What is reported from now on is never meant.
func manyOf(query url.Values) (mailbox.DeadFilter, error) {
	all, err := switchOf(query, "all")
	if err != nil {
		return mailbox.DeadFilter{}, err
	}
	f, err := filterOf(query)
	switch {
	case err != nil:
		return f, err
	case all && (f.User != "" || f.Reason != ""):
		return f, wrong("all=true: expected without user and reason, which select some")
	case !all && f == (mailbox.DeadFilter{}):
		return f, wrong("expected user, reason or before, or all=true for every dead letter")
	case f.Before == 0:
		f.Before = time.Now().UnixMilli() + 1 // those of this moment as well
	}
	return f, nil
}

func switchOf(query url.Values, key string) (bool, error) {
	switch text := query.Get(key); text {
	case "true":
		return true, nil
	case "", "false":
		return false, nil
	default:
		return false, wrong("%s %.40q: expected true or false", key, text)
	}
}

// afterOf reads behind which letter to go on.
func afterOf(query url.Values) (envelope.Position, error) {
	if !query.Has("after") {
		return envelope.Position{}, nil
	}
	pos, err := parseName(query.Get("after"))
	if err != nil {
		return pos, wrong("after %.60q: expected the id of a dead letter, such as 1-42", query.Get("after"))
	}
	return pos, nil
}

// about describes a letter.
func (l *Letters) about(letter *mailbox.DeadLetter, content bool) about {
	a := about{ID: name(letter.Pos), Domain: l.cfg.Domain, Reason: letter.Reason, At: letter.At, Size: len(letter.Record)}
	if len(letter.Users) > 0 {
		a.User = letter.Users[0]
	}
	if len(letter.Users) > 1 {
		a.Users = letter.Users
	}
	if letter.Lane >= 0 {
		a.Lane = &letter.Lane
	}
	if letter.Offset >= 0 {
		a.Offset = &letter.Offset
	}
	e, err := envelope.Decode(letter.Record)
	if err == nil {
		a.From, a.Kind, a.MessageID = e.From, e.Kind.String(), e.ID.String()
		a.Reference, a.CreatedAt = e.Reference, e.CreatedAt
	}
	switch {
	case !content:
	case err == nil && utf8.Valid(e.Frame):
		a.Frame = string(e.Frame)
	default:
		a.Raw = base64.StdEncoding.EncodeToString(letter.Record)
	}
	return a
}
