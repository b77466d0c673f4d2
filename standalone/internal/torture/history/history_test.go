package history_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/linkerhq/linker/standalone/internal/torture/history"
)

func create(t *testing.T) (*history.Writer, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "history.jsonl")
	w, err := history.Create(path, history.Run{Seed: 7, Command: "linker-torture --seed 7"})
	if err != nil {
		t.Fatal(err)
	}
	return w, path
}

// readAll reads a text until it ends or is wrong.
func readAll(text string) ([]history.Op, bool, error) {
	var ops []history.Op
	r := history.NewReader(strings.NewReader(text))
	for {
		op, err := r.Next()
		if errors.Is(err, io.EOF) {
			return ops, r.Torn(), nil
		}
		if err != nil {
			return ops, false, err
		}
		ops = append(ops, op)
	}
}

func TestWhatIsAppendedIsReadInOrder(t *testing.T) {
	t.Parallel()
	w, path := create(t)
	want := []history.Op{
		{Kind: history.KindUser, User: "ANZ-1", Role: history.RoleSender, Domain: "domain-01", Steady: true},
		{Kind: history.KindOpen, User: "ANZ-1", Session: 1, Client: history.ClientAck, Features: []string{"push", "ack"}, URL: "ws://127.0.0.1:1/ws", Asked: 3},
		{Kind: history.KindSend, User: "ANZ-1", Session: 1, N: 1, To: []string{"ANZ-2", "ANZ-3"}, Sum: "ab", Size: 100, Confirm: true, Attempt: 1},
		{Kind: history.KindAccepted, User: "ANZ-1", N: 1, ID: "x"},
		{Kind: history.KindDelivered, User: "ANZ-2", From: "ANZ-1", N: 1, ID: "x", Sum: "ab", Late: true, Note: "line\nbreak"},
		{Kind: history.KindFault, Fault: &history.Fault{Number: 1, Kind: "connector-kill", URLs: []string{"ws://127.0.0.1:1/ws"}, Kill: true}},
		{Kind: history.KindOffset, Offset: &history.Offset{Domain: "domain-01", Lane: 2, Committed: -1, Last: true}},
		{Kind: history.KindProcess, Process: &history.Process{Name: "connector-1", When: history.AtWarm, Goroutines: 5}},
		{Kind: history.KindMailbox, Mailbox: &history.Mailbox{Domain: "domain-01", Rows: 1}},
		{Kind: history.KindSample, Name: "lag", Values: map[string]float64{"domain-01": 0.5}},
		{Kind: history.KindPhase, Name: history.PhaseEnd},
	}
	for _, op := range want {
		w.Append(op)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got, torn, err := readAll(string(text))
	if err != nil || torn || len(got) != len(want)+1 {
		t.Fatalf("got %d operations, torn %t, %v", len(got), torn, err)
	}
	if run := got[0].Run; run == nil || run.Seed != 7 || run.Format != history.Format || run.Started.IsZero() {
		t.Errorf("it begins with %+v", got[0])
	}
	for i, op := range got[1:] {
		if op.At < got[i].At {
			t.Errorf("operation %d goes back in time", i+1)
		}
		op.At = 0
		if !reflect.DeepEqual(op, want[i]) {
			t.Errorf("got %+v, want %+v", op, want[i])
		}
	}
}

func TestManyMayAppendAtOnce(t *testing.T) {
	t.Parallel()
	w, path := create(t)
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for n := range 500 {
				w.Append(history.Op{Kind: history.KindAccepted, User: fmt.Sprint("ANZ-", i), N: int64(n + 1), ID: "x"})
			}
		})
	}
	group.Wait()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	ops, _, err := readAll(string(text))
	if err != nil || len(ops) != 4001 {
		t.Fatalf("got %d operations, %v", len(ops), err)
	}
	last := map[string]int64{}
	for _, op := range ops[1:] {
		if op.N != last[op.User]+1 {
			t.Fatalf("%s: %d after %d", op.User, op.N, last[op.User])
		}
		last[op.User] = op.N
	}
}

func TestAMistakeIsToldAtOnceAndAtTheEnd(t *testing.T) {
	t.Parallel()
	w, _ := create(t)
	w.Append(history.Op{Kind: history.KindAccepted, User: "ANZ-1"})
	select {
	case <-w.Failed():
	default:
		t.Error("nobody was told")
	}
	if err := w.Close(); err == nil || !strings.Contains(err.Error(), "n: 0, expected at least 1") {
		t.Errorf("got %v", err)
	}
}

func TestAFileIsNotOverwritten(t *testing.T) {
	t.Parallel()
	w, path := create(t)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := history.Create(path, history.Run{}); !errors.Is(err, os.ErrExist) {
		t.Errorf("got %v", err)
	}
}

const first = `{"t":1,"op":"run","run":{"format":1,"started":"2026-11-21T16:00:00Z","seed":7}}` + "\n"

func TestALineThatWasNotFinishedIsLeftOut(t *testing.T) {
	t.Parallel()
	ops, torn, err := readAll(first + `{"t":2,"op":"phase","name":"warm"}` + "\n" + `{"t":3,"op":"pha`)
	if len(ops) != 2 || !torn || err != nil {
		t.Errorf("got %d operations, torn %t, %v", len(ops), torn, err)
	}
}

func TestAMistakeInTheFileNamesItsLine(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{"t":1,"op":"phase","name":"warm"}` + "\n": `line 1: op: "phase", expected "run" on the first line`,
		first + first:                                         `line 2: op: "run", expected "run" on the first line`,
		first + "nothing\n":                                   "line 2: invalid character",
		first + `{"t":2,"op":"phase"}` + "\n":                 `line 2: op "phase": no name`,
		first + `{"t":2,"op":"new"}` + "\n":                   `line 2: op: "new", expected one of this version's kinds`,
		first + `{"t":0,"op":"phase","name":"warm"}` + "\n":   "line 2: t: 0, expected at least 1",
		strings.Replace(first, `"format":1`, `"format":2`, 1): "line 1: run.format: 2, expected 1",
		first + strings.Repeat("x", history.MaxLine+1) + "\n": "line 2: more than 1048576 bytes",
	} {
		if _, _, err := readAll(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: got %v, want %s", text, err, want)
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add(first + `{"t":2,"op":"delivered","user":"ANZ-1","from":"ANZ-2","n":1}` + "\n")
	f.Add(first + `{"t":2,"op":"fault","fault":{"number":1,"kind":"link-cut","end":true}}` + "\n" + `{"t":`)
	f.Fuzz(func(t *testing.T, text string) {
		ops, _, err := readAll(text)
		if len(ops) > 0 && ops[0].Kind != history.KindRun {
			t.Errorf("it begins with %s", ops[0].Kind)
		}
		if err != nil && !strings.Contains(err.Error(), "line ") {
			t.Errorf("%v names no line", err)
		}
	})
}
