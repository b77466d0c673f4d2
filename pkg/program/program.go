// Package program is what the mains of the services share: it reads the settings,
// answers --help, --version and --probe, makes the log and the metrics, and runs
// the service until a signal ends it.
package program

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/run"
	"github.com/linkerhq/linker/pkg/settings"
)

// Deps is what a service gets from the process around it.
type Deps struct {
	Log     *slog.Logger
	Metrics *prometheus.Registry
}

// Service runs until ctx ends, and has ended in good order when it returns nil.
type Service func(ctx context.Context, v *settings.Values, deps Deps) error

// Run runs one program and returns the exit code of its process. version is the
// one it was linked with, if it was.
func Run(p settings.Program, version string, process run.Process, service Service) int {
	return run.Main(p.Name, process, func(ctx context.Context, process run.Process) error {
		return Serve(ctx, p, version, process, service)
	})
}

// Serve is Run but for signals and exit codes.
func Serve(ctx context.Context, p settings.Program, version string, process run.Process, service Service) error {
	v, err := settings.Read(p, process.Args, process.Environ)
	if err != nil {
		return err
	}
	switch v.Asked.Question {
	case settings.Help:
		p.WriteHelp(process.Stdout)
		return nil
	case settings.Version:
		fmt.Fprintln(process.Stdout, p.Name, run.Version(version), run.Platform())
		return nil
	case settings.Probe:
		return run.Probe(ctx, v.Asked.URL)
	case settings.Nothing:
	}
	log, err := run.NewLog(process.Stderr, v.Text("log-level"), v.Text("log-format"))
	if err != nil {
		return err
	}
	metrics := prometheus.NewRegistry()
	if err := run.RuntimeMetrics(metrics); err != nil {
		return err
	}
	about := []any{"program", p.Name, "version", run.Version(version)}
	if limit := run.LimitMemory(os.DirFS("/"), process.Environ); limit > 0 {
		about = append(about, "memory_limit", limit)
	}
	defer run.PaceCollector(process.Environ)()
	log.Info("begins", append(about, v.Attributes()...)...)
	for _, warning := range v.Warnings() {
		log.Warn("insecure setting", "warning", warning)
	}
	return service(ctx, v, Deps{Log: log, Metrics: metrics})
}
