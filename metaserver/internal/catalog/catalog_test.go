package catalog_test

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/metaserver/internal/catalog"
)

// running is a catalog that follows a file in a synctest bubble.
type running struct {
	*catalog.Catalog
	file string
	log  *buffer
}

// buffer is a log that may be read while it is written.
type buffer struct {
	mu   sync.Mutex
	text strings.Builder // guarded by mu
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) count(s string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.text.String(), s)
}

func start(t *testing.T) running {
	t.Helper()
	r := running{file: filepath.Join(t.TempDir(), "meta.yaml"), log: new(buffer)}
	r.save(t, sound)
	c, err := catalog.Open(r.file, slog.New(slog.NewTextHandler(r.log, nil)), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	r.Catalog = c
	go func() {
		if err := c.Run(t.Context()); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	return r
}

func (r running) save(t *testing.T, content string) {
	t.Helper()
	if err := os.WriteFile(r.file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// wait lets time pass and the catalog act.
func wait(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

const threeApps = sound + "userDistributions:\n  - {domainName: domain-01, to: 10}\n  - {domainName: domain-02, from: 10}\n"

func TestASavedChangeIsInForceWithinTwoSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t)
		before, replaced := r.Current()
		wait(200 * time.Millisecond)
		r.save(t, threeApps)
		wait(2 * time.Second)
		after, _ := r.Current()
		if after.Snapshot.Version <= before.Snapshot.Version || len(after.Snapshot.Network().Distributions) != 2 || len(after.Warnings) != 1 {
			t.Errorf("got version %d after %d, %+v", after.Snapshot.Version, before.Snapshot.Version, after)
		}
		if !after.LoadedAt.After(before.LoadedAt) {
			t.Errorf("loaded at %v, before at %v", after.LoadedAt, before.LoadedAt)
		}
		select {
		case <-replaced:
		default:
			t.Error("the channel is still open")
		}
	})
}

func TestAnEditorThatRenamesIsFollowed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t)
		aside := r.file + "~"
		if err := os.WriteFile(aside, []byte(threeApps), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(aside, r.file); err != nil {
			t.Fatal(err)
		}
		wait(2 * time.Second)
		if after, _ := r.Current(); len(after.Warnings) != 1 {
			t.Errorf("got %+v", after)
		}
	})
}

func TestAFileThatIsJustBeingWrittenIsNotTaken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t)
		before, _ := r.Current()
		wait(300 * time.Millisecond)
		// Valid, but without the apps: it is there for one reading only.
		r.save(t, sound[:strings.Index(sound, "clientApps")])
		wait(500 * time.Millisecond)
		r.save(t, threeApps)
		wait(500 * time.Millisecond)
		if now, _ := r.Current(); now.Snapshot != before.Snapshot {
			t.Errorf("version %d is in force: %+v", now.Snapshot.Version, now.Snapshot.Network())
		}
		wait(time.Second)
		if now, _ := r.Current(); len(now.Snapshot.Network().Apps) != 2 || len(now.Warnings) != 1 {
			t.Errorf("got %+v", now.Snapshot.Network())
		}
	})
}

func TestAnInvalidFileIsReportedOnceAndTheLastGoodVersionStays(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t)
		before, _ := r.Current()
		r.save(t, sound+"x: 1\ny: 2\n")
		wait(time.Minute)
		after, _ := r.Current()
		if after.Snapshot != before.Snapshot {
			t.Errorf("version %d replaced %d", after.Snapshot.Version, before.Snapshot.Version)
		}
		if got := catalog.Mistakes(after.Mistakes).Error(); got != "line 15: unknown key \"x\"\nline 16: unknown key \"y\"" {
			t.Errorf("got mistakes %s", got)
		}
		if n := r.log.count("meta file has a mistake"); n != 2 {
			t.Errorf("%d mistakes are logged, want 2", n)
		}

		r.save(t, sound)
		wait(2 * time.Second)
		if again, _ := r.Current(); again.Snapshot != before.Snapshot || len(again.Mistakes) > 0 {
			t.Errorf("undoing the change gave %+v", again)
		}

		r.save(t, sound+"x: 1\ny: 2\n")
		wait(2 * time.Second)
		r.save(t, threeApps)
		wait(2 * time.Second)
		if good, _ := r.Current(); good.Snapshot == before.Snapshot || len(good.Mistakes) > 0 {
			t.Errorf("correcting the mistake gave %+v", good)
		}
	})
}

func TestAFileThatIsGoneLeavesTheLastGoodVersion(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t)
		before, _ := r.Current()
		if err := os.Remove(r.file); err != nil {
			t.Fatal(err)
		}
		wait(time.Minute)
		after, _ := r.Current()
		if after.Snapshot != before.Snapshot || len(after.Mistakes) != 1 || after.Mistakes[0].Line != 0 ||
			!strings.Contains(after.Mistakes[0].Text, "no such file") {
			t.Errorf("got %+v", after)
		}
		if n := r.log.count("level=ERROR"); n != 2 {
			t.Errorf("%d errors are logged, want the mistake and that the file is refused", n)
		}
	})
}

func TestTheVersionIsTheTimeOfTheFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "meta.yaml")
	open := func() uint64 {
		c, err := catalog.Open(file, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		state, _ := c.Current()
		return state.Snapshot.Version
	}
	if err := os.WriteFile(file, []byte(sound), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, written := range []time.Time{time.UnixMilli(1_700_000_000_123), time.UnixMilli(1_600_000_000_000)} {
		if err := os.Chtimes(file, written, written); err != nil {
			t.Fatal(err)
		}
		for range 2 { // a restart is no change
			if got := open(); got != uint64(written.UnixMilli()) {
				t.Errorf("got %d of a file written at %d", got, written.UnixMilli())
			}
		}
	}
}

func TestVersionsRiseWhateverTheTimesOfTheFileAre(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t)
		before, _ := r.Current()
		r.save(t, threeApps)
		old := time.UnixMilli(1_600_000_000_000)
		if err := os.Chtimes(r.file, old, old); err != nil {
			t.Fatal(err)
		}
		wait(2 * time.Second)
		if after, _ := r.Current(); after.Snapshot.Version != before.Snapshot.Version+1 {
			t.Errorf("got %d after %d", after.Snapshot.Version, before.Snapshot.Version)
		}
	})
}

func TestOpenNamesAllMistakes(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "meta.yaml")
	if err := os.WriteFile(file, []byte(sound+"x: 1\ny: 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := catalog.Open(file, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if mistakes, ok := errors.AsType[catalog.Mistakes](err); !ok || len(mistakes) != 2 {
		t.Errorf("got %v", err)
	}
}

func TestOpenNeedsTheFile(t *testing.T) {
	t.Parallel()
	_, err := catalog.Open(filepath.Join(t.TempDir(), "meta.yaml"), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
