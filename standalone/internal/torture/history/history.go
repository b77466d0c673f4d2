// Package history keeps what happened in a run of linker-torture: an append-only
// file of JSON, one operation a line, in the order in which they happened.
//
// One process writes it, any number of goroutines append. Time is monotonic, in
// microseconds since the start of the run. Whatever a verdict says of a run, it says
// from this file alone, so everything that a verdict needs is an operation: what
// clients did and saw, which faults began and ended, and what was observed of the
// system itself.
package history

import (
	"fmt"
	"time"
)

// Format is the version of the file, which its first line names.
const Format = 1

// Kind is what an operation is. The list is closed.
type Kind string

// The first line, and what everybody needs to know before.
const (
	KindRun  Kind = "run"  // Run
	KindUser Kind = "user" // User, Role, Domain, App, Steady: somebody takes part
)

// Sockets of clients. A session is one login of one socket, or one Go client from its
// Connect to its Close; its number is used once in a run.
const (
	KindOpen  Kind = "open"  // User, Session, Client, Features, URL, Asked: logged in
	KindClose Kind = "close" // User, Session, Code, Note, Broken, Proved: it ended
)

// Messages. User is the sender where nothing else is said, N the number of the
// message among all of its sender, from 1.
const (
	KindSend      Kind = "send"      // User, Session, Client, N, To, Feature, Sum, Size, Confirm, Attempt, Again
	KindAccepted  Kind = "accepted"  // User, N, ID
	KindRefused   Kind = "refused"   // User, N, Code, Final: an error before it was accepted
	KindUnknown   Kind = "unknown"   // User, N: the connection was lost before an answer; Final: nobody will ask again
	KindFailed    Kind = "failed"    // User, N, Code: an error after it was accepted
	KindConfirmed Kind = "confirmed" // User, Session, N, ID
	KindDelivered Kind = "delivered" // User: the receiver; Session, From, N, ID, Sum, Size, Bound, Damaged, Late, Seq
	KindPresence  Kind = "presence"  // User: the master; Session, ID, About, Connected
	KindStrange   Kind = "strange"   // User, Session, Note: a frame that nobody should get
	KindLeft      Kind = "left"      // User, Session, Count: what a last fetch said to be left
)

// The course of a run.
const (
	KindPhase Kind = "phase" // Name
	KindFault Kind = "fault" // Fault
)

// What was observed of the system itself.
const (
	KindSample      Kind = "sample"      // Name, Values: any metrics, for people
	KindProcess     Kind = "process"     // Process
	KindMailbox     Kind = "mailbox"     // Mailbox
	KindDead        Kind = "dead"        // Domain, ID, Code (the reason), User (the sender), To: a dead letter
	KindWhereabouts Kind = "whereabouts" // User, Count: the sockets that the system says to be open
	KindOffset      Kind = "offset"      // Offset
	KindLog         Kind = "log"         // Name (of the process), Code (what was found), Note (the line, shortened)
)

// Names of phases. What was sent between two phases belongs to the first.
const (
	PhaseWarm    = "warm"    // no fault yet
	PhaseFaults  = "faults"  // faults come and go
	PhaseHealed  = "healed"  // no fault any more
	PhaseQuiesce = "quiesce" // nothing new is sent
	PhaseEnd     = "end"     // the clients are still logged in and everything has been observed; then they go
)

// Kinds of clients.
const (
	ClientRaw = "raw" // what its websocket library has read counts as received
	ClientAck = "ack" // acknowledges by itself
	ClientGo  = "go"  // pkg/client
)

// Roles of users.
const (
	RoleSender    = "sender"
	RoleFast      = "fast" // sends FAST messages only
	RoleReceiver  = "receiver"
	RoleTwin      = "twin"      // a receiver with two sockets at a time
	RoleBystander = "bystander" // a receiver who comes back late, so that it is announced as gone
	RoleMaster    = "master"    // hears who comes and goes
)

// FeatureFast is the feature of a message that is not RELIABLE.
const FeatureFast = "FAST"

// What a line of a log can be of which there must be none.
const (
	LogRace   = "race"
	LogPanic  = "panic"
	LogSecret = "secret"
	// LogMistake is not a line: the process ended by itself, or not as it was told to.
	LogMistake = "mistake"
)

// When a process was looked at.
const (
	AtWarm = "warm" // at the end of the warm phase
	AtEnd  = "end"  // after quiescence
)

