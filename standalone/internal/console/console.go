// Package console serves one page with which a person tries a running system:
// it logs users in, sends and receives as they would, and shows every frame
// both ways. The page is plain HTML, CSS and ES modules, embedded as they are; the
// client that it uses, linker.js, is that of package js.
//
// It also shows the network as a picture: domains, the links between them, and which
// users are where. For that, and only while somebody looks, this package asks the
// processors of the domains; it changes nothing there.
//
// Otherwise the page speaks to the connectors itself, as any client does, and gets
// from here only files and the list of domains and apps.
package console

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"path"
	"time"

	"github.com/linkerhq/linker/pkg/client/js"
)

//go:embed static
var static embed.FS

// policy lets the page load nothing but its own files, talk to any websocket,
// and turn no string into HTML or script.
const policy = "default-src 'self'; connect-src 'self' ws: wss:; object-src 'none'; base-uri 'none'; " +
	"form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// Domain is a domain that the page shows, and offers to connect to if it has a URL
// or a port.
type Domain struct {
	Name string `json:"name"`
	// URL is the websocket endpoint, such as "wss://example.org/ws". Empty: the
	// page connects to Port on the host that it was loaded from.
	URL  string `json:"url,omitempty"`
	Port int    `json:"port,omitempty"`
	// Processor is the base URL of the HTTP port of a processor of the domain, such as
	// "http://127.0.0.1:8081", or of several with commas. Browsers do not learn it.
	// Empty: the picture shows of the domain only what the others say.
	Processor string `json:"-"`
}

func (d Domain) connectable() bool { return d.URL != "" || d.Port != 0 }

// App is a client app whose users the page offers to log in as.
type App struct {
	Name        string `json:"name"`
	AppID       string `json:"appId"`
	Master      string `json:"masterUserId"`
	AuthEnabled bool   `json:"authEnabled"` // false: the page says that no token is checked
}

// Config is what the console tells the page.
type Config struct {
	Domains []Domain        // in the order in which they are offered
	Find    func() []Domain // in place of Domains, called like Apps; an answer without any is told to the page
	Apps    func() []App    // called for each request, from many goroutines; nil offers none
	Token   string          // shown to processors; empty: they are on loopback and want none
	Ready   http.Handler    // answers /readyz; nil: there is none
	Log     *slog.Logger    // required
}

func (c Config) validate() error {
	if len(c.Domains) == 0 && c.Find == nil {
		return errors.New("no domains")
	}
	for i, d := range c.Domains {
		if d.URL == "" && (d.Port < 0 || d.Port > 65535 || d.Port == 0 && d.Processor == "") {
			return fmt.Errorf("domain %d (%q): neither a url nor a port from 1 to 65535", i, d.Name)
		}
	}
	return nil
}

// Server serves the console on a listener of its own.
type Server struct {
	listener   net.Listener // static
	http       *http.Server // static
	processors *observer    // static
}

// New binds addr and starts nothing.
func New(addr string, cfg Config) (*Server, error) {
	processors := newObserver(cfg.domains, cfg.Token)
	handler, err := handler(cfg, processors)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	return &Server{
		listener:   listener,
		processors: processors,
		http: &http.Server{
			Handler:           handler,
			ReadHeaderTimeout: 5 * time.Second,
			ReadTimeout:       10 * time.Second,
			WriteTimeout:      30 * time.Second,
			IdleTimeout:       time.Minute,
			MaxHeaderBytes:    8 << 10,
			ErrorLog:          slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),
		},
	}, nil
}

// Addr is where the console listens.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Close frees the listener of a server that is never run.
func (s *Server) Close() error { return s.listener.Close() }

