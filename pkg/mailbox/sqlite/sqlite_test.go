package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/pkg/mailbox/sqlite"
	"github.com/linkerhq/linker/pkg/mailboxtest"
)

func TestStoreConforms(t *testing.T) {
	t.Parallel()
	mailboxtest.Run(t, func(t *testing.T) mailbox.Store { return open(t, t.TempDir()) })
}

func TestWhatWasStoredIsThereAfterClosingAndOpening(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := sqlite.Open(dir, slog.New(slog.DiscardHandler))
	noError(t, err)
	fill(t, first)
	noError(t, first.Close())
	checkFilled(t, open(t, dir))
}

func TestWhatWasStoredIsInACopyTakenWithoutClosing(t *testing.T) {
	t.Parallel()
	dir, copied := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	fill(t, open(t, dir))
	noError(t, os.CopyFS(copied, os.DirFS(dir)))
	checkFilled(t, open(t, copied))
}

func TestADirectoryIsOpenedOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := sqlite.Open(dir, slog.New(slog.DiscardHandler))
	noError(t, err)
	_, err = sqlite.Open(dir, slog.New(slog.DiscardHandler))
	if !errors.Is(err, sqlite.ErrInUse) || err.Error() != "data directory "+dir+" is in use by another process" {
		t.Errorf("the second Open reports %v", err)
	}
	noError(t, first.Put(t.Context(), []mailbox.Row{row(1)}))
	noError(t, first.Close())
	noError(t, open(t, dir).Ping(t.Context()))
}

func TestADirectoryMayHaveAnyName(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a b", "100%41?x=y#z&_pragma=query_only(1)")
	fill(t, open(t, dir))
	_, err := os.Stat(filepath.Join(dir, "mailbox.db"))
	noError(t, err)
}

func TestAnUnknownFormatIsRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ sql, want string }{
		"a newer version":   {"PRAGMA user_version = 99", "format version 99"},
		"another's tables":  {"CREATE TABLE rows (a)", "format version 0"},
		"no database":       {"", "not a database"},
		"a half made one":   {"CREATE TABLE rows (a); PRAGMA user_version = 7", "format version 7"},
		"an old one's name": {"CREATE TABLE lanes (a); PRAGMA user_version = 1", "no such table: rows"},
		"a negative number": {"PRAGMA user_version = -1", "format version -1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			file := filepath.Join(dir, "mailbox.db")
			if c.sql == "" {
				noError(t, os.WriteFile(file, []byte(strings.Repeat("no database ", 1000)), 0o600))
			} else {
				execute(t, file, c.sql)
			}
			for range 2 { // the first attempt leaves neither a lock nor a change behind
				_, err := sqlite.Open(dir, slog.New(slog.DiscardHandler))
				if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), dir) {
					t.Errorf("Open reports %v, want an error that names the directory and %q", err, c.want)
				}
			}
		})
	}
}

// format1 is what the first version of the program made, as far as it changed.
const format1 = `
PRAGMA journal_mode = WAL;
CREATE TABLE rows (target TEXT NOT NULL, generation INTEGER NOT NULL, offset INTEGER NOT NULL, id BLOB NOT NULL,
	lane INTEGER NOT NULL, proved INTEGER NOT NULL, record BLOB);
CREATE UNIQUE INDEX rows_by_id ON rows (target, id);
CREATE INDEX rows_in_order ON rows (target, generation, offset, proved);
CREATE INDEX rows_proved ON rows (target, generation, offset) WHERE proved = 1;
CREATE TABLE lanes (lane INTEGER PRIMARY KEY, generation INTEGER NOT NULL, offset INTEGER NOT NULL);
CREATE TABLE windows (lane INTEGER NOT NULL, user TEXT NOT NULL, stream INTEGER NOT NULL, high INTEGER NOT NULL,
	missing BLOB, touched INTEGER NOT NULL, PRIMARY KEY (lane, user, stream)) WITHOUT ROWID;
CREATE TABLE remembered (seq INTEGER PRIMARY KEY, lane INTEGER NOT NULL, saved INTEGER NOT NULL, ids BLOB NOT NULL);
CREATE INDEX remembered_by_age ON remembered (lane, saved);
CREATE TABLE announced (lane INTEGER NOT NULL, user TEXT NOT NULL, connected INTEGER NOT NULL, n INTEGER NOT NULL,
	generation INTEGER NOT NULL, offset INTEGER NOT NULL, PRIMARY KEY (lane, user)) WITHOUT ROWID;
INSERT INTO rows VALUES
	('A-1', 1, 5, x'000102030405060708090a0b0c0d0e0f', 7, 1, 'first'),
	('A-1', 2, 3, x'101112131415161718191a1b1c1d1e1f', 7, 0, 'second'),
	('A-2', 1, 6, x'101112131415161718191a1b1c1d1e1f', 7, 0, NULL);
INSERT INTO announced VALUES (2, 'A-1', 1, 9, 0, 0);
PRAGMA user_version = 1;
`

