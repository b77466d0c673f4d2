package uplink

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/linkerhq/linker/connector/internal/session"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/failpoint"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/route"
	"github.com/linkerhq/linker/pkg/topology"
	"github.com/linkerhq/linker/pkg/trace"
	"github.com/linkerhq/linker/pkg/wire"
)

// retryAfter is what a client is told to wait when the queue is not available.
const retryAfter = time.Second

// Sender takes what one session sends. Submit is called by one goroutine, the
// rest by any.
type Sender struct {
	// Static after construction.
	u        *Uplink
	s        *session.Session
	id       uint64
	user     ident.UserID
	lane     int
	features envelope.Features

	numbers numbers     // owned by Submit
	limits  limits      // owned by Submit
	renew   atomic.Bool // a record has failed: the next one begins a new stream
	entered atomic.Bool // the login may be in the log
	fetches fetches
}

// Enter writes the login to the log and waits for the acknowledgement, or for
// ctx to end; then the login may be in the log all the same.
func (x *Sender) Enter(ctx context.Context) error {
	e := x.record(envelope.KindLogin)
	done := make(chan error, 1)
	acknowledged := func(offset int64, err error) {
		if err == nil {
			x.s.LoginAt(envelope.Position{Generation: x.u.cfg.Generation, Offset: offset})
		}
		done <- err
	}
	if err := x.u.append(x.lane, x.user, &e, acknowledged); err != nil {
		return fmt.Errorf("append login: %w", err)
	}
	x.entered.Store(true)
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("append login: %w", err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("append login: %w", ctx.Err())
	}
}

// Leave writes the logout of a session that may be in the log.
func (x *Sender) Leave() {
	if x.entered.Load() {
		e := x.record(envelope.KindLogout)
		e.Request = x.s.Progress().Proved
		x.u.logout(logout{x.lane, x.user, e})
	}
}

func (x *Sender) record(kind envelope.Kind) envelope.Envelope {
	return envelope.Envelope{
		Kind: kind, To: []envelope.Recipient{{User: x.user}}, CreatedAt: now(),
		Session: x.id, Connector: x.u.cfg.Connector, Features: x.features,
	}
}

// Submit takes one frame, if the limits of its app let it pass. Every frame counts
// as one message, a group as well.
func (x *Sender) Submit(f wire.Frame) {
	if !x.admit(f.Reference) {
		return
	}
	switch f.Type {
	case wire.TypeMessage, wire.TypeGroupMessage:
		x.send(f)
	case wire.TypeCloseConnection:
		x.close(f)
	case wire.TypeFetch:
		x.fetch(f)
	}
}

func (x *Sender) send(f wire.Frame) {
	named := x.features.Has(envelope.FeatureAccept)
	if named && f.ClientIDProblem != nil {
		x.s.Refuse(f.Reference, f.ClientIDProblem)
		return
	}
	if !named || f.Feature == wire.Fast { // only what is accepted has a name of its client's
		f.ClientID = ""
	}
	network := x.u.to.Network.Current()
	homes := make([]string, len(f.To))
	for i, to := range f.To {
		d := route.Decide(x.user, to, x.u.cfg.Domain, network)
		if d.Verdict == route.Refuse {
			x.fail(f.Reference, d.Code, refusal(d.Code, "data.to", to, x.u.cfg.Domain, network))
			return
		}
		homes[i] = d.Domain
	}
	if f.Feature == wire.Fast {
		x.sendFast(f, homes)
		return
	}
	x.sendReliable(f, homes, network.Version)
}

// refusal says in words why a user cannot be reached.
func refusal(code wire.Code, field string, to ident.UserID, here string, network *topology.Snapshot) string {
	switch code {
	case wire.CodeUnknownApp:
		return fmt.Sprintf("%s: %q, expected a user of a client app that exists; there is no app %q", field, to, to.App())
	case wire.CodeForbiddenApp:
		return fmt.Sprintf("%s: %q, expected a user of the sender's own app, or of one that both allow", field, to)
	case wire.CodeForbidden:
		return "only the master user of the target's app may close its connections"
	default:
		return fmt.Sprintf("%s: %q is at home in domain %q, and no links lead there from %q", field, to, network.HomeOf(to, here), here)
	}
}

