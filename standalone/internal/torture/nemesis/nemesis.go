// Package nemesis hurts a system: it kills, freezes and restarts its processes, cuts
// the links between its domains, and takes away what they stand on. What it does and
// when follows from a seed: Plan is pure, and Run carries it out and writes it into
// the history.
package nemesis

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Kind is what a fault does. The list is closed.
type Kind string

// The kinds of faults.
const (
	ConnectorKill      Kind = "connector-kill"
	ConnectorStop      Kind = "connector-stop"
	ConnectorRestart   Kind = "connector-restart"
	ConnectorFailpoint Kind = "connector-failpoint"

	ProcessorKill      Kind = "processor-kill"
	ProcessorStop      Kind = "processor-stop"
	ProcessorRestart   Kind = "processor-restart"
	ProcessorFailpoint Kind = "processor-failpoint"

	MetaserverKill    Kind = "metaserver-kill"
	MetaserverStop    Kind = "metaserver-stop"
	MetaserverRestart Kind = "metaserver-restart"

	ServersKill    Kind = "servers-kill"
	ServersStop    Kind = "servers-stop"
	ServersRestart Kind = "servers-restart"
	ServersHang    Kind = "servers-hang"
	RedisFlush     Kind = "redis-flush"

	Zombie Kind = "zombie"

	DomainKill  Kind = "domain-kill"
	NetworkKill Kind = "network-kill"
	NetworkStop Kind = "network-stop"

	LinkCut   Kind = "link-cut"
	LinkPull  Kind = "link-pull"
	LinkDeaf  Kind = "link-deaf"
	LinkDelay Kind = "link-delay"
	LinkShut  Kind = "link-shut"

	RangeMove Kind = "range-move"

	StandaloneKill      Kind = "standalone-kill"
	StandaloneStop      Kind = "standalone-stop"
	StandaloneRestart   Kind = "standalone-restart"
	StandaloneFailpoint Kind = "standalone-failpoint"
)

// Description says of a kind what it does, for people.
type Description struct {
	Kind  Kind
	What  string
	Asked bool // happens only where it is asked for by name
}

// Descriptions lists all kinds.
func Descriptions() []Description {
	list := make([]Description, 0, len(kinds()))
	for _, k := range kinds() {
		list = append(list, Description{k.kind, k.what, k.cards == 0})
	}
	return list
}

// Parse reads a list of kinds, separated by commas. A name that several kinds begin
// with, such as link, stands for all of them; the ones that have to be asked for only
// by their whole name.
func Parse(text string) ([]Kind, error) {
	var list []Kind
	for name := range strings.SplitSeq(text, ",") {
		name = strings.TrimSpace(name)
		found := false
		for _, d := range Descriptions() {
			if string(d.Kind) == name || !d.Asked && strings.HasPrefix(string(d.Kind), name+"-") {
				found = true
				if !slices.Contains(list, d.Kind) {
					list = append(list, d.Kind)
				}
			}
		}
		if !found {
			return nil, fmt.Errorf("there is no fault %q: --list-faults names them", name)
		}
	}
	return list, nil
}

// action is how a fault is carried out.
type action int

const (
	actKill action = iota // and start again at the end
	actStop               // and continue at the end
	actHang               // and kill, and start again at the end
	actRestart
	actFailpoint
	actLink
	actFlush
	actMove
	actHaunt
)

// site is what a fault of a kind can hit.
type site int

const (
	siteConnector site = iota
	siteProcessor
	siteMetaserver
	siteServers // of a domain, or one real server
	siteRedis
	sitePlane  // the live plane of a domain
	siteDomain // all processes of a domain
	siteNetwork
	siteLink
	siteLinksOfDomain
	siteRange
	siteStandalone
)

// trait is what is known of a kind.
type trait struct {
	kind   Kind
	what   string
	act    action
	site   site
	cards  int             // in the deck; 0: only where it is asked for
	holds  []time.Duration // one of these is how long it lasts
	rarely time.Duration   // happens at most once in that long, and not in plans of less than half of it; 0: any number of times
	beside int             // in so many of a hundred steps it happens beside what else does: it disturbs nothing
}

func seconds(list ...float64) []time.Duration {
	var all []time.Duration
	for _, s := range list {
		all = append(all, time.Duration(s*float64(time.Second)))
	}
	return all
}

// hold is how long the network waits for a message that others have overtaken.
const hold = 30 * time.Second

