// Package sqlite is the mailbox of a domain on the local disk: one SQLite
// database in a directory of its own, opened by one process at a time, or shared by
// several of one machine.
//
// Concurrent changes share a commit and its fsync (commit.go); reads run beside
// it on connections of their own and see what was committed before they began.
// Room that deleted rows leave is used again; on a disk that is almost full it is
// given back.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite", without cgo

	"github.com/linkerhq/linker/pkg/mailbox"
)

// ErrInUse is reported by Open for a directory that another process, or another
// Store of this one, has open.
var ErrInUse = errors.New("is in use by another process")

// formatVersion is what Open writes. An older database is brought to it, one of
// a newer program is refused.
const formatVersion = 5

// maxReaders bounds the connections for reading; a reader beyond them waits.
const maxReaders = 4

// options of every connection: a commit is on disk before it returns, and a
// burst of them leaves at most 64 MiB of log behind.
const options = "_pragma=busy_timeout(10000)" +
	"&_pragma=auto_vacuum(incremental)" + // before anything is written
	"&_pragma=journal_mode(WAL)" +
	"&_pragma=synchronous(FULL)" +
	"&_pragma=journal_size_limit(67108864)" +
	"&_pragma=cache_size(-16384)"

// writing makes transactions that write wait for each other from their begin: one that
// has read before it waits would find that its view is outdated.
const writing = "&_txlock=immediate"

// schema of a new database. Unsigned numbers are kept as the signed ones of the
// same bits; nothing orders by them.
const schema = `
CREATE TABLE rows (
	target     TEXT    NOT NULL,
	generation INTEGER NOT NULL,
	offset     INTEGER NOT NULL,
	id         BLOB    NOT NULL,
	lane       INTEGER NOT NULL,
	proved     INTEGER NOT NULL,
	stored     INTEGER NOT NULL,
	record     BLOB
);
CREATE UNIQUE INDEX rows_by_id ON rows (target, id);
CREATE INDEX rows_in_order ON rows (target, generation, offset, proved, length(record));
CREATE INDEX rows_proved ON rows (target, generation, offset) WHERE proved = 1;
CREATE INDEX rows_by_age ON rows (lane, stored);
CREATE INDEX rows_by_target ON rows (lane, target);

CREATE TABLE lanes (
	lane       INTEGER PRIMARY KEY,
	generation INTEGER NOT NULL,
	offset     INTEGER NOT NULL
);
CREATE TABLE owners (
	lane  INTEGER PRIMARY KEY,
	token INTEGER NOT NULL
);
CREATE TABLE windows (
	lane    INTEGER NOT NULL,
	user    TEXT    NOT NULL,
	stream  INTEGER NOT NULL,
	high    INTEGER NOT NULL,
	missing BLOB,
	touched INTEGER NOT NULL,
	PRIMARY KEY (lane, user, stream)
) WITHOUT ROWID;
CREATE TABLE remembered (
	seq   INTEGER PRIMARY KEY,
	lane  INTEGER NOT NULL,
	saved INTEGER NOT NULL,
	ids   BLOB    NOT NULL
);
CREATE INDEX remembered_by_age ON remembered (lane, saved);

CREATE TABLE announced (
	lane       INTEGER NOT NULL,
	user       TEXT    NOT NULL,
	connected  INTEGER NOT NULL,
	n          INTEGER NOT NULL,
	generation INTEGER NOT NULL,
	offset     INTEGER NOT NULL,
	PRIMARY KEY (lane, user)
) WITHOUT ROWID;
` + deadSchema

// deadSchema is the part of the schema for dead letters.
const deadSchema = `
CREATE TABLE dead (
	generation INTEGER NOT NULL,
	offset     INTEGER NOT NULL,
	reason     TEXT    NOT NULL,
	at         INTEGER NOT NULL,
	lane       INTEGER NOT NULL,
	logged     INTEGER NOT NULL,
	record     BLOB
);
CREATE UNIQUE INDEX dead_in_order ON dead (generation, offset);
CREATE INDEX dead_by_reason ON dead (reason, generation, offset);
CREATE INDEX dead_by_age ON dead (at);

CREATE TABLE dead_users (
	user       TEXT    NOT NULL,
	generation INTEGER NOT NULL,
	offset     INTEGER NOT NULL,
	PRIMARY KEY (user, generation, offset)
) WITHOUT ROWID;
CREATE INDEX dead_users_of ON dead_users (generation, offset);
`

// fromFormat1 gives rows the time at which they were stored: those that are
// there get the time of this change, in seconds, as the default of the column, so
// that none of them has to be written again. Two indexes are made, which takes
// some seconds for each million rows.
const fromFormat1 = `
ALTER TABLE rows ADD COLUMN stored INTEGER NOT NULL DEFAULT %d;
DROP INDEX rows_in_order;
CREATE INDEX rows_in_order ON rows (target, generation, offset, proved, length(record));
CREATE INDEX rows_by_age ON rows (lane, stored);
`

// fromFormat2 adds the index that finds the targets of a lane, which takes a
// second or so for each million rows.
const fromFormat2 = `
CREATE INDEX rows_by_target ON rows (lane, target);
`

// fromFormat3 adds who has loaded each lane last.
const fromFormat3 = `
CREATE TABLE owners (
	lane  INTEGER PRIMARY KEY,
	token INTEGER NOT NULL
);
`

