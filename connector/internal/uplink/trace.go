package uplink

import (
	"time"

	"github.com/linkerhq/linker/pkg/trace"
	"github.com/linkerhq/linker/pkg/wire"
)

// note says, for those who ask where a message is, what the log has made of one of its
// records.
func (a *acceptance) note(s *share, offset int64, err error) {
	u := a.x.u
	if u.to.Trace == nil {
		return
	}
	e := trace.Event{At: time.Now(), Kind: trace.Accepted, Message: a.id, Session: a.x.id, Lane: s.lane, Offset: offset, Peer: s.domain, Road: s.domain != ""}
	if err != nil {
		e.Kind, e.Offset, e.Reason = trace.Refused, trace.NoOffset, string(wire.CodeQueueUnavailable)
	}
	if s.first {
		e.Since = a.at
	}
	if len(s.to) == 1 {
		e.User = s.to[0].User
	} else {
		e.Users = len(s.to)
	}
	u.to.Trace.Add(e)
}
