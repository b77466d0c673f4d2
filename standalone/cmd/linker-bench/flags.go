package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/linkerhq/linker/standalone/internal/bench/message"
	"github.com/linkerhq/linker/standalone/internal/bench/target"
	"github.com/linkerhq/linker/standalone/internal/bench/workload"
	"github.com/linkerhq/linker/standalone/internal/torture/system"
)

// options are what the command line says.
type options struct {
	args     []string // the command line, without what is secret
	name     string   // of the workload, or of what consists of several
	set      bool     // it consists of several
	workload workload.Workload
	params   workload.Options

	urls       []string // of a server that runs; none: one is started
	pids       []int    // its processes
	pprofURL   string   // where it shows its profiles
	server     string   // the program to start
	serverArgs []string
	data       string
	rates      rates
	growth     growth
	apart      apart

	baseline bool
	runs     int
	json     string
	pprof    string
	profile  string
}

const maxRuns = 1000

// parse reads the command line of a workload, or of the set.
func parse(name string, args []string, stdout io.Writer) (options, error) {
	o := options{args: append([]string{name}, withoutToken(args)...), name: name, set: name == runSet || name == runRates || name == runGrow, params: workload.Defaults(), apart: apart{connectors: 2, processors: 2}}
	var known bool
	if o.workload, known = workload.Find(name); !known && !o.set {
		return o, fmt.Errorf("workload %q: expected one that there is (--help lists them)", name)
	}
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	if o.workload.Flags != nil {
		o.workload.Flags(flags, &o.params)
	}
	o.serverFlags(flags)
	o.reportFlags(flags)
	what := "Runs the standard set of workloads."
	switch name {
	case runRates:
		what = "Runs open loops at growing rates, until the latency of 99 % is longer than --until."
		o.rates.flags(flags)
	case runGrow:
		what = "Runs the same along each axis: with more connections, stored messages, domains, processes."
		o.growth.flags(flags)
	}
	if !o.set {
		messageFlags(flags, &o.params, o.workload.Without)
		what = o.workload.Summary + "."
	}
	if err := parseFlags(flags, args, stdout, "Usage: linker-bench "+name+" [flags]\n\n"+what); err != nil {
		return o, err
	}
	return o, o.validate()
}

// withoutToken is a command line that may be shown.
func withoutToken(args []string) []string {
	const hidden = "…"
	shown := slices.Clone(args)
	for i, arg := range shown {
		name, _, joined := strings.Cut(arg, "=")
		switch {
		case name != "--token" && name != "-token":
		case joined:
			shown[i] = name + "=" + hidden
		case i+1 < len(shown):
			shown[i+1] = hidden
		}
	}
	return shown
}

func (o *options) serverFlags(flags *flag.FlagSet) {
	flags.Func("url", "`URLs` of a server that runs already, ws://HOST:PORT/ws, separated by commas: connections are spread over them (default: a server is started)", func(text string) error {
		o.urls = strings.Split(text, ",")
		return nil
	})
	flags.Func("pid", "`process ids` of the server that runs already, separated by commas, to measure what it uses", func(text string) error {
		for part := range strings.SplitSeq(text, ",") {
			pid, err := strconv.Atoi(part)
			if err != nil || pid < 1 {
				return errors.New("expected process ids, separated by commas")
			}
			o.pids = append(o.pids, pid)
		}
		return nil
	})
	flags.StringVar(&o.server, "server", "", "`program` to start and measure (default: standalone, beside this program)")
	flags.Func("server-args", "further `arguments` of that program, separated by spaces", func(text string) error {
		o.serverArgs = strings.Fields(text)
		return nil
	})
	flags.StringVar(&o.data, "data", "", "`directory` on a disk, in which each server that is started has a new one for its data (default /var/tmp)")
	flags.BoolVar(&o.apart.is, "apart", false, "runs services as processes of their own, on embedded brokers in one more: those that make build puts beside this program, or beside --server")
	flags.IntVar(&o.apart.connectors, "connectors", o.apart.connectors, "`number` of connectors with --apart")
	flags.IntVar(&o.apart.processors, "processors", o.apart.processors, "`number` of processors with --apart")
	flags.BoolVar(&o.baseline, "baseline", false, "runs the same on a bare relay in turn, and prints the ratios")
	flags.IntVar(&o.runs, "runs", 1, "`number` of runs of each; medians count")
	flags.StringVar(&o.params.App, "app", o.params.App, "`name` of the client app")
	flags.StringVar(&o.params.AppID, "app-id", o.params.AppID, "`id` of the client app")
	flags.StringVar(&o.params.Token, "token", o.params.Token, "`text` that clients log in with")
	flags.Int64Var(&o.params.FirstUser, "first-user", o.params.FirstUser, "`number` of the first client's user")
	spanVar(flags, &o.params.LoginWithin, "login-timeout", "how `long` it may take until all are logged in")
}

func (o *options) reportFlags(flags *flag.FlagSet) {
	flags.StringVar(&o.json, "json", "", "`file` that a line of JSON for each run is added to; - is standard output")
	flags.StringVar(&o.pprof, "pprof", "", "`file` for a profile of the server, taken while it is measured; of several runs the last one")
	flags.StringVar(&o.profile, "profile", string(target.KindCPU), "`kind` of profile: "+kinds())
	flags.StringVar(&o.pprofURL, "pprof-url", "", "`URL`, http://HOST:PORT, where the server shows its profiles (default: that of the server that is started)")
}

