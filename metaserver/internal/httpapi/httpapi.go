// Package httpapi is what the meta server says over HTTP: the public description
// of the network, without secrets; the snapshot for services, behind a token; and
// what operators look at.
package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/linkerhq/linker/metaserver/internal/catalog"
)

// Source is where the description comes from: its state, and a channel that is
// closed when the snapshot in it is no longer the one in force.
type Source interface {
	Current() (catalog.State, <-chan struct{})
}

// Config says what the handler serves.
type Config struct {
	Source Source
	// Token is what services must show for the snapshot. It must not be empty.
	Token string
	// File is the name of the description's file, for the status.
	File string
	// Metrics takes the handler's own metrics and is what /metrics shows.
	Metrics *prometheus.Registry
	// Ready answers /readyz. nil: the meta server itself, which is ready as long as
	// it serves.
	Ready http.Handler
}

// New returns the handler for all paths of the meta server.
func New(cfg Config) (http.Handler, error) {
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "linker_httpapi_requests_total", Help: "Requests answered by the meta server.",
	}, []string{"path", "code"})
	waiting := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "linker_httpapi_waiting_requests", Help: "Requests for the snapshot that wait for the next version.",
	})
	err := errors.Join(cfg.Metrics.Register(requests), cfg.Metrics.Register(waiting))
	if err != nil {
		return nil, fmt.Errorf("register metrics of the HTTP interface: %w", err)
	}
	ready := cfg.Ready
	if ready == nil {
		ready = http.HandlerFunc(alive)
	}
	a := &api{source: cfg.Source, file: cfg.File}
	services := &snapshots{source: cfg.Source, token: newToken(cfg.Token), waiting: waiting}
	mux := http.NewServeMux()
	handle := func(path string, h http.Handler) {
		counter := requests.MustCurryWith(prometheus.Labels{"path": path})
		mux.Handle(path, promhttp.InstrumentHandlerCounter(counter, onlyGet(h)))
	}
	public := func(path string, h http.HandlerFunc) { handle(path, anyOrigin(h)) }
	public("/domains", a.domains)
	public("/domains/links", a.links)
	public("/domains/graph", a.graph)
	public("/clientApps", a.apps)
	public("/resolve", a.resolve)
	handle("/status", http.HandlerFunc(a.status))
	handle("/snapshot", services)
	handle("/healthz", http.HandlerFunc(alive))
	handle("/readyz", ready)
	handle("/metrics", promhttp.HandlerFor(cfg.Metrics, promhttp.HandlerOpts{}))
	unknown := requests.MustCurryWith(prometheus.Labels{"path": "other"})
	mux.Handle("/", promhttp.InstrumentHandlerCounter(unknown, http.HandlerFunc(notFound)))
	return mux, nil
}

// alive answers for /healthz and /readyz alike: a meta server does not start
// without a valid description, and does not lose the one it has.
func alive(w http.ResponseWriter, _ *http.Request) {
	write(w, http.StatusOK, map[string]string{"status": "ok"})
}

func notFound(w http.ResponseWriter, _ *http.Request) {
	write(w, http.StatusNotFound, problem{Error: "there is nothing at this path"})
}

func onlyGet(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			write(w, http.StatusMethodNotAllowed, problem{Error: "only GET and HEAD are answered here"})
			return
		}
		next.ServeHTTP(w, r)
	})
}

// anyOrigin lets pages from anywhere read what everybody may read.
func anyOrigin(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		next.ServeHTTP(w, r)
	})
}

// problem is the body of every answer that is an error.
type problem struct {
	Error string `json:"error"`
	// The rest is about a parameter that cannot be used.
	Field    string  `json:"field,omitempty"`
	Value    *string `json:"value,omitempty"`
	Expected string  `json:"expected,omitempty"`
}

// badParameter names the parameter, its value and what was expected.
func badParameter(w http.ResponseWriter, field, value, expected string) {
	value = fmt.Sprintf("%.80s", value)
	write(w, http.StatusBadRequest, problem{
		Error: fmt.Sprintf("%s is %q, expected %s", field, value, expected),
		Field: field, Value: &value, Expected: expected,
	})
}

// write sends body as JSON. An error of writing is the client's: it has gone.
func write(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body)
}
