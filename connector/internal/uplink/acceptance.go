package uplink

import (
	"sync/atomic"
	"time"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/failpoint"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/wire"
)

// acceptance waits for the acknowledgements of one message. It is used again for others:
// nobody may touch it behind the last answer.
type acceptance struct {
	// Static while it waits.
	x         *Sender
	size      int
	id        ident.MessageID
	reference string
	at        time.Time // when it came

	left   atomic.Int32 // records of which nothing was heard yet
	failed atomic.Bool  // one of them has

	first record   // most messages are one record
	more  []record // of a group; never kept
}

// record is one record of a message, which the log has not answered for.
type record struct {
	// Static.
	of   *acceptance
	done func(offset int64, err error) // acknowledged

	// Static while it waits.
	lane   int
	domain string       // the other domain that it is for; empty: this one
	user   ident.UserID // whom it is for; empty: several
	users  int

	value []byte // for an encoded record; the log has it while the record waits
}

// keptValue is the largest memory of a record that is used for others.
const keptValue = 4 << 10

// memory is room for an encoded record. Most messages are about as large as others, so that
// it is used again, but not for long ones.
func (r *record) memory(e *envelope.Envelope) []byte {
	size := room(e)
	if size > keptValue {
		return nil
	}
	if cap(r.value) < size {
		r.value = make([]byte, 0, size)
	}
	return r.value
}

// acceptance returns one for a message of so many records.
func (u *Uplink) acceptance(x *Sender, records int) *acceptance {
	a, again := u.acceptances.Get().(*acceptance)
	if !again {
		a = new(acceptance)
		a.first.of = a
		a.first.done = a.first.acknowledged
	}
	a.x = x
	a.left.Store(int32(records))
	if records > 1 {
		a.more = make([]record, records-1)
	}
	return a
}

// record returns the record at a place among those of the message.
func (a *acceptance) record(place int) *record {
	if place == 0 {
		return &a.first
	}
	r := &a.more[place-1]
	r.of = a
	r.done = r.acknowledged
	return r
}

// about says whom the record is for.
func (r *record) about(s *share) {
	r.lane, r.domain, r.user, r.users = s.lane, s.domain, "", s.count
	if s.count == 1 {
		r.user = s.to[0].User
	}
}

// acknowledged hears from the log.
func (r *record) acknowledged(offset int64, err error) {
	u := r.of.x.u
	r.answered(offset, err)
	u.under.add(-1)
}

// answered takes the outcome of one record.
func (r *record) answered(offset int64, err error) {
	r.note(offset, err)
	r.of.done(err)
}

// done takes the outcome of one record. The last one answers the client.
func (a *acceptance) done(err error) {
	if err != nil {
		a.x.renew.Store(true)
		a.failed.Store(true)
	}
	if a.left.Add(-1) > 0 {
		return
	}
	_ = failpoint.Hit(failpoint.ConnectorAfterAck)
	x, m := a.x, a.x.u.metrics
	switch {
	case a.failed.Load():
		m.failed[wire.CodeQueueUnavailable].Inc()
		x.s.Finish(a.size, unavailableFrame(a.reference, "the queue cannot be written to"))
	case x.features.Has(envelope.FeatureAccept):
		m.accepted.Inc()
		x.s.Finish(a.size, wire.AppendAccepted(nil, a.reference, a.id))
	default:
		m.accepted.Inc()
		x.s.Finish(a.size, nil)
	}
	a.release(x.u)
}

// release keeps an acceptance for another message, and nothing of this one.
func (a *acceptance) release(u *Uplink) {
	a.x, a.reference, a.more = nil, "", nil
	a.first.domain, a.first.user = "", ""
	a.failed.Store(false)
	u.acceptances.Put(a)
}