// messageFlags adds those of workloads, but for some.
func messageFlags(to *flag.FlagSet, p *workload.Options, without []string) {
	flags := discarded()
	flags.IntVar(&p.Connections, "connections", p.Connections, "`number` of connections, each of a user of its own")
	spanVar(flags, &p.Pause, "pause", "how `long` a closed loop waits before the next message")
	flags.Float64Var(&p.Rate, "rate", p.Rate, "messages a `second`, of all connections together: an open loop")
	spanVar(flags, &p.Duration, "duration", "how `long` is measured")
	spanVar(flags, &p.Warmup, "warmup", "how `long` the same is done before")
	spanVar(flags, &p.Drain, "drain", "how `long` is waited at most for what is under way at the end")
	spanVar(flags, &p.Patience, "patience", "how `long` a closed loop waits for a message before it sends the next one")
	spanVar(flags, &p.Settle, "settle", "how `long` idle connections are left alone before memory is read")
	flags.IntVar(&p.Concurrency, "concurrency", p.Concurrency, "`number` of logins under way at once")
	flags.Func("feature", "how messages travel, `RELIABLE or FAST` (default RELIABLE)", func(text string) error {
		p.Feature = message.Feature(text)
		return nil
	})
	flags.IntVar(&p.Size, "size", p.Size, "`characters` of the content of a message")
	flags.BoolVar(&p.References, "references", false, "gives each message a reference, and waits for its confirmation")
	flags.BoolVar(&p.Confirm, "confirm", p.Confirm, "lets messages be confirmed; =false sends confirmationEnabled:false")
	flags.Func("features", "`features` of the connections: accept, ack, push, separated by commas; an empty list is one (default: none is sent)", func(text string) error {
		p.Features = []string{}
		if text != "" {
			p.Features = strings.Split(text, ",")
		}
		return nil
	})
	flags.VisitAll(func(f *flag.Flag) {
		if !slices.Contains(without, f.Name) {
			to.Var(f.Value, f.Name, f.Usage)
		}
	})
}

func spanVar(flags *flag.FlagSet, s *workload.Span, name, usage string) {
	flags.DurationVar((*time.Duration)(s), name, time.Duration(*s), usage)
}

// kinds lists the kinds of profiles.
func kinds() string {
	var list []string
	for _, k := range target.Kinds() {
		list = append(list, string(k))
	}
	return strings.Join(list, ", ")
}

// validate names every flag that cannot be used, or not with another one.
func (o options) validate() error {
	mistakes := []error{o.params.Check()}
	expect := func(ok bool, format string, args ...any) {
		if !ok {
			mistakes = append(mistakes, fmt.Errorf(format, args...))
		}
	}
	for _, url := range o.urls {
		mistakes = append(mistakes, workload.CheckURL(url))
	}
	expect(o.runs >= 1 && o.runs <= maxRuns, "--runs %d: expected 1 to %d", o.runs, maxRuns)
	expect(len(o.urls) == 0 || o.server == "" && o.serverArgs == nil, "--url and --server, --server-args do not go together: the server runs already")
	expect(len(o.urls) == 0 || !o.apart.is, "--url and --apart do not go together: nothing is started")
	expect(o.apart.connectors >= 1 && o.apart.connectors <= system.MaxEach, "--connectors %d: expected 1 to %d", o.apart.connectors, system.MaxEach)
	expect(o.apart.processors >= 1 && o.apart.processors <= system.MaxEach, "--processors %d: expected 1 to %d", o.apart.processors, system.MaxEach)
	expect(!o.startsNetwork() || o.serverArgs == nil, "--server-args: expected none with --apart, nor with %s", o.workload.Name)
	expect(!o.apart.is || o.workload.Domains == nil || o.workload.Domains(o.params) == 1, "--apart with %s: expected one domain", o.workload.Name)
	expect(!o.baseline || o.workload.Domains == nil, "--baseline: expected a workload that a relay can do, and %s is none", o.workload.Name)
	expect(len(o.pids) == 0 || len(o.urls) > 0, "--pid without --url: expected both, for a server that runs already")
	expect(slices.Contains(target.Kinds(), target.Kind(o.profile)), "--profile %q: expected one of %s", o.profile, kinds())
	expect(o.pprof == "" || len(o.urls) == 0 || o.pprofURL != "", "--pprof with --url: expected --pprof-url as well")
	switch o.name {
	case runRates:
		mistakes = append(mistakes, o.rates.check())
	case runGrow:
		mistakes = append(mistakes, o.growth.check())
		expect(len(o.urls) == 0 && !o.baseline && !o.apart.is, "--url, --baseline and --apart: expected none of them with %s", runGrow)
	}
	if !o.set && o.workload.Validate != nil {
		mistakes = append(mistakes, o.workload.Validate(o.params))
	}
	return errors.Join(mistakes...)
}

// startsNetwork says whether what is started is a server of which is known what
// processes it consists of.
func (o options) startsNetwork() bool {
	return len(o.urls) == 0 && (o.apart.is || o.workload.Domains != nil)
}
