package presence_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/presence"
)

func connector(name string) ident.Connector {
	return ident.Connector{Name: name, Incarnation: ident.Incarnation{name[0]}}
}

// look is one observation: at ms after the start, the names whose leases are
// there, and the marker; or an error.
type look struct {
	ms     int
	leases string
	marker string
	fails  bool
	died   string // what Observe must return
}

func TestAConnectorIsDeadAfterTwoSecondsOnAStoreThatWasUpAllThatTime(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		looks []look
		want  map[string]presence.State
	}{
		{
			"nothing was seen",
			nil,
			map[string]presence.State{"a": presence.Unsure},
		},
		{
			"alive while its lease is there",
			[]look{{ms: 0, leases: "a b"}, {ms: 500, leases: "a"}},
			map[string]presence.State{"a": presence.Alive, "b": presence.Unsure},
		},
		{
			"dead two seconds after the first view without it, told once",
			[]look{{ms: 0, leases: "a b"}, {ms: 500, leases: "a"}, {ms: 1500, leases: "a"}, {ms: 2499, leases: "a"}, {ms: 2500, leases: "a", died: "b"}, {ms: 3000, leases: "a"}},
			map[string]presence.State{"a": presence.Alive, "b": presence.Dead},
		},
		{
			"a lease that comes back in time was never gone",
			[]look{{ms: 0, leases: "a"}, {ms: 1000}, {ms: 2000, leases: "a"}, {ms: 3000}, {ms: 4500}},
			map[string]presence.State{"a": presence.Unsure},
		},
		{
			"an error starts the clock again",
			[]look{{ms: 0, leases: "a"}, {ms: 1000}, {ms: 2500, fails: true}, {ms: 3000}, {ms: 4500}, {ms: 4999}, {ms: 5000, died: "a"}},
			map[string]presence.State{"a": presence.Dead},
		},
		{
			"a store that is away leaves everything as it was",
			[]look{{ms: 0, leases: "a"}, {ms: 1000, leases: "a"}, {ms: 2000, fails: true}, {ms: 60000, fails: true}},
			map[string]presence.State{"a": presence.Alive, "b": presence.Unsure},
		},
		{
			"a store that lost its memory starts the clock again",
			[]look{{ms: 0, leases: "a"}, {ms: 1000}, {ms: 2500, marker: "new"}, {ms: 4000, marker: "new"}, {ms: 4500, marker: "new", died: "a"}},
			map[string]presence.State{"a": presence.Dead},
		},
		{
			"whoever fills an emptied store again was never dead",
			[]look{{ms: 0, leases: "a"}, {ms: 1000, marker: "new"}, {ms: 2900, marker: "new", leases: "a"}},
			map[string]presence.State{"a": presence.Alive},
		},
		{
			"a watcher that slept starts the clock again",
			[]look{{ms: 0, leases: "a"}, {ms: 1000}, {ms: 9000}, {ms: 10999}, {ms: 11000, died: "a"}},
			map[string]presence.State{"a": presence.Dead},
		},
		{
			"one that no view has shown is dead after a whole stretch without it",
			[]look{{ms: 0}, {ms: 1000}, {ms: 2000}},
			map[string]presence.State{"a": presence.Dead},
		},
		{
			"one that no view has shown is unsure for two seconds after an error",
			[]look{{ms: 0}, {ms: 2000}, {ms: 2500, fails: true}, {ms: 3000}, {ms: 4900}},
			map[string]presence.State{"a": presence.Unsure},
		},
		{
			"one that comes back from the dead is alive, and can die again",
			[]look{{ms: 0, leases: "a"}, {ms: 1000}, {ms: 3000, died: "a"}, {ms: 4000, leases: "a"}, {ms: 5000}, {ms: 7000, died: "a"}},
			map[string]presence.State{"a": presence.Dead},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var w presence.Watch
			start := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
			for _, l := range test.looks {
				view := presence.View{Marker: l.marker}
				for name := range strings.FieldsSeq(l.leases) {
					view.Leases = append(view.Leases, connector(name))
				}
				var err error
				if l.fails {
					view, err = presence.View{}, errors.New("away")
				}
				var died []string
				for _, c := range w.Observe(start.Add(time.Duration(l.ms)*time.Millisecond), view, err) {
					died = append(died, c.Name)
				}
				slices.Sort(died)
				if got := strings.Join(died, " "); got != l.died {
					t.Errorf("after %d ms %q died, want %q", l.ms, got, l.died)
				}
			}
			for name, want := range test.want {
				if got := w.State(connector(name)); got != want {
					t.Errorf("%s is %v, want %v", name, got, want)
				}
				if got := slices.Contains(w.Alive(), connector(name)); got != (want == presence.Alive) {
					t.Errorf("Alive contains %s: %v", name, got)
				}
			}
		})
	}
}

func TestASecondIncarnationOfANameIsAnotherConnector(t *testing.T) {
	t.Parallel()
	var w presence.Watch
	before, after := connector("a"), ident.Connector{Name: "a", Incarnation: ident.Incarnation{9}}
	now := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	w.Observe(now, presence.View{Leases: []ident.Connector{before}}, nil)
	w.Observe(now.Add(time.Second), presence.View{Leases: []ident.Connector{after}}, nil)
	died := w.Observe(now.Add(3*time.Second), presence.View{Leases: []ident.Connector{after}}, nil)
	if !slices.Equal(died, []ident.Connector{before}) || w.State(after) != presence.Alive {
		t.Errorf("died: %v; the other is %v", died, w.State(after))
	}
}
