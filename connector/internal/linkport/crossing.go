package linkport

import (
	"slices"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/topology"
	"github.com/linkerhq/linker/pkg/wire"
)

// code says why a record is never taken. The list is closed.
type code string

const (
	codeUndecodable   code = "UNDECODABLE" // as the dead letters call it
	codeForbiddenType      = code(wire.CodeForbiddenType)
	codeInvalidUserID      = code(wire.CodeInvalidUserID)
	codeHopsExhausted      = code(wire.CodeHopsExhausted)
	codeForbidden          = code(wire.CodeForbidden)
	codeTooLarge           = code(wire.CodeTooLarge)
)

func codes() []code {
	return []code{codeUndecodable, codeForbiddenType, codeInvalidUserID, codeHopsExhausted, codeForbidden, codeTooLarge}
}

// crossesReliable says which kinds are handed over from log to log.
func crossesReliable(k envelope.Kind) bool {
	return slices.Contains([]envelope.Kind{envelope.KindMessage, envelope.KindConfirmation, envelope.KindPresence, envelope.KindWindows}, k)
}

// crossesFast says which kinds cross in memory.
func crossesFast(k envelope.Kind) bool {
	return slices.Contains([]envelope.Kind{envelope.KindMessage, envelope.KindFailure, envelope.KindClose}, k)
}

// check says why a record cannot be taken, whoever brings it.
func check(e *envelope.Envelope, crosses func(envelope.Kind) bool) code {
	if !crosses(e.Kind) {
		return codeForbiddenType
	}
	nobody := e.From == "" && (e.Kind == envelope.KindFailure || e.Kind == envelope.KindWindows)
	if _, err := ident.ParseUserID(string(e.From)); err != nil && !nobody {
		return codeInvalidUserID
	}
	if len(e.Path) >= envelope.MaxPath {
		return codeHopsExhausted
	}
	return ""
}

// stamp returns a copy that says where it came from, without what only a domain's
// own services may say.
func stamp(e envelope.Envelope, from string) envelope.Envelope {
	e.Path = append(slices.Clone(e.Path), from)
	e.Released = false
	e.Session, e.Connector = 0, ident.Connector{}
	e.Features, e.Request, e.Count = 0, 0, 0
	return e
}

// part is what one lane gets of a record.
type part struct {
	envelope.Envelope
	lane int
	key  ident.UserID
}

// split cuts a record up by lanes: for receivers who are at home here one part for
// each of their lanes, for the others one part in the lane of the sender, so that
// what it sends them stays in order; what its former home sends after a user stays in
// the lane of that user.
func split(e envelope.Envelope, network *topology.Snapshot, here string, lanes int) []part {
	var parts []part
	place := make(map[int]int, 1) // of the lanes' parts for receivers who are at home here
	var rest []envelope.Recipient
	for _, to := range e.To {
		if network.HomeOf(to.User, here) != here {
			rest = append(rest, to)
			continue
		}
		lane := to.User.Lane(lanes)
		i, is := place[lane]
		if !is {
			i = len(parts)
			place[lane] = i
			parts = append(parts, part{Envelope: e, lane: lane, key: to.User})
			parts[i].To = nil
		}
		parts[i].To = append(parts[i].To, to)
	}
	if len(rest) > 0 {
		key := e.From
		if key == "" || e.Moved { // what follows a user goes together
			key = rest[0].User
		}
		e.To = rest
		parts = append(parts, part{Envelope: e, lane: key.Lane(lanes), key: key})
	}
	return parts
}

// credible says whether a neighbour may bring a record: its sender's home lies behind
// the neighbour, as the network is now or was a while ago, since what users have sent
// from a former home may still be on its way. known are the descriptions of the
// network, the present one first.
//
// What came through here before may come back from anywhere, and what a former home sends
// after its users may be from anybody; both only if not all its receivers have been at home
// here all the time.
func credible(e *envelope.Envelope, here, neighbour string, known []*topology.Snapshot) bool {
	if e.From == "" || (e.Moved || e.CameThrough(here)) && !stayed(e.To, here, known) {
		return true
	}
	return slices.ContainsFunc(known, func(s *topology.Snapshot) bool {
		home := s.HomeOf(e.From, "")
		return home == "" || s.Behind(here, neighbour, home)
	})
}

// stayed says whether all of the users have been at home here as long as is known.
func stayed(users []envelope.Recipient, here string, known []*topology.Snapshot) bool {
	for _, to := range users {
		for _, s := range known {
			if s.HomeOf(to.User, here) != here {
				return false
			}
		}
	}
	return true
}
