package client_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/linkerhq/linker/pkg/client"
)

func openOutbox(t *testing.T, path string) *client.FileOutbox {
	t.Helper()
	o, err := client.OpenOutbox(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Close() })
	return o
}

func shut(t *testing.T, o *client.FileOutbox) {
	t.Helper()
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
}

func pendingKeys(t *testing.T, o *client.FileOutbox) []uint64 {
	t.Helper()
	list, err := o.Pending()
	if err != nil {
		t.Fatal(err)
	}
	var keys []uint64
	for _, p := range list {
		keys = append(keys, p.Key)
	}
	return keys
}

func pending(key uint64) client.Pending {
	return client.Pending{Key: key, To: []string{"ANZ-2"}, Content: fmt.Sprint("content ", key), ID: fmt.Sprint("id-", key)}
}

func TestAnOutboxKeepsWhatWasNotRemoved(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "outbox")
	o := openOutbox(t, path)
	full := client.Pending{Key: 3, To: []string{"ANZ-2", "ANZ-3"}, Group: true, Content: "ünï \x00 \"", Reference: "r", ID: "i", Confirm: true}
	for _, err := range []error{o.Add(pending(1)), o.Add(pending(2)), o.Add(full), o.Add(pending(4)), o.Remove(2), o.Remove(9)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	shut(t, o)
	o = openOutbox(t, path)
	list, err := o.Pending()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprintf("%+v", list), fmt.Sprintf("%+v", []client.Pending{pending(1), full, pending(4)}); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if o.Torn() != 0 {
		t.Errorf("%d bytes were cut off", o.Torn())
	}
	shut(t, o)
	shut(t, o)
	if err := o.Add(pending(5)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestATornTailIsCutOff(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "outbox")
	o := openOutbox(t, path)
	long := pending(2) // longer than what is written over it
	long.Content = strings.Repeat("x", 400)
	if err := errors.Join(o.Add(pending(1)), o.Add(long)); err != nil {
		t.Fatal(err)
	}
	shut(t, o)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := 1; cut < len(whole); cut += 11 {
		torn := filepath.Join(t.TempDir(), "torn")
		if err := os.WriteFile(torn, whole[:len(whole)-cut], 0o600); err != nil {
			t.Fatal(err)
		}
		o := openOutbox(t, torn)
		keys := pendingKeys(t, o)
		if len(keys) > 1 || !slices.Equal(keys, []uint64{1}[:len(keys)]) {
			t.Fatalf("without the last %d bytes it holds %v", cut, keys)
		}
		if err := o.Add(pending(7)); err != nil {
			t.Fatal(err)
		}
		shut(t, o)
		o = openOutbox(t, torn)
		if again := pendingKeys(t, o); !slices.Equal(again, append(keys, 7)) || o.Torn() != 0 {
			t.Fatalf("after the cut it holds %v, and %d bytes were torn", again, o.Torn())
		}
		shut(t, o)
	}
	flipped := slices.Clone(whole)
	flipped[len(flipped)-3] ^= 1
	if err := os.WriteFile(path, flipped, 0o600); err != nil {
		t.Fatal(err)
	}
	o = openOutbox(t, path)
	if keys := pendingKeys(t, o); !slices.Equal(keys, []uint64{1}) || o.Torn() == 0 {
		t.Errorf("it holds %v, and %d bytes were torn", keys, o.Torn())
	}
}

func TestAnOutboxIsOfOneProcess(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "outbox")
	o := openOutbox(t, path)
	if _, err := client.OpenOutbox(path); !errors.Is(err, client.ErrInUse) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
	shut(t, o)
	openOutbox(t, path)
}