func TestADatabaseOfFormat1IsTakenOver(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	execute(t, filepath.Join(dir, "mailbox.db"), format1)
	before := time.Now().Unix()
	s, err := sqlite.Open(dir, slog.New(slog.DiscardHandler))
	noError(t, err)
	after := time.Now().Unix()
	rows, _, err := s.Read(t.Context(), mailbox.Query{To: "A-1", Limit: 9})
	noError(t, err)
	if len(rows) != 2 {
		t.Fatalf("%d rows", len(rows))
	}
	stored := rows[0].Stored
	want := []mailbox.Row{
		{To: "A-1", Pos: envelope.Position{Generation: 1, Offset: 5}, Lane: 7, Proved: true, Stored: stored, Record: []byte("first")},
		{To: "A-1", Pos: envelope.Position{Generation: 2, Offset: 3}, Lane: 7, Stored: stored, Record: []byte("second")},
	}
	for i := range 16 {
		want[0].ID[i], want[1].ID[i] = byte(i), byte(16+i)
	}
	if stored < before || stored > after || !reflect.DeepEqual(rows, want) {
		t.Errorf("after the change at %d to %d the rows are %+v", before, after, rows)
	}
	noError(t, s.Put(t.Context(), []mailbox.Row{row(9)})) // stored at 0
	noError(t, s.Close())

	s = open(t, dir)
	expired, err := s.Expired(t.Context(), 7, after+1, 9)
	noError(t, err)
	if len(expired) != 3 || expired[0].Stored != stored {
		t.Errorf("expired after another opening: %+v", expired)
	}
	usage, err := s.Usage(t.Context(), "A-1")
	noError(t, err)
	if usage != (mailbox.Usage{Rows: 2, Bytes: int64(len("second") + len(row(9).Record))}) {
		t.Errorf("usage %+v", usage)
	}
	if a, found, err := s.GetAnnounced(t.Context(), 2, "A-1"); err != nil || !found || a.N != 9 {
		t.Errorf("announced %+v, found %v, error %v", a, found, err)
	}
	wantTargets(t, s, 7, "A-1", "A-2")
}

// backToFormat2 takes from a database what later formats added.
const backToFormat2 = "DROP INDEX rows_by_target; DROP TABLE owners; DROP TABLE dead; DROP TABLE dead_users; PRAGMA user_version = 2"

func TestADatabaseOfFormat2IsTakenOver(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := sqlite.Open(dir, slog.New(slog.DiscardHandler))
	noError(t, err)
	fill(t, first)
	noError(t, first.Close())
	execute(t, filepath.Join(dir, "mailbox.db"), backToFormat2)
	for range 2 {
		s, err := sqlite.Open(dir, slog.New(slog.DiscardHandler))
		noError(t, err)
		noError(t, s.PutDead(t.Context(), []mailbox.DeadLetter{letter})) // there were none in that format
		checkFilled(t, s)
		wantTargets(t, s, 0, "A-1")
		noError(t, s.Close())
	}
}

func TestTargetsSkipsTheRowsBetween(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	var rows []mailbox.Row
	for n := range int64(10_000) {
		rows = append(rows, row(n))
	}
	noError(t, s.Put(t.Context(), rows))
	noError(t, s.Put(t.Context(), []mailbox.Row{{To: "link/domain-02/0", Pos: rows[0].Pos}}))
	began := time.Now()
	for range 100 {
		wantTargets(t, s, 0, "A-1", "link/domain-02/0")
	}
	skipping := time.Since(began)
	began = time.Now()
	for range 100 {
		_, err := s.Count(t.Context(), mailbox.Query{To: "A-1"})
		noError(t, err)
	}
	if counting := time.Since(began); skipping > counting {
		t.Errorf("Targets takes %v, counting all rows %v", skipping, counting)
	}
}

func wantTargets(t *testing.T, s *sqlite.Store, lane int, want ...string) {
	t.Helper()
	got, err := s.Targets(t.Context(), lane, "", 9)
	noError(t, err)
	if !slices.Equal(got, want) {
		t.Errorf("the targets of lane %d are %q, want %q", lane, got, want)
	}
}