// Op is one operation. Which fields it has depends on its kind; what is not said to
// belong to a kind is empty.
type Op struct {
	At   int64 `json:"t"` // microseconds since the start of the run; set by the writer
	Kind Kind  `json:"op"`

	User    string `json:"user,omitempty"`
	Session int64  `json:"session,omitempty"`
	N       int64  `json:"n,omitempty"`
	ID      string `json:"id,omitempty"` // that the system gave the message

	From     string   `json:"from,omitempty"`
	To       []string `json:"to,omitempty"` // one receiver, or the members of a group
	Feature  string   `json:"feature,omitempty"`
	Sum      string   `json:"sum,omitempty"` // of the content
	Size     int      `json:"size,omitempty"`
	Confirm  bool     `json:"confirm,omitempty"` // a confirmation was asked for
	Attempt  int      `json:"attempt,omitempty"` // from 1; sent again under the same id of the client
	Again    bool     `json:"again,omitempty"`   // sent again although it was accepted: it has to be taken once
	Bound    string   `json:"bound,omitempty"`   // whom the content names as its receiver, if that is not the user
	Damaged  bool     `json:"damaged,omitempty"` // the content does not have the sum that it names
	Late     bool     `json:"late,omitempty"`
	Seq      int64    `json:"seq,omitempty"`
	Code     string   `json:"code,omitempty"`
	Final    bool     `json:"final,omitempty"`
	Note     string   `json:"note,omitempty"`
	Count    int64    `json:"count,omitempty"`
	About    string   `json:"about,omitempty"`
	Online   bool     `json:"online,omitempty"`   // what the master was told About
	Client   string   `json:"client,omitempty"`   // ClientRaw, ClientAck, ClientGo
	Features []string `json:"features,omitempty"` // of a login
	URL      string   `json:"url,omitempty"`      // where it connected
	Asked    int64    `json:"asked,omitempty"`    // when the login was sent, in the time of At
	Broken   bool     `json:"broken,omitempty"`   // the socket did not end because its user went
	Proved   int64    `json:"proved,omitempty"`   // how many of the frames that came first the system knows to be received
	Role     string   `json:"role,omitempty"`
	Domain   string   `json:"domain,omitempty"`
	App      string   `json:"app,omitempty"`
	Name     string   `json:"name,omitempty"`
	Steady   bool     `json:"steady,omitempty"` // the user never goes by itself

	Values  map[string]float64 `json:"values,omitempty"`
	Run     *Run               `json:"run,omitempty"`
	Fault   *Fault             `json:"fault,omitempty"`
	Process *Process           `json:"process,omitempty"`
	Mailbox *Mailbox           `json:"mailbox,omitempty"`
	Offset  *Offset            `json:"offset,omitempty"`
}

// Run is what the first line says of the whole run.
type Run struct {
	Format  int       `json:"format"`
	Started time.Time `json:"started"`
	Seed    uint64    `json:"seed"`
	Command string    `json:"command,omitempty"` // how to repeat it
	System  string    `json:"system,omitempty"`  // what was tested, for people
	Bug     string    `json:"bug,omitempty"`     // that was seeded
}

// Fault begins, and later ends: two operations with the same Number.
type Fault struct {
	Number int64  `json:"number"` // from 1
	Kind   string `json:"kind"`
	Target string `json:"target,omitempty"` // the process, link or server
	End    bool   `json:"end,omitempty"`

	Domains []string `json:"domains,omitempty"` // whose users are concerned; none and no URLs: everybody
	URLs    []string `json:"urls,omitempty"`    // whose sockets are concerned, as in Op.URL
	// Kill says that the connectors at URLs, and nothing else, were killed with
	// their sockets: their users have to be announced as gone.
	Kill bool `json:"kill,omitempty"`
	// Links says that nothing but ways between domains is touched: no message may be
	// delivered twice because of that.
	Links bool `json:"links,omitempty"`
	// Harmless says that nobody may notice anything: it explains nothing.
	Harmless bool `json:"harmless,omitempty"`
	// Moves says that users belong to another domain from now on, so that frames may
	// be late at any age.
	Moves bool `json:"moves,omitempty"`
}

// Process is what was seen of a process.
type Process struct {
	Name       string `json:"name"`
	When       string `json:"when"`       // AtWarm or AtEnd
	Goroutines int64  `json:"goroutines"` // 0: not known, also below
	Files      int64  `json:"files"`      // open descriptors
	Heap       int64  `json:"heap"`       // bytes in use
	Resident   int64  `json:"resident"`   // bytes
}

// Mailbox is what waits in a domain at the end.
type Mailbox struct {
	Domain string `json:"domain"`
	Rows   int64  `json:"rows"`   // for users who are at home there
	Links  int64  `json:"links"`  // for other domains
	Claims int64  `json:"claims"` // rows under way
	Dead   int64  `json:"dead"`   // dead letters
}

// Offset is how far a lane has been committed.
type Offset struct {
	Domain    string `json:"domain"`
	Lane      int    `json:"lane"`
	Committed int64  `json:"committed"`      // the next record to read; -1: nothing was ever committed
	Log       int64  `json:"log"`            // the end of the log
	Last      bool   `json:"last,omitempty"` // after quiescence: nothing may be uncommitted
}

// validate says what an operation lacks without which nothing can be said of it.
func (op *Op) validate() error {
	missing := func(field string) error {
		return fmt.Errorf("op %q: no %s, expected one", op.Kind, field)
	}
	switch op.Kind {
	case KindRun:
		if op.Run == nil {
			return missing("run")
		}
		if op.Run.Format != Format {
			return fmt.Errorf("run.format: %d, expected %d", op.Run.Format, Format)
		}
	case KindUser, KindLeft, KindStrange, KindWhereabouts, KindClose, KindOpen:
		if op.User == "" {
			return missing("user")
		}
	case KindSend, KindAccepted, KindRefused, KindUnknown, KindFailed, KindConfirmed:
		if op.User == "" {
			return missing("user")
		}
		if op.N < 1 {
			return fmt.Errorf("op %q: n: %d, expected at least 1", op.Kind, op.N)
		}
	case KindDelivered:
		if op.User == "" || op.From == "" {
			return missing("user or from")
		}
	case KindPresence:
		if op.User == "" || op.About == "" {
			return missing("user or about")
		}
	case KindPhase, KindSample, KindLog:
		if op.Name == "" {
			return missing("name")
		}
	case KindFault:
		if op.Fault == nil {
			return missing("fault")
		}
	case KindProcess:
		if op.Process == nil {
			return missing("process")
		}
	case KindMailbox:
		if op.Mailbox == nil {
			return missing("mailbox")
		}
	case KindOffset:
		if op.Offset == nil {
			return missing("offset")
		}
	case KindDead:
	default:
		return fmt.Errorf("op: %q, expected one of this version's kinds", op.Kind)
	}
	return nil
}
