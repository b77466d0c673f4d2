// Package mailbox is the port of a domain's one place to wait. Rows wait in
// mailboxes, one a target (a user, or another domain), in the order of their
// positions in the log, until the target's side has proved receipt. Beside the rows the same store
// keeps what a lane must remember over a change of owner: duplicate windows,
// remembered ids, and which users were announced as connected; and what could not be
// delivered at all.
//
// Whatever a method has returned without an error is durable: on disk, and with
// a replicated store on a majority. Every method may be repeated after an error,
// which means "unknown", never "not done". All methods are safe for concurrent
// use. Adapters prove themselves with package mailboxtest.
package mailbox

import (
	"context"
	"errors"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
)

// ErrLaneTaken says that another process has loaded the lane since this one did,
// and owns it. Trying again is of no use before the lane has been loaded again.
var ErrLaneTaken = errors.New("another process has taken the lane over")

// ErrNoRoom says that the store has no room for more rows; deletions make some.
var ErrNoRoom = errors.New("the store has no room for more rows")

// Row is one stored message of one target.
type Row struct {
	// To is the target: a user id, or any other name that is not empty, such as
	// link/domain-03/5. Adapters read nothing out of it.
	To     string
	Pos    envelope.Position
	ID     ident.MessageID
	Lane   int    // the lane of the target, for takeovers and jobs
	Proved bool   // one session has it: owed only to other open sessions, never fetched or counted
	Stored int64  // Unix seconds: when the lane gave it to the mailbox
	Record []byte // the encoded envelope
}

// Key names a row. Adapters may find it by the id or by the position: both are
// those of the row as it was put.
type Key struct {
	To  string
	Pos envelope.Position
	ID  ident.MessageID
}

// Query selects rows of one target, in the order of positions.
type Query struct {
	To       string
	After    envelope.Position // rows behind this position; the zero position selects from the beginning
	Before   envelope.Position // rows before this position; the zero position means no bound
	Unproved bool              // leave out rows with Proved set
	Limit    int               // at most so many rows; at least 1
	MaxBytes int               // stop after the row with which the records exceed so many bytes; 0: no bound
}

// Usage is how much waits for one target, for quotas.
type Usage struct {
	Rows  int
	Bytes int64 // of the records alone
}

// Rows is where messages wait.
type Rows interface {
	// Put stores rows. A row whose (To, ID) is stored already is left as it is:
	// storing again is success.
	Put(ctx context.Context, rows []Row) error
	// Read returns rows in order. more says whether the query would select
	// further rows behind the last one returned.
	Read(ctx context.Context, q Query) (rows []Row, more bool, err error)
	// Count returns how many rows that are not proved q selects; Limit and
	// MaxBytes are not looked at.
	Count(ctx context.Context, q Query) (int, error)
	// MarkProved sets Proved; keys without a row are passed over.
	MarkProved(ctx context.Context, keys []Key) error
	// Delete removes rows; keys without a row are passed over.
	Delete(ctx context.Context, keys []Key) error
	// DeleteProved removes all rows of the target that are proved and lie before
	// the position (the zero position means all).
	DeleteProved(ctx context.Context, to string, before envelope.Position) error
	// Usage returns how many rows of the target are not proved, and the bytes of
	// their records. It looks at every one of them: it is for now and then.
	Usage(ctx context.Context, to string) (Usage, error)
	// Expired returns up to limit rows of a lane, proved or not, with Stored below
	// before, the oldest first; rows of one second in any order. limit is at least 1.
	Expired(ctx context.Context, lane int, before int64, limit int) ([]Row, error)
	// Targets returns the targets that have rows in the lane, proved or not,
	// ascending by bytes, behind after ("" from the beginning), at most limit (at
	// least 1).
	Targets(ctx context.Context, lane int, after string, limit int) ([]string, error)
}

// WindowKey names a duplicate window: a receiver and a stream to it.
type WindowKey struct {
	User   ident.UserID
	Stream uint64
}

// Window is what was taken of a stream: all numbers up to High but the Missing.
type Window struct {
	High    uint64
	Missing []uint64 // ascending, all below High
	Touched int64    // Unix seconds: a window lives for a day after it
}

// RememberedID is the id of a message that has no stream to mark its
// duplicates, and the user it was for.
type RememberedID struct {
	User ident.UserID
	ID   ident.MessageID
}

// LaneState is what a lane must remember: exact for the records below
// Position, and for no other.
type LaneState struct {
	Position envelope.Position // the lowest unsettled position when it was saved
	Windows  map[WindowKey]Window
	IDs      []RememberedID // in the order in which they were saved
}

// LaneChange is what changed in a lane since the last save.
type LaneChange struct {
	Position envelope.Position
	Windows  map[WindowKey]Window // added or changed
	Expired  []WindowKey          // to be forgotten
	IDs      []RememberedID       // newly remembered
	Now      int64                // Unix seconds; ids saved more than IDsFor seconds before it are forgotten
	IDsFor   int64
}

// Lanes keeps the duplicate windows.
type Lanes interface {
	// SaveLane applies a change as a whole: Position is never durable without
	// the windows and ids that belong to it. Where several processes share the
	// store, only the last that has loaded the lane may save it: the others get an
	// error that wraps ErrLaneTaken, and what they were saving never counts.
	SaveLane(ctx context.Context, lane int, change LaneChange) error
	// LoadLane takes the lane over and returns the state as last saved; found is
	// false for a lane that was never saved.
	LoadLane(ctx context.Context, lane int) (state LaneState, found bool, err error)
}

// Announced is what the master of a user's app was last told about the user.
type Announced struct {
	User      ident.UserID
	Connected bool
	N         uint64            // the count of the user's presence events so far
	Pos       envelope.Position // of the record that caused the last one
}

// Presence keeps what was announced.
type Presence interface {
	// PutAnnounced replaces the user's entry, unless that has a higher position:
	// an owner that the lane was taken from turns nothing back. The lane is the
	// user's.
	PutAnnounced(ctx context.Context, lane int, a Announced) error
	// GetAnnounced returns the user's entry; found is false for a user who was
	// never announced.
	GetAnnounced(ctx context.Context, lane int, user ident.UserID) (a Announced, found bool, err error)
	// ListAnnounced returns the entries of a lane that are connected, or whose
	// position is not before since.
	ListAnnounced(ctx context.Context, lane int, since envelope.Position) ([]Announced, error)
}

// Store is all that one adapter keeps.
type Store interface {
	Rows
	Lanes
	Presence
	DeadLetters
	// Ping says whether the store answers.
	Ping(ctx context.Context) error
	// Close releases the store. No other method may be under way.
	Close() error
}
