package uplink

import (
	"time"

	"github.com/linkerhq/linker/pkg/trace"
	"github.com/linkerhq/linker/pkg/wire"
)

// note says, for those who ask where a message is, what the log has made of a record.
func (r *record) note(offset int64, err error) {
	a := r.of
	if a.x.u.to.Trace == nil {
		return
	}
	e := trace.Event{
		At: time.Now(), Kind: trace.Accepted, Message: a.id, User: r.user, Session: a.x.id,
		Lane: r.lane, Offset: offset, Peer: r.domain, Road: r.domain != "",
	}
	if err != nil {
		e.Kind, e.Offset, e.Reason = trace.Refused, trace.NoOffset, string(wire.CodeQueueUnavailable)
	}
	if r == &a.first {
		e.Since = a.at
	}
	if r.user == "" {
		e.Users = r.users
	}
	a.x.u.to.Trace.Add(e)
}
