// Package trace answers where a message is. Every process keeps what has lately
// happened to messages in its hands in a Log, which is cheap enough to be always on.
// A Witness answers for its process, over the live plane of its domain, what the Log
// holds about one message, and can ask everybody else: the other processes of the
// domain, what waits in its mailbox, and over the links the neighbouring domains, who
// ask theirs.
//
// What is noted are names, numbers and times; never what a message says.
//
// Nothing depends on a trace: it may be incomplete. A Log forgets its oldest events, a
// process that has ended takes its Log with it, and who does not answer in time is
// named as missing.
package trace

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"time"

	"github.com/linkerhq/linker/pkg/ident"
)

// Kind is what has happened to a message. The numbers are sent: they are never used
// again.
type Kind uint8

// The kinds of events: of connectors, …
const (
	Accepted Kind = 1 // the log has what a client has sent: from here on the message is the domain's
	Refused  Kind = 2 // the log has not taken it, and its sender was told
	Received Kind = 3 // the log has what a neighbouring domain has handed over
	Reached  Kind = 4 // a delivery is with the connector of its session

	// … and of processors.
	Taken      Kind = 10 // the lane has custody, from the record at Offset on
	Duplicate  Kind = 11 // it was taken before: this copy is dropped
	Held       Kind = 12 // it has overtaken others of its sender, and waits for them
	Released   Kind = 13 // it waits for others no longer: it is written into its lane once more
	Late       Kind = 14 // newer ones of its sender were delivered before it
	Sent       Kind = 15 // it was sent to a session, or over a link
	Fetched    Kind = 16 // it was sent to a session that had asked for it
	Proved     Kind = 17 // a session has proved receipt
	Stored     Kind = 18 // the mailbox has custody
	Removed    Kind = 19 // everybody who was owed it has it: it has left the mailbox
	HandedOver Kind = 20 // the next domain has custody
	Returned   Kind = 21 // a session, or the road to another domain, has ended without proof of receipt
	Moved      Kind = 22 // it is sent after its receiver, who is at home elsewhere now, or over another road
	Confirmed  Kind = 23 // the log has the confirmation for its sender
	Dead       Kind = 24 // it was given to the dead letters
)

// String is the word that answers use.
func (k Kind) String() string {
	switch k {
	case Accepted:
		return "accepted"
	case Refused:
		return "refused"
	case Received:
		return "received"
	case Reached:
		return "reached"
	case Taken:
		return "taken"
	case Duplicate:
		return "duplicate"
	case Held:
		return "held"
	case Released:
		return "released"
	case Late:
		return "late"
	case Sent:
		return "sent"
	case Fetched:
		return "fetched"
	case Proved:
		return "proved"
	case Stored:
		return "stored"
	case Removed:
		return "removed"
	case HandedOver:
		return "handed_over"
	case Returned:
		return "returned"
	case Moved:
		return "moved"
	case Confirmed:
		return "confirmed"
	case Dead:
		return "dead"
	}
	return fmt.Sprintf("kind_%d", uint8(k)) // of a newer version
}

// Kinds lists all kinds.
func Kinds() []Kind {
	return []Kind{
		Accepted, Refused, Received, Reached, Taken, Duplicate, Held, Released, Late, Sent, Fetched, Proved, Stored,
		Removed, HandedOver, Returned, Moved, Confirmed, Dead,
	}
}

// The services.
const (
	Connector = "connector"
	Processor = "processor"
)

// Place is a process.
type Place struct{ Domain, Service, Name string }

// String names the process for people.
func (p Place) String() string { return p.Domain + "/" + p.Name }

// NoOffset is the offset of an event, or its lane, where it has none.
const NoOffset = -1

// Event is something that has happened to a message.
type Event struct {
	At      time.Time // to the microsecond, by the clock of Place
	Place   Place     // where; a Log fills it in
	Kind    Kind
	Message ident.MessageID
	User    ident.UserID // the receiver; empty: several
	Users   int          // how many receivers it is about, if User is empty
	Session uint64       // of the receiver, or of Accepted and Refused of the sender; 0: none
	Lane    int          // NoOffset: none
	Offset  int64        // in the lane, of the record it is about; NoOffset: none
	Peer    string       // the connector of the session, or the other domain; empty: none
	Road    bool         // it is about the road to Peer, which is another domain
	Reason  string       // of Dead and Refused

	// Since is when what has happened began; zero: it took no time, or nobody knows. A Log
	// does not keep it.
	Since time.Time
}

// ParseMessageID reads the id of a message as clients see it.
func ParseMessageID(s string) (ident.MessageID, error) {
	var id ident.MessageID
	if len(s) != base64.RawURLEncoding.EncodedLen(len(id)) {
		return id, fmt.Errorf("message id %.40q: %d characters, expected 22, as in MESSAGE_ACCEPTED", s, len(s))
	}
	// The package base64 passes over line ends, and is then content with too few bytes.
	if n, err := base64.RawURLEncoding.Strict().Decode(id[:], []byte(s)); err != nil || n != len(id) {
		return ident.MessageID{}, fmt.Errorf("message id %.40q: expected letters, digits, - and _, as in MESSAGE_ACCEPTED", s)
	}
	return id, nil
}

func comparePlaces(a, b Place) int {
	return cmp.Or(cmp.Compare(a.Domain, b.Domain), cmp.Compare(a.Service, b.Service), cmp.Compare(a.Name, b.Name))
}
