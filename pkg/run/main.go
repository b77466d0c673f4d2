package run

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
)

// Process is the process around a program, as its main finds it.
type Process struct {
	Args    []string // without the program's name
	Environ []string // as os.Environ has it
	Stdout  io.Writer
	Stderr  io.Writer
}

// Main runs a program and returns the exit code of its process: 0 if the program
// ended without an error, else 1, with one line on standard error. The first
// SIGTERM or interrupt ends the program's context; the second ends the process at
// once.
func Main(name string, p Process, program func(context.Context, Process) error) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// From the first signal on they do again what they do by themselves.
	context.AfterFunc(ctx, stop)
	err := program(ctx, p)
	if err != nil {
		fmt.Fprintln(p.Stderr, name+": "+oneLine.Replace(err.Error()))
		return 1
	}
	return 0
}

// oneLine joins what several mistakes say.
var oneLine = strings.NewReplacer(":\n", ": ", "\n", "; ")

// NewLog returns a log of the lines from level on, debug, info, warn or error, in
// the format json, or else as text.
func NewLog(w io.Writer, level, format string) (*slog.Logger, error) {
	var from slog.Level
	if err := from.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level: %w", err)
	}
	options := &slog.HandlerOptions{Level: from}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return slog.New(slog.NewTextHandler(w, options)), nil
}

// Version says which version of itself is running: the one that it was linked
// with, else that of its module, else the revision that it was built from.
func Version(linked string) string {
	const unknown = "devel"
	if linked != "" {
		return linked
	}
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return unknown
	}
	if v := build.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	revision, modified := "", ""
	for _, s := range build.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = "-" + s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = "-modified"
		}
	}
	return unknown + revision + modified
}

// Platform says what the program was built with and for.
func Platform() string {
	return runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH
}
