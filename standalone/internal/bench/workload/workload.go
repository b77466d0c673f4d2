// Package workload is what clients do to a server while it is measured. Each workload
// is a file here and a line in All.
package workload

import (
	"context"
	"flag"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/linkerhq/linker/standalone/internal/bench/figures"
)

// Workload is one way to use a server.
type Workload struct {
	Name    string
	Summary string
	// Flags adds the flags that only this workload has, and may change the defaults of
	// others; nil: none.
	Flags func(flags *flag.FlagSet, o *Options)
	// Without are the names of common flags that mean nothing to it.
	Without []string
	// Validate says what of the options this workload cannot use; nil: anything goes.
	Validate func(o Options) error
	// Domains is how many domains the server has to have that it runs on, linked in a
	// line; it is one then that tells its metrics, and can be killed. nil: any server will
	// do, a relay too.
	Domains func(o Options) int
	// Kills says that it kills processes of the server, so that what these use says nothing.
	Kills bool
	// Run runs it once.
	Run func(ctx context.Context, e Env) (figures.Run, error)
}

// All are the workloads there are.
func All() []Workload {
	return []Workload{closed(), open(), pairs(), group(), idle(), storm(), fetch(), store(), hops(), recovery()}
}

// Find returns the workload of that name.
func Find(name string) (Workload, bool) {
	for _, w := range All() {
		if w.Name == name {
			return w, true
		}
	}
	return Workload{}, false
}

// Observer is told when something begins and ends that is to be measured from
// outside. It is called by the thread of the swarm and has to be quick but in
// Connected.
type Observer interface {
	// Connected is called when all are logged in and nothing has been sent.
	Connected()
	// Begin and End enclose what is measured.
	Begin()
	End()
}

// Env is what a workload works with.
type Env struct {
	Options  Options
	URLs     []string // of the server's websockets, ws://HOST:PORT/PATH; at least one
	Observer Observer
	Progress *Progress
	Server   Server // nil: nothing more is known of it

	// place says where the n-th client connects, as an index in URLs, and the number of its
	// user; nil: clients are spread over all URLs, and have numbers from FirstUser on.
	place    func(n int) (url int, user int64)
	comeBack time.Duration // see swarm.Config
}

// Server is what was started for a workload that needs more of it than to connect.
// Its methods may be called by any goroutine.
type Server interface {
	// Metric sums up a metric over all processes and labels.
	Metric(ctx context.Context, name string) (float64, error)
	// Crash kills a process, of that kind if the server consists of several. If nothing
	// else does its work, it is started again at once. It returns when the process has
	// ended. What it returns starts the process again, unless that was done, and
	// returns when all of the server serves.
	Crash(ctx context.Context, victim Victim) (back func() error, err error)
	// Home says which numbers users have who are at home in a domain, from 0: from first
	// to before end.
	Home(domain int) (first, end int64)
}

// Victim is a kind of process that can be killed.
type Victim string

// The victims, where the server consists of several processes.
const (
	VictimConnector Victim = "connector"
	VictimProcessor Victim = "processor"
)

// user is the id of the n-th client.
func (e Env) user(n int) string {
	if e.place == nil {
		return e.Options.user(n)
	}
	_, number := e.place(n)
	return e.Options.App + "-" + strconv.FormatInt(number, 10)
}

// Progress is how far a run has come. It is written by the run, and may be read by any
// goroutine.
type Progress struct {
	Clients, Entered, Sent, Delivered atomic.Int64
	phase                             atomic.Int32
}

// Phase is a part of a run.
type Phase int32

// The phases, in their order.
const (
	Connecting Phase = iota
	Settling
	Warming
	Measuring
	Draining
)

// String says what is done in the phase.
func (p Phase) String() string {
	switch p {
	case Connecting:
		return "connecting"
	case Settling:
		return "settling"
	case Warming:
		return "warming up"
	case Measuring:
		return "measuring"
	case Draining:
		return "draining"
	default:
		return "phase " + strconv.Itoa(int(p))
	}
}

// Phase is the one that the run is in.
func (p *Progress) Phase() Phase { return Phase(p.phase.Load()) }

func (p *Progress) enter(phase Phase) { p.phase.Store(int32(phase)) }
