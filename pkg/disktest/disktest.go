// Package disktest gives tests a disk that is soon full.
package disktest

import (
	"errors"
	"io"
	"os"
	"syscall"
	"testing"
)

// Fill writes a file into the directory until its disk has only so much left, and
// returns what removes it.
func Fill(t *testing.T, dir string, left int64) (empty func()) {
	t.Helper()
	f, err := os.CreateTemp(dir, "filler")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 64<<10)
	for Free(t, dir) > left {
		n := min(int64(len(block)), Free(t, dir)-left)
		_, err := f.Write(block[:n])
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, io.ErrShortWrite) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		t.Helper()
		if err := os.Remove(f.Name()); err != nil {
			t.Fatal(err)
		}
	}
}

// Free is how many bytes the disk of a directory has left.
func Free(t *testing.T, dir string) int64 {
	t.Helper()
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	return int64(fs.Bavail) * int64(fs.Bsize) //nolint:unconvert // another type elsewhere
}
