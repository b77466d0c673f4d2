// Command linker-torture starts a network of domains as processes of their own, lets
// users of three kinds send messages through it, hurts it, and then checks from the
// history of the run whether every promise was kept. See docs/torture.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/linkerhq/linker/pkg/run"
	"github.com/linkerhq/linker/standalone/internal/progress"
	"github.com/linkerhq/linker/standalone/internal/torture/bugs"
	"github.com/linkerhq/linker/standalone/internal/torture/nemesis"
	"github.com/linkerhq/linker/standalone/internal/torture/system"
)

// version is set where it is built: -ldflags "-X main.version=v1.2.3".
var version string

// The exit codes.
const (
	exitKept     = 0 // every promise was kept
	exitViolated = 1 // one was not
	exitFailed   = 2 // nothing can be said: the torture itself did not work
)

// progressSeldom is how often progress is a line in a file.
const progressSeldom = 15 * time.Second

func main() {
	process := run.Process{Args: os.Args[1:], Environ: os.Environ(), Stdout: os.Stdout, Stderr: os.Stderr}
	os.Exit(start(process, progress.IsTerminal(os.Stderr)))
}

// errViolated says that a promise was not kept. The table has said which.
var errViolated = errors.New("promises were not kept")

// start runs the program and returns its exit code.
func start(process run.Process, terminal bool) int {
	if len(process.Args) > 0 && process.Args[0] == system.ServersCommand {
		return run.Main("linker-torture "+system.ServersCommand, process, func(ctx context.Context, p run.Process) error {
			return system.RunServers(ctx, p.Args[1:], p.Stderr)
		})
	}
	violated := false
	code := run.Main("linker-torture", process, func(ctx context.Context, p run.Process) error {
		err := torture(ctx, p, terminal)
		violated = errors.Is(err, errViolated)
		return err
	})
	switch {
	case code == exitKept:
		return exitKept
	case violated:
		return exitViolated
	default:
		return exitFailed
	}
}

// system kinds.
const (
	ofProcesses  = "processes"
	ofStandalone = "standalone"
)

// options are what the command line says.
type options struct {
	help, version, listFaults, listBugs, plan bool
	check                                     string // a history, in place of a run

	duration time.Duration
	seed     uint64
	domains  int
	system   string
	servers  system.Servers
	control  string
	bin      string
	bug      string
	race     bool

	quiet  bool // no faults
	faults []nemesis.Kind
	gap    time.Duration

	senders, receivers, maxSize int
	rate, fastRate              float64

	dir  string
	keep bool
	json bool
}

const (
	leastDuration    = 5 * time.Second
	standardDuration = 5 * time.Minute
)

// parse reads the command line.
func parse(args []string, stdout io.Writer) (options, error) {
	o := options{seed: rand.Uint64()}
	flags := flag.NewFlagSet("linker-torture", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.DurationVar(&o.duration, "duration", standardDuration, "how `long` messages are sent; what follows takes up to two minutes more")
	flags.Func("seed", "`number` that all that is random follows from (default: another one each time)", func(text string) error {
		var err error
		o.seed, err = strconv.ParseUint(text, 10, 64)
		return err
	})
	flags.IntVar(&o.domains, "domains", 3, fmt.Sprintf("`number` of domains, 1 to %d, that are linked in a ring", system.MaxDomains))
	flags.StringVar(&o.system, "system", ofProcesses, "`kind` of system: processes, one for each service and for the brokers of each domain; or standalone, everything in one process")
	flags.StringVar(&o.servers.Kafka, "kafka", "", "`HOST:PORT` of a real Kafka; it goes with the next three, and takes the place of embedded brokers")
	flags.StringVar(&o.servers.NATS, "nats", "", "`URL` of a real NATS")
	flags.StringVar(&o.servers.Redis, "redis", "", "`URL` of a real Redis")
	flags.StringVar(&o.servers.MongoDB, "mongodb", "", "`URL` of a real MongoDB, or of what speaks its protocol")
	flags.StringVar(&o.control, "control", "", "`script` that kills, stops, starts, pauses and resumes the real servers, such as deploy/native/services; without it nothing is done to them")
	flags.StringVar(&o.bin, "bin", "", "`directory` of the programs, built with the tag failpoints (default: they are built from the checkout that this is run in)")
	flags.StringVar(&o.bug, "bug", "", "`name` of a bug that is built into the programs, to show that it is found; --list-bugs names them")
	flags.BoolVar(&o.race, "race", false, "builds the programs with the race detector")
	flags.BoolVar(&o.quiet, "quiet", false, "hurts nothing")
	flags.Func("faults", "comma-separated `list` of faults, such as connector-kill, or of what they begin with, such as link (default: all that need not be asked for); --list-faults names them", func(text string) error {
		var err error
		o.faults, err = nemesis.Parse(text)
		return err
	})
	flags.DurationVar(&o.gap, "gap", 3*time.Second, "least `time` between the end of a fault and the next one")
	flags.IntVar(&o.senders, "senders", 0, "`number` of users who send (default 12)")
	flags.IntVar(&o.receivers, "receivers", 0, "`number` of users who receive (default 24)")
	flags.IntVar(&o.maxSize, "max-size", 0, "largest content in `bytes` (default 60000)")
	flags.Float64Var(&o.rate, "rate", 0, "RELIABLE messages a `second`, of all senders together (default 200)")
	flags.Float64Var(&o.fastRate, "fast-rate", 0, "FAST messages a `second`; below 0: none (default 50)")
	flags.StringVar(&o.dir, "dir", "", "`directory` of the run; it is made, and stays (default: one that is removed, unless a promise was not kept)")
	flags.BoolVar(&o.keep, "keep", false, "keeps the directory of the run in any case")
	flags.BoolVar(&o.json, "json", false, "prints the report as JSON")
	flags.StringVar(&o.check, "check", "", "history `file` of an earlier run to check again, in place of a run")
	flags.BoolVar(&o.plan, "plan", false, "prints what would be done when, in place of a run")
	flags.BoolVar(&o.listFaults, "list-faults", false, "lists the faults, in place of a run")
	flags.BoolVar(&o.listBugs, "list-bugs", false, "lists the bugs that can be built in, in place of a run")
	flags.BoolVar(&o.version, "version", false, "prints the version, in place of a run")
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		o.help = true
		fmt.Fprintf(stdout, "Usage: linker-torture [flags]\n\n"+
			"Starts a network of domains, sends messages through it, hurts it, and checks that every\npromise was kept.\n"+
			"Exit codes: %d every promise was kept, %d one was not, %d the torture itself did not work.\n\n", exitKept, exitViolated, exitFailed)
		flags.SetOutput(stdout)
		flags.PrintDefaults()
		return o, nil
	}
	if err != nil {
		return o, fmt.Errorf("%w (--help lists the flags)", err)
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q (--help lists the flags)", flags.Arg(0))
	}
	return o, o.validate()
}

