// Package metaserver serves the description of the network, its domains, links,
// client apps and user distributions, from one YAML file that operators edit
// while it runs.
package metaserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/metaserver/internal/catalog"
	"github.com/linkerhq/linker/metaserver/internal/httpapi"
	"github.com/linkerhq/linker/pkg/topology"
)

const (
	// headerTimeout is how long a client may take over the head of a request.
	headerTimeout = 5 * time.Second
	// requestTimeout bounds a whole request, one that waits for a snapshot too.
	requestTimeout = httpapi.MaxWait + 15*time.Second
	idleTimeout    = 90 * time.Second
	maxHeaderBytes = 16 << 10
	// stopTimeout is how long requests under way may take when the server stops.
	stopTimeout = 5 * time.Second
)

// Config is everything a meta server needs; every field but Ready is required.
type Config struct {
	// Addr is what to listen on, HOST:PORT; port 0 picks a free one.
	Addr string
	// File is the YAML file that describes the network.
	File string
	// Token is the secret that services show to read the snapshot.
	Token string
	Log   *slog.Logger
	// Metrics takes the server's metrics and is what GET /metrics shows.
	Metrics *prometheus.Registry
	// Ready answers GET /readyz in place of the server, for a process that is more
	// than a meta server; nil: the server is ready as long as it serves.
	Ready http.Handler
}

func (c Config) validate() error {
	var errs []error
	need := func(name string, given bool) {
		if !given {
			errs = append(errs, errors.New(name+" is missing"))
		}
	}
	need("Addr", c.Addr != "")
	need("File", c.File != "")
	need("Token", c.Token != "")
	need("Log", c.Log != nil)
	need("Metrics", c.Metrics != nil)
	return errors.Join(errs...)
}

// Server is one meta server.
type Server struct {
	listener net.Listener
	handler  http.Handler
	catalog  *catalog.Catalog
	log      *slog.Logger
}

// New reads the file and listens; it starts nothing. If the file is not valid the
// error names every mistake in it by line.
func New(cfg Config) (*Server, error) {
	err := cfg.validate()
	if err != nil {
		return nil, fmt.Errorf("configure the meta server: %w", err)
	}
	description, err := catalog.Open(cfg.File, cfg.Log, cfg.Metrics)
	if mistakes, ok := errors.AsType[catalog.Mistakes](err); ok {
		return nil, fmt.Errorf("meta file %s is not valid:\n%w", cfg.File, mistakes)
	}
	if err != nil {
		return nil, err
	}
	handler, err := httpapi.New(httpapi.Config{
		Source: description, Token: cfg.Token, File: cfg.File, Metrics: cfg.Metrics, Ready: cfg.Ready,
	})
	if err != nil {
		return nil, err
	}
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("meta server: %w", err)
	}
	return &Server{listener: listener, handler: handler, catalog: description, log: cfg.Log}, nil
}

// Addr is the address that the server listens on.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Network returns the description in force and a channel that is closed when it is
// that no more.
func (s *Server) Network() (*topology.Snapshot, <-chan struct{}) {
	state, changed := s.catalog.Current()
	return state.Snapshot, changed
}

// Reread takes the file as it is now, for whoever has just written it. It must
// return before Run is called.
func (s *Server) Reread() { s.catalog.Reread() }

// Close releases the listener of a server that is never run.
func (s *Server) Close() error { return s.listener.Close() }

// Run serves, and follows the file, until ctx ends or serving fails. It closes the
// listener and is called once.
func (s *Server) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	server := &http.Server{
		Handler:           s.handler,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      requestTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	errs := make(chan error, 3) // one from each goroutine: nothing blocks
	var running sync.WaitGroup
	running.Go(func() {
		defer stop()
		errs <- s.catalog.Run(ctx)
	})
	running.Go(func() {
		<-ctx.Done()
		errs <- shutDown(server)
	})
	running.Go(func() {
		defer stop()
		err := server.Serve(s.listener)
		if errors.Is(err, http.ErrServerClosed) {
			err = nil
		}
		errs <- err
	})
	running.Wait()
	close(errs)
	var all []error
	for err := range errs {
		all = append(all, err)
	}
	err := errors.Join(all...)
	if err != nil {
		return fmt.Errorf("run meta server: %w", err)
	}
	return nil
}

// shutDown lets requests under way end, those that wait for a snapshot end with
// the context of Run, and cuts off what takes too long.
func shutDown(server *http.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	err := server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return server.Close()
	}
	return err
}
