package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// letter is a dead letter, as a processor shows it.
type letter struct {
	ID        string   `json:"id"`
	Domain    string   `json:"domain"`
	Reason    string   `json:"reason"`
	At        int64    `json:"at"`
	User      string   `json:"user,omitempty"`
	Users     []string `json:"users,omitempty"`
	From      string   `json:"from,omitempty"`
	Kind      string   `json:"kind,omitempty"`
	MessageID string   `json:"messageId,omitempty"`
	Reference string   `json:"reference,omitempty"`
	CreatedAt int64    `json:"createdAt,omitempty"`
	Size      int      `json:"size"`
	Lane      *int     `json:"lane,omitempty"`
	Offset    *int64   `json:"offset,omitempty"`
	Frame     string   `json:"frame,omitempty"`
	Raw       string   `json:"raw,omitempty"`
}

type letterList struct {
	Domain  string   `json:"domain"`
	Letters []letter `json:"letters"`
	Next    string   `json:"next,omitempty"`
}

const deadUsage = "dead: expected list, show ID, replay or purge (dead --help says more)"

const deadHelp = `Usage: linkerctl [flags] dead list|show|replay|purge …

Dead letters are messages that could not be delivered.

  dead list                     lists them, the oldest first
  dead show ID                  shows one; with --content its message, too
  dead replay ID …              sends them again
  dead purge ID …               removes them for good
  dead replay|purge FILTER      all that the filter selects

A filter is one or more of --user, --reason and --before, or --all.
`

func runDead(ctx context.Context, c *ctl, args []string) error {
	if len(args) == 0 {
		return usage("%s", deadUsage)
	}
	switch args[0] {
	case "list":
		return c.listDead(ctx, args[1:])
	case "show":
		return c.showDead(ctx, args[1:])
	case "replay":
		return c.replayDead(ctx, args[1:])
	case "purge":
		return c.purgeDead(ctx, args[1:])
	case "-h", "-help", "--help", "help":
		fmt.Fprint(c.stdout, deadHelp)
		return nil
	default:
		return usage("unknown %q; %s", args[0], deadUsage)
	}
}

// filterFlags adds the flags that select letters. The function that it returns reads them,
// once they are parsed.
func filterFlags(flags *flag.FlagSet) func() (url.Values, error) {
	user := flags.String("user", "", "letters for this `user`")
	reason := flags.String("reason", "", "letters with this `reason`, such as EXPIRED")
	before := flags.String("before", "", "letters older than a `time`: 2026-01-31T12:00:00Z, or 48h for two days ago")
	return func() (url.Values, error) {
		query := url.Values{}
		if *user != "" {
			query.Set("user", *user)
		}
		if *reason != "" {
			query.Set("reason", *reason)
		}
		if *before != "" {
			at, err := moment(*before, time.Now())
			if err != nil {
				return nil, err
			}
			query.Set("before", strconv.FormatInt(at.UnixMilli(), 10))
		}
		return query, nil
	}
}

// moment is a time, or so long ago.
func moment(text string, now time.Time) (time.Time, error) {
	if at, err := time.Parse(time.RFC3339, text); err == nil && at.UnixMilli() > 0 {
		return at, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 && now.Add(-ago).UnixMilli() > 0 {
		return now.Add(-ago), nil
	}
	return time.Time{}, usage("--before %q: expected a time such as 2026-01-31T12:00:00Z, or how long ago, such as 48h", text)
}

func (c *ctl) listDead(ctx context.Context, args []string) error {
	flags := newFlags("dead list")
	filter := filterFlags(flags)
	limit := flags.Int("limit", 50, "at most so `many`, 1 to 500")
	after := flags.String("after", "", "those behind the letter with this `ID`")
	rest, err := c.parse(flags, "linkerctl dead list [flags]\n\nLists dead letters, the oldest first.", args)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return usage("dead list: unexpected %q", rest[0])
	}
	query, err := filter()
	if err != nil {
		return err
	}
	query.Set("limit", strconv.Itoa(*limit))
	if *after != "" {
		query.Set("after", *after)
	}
	var answer letterList
	if err := c.api.do(ctx, "GET", "/v1/dead", query, &answer); err != nil {
		return err
	}
	if c.json {
		return c.print(answer)
	}
	if len(answer.Letters) == 0 {
		_, err := fmt.Fprintf(c.stdout, "no dead letters in %s\n", answer.Domain)
		return err
	}
	table := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tREASON\tDIED\tFOR\tFROM\tKIND\tBYTES\tMESSAGE")
	for i := range answer.Letters {
		l := &answer.Letters[i]
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n",
			l.ID, shown(l.Reason), when(l.At), shown(l.receivers()), shown(l.From), shown(l.Kind), l.Size, shown(l.MessageID))
	}
	if answer.Next != "" {
		fmt.Fprintf(table, "there are more: --after %s\n", answer.Next)
	}
	return table.Flush()
}

// receivers are whom a letter was for, in one word.
func (l *letter) receivers() string {
	if len(l.Users) > 1 {
		return fmt.Sprintf("%s and %d more", l.User, len(l.Users)-1)
	}
	return l.User
}

// when writes milliseconds since 1970 for people.
func when(at int64) string { return time.UnixMilli(at).UTC().Format("2006-01-02T15:04:05.000Z") }

// shown is a text in a table: one word at least, and nothing that a terminal obeys.
func shown(text string) string {
	if text == "" {
		return "-"
	}
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '�'
		}
		return r
	}, text)
}