// Store is a mailbox.Store in a directory.
type Store struct {
	// Static after Open.
	dir   string
	lock  *os.File // holds the directory's lock until it is closed
	write *sql.DB  // one connection, used by whoever has the turn
	read  *sql.DB
	token int64         // who we are among those that share the directory; random
	turn  chan struct{} // holds a token while a commit is under way; never closed

	mu    sync.Mutex
	queue []*change // guarded by mu; one for each blocked caller, so that they bound it

	owned sync.Map // lanes (int) that this Store has loaded, each → true
}

var _ mailbox.Store = (*Store)(nil)

// Open opens the store in dir, which it makes if it is not there. The error
// wraps ErrInUse if somebody else has it open.
func Open(dir string, log *slog.Logger) (*Store, error) { return open(dir, syscall.LOCK_EX, log) }

// OpenShared opens the store in dir for several processes of this machine, which
// must all be of one domain. The error wraps ErrInUse if somebody has it open for
// itself.
func OpenShared(dir string, log *slog.Logger) (*Store, error) { return open(dir, syscall.LOCK_SH, log) }

func open(dir string, how int, log *slog.Logger) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open mailbox: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open mailbox: %w", err)
	}
	lock, err := lockDirectory(dir, how)
	if err != nil {
		return nil, err
	}
	s := &Store{dir: dir, lock: lock, token: rand.Int64(), turn: make(chan struct{}, 1)}
	err = alone(dir, s.open)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open mailbox in %s: %w", dir, err), s.Close())
	}
	log.Info("mailbox opened", "directory", dir, "format", formatVersion)
	return s, nil
}

func (s *Store) open() error {
	source := (&url.URL{Scheme: "file", Path: filepath.Join(s.dir, "mailbox.db"), RawQuery: options}).String()
	var err error
	s.write, err = sql.Open("sqlite", source+writing)
	if err != nil {
		return err
	}
	s.write.SetMaxOpenConns(1)
	s.read, err = sql.Open("sqlite", source)
	if err != nil {
		return err
	}
	s.read.SetMaxOpenConns(maxReaders)
	s.read.SetMaxIdleConns(maxReaders)
	return s.checkFormat()
}

// checkFormat makes the tables of an empty database, brings an older one to this
// format, and refuses any other, as one transaction.
func (s *Store) checkFormat() error {
	tx, err := s.write.Begin()
	if err != nil {
		return err
	}
	if err := prepare(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

func prepare(tx *sql.Tx) error {
	var version, objects int
	err := tx.QueryRow("PRAGMA user_version").Scan(&version)
	if err != nil {
		return err
	}
	err = tx.QueryRow("SELECT count(*) FROM sqlite_schema").Scan(&objects)
	if err != nil {
		return err
	}
	var statements string
	switch {
	case version == formatVersion:
		return nil
	case version == 1:
		statements = fmt.Sprintf(fromFormat1, time.Now().Unix()) + fromFormat2 + fromFormat3 + deadSchema
	case version == 2:
		statements = fromFormat2 + fromFormat3 + deadSchema
	case version == 3:
		statements = fromFormat3 + deadSchema
	case version == 4:
		statements = deadSchema
	case version == 0 && objects == 0:
		statements = schema
	default:
		return fmt.Errorf("the data has format version %d, this program knows only versions up to %d", version, formatVersion)
	}
	_, err = tx.Exec(statements + fmt.Sprintf("PRAGMA user_version = %d;", formatVersion))
	return err
}

// lockDirectory takes the lock that the kernel gives back when the process
// ends, however it ends.
func lockDirectory(dir string, how int) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open mailbox: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = fmt.Errorf("data directory %s %w", dir, ErrInUse)
	} else if err != nil {
		err = fmt.Errorf("lock data directory %s: %w", dir, err)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Ping says whether the database answers, and whether it has room.
func (s *Store) Ping(ctx context.Context) error {
	var lanes int
	err := s.read.QueryRowContext(ctx, "SELECT count(*) FROM lanes").Scan(&lanes)
	if err != nil {
		return fmt.Errorf("ping mailbox: %w", err)
	}
	return s.Room()
}

// alone does something while no other process of the directory does: the first
// connection changes how the database keeps its log, the last one removes that log, and
// SQLite waits for neither.
func alone(dir string, do func() error) error {
	f, err := os.OpenFile(filepath.Join(dir, "opening"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
	if err != nil {
		return err
	}
	return errors.Join(do(), syscall.Flock(int(f.Fd()), syscall.LOCK_UN))
}

// Close ends the connections and gives the directory back.
func (s *Store) Close() error {
	errs := []error{alone(s.dir, func() error {
		var errs []error
		for _, db := range []*sql.DB{s.read, s.write} {
			if db != nil {
				errs = append(errs, db.Close())
			}
		}
		return errors.Join(errs...)
	})}
	// A process that was just forked from this one holds the file open until it
	// runs its program: closing alone would leave the lock to it.
	err := errors.Join(append(errs, syscall.Flock(int(s.lock.Fd()), syscall.LOCK_UN), s.lock.Close())...)
	if err != nil {
		return fmt.Errorf("close mailbox: %w", err)
	}
	return nil
}
