package history

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"
)

const (
	writeBuffer = 256 << 10
	// flushEvery bounds what is missing in the file if the writer is killed.
	flushEvery = time.Second
	// MaxLine is the longest line, in bytes.
	MaxLine = 1 << 20
)

// Writer appends operations to a file. What is appended waits in a buffer of 256 KiB;
// when that is full, appending waits for the disk.
type Writer struct {
	started time.Time // static

	mu      sync.Mutex
	file    *os.File      // guarded by mu; nil: closed
	out     *bufio.Writer // guarded by mu
	flushed int64         // guarded by mu; when, in the time of Op.At
	last    int64         // guarded by mu; Op.At of the last operation
	err     error         // guarded by mu; the first mistake; nothing is written after it
	failed  chan struct{} // closed when err is set
}

// Create makes a file and writes its first line. The run starts now.
func Create(path string, run Run) (*Writer, error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return nil, fmt.Errorf("make the history: %w", err)
	}
	w := &Writer{started: time.Now(), file: file, out: bufio.NewWriterSize(file, writeBuffer), failed: make(chan struct{})}
	run.Format, run.Started = Format, w.started.UTC()
	w.Append(Op{Kind: KindRun, Run: &run})
	return w, nil
}

// Now is the time since the start of the run, as Op.At counts it.
func (w *Writer) Now() int64 { return time.Since(w.started).Microseconds() }

// Append writes an operation that happens now. Operations are in the file in the order
// of the calls, and their times never decrease. A mistake is kept for Close; Failed
// tells of it at once.
func (w *Writer) Append(op Op) {
	if err := op.validate(); err != nil {
		w.fail(err)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil || w.file == nil {
		return
	}
	op.At = max(w.Now(), w.last)
	line, err := json.Marshal(&op)
	if err == nil && len(line) > MaxLine {
		err = fmt.Errorf("op %q: %d bytes, expected at most %d", op.Kind, len(line), MaxLine)
	}
	if err != nil {
		w.failLocked(err)
		return
	}
	w.last = op.At
	_, err = w.out.Write(append(line, '\n'))
	if err == nil && op.At-w.flushed >= flushEvery.Microseconds() {
		w.flushed = op.At
		err = w.out.Flush()
	}
	if err != nil {
		w.failLocked(err)
	}
}

// Phase writes that a phase begins.
func (w *Writer) Phase(name string) { w.Append(Op{Kind: KindPhase, Name: name}) }

// Failed is closed when the file cannot be written any more.
func (w *Writer) Failed() <-chan struct{} { return w.failed }

// Flush makes everything that was appended readable.
func (w *Writer) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil && w.file != nil {
		if err := w.out.Flush(); err != nil {
			w.failLocked(err)
		}
	}
	return w.err
}

// Close ends the file, and returns the first mistake of all.
func (w *Writer) Close() error {
	err := w.Flush()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil {
		return err
	}
	closing := w.file.Close()
	w.file = nil
	if err == nil && closing != nil {
		err = fmt.Errorf("write the history: %w", closing)
	}
	return err
}

func (w *Writer) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failLocked(err)
}

func (w *Writer) failLocked(err error) {
	if w.err == nil {
		w.err = fmt.Errorf("write the history: %w", err)
		close(w.failed)
	}
}
