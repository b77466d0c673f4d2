// Package disk says how much room a file system has left, and how much of it is
// kept back. Whoever would fill a disk stops before it is full, one after the
// other, so that what was accepted can always be carried to its end: senders are told
// to wait, then the log takes nothing new, then the mailbox; positions and deletions
// go on to the last byte.
package disk

import (
	"errors"
	"fmt"
	"syscall"
)

// ErrLow is what a writer says that leaves the rest of a disk to others. Trying
// again makes sense once somebody has made room.
var ErrLow = errors.New("the disk is almost full")

// Reserve is who leaves how much of a disk free.
type Reserve int

// The reserves, the one that is reached first on top.
const (
	// Intake is where senders are told to wait, while everybody may still come and
	// get what waits for him.
	Intake Reserve = iota + 1
	// Log is what the log leaves, for what comes faster than that is heard of: what
	// it has accepted finds its place in the mailbox.
	Log
	// Mailbox is what the mailbox leaves: for deletions, for its own log, and for
	// positions.
	Mailbox
)

// Of returns how many bytes of a disk of that size are left free: a fixed number,
// or a share of a small disk.
func (r Reserve) Of(size int64) int64 {
	switch r {
	case Intake:
		return min(96<<20, size/100*36)
	case Log:
		return min(64<<20, size/100*24)
	case Mailbox:
		return min(16<<20, size/100*6)
	default:
		return 0
	}
}

// Check returns an error that wraps ErrLow if the disk of dir would have less than
// the reserve after wanted bytes more.
func (r Reserve) Check(dir string, wanted int64) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("look at the disk of %s: %w", dir, err)
	}
	// The fields have other types on other systems.
	block := int64(fs.Bsize) //nolint:unconvert // see above
	free, size := int64(fs.Bavail)*block, int64(fs.Blocks)*block
	if least := r.Of(size); free-wanted < least {
		return fmt.Errorf("%w: %s has %d KiB left, of which %d are kept free", ErrLow, dir, free>>10, least>>10)
	}
	return nil
}
