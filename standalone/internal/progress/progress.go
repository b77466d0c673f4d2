// Package progress tells people how far something has come that takes its time: on a
// terminal in a line that is replaced, elsewhere in one line now and then.
package progress

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// Often is how often it makes sense to draw a line: on a terminal it replaces the one
// before.
const Often = time.Second

const maxLine = 150 // characters of a line on a terminal

// Line is where progress is written to. Its methods may be called by any goroutine.
type Line struct {
	out      io.Writer
	terminal bool
	seldom   time.Duration

	mu    sync.Mutex
	drawn bool      // guarded by mu; a line is on the terminal that the next one replaces
	last  time.Time // guarded by mu; of the last line elsewhere
}

// New returns a line on out, which is a terminal or not. Where it is none, one line in
// seldom is written.
func New(out io.Writer, terminal bool, seldom time.Duration) *Line {
	return &Line{out: out, terminal: terminal, seldom: seldom}
}

// IsTerminal says whether somebody sees what is written, and not a file.
func IsTerminal(file *os.File) bool {
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// Say writes a line that stays.
func (l *Line) Say(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.eraseLocked()
	fmt.Fprintf(l.out, format+"\n", args...)
}

// Draw writes a line that the next one replaces, or now and then one that stays.
func (l *Line) Draw(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.terminal {
		l.eraseLocked()
		fmt.Fprint(l.out, clip(text, maxLine))
		l.drawn = true
		return
	}
	if now := time.Now(); now.Sub(l.last) >= l.seldom {
		l.last = now
		fmt.Fprintln(l.out, text)
	}
}

// Erase takes away the line that would be replaced.
func (l *Line) Erase() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.eraseLocked()
}

func (l *Line) eraseLocked() {
	if l.drawn {
		fmt.Fprint(l.out, "\r\x1b[K")
		l.drawn = false
	}
}

// clip shortens a text to so many characters.
func clip(text string, most int) string {
	letters := []rune(strings.ReplaceAll(text, "\n", " "))
	if len(letters) <= most {
		return string(letters)
	}
	return string(letters[:most-1]) + "…"
}
