package sqlite_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/linkerhq/linker/pkg/disktest"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/pkg/mailbox/sqlite"
)

// big is the n-th of some rows of 8 KiB.
func big(n int) mailbox.Row {
	r := mailbox.Row{
		To: "ANZ-1", Pos: envelope.Position{Generation: 1, Offset: int64(n)}, Stored: 1,
		Record: []byte(strings.Repeat(fmt.Sprintf("%08d", n), 1<<10)),
	}
	copy(r.ID[:], fmt.Sprintf("%08d", n))
	return r
}

func TestAMailboxLeavesRoomForDeletionsAndGivesBackWhatTheyFree(t *testing.T) {
	t.Parallel()
	disk := disktest.Small(t, 48<<20)
	dir := filepath.Join(disk, "mailbox")
	s, err := sqlite.Open(dir, slog.New(slog.DiscardHandler))
	noError(t, err)
	defer func() { noError(t, s.Close()) }()
	var stored []mailbox.Key
	put := func() error {
		var rows []mailbox.Row
		for range 16 {
			rows = append(rows, big(len(stored)+len(rows)))
		}
		err := s.Put(t.Context(), rows)
		if err == nil {
			for i := range rows {
				stored = append(stored, mailbox.Key{To: rows[i].To, Pos: rows[i].Pos, ID: rows[i].ID})
			}
		}
		return err
	}
	for err = put(); err == nil; err = put() {
	}
	if !strings.Contains(err.Error(), "the disk is almost full") {
		t.Fatalf("rows are refused with %v", err)
	}
	low := disktest.Free(t, disk)
	if low < 2<<20 {
		t.Errorf("%d KiB are left: too little to delete rows", low>>10)
	}

	// A crash now: all that was stored is there.
	crashed := filepath.Join(t.TempDir(), "copy")
	noError(t, os.CopyFS(crashed, os.DirFS(dir)))
	again := open(t, crashed)
	n, err := again.Count(t.Context(), mailbox.Query{To: "ANZ-1"})
	noError(t, err)
	if n != len(stored) {
		t.Errorf("%d rows are there, %d were stored", n, len(stored))
	}

	// Deletions go on, and what they free can be used by others of this disk.
	for rest := stored; len(rest) > 0; {
		n := min(len(rest), 64)
		noError(t, s.Delete(t.Context(), rest[:n]))
		rest = rest[n:]
	}
	for range 32 { // what is done now and then anyway
		noError(t, s.SaveLane(t.Context(), 0, mailbox.LaneChange{Position: envelope.Position{Offset: 1}}))
	}
	if free := disktest.Free(t, disk); free < low+8<<20 {
		t.Errorf("%d KiB are free after all rows have gone, %d before", free>>10, low>>10)
	}
	noError(t, put())
}

func TestWhatADiskHadNoRoomForIsStoredWhenThereIsSome(t *testing.T) {
	t.Parallel()
	disk := disktest.Small(t, 8<<20)
	s, err := sqlite.Open(filepath.Join(disk, "mailbox"), slog.New(slog.DiscardHandler))
	noError(t, err)
	defer func() { noError(t, s.Close()) }()
	noError(t, s.Put(t.Context(), []mailbox.Row{big(1)}))
	empty := disktest.Fill(t, disk, 0)
	if err := s.Put(t.Context(), []mailbox.Row{big(2)}); err == nil {
		t.Error("a row was stored on a disk without room")
	}
	user := ident.UserID("ANZ-1")
	for n := range int64(4096) { // until the last block is full, too
		err = s.PutAnnounced(t.Context(), 0, mailbox.Announced{User: user, N: uint64(n), Pos: envelope.Position{Offset: n}})
		if err != nil {
			break
		}
	}
	if err == nil {
		t.Error("4096 changes found room on a disk without any")
	}
	empty()
	noError(t, s.PutAnnounced(t.Context(), 0, mailbox.Announced{User: user, N: 5000, Pos: envelope.Position{Offset: 5000}}))
	noError(t, s.Put(t.Context(), []mailbox.Row{big(2)}))
	n, err := s.Count(t.Context(), mailbox.Query{To: "ANZ-1"})
	noError(t, err)
	if n != 2 {
		t.Errorf("%d rows are there, want 2", n)
	}
}