// Run serves until ctx ends, then lets requests under way finish, for at most
// a second.
func (s *Server) Run(ctx context.Context) error {
	defer s.processors.client.CloseIdleConnections()
	served := make(chan error, 1)
	go func() { served <- s.http.Serve(s.listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("console: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := s.http.Shutdown(grace); err != nil {
		_ = s.http.Close() // the listener is closed already
	}
	<-served
	return nil
}

// domains lists the domains as they are now.
func (c Config) domains() []Domain {
	if c.Find != nil {
		return c.Find()
	}
	return c.Domains
}

// Handler serves the page, its files, /config.json, /api/network and, if there is one,
// /readyz. Everything else is 404, and every method but GET and HEAD is 405.
func Handler(cfg Config) (http.Handler, error) {
	return handler(cfg, newObserver(cfg.domains, cfg.Token))
}

func handler(cfg Config, processors *observer) (http.Handler, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/network", func(w http.ResponseWriter, r *http.Request) {
		picture, err := processors.look(r.Context())
		if err != nil {
			return // whoever asked has gone
		}
		serveJSON(w, picture)
	})
	mux.HandleFunc("GET /config.json", func(w http.ResponseWriter, _ *http.Request) {
		serveConfig(w, cfg)
	})
	if cfg.Ready != nil {
		mux.Handle("GET /readyz", cfg.Ready)
	}
	files, err := loadFiles()
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	for _, f := range files {
		mux.Handle("GET "+f.path, f)
	}
	return withPolicy(mux), nil
}

func serveConfig(w http.ResponseWriter, cfg Config) {
	answer := struct {
		Domains []Domain `json:"domains"`
		Apps    []App    `json:"apps"`
	}{Apps: []App{}}
	for _, d := range cfg.domains() {
		if d.connectable() {
			answer.Domains = append(answer.Domains, d)
		}
	}
	if len(answer.Domains) == 0 {
		http.Error(w, "the meta server names no domain that clients can connect to", http.StatusServiceUnavailable)
		return
	}
	if cfg.Apps != nil {
		answer.Apps = append(answer.Apps, cfg.Apps()...)
	}
	serveJSON(w, answer)
}

func serveJSON(w http.ResponseWriter, answer any) {
	body, err := json.Marshal(answer)
	if err != nil { // strings, numbers and booleans always can be encoded
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(body) // an error means that the browser has gone
}

// withPolicy adds to every answer, errors included, what browsers must be told.
func withPolicy(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		next.ServeHTTP(w, r)
	})
}

// file is one embedded file, immutable. Browsers ask each time whether their
// copy is still the right one, so that a new version shows at once.
type file struct {
	path        string // of the mux: "/{$}" for the page itself
	name        string
	contentType string
	etag        string
	body        []byte
}

func loadFiles() ([]file, error) {
	root, err := fs.Sub(static, "static")
	if err != nil {
		return nil, err
	}
	var files []file
	err = fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		f, err := loadFile(root, name)
		if err != nil {
			return err
		}
		if name == "index.html" {
			f.path = "/{$}"
		}
		files = append(files, f)
		return nil
	})
	if err != nil {
		return nil, err
	}
	client, err := loadFile(js.Files(), "linker.js")
	return append(files, client), err
}

func loadFile(root fs.FS, name string) (file, error) {
	body, err := fs.ReadFile(root, name)
	if err != nil {
		return file{}, err
	}
	contentType, err := contentTypeOf(name)
	if err != nil {
		return file{}, err
	}
	sum := sha256.Sum256(body)
	return file{path: "/" + name, name: name, contentType: contentType, etag: `"` + hex.EncodeToString(sum[:16]) + `"`, body: body}, nil
}

// contentTypeOf does not ask the host's own table, which differs from machine
// to machine.
func contentTypeOf(name string) (string, error) {
	switch path.Ext(name) {
	case ".html":
		return "text/html; charset=utf-8", nil
	case ".css":
		return "text/css; charset=utf-8", nil
	case ".js":
		return "text/javascript; charset=utf-8", nil
	case ".svg":
		return "image/svg+xml", nil
	default:
		return "", fmt.Errorf("%s: no content type for this kind of file", name)
	}
}

func (f file) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", f.contentType)
	h.Set("Cache-Control", "no-cache")
	h.Set("ETag", f.etag)
	http.ServeContent(w, r, f.name, time.Time{}, bytes.NewReader(f.body))
}
