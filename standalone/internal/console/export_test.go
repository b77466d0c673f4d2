package console

import (
	"testing"
	"time"
)

// Looks calls use with a function that makes an observer look, a second after it did
// so the last time.
func Looks(t *testing.T, find func() []Domain, use func(next func() Picture)) {
	t.Helper()
	o := newObserver(find, "")
	defer o.client.CloseIdleConnections()
	now := time.Now()
	o.now = func() time.Time { return now }
	use(func() Picture {
		t.Helper()
		now = now.Add(time.Second)
		picture, err := o.look(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return picture
	})
}
