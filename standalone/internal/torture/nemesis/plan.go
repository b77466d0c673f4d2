package nemesis

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/linkerhq/linker/pkg/failpoint"
)

const (
	standardGap = 3 * time.Second
	// firstAt is when the first fault happens.
	firstAt = time.Second
	// mixture is how many of a hundred faults get another one that overlaps them.
	mixture = 40

	// frozenFor is how long a process has that stops itself at a failpoint: it must come
	// there, and then be frozen for longer than it takes until others have its work.
	frozenFor = 20 * time.Second

	// linksPart is the part of a plan, from its begin, in which nothing but links is
	// hurt: as long as nothing else has failed, nothing explains a copy.
	linksPart = 5

	streamOfPlans = 0x6e656d65736973
)

// Plan returns what happens when. It is the same for the same configuration.
//
// Kinds are drawn from a deck without being put back, so that all of them happen
// before one happens much more often than it should.
func Plan(cfg Config) ([]Step, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.Gap == 0 {
		cfg.Gap = standardGap
	}
	p := &planner{cfg: cfg, random: rand.New(rand.NewPCG(cfg.Seed, streamOfPlans)), last: map[Kind]time.Duration{}}
	for _, t := range kinds() {
		if p.wanted(t) && p.possible(t) {
			p.traits = append(p.traits, t)
		}
	}
	if len(p.traits) == 0 {
		return nil, fmt.Errorf("none of the faults %v can happen to this system", cfg.Kinds)
	}
	var steps []Step
	for at := min(firstAt, cfg.Gap); ; {
		step, ok := p.step(at)
		if !ok {
			return steps, nil
		}
		steps = append(steps, step)
		at += step.length() + p.cfg.Gap + time.Duration(p.random.Int64N(int64(p.cfg.Gap)+1)).Round(time.Millisecond)
	}
}

// planner draws faults.
type planner struct {
	cfg    Config
	random *rand.Rand
	traits []trait
	deck   []trait
	last   map[Kind]time.Duration // when a kind that is rare has happened last
}

func (p *planner) wanted(t trait) bool {
	if p.cfg.Kinds == nil {
		return t.cards > 0 && p.cfg.Length >= t.rarely/2
	}
	return slices.Contains(p.cfg.Kinds, t.kind)
}

// possible says whether there is anything that the kind can hit.
func (p *planner) possible(t trait) bool {
	s := p.cfg.Shape
	switch t.site {
	case siteConnector:
		return len(s.Connectors) > 0
	case siteProcessor:
		return len(s.Processors) > 0
	case siteMetaserver:
		return s.Metaserver != ""
	case siteServers:
		return len(s.Servers) > 0
	case siteRedis:
		return s.Redis
	case sitePlane:
		return s.Planes
	case siteDomain, siteNetwork:
		return s.Metaserver != ""
	case siteLink, siteLinksOfDomain:
		return len(s.Links) > 0
	case siteRange:
		return len(s.Domains) > 1
	case siteStandalone:
		return s.Standalone != ""
	default:
		return false
	}
}

// step draws a step that ends in time; it says whether there is one.
func (p *planner) step(at time.Duration) (Step, bool) {
	inTime := func(f Fault) bool { return at+f.Hold <= p.cfg.Length && p.inProportion(f) }
	first, ok := p.draw(at, func(f Fault) bool { return inTime(f) && p.inTurn(at, f) })
	if !ok {
		if first, ok = p.draw(at, inTime); !ok {
			return Step{}, false
		}
	}
	step := Step{At: at, Faults: []Fault{first}}
	p.besides(&step)
	if p.random.IntN(100) >= mixture {
		return step, true
	}
	after := time.Duration(p.random.Int64N(int64(first.Hold)/2 + 1)).Round(time.Millisecond)
	second, ok := p.draw(at, func(f Fault) bool {
		return at+after+f.Hold <= p.cfg.Length && p.inProportion(f) && p.inTurn(at, f) && !overlap(first, f)
	})
	if ok {
		second.After = after
		step.Faults = append(step.Faults, second)
	}
	return step, true
}

