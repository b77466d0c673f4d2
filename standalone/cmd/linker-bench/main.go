// Command linker-bench measures a server: how many messages it takes, how long they
// take, and what it uses for them. See docs/bench.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"text/tabwriter"
	"time"

	"github.com/linkerhq/linker/pkg/run"
	"github.com/linkerhq/linker/standalone/internal/bench/relay"
	"github.com/linkerhq/linker/standalone/internal/bench/workload"
	"github.com/linkerhq/linker/standalone/internal/progress"
	"github.com/linkerhq/linker/standalone/internal/torture/system"
)

// version is set where it is built: -ldflags "-X main.version=v1.2.3".
var version string

// collectSeldom is how many percent the heap may grow between two collections: there
// is little garbage, and a collection disturbs what is measured.
const collectSeldom = 1000

// progressSeldom is how often progress is a line in a file.
const progressSeldom = 5 * time.Second

// leastProcs is how many threads run at once at least.
const leastProcs = 2

func main() {
	// The thread of the clients keeps one of them, see the package swarm.
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), leastProcs))
	debug.SetGCPercent(collectSeldom)
	process := run.Process{Args: os.Args[1:], Environ: os.Environ(), Stdout: os.Stdout, Stderr: os.Stderr}
	os.Exit(run.Main("linker-bench", process, func(ctx context.Context, p run.Process) error {
		return bench(ctx, p, progress.IsTerminal(os.Stderr))
	}))
}

// What the first argument can be beside the name of a workload.
const (
	runSet   = "set"
	runRates = "rates"
	runGrow  = "grow"
	runPlot  = "plot"
	runRelay = "relay"
)

// bench is the program but for the process around it.
func bench(ctx context.Context, p run.Process, terminal bool) error {
	if len(p.Args) == 0 {
		return errors.New("nothing to do: expected the name of a workload (--help lists them)")
	}
	switch name := p.Args[0]; name {
	case "help", "-h", "-help", "--help":
		return usage(p.Stdout)
	case "version", "-version", "--version":
		fmt.Fprintln(p.Stdout, "linker-bench", run.Version(version), run.Platform())
		return nil
	case runPlot:
		return drawFiles(p.Args[1:], p.Stdout)
	case runRelay:
		return serveRelay(ctx, p.Args[1:], p.Stdout)
	case system.ServersCommand: // as one of the processes of --apart
		debug.SetGCPercent(100)
		return system.RunServers(ctx, p.Args[1:], p.Stderr)
	default:
		o, err := parse(name, p.Args[1:], p.Stdout)
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		if err != nil {
			return err
		}
		t := &trial{options: o, process: p, progress: progress.New(p.Stderr, terminal, progressSeldom)}
		return t.run(ctx)
	}
}

func usage(out io.Writer) error {
	fmt.Fprint(out, "Usage: linker-bench WORKLOAD [flags]\n\nMeasures a server, or starts one and measures that. The workloads:\n\n")
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, w := range workload.All() {
		fmt.Fprintf(table, "  %s\t%s\n", w.Name, w.Summary)
	}
	fmt.Fprintf(table, "\n  %s\tthe standard set of them, which takes some minutes\n", runSet)
	fmt.Fprintf(table, "  %s\tlatency at growing rates, FAST and RELIABLE and on a bare relay, up to where it is too long\n", runRates)
	fmt.Fprintf(table, "  %s\thow the figures grow with connections, stored messages, domains and processes\n", runGrow)
	fmt.Fprintf(table, "  %s\tdraws what rates and hops have written to a file of --json\n", runPlot)
	fmt.Fprintf(table, "  %s\truns the yardstick by itself: a bare relay, without queue and store\n", runRelay)
	fmt.Fprint(table, "\nlinker-bench WORKLOAD --help lists the flags.\n")
	return table.Flush()
}

// serveRelay runs the bare relay until ctx ends.
func serveRelay(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet(runRelay, flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:0", "`HOST:PORT` to listen on; port 0 picks a free one")
	err := parseFlags(flags, args, stdout, "Usage: linker-bench relay [flags]\n\nRuns a bare relay: messages go from socket to socket, and nothing is kept.")
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	// It is measured as a program is that sets nothing.
	debug.SetGCPercent(100)
	r, err := relay.New(*listen)
	if err != nil {
		return fmt.Errorf("--listen %s: %w", *listen, err)
	}
	fmt.Fprintf(stdout, "  %-12s %s\nready; Ctrl-C ends it\n", "websocket", r.URL())
	return r.Run(ctx)
}

// parseFlags reads a command line, and answers --help.
func parseFlags(flags *flag.FlagSet, args []string, stdout io.Writer, usage string) error {
	flags.SetOutput(io.Discard)
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintln(stdout, usage+"\n")
		flags.SetOutput(stdout)
		flags.PrintDefaults()
		return err
	case err != nil:
		return fmt.Errorf("%w (--help lists the flags)", err)
	case flags.NArg() > 0:
		return fmt.Errorf("unexpected argument %q (--help lists the flags)", flags.Arg(0))
	default:
		return nil
	}
}
