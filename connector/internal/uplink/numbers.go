package uplink

import (
	"time"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
)

const (
	// maxReceivers bounds the numbers that a session keeps; then it begins a new
	// stream.
	maxReceivers = 4096
	// streamIdle is how long a receiver may hear nothing before the next message
	// to it begins a new stream; duplicate windows live longer.
	streamIdle = time.Hour
)

// numbers is the stream of a session: what it sends to each receiver is numbered
// densely from 1. Numbers are used only when the log has taken the record.
type numbers struct {
	stream uint64
	last   map[ident.UserID]number
	groups uint64 // group messages so far
}

type number struct {
	n  uint64
	at time.Time
}

func newNumbers() numbers { return numbers{stream: newStream(), last: make(map[ident.UserID]number)} }

// begin makes sure that all receivers fit the present stream, or begins another.
func (s *numbers) begin(to []ident.UserID, now time.Time) {
	fresh := 0
	for _, user := range to {
		last, known := s.last[user]
		if known && now.Sub(last.at) > streamIdle {
			*s = newNumbers()
			return
		}
		if !known {
			fresh++
		}
	}
	if len(s.last)+fresh > maxReceivers {
		*s = newNumbers()
	}
}

// next is the number of the next message to a user.
func (s *numbers) next(user ident.UserID) uint64 { return s.last[user].n + 1 }

// use marks numbers as used.
func (s *numbers) use(to []envelope.Recipient, now time.Time) {
	for _, r := range to {
		s.last[r.User] = number{n: r.N, at: now}
	}
}
