package system

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/linkerhq/linker/pkg/topology"
	"github.com/linkerhq/linker/standalone/internal/proxy"
)

const (
	viewHeader  = "X-Viewer" // carries the name of the domain that asks
	viewTimeout = 10 * time.Second
)

// views stand between the services of each domain and the meta server. What they
// are told of their neighbours' tcp:// urls is not what the file says but the
// addresses of proxies, one for each way, so that one link can be cut and the
// others left alone.
type views struct {
	meta     string // of the meta server, http://HOST:PORT
	listener net.Listener
	ways     map[[2]string][]*proxy.Proxy // static; by who dials and who is dialled
}

// newViews binds the ports of the views, and of a proxy for each way and each link
// port at its end.
func newViews(meta string, pairs [][2]string, linkPorts map[string][]string) (*views, error) {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	v := &views{meta: meta, listener: listener, ways: map[[2]string][]*proxy.Proxy{}}
	for _, pair := range pairs {
		for _, way := range [][2]string{pair, {pair[1], pair[0]}} {
			for _, target := range linkPorts[way[1]] {
				p, err := proxy.New("127.0.0.1:0")
				if err != nil {
					return nil, errors.Join(err, v.close())
				}
				p.Forward(target)
				v.ways[way] = append(v.ways[way], p)
			}
		}
	}
	return v, nil
}

// url is where the services of a domain reach the meta server.
func (v *views) url(domain string) string {
	return "http://" + v.listener.Addr().String() + "/" + domain
}

// close releases views that are never run.
func (v *views) close() error {
	failed := v.listener.Close()
	for _, list := range v.ways {
		for _, p := range list {
			failed = errors.Join(failed, p.Close())
		}
	}
	return failed
}

// run serves until ctx ends.
func (v *views) run(ctx context.Context) error {
	server := &http.Server{Handler: v.handler(), ReadHeaderTimeout: viewTimeout, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	var running sync.WaitGroup
	var mu sync.Mutex
	var failed error
	for _, list := range v.ways {
		for _, p := range list {
			running.Go(func() {
				if err := p.Run(ctx); err != nil {
					mu.Lock()
					defer mu.Unlock()
					failed = errors.Join(failed, err)
				}
			})
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	err := server.Serve(v.listener)
	running.Wait()
	if !errors.Is(err, http.ErrServerClosed) {
		failed = errors.Join(failed, err)
	}
	return failed
}

func (v *views) handler() http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			viewer, path, _ := strings.Cut(strings.TrimPrefix(r.In.URL.Path, "/"), "/")
			meta, err := url.Parse(v.meta)
			if err != nil {
				return // it stays as it is, and fails
			}
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.URL.Path = meta.Scheme, meta.Host, "/"+path
			r.Out.Header.Set(viewHeader, viewer)
		},
		ModifyResponse: func(r *http.Response) error {
			if r.StatusCode != http.StatusOK || r.Request.URL.Path != "/snapshot" {
				return nil
			}
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return err
			}
			if body, err = v.view(r.Request.Header.Get(viewHeader), body); err != nil {
				return err
			}
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			r.Header.Set("Content-Length", strconv.Itoa(len(body)))
			return nil
		},
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
}

// view is the description of the network as one domain is to see it.
func (v *views) view(viewer string, snapshot []byte) ([]byte, error) {
	s, err := topology.Decode(snapshot)
	if err != nil {
		return nil, err
	}
	network := s.Network()
	network.Domains = slices.Clone(network.Domains)
	for i, d := range network.Domains {
		ways := v.ways[[2]string{viewer, d.Name}]
		if len(ways) == 0 {
			continue
		}
		urls := d.ClientURLs()
		for _, p := range ways {
			urls = append(urls, "tcp://"+p.Addr())
		}
		network.Domains[i].URLs = urls
	}
	seen, err := topology.New(s.Version, network)
	if err != nil {
		return nil, err
	}
	return seen.MarshalJSON()
}

// Link is a link between two domains, for faults.
type Link struct {
	there []*proxy.Proxy // dialled by the first of the two
	back  []*proxy.Proxy // dialled by the second
}

// Link returns the link between two domains.
func (s *System) Link(a, b string) (Link, error) {
	if s.views == nil {
		return Link{}, errors.New("the links of this system do not lead through proxies")
	}
	l := Link{there: s.views.ways[[2]string{a, b}], back: s.views.ways[[2]string{b, a}]}
	if len(l.there) == 0 || len(l.back) == 0 {
		return Link{}, fmt.Errorf("there is no link between %s and %s", a, b)
	}
	return l, nil
}

func (l Link) each(do func(*proxy.Proxy)) {
	for _, p := range slices.Concat(l.there, l.back) {
		do(p)
	}
}

// Cut ends the link at once, as both ends can see.
func (l Link) Cut() { l.each(func(p *proxy.Proxy) { p.Cut() }) }

// Swallow swallows everything, both ways: nobody is told.
func (l Link) Swallow() { l.each(func(p *proxy.Proxy) { p.Swallow(proxy.Both) }) }

// SwallowForth swallows what the first of the two domains sends, and nothing else.
func (l Link) SwallowForth() {
	for _, p := range l.there {
		p.Swallow(proxy.Forth)
	}
	for _, p := range l.back {
		p.Swallow(proxy.Back)
	}
}

// Delay delays everything, each way.
func (l Link) Delay(delay time.Duration) { l.each(func(p *proxy.Proxy) { p.Delay(delay) }) }

// Heal makes the link whole again.
func (l Link) Heal() { l.each(func(p *proxy.Proxy) { p.Heal() }) }

// Heal makes everything whole again: links, and processes that are down or frozen.
func (s *System) Heal() error {
	if s.views != nil {
		for _, list := range s.views.ways {
			for _, p := range list {
				p.Heal()
			}
		}
	}
	var failed error
	for _, server := range s.Servers() {
		failed = errors.Join(failed, server.Continue(), server.Start(""))
	}
	for _, p := range s.processes {
		failed = errors.Join(failed, p.Continue(), p.Start(""))
	}
	return failed
}
