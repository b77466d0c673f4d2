package disktest

import (
	"fmt"
	"syscall"
	"testing"
)

// Small returns an empty directory on a disk of its own, of so many bytes, until
// the test ends. Where this process may not mount one, the test is skipped.
func Small(t *testing.T, size int64) string {
	t.Helper()
	dir := t.TempDir()
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size))
	if err != nil {
		t.Skipf("a disk of its own needs the right to mount one: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}