// message is the envelope of a MESSAGE without receivers, number and id.
func (x *Sender) message(f *wire.Frame) envelope.Envelope {
	group := f.Type == wire.TypeGroupMessage
	return envelope.Envelope{
		Kind: envelope.KindMessage, From: x.user, CreatedAt: now(), Reference: f.Reference,
		Confirm:  f.Confirm && !group && strings.TrimSpace(f.Reference) != "",
		Remember: f.ClientID != "",
	}
}

// sendReliable writes a message to the log: one record for each lane that has
// receivers of it, and one for each other domain. It is accepted when all of them are
// acknowledged.
func (x *Sender) sendReliable(f wire.Frame, homes []string, network uint64) {
	at := time.Now()
	if x.renew.Swap(false) {
		x.numbers = newNumbers()
	}
	x.numbers.begin(f.To, at)
	shares := x.split(f.To, homes, x.numbers.next)
	for _, share := range shares {
		if _, room := x.u.to.Lanes.Accepts(share.lane); !room {
			x.unavailable(f.Reference, "the backlog of the receiver's queue is full")
			return
		}
	}
	e := x.message(&f)
	e.Stream, e.Network = x.numbers.stream, network
	switch {
	case f.ClientID != "" && f.Type == wire.TypeGroupMessage:
		e.ID = ident.ClientMessageID(x.user, "", f.ClientID)
	case f.ClientID != "":
		e.ID = ident.ClientMessageID(x.user, f.To[0], f.ClientID)
	case f.Type == wire.TypeGroupMessage:
		e.ID = ident.GroupMessageID(x.numbers.stream, x.numbers.groups+1)
	default:
		e.ID = ident.StreamMessageID(x.numbers.stream, f.To[0], x.numbers.next(f.To[0]))
	}
	e.Frame = frame(x.user, &f, &e)

	_ = failpoint.Hit(failpoint.ConnectorBeforeAppend)
	a := &acceptance{x: x, size: len(e.Frame), id: e.ID, reference: f.Reference, at: at, left: len(shares)}
	x.s.Begin(a.size)
	taken := false
	for _, share := range shares {
		e.To = share.to
		err := x.u.append(share.lane, share.to[0].User, &e, func(offset int64, err error) {
			a.note(&share, offset, err)
			a.done(err)
		})
		if err != nil {
			a.note(&share, trace.NoOffset, err)
			a.done(err)
			continue
		}
		taken = true
		x.numbers.use(share.to, at)
	}
	if taken {
		x.numbers.groups++
	}
}

// share is the receivers of a message in one lane, or in one other domain.
type share struct {
	place
	to    []envelope.Recipient
	first bool // of its message
}

// place is where receivers of a message are: in a lane of this domain, or in another
// domain, to which everything goes through the lane of the sender.
type place struct {
	domain string // empty: this one
	lane   int
}

// split sorts receivers by place; homes names the other domains of those who are at home
// there.
func (x *Sender) split(users []ident.UserID, homes []string, next func(ident.UserID) uint64) []share {
	var shares []share
	places := make(map[place]int, min(len(users), x.u.cfg.Lanes))
	for i, user := range users {
		p := place{domain: homes[i], lane: x.lane}
		if p.domain == "" {
			p.lane = user.Lane(x.u.cfg.Lanes)
		}
		i, known := places[p]
		if !known {
			i = len(shares)
			places[p] = i
			shares = append(shares, share{place: p, first: i == 0})
		}
		shares[i].to = append(shares[i].to, envelope.Recipient{User: user, N: next(user)})
	}
	return shares
}

func frame(from ident.UserID, f *wire.Frame, e *envelope.Envelope) []byte {
	b := make([]byte, 0, len(f.Content)+2*len(f.Reference)+192)
	return wire.AppendMessage(b, from, f.Content, f.Reference, wire.Stamp{ID: e.ID, CreatedAt: e.CreatedAt})
}

// acceptance waits for the acknowledgements of one message.
type acceptance struct {
	x         *Sender
	size      int
	id        ident.MessageID
	reference string
	at        time.Time // when it came

	mu     sync.Mutex
	left   int  // guarded by mu; records of which nothing was heard yet
	failed bool // guarded by mu
}

