//go:build !linux

package disktest

import "testing"

// Small skips the test: a disk of its own is made on Linux only.
func Small(t *testing.T, _ int64) string {
	t.Helper()
	t.Skip("a disk of its own is made on Linux only")
	return ""
}
