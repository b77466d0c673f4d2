// Command standalone runs a whole Linker domain, or a network of them, in one
// process, with embedded brokers and stores: for a laptop, a demonstration, a small
// installation.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/linkerhq/linker/pkg/run"
	"github.com/linkerhq/linker/standalone/internal/stack"
)

// version is set where it is built: -ldflags "-X main.version=v1.2.3".
var version string

func main() {
	process := run.Process{Args: os.Args[1:], Environ: os.Environ(), Stdout: os.Stdout, Stderr: os.Stderr}
	os.Exit(run.Main("linker", process, func(ctx context.Context, p run.Process) error {
		run.LimitMemory(os.DirFS("/"), p.Environ)
		defer run.PaceCollector(p.Environ)()
		return runStandalone(ctx, p.Args, p.Stdout, p.Stderr)
	}))
}

// runStandalone is the program but for the process around it.
func runStandalone(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	asked, cfg, level, err := parse(args, stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return err
	case asked.version:
		fmt.Fprintln(stdout, "standalone", run.Version(version), run.Platform())
		return nil
	case asked.probe != "":
		return run.Probe(ctx, asked.probe)
	}
	cfg.Log = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	s, err := stack.New(cfg)
	if err != nil {
		return err
	}
	describe(stdout, s)
	fmt.Fprintf(stdout, "  %-12s %s\n  %-12s %s\n", "data", cfg.Data, "network", s.NetworkFile())
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		begun := time.Now()
		if s.Ready(ctx) != nil {
			return // it ends
		}
		missing := ""
		if links := s.MissingLinks(); len(links) > 0 {
			missing = "links not up: " + strings.Join(links, ", ") + "; "
		}
		fmt.Fprintf(stdout, "ready after %d ms; %sCtrl-C drains and ends it\n", time.Since(begun).Milliseconds(), missing)
	}()
	return s.Run(ctx)
}

// describe says what runs and what listens where: one endpoint a line, of several
// domains one domain a line.
func describe(stdout io.Writer, s *stack.Stack) {
	places := s.Places()
	several := len(places) > 1
	if several {
		fmt.Fprintf(stdout, "Linker: %d domains, with everything in this process\n", len(places))
		table := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "  domain\twebsocket\tlink\tconnector\tprocessor")
		for _, p := range places {
			fmt.Fprintf(table, "  %s\t%s\t%s\t%s\t%s\n", p.Domain, p.Websocket, p.Link, p.Connector, p.Processor)
		}
		_ = table.Flush() // as all output here: nobody reads it if it cannot be written
	} else {
		fmt.Fprintf(stdout, "Linker: one domain, %s, with everything in this process\n", places[0].Domain)
	}
	for _, e := range s.Endpoints() {
		if e.Domain == "" || !several {
			fmt.Fprintf(stdout, "  %-12s %s\n", e.Name, e.URL)
		}
	}
}

// questions are what may be asked of the program in place of running it.
type questions struct {
	version bool
	probe   string // the URL to get
}

// parse reads the command line.
func parse(args []string, stdout io.Writer) (questions, stack.Config, slog.Level, error) {
	var asked questions
	cfg := stack.Config{Ports: stack.DefaultPorts()}
	level := slog.LevelWarn
	flags := flag.NewFlagSet("standalone", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&cfg.Data, "data", "./data", "`directory` of everything that lasts")
	flags.StringVar(&cfg.Meta, "meta", "", "YAML `file` of the network; every domain in it runs (default: network.yaml in the data directory, written once)")
	flags.Func("domains", fmt.Sprintf("`number` of domains, 1 to %d, that are linked in a ring (default: those of the network file; 1 in a new one)", stack.MaxRing), func(text string) error {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > stack.MaxRing {
			return fmt.Errorf("expected 1 to %d; leave it out to run what a file describes", stack.MaxRing)
		}
		cfg.Domains = n
		return nil
	})
	flags.StringVar(&cfg.Host, "host", "", "`interface` to listen on (default: all)")
	flags.IntVar(&cfg.Ports.Websocket, "websocket-port", cfg.Ports.Websocket, "`port` for clients; 0 picks a free one, here and below; each further domain adds 100 to this and the next three")
	flags.IntVar(&cfg.Ports.Link, "link-port", cfg.Ports.Link, "`port` for the links of neighbouring domains")
	flags.IntVar(&cfg.Ports.ConnectorHTTP, "connector-http-port", cfg.Ports.ConnectorHTTP, "`port` of the connector's health and metrics")
	flags.IntVar(&cfg.Ports.ProcessorHTTP, "processor-http-port", cfg.Ports.ProcessorHTTP, "`port` of the processor's health and metrics")
	flags.IntVar(&cfg.Ports.Meta, "meta-port", cfg.Ports.Meta, "`port` of the meta server")
	flags.IntVar(&cfg.Ports.Console, "console-port", cfg.Ports.Console, "`port` of the console, a page to try the system with")
	flags.IntVar(&cfg.FrameLimit, "frame-limit", 0, "largest message of a client in `bytes` (default 65536)")
	flags.DurationVar(&cfg.DrainFor, "drain-for", 0, "how `long` the end may take at most (default 25s)")
	flags.DurationVar(&cfg.DrainSpread, "drain-spread", 0, "`time` over which clients are sent away at the end, at most half of --drain-for (default 0: all at once)")
	waiting := waitingFlags(flags)
	flags.TextVar(&level, "log-level", level, "DEBUG, INFO, WARN or ERROR")
	flags.BoolVar(&asked.version, "version", false, "prints the version, in place of running")
	flags.StringVar(&asked.probe, "probe", "", "gets the `URL`, in place of running: exit code 0 if it answers 200 within 3 seconds, 1 if not")
	origins := flags.String("allowed-origins", "", "comma-separated `hosts` of pages that may connect (default: any)")
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(stdout, "Usage: standalone [flags]\n\nRuns a whole Linker domain, or a network of them, in one process.")
		flags.SetOutput(stdout)
		flags.PrintDefaults()
		return asked, cfg, level, err
	}
	if err != nil {
		return asked, cfg, level, fmt.Errorf("%w (--help lists the flags)", err)
	}
	if flags.NArg() > 0 {
		return asked, cfg, level, fmt.Errorf("unexpected argument %q (--help lists the flags)", flags.Arg(0))
	}
	if *origins != "" {
		for origin := range strings.SplitSeq(*origins, ",") {
			cfg.Origins = append(cfg.Origins, strings.TrimSpace(origin))
		}
	}
	if cfg.Waiting, err = waiting(); err != nil {
		return asked, cfg, level, err
	}
	return asked, cfg, level, cfg.Validate()
}
