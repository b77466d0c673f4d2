package progress_test

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/linkerhq/linker/standalone/internal/progress"
)

func TestProgressIsOneLineOnATerminal(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	l := progress.New(&out, true, time.Second)
	l.Draw("one")
	l.Draw(strings.Repeat("ä", 200))
	l.Say("two %d", 2)
	l.Draw("three")
	l.Erase()
	l.Erase()
	if got := out.String(); got != "one\r\x1b[K"+strings.Repeat("ä", 149)+"…\r\x1b[Ktwo 2\nthree\r\x1b[K" {
		t.Errorf("got %q", got)
	}
}

func TestProgressIsALineNowAndThenElsewhere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := progress.New(&out, false, 15*time.Second)
		l.Draw("one")
		l.Draw("two")
		time.Sleep(14 * time.Second)
		l.Draw("three")
		time.Sleep(time.Second)
		l.Draw("four")
		l.Say("five")
		if got := out.String(); got != "one\nfour\nfive\n" {
			t.Errorf("got %q", got)
		}
	})
}