func (c *ctl) showDead(ctx context.Context, args []string) error {
	flags := newFlags("dead show")
	content := flags.Bool("content", false, "shows the message, too")
	rest, err := c.parse(flags, "linkerctl dead show ID [flags]\n\nShows a dead letter.", args)
	if err != nil {
		return err
	}
	if len(rest) != 1 {
		return usage("dead show: expected the ID of one letter")
	}
	query := url.Values{}
	if *content {
		query.Set("content", "true")
	}
	var l letter
	if err := c.api.do(ctx, "GET", "/v1/dead/"+url.PathEscape(rest[0]), query, &l); err != nil {
		return err
	}
	if c.json {
		return c.print(l)
	}
	table := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(table, "%s\t%s\n", name, shown(value))
		}
	}
	line("id", l.ID)
	line("domain", l.Domain)
	line("reason", l.Reason)
	line("died", when(l.At))
	line("for", strings.Join(l.allUsers(), " "))
	line("from", l.From)
	line("kind", l.Kind)
	line("message", l.MessageID)
	line("reference", l.Reference)
	if l.CreatedAt != 0 {
		line("created", when(l.CreatedAt))
	}
	line("size", fmt.Sprintf("%d bytes", l.Size))
	if l.Lane != nil {
		line("lane", strconv.Itoa(*l.Lane))
	}
	if l.Offset != nil {
		line("offset", strconv.FormatInt(*l.Offset, 10))
	}
	line("frame", l.Frame)
	line("record", l.Raw)
	return table.Flush()
}

func (l *letter) allUsers() []string {
	if len(l.Users) == 0 && l.User != "" {
		return []string{l.User}
	}
	return l.Users
}

// selection reads which letters a change is about: those that are named, or those that a
// filter selects.
func (c *ctl) selection(name, about string, args []string) (ids []string, query url.Values, err error) {
	flags := newFlags("dead " + name)
	filter := filterFlags(flags)
	all := flags.Bool("all", false, "every dead letter")
	ids, err = c.parse(flags, fmt.Sprintf("linkerctl dead %s ID … | FILTER\n\n%s", name, about), args)
	if err != nil {
		return nil, nil, err
	}
	query, err = filter()
	switch {
	case err != nil:
		return nil, nil, err
	case len(ids) > 0 && (len(query) > 0 || *all):
		return nil, nil, usage("dead %s: expected IDs or a filter, not both", name)
	case len(ids) > 0:
		return ids, nil, nil
	case *all && (query.Has("user") || query.Has("reason")):
		return nil, nil, usage("dead %s: expected --all, or --user and --reason, not both", name)
	case *all:
		query.Set("all", "true")
	case len(query) == 0:
		return nil, nil, usage("dead %s: expected the IDs of letters, or --user, --reason, --before, or --all", name)
	}
	return nil, query, nil
}

// replayed is what a replay has done.
type replayed struct {
	Replayed int `json:"replayed"`
	Refused  int `json:"refused"`
}

func (c *ctl) replayDead(ctx context.Context, args []string) error {
	ids, query, err := c.selection("replay", "Sends dead letters again. What dies again is a new letter.", args)
	if err != nil {
		return err
	}
	var done replayed
	if ids != nil {
		done.Replayed, err = c.eachDead(ids, func(id string) error {
			return c.api.do(ctx, "POST", "/v1/dead/"+url.PathEscape(id)+"/replay", nil, &replayed{})
		})
	} else {
		err = c.replayMany(ctx, query, &done)
	}
	if c.json {
		return errors.Join(c.print(done), err)
	}
	fmt.Fprintf(c.stdout, "replayed: %d\n", done.Replayed)
	if done.Refused > 0 {
		fmt.Fprintf(c.stdout, "left, since they can never be replayed: %d\n", done.Refused)
	}
	return err
}

// replayMany goes on as long as the processor says that there are more.
func (c *ctl) replayMany(ctx context.Context, query url.Values, done *replayed) error {
	for {
		var answer struct {
			replayed

			Next   string
			Before int64
		}
		if err := c.api.do(ctx, "POST", "/v1/dead/replay", query, &answer); err != nil {
			return err
		}
		done.Replayed += answer.Replayed
		done.Refused += answer.Refused
		if answer.Next == "" {
			return nil
		}
		query.Set("after", answer.Next)
		query.Set("before", strconv.FormatInt(answer.Before, 10)) // what dies again waits for the next time
	}
}

// purged is what a purge has done.
type purged struct {
	Purged int `json:"purged"`
}

func (c *ctl) purgeDead(ctx context.Context, args []string) error {
	ids, query, err := c.selection("purge", "Removes dead letters for good.", args)
	if err != nil {
		return err
	}
	var done purged
	if ids != nil {
		done.Purged, err = c.eachDead(ids, func(id string) error {
			return c.api.do(ctx, "DELETE", "/v1/dead/"+url.PathEscape(id), nil, &purged{})
		})
	} else {
		err = c.purgeMany(ctx, query, &done)
	}
	if c.json {
		return errors.Join(c.print(done), err)
	}
	fmt.Fprintf(c.stdout, "purged: %d\n", done.Purged)
	return err
}

func (c *ctl) purgeMany(ctx context.Context, query url.Values, done *purged) error {
	for {
		var answer struct {
			purged

			More   bool
			Before int64
		}
		if err := c.api.do(ctx, "DELETE", "/v1/dead", query, &answer); err != nil {
			return err
		}
		done.Purged += answer.Purged
		if !answer.More {
			return nil
		}
		query.Set("before", strconv.FormatInt(answer.Before, 10))
	}
}

// eachDead does something with each letter that is named, and returns with how many; of
// the others it says all that was wrong.
func (c *ctl) eachDead(ids []string, do func(id string) error) (int, error) {
	n := 0
	var errs []error
	for _, id := range ids {
		if err := do(id); err != nil {
			errs = append(errs, err)
			continue
		}
		n++
	}
	return n, errors.Join(errs...)
}