func TestOpenNamesTheDirectoryItCannotUse(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	noError(t, os.WriteFile(file, nil, 0o600))
	_, err := sqlite.Open(filepath.Join(file, "data"), slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("Open reports %v", err)
	}
}

func TestACallAfterCloseIsAnError(t *testing.T) {
	t.Parallel()
	s, err := sqlite.Open(t.TempDir(), slog.New(slog.DiscardHandler))
	noError(t, err)
	noError(t, s.Close())
	if s.Ping(t.Context()) == nil || s.Put(t.Context(), []mailbox.Row{row(1)}) == nil {
		t.Error("a closed store took a call")
	}
}

func TestACallerThatGivesUpLeavesTheOthersAlone(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	results := make(chan error)
	const callers, each = 16, 20
	for caller := range callers {
		go func() {
			var errs []error
			for i := range each {
				ctx, cancel := context.WithCancel(t.Context())
				if caller%2 == 0 {
					go cancel()
				}
				n := int64(caller*each + i)
				err := s.Put(ctx, []mailbox.Row{row(n)})
				cancel()
				if err == nil {
					continue
				}
				if caller%2 != 0 || !errors.Is(err, context.Canceled) {
					errs = append(errs, err)
				}
				errs = append(errs, s.Put(t.Context(), []mailbox.Row{row(n)}))
			}
			results <- errors.Join(errs...)
		}()
	}
	for range callers {
		noError(t, <-results)
	}
	n, err := s.Count(t.Context(), mailbox.Query{To: "A-1"})
	noError(t, err)
	if n != callers*each {
		t.Errorf("%d rows, want %d", n, callers*each)
	}
}

func open(t *testing.T, dir string) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(dir, slog.New(slog.DiscardHandler))
	noError(t, err)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func row(n int64) mailbox.Row {
	r := mailbox.Row{To: "A-1", Pos: envelope.Position{Generation: 1, Offset: n}, Record: fmt.Appendf(nil, "record %d", n)}
	r.ID = ident.StreamMessageID(1, "A-1", uint64(n))
	return r
}

const filled = 300

// fill stores something of every kind.
func fill(t *testing.T, s *sqlite.Store) {
	t.Helper()
	for n := range int64(filled) {
		noError(t, s.Put(t.Context(), []mailbox.Row{row(n)}))
	}
	first := row(0)
	noError(t, s.Delete(t.Context(), []mailbox.Key{{To: first.To, Pos: first.Pos, ID: first.ID}}))
	second := row(1)
	noError(t, s.MarkProved(t.Context(), []mailbox.Key{{To: second.To, Pos: second.Pos, ID: second.ID}}))
	noError(t, saveLane(t.Context(), s, 7))
	noError(t, s.PutAnnounced(t.Context(), 2, mailbox.Announced{User: "A-1", Connected: true, N: 9}))
	noError(t, s.PutDead(t.Context(), []mailbox.DeadLetter{letter}))
}

// letter is the dead letter that fill stores.
var letter = mailbox.DeadLetter{
	Pos: envelope.Position{Generation: 1, Offset: 4}, Reason: "EXPIRED", At: 7, Users: []ident.UserID{"A-1"}, Lane: 3, Offset: 9, Record: []byte("letter"),
}

func checkFilled(t *testing.T, s *sqlite.Store) {
	t.Helper()
	rows, _, err := s.Read(t.Context(), mailbox.Query{To: "A-1", Limit: filled})
	noError(t, err)
	n, err := s.Count(t.Context(), mailbox.Query{To: "A-1"})
	noError(t, err)
	if len(rows) != filled-1 || n != filled-2 || string(rows[filled-2].Record) != string(row(filled-1).Record) {
		t.Errorf("%d rows, %d of them not proved; want %d and %d", len(rows), n, filled-1, filled-2)
	}
	checkLane(t, s, 7)
	a, found, err := s.GetAnnounced(t.Context(), 2, "A-1")
	noError(t, err)
	if !found || a.N != 9 {
		t.Errorf("announced %+v, found %v", a, found)
	}
	if l, found, err := s.GetDead(t.Context(), letter.Pos); err != nil || !found || !reflect.DeepEqual(l, letter) {
		t.Errorf("dead letter %+v, found %v, error %v; want %+v", l, found, err, letter)
	}
}

