// Command console serves a page with which a person tries a running system.
package main

import (
	"context"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/linkerhq/linker/pkg/program"
	"github.com/linkerhq/linker/pkg/run"
	"github.com/linkerhq/linker/pkg/settings"
	"github.com/linkerhq/linker/standalone/internal/console"
)

// version is set where it is built: -ldflags "-X main.version=v1.2.3".
var version string

func main() {
	process := run.Process{Args: os.Args[1:], Environ: os.Environ(), Stdout: os.Stdout, Stderr: os.Stderr}
	os.Exit(program.Run(settings.Console(), version, process, serve))
}

func serve(ctx context.Context, v *settings.Values, deps program.Deps) error {
	s, err := console.New(v.Text("listen"), config(v, deps))
	if err != nil {
		return err
	}
	deps.Log.Info("console serves", "listen", s.Addr().String())
	return s.Run(ctx)
}

// config offers what is set, or what the meta server knows.
func config(v *settings.Values, deps program.Deps) console.Config {
	network := console.NewNetwork(v.Text("meta-url"))
	cfg := console.Config{Apps: network.Apps, Token: v.Text("processor-token"), Log: deps.Log}
	processors := map[string][]string{}
	for _, pair := range v.List("processor-url") {
		name, url, _ := strings.Cut(pair, "=")
		processors[name] = append(processors[name], url)
	}
	for _, pair := range v.List("websocket-url") {
		name, url, _ := strings.Cut(pair, "=")
		cfg.Domains = append(cfg.Domains, console.Domain{Name: name, URL: url})
	}
	if len(cfg.Domains) > 0 {
		cfg.Domains = withProcessors(cfg.Domains, processors)
	} else {
		cfg.Find = func() []console.Domain { return withProcessors(network.Domains(), processors) }
	}
	return cfg
}

// withProcessors says of each domain where its processors are. It adds those of which
// only that is known: they are shown, but not offered to connect to.
func withProcessors(domains []console.Domain, processors map[string][]string) []console.Domain {
	left := maps.Clone(processors)
	for i, d := range domains {
		domains[i].Processor = strings.Join(processors[d.Name], ",")
		delete(left, d.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(left)) {
		domains = append(domains, console.Domain{Name: name, Processor: strings.Join(left[name], ",")})
	}
	return domains
}
