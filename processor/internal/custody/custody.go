// Package custody is the heart of Linker: what a lane decides. Everything about a
// user — messages to it, its logins, logouts and fetches — is a record of that
// user's lane, in one order. The lane keeps custody of every record: it settles
// one only when a session has proved receipt, when the mailbox holds it, or when
// a dead letter does; offsets are committed up to the lowest record that is not
// settled.
//
// State is the state machine of one lane. It knows no broker, no store, no
// goroutine and no clock: Step takes an event and the time and says in Effects
// what is to be done. Package lane feeds it and carries the effects out.
//
// The words: a target is who must get one copy of each message of a user: one
// session, or, for a master user whose app delivers to one socket, all of its
// sessions together. A target is live as long as records go out to it at once;
// it is behind while older records wait for it in the mailbox. A flight is a
// delivery that has been sent and not yet proved.
package custody

import (
	"time"

	"github.com/linkerhq/linker/pkg/delivery"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/pkg/topology"
)

// Limits of a lane. What exceeds a window waits in the mailbox.
const (
	WindowBytes   = 256 << 10 // under way to one session
	WindowRecords = 1024

	// SpillAfter is how long a record may wait for proof before the mailbox
	// takes custody of it.
	SpillAfter = time.Second
	// FetchWait is how long a fetch waits for records below its bound to be
	// proved or stored. For those that are held until the store has counted it waits on.
	FetchWait = time.Second
	// ClaimFor is how long a fetched row is kept from other fetches of the same
	// user while its socket gives no proof.
	ClaimFor = 5 * time.Second
	// RememberFor is how long ids are remembered.
	RememberFor = 10 * time.Minute

	resendUntaken = 300 * time.Millisecond // a delivery the connector has not answered
	resendTaken   = 2 * time.Second        // a delivery it has answered and not proved: asks again
	resendMost    = 5 * time.Second        // the longest pause between two attempts
	fastProofFor  = time.Minute            // a FAST message's proof is waited for at least so long, for its confirmation
	maxPublishers = 1 << 14                // of FAST messages whose order is known; then all are forgotten
	maxFastWaits  = 1 << 16                // confirmations of FAST messages begun in that time; more are not given
	departedFor   = 30 * time.Second       // a session that has logged out is known as such
	maxHeld       = 32 << 20               // bytes of records in memory, from which on what can be read again is forgotten
	pageRows      = 256                    // read from the mailbox at once
)

// Limits of what goes to other domains and comes from them.
const (
	RoadBytes   = 1 << 20 // under way to one domain, from one lane
	RoadRecords = 4096

	// HoldFor is how long a message that has overtaken others of its sender waits for
	// them. What comes after that is marked as late.
	HoldFor = 30 * time.Second
	// NetworkWait is how long records wait for the description of the network by which
	// another process has routed them.
	NetworkWait = 10 * time.Second

	againAfter  = time.Second      // a record that was here before is sent on no sooner
	waitAgain   = time.Minute      // after records have waited for a network in vain, none do for so long
	maxHolding  = 32 << 20         // bytes of messages that wait for others; then the oldest go on
	arrivingFor = 30 * time.Second // what a moved user's former home has comes first, for so long
	moveAgain   = 2 * time.Second  // between two looks for messages that are in the wrong place
	moveRows    = 256              // on their way to the right place at once
)

// Event is something that has happened to a lane: a pointer to one of the following, but
// for those that are one pointer themselves.
type Event interface{ event() }

// RecordRead is the next record of the log, in the order of offsets.
type RecordRead struct {
	Offset   int64
	Envelope *envelope.Envelope // nil: not decodable
	Raw      []byte             // of a record that is not decodable
	Fill     bool               // settled by an earlier owner: only the windows learn of it
}

// FastArrived is an envelope that came over the live plane. It goes by value, as Answered does.
type FastArrived struct{ Envelope *envelope.Envelope }

// Answered is what a connector says about its sessions of this lane.
type Answered struct{ Answers *delivery.Answers }

// Stored says that the mailbox has taken rows.
type Stored struct{ Keys []mailbox.Key }

// RowsRead is the result of a Read.
type RowsRead struct {
	Read Read
	Rows []mailbox.Row
	More bool
}

