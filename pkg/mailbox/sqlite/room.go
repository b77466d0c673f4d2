package sqlite

import (
	"context"
	"errors"
	"fmt"

	"github.com/linkerhq/linker/pkg/internal/disk"
	"github.com/linkerhq/linker/pkg/mailbox"
)

const (
	// incrementalVacuum gives at most 256 pages of 4 KiB back. It does nothing in a
	// database that an earlier version has made.
	incrementalVacuum = "PRAGMA incremental_vacuum(256)"
	// checkpoint waits for nobody.
	checkpoint = "PRAGMA wal_checkpoint(PASSIVE)"

	// rowOverhead is about what a row costs beside its record, indexes included, in
	// bytes. All of it is written twice, first into the log of the database.
	rowOverhead = 512
)

// Room returns an error when the disk is so low that senders had better wait: what
// was accepted before is still stored.
func (s *Store) Room() error {
	err := disk.Intake.Check(s.dir, 0)
	if errors.Is(err, disk.ErrLow) {
		return err
	}
	return nil // a disk that cannot be looked at: the write itself will tell
}

// room refuses rows that would take the last of the disk: without some of it
// nothing could be deleted any more, since a deletion is written first, too.
func (s *Store) room(rows []mailbox.Row) error {
	wanted := int64(0)
	for i := range rows {
		wanted += 2 * (int64(len(rows[i].Record)) + rowOverhead)
	}
	err := disk.Mailbox.Check(s.dir, wanted)
	if errors.Is(err, disk.ErrLow) {
		return fmt.Errorf("%w: %w", mailbox.ErrNoRoom, err)
	}
	return nil // a disk that cannot be looked at: the write itself will tell
}

// release gives pages that hold nothing back to a disk that is low: on one with
// room they are better kept for the next rows. It also moves what was committed to
// its place in the database, so that the room that is left is what it seems. Only
// the caller with the turn calls it.
func (s *Store) release() error {
	if s.Room() == nil {
		return nil
	}
	for _, statement := range []string{incrementalVacuum, checkpoint} {
		if err := s.readThrough(statement); err != nil {
			return err
		}
	}
	return nil
}

// readThrough carries out a statement that does its work while its rows are read.
func (s *Store) readThrough(statement string) error {
	rows, err := s.write.QueryContext(context.Background(), statement)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		continue // to the next step of the work
	}
	return rows.Err()
}
