// Package catalog keeps the description of the network that the operators' YAML
// file holds. It reads the file again while it runs, names every mistake in it by
// line, and keeps the last good version in force.
package catalog

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/topology"
)

// readEvery is how often the file is read. What is new must be found twice, so a
// change is in force within two of them.
const readEvery = 500 * time.Millisecond

// State is what is in force and what is to be said about the file.
type State struct {
	Snapshot *topology.Snapshot
	LoadedAt time.Time
	// Warnings are about the version in force.
	Warnings []Problem
	// Mistakes are why the file as it is now is not in force; empty if it is.
	Mistakes []Problem
}

// Catalog holds the state. Its methods may be called by any number of goroutines.
type Catalog struct {
	file    string
	log     *slog.Logger
	metrics metrics

	mu      sync.Mutex
	state   State         // guarded by mu; what it points to does not change
	changed chan struct{} // guarded by mu; closed when the snapshot is replaced

	// Owned by Open and Reread, then by Run.
	inForce  string // print of the version in force
	judged   string // print of what was last taken or refused
	lastRead string // print of what was last read
}

// Open reads the file. A file that is not valid is an error of type Mistakes. The
// metrics are registered at once; nothing runs before Run.
func Open(file string, log *slog.Logger, registerer prometheus.Registerer) (*Catalog, error) {
	c := &Catalog{file: file, log: log, metrics: newMetrics(), changed: make(chan struct{})}
	content, written, err := read(file)
	if err != nil {
		return nil, err
	}
	network, warnings, err := Parse(content)
	if err != nil {
		return nil, err
	}
	err = c.metrics.register(registerer)
	if err != nil {
		return nil, fmt.Errorf("register metrics of the catalog: %w", err)
	}
	err = c.putInForce(network, warnings, written)
	if err != nil {
		return nil, err
	}
	c.inForce = printOf(content, nil)
	c.judged, c.lastRead = c.inForce, c.inForce
	return c, nil
}

// Current returns the state and a channel that is closed when its snapshot is no
// longer the one in force.
func (c *Catalog) Current() (State, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state, c.changed
}

// Reread judges the file as it is now, for whoever has just written it. It must
// return before Run is called.
func (c *Catalog) Reread() {
	content, _, err := read(c.file)
	c.lastRead = printOf(content, err)
	c.look()
}

// Run follows the file until ctx ends; then it returns nil.
//
// It reads the whole file each time and asks neither for notifications nor for
// the time of the last change: so it works alike for editors that rename, for
// mounts into containers and for network file systems.
func (c *Catalog) Run(ctx context.Context) error {
	ticker := time.NewTicker(readEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			c.look()
		}
	}
}

// look reads the file and judges it if it says something new for the second time.
// The beginning of a file that is just being written may be valid and lack half of
// the apps; one that is found twice is complete.
func (c *Catalog) look() {
	content, written, readErr := read(c.file)
	found := printOf(content, readErr)
	settled := found == c.lastRead
	c.lastRead = found
	if !settled || found == c.judged {
		return
	}
	c.judged = found
	if found == c.inForce {
		c.log.Info("meta file is again the version in force", "file", c.file)
		c.refuse(nil)
		return
	}
	network, warnings, err := topology.Network{}, []Problem(nil), readErr
	if err == nil {
		network, warnings, err = Parse(content)
	}
	if err == nil {
		err = c.putInForce(network, warnings, written)
	}
	if err != nil {
		c.refuse(err)
		return
	}
	c.inForce = found
}

// putInForce replaces the snapshot. Its version is the time when the file was written, so
// that a server that is started again, and one elsewhere with a copy that has kept the
// time, say the same. While the server runs versions only rise, whatever the times are.
func (c *Catalog) putInForce(network topology.Network, warnings []Problem, written time.Time) error {
	now := time.Now()
	version := uint64(max(written.UnixMilli(), 1))
	c.mu.Lock()
	previous := c.state.Snapshot
	c.mu.Unlock()
	if previous != nil {
		version = max(version, previous.Version+1)
	}
	snapshot, err := topology.New(version, network)
	if err != nil {
		return err
	}

	c.mu.Lock()
	c.state = State{Snapshot: snapshot, LoadedAt: now, Warnings: warnings}
	close(c.changed)
	c.changed = make(chan struct{})
	c.mu.Unlock()

	for _, w := range warnings {
		c.log.Warn("meta file has a weak point", "file", c.file, "line", w.Line, "problem", w.Text)
	}
	c.log.Info("meta file is in force", "file", c.file, "version", version,
		"domains", len(network.Domains), "apps", len(network.Apps), "warnings", len(warnings))
	c.metrics.inForce(version, len(warnings))
	return nil
}

// refuse records why the file is not in force; nil says that it is.
func (c *Catalog) refuse(err error) {
	mistakes := mistakesOf(err)
	c.mu.Lock()
	c.state.Mistakes = mistakes
	c.mu.Unlock()
	c.metrics.refused(len(mistakes))
	if len(mistakes) == 0 {
		return
	}
	for _, m := range mistakes {
		c.log.Error("meta file has a mistake", "file", c.file, "line", m.Line, "problem", m.Text)
	}
	c.log.Error("meta file is refused, the last good version stays in force", "file", c.file, "mistakes", len(mistakes))
}

func mistakesOf(err error) Mistakes {
	if err == nil {
		return nil
	}
	if mistakes, ok := errors.AsType[Mistakes](err); ok {
		return mistakes
	}
	return Mistakes{{Text: err.Error()}}
}

// read returns the content, of a file that is too large only so much that Parse
// sees it is, and when it was written.
func read(file string) (content []byte, written time.Time, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, written, fmt.Errorf("read meta file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, written, fmt.Errorf("read meta file: %w", err)
	}
	content, err = io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, written, fmt.Errorf("read meta file: %w", err)
	}
	return content, info.ModTime(), nil
}

// printOf tells one reading of the file from another, failed ones included.
func printOf(content []byte, err error) string {
	if err != nil {
		return err.Error()
	}
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}
