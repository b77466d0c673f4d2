package client

import (
	"strconv"
	"testing"
	"time"
)

func TestAMemoryKeepsTheNewestAndForgetsTheRest(t *testing.T) {
	t.Parallel()
	now := time.Now()
	m := NewMemory(100)
	for n := range 1000 {
		m.add(strconv.Itoa(n), now)
		for back := range min(n+1, 50) {
			if !m.has(strconv.Itoa(n - back)) {
				t.Fatalf("after %d it has forgotten %d", n, n-back)
			}
		}
		if len(m.young)+len(m.old) > 100 {
			t.Fatalf("it remembers %d", len(m.young)+len(m.old))
		}
	}
	if m.has("700") || m.has("") {
		t.Error("it knows what is long gone")
	}
}

func TestAMemoryForgetsAfterADayOrTwo(t *testing.T) {
	t.Parallel()
	now := time.Now()
	m := NewMemory(0)
	m.add("a", now)
	m.expire(now.Add(rememberFor - 1))
	m.add("b", now.Add(rememberFor))
	if !m.has("a") || !m.has("b") {
		t.Error("it has forgotten")
	}
	m.expire(now.Add(2 * rememberFor))
	if m.has("a") || !m.has("b") {
		t.Error("it has forgotten the wrong one")
	}
	m.expire(now.Add(3 * rememberFor))
	if len(m.young)+len(m.old) > 0 {
		t.Error("it never forgets")
	}
}
