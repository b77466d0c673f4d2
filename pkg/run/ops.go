// Package run is what all services share about running: the process around them,
// the HTTP server that operators and orchestrators look at, and the order in which
// parts stop.
package run

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	headerTimeout  = 5 * time.Second
	requestTimeout = 30 * time.Second
	maxHeaderBytes = 4 << 10 // 8 KiB in effect: net/http lets 4 KiB more pass
	stopTimeout    = 2 * time.Second
)

// Ops serves GET /healthz (the process runs), /readyz (it can do its work: 200,
// or 503 with the reason) and /metrics (Prometheus). It shows figures and changes
// nothing. What shows more than figures, or changes something, is served by Reveal.
type Ops struct {
	listener net.Listener
	server   *http.Server
	mux      *http.ServeMux
}

// Remark is what a service that is ready has to say all the same: GET /readyz answers
// 200 with it.
type Remark struct{ Text string }

// Error is the text.
func (r Remark) Error() string { return r.Text }

// NewOps listens on addr, HOST:PORT; port 0 picks a free one. ready says why the
// service is not ready; nil, or a Remark, means that it is.
func NewOps(addr string, registry *prometheus.Registry, log *slog.Logger, ready func() error) (*Ops, error) {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	state := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "linker_run_ready_state", Help: "1 if the service can do its work, else 0."}, func() float64 {
		if readiness, _ := describe(ready()); readiness != http.StatusOK {
			return 0
		}
		return 1
	})
	if err := registry.Register(state); err != nil {
		return nil, errors.Join(fmt.Errorf("register the metrics of health: %w", err), listener.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		code, text := describe(ready())
		if code != http.StatusOK {
			http.Error(w, text, code)
			return
		}
		fmt.Fprintln(w, text)
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return &Ops{listener: listener, mux: mux, server: &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      requestTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}}, nil
}

// describe is the answer of /readyz.
func describe(err error) (code int, text string) {
	var remark Remark
	switch {
	case err == nil:
		return http.StatusOK, "ready"
	case errors.As(err, &remark):
		return http.StatusOK, "ready; " + remark.Text
	default:
		return http.StatusServiceUnavailable, "not ready: " + err.Error()
	}
}

// Reveal serves a path to whoever asks from this machine, or shows the token as a bearer
// token; without a token only from this machine. A request that a page in a browser makes
// is never from this machine, wherever the browser runs; and one that a page of another
// site makes changes nothing, whatever it shows. It is called before Run.
func (o *Ops) Reveal(path string, h http.Handler, token string) {
	foreign := http.NewCrossOriginProtection()
	o.mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		if foreign.Check(r) != nil {
			http.Error(w, "pages of other sites may change nothing here", http.StatusForbidden)
			return
		}
		if !fromHere(r) && !shows(r, token) {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "this is shown on the machine itself, or to those who have the token of the setting http-token", http.StatusUnauthorized)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// RevealProfiles serves /debug/pprof/, what net/http/pprof shows of the process, as Reveal
// does; a profile takes less than 30 s.
func (o *Ops) RevealProfiles(token string) {
	o.Reveal("/debug/pprof/", http.HandlerFunc(pprof.Index), token)
	o.Reveal("/debug/pprof/profile", http.HandlerFunc(pprof.Profile), token)
	o.Reveal("/debug/pprof/trace", http.HandlerFunc(pprof.Trace), token)
}

// fromHere says whether a request was made on this machine, and not for somebody else: by
// a proxy, or by a page in a browser that was led here by a name.
func fromHere(r *http.Request) bool {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && from.Addr().Unmap().IsLoopback() && namesHere(r.Host) &&
		r.Header.Get("X-Forwarded-For") == "" && r.Header.Get("Forwarded") == "" && !byPage(r)
}

// byPage says whether a page in a browser has made a request, and not a person who has
// typed the address. Any page may, of every site, so that it is no matter of its own.
func byPage(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	return r.Header.Get("Origin") != "" || site != "" && site != "none"
}

// namesHere says whether a Host header names a machine by address, or this one.
func namesHere(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil || host == "localhost"
}

func shows(r *http.Request, token string) bool {
	shown, is := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return is && token != "" && subtle.ConstantTimeCompare([]byte(shown), []byte(token)) == 1
}

// Addr is the address that is listened on.
func (o *Ops) Addr() net.Addr { return o.listener.Addr() }

// Run serves until ctx ends.
func (o *Ops) Run(ctx context.Context) error {
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if o.server.Shutdown(bounded) != nil {
			_ = o.server.Close() // what is still open after that is cut
		}
	})
	err := o.server.Serve(o.listener)
	if !stop() {
		<-stopped
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", o.Addr(), err)
	}
	return nil
}

// Close releases the listener of an Ops that is never run.
func (o *Ops) Close() error { return o.listener.Close() }

// RuntimeMetrics registers what every Go process tells about itself.
func RuntimeMetrics(reg prometheus.Registerer) error {
	err := reg.Register(collectors.NewGoCollector())
	if err != nil {
		return fmt.Errorf("register runtime metrics: %w", err)
	}
	if err := reg.Register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})); err != nil {
		return fmt.Errorf("register process metrics: %w", err)
	}
	return nil
}
