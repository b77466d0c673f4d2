// Command metaserver serves the description of the network.
package main

import (
	"context"
	"os"

	"github.com/linkerhq/linker/metaserver"
	"github.com/linkerhq/linker/pkg/program"
	"github.com/linkerhq/linker/pkg/run"
	"github.com/linkerhq/linker/pkg/settings"
)

// version is set where it is built: -ldflags "-X main.version=v1.2.3".
var version string

func main() {
	process := run.Process{Args: os.Args[1:], Environ: os.Environ(), Stdout: os.Stdout, Stderr: os.Stderr}
	os.Exit(program.Run(settings.Metaserver(), version, process, serve))
}

func serve(ctx context.Context, v *settings.Values, deps program.Deps) error {
	s, err := metaserver.New(metaserver.Config{
		Addr:    v.Text("listen"),
		File:    v.Text("file"),
		Token:   v.Text("token"),
		Log:     deps.Log,
		Metrics: deps.Metrics,
	})
	if err != nil {
		return err
	}
	deps.Log.Info("meta server serves", "listen", s.Addr().String(), "file", v.Text("file"))
	return s.Run(ctx)
}
