package e2e

import (
	"context"
	"testing"

	netproxy "github.com/linkerhq/linker/standalone/internal/proxy"
)

// proxy is one that runs until the test ends.
type proxy struct{ *netproxy.Proxy }

// way is a direction, as seen from who dials.
type way = netproxy.Way

const (
	forth    = netproxy.Forth
	back     = netproxy.Back
	bothWays = netproxy.Both
)

// newProxy listens until the test ends. It sends everybody away until it is told
// where to forward to.
func newProxy(t *testing.T) *proxy {
	t.Helper()
	p, err := netproxy.New("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return &proxy{p}
}

func (p *proxy) addr() string              { return p.Addr() }
func (p *proxy) forward(target string)     { p.Forward(target) }
func (p *proxy) find(target func() string) { p.Find(target) }
func (p *proxy) cut()                      { p.Cut() }
func (p *proxy) blackhole(w way)           { p.Swallow(w) }
func (p *proxy) heal()                     { p.Heal() }
func (p *proxy) open() int                 { return p.Open() }