// besides adds to a step what disturbs nothing, if there is time for it.
func (p *planner) besides(step *Step) {
	for _, t := range p.traits {
		if p.random.IntN(100) >= t.beside || step.Faults[0].Kind == t.kind {
			continue
		}
		if f := p.fault(t); step.At+f.Hold <= p.cfg.Length {
			step.Faults = append(step.Faults, f)
		}
	}
}

// inProportion keeps one fault from being most of a short plan that nobody has chosen
// the faults of.
func (p *planner) inProportion(f Fault) bool { return p.cfg.Kinds != nil || f.Hold <= p.cfg.Length/3 }

// inTurn keeps links apart from what else can fail, in a plan that nobody has chosen
// the faults of.
func (p *planner) inTurn(at time.Duration, f Fault) bool {
	return p.cfg.Kinds != nil || len(p.cfg.Shape.Links) == 0 || at >= p.cfg.Length/linksPart || len(f.links) > 0
}

// draw takes the first card out of the deck that makes a fault which fits. The others
// stay where they are.
func (p *planner) draw(at time.Duration, fits func(Fault) bool) (Fault, bool) {
	for range 2 {
		for i, t := range p.deck {
			if last, is := p.last[t.kind]; is && t.rarely > 0 && p.cfg.Kinds == nil && at-last < t.rarely {
				continue
			}
			f := p.fault(t)
			if !fits(f) {
				continue
			}
			p.deck = slices.Delete(p.deck, i, i+1)
			p.last[t.kind] = at
			return f, true
		}
		p.shuffle()
	}
	return Fault{}, false
}

// shuffle makes a new deck. What is rare lies in its first third, so that it happens
// once even in a run that never comes to the end of the deck.
func (p *planner) shuffle() {
	var deck, rare []trait
	for _, t := range p.traits {
		for range max(t.cards, 1) {
			if t.rarely > 0 && p.cfg.Kinds == nil {
				rare = append(rare, t)
			} else {
				deck = append(deck, t)
			}
		}
	}
	p.random.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
	for _, t := range rare {
		deck = slices.Insert(deck, p.random.IntN(len(deck)/3+1), t)
	}
	p.deck = deck
}

// fault chooses what is hit, and for how long.
func (p *planner) fault(t trait) Fault {
	s := p.cfg.Shape
	f := Fault{Kind: t.kind, Hold: pick(p, t.holds)}
	one := func(place Place) {
		f.Target, f.processes = place.Name, []string{place.Name}
		if place.Domain != "" {
			f.domains = []string{place.Domain}
		}
		if place.URL != "" {
			f.domains, f.urls = nil, []string{place.URL}
		}
	}
	switch t.site {
	case siteConnector:
		one(pick(p, s.Connectors))
	case siteProcessor:
		one(pick(p, s.Processors))
	case siteMetaserver:
		one(Place{Name: s.Metaserver})
	case siteServers:
		one(pick(p, s.Servers))
	case siteStandalone:
		one(Place{Name: s.Standalone})
	case siteRedis, sitePlane:
		f.Target = pick(p, s.Domains)
		f.domains = []string{f.Target}
		for _, place := range s.Servers {
			if place.Domain == f.Target || place.Domain == "" {
				f.needs = append(f.needs, place.Name)
			}
		}
	case siteDomain:
		f.Target = pick(p, s.Domains)
		f.domains, f.processes = []string{f.Target}, s.processes(f.Target)
	case siteNetwork:
		f.Target, f.processes = "everything", s.processes("")
	case siteLink:
		l := pick(p, s.Links)
		if p.random.IntN(2) == 0 {
			l[0], l[1] = l[1], l[0]
		}
		f.Target, f.links, f.domains = l[0]+"–"+l[1], [][2]string{l}, []string{l[0], l[1]}
	case siteLinksOfDomain:
		f.Target = pick(p, s.Domains)
		f.domains = []string{f.Target}
		for _, l := range s.Links {
			if l[0] == f.Target || l[1] == f.Target {
				f.links = append(f.links, l)
			}
		}
	case siteRange:
		n := p.random.IntN(len(s.Domains))
		m := (n + 1 + p.random.IntN(len(s.Domains)-1)) % len(s.Domains)
		f.move = [2]string{s.Domains[n], s.Domains[m]}
		f.Target = f.move[0] + "→" + f.move[1]
	}
	if t.act == actFailpoint {
		failure := p.failure(t.site)
		f.Failpoint = failure.String()
		if failure.Action == failpoint.Stop {
			f.Hold = frozenFor
		}
	}
	return f
}