// Counted is the result of a Count.
type Counted struct {
	Count Count
	N     int
	// AsOf is the latest round whose writes came before it: later ones than those with which
	// it was asked for may have overtaken it.
	AsOf uint64
}

// Loaded is the result of a Load.
type Loaded struct {
	User      ident.UserID
	Announced mailbox.Announced
	Found     bool
}

// AnnouncedSaved says that an entry of Effects.Announce is durable.
type AnnouncedSaved struct{ Announced mailbox.Announced }

// Produced says that the log has taken a record.
type Produced struct{ Token Token }

// Buried says that the dead letters hold what Burial said.
type Buried struct{ Burial Burial }

// ConnectorDied says that a connector's lease has run out.
type ConnectorDied struct{ Connector ident.Connector }

// Assembled says that every connector whose lease stands has told its sessions to
// this owner: users who were announced as connected, and whom none of them has
// claimed, are gone. It comes once, and the later the better: as long as it is
// not certain who is there, nobody is announced as gone.
type Assembled struct{}

// RoadsChanged says over which connection each other domain is reached from now on.
// Domains that are not named cannot be reached.
type RoadsChanged struct{ Roads map[string]Road }

// Road is the way to another domain.
type Road struct {
	Conn uint64 // the connection that leads there; not 0
}

// HandedOver says that the neighbour's log has all records of a channel up to UpTo.
type HandedOver struct{ Channel, UpTo uint64 }

// Refused says that the neighbour will never take a record. It comes before the
// HandedOver that covers it.
type Refused struct {
	Channel, N uint64
	Code       string
}

// TargetsListed is the result of an entry of Effects.Lists.
type TargetsListed struct {
	List    List
	Targets []string
}

// NetworkChanged replaces the description of the network.
type NetworkChanged struct{ Network *topology.Snapshot }

// Ticked lets time pass; it comes about every 100 ms.
type Ticked struct{}

func (RecordRead) event()     {}
func (FastArrived) event()    {}
func (Answered) event()       {}
func (Stored) event()         {}
func (RowsRead) event()       {}
func (Counted) event()        {}
func (Loaded) event()         {}
func (AnnouncedSaved) event() {}
func (Produced) event()       {}
func (Buried) event()         {}
func (ConnectorDied) event()  {}
func (Assembled) event()      {}
func (NetworkChanged) event() {}
func (RoadsChanged) event()   {}
func (HandedOver) event()     {}
func (Refused) event()        {}
func (TargetsListed) event()  {}
func (Ticked) event()         {}

// Effects are what is to be done, in any order between the kinds; within a kind
// in the order given. They are valid until Reset. Writes to the mailbox (Put, Mark, Delete, DeleteProved,
// Announce) are carried out one after another in the order in which Step asked
// for them, or so that nobody can tell the difference.
type Effects struct {
	Deliveries   []Delivery
	Put          []mailbox.Row
	Mark         []mailbox.Key
	Delete       []mailbox.Key
	DeleteProved []ProvedRows
	Reads        []Read
	Counts       []Count
	Loads        []ident.UserID
	Usages       []ident.UserID
	Expirations  []Expiration
	Announce     []mailbox.Announced
	Produce      []Produce
	Bury         []Burial
	Failures     []envelope.Envelope // for senders' open sockets, over the live plane
	Hand         []Hand              // for other domains
	HandFast     []HandFast
	Leave        []Leave // channels that are used no longer; before Hand
	Lists        []List

	targets []delivery.Target // of the deliveries, one behind the other
	round   uint64            // counts Resets: within a round, writes come before reads
}

// Hand is a record for another domain, the Nth of a channel.
type Hand struct {
	Conn, Channel, N uint64
	Record           []byte
}

// HandFast is a FAST record for another domain.
type HandFast struct {
	Conn   uint64
	Record []byte
}

// Leave ends a channel.
type Leave struct{ Conn, Channel uint64 }

// List asks for the names of targets that have rows in the mailbox.
type List struct {
	After string
	Limit int
}

// Delivery is an item for a connector.
type Delivery struct {
	To   ident.Connector
	Item delivery.Item
}

// ProvedRows selects the proved rows of a target that lie before a position;
// the zero position selects all of them.
type ProvedRows struct {
	To     string
	Before envelope.Position
}

// Purpose says who asked for a Read or Count.
type Purpose uint8