// done takes the outcome of one record. The last one answers the client.
func (a *acceptance) done(err error) {
	if err != nil {
		a.x.renew.Store(true)
	}
	a.mu.Lock()
	a.left--
	a.failed = a.failed || err != nil
	last, failed := a.left == 0, a.failed
	a.mu.Unlock()
	if !last {
		return
	}
	_ = failpoint.Hit(failpoint.ConnectorAfterAck)
	m := a.x.u.metrics
	switch {
	case failed:
		m.failed[wire.CodeQueueUnavailable].Inc()
		a.x.s.Finish(a.size, unavailableFrame(a.reference, "the queue cannot be written to"))
	case a.x.features.Has(envelope.FeatureAccept):
		m.accepted.Inc()
		a.x.s.Finish(a.size, wire.AppendAccepted(nil, a.reference, a.id))
	default:
		m.accepted.Inc()
		a.x.s.Finish(a.size, nil)
	}
}

// sendFast publishes a message: one envelope for each lane that has receivers, and one
// for each other domain.
func (x *Sender) sendFast(f wire.Frame, homes []string) {
	shares := x.split(f.To, homes, func(ident.UserID) uint64 { return 0 })
	for _, share := range shares {
		if heard, _ := x.u.to.Lanes.Accepts(share.lane); !heard {
			x.unavailable(f.Reference, "nobody serves the receiver's queue")
			return
		}
	}
	x.numbers.groups++ // of group ids only; a number that is left out means nothing
	e := x.message(&f)
	for _, share := range shares {
		e.To = share.to
		err := x.u.publish(share.lane, &e, func(stream, n uint64) {
			e.Stream = stream
			for i := range e.To {
				e.To[i].N = n
			}
			switch {
			case f.Type == wire.TypeGroupMessage:
				e.ID = ident.GroupMessageID(x.numbers.stream, x.numbers.groups)
			default:
				e.ID = ident.StreamMessageID(stream, f.To[0], n)
			}
			e.Frame = frame(x.user, &f, &e)
		})
		if err != nil {
			x.unavailable(f.Reference, "the live plane cannot be reached")
			return
		}
	}
	x.u.metrics.fast.Inc()
}

// close asks the target's lane to close its sockets. Only the master of the
// target's app may.
func (x *Sender) close(f wire.Frame) {
	target := f.To[0]
	network := x.u.to.Network.Current()
	switch d := route.DecideClose(x.user, target, x.u.cfg.Domain, network); d.Verdict {
	case route.Refuse:
		x.fail(f.Reference, d.Code, refusal(d.Code, "data.userId", target, x.u.cfg.Domain, network))
	case route.Here, route.Elsewhere:
		lane := x.lane
		if d.Verdict == route.Here {
			lane = target.Lane(x.u.cfg.Lanes)
		}
		e := envelope.Envelope{Kind: envelope.KindClose, From: x.user, To: []envelope.Recipient{{User: target}}, CreatedAt: now(), Reference: f.Reference, Network: network.Version}
		x.s.Begin(0)
		done := func(err error) {
			if err != nil {
				x.u.metrics.failed[wire.CodeQueueUnavailable].Inc()
				x.s.Finish(0, unavailableFrame(f.Reference, "the queue cannot be written to"))
				return
			}
			x.s.Finish(0, nil)
		}
		if err := x.u.append(lane, target, &e, func(_ int64, err error) { done(err) }); err != nil {
			done(err)
		}
	}
}

func (x *Sender) fail(reference string, code wire.Code, message string) {
	x.u.metrics.failed[code].Inc()
	x.s.Reply(wire.AppendDeliverFailed(nil, wire.Failure{Code: code, Message: message, Reference: reference}))
}

func (x *Sender) unavailable(reference, message string) {
	x.u.metrics.failed[wire.CodeQueueUnavailable].Inc()
	x.s.Reply(unavailableFrame(reference, message))
}

func unavailableFrame(reference, message string) []byte {
	return wire.AppendDeliverFailed(nil, wire.Failure{
		Code: wire.CodeQueueUnavailable, Message: message, Retryable: true,
		RetryAfterMs: int(retryAfter.Milliseconds()), Reference: reference,
	})
}
