// Command standalone runs a whole Linker domain in one process, with embedded
// brokers and stores: for a laptop, a demonstration, a small installation.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
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
	fmt.Fprintln(stdout, "Linker: one domain,", stack.Domain+", with everything in this process")
	for _, e := range s.Endpoints() {
		fmt.Fprintf(stdout, "  %-12s %s\n", e.Name, e.URL)
	}
	fmt.Fprintf(stdout, "  %-12s %s\n  %-12s %s\n", "data", cfg.Data, "network", s.NetworkFile())
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		begun := time.Now()
		if s.Ready(ctx) == nil {
			fmt.Fprintf(stdout, "ready after %d ms; Ctrl-C drains and ends it\n", time.Since(begun).Milliseconds())
		}
	}()
	return s.Run(ctx)
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
	flags.StringVar(&cfg.Meta, "meta", "", "YAML `file` of the network (default: network.yaml in the data directory, written once)")
	flags.StringVar(&cfg.Host, "host", "", "`interface` to listen on (default: all)")
	flags.IntVar(&cfg.Ports.Websocket, "websocket-port", cfg.Ports.Websocket, "`port` for clients; 0 picks a free one, here and below")
	flags.IntVar(&cfg.Ports.Link, "link-port", cfg.Ports.Link, "`port` for the links of neighbouring domains")
	flags.IntVar(&cfg.Ports.ConnectorHTTP, "connector-http-port", cfg.Ports.ConnectorHTTP, "`port` of the connector's health and metrics")
	flags.IntVar(&cfg.Ports.ProcessorHTTP, "processor-http-port", cfg.Ports.ProcessorHTTP, "`port` of the processor's health and metrics")
	flags.IntVar(&cfg.Ports.Meta, "meta-port", cfg.Ports.Meta, "`port` of the meta server")
	flags.IntVar(&cfg.Ports.Console, "console-port", cfg.Ports.Console, "`port` of the console, a page to try the system with")
	flags.IntVar(&cfg.FrameLimit, "frame-limit", 0, "largest message of a client in `bytes` (default 65536)")
	flags.DurationVar(&cfg.DrainFor, "drain-for", 0, "how `long` the end may take at most (default 25s)")
	flags.TextVar(&level, "log-level", level, "DEBUG, INFO, WARN or ERROR")
	flags.BoolVar(&asked.version, "version", false, "prints the version, in place of running")
	flags.StringVar(&asked.probe, "probe", "", "gets the `URL`, in place of running: exit code 0 if it answers 200 within 3 seconds, 1 if not")
	origins := flags.String("allowed-origins", "", "comma-separated `hosts` of pages that may connect (default: any)")
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(stdout, "Usage: standalone [flags]\n\nRuns a whole Linker domain in one process.")
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
	return asked, cfg, level, cfg.Ports.Validate()
}