// The purposes.
const (
	ForTarget Purpose = iota // a target that is behind
	ForFetch
	ForProof // of a delivery whose record only the mailbox still has
	ForHint  // MISSING_MESSAGES_AVAILABLE
	ForMove  // to where the messages belong now
)

// Read asks for rows of the mailbox.
type Read struct {
	Purpose Purpose
	Query   mailbox.Query
	Session uint64 // whose target or fetch it is
	Serial  uint64 // tells a result that has become stale
}

// Count asks for a number of rows.
type Count struct {
	Purpose Purpose
	Query   mailbox.Query
	Session uint64
	Serial  uint64

	round uint64 // of the effects that asked
	held  int    // messages in the same place that the store was not given yet
}

// Produce asks for a record in the log, in the lane of its first recipient, or
// in this lane where it has none.
type Produce struct {
	Envelope envelope.Envelope
	Token    Token
}

// Token says what a produced record was for; it comes back in Produced.
type Token struct {
	Confirms envelope.Position // a confirmation of the record at this position …
	User     ident.UserID      // … as delivered to this user; or a presence event of this user
	Presence uint64            // the event's number; 0: not a presence event

	Passed int64       // the record at this offset minus 1 is settled by it; 0: none is
	Stands mailbox.Key // the row that has moved, and whose place it takes
}

// Burial asks for a dead letter: the record of an offset cannot be delivered to
// some of its receivers.
type Burial struct {
	Offset int64
	User   ident.UserID // whom it was for; empty: not known
	Record []byte       // as it stood in the log, but for the one receiver
	Reason string       // a wire.Code, or UNDECODABLE
}

// Reset empties the effects and keeps their memory.
func (e *Effects) Reset() {
	clear(e.Deliveries)
	clear(e.Put)
	clear(e.Produce)
	clear(e.Bury)
	clear(e.Failures)
	clear(e.Hand)
	clear(e.HandFast)
	e.Hand, e.HandFast, e.Leave, e.Lists = e.Hand[:0], e.HandFast[:0], e.Leave[:0], e.Lists[:0]
	e.Deliveries, e.Put, e.Mark, e.Delete = e.Deliveries[:0], e.Put[:0], e.Mark[:0], e.Delete[:0]
	e.DeleteProved, e.Reads, e.Counts, e.Loads = e.DeleteProved[:0], e.Reads[:0], e.Counts[:0], e.Loads[:0]
	e.Usages, e.Expirations = e.Usages[:0], e.Expirations[:0]
	e.Announce, e.Produce, e.Bury, e.Failures = e.Announce[:0], e.Produce[:0], e.Bury[:0], e.Failures[:0]
	clear(e.targets)
	e.targets = e.targets[:0]
	e.round++
}

// Round numbers what the effects hold: it rises with every Reset.
func (e *Effects) Round() uint64 { return e.round }

// deliver adds an item for one session of a connector. The same record for several
// sessions of one connector becomes one item with several targets.
func (e *Effects) deliver(to *connector, item *delivery.Item, target delivery.Target) {
	if to.asOf == e.round+1 {
		if last := &e.Deliveries[to.last].Item; sameItem(last, item) {
			e.addTarget(last, target)
			return
		}
	}
	to.asOf, to.last = e.round+1, len(e.Deliveries)
	e.Deliveries = append(e.Deliveries, Delivery{To: to.id, Item: *item})
	e.addTarget(&e.Deliveries[to.last].Item, target)
}

// addTarget adds to the targets of an item. Those of all items share memory: an item grows
// in place as long as no other one stands behind it.
func (e *Effects) addTarget(item *delivery.Item, target delivery.Target) {
	n, all := len(item.Targets), len(e.targets)
	if n > 0 && (all < n || &item.Targets[0] != &e.targets[all-n]) {
		item.Targets = append(item.Targets, target) // in memory of its own, from the second time on
		return
	}
	e.targets = append(e.targets, target)
	item.Targets = e.targets[all-n : all+1 : all+1]
}

func sameItem(a, b *delivery.Item) bool {
	return a.Kind == b.Kind && a.Pos == b.Pos && a.ID == b.ID && a.ID != (ident.MessageID{}) &&
		a.Token == b.Token && a.Late == b.Late && a.Urgent == b.Urgent &&
		(len(a.Frame) == 0) == (len(b.Frame) == 0) // what only asks how far a session is has none
}
