// Package polltest lets tests wait for what has no event of its own.
package polltest

import (
	"testing"
	"time"
)

// Eventually looks again and again until ok, for at most 30 s.
func Eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	Within(t, 30*time.Second, what, ok)
}

// Within looks again and again until ok, and fails the test when the time is over.
func Within(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(limit)
	for !ok() {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}
