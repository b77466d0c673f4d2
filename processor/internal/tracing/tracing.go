// Package tracing tells people where a message is: GET /v1/messages/ID. What has happened
// to it comes from the witnesses of all processes (package trace), and what waits from the
// mailbox. From both it works out where the message is now, for each of its receivers.
package tracing

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/topology"
	"github.com/linkerhq/linker/pkg/trace"
)

const (
	maxUsers   = 16
	maxAtOnce  = 4
	retryAfter = "1" // s
	// instants are written to the microsecond.
	instants = "2006-01-02T15:04:05.000000Z07:00"
)

// Witness asks everybody who may know something of a message.
type Witness interface {
	Ask(ctx context.Context, message ident.MessageID, users []ident.UserID) trace.Report
}

// Network is the current description of the network.
type Network interface{ Current() *topology.Snapshot }

// answer is the body of what is served.
type answer struct {
	ID      string              `json:"id"`
	Events  []event             `json:"events"` // by time, as far as the clocks agree
	Where   []whereabouts       `json:"where"`
	Asked   map[string][]string `json:"asked"`   // the processes that have answered, by domain
	Missing []string            `json:"missing"` // domains and processes that have not
	Cut     bool                `json:"cut,omitempty"`
}

type event struct {
	At      string `json:"at"`
	Domain  string `json:"domain"`
	Service string `json:"service"`
	Name    string `json:"name"`
	Kind    string `json:"kind"`
	Lane    *int   `json:"lane,omitempty"`
	Offset  *int64 `json:"offset,omitempty"`
	User    string `json:"user,omitempty"`
	Users   int    `json:"users,omitempty"` // how many, where it is about several
	Session string `json:"session,omitempty"`
	Peer    string `json:"peer,omitempty"`    // the connector of the session, or the domain that it came from
	Towards string `json:"towards,omitempty"` // the other domain that it goes to
	Reason  string `json:"reason,omitempty"`
}

// Handler answers GET with what is known of the message whose id is the last element of the
// path. ?user=ID, several times if need be, names receivers in whose mailboxes to look
// whatever the events say. Who may ask is for the caller to decide.
func Handler(witness Witness, network Network) http.Handler {
	slots := make(chan struct{}, maxAtOnce)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, err := trace.ParseMessageID(r.PathValue("id"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		users, err := usersOf(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		default:
			w.Header().Set("Retry-After", retryAfter)
			http.Error(w, "as many messages are being looked for as may be at once: ask again", http.StatusTooManyRequests)
			return
		}
		report := witness.Ask(r.Context(), id, users)
		a := describe(id, &report, network.Current())
		if len(report.Events) == 0 && len(report.Found) == 0 {
			http.Error(w, a.unknown(), http.StatusNotFound)
			return
		}
		body, err := json.Marshal(a)
		if err != nil { // strings and numbers always can be encoded
			http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_, _ = w.Write(append(body, '\n')) // an error means that whoever asked has gone
	})
}

func usersOf(r *http.Request) ([]ident.UserID, error) {
	list := r.URL.Query()["user"]
	if len(list) > maxUsers {
		return nil, fmt.Errorf("user: %d of them, expected at most %d", len(list), maxUsers)
	}
	users := make([]ident.UserID, len(list))
	for i, text := range list {
		user, err := ident.ParseUserID(text)
		if err != nil {
			return nil, fmt.Errorf("user: %w", err)
		}
		users[i] = user
	}
	return users, nil
}

// unknown is what is said of a message of which nobody knows anything.
func (a *answer) unknown() string {
	text := fmt.Sprintf("message %s is not known: it is no message, or all that happened to it is longer ago than is remembered (setting trace-events), "+
		"and it does not wait in a mailbox that was looked at; ?user=ID looks into the one of its receiver", a.ID)
	if len(a.Missing) > 0 {
		text += fmt.Sprintf("; these did not answer: %v", a.Missing)
	}
	return text
}

// describe puts a report into words.
func describe(id ident.MessageID, r *trace.Report, network *topology.Snapshot) *answer {
	slices.SortStableFunc(r.Events, func(a, b trace.Event) int { return a.At.Compare(b.At) })
	a := &answer{ID: id.String(), Events: []event{}, Where: where(r), Asked: map[string][]string{}, Missing: r.Missing, Cut: r.Cut}
	for _, p := range r.Asked {
		a.Asked[p.Domain] = append(a.Asked[p.Domain], p.Service+" "+p.Name)
	}
	if network != nil {
		for _, d := range network.Network().Domains {
			if _, asked := a.Asked[d.Name]; !asked {
				a.Missing = append(a.Missing, d.Name)
			}
		}
	}
	slices.Sort(a.Missing)
	a.Missing = append([]string{}, slices.Compact(a.Missing)...)
	for i := range r.Events {
		a.Events = append(a.Events, eventOf(&r.Events[i]))
	}
	return a
}

func eventOf(e *trace.Event) event {
	told := event{
		At: e.At.Format(instants), Domain: e.Place.Domain, Service: e.Place.Service, Name: e.Place.Name, Kind: e.Kind.String(),
		User: string(e.User), Users: e.Users, Reason: e.Reason,
	}
	if e.Lane >= 0 {
		told.Lane = &e.Lane
	}
	if e.Offset >= 0 {
		told.Offset = &e.Offset
	}
	if e.Session != 0 {
		told.Session = strconv.FormatUint(e.Session, 16)
	}
	if e.Road {
		told.Towards = e.Peer
	} else {
		told.Peer = e.Peer
	}
	return told
}

// instant is how people are told about a time.
func instant(t time.Time) string { return t.UTC().Format(instants) }

func compareWhereabouts(a, b whereabouts) int {
	return cmp.Or(cmp.Compare(a.User, b.User), cmp.Compare(a.Domain, b.Domain), cmp.Compare(a.Towards, b.Towards), cmp.Compare(a.State, b.State))
}
