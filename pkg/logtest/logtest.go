// Package logtest lets tests read what was logged.
package logtest

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
)

// Log is what was logged, one line for each record. All methods can be called
// from any goroutine.
type Log struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

// New returns a logger and what it has logged.
func New() (*slog.Logger, *Log) {
	l := &Log{}
	return l.Logger(), l
}

// Logger returns a logger that writes here, everything down to debug.
func (l *Log) Logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// Write implements io.Writer for the logger.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// String returns all lines.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Lines returns how many lines contain the part.
func (l *Log) Lines(part string) int {
	n := 0
	for line := range strings.Lines(l.String()) {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}
