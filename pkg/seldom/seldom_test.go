package seldom_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/linkerhq/linker/pkg/seldom"
)

func TestALineIsDueOnceInFiveSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var l seldom.Line
		due := 0
		for range 100 { // ten seconds
			if l.Due() {
				due++
			}
			time.Sleep(100 * time.Millisecond)
		}
		if due != 2 {
			t.Errorf("due %d times in ten seconds", due)
		}
	})
}
