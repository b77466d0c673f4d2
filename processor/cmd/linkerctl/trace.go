package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/linkerhq/linker/pkg/trace"
)

// traced is what a processor says of a message.
type traced struct {
	ID      string              `json:"id"`
	Events  []tracedEvent       `json:"events"`
	Where   []tracedPlace       `json:"where"`
	Asked   map[string][]string `json:"asked"`
	Missing []string            `json:"missing"`
	Cut     bool                `json:"cut,omitempty"`
}

type tracedEvent struct {
	At      time.Time `json:"at"`
	Domain  string    `json:"domain"`
	Service string    `json:"service"`
	Name    string    `json:"name"`
	Kind    string    `json:"kind"`
	Lane    *int      `json:"lane,omitempty"`
	Offset  *int64    `json:"offset,omitempty"`
	User    string    `json:"user,omitempty"`
	Users   int       `json:"users,omitempty"`
	Session string    `json:"session,omitempty"`
	Peer    string    `json:"peer,omitempty"`
	Towards string    `json:"towards,omitempty"`
	Reason  string    `json:"reason,omitempty"`
}

type tracedPlace struct {
	User    string `json:"user,omitempty"`
	Users   int    `json:"users,omitempty"`
	State   string `json:"state"`
	Domain  string `json:"domain"`
	Towards string `json:"towards,omitempty"`
	Since   string `json:"since,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

const traceAbout = `linkerctl [flags] trace ID [--user USER ...]

Shows where a message is, and what has happened to it in all domains. The ID is the one
of MESSAGE_ACCEPTED, or of the message itself.`

func runTrace(ctx context.Context, c *ctl, args []string) error {
	flags := newFlags("trace")
	query := url.Values{}
	flags.Func("user", "looks into the mailbox of this `user` whatever is remembered; several times for several", func(user string) error {
		query.Add("user", user)
		return nil
	})
	// An ID may begin with a dash: it is no flag.
	if i := slices.IndexFunc(args, func(arg string) bool { _, err := trace.ParseMessageID(arg); return err == nil }); i >= 0 {
		args = slices.Concat(args[:i], args[i+1:], []string{"--", args[i]})
	}
	rest, err := c.parse(flags, traceAbout, args)
	if err != nil {
		return err
	}
	if len(rest) != 1 {
		return usage("trace: expected the ID of one message")
	}
	var t traced
	if err := c.api.do(ctx, "GET", "/v1/messages/"+url.PathEscape(rest[0]), query, &t); err != nil {
		return err
	}
	if c.json {
		return c.print(t)
	}
	return c.showTrace(&t)
}

// showTrace writes a trace for people.
func (c *ctl) showTrace(t *traced) error {
	table := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	for _, w := range t.Where {
		fmt.Fprintf(table, "%s\n", shown(w.text()))
	}
	if len(t.Events) > 0 {
		fmt.Fprint(table, "\nTIME\t+MS\tDOMAIN\tWHO\tWHAT\n")
	}
	for i := range t.Events {
		e := &t.Events[i]
		fmt.Fprintf(table, "%s\t%.3f\t%s\t%s\t%s\n", e.At.UTC().Format("15:04:05.000000"), float64(e.At.Sub(t.Events[0].At).Microseconds())/1000,
			shown(e.Domain), shown(e.Service+" "+e.Name), shown(e.text()))
	}
	if t.Cut {
		fmt.Fprint(table, "\nThere was more than fits an answer.\n")
	}
	if len(t.Missing) > 0 {
		fmt.Fprintf(table, "\nNo answer from %s; answered have %s.\n", shown(strings.Join(t.Missing, ", ")), shown(t.answered()))
	}
	return table.Flush()
}

// answered names the domains that have.
func (t *traced) answered() string {
	return strings.Join(slices.Sorted(maps.Keys(t.Asked)), ", ")
}

// text says where the message is for a receiver.
func (w *tracedPlace) text() string {
	who := cmp.Or(w.User, strconv.Itoa(w.Users)+" users")
	text := who + ": " + w.State + ", " + w.Domain
	if w.Towards != "" {
		text += " to " + w.Towards
	}
	if w.Reason != "" {
		text += ", " + w.Reason
	}
	if w.Since != "" {
		text += ", since " + w.Since
	}
	return text
}

// text says what has happened.
func (e *tracedEvent) text() string {
	words := []string{e.Kind}
	add := func(is bool, format string, args ...any) {
		if is {
			words = append(words, fmt.Sprintf(format, args...))
		}
	}
	add(e.Reason != "", "%s", e.Reason)
	add(e.User != "", "for %s", e.User)
	add(e.Users > 0, "for %d users", e.Users)
	add(e.Towards != "", "to %s", e.Towards)
	add(e.Session != "", "session %s", e.Session)
	add(e.Peer != "" && e.Session != "", "at %s", e.Peer)
	add(e.Peer != "" && e.Session == "", "from %s", e.Peer)
	if e.Lane != nil {
		add(true, "lane %d", *e.Lane)
	}
	if e.Offset != nil {
		add(true, "offset %d", *e.Offset)
	}
	return strings.Join(words, " ")
}
