package nemesis_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/failpoint"
	"github.com/linkerhq/linker/standalone/internal/torture/nemesis"
)

// three is a network of three domains.
func three() nemesis.Shape {
	s := nemesis.Shape{Metaserver: "metaserver", Redis: true, Planes: true}
	for n := range 3 {
		domain := fmt.Sprintf("domain-%02d", n+1)
		s.Domains = append(s.Domains, domain)
		s.Servers = append(s.Servers, nemesis.Place{Name: domain + "/servers", Domain: domain})
		for i := range 2 {
			s.Connectors = append(s.Connectors, nemesis.Place{Name: fmt.Sprintf("%s/connector-%d", domain, i+1), Domain: domain, URL: fmt.Sprintf("ws://%d:%d/ws", n, i)})
			s.Processors = append(s.Processors, nemesis.Place{Name: fmt.Sprintf("%s/processor-%d", domain, i+1), Domain: domain})
		}
	}
	s.Links = [][2]string{{"domain-01", "domain-02"}, {"domain-02", "domain-03"}, {"domain-03", "domain-01"}}
	return s
}

func plan(t *testing.T, cfg nemesis.Config) []nemesis.Step {
	t.Helper()
	steps, err := nemesis.Plan(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return steps
}

func TestAPlanFollowsFromItsSeed(t *testing.T) {
	t.Parallel()
	cfg := nemesis.Config{Seed: 1, Length: 5 * time.Minute, Shape: three()}
	first := plan(t, cfg)
	if !reflect.DeepEqual(first, plan(t, cfg)) {
		t.Error("the same seed makes another plan")
	}
	cfg.Seed = 2
	if reflect.DeepEqual(first, plan(t, cfg)) {
		t.Error("another seed makes the same plan")
	}
}

func TestAPlanEndsInTimeAndLeavesGaps(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		for _, length := range []time.Duration{20 * time.Second, time.Minute, 5 * time.Minute} {
			const gap = 2 * time.Second
			var end time.Duration
			steps := plan(t, nemesis.Config{Seed: seed, Length: length, Shape: three(), Gap: gap})
			for _, step := range steps {
				if end > 0 && step.At < end+gap {
					t.Fatalf("seed %d: a step at %v, the one before ended at %v", seed, step.At, end)
				}
				for _, f := range step.Faults {
					end = max(end, step.At+f.After+f.Hold)
				}
			}
			if end > length || len(steps) < int(length/(20*time.Second)) {
				t.Errorf("seed %d: %d steps until %v, in %v", seed, len(steps), end, length)
			}
		}
	}
}

func TestEveryKindOfFaultHappens(t *testing.T) {
	t.Parallel()
	standalone := nemesis.Shape{Domains: []string{"domain-01", "domain-02"}, Standalone: "standalone"}
	for name, c := range map[string]struct {
		shape nemesis.Shape
		has   func(string) bool
	}{
		"processes":  {three(), func(kind string) bool { return !strings.HasPrefix(kind, "standalone-") }},
		"standalone": {standalone, func(kind string) bool { return strings.HasPrefix(kind, "standalone-") }},
	} {
		counts := map[nemesis.Kind]int{}
		for seed := range uint64(5) {
			for _, step := range plan(t, nemesis.Config{Seed: seed, Length: 10 * time.Minute, Shape: c.shape}) {
				for _, f := range step.Faults {
					counts[f.Kind]++
				}
			}
		}
		for _, d := range nemesis.Descriptions() {
			if want := c.has(string(d.Kind)) && !d.Asked; want != (counts[d.Kind] > 0) {
				t.Errorf("%s: %s happens %d times, asked for only: %t", name, d.Kind, counts[d.Kind], d.Asked)
			}
		}
	}
}

func TestOneLongCutOfAllLinksIsInFiveMinutesAndNoneInOne(t *testing.T) {
	t.Parallel()
	for seed := range uint64(30) {
		for length, want := range map[time.Duration]int{50 * time.Second: 0, 280 * time.Second: 1} {
			got := 0
			for _, step := range plan(t, nemesis.Config{Seed: seed, Length: length, Shape: three()}) {
				for _, f := range step.Faults {
					if f.Kind == nemesis.LinkShut {
						got++
					}
				}
			}
			if got < want || got > 2*want {
				t.Errorf("seed %d: %d in %v, want %d", seed, got, length, want)
			}
		}
	}
}

func TestAMinuteHasSeveralZombies(t *testing.T) {
	t.Parallel()
	sum, seeds := 0, 50
	for seed := range uint64(seeds) {
		for _, step := range plan(t, nemesis.Config{Seed: seed, Length: 50 * time.Second, Shape: three()}) {
			for _, f := range step.Faults {
				if f.Kind == nemesis.Zombie {
					sum++
				}
			}
		}
	}
	if sum < 2*seeds {
		t.Errorf("%d in %d minutes", sum, seeds)
	}
}