// validate names every flag that cannot be used, or not with another one.
func (o options) validate() error {
	var mistakes []error
	expect := func(ok bool, format string, args ...any) {
		if !ok {
			mistakes = append(mistakes, fmt.Errorf(format, args...))
		}
	}
	expect(o.duration >= leastDuration, "--duration %v: expected at least %v", o.duration, leastDuration)
	expect(o.system == ofProcesses || o.system == ofStandalone, "--system %q: expected %s or %s", o.system, ofProcesses, ofStandalone)
	expect(o.gap > 0, "--gap %v: expected more than 0", o.gap)
	expect(!o.quiet || o.faults == nil, "--quiet and --faults do not go together")
	expect(o.bin == "" || o.bug == "", "--bin and --bug do not go together: a bug is built in")
	expect(o.bin == "" || !o.race, "--bin and --race do not go together: programs are built with it or without")
	for _, number := range []struct {
		flag  string
		value float64
	}{{"senders", float64(o.senders)}, {"receivers", float64(o.receivers)}, {"max-size", float64(o.maxSize)}, {"rate", o.rate}} {
		expect(number.value >= 0, "--%s %v: expected more than 0", number.flag, number.value)
	}
	return errors.Join(append(mistakes, o.systemConfig().Validate())...)
}

func (o options) systemConfig() system.Config {
	return system.Config{Domains: o.domains, Standalone: o.system == ofStandalone, Servers: o.servers, Control: o.control}
}

// command is how to repeat a run.
func (o options) command(args []string) string {
	words := []string{"linker-torture"}
	for i := 0; i < len(args); i++ {
		name, _, joined := strings.Cut(strings.TrimLeft(args[i], "-"), "=")
		if name == "seed" || name == "dir" {
			if !joined {
				i++ // its value
			}
			continue
		}
		words = append(words, args[i])
	}
	return strings.Join(append(words, "--seed", strconv.FormatUint(o.seed, 10)), " ")
}

// torture is the program but for the process around it.
func torture(ctx context.Context, process run.Process, terminal bool) error {
	o, err := parse(process.Args, process.Stdout)
	switch {
	case err != nil || o.help:
		return err
	case o.version:
		fmt.Fprintln(process.Stdout, "linker-torture", run.Version(version), run.Platform())
		return nil
	case o.listFaults:
		return listFaults(process.Stdout)
	case o.listBugs:
		return listBugs(process.Stdout)
	case o.check != "":
		return judge(o.check, o.json, process.Stdout)
	}
	r := &trial{options: o, process: process, progress: progress.New(process.Stderr, terminal, progressSeldom)}
	return r.run(ctx)
}

func listFaults(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, d := range nemesis.Descriptions() {
		note := ""
		if d.Asked {
			note = " (only where it is asked for)"
		}
		fmt.Fprintf(table, "%s\t%s%s\n", d.Kind, d.What, note)
	}
	return table.Flush()
}

func listBugs(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, bug := range bugs.All() {
		fmt.Fprintf(table, "%s\t%s\n", bug.Name, bug.What)
	}
	return table.Flush()
}
