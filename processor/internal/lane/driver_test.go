package lane_test

import (
	"strings"
	"testing"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/processor/internal/lane"
)

func TestWhereALaneBegins(t *testing.T) {
	t.Parallel()
	at := func(offset int64) envelope.Position { return envelope.Position{Generation: 1, Offset: offset} }
	for name, c := range map[string]struct {
		first, next, committed int64
		saved                  envelope.Position
		found                  bool
		from, handle           int64
		mistake                string
	}{
		"a new lane":                             {next: 0, committed: -1},
		"a new lane with records":                {next: 9, committed: -1},
		"saved before the commit":                {next: 9, committed: 7, saved: at(5), found: true, from: 5, handle: 7},
		"saved after the commit":                 {next: 9, committed: 5, saved: at(7), found: true, from: 7, handle: 7},
		"saved before what the log retains":      {first: 6, next: 9, committed: 7, saved: at(5), found: true, from: 6, handle: 7},
		"saved in an earlier generation":         {next: 3, committed: -1, saved: envelope.Position{Generation: 0, Offset: 500}, found: true},
		"records removed before handled":         {first: 8, next: 9, committed: 7, mistake: "records were removed"},
		"served under a later generation":        {next: 9, committed: -1, saved: envelope.Position{Generation: 2, Offset: 5}, found: true, mistake: "never lowered"},
		"the topic was made anew":                {next: 3, committed: 7, mistake: "made anew"},
		"the topic was made anew, and no commit": {next: 3, committed: -1, saved: at(7), found: true, mistake: "made anew"},
	} {
		from, handle, err := lane.StartAt(c.first, c.next, c.committed, c.saved, c.found, 1)
		switch {
		case c.mistake != "":
			if err == nil || !strings.Contains(err.Error(), c.mistake) {
				t.Errorf("%s: got %v, want %q", name, err, c.mistake)
			}
		case err != nil || from != c.from || handle != c.handle:
			t.Errorf("%s: from %d, handle %d, %v; want %d, %d", name, from, handle, err, c.from, c.handle)
		}
	}
}