func TestLinksAloneAreHurtAtFirst(t *testing.T) {
	t.Parallel()
	for seed := range uint64(30) {
		const length = 280 * time.Second
		alone := 0
		for _, step := range plan(t, nemesis.Config{Seed: seed, Length: length, Shape: three()}) {
			for _, f := range step.Faults {
				isLink := strings.HasPrefix(string(f.Kind), "link-")
				if step.At < length/5 && !isLink && f.Kind != nemesis.Zombie {
					t.Errorf("seed %d: %s at %v", seed, f, step.At)
				} else if step.At < length/5 && isLink {
					alone++
				}
			}
		}
		if alone < 2 {
			t.Errorf("seed %d: only %d faults of links at first", seed, alone)
		}
	}
}

func TestNothingIsEmptiedThatIsDown(t *testing.T) {
	t.Parallel()
	for seed := range uint64(30) {
		steps := plan(t, nemesis.Config{Seed: seed, Length: 10 * time.Minute, Shape: three(), Kinds: []nemesis.Kind{nemesis.RedisFlush, nemesis.ServersKill, nemesis.DomainKill}})
		for _, step := range steps {
			var flushed, down []string
			for _, f := range step.Faults {
				if domain, _, _ := strings.Cut(f.Target, "/"); f.Kind == nemesis.RedisFlush {
					flushed = append(flushed, domain)
				} else {
					down = append(down, domain)
				}
			}
			for _, domain := range flushed {
				if slices.Contains(down, domain) {
					t.Fatalf("seed %d: %v", seed, step.Faults)
				}
			}
		}
	}
}

func TestOnlyWhatIsAskedForHappens(t *testing.T) {
	t.Parallel()
	kinds, err := nemesis.Parse("link, connector-kill,range-move")
	want := []nemesis.Kind{
		nemesis.LinkCut, nemesis.LinkPull, nemesis.LinkDeaf, nemesis.LinkDelay, nemesis.LinkShut, nemesis.ConnectorKill, nemesis.RangeMove,
	}
	if err != nil || !slices.Equal(kinds, want) {
		t.Fatalf("got %v, %v, want %v", kinds, err, want)
	}
	seen := map[nemesis.Kind]bool{}
	for _, step := range plan(t, nemesis.Config{Length: 30 * time.Minute, Shape: three(), Kinds: kinds}) {
		for _, f := range step.Faults {
			seen[f.Kind] = true
		}
	}
	for kind := range seen {
		if !slices.Contains(want, kind) {
			t.Errorf("%s was not asked for", kind)
		}
	}
	if len(seen) != len(want) {
		t.Errorf("got %v", seen)
	}
	for _, bad := range []string{"", "link,", "earthquake", "connector-"} {
		if got, err := nemesis.Parse(bad); err == nil {
			t.Errorf("%q is read as %v", bad, got)
		}
	}
}

func TestWhatCannotBePlannedIsAnError(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]nemesis.Config{
		"no time":          {Shape: three()},
		"a negative gap":   {Length: time.Minute, Gap: -1, Shape: three()},
		"nothing to hurt":  {Length: time.Minute},
		"an unknown fault": {Length: time.Minute, Shape: three(), Kinds: []nemesis.Kind{"earthquake"}},
		"none that fits":   {Length: time.Minute, Shape: three(), Kinds: []nemesis.Kind{nemesis.StandaloneKill}},
	} {
		if _, err := nemesis.Plan(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestFailpointsOfAPlanCanBeRead(t *testing.T) {
	t.Parallel()
	points := map[failpoint.Point]bool{}
	for seed := range uint64(40) {
		for _, step := range plan(t, nemesis.Config{Seed: seed, Length: 10 * time.Minute, Shape: three(), Kinds: []nemesis.Kind{nemesis.ConnectorFailpoint, nemesis.ProcessorFailpoint}}) {
			for _, f := range step.Faults {
				list, err := failpoint.Parse(f.Failpoint)
				if err != nil || len(list) != 1 {
					t.Fatalf("%s: %v, %v", f, list, err)
				}
				points[list[0].Point] = true
				if name := string(list[0].Point); strings.HasPrefix(name, "lane-") && f.Kind == nemesis.ConnectorFailpoint {
					t.Errorf("%s: a connector has no lanes", f)
				}
			}
		}
	}
	if len(points) != len(failpoint.Points()) {
		t.Errorf("got only %v", points)
	}
}
