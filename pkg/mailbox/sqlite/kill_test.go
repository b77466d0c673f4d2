package sqlite_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/pkg/mailbox/sqlite"
)

// writeInto names the directory that a copy of the test program writes into
// until it is killed.
const writeInto = "LINKER_TEST_WRITE_INTO"

func TestMain(m *testing.M) {
	if dir := os.Getenv(writeInto); dir != "" {
		writeForEver(dir)
	}
	os.Exit(m.Run())
}

// writeForEver says what has been stored, a line for each return: "row N" or "lane N".
func writeForEver(dir string) {
	s, err := sqlite.Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		panic(err)
	}
	var wg sync.WaitGroup
	var next atomic.Int64
	var output sync.Mutex
	say := func(what string, n int64, err error) {
		if err != nil {
			panic(err)
		}
		output.Lock()
		defer output.Unlock()
		fmt.Println(what, n)
	}
	ctx := context.Background()
	for range 8 {
		wg.Go(func() {
			for {
				n := next.Add(1)
				say("row", n, s.Put(ctx, []mailbox.Row{row(n)}))
			}
		})
	}
	wg.Go(func() {
		for n := int64(1); ; n++ {
			say("lane", n, saveLane(ctx, s, n))
		}
	})
	wg.Wait()
}

func TestWhatHasReturnedIsThereAfterAKill(t *testing.T) {
	t.Parallel()
	program, err := os.Executable()
	noError(t, err)
	dir := filepath.Join(t.TempDir(), "data")
	for round := range 3 {
		rows, lane := writeUntilKilled(t, program, dir)
		s, err := sqlite.Open(dir, slog.New(slog.DiscardHandler))
		noError(t, err)
		stored, _, err := s.Read(t.Context(), mailbox.Query{To: "A-1", Limit: 1 << 30})
		noError(t, err)
		offsets := make(map[int64]bool)
		for _, r := range stored {
			offsets[r.Pos.Offset] = string(r.Record) == string(row(r.Pos.Offset).Record)
		}
		lost := slices.DeleteFunc(slices.Clone(rows), func(n int64) bool { return offsets[n] })
		if len(lost) > 0 {
			t.Errorf("round %d: %d of %d rows are lost, the first is %d", round, len(lost), len(rows), lost[0])
		}
		checkLane(t, s, lane)
		noError(t, s.Close())
		noError(t, os.RemoveAll(dir))
	}
}

// writeUntilKilled kills a writer in the middle of its work. It returns the
// rows and the last save of the lane that the writer said were stored.
func writeUntilKilled(t *testing.T, program, dir string) (rows []int64, lane int64) {
	t.Helper()
	writer := exec.CommandContext(t.Context(), program)
	writer.Env = append(os.Environ(), writeInto+"="+dir)
	writer.Stderr = os.Stderr
	output, err := writer.StdoutPipe()
	noError(t, err)
	noError(t, writer.Start())
	lines := bufio.NewScanner(output)
	for lines.Scan() {
		var what string
		var n int64
		_, err := fmt.Sscan(lines.Text(), &what, &n)
		if err != nil {
			t.Fatalf("the writer said %q", lines.Text())
		}
		if what == "row" {
			rows = append(rows, n)
		} else {
			lane = n
		}
		if len(rows) == 2000 {
			noError(t, writer.Process.Kill())
		}
	}
	if writer.Wait() == nil || len(rows) < 2000 {
		t.Fatalf("the writer ended by itself, after %d rows", len(rows))
	}
	return rows, lane
}