// saveLane saves a number as the position of lane 0, as a window and as an id.
func saveLane(ctx context.Context, s *sqlite.Store, n int64) error {
	return s.SaveLane(ctx, 0, mailbox.LaneChange{
		Position: envelope.Position{Generation: 1, Offset: n},
		Windows:  map[mailbox.WindowKey]mailbox.Window{{User: "A-1", Stream: 1}: {High: uint64(n)}},
		IDs:      []mailbox.RememberedID{{User: "A-1", ID: row(n).ID}},
		Now:      n,
	})
}

// checkLane checks that lane 0 is as a whole of one save, not older than n.
func checkLane(t *testing.T, s *sqlite.Store, n int64) {
	t.Helper()
	state, found, err := s.LoadLane(t.Context(), 0)
	noError(t, err)
	got := state.Position.Offset
	if !found || got < n {
		t.Fatalf("lane 0: found %v, position %d, want at least %d", found, got, n)
	}
	high := state.Windows[mailbox.WindowKey{User: "A-1", Stream: 1}].High
	if high != uint64(got) || len(state.IDs) != 1 || state.IDs[0].ID != row(got).ID {
		t.Errorf("lane 0 is a mixture of saves: %+v", state)
	}
}

func execute(t *testing.T, file, statements string) {
	t.Helper()
	db, err := sql.Open("sqlite", file)
	noError(t, err)
	_, err = db.ExecContext(t.Context(), statements)
	noError(t, err)
	noError(t, db.Close())
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestProcessesOfOneMachineShareADirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, second := openShared(t, dir), openShared(t, dir)
	_, err := sqlite.Open(dir, slog.New(slog.DiscardHandler))
	if !errors.Is(err, sqlite.ErrInUse) {
		t.Errorf("Open beside them reports %v, want one that wraps ErrInUse", err)
	}
	noError(t, first.Put(t.Context(), []mailbox.Row{row(1)}))
	rows, _, err := second.Read(t.Context(), mailbox.Query{To: row(1).To, Limit: 10})
	if err != nil || len(rows) != 1 {
		t.Errorf("the other one reads %d rows, %v, want the one that was put", len(rows), err)
	}
	var group errgroup.Group
	for _, s := range []*sqlite.Store{first, second} {
		for i := range 200 {
			group.Go(func() error { return s.Put(t.Context(), []mailbox.Row{row(int64(2 + i))}) })
		}
	}
	noError(t, group.Wait())
	n, err := first.Count(t.Context(), mailbox.Query{To: row(1).To})
	if err != nil || n != 201 {
		t.Errorf("%d rows, %v, want 201", n, err)
	}
}

func TestOnlyWhoHasLoadedALaneLastSavesIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, second := openShared(t, dir), openShared(t, dir)
	change := func(offset int64) mailbox.LaneChange {
		return mailbox.LaneChange{Position: envelope.Position{Generation: 1, Offset: offset}, Now: 1, IDsFor: 1}
	}
	for _, s := range []*sqlite.Store{first, second} {
		if _, _, err := s.LoadLane(t.Context(), 3); err != nil {
			t.Fatal(err)
		}
		noError(t, s.SaveLane(t.Context(), 3, change(10)))
	}
	var group errgroup.Group
	group.Go(func() error { return first.SaveLane(t.Context(), 4, change(5)) }) // may share the commit
	err := first.SaveLane(t.Context(), 3, change(11))
	noError(t, group.Wait())
	if !errors.Is(err, mailbox.ErrLaneTaken) {
		t.Errorf("who has lost the lane saves it: %v, want ErrLaneTaken", err)
	}
	state, found, err := second.LoadLane(t.Context(), 3)
	if err != nil || !found || state.Position.Offset != 10 {
		t.Errorf("%v, %v, %v, want what the second one has saved", state.Position, found, err)
	}
}

func openShared(t *testing.T, dir string) *sqlite.Store {
	t.Helper()
	s, err := sqlite.OpenShared(dir, slog.New(slog.DiscardHandler))
	noError(t, err)
	t.Cleanup(func() { noError(t, s.Close()) })
	return s
}

func TestProcessesOpenAndCloseASharedDirectoryAtTheSameTime(t *testing.T) {
	t.Parallel()
	for range 20 {
		dir := t.TempDir()
		var group errgroup.Group
		for range 8 {
			group.Go(func() error {
				s, err := sqlite.OpenShared(dir, slog.New(slog.DiscardHandler))
				if err != nil {
					return err
				}
				return errors.Join(s.Put(t.Context(), []mailbox.Row{row(1)}), s.Close())
			})
		}
		noError(t, group.Wait())
	}
}