func pick[T any](p *planner, list []T) T { return list[p.random.IntN(len(list))] }

// processes are those of a domain, "" of all and of nobody.
func (s Shape) processes(domain string) []string {
	var names []string
	for _, list := range [][]Place{s.Servers, s.Processors, s.Connectors} {
		for _, p := range list {
			if p.Domain != "" && (domain == "" || p.Domain == domain) {
				names = append(names, p.Name)
			}
		}
	}
	if domain == "" {
		names = append(names, s.Metaserver)
	}
	return names
}

// failure chooses a place where custody changes hands, in what the site runs, and
// what happens there.
func (p *planner) failure(at site) failpoint.Failure {
	var points []failpoint.Point
	for _, point := range failpoint.Points() {
		if hasPoint(at, point) {
			points = append(points, point)
		}
	}
	f := failpoint.Failure{Point: pick(p, points), Action: failpoint.Exit, At: pick(p, []uint64{1, 3, 10, 40, 150})}
	switch n := p.random.IntN(10); {
	case n < 4:
		f.Action = failpoint.Stop
	case n < 6 && takesErrors(f.Point):
		f.Action = failpoint.Err
	}
	if f.Action == failpoint.Stop || seldom(f.Point) {
		f.At = pick(p, []uint64{1, 2, 4, 10})
	}
	return f
}

// hasPoint says whether what runs at a site passes a place.
func hasPoint(at site, point failpoint.Point) bool {
	name := string(point)
	switch {
	case at == siteStandalone, strings.HasPrefix(name, "producer-"):
		return true
	case strings.HasPrefix(name, "lane-"), point == failpoint.LinkBeforeSettle:
		return at == siteProcessor
	default:
		return at == siteConnector
	}
}

// seldom says whether a place is passed now and then only, and not for each message.
func seldom(point failpoint.Point) bool {
	return slices.Contains([]failpoint.Point{
		failpoint.ConnectorAfterLogin, failpoint.LaneBeforeEpoch, failpoint.LaneAfterStore, failpoint.LaneAfterRead,
		failpoint.LaneBeforeDelete, failpoint.LaneAfterDelete,
	}, point)
}

// takesErrors says whether a place can report an error.
func takesErrors(point failpoint.Point) bool {
	return slices.Contains([]failpoint.Point{
		failpoint.ProducerAfterAppend, failpoint.LaneBeforeCommit, failpoint.LaneAfterStore, failpoint.LaneAfterRead,
		failpoint.LaneBeforeDelete, failpoint.LaneAfterDelete,
	}, point)
}

// overlap says whether two faults would get in each other's way.
func overlap(a, b Fault) bool {
	for _, name := range a.processes {
		if slices.Contains(b.processes, name) || slices.Contains(b.needs, name) {
			return true
		}
	}
	for _, name := range a.needs {
		if slices.Contains(b.processes, name) {
			return true
		}
	}
	for _, l := range a.links {
		if slices.ContainsFunc(b.links, func(o [2]string) bool { return o == l || o == [2]string{l[1], l[0]} }) {
			return true
		}
	}
	return a.move != [2]string{} && b.move != [2]string{}
}