func kinds() []trait {
	// Below and above the leases of connectors (5 s, and 2 s until they count as dead)
	// and the sessions of processors (6 s), and far above.
	pauses := seconds(3, 8, 20)
	return []trait{
		{kind: ConnectorKill, what: "SIGKILL to a connector; it is started again after 1 to 12 s", act: actKill, site: siteConnector, cards: 4, holds: seconds(1, 3, 12)},
		{kind: ConnectorStop, what: "SIGSTOP to a connector for 3, 8 or 20 s", act: actStop, site: siteConnector, cards: 3, holds: pauses},
		{kind: ConnectorRestart, what: "SIGTERM to a connector, which drains; it is started again when it has ended", act: actRestart, site: siteConnector, cards: 2, holds: seconds(0.1)},
		{kind: ConnectorFailpoint, what: "a connector is started so that it dies, stops or gets an error at a place where custody changes hands", act: actFailpoint, site: siteConnector, cards: 4, holds: seconds(8)},

		{kind: ProcessorKill, what: "SIGKILL to a processor; it is started again after 0.5 to 9 s", act: actKill, site: siteProcessor, cards: 4, holds: seconds(0.5, 3, 9)},
		{kind: ProcessorStop, what: "SIGSTOP to a processor for 3, 8 or 20 s", act: actStop, site: siteProcessor, cards: 3, holds: pauses},
		{kind: ProcessorRestart, what: "SIGTERM to a processor, which gives up its lanes; it is started again when it has ended", act: actRestart, site: siteProcessor, cards: 2, holds: seconds(0.1)},
		{kind: ProcessorFailpoint, what: "a processor is started so that it dies, stops or gets an error at a place where custody changes hands", act: actFailpoint, site: siteProcessor, cards: 6, holds: seconds(8)},

		{kind: MetaserverKill, what: "SIGKILL to the meta server; it is started again after 1 to 8 s", act: actKill, site: siteMetaserver, cards: 1, holds: seconds(1, 8)},
		{kind: MetaserverStop, what: "SIGSTOP to the meta server for 8 s", act: actStop, site: siteMetaserver, cards: 1, holds: seconds(8)},
		{kind: MetaserverRestart, what: "SIGTERM to the meta server; it is started again when it has ended", act: actRestart, site: siteMetaserver, cards: 0, holds: seconds(0.1)},

		{kind: ServersKill, what: "SIGKILL to the brokers of a domain, all three at once; they are started again after 0.5 to 8 s", act: actKill, site: siteServers, cards: 2, holds: seconds(0.5, 3, 8)},
		{kind: ServersStop, what: "SIGSTOP to the brokers of a domain for 3 or 8 s", act: actStop, site: siteServers, cards: 2, holds: seconds(3, 8)},
		{kind: ServersRestart, what: "SIGTERM to the brokers of a domain; they are started again when they have ended", act: actRestart, site: siteServers, cards: 1, holds: seconds(0.5)},
		{kind: ServersHang, what: "SIGSTOP to the brokers of a domain, SIGKILL 2 s later, as when a machine hangs and is reset; they are started again 1 s after that", act: actHang, site: siteServers, cards: 2, holds: seconds(3)},
		{kind: RedisFlush, what: "the Redis of a domain is emptied", act: actFlush, site: siteRedis, cards: 2, holds: seconds(0)},

		{kind: Zombie, what: "the torture itself plays a processor of a domain that has slept through the end of its ownership: for 2 s it delivers what nobody has sent", act: actHaunt, site: sitePlane, cards: 1, holds: seconds(2), beside: 60},

		{kind: DomainKill, what: "SIGKILL to everything of a domain, its brokers too; all is started again after 1 to 8 s", act: actKill, site: siteDomain, cards: 1, holds: seconds(1, 8)},
		{kind: NetworkKill, what: "SIGKILL to everything; all is started again after 1 s", act: actKill, site: siteNetwork, cards: 1, holds: seconds(1), rarely: 100 * time.Second},
		{kind: NetworkStop, what: "SIGSTOP to everything for 8 s, as when a machine sleeps", act: actStop, site: siteNetwork, cards: 1, holds: seconds(8), rarely: 200 * time.Second},

		{kind: LinkCut, what: "a link between two domains is cut for 2 to 10 s, as both ends can see", act: actLink, site: siteLink, cards: 2, holds: seconds(2, 10)},
		{kind: LinkPull, what: "a link swallows everything for 5 to 20 s, and nobody is told", act: actLink, site: siteLink, cards: 2, holds: seconds(5, 20)},
		{kind: LinkDeaf, what: "a link swallows what goes one way for 5 to 20 s", act: actLink, site: siteLink, cards: 2, holds: seconds(5, 20)},
		{kind: LinkDelay, what: "a link delays everything by 200 ms for 10 s", act: actLink, site: siteLink, cards: 1, holds: seconds(10)},
		{kind: LinkShut, what: "all links of a domain are cut for 38 s, longer than messages are held for those that they have overtaken", act: actLink, site: siteLinksOfDomain, cards: 1, holds: []time.Duration{hold + 8*time.Second}, rarely: 200 * time.Second},

		{kind: RangeMove, what: "the network's file is edited while everything runs: users of a domain are at home in another one for 20 s", act: actMove, site: siteRange, holds: seconds(20)},

		{kind: StandaloneKill, what: "SIGKILL to the one process that is everything; it is started again after 0.5 to 8 s", act: actKill, site: siteStandalone, cards: 3, holds: seconds(0.5, 3, 8)},
		{kind: StandaloneStop, what: "SIGSTOP to it for 3, 8 or 20 s", act: actStop, site: siteStandalone, cards: 2, holds: pauses},
		{kind: StandaloneRestart, what: "SIGTERM to it, which drains; it is started again when it has ended", act: actRestart, site: siteStandalone, cards: 2, holds: seconds(0.1)},
		{kind: StandaloneFailpoint, what: "it is started so that it dies or stops at a place where custody changes hands", act: actFailpoint, site: siteStandalone, cards: 3, holds: seconds(8)},
	}
}

