package tracing

import (
	"context"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/pkg/trace"
	"github.com/linkerhq/linker/processor/internal/custody"
)

const (
	pageRows  = 256
	pageBytes = 1 << 20
)

// Store is the mailbox, as far as it is needed here.
type Store interface {
	Read(ctx context.Context, q mailbox.Query) (rows []mailbox.Row, more bool, err error)
	ListDead(ctx context.Context, q mailbox.DeadQuery) (letters []mailbox.DeadLetter, more bool, err error)
}

// Rows looks into the mailbox of a domain. It implements trace.Rows. Every field is needed.
type Rows struct {
	Domain     string
	Generation uint32 // of the log
	Lanes      int
	Store      Store
	Network    Network
}

// target is a name under which a message may wait.
type target struct {
	name    string
	wait    trace.Wait
	towards string
}

// Look implements trace.Rows.
func (r *Rows) Look(ctx context.Context, message ident.MessageID, looks []trace.Look) ([]trace.Found, error) {
	var found []trace.Found
	for _, l := range looks {
		before := envelope.Position{Generation: r.Generation, Offset: l.Offset}
		after := before
		after.Offset--
		before.Offset++
		for _, t := range r.targets(l) {
			rows, _, err := r.Store.Read(ctx, mailbox.Query{To: t.name, After: after, Before: before, Limit: 1})
			if err != nil {
				return found, err
			}
			found = r.pick(found, t, rows, message)
		}
	}
	return found, nil
}

// targets are where a message may wait that stands at a position.
func (r *Rows) targets(l trace.Look) []target {
	if l.Towards != "" {
		return []target{r.road(l.Towards, l.Lane)}
	}
	if home := r.homeOf(l.User); home != r.Domain {
		return []target{r.road(home, l.Lane)}
	}
	return atHome(l.User)
}

func (r *Rows) road(domain string, lane int) target {
	return target{name: custody.RoadTarget(domain, lane), wait: trace.OnRoad, towards: domain}
}

func atHome(user ident.UserID) []target {
	return []target{{name: string(user), wait: trace.InMailbox}, {name: custody.HoldPrefix + string(user), wait: trace.HeldBack}}
}

func (r *Rows) homeOf(user ident.UserID) string {
	if s := r.Network.Current(); s != nil {
		return s.HomeOf(user, r.Domain)
	}
	return r.Domain
}

// Scan implements trace.Rows. What waits for users who are at home elsewhere lies among what
// waits for their domain.
func (r *Rows) Scan(ctx context.Context, message ident.MessageID, users []ident.UserID) (found []trace.Found, whole bool, err error) {
	for _, user := range users {
		targets := atHome(user)
		if home := r.homeOf(user); home != r.Domain {
			targets = nil
			for lane := range r.Lanes {
				targets = append(targets, r.road(home, lane))
			}
		}
		for _, t := range targets {
			if found, err = r.scan(ctx, found, t, message); err != nil {
				return found, false, inTime(ctx, err)
			}
		}
		if found, err = r.exhume(ctx, found, user, message); err != nil {
			return found, false, inTime(ctx, err)
		}
	}
	return found, true, nil
}

// inTime hides the error that there was no more time: one may look as far as there is.
func inTime(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// exhume looks for the message among a user's dead letters.
func (r *Rows) exhume(ctx context.Context, found []trace.Found, user ident.UserID, message ident.MessageID) ([]trace.Found, error) {
	q := mailbox.DeadQuery{DeadFilter: mailbox.DeadFilter{User: user}, Limit: pageRows, MaxBytes: pageBytes}
	for {
		letters, more, err := r.Store.ListDead(ctx, q)
		if err != nil {
			return found, err
		}
		for i := range letters {
			l := &letters[i]
			if e, err := envelope.Decode(l.Record); err == nil && e.ID == message {
				found = append(found, trace.Found{Domain: r.Domain, User: user, Wait: trace.Buried, Since: l.At / 1000, Reason: l.Reason})
			}
		}
		if !more || len(letters) == 0 {
			return found, nil
		}
		q.After = letters[len(letters)-1].Pos
	}
}

// scan reads all that waits under a name.
func (r *Rows) scan(ctx context.Context, found []trace.Found, t target, message ident.MessageID) ([]trace.Found, error) {
	q := mailbox.Query{To: t.name, Limit: pageRows, MaxBytes: pageBytes}
	for {
		rows, more, err := r.Store.Read(ctx, q)
		if err != nil {
			return found, err
		}
		found = r.pick(found, t, rows, message)
		if !more || len(rows) == 0 {
			return found, nil
		}
		q.After = rows[len(rows)-1].Pos
	}
}

// pick adds those of the rows that hold the message.
func (r *Rows) pick(found []trace.Found, t target, rows []mailbox.Row, message ident.MessageID) []trace.Found {
	for i := range rows {
		row := &rows[i]
		f := trace.Found{Domain: r.Domain, Wait: t.wait, Towards: t.towards, Proved: row.Proved, Since: row.Stored}
		if t.wait == trace.InMailbox {
			if row.ID == message {
				f.User = ident.UserID(row.To)
				found = append(found, f)
			}
			continue
		}
		e, err := envelope.Decode(row.Record) // the row's own id is not the message's
		if err != nil || e.ID != message {
			continue
		}
		if len(e.To) == 1 {
			f.User = e.User()
		} else {
			f.Users = len(e.To)
		}
		found = append(found, f)
	}
	return found
}
