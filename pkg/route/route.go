// Package route decides where a record goes. It is pure: a function of the
// record's users and of the description of the network.
package route

import (
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/topology"
	"github.com/linkerhq/linker/pkg/wire"
)

// Verdict is what becomes of a record for one receiver.
type Verdict uint8

// The verdicts.
const (
	Here   Verdict = iota // the receiver is at home in this domain
	Refuse                // the sender hears why, and a dead letter holds the record
)

// Decision is a verdict with its reason.
type Decision struct {
	Verdict Verdict
	Code    wire.Code // of Refuse
}

// Decide says where a message of from goes that is for to, in domain here. The
// connector has asked the same before it accepted the message; what is decided
// here counts, since the network may have changed in between.
func Decide(from, to ident.UserID, here string, network *topology.Snapshot) Decision {
	if _, known := network.App(to.App()); !known {
		return Decision{Refuse, wire.CodeUnknownApp}
	}
	if !network.MayReach(from.App(), to.App()) {
		return Decision{Refuse, wire.CodeForbiddenApp}
	}
	if network.HomeOf(to, here) != here {
		return Decision{Refuse, wire.CodeNoRoute}
	}
	return Decision{Verdict: Here}
}

// DecideClose says whether from may close the sockets of target: only the
// master user of the target's app may.
func DecideClose(from, target ident.UserID, here string, network *topology.Snapshot) Decision {
	app, known := network.App(target.App())
	switch {
	case !known:
		return Decision{Refuse, wire.CodeUnknownApp}
	case app.Master != from:
		return Decision{Refuse, wire.CodeForbidden}
	case network.HomeOf(target, here) != here:
		return Decision{Refuse, wire.CodeNoRoute}
	}
	return Decision{Verdict: Here}
}