func TestAnotherFileIsNotTakenForAnOutbox(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "letter")
	if err := os.WriteFile(path, []byte("Dear Sir or Madam"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := client.OpenOutbox(path); !errors.Is(err, client.ErrNotOutbox) {
		t.Errorf("got %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "Dear Sir or Madam" {
		t.Errorf("it is %q now, %v", b, err)
	}
	if _, err := client.OpenOutbox(filepath.Join(path, "below")); err == nil {
		t.Error("a file was taken for a directory")
	}
}

func TestAnOutboxDoesNotGrowForEver(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "outbox")
	o := openOutbox(t, path)
	big := strings.Repeat("x", 50_000)
	var tasks sync.WaitGroup
	for worker := range uint64(4) {
		tasks.Go(func() {
			for n := range uint64(50) {
				p := pending(worker*1000 + n)
				p.Content = big
				if err := o.Add(p); err != nil {
					t.Error(err)
				}
				if n == 25 { // stays
					continue
				}
				if err := o.Remove(p.Key); err != nil {
					t.Error(err)
				}
			}
		})
	}
	tasks.Wait()
	info, err := os.Stat(path)
	if err != nil || info.Size() > 2<<20 {
		t.Errorf("the file has %d bytes, %v", info.Size(), err)
	}
	check := func() {
		t.Helper()
		keys := pendingKeys(t, o)
		slices.Sort(keys)
		if !slices.Equal(keys, []uint64{25, 1025, 2025, 3025}) {
			t.Errorf("it holds %v", keys)
		}
	}
	check()
	shut(t, o)
	o = openOutbox(t, path)
	check()
}

func TestWhatWasNotAcceptedIsSentAfterARestart(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "outbox")
	s := newStage(t)
	cfg := config(s.url, "ANZ-1")
	box := openOutbox(t, path)
	cfg.Outbox = box
	c, p := s.meet(cfg)
	first := sendAsync(t.Context(), c, "ANZ-2", "1", client.Reference("one"))
	f := p.message("1")
	ctx, cancel := context.WithCancel(t.Context())
	second := sendAsync(ctx, c, "ANZ-2", "2")
	await(t, func() bool { return c.Waiting() == 2 })
	cancel()
	if err := second.wait(t); !errors.Is(err, client.ErrPending) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(p.done)
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := first.wait(t); !errors.Is(err, client.ErrPending) || !errors.Is(err, client.ErrClosed) {
		t.Errorf("got %v", err)
	}
	shut(t, box)

	failed := make(chan client.Failure, 1)
	box = openOutbox(t, path)
	cfg.Outbox = box
	cfg.Failed = func(f client.Failure) { failed <- f }
	c, p = s.meet(cfg)
	again := p.message("1")
	if again.ID != f.ID || again.Reference != "one" {
		t.Errorf("it was sent as %+v, then as %+v", f, again)
	}
	third := sendAsync(t.Context(), c, "ANZ-2", "3")
	await(t, func() bool { return c.Waiting() == 3 })
	p.accept(again)
	p.fail(p.message("2"), "FORBIDDEN_APP", false)
	p.accept(p.message("3"))
	if err := third.wait(t); err != nil {
		t.Error(err)
	}
	if f := <-failed; f.Code != "FORBIDDEN_APP" {
		t.Errorf("got %+v", f)
	}
	if keys := pendingKeys(t, box); len(keys) != 0 {
		t.Errorf("the outbox holds %v", keys)
	}
}

func TestAnOutboxOfSomebodyElseIsNotSent(t *testing.T) {
	t.Parallel()
	o := openOutbox(t, filepath.Join(t.TempDir(), "outbox"))
	theirs, large := pending(1), pending(2)
	theirs.From, large.From = "ANZ-9", "ANZ-1"
	large.Content = strings.Repeat("x", client.DefaultMaxFrame)
	cfg := config("ws://127.0.0.1:1", "ANZ-1")
	cfg.Outbox = o
	if err := o.Add(theirs); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Connect(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "ANZ-9") {
		t.Errorf("got %v", err)
	}
	if err := errors.Join(o.Remove(1), o.Add(large)); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Connect(t.Context(), cfg); !errors.Is(err, client.ErrTooLarge) {
		t.Errorf("got %v", err)
	}
}

// brokenOutbox takes nothing.
type brokenOutbox struct{ client.Outbox }

var errDisk = errors.New("the disk is full")

func (brokenOutbox) Pending() ([]client.Pending, error) { return nil, nil }
func (brokenOutbox) Add(client.Pending) error           { return errDisk }

func TestWhatTheOutboxDoesNotTakeIsNotSent(t *testing.T) {
	t.Parallel()
	n := newNetwork()
	t.Cleanup(n.server.Close)
	cfg := config(n.url(), "ANZ-1")
	cfg.Outbox = brokenOutbox{}
	c := connect(t, cfg)
	if _, err := c.Send(t.Context(), "ANZ-2", "x"); !errors.Is(err, errDisk) {
		t.Errorf("got %v", err)
	}
	if got := c.Stats(); got.Sent != 0 || c.Waiting() != 0 {
		t.Errorf("got %+v", got)
	}
}
