package mailbox

import (
	"context"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
)

// DeadLetter is a message that could not be delivered, as the topic of dead letters
// has reported it.
type DeadLetter struct {
	Pos    envelope.Position // of the report in that topic: it names the letter
	Reason string            // why it could not be delivered
	At     int64             // milliseconds since 1970: when it was reported
	Users  []ident.UserID    // whom it was for, none twice; empty: nobody knows
	Lane   int               // the lane that has given it up; -1: not known
	Offset int64             // its place in that lane's log; -1: it was not in the log any more, or not known
	Record []byte            // as the lane had it
}

// DeadFilter selects dead letters. Each field that is set narrows it; the zero filter
// selects all.
type DeadFilter struct {
	User   ident.UserID // among those it was for
	Reason string
	Before int64 // milliseconds since 1970: reported before
}

// DeadQuery selects dead letters in the order of their positions.
type DeadQuery struct {
	DeadFilter
	After    envelope.Position // letters behind this position; the zero position selects from the beginning
	Limit    int               // at most so many; at least 1
	MaxBytes int               // stop after the letter with which the records exceed so many bytes; 0: no bound
}

// DeadLetters keeps what could not be delivered, for operators.
type DeadLetters interface {
	// PutDead stores letters. One whose position is stored already is left as it is:
	// storing again is success.
	PutDead(ctx context.Context, letters []DeadLetter) error
	// ListDead returns letters in order. more says whether the query would select further
	// ones behind the last one returned.
	ListDead(ctx context.Context, q DeadQuery) (letters []DeadLetter, more bool, err error)
	// GetDead returns one letter; found is false where there is none.
	GetDead(ctx context.Context, pos envelope.Position) (letter DeadLetter, found bool, err error)
	// DeleteDead removes letters and returns how many of them were there.
	DeleteDead(ctx context.Context, positions []envelope.Position) (int, error)
	// PurgeDead removes letters that the filter selects, at most limit (at least 1) of
	// them, and returns how many; fewer than limit mean that none is left.
	PurgeDead(ctx context.Context, filter DeadFilter, limit int) (int, error)
	// CountDead returns how many letters there are.
	CountDead(ctx context.Context) (int, error)
}