func traitOf(kind Kind) (trait, error) {
	for _, t := range kinds() {
		if t.kind == kind {
			return t, nil
		}
	}
	return trait{}, fmt.Errorf("there is no fault %q", kind)
}

// Shape is what there is to hurt.
type Shape struct {
	Domains    []string
	Connectors []Place
	Processors []Place
	Servers    []Place // the embedded ones of a domain, or single real ones, which belong to no domain
	Metaserver string  // "": none
	Standalone string  // the process that is everything; "": none
	Links      [][2]string
	Redis      bool // those of the domains can be reached
	Planes     bool // the live planes of the domains can be reached
}

// Place is a process that can be hurt.
type Place struct {
	Name   string
	Domain string // "": of the whole network
	URL    string // of a connector's websocket
}

// Fault is one thing that is done to the system.
type Fault struct {
	Kind      Kind
	Target    string        // a process, a domain, or a link as DOMAIN–DOMAIN
	Hold      time.Duration // how long it lasts; a restart takes the time that it takes
	Failpoint string        // as LINKER_FAILPOINTS takes it
	After     time.Duration // since the begin of its step

	processes []string // that are hurt
	needs     []string // processes without which it cannot be done
	links     [][2]string
	move      [2]string // from which domain to which
	domains   []string  // whose users are concerned; none: everybody
	urls      []string  // whose sockets are concerned
}

// String is the fault in a few words.
func (f Fault) String() string {
	text := fmt.Sprintf("%s %s", f.Kind, f.Target)
	if f.Hold > 0 {
		text += fmt.Sprintf(" for %v", f.Hold)
	}
	if f.Failpoint != "" {
		text += " at " + f.Failpoint
	}
	return text
}

// Step is one fault, or several that overlap. Between steps the system has time to
// recover.
type Step struct {
	At     time.Duration // since the begin of the plan; not earlier
	Faults []Fault
}

// length is how long the step takes if everything goes well.
func (s Step) length() time.Duration {
	var last time.Duration
	for _, f := range s.Faults {
		last = max(last, f.After+f.Hold)
	}
	return last
}

// Config says what a plan may hold.
type Config struct {
	Seed   uint64
	Length time.Duration // of the plan; the last fault ends before
	Kinds  []Kind        // nil: all that do not have to be asked for
	Shape  Shape
	// Gap is the least time between the end of a step and the next one; 0: 3 s. As much
	// again is added at random.
	Gap time.Duration
}

// validate names every setting that cannot be used.
func (c Config) validate() error {
	var mistakes []error
	if c.Length <= 0 {
		mistakes = append(mistakes, fmt.Errorf("faults for %v: expected more than 0", c.Length))
	}
	if c.Gap < 0 {
		mistakes = append(mistakes, fmt.Errorf("a gap of %v: expected at least 0", c.Gap))
	}
	for _, kind := range c.Kinds {
		if _, err := traitOf(kind); err != nil {
			mistakes = append(mistakes, err)
		}
	}
	return errors.Join(mistakes...)
}
