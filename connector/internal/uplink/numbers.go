package uplink

import (
	"strings"
	"time"

	"github.com/linkerhq/linker/pkg/ident"
)

const (
	// maxReceivers bounds the numbers that a session keeps; then it begins a new
	// stream.
	maxReceivers = 4096
	// streamIdle is how long a receiver may hear nothing before the next message
	// to it begins a new stream; duplicate windows live longer.
	streamIdle = time.Hour
	// fewReceivers are looked at one by one; a session with more keeps a map of them.
	fewReceivers = 8
)

// numbers is the stream of a session: what it sends to each receiver is numbered
// densely from 1. Numbers are used only when the log has taken the record. Without
// receivers it holds no memory but its own.
type numbers struct {
	stream    uint64
	groups    uint64 // group messages so far
	receivers []receiver
	places    map[ident.UserID]int32 // of receivers; nil while there are few
}

// receiver is somebody whom the session has sent something, or was about to.
type receiver struct {
	user ident.UserID
	n    uint64        // the last number used
	at   time.Duration // when that was, on the uplink's clock
}

func newNumbers() numbers { return numbers{stream: newStream()} }

// begin appends the places of all receivers in the present stream, or in another one that
// it begins if they do not fit.
func (s *numbers) begin(to []ident.UserID, now time.Duration, places []int32) []int32 {
	found, fit := s.find(to, now, places)
	if fit {
		return found
	}
	*s = newNumbers()
	found, _ = s.find(to, now, places)
	return found
}

// find reports false if one of the receivers has heard nothing for too long, or if there
// are too many. Then it is over with the stream.
func (s *numbers) find(to []ident.UserID, now time.Duration, places []int32) (found []int32, fit bool) {
	place := int32(-1)
	for _, user := range to {
		place = s.place(user, place+1)
		switch {
		case place >= 0 && now-s.receivers[place].at > streamIdle:
			return places, false
		case place < 0 && len(s.receivers) == maxReceivers:
			return places, false
		case place < 0:
			place = s.add(user, now)
		}
		places = append(places, place)
	}
	return places, true
}

// place returns -1 for somebody new. It looks at the likely place first: members of a group
// come in the same order again.
func (s *numbers) place(user ident.UserID, likely int32) int32 {
	if int(likely) < len(s.receivers) && s.receivers[likely].user == user {
		return likely
	}
	if s.places != nil {
		if place, known := s.places[user]; known {
			return place
		}
		return -1
	}
	for i := range s.receivers {
		if s.receivers[i].user == user {
			return int32(i)
		}
	}
	return -1
}

func (s *numbers) add(user ident.UserID, now time.Duration) int32 {
	user = ident.UserID(strings.Clone(string(user))) // it is part of a longer string in a group
	place := int32(len(s.receivers))
	s.receivers = append(s.receivers, receiver{user: user, at: now})
	switch {
	case s.places != nil:
		s.places[user] = place
	case len(s.receivers) > fewReceivers:
		s.places = make(map[ident.UserID]int32, 2*fewReceivers)
		for i := range s.receivers {
			s.places[s.receivers[i].user] = int32(i)
		}
	}
	return place
}

// next is the number of the next message to the receiver at a place.
func (s *numbers) next(place int32) uint64 { return s.receivers[place].n + 1 }

// use marks the next number of a receiver as used.
func (s *numbers) use(place int32, now time.Duration) {
	r := &s.receivers[place]
	r.n++
	r.at = now
}
