// Package route decides where a record goes. It is pure: a function of the
// record's users and of the description of the network.
package route

import (
	"cmp"

	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/topology"
	"github.com/linkerhq/linker/pkg/wire"
)

// Verdict is what becomes of a record for one receiver.
type Verdict uint8

// The verdicts.
const (
	Here      Verdict = iota // the receiver is at home in this domain
	Elsewhere                // the receiver is at home in another domain, to which there is a way
	Refuse                   // the sender hears why, and a dead letter holds the record
)

// Decision is a verdict with what belongs to it.
type Decision struct {
	Verdict Verdict
	Domain  string    // of Elsewhere: the receiver's home
	Code    wire.Code // of Refuse
}

// Decide says where a message of from goes that is for to, in domain here. The
// connector has asked the same before it accepted the message; what is decided
// here counts, since the network may have changed in between.
func Decide(from, to ident.UserID, here string, network *topology.Snapshot) Decision {
	sender := From(from, here, network)
	return sender.To(to)
}

// DecideClose says whether from may close the sockets of target, and where they are:
// only the master user of the target's app may.
func DecideClose(from, target ident.UserID, here string, network *topology.Snapshot) Decision {
	app, known := network.App(target.App())
	switch {
	case !known:
		return Decision{Verdict: Refuse, Code: wire.CodeUnknownApp}
	case app.Master != from:
		return Decision{Verdict: Refuse, Code: wire.CodeForbidden}
	}
	return Way(target, here, network)
}

// Way says where a user is at home. It is not asked whether the links on the way are up:
// where they are not, records wait.
func Way(to ident.UserID, here string, network *topology.Snapshot) Decision {
	return Towards(network.HomeOf(to, here), here, network)
}

// Answer is Way for what answers a user of whom it is known in which domain it has
// spoken: that counts where the distributions name no home.
func Answer(to ident.UserID, spoke, here string, network *topology.Snapshot) Decision {
	return Towards(cmp.Or(network.HomeOf(to, ""), spoke, here), here, network)
}

// Towards says whether there is a way to a domain.
func Towards(home, here string, network *topology.Snapshot) Decision {
	switch {
	case home == here:
		return Decision{Verdict: Here}
	case !network.Joined(here, home):
		return Decision{Verdict: Refuse, Code: wire.CodeNoRoute}
	}
	return Decision{Verdict: Elsewhere, Domain: home}
}
