package uplink

import (
	"context"
	"fmt"
	"strings"
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

	numbers numbers                 // owned by Submit
	limits  limits                  // owned by Submit
	renew   atomic.Bool             // a record has failed: the next one begins a new stream
	entered atomic.Bool             // the login may be in the log
	fetches atomic.Pointer[fetches] // stored by Submit, with the first fetch; nil before
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
	if err := x.u.append(x.lane, x.user, &e, x.u.counted(acknowledged)); err != nil {
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
func (x *Sender) Submit(f *wire.Frame) {
	network := x.u.to.Network.Current()
	if !x.admit(network, f.Reference) {
		return
	}
	switch f.Type {
	case wire.TypeMessage, wire.TypeGroupMessage:
		x.send(f, network)
	case wire.TypeCloseConnection:
		x.close(f.To[0], f.Reference, network)
	case wire.TypeFetch:
		x.fetch(f.Count, f.Reference)
	}
}

func (x *Sender) send(f *wire.Frame, network *topology.Snapshot) {
	named := x.features.Has(envelope.FeatureAccept)
	if named && f.ClientIDProblem != nil {
		x.s.Refuse(f.Reference, f.ClientIDProblem)
		return
	}
	if !named || f.Feature == wire.Fast { // only what is accepted has a name of its client's
		f.ClientID = ""
	}
	d := x.u.draft()
	defer x.u.release(d)
	if to, code, refused := x.split(d, f.To, network); refused {
		x.fail(f.Reference, code, refusal(code, "data.to", to, x.u.cfg.Domain, network))
		return
	}
	if f.Feature == wire.Fast {
		x.sendFast(f, d)
		return
	}
	x.sendReliable(f, d, network.Version)
}

// split sorts receivers by where they are at home: by lane in this domain, else by domain.
// It stops at the first who cannot be reached.
func (x *Sender) split(d *draft, users []ident.UserID, network *topology.Snapshot) (to ident.UserID, code wire.Code, refused bool) {
	way := route.From(x.user, x.u.cfg.Domain, network)
	for _, user := range users {
		switch decided := way.To(user); decided.Verdict {
		case route.Refuse:
			return user, decided.Code, true
		case route.Here:
			d.owe("", user.Lane(x.u.cfg.Lanes))
		case route.Elsewhere:
			d.owe(decided.Domain, x.lane)
		}
	}
	return "", "", false
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

// write makes the envelope of a MESSAGE, without receivers, number, id and frame.
func (x *Sender) write(e *envelope.Envelope, f *wire.Frame, at time.Time) {
	group := f.Type == wire.TypeGroupMessage
	*e = envelope.Envelope{
		Kind: envelope.KindMessage, From: x.user, CreatedAt: at.UnixMilli(), Reference: f.Reference,
		Confirm:  f.Confirm && !group && strings.TrimSpace(f.Reference) != "",
		Remember: f.ClientID != "",
	}
}

// sendReliable writes a message to the log: one record for each lane that has
// receivers of it, and one for each other domain. It is accepted when all of them are
// acknowledged.
func (x *Sender) sendReliable(f *wire.Frame, d *draft, network uint64) {
	for i := range d.shares {
		if _, room := x.u.to.Lanes.Accepts(d.shares[i].lane); !room {
			x.unavailable(f.Reference, "the backlog of the receiver's queue is full")
			return
		}
	}
	at := time.Now()
	if x.renew.Swap(false) {
		x.numbers = newNumbers()
	}
	since := at.Sub(x.u.began)
	d.places = x.numbers.begin(f.To, since, d.places)
	d.divide(f.To, &x.numbers)
	e := &d.envelope
	x.write(e, f, at)
	e.Stream, e.Network = x.numbers.stream, network
	switch {
	case f.ClientID != "" && f.Type == wire.TypeGroupMessage:
		e.ID = ident.ClientMessageID(x.user, "", f.ClientID)
	case f.ClientID != "":
		e.ID = ident.ClientMessageID(x.user, f.To[0], f.ClientID)
	case f.Type == wire.TypeGroupMessage:
		e.ID = ident.GroupMessageID(x.numbers.stream, x.numbers.groups+1)
	default:
		e.ID = ident.StreamMessageID(x.numbers.stream, f.To[0], x.numbers.next(d.places[0]))
	}
	d.frame = appendFrame(d.frame[:0], x.user, f, e)
	e.Frame = d.frame

	_ = failpoint.Hit(failpoint.ConnectorBeforeAppend)
	a := x.u.acceptance(x, len(d.shares))
	a.size, a.id, a.reference, a.at = len(e.Frame), e.ID, f.Reference, at
	x.s.Begin(a.size)
	x.numbers.groups++
	for _, place := range d.places {
		x.numbers.use(place, since) // where the log does not take it, another stream begins
	}
	for i := range d.shares {
		// With the last record a may be over, and be used again.
		r := a.record(i)
		r.about(&d.shares[i])
		e.To = d.shares[i].to
		if err := x.u.appendTo(r.memory(e), r.lane, e.To[0].User, e, r.done); err != nil {
			r.answered(trace.NoOffset, err)
		}
	}
}

func appendFrame(b []byte, from ident.UserID, f *wire.Frame, e *envelope.Envelope) []byte {
	return wire.AppendMessage(b, from, f.Content, f.Reference, wire.Stamp{ID: e.ID, CreatedAt: e.CreatedAt})
}

// What a FAST record takes beside its content, roughly, and for each receiver.
const (
	fastOverhead = 512
	fastMember   = 32
)

// sendFast publishes a message: one envelope for each lane that has receivers, and one
// for each other domain.
func (x *Sender) sendFast(f *wire.Frame, d *draft) {
	for i := range d.shares {
		if heard, _ := x.u.to.Lanes.Accepts(d.shares[i].lane); !heard {
			x.unavailable(f.Reference, "nobody serves the receiver's queue")
			return
		}
	}
	x.numbers.groups++ // of group ids only; a number that is left out means nothing
	d.divide(f.To, nil)
	e := &d.envelope
	x.write(e, f, time.Now())
	for i := range d.shares {
		e.To = d.shares[i].to
		from := fastSent{}
		if i == 0 { // of a group it is told once
			from = fastSent{x, f.Reference}
		}
		size := len(f.Content) + fastOverhead + fastMember*len(e.To)
		x.u.publish(d.shares[i].lane, from, size, func(stream, n uint64) []byte {
			e.Stream = stream
			for i := range e.To {
				e.To[i].N = n
			}
			if f.Type == wire.TypeGroupMessage {
				e.ID = ident.GroupMessageID(x.numbers.stream, x.numbers.groups)
			} else {
				e.ID = ident.StreamMessageID(stream, f.To[0], n)
			}
			d.frame = appendFrame(d.frame[:0], x.user, f, e)
			e.Frame = d.frame
			d.record = e.Append(d.record[:0])
			return d.record
		})
	}
}

// close asks the target's lane to close its sockets. Only the master of the
// target's app may.
func (x *Sender) close(target ident.UserID, reference string, network *topology.Snapshot) {
	switch d := route.DecideClose(x.user, target, x.u.cfg.Domain, network); d.Verdict {
	case route.Refuse:
		x.fail(reference, d.Code, refusal(d.Code, "data.userId", target, x.u.cfg.Domain, network))
	case route.Here, route.Elsewhere:
		lane := x.lane
		if d.Verdict == route.Here {
			lane = target.Lane(x.u.cfg.Lanes)
		}
		e := envelope.Envelope{Kind: envelope.KindClose, From: x.user, To: []envelope.Recipient{{User: target}}, CreatedAt: now(), Reference: reference, Network: network.Version}
		x.s.Begin(0)
		done := func(_ int64, err error) {
			if err != nil {
				x.u.metrics.failed[wire.CodeQueueUnavailable].Inc()
				x.s.Finish(0, unavailableFrame(reference, "the queue cannot be written to"))
				return
			}
			x.s.Finish(0, nil)
		}
		if err := x.u.append(lane, target, &e, x.u.counted(done)); err != nil {
			done(trace.NoOffset, err)
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
