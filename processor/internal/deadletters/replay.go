package deadletters

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/pkg/route"
	"github.com/linkerhq/linker/pkg/topology"
)

// reasonUndecodable is that of records that cannot be read, or on which the program has
// failed: no lane is to meet these again.
const reasonUndecodable = "UNDECODABLE"

// refusal says why a letter can never be replayed.
type refusal struct{ text string }

func (r refusal) Error() string { return r.text }

// errNoNetwork: nothing can be routed yet.
var errNoNetwork = errors.New("the description of the network has not come yet; try again later")

// replay writes letters into the log again and deletes those that it has; it returns
// their number and how many can never be replayed. With an error, the letters that were
// not counted are still there, or the log may have them and their receivers know them.
func (l *Letters) replay(ctx context.Context, letters []mailbox.DeadLetter) (replayed, refused int, err error) {
	network := l.cfg.Network.Current()
	if network == nil {
		return 0, 0, errNoNetwork
	}
	var under []underWay
	for i := range letters {
		parts, err := again(&letters[i], l.cfg.Domain, l.cfg.Lanes, network)
		if err != nil {
			refused++
			continue
		}
		under = append(under, underWay{pos: letters[i].Pos, result: l.append(parts)})
	}
	var failed error // the first; the others say the same
	var done []envelope.Position
	for _, u := range under {
		if err := u.wait(ctx); err != nil {
			failed = cmp.Or(failed, err)
			continue
		}
		done = append(done, u.pos)
	}
	if len(done) == 0 {
		return 0, refused, failed
	}
	l.metrics.replayed.Add(float64(len(done)))
	l.log.Info("dead letters replayed", "count", len(done), "first", name(done[0]), "last", name(done[len(done)-1]))
	// Whoever asked may have gone: what is in the log is no letter any more all the same.
	err = l.once(context.WithoutCancel(ctx), func(ctx context.Context) error {
		_, err := l.cfg.Store.DeleteDead(ctx, done)
		return err
	})
	if err != nil {
		return len(done), refused, fmt.Errorf("%d letters were replayed, but are still listed; who has got one gets no second: %w", len(done), err)
	}
	return len(done), refused, failed
}

// part is what one lane gets of a letter.
type part struct {
	lane int
	key  ident.UserID
	envelope.Envelope
}

// again makes records of a letter: as if its sender had just sent it, in no stream, so that
// nothing waits for it or is waited for; under its old id, which the receivers' lanes
// remember; and marked as late. Receivers who are at home here get theirs in their own
// lanes, the others in the sender's, as everything that leaves the domain.
func again(letter *mailbox.DeadLetter, domain string, lanes int, network *topology.Snapshot) ([]part, error) {
	if letter.Reason == reasonUndecodable {
		return nil, refusal{"the record could not be decoded, or the program has failed on it: it cannot be replayed, only purged"}
	}
	e, err := envelope.Decode(letter.Record)
	if err != nil {
		return nil, refusal{fmt.Sprintf("the record cannot be decoded by this program, so it cannot be replayed, only purged: %v", err)}
	}
	if !e.Kind.Deliverable() {
		return nil, refusal{fmt.Sprintf("the record is of the kind %s, expected message, confirmation or presence: it cannot be replayed, only purged", e.Kind)}
	}
	one := envelope.Envelope{
		Kind: e.Kind, Confirm: e.Confirm, Remember: true, Late: true, ID: e.ID, From: e.From,
		CreatedAt: e.CreatedAt, Reference: e.Reference, Frame: e.Frame, Home: e.Home,
	}
	if origin := e.Origin(); origin != "" && origin != domain {
		one.Path = []string{origin} // where its sender has spoken, for the confirmation
	}
	var parts []part
	places := map[int]int{}
	for _, to := range e.To {
		p := part{lane: to.User.Lane(lanes), key: to.User, Envelope: one}
		if decide(&e, to.User, domain, network).Verdict != route.Here && e.From != "" {
			p.lane, p.key = e.From.Lane(lanes), e.From
		}
		i, known := places[p.lane]
		if !known {
			i = len(parts)
			places[p.lane] = i
			parts = append(parts, p)
		}
		parts[i].To = append(parts[i].To, envelope.Recipient{User: to.User})
	}
	return parts, nil
}

// decide says where a receiver is at home, as lanes do.
func decide(e *envelope.Envelope, to ident.UserID, domain string, network *topology.Snapshot) route.Decision {
	if e.Kind == envelope.KindMessage {
		return route.Way(to, domain, network)
	}
	return route.Answer(to, e.Home, domain, network)
}

// underWay is a letter that the log is to take.
type underWay struct {
	pos    envelope.Position
	result chan error // gets one error, or nil, for each part
}

// append gives the parts of a letter to the log. The channel that it returns has room for
// all results, and is closed by nobody.
func (l *Letters) append(parts []part) chan error {
	results := make(chan error, len(parts))
	for i := range parts {
		p := &parts[i]
		err := l.cfg.Log.Append(p.lane, string(p.key), p.Append(nil), func(_ int64, err error) { results <- err })
		if err != nil {
			results <- err
		}
	}
	return results
}

// wait returns when the log has all parts.
func (u underWay) wait(ctx context.Context) error {
	for range cap(u.result) {
		select {
		case err := <-u.result:
			if err != nil {
				return fmt.Errorf("replay %s: %w", name(u.pos), err)
			}
		case <-ctx.Done():
			return fmt.Errorf("replay %s: the log does not answer: %w", name(u.pos), ctx.Err())
		}
	}
	return nil
}
