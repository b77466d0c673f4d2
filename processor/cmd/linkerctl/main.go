// Command linkerctl looks into a running domain for an operator, and sets things right
// in it: through the HTTP port of any of its processors.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/linkerhq/linker/pkg/run"
)

// version is set where it is built: -ldflags "-X main.version=v1.2.3".
var version string

// The exit codes.
const (
	exitDone   = 0
	exitFailed = 1 // it was asked for in the right way, and could not be done
	exitUsage  = 2 // the command line is wrong: nothing was asked for
)

const (
	standardURL   = "http://127.0.0.1:8081"
	tokenVariable = "LINKER_HTTP_TOKEN"
	maxTokenFile  = 64 << 10
)

// command is what can be asked for.
type command struct {
	name  string
	about string // one line
	run   func(ctx context.Context, c *ctl, args []string) error
}

// commands lists all of them, in the order of the help.
func commands() []command {
	return []command{
		{"dead", "dead letters: list, show, replay, purge", runDead},
		{"trace", "where a message is, and what has happened to it", runTrace},
	}
}

// ctl is what every command works with.
type ctl struct {
	api    *api
	json   bool // answers are for machines
	stdout io.Writer
}

// usageError is a mistake in the command line.
type usageError struct{ error }

func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(execute(ctx, run.Process{Args: os.Args[1:], Environ: os.Environ(), Stdout: os.Stdout, Stderr: os.Stderr}))
}

// execute is the program but for the process around it; it returns the exit code.
func execute(ctx context.Context, p run.Process) int {
	err := dispatch(ctx, p)
	var wrong usageError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &wrong):
		fmt.Fprintf(p.Stderr, "linkerctl: %v (--help says more)\n", err)
		return exitUsage
	default:
		fmt.Fprintf(p.Stderr, "linkerctl: %v\n", err)
		return exitFailed
	}
}

// dispatch reads what stands before the command, and runs that.
func dispatch(ctx context.Context, p run.Process) error {
	flags := newFlags("linkerctl")
	base := flags.String("url", standardURL, "`URL` of the HTTP port of a processor of the domain")
	tokenFile := flags.String("token-file", "", "`file` with the processor's http-token; without it the variables "+tokenVariable+" and "+tokenVariable+"_FILE")
	asJSON := flags.Bool("json", false, "answers as JSON, for machines")
	asksVersion := flags.Bool("version", false, "prints the version")
	err := flags.Parse(p.Args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		help(p.Stdout, flags)
		return nil
	case err != nil:
		return usageError{err}
	case *asksVersion:
		fmt.Fprintln(p.Stdout, "linkerctl", run.Version(version), run.Platform())
		return nil
	case flags.NArg() == 0:
		return usage("expected a command: %s", names(commands()))
	}
	for _, command := range commands() {
		if command.name != flags.Arg(0) {
			continue
		}
		token, err := readToken(*tokenFile, p.Environ)
		if err != nil {
			return err
		}
		api, err := newAPI(*base, token)
		if err != nil {
			return usageError{err}
		}
		err = command.run(ctx, &ctl{api: api, json: *asJSON, stdout: p.Stdout}, flags.Args()[1:])
		if errors.Is(err, flag.ErrHelp) {
			return nil // it has said how it is called
		}
		return err
	}
	return usage("unknown command %q, expected %s", flags.Arg(0), names(commands()))
}

// newFlags returns an empty set of flags that says nothing by itself.
func newFlags(name string) *flag.FlagSet {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	return flags
}

// parse reads the flags of a command, which may stand before and behind its arguments,
// and returns these. On --help it writes how the command is called.
func (c *ctl) parse(flags *flag.FlagSet, about string, args []string) ([]string, error) {
	flags.BoolVar(&c.json, "json", c.json, "answers as JSON, for machines")
	var rest []string
	for {
		err := flags.Parse(args)
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprintf(c.stdout, "Usage: %s\n\n", about)
			flags.SetOutput(c.stdout)
			flags.PrintDefaults()
			return nil, err
		}
		if err != nil {
			return nil, usage("%s: %w", flags.Name(), err)
		}
		if flags.NArg() == 0 {
			return rest, nil
		}
		rest, args = append(rest, flags.Arg(0)), flags.Args()[1:]
	}
}

func names(list []command) string {
	var names []string
	for _, command := range list {
		names = append(names, command.name)
	}
	return strings.Join(names, ", ")
}

func help(w io.Writer, flags *flag.FlagSet) {
	fmt.Fprint(w, "Usage: linkerctl [flags] command …\n\nLooks into a running domain, and sets things right in it.\n\nCommands (command --help says more):\n")
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, command := range commands() {
		fmt.Fprintf(table, "  %s\t%s\n", command.name, command.about)
	}
	_ = table.Flush() // nobody reads it if it cannot be written
	fmt.Fprint(w, "\nFlags:\n")
	flags.SetOutput(w)
	flags.PrintDefaults()
	fmt.Fprintf(w, "\nExit codes: %d done, %d it could not be done, %d the command line is wrong.\n", exitDone, exitFailed, exitUsage)
}

// readToken returns the token of the file, else that of the environment; both may be
// missing: on the machine of the processor none is needed.
func readToken(file string, environ []string) (string, error) {
	if file == "" {
		token := variable(environ, tokenVariable)
		file = variable(environ, tokenVariable+"_FILE")
		if token != "" || file == "" {
			return token, nil
		}
	}
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("the token: %w", err)
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxTokenFile))
	token := strings.TrimRight(string(text), "\r\n")
	switch {
	case err != nil:
		return "", fmt.Errorf("the token: %w", err)
	case token == "" || strings.ContainsAny(token, "\r\n"):
		return "", fmt.Errorf("the token: %s: expected one line with it", file)
	}
	return token, nil
}

// variable returns the value of a variable of the environment, nothing if it is not there.
func variable(environ []string, name string) string {
	for _, entry := range environ {
		if value, is := strings.CutPrefix(entry, name+"="); is {
			return value
		}
	}
	return ""
}

// checkURL says what is wrong with the URL of a processor. It may not carry a password,
// so it can be quoted.
func checkURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("--url: expected http://HOST:PORT or https://HOST:PORT of a processor, without a user")
	}
	return u, nil
}
