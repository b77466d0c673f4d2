package e2e

import (
	"context"
	"testing"
	"time"
)

// lasting is a domain with the network of a fresh start that keeps what it has
// while it is killed and started again.
type lasting interface {
	begin(t *testing.T) life
}

// life is the time from a start to an end.
type life interface {
	// isReady waits until clients can log in and send, and says whether it came to
	// that in time. The test fails if what was started ends.
	isReady(t *testing.T, within time.Duration) bool
	ws() string // where clients connect, one place or several in turn
	// kill ends everything at once as a crash does.
	kill()
	// interrupt ends everything as an operator does, and returns what was wrong
	// with that.
	interrupt(t *testing.T) error
}

// newLasting returns one that is used by this test only.
func newLasting(t *testing.T) lasting {
	t.Helper()
	dir := t.TempDir()
	on, given := givenServers()
	if !given {
		return dataDir(dir)
	}
	c, err := newCluster(dir, on, setup{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.kill()
		if err := c.mistakes(); err != nil {
			t.Error(err)
		}
		if err := c.clean(); err != nil {
			t.Error(err)
		}
	})
	return lastingCluster{c}
}

// launch starts a domain and waits until it is ready.
func launch(t *testing.T, d lasting) life {
	t.Helper()
	l := d.begin(t)
	if !l.isReady(t, readyPatience) {
		t.Fatal("it is not ready")
	}
	return l
}

// dataDir is a domain in one process, the real program.
type dataDir string

func (d dataDir) begin(t *testing.T) life {
	t.Helper()
	return begin(t, string(d))
}

// lastingCluster is a domain of several processes.
type lastingCluster struct{ *cluster }

func (c lastingCluster) begin(t *testing.T) life {
	t.Helper()
	if err := c.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c lastingCluster) isReady(t *testing.T, within time.Duration) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	err := c.Ready(ctx)
	if err != nil && ctx.Err() == nil {
		t.Fatal(err)
	}
	return err == nil
}

func (c lastingCluster) ws() string { return c.WebsocketURL() }

func (c lastingCluster) interrupt(*testing.T) error { return c.stop() }

// ofStandalone skips a test that is about the program which is a whole domain in
// one process: where clusters are tested it would say the same as without.
func ofStandalone(t *testing.T) {
	t.Helper()
	if _, given := givenServers(); given {
		t.Skip("about the standalone program, which uses no servers")
	}
}
