package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

const (
	progressOften  = time.Second      // on a terminal, where a line replaces the one before
	progressSeldom = 15 * time.Second // elsewhere
	maxProgress    = 150              // characters of a line on a terminal
)

// progress tells people how far a run has come.
type progress struct {
	out      io.Writer
	terminal bool

	mu    sync.Mutex
	drawn bool      // guarded by mu; a line is on the terminal that the next one replaces
	last  time.Time // guarded by mu; of the last line elsewhere
}

// say writes a line that stays.
func (p *progress) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.eraseLocked()
	fmt.Fprintf(p.out, format+"\n", args...)
}

// draw writes a line that the next one replaces, or now and then one that stays.
func (p *progress) draw(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.terminal {
		p.eraseLocked()
		fmt.Fprint(p.out, clip(text, maxProgress))
		p.drawn = true
		return
	}
	if now := time.Now(); now.Sub(p.last) >= progressSeldom {
		p.last = now
		fmt.Fprintln(p.out, text)
	}
}

func (p *progress) eraseLocked() {
	if p.drawn {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.drawn = false
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
