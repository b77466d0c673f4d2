package e2e

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/linkerhq/linker/standalone/internal/stack"
)

// shared is the system that all tests use which break nothing. Its users and
// apps are given out one after another, so that no two tests have the same.
var shared *system

// Secrets that no log may ever hold.
const (
	secretToken   = "t0ken-that-nobody-may-log"
	secretContent = "c0ntent-that-nobody-may-log"
)

// readyPatience is how long a system may take to start: everything at once, on a
// busy machine.
const readyPatience = time.Minute

// parallel is how many tests run side by side: they wait more than they compute. On
// real servers each may have six processes of its own, all of them on one Kafka.
const (
	parallel           = "16"
	parallelOnServices = "2"
)

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := runAll(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "the shared system:", err)
		code = 1
	}
	os.Exit(code)
}

func runAll(m *testing.M) (code int, err error) {
	side := parallel
	if os.Getenv("KAFKA_HOSTS") != "" {
		side = parallelOnServices
	}
	if err := flag.Set("test.parallel", side); err != nil {
		return 1, err
	}
	dir, err := os.MkdirTemp("", "linker-e2e")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	binaryDir = dir
	callback := httptest.NewServer(http.HandlerFunc(answerAuth))
	defer callback.Close()
	log := &watchedLog{}
	shared, err = newSystem(dir, setup{network: sharedNetwork(callback.URL), log: log.logger(), debug: true})
	if err != nil {
		return 1, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- shared.Run(ctx) }()
	if err := shared.awaitReady(ctx); err != nil {
		cancel()
		return 1, errors.Join(err, <-ended)
	}
	code = m.Run()
	cancel()
	return code, errors.Join(<-ended, log.secrets())
}

// watchedLog takes everything down to debug, keeps none of it, and notes
// secrets.
type watchedLog struct {
	mu   sync.Mutex
	told []string // guarded by mu; records with a secret
}

func (w *watchedLog) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (w *watchedLog) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(secretToken)) || bytes.Contains(p, []byte(secretContent)) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.told = append(w.told, string(p))
	}
	return len(p), nil
}

func (w *watchedLog) secrets() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.told) > 0 {
		return fmt.Errorf("%d log records hold a secret, such as %s", len(w.told), w.told[0])
	}
	return nil
}

// running is a domain as tests see it from outside, whatever it runs on.
type running interface {
	Ready(context.Context) error // returns when clients can log in and send
	Run(context.Context) error
	WebsocketURL() string // where there are several connectors, of each in turn
	MetaURL() string
	ConsoleURL() string
	NetworkFile() string
	Endpoints() []stack.Endpoint
}

// system is a whole domain: in this process, with embedded brokers, or, where
// servers are given, of processes of its own.
type system struct {
	running
	domain string
}

// setup is what a test wants of its system.
type setup struct {
	network    string       // YAML, in which home stands for the domain; empty: that of a fresh start
	origins    []string     // of pages that may connect; empty: any
	frameLimit int          // bytes; 0: the default
	log        *slog.Logger // of a system in this process; nil: none
	debug      bool         // processes log everything
	waiting    stack.Waiting

	environ     []string      // of the services
	drainSpread time.Duration // over which connectors send clients away
}

// home stands for the name of the domain in a description of the network.
const home = "HOME"

// newSystem prepares a system that keeps everything in dir.
func newSystem(dir string, s setup) (*system, error) {
	if on, given := givenServers(); given {
		c, err := newCluster(dir, on, s)
		if err != nil {
			return nil, err
		}
		return &system{c, c.domain}, nil
	}
	cfg := stack.Config{
		Data: filepath.Join(dir, "data"), Host: "127.0.0.1", Origins: s.origins, FrameLimit: s.frameLimit, Waiting: s.waiting, DrainSpread: s.drainSpread,
		Log: cmp.Or(s.log, slog.New(slog.DiscardHandler)),
	}
	if s.network != "" {
		cfg.Meta = filepath.Join(dir, "network.yaml")
		if err := os.WriteFile(cfg.Meta, []byte(strings.ReplaceAll(s.network, home, stack.Domain)), 0o600); err != nil {
			return nil, err
		}
	}
	inside, err := stack.New(cfg)
	if err != nil {
		return nil, err
	}
	return &system{inside, stack.Domain}, nil
}

func (s *system) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyPatience)
	defer cancel()
	if err := s.Ready(ctx); err != nil {
		return fmt.Errorf("the system is not ready: %w", err)
	}
	return nil
}

// start runs a system for one test and waits until it is ready.
func start(t *testing.T, cfg setup) *system {
	t.Helper()
	s, err := newSystem(t.TempDir(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the system ended with %v", err)
		}
	})
	if err := s.awaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// endpoint is where what has this name listens; where several do, the first.
func (s *system) endpoint(name string) string {
	for _, e := range s.Endpoints() {
		if e.Name == name {
			return e.URL
		}
	}
	return ""
}

// dial opens a websocket to the system.
func (s *system) dial(t *testing.T) *client {
	t.Helper()
	return dial(t, s.WebsocketURL())
}

// login logs a user in, as a client of the base protocol unless features are
// given.
func (s *system) login(t *testing.T, user string, features ...string) *client {
	t.Helper()
	return login(t, s.WebsocketURL(), user, features...)
}

// loginWithHints logs a user in with an empty list of features.
func (s *system) loginWithHints(t *testing.T, user string) *client {
	t.Helper()
	return login(t, s.WebsocketURL(), user, []string{}...)
}

func login(t *testing.T, url, user string, features ...string) *client {
	t.Helper()
	c, err := tryLogin(t, url, user, features...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// tryLogin may be called by any goroutine. features that are nil are not sent.
func tryLogin(t *testing.T, url, user string, features ...string) (*client, error) {
	c, err := tryDial(t, url)
	if err != nil {
		return nil, err
	}
	return c, c.authenticate(user, patience, features...)
}

// authenticate logs the user in. It may be called by any goroutine.
func (c *client) authenticate(user string, within time.Duration, features ...string) error {
	c.user, c.accepts = user, slices.Contains(features, "accept")
	if err := c.write(auth(user, features...)); err != nil {
		return err
	}
	f, err := c.receive(within)
	if err != nil {
		return fmt.Errorf("login of %s: %w", user, err)
	}
	if f.Type != "AUTH_CLIENT_REPLY" || f.Data.IsAuthenticated == nil || !*f.Data.IsAuthenticated {
		return fmt.Errorf("login of %s: got %v", user, f)
	}
	return nil
}

// auth is a login frame with the app id that the user's app has here.
func auth(user string, features ...string) string {
	list := ""
	if features != nil {
		list = `,"features":` + quoted(features)
	}
	return fmt.Sprintf(`{"type":"AUTH_CLIENT","data":{"appId":%s,"userId":%s,"token":%s%s}}`,
		quoted(appID(user)), quoted(user), quoted(secretToken), list)
}

func appID(user string) string {
	name, _, _ := strings.Cut(user, "-")
	switch name {
	case "ANZ":
		return "app-id-343"
	case "BNZ":
		return "bnz-344"
	case "CNZ":
		return "cnz-34324"
	default:
		return "id-of-" + name
	}
}

var (
	lastUser atomic.Int64
	lastApp  atomic.Int64
)

// userOf returns a user of the app that nobody else has.
func userOf(app string) string { return fmt.Sprintf("%s-%d", app, 1000+lastUser.Add(1)) }

// newUser returns a user of ANZ that nobody else has.
func newUser() string { return userOf("ANZ") }

const (
	spareApps    = 60
	masterNumber = 7
)

// newApp returns an app that nobody else has, and its master.
func newApp(t *testing.T) (app, master string) {
	t.Helper()
	n := lastApp.Add(1)
	if n > spareApps {
		t.Fatal("no spare apps are left in the shared network")
	}
	app = fmt.Sprintf("SPARE%d", n)
	return app, masterOf(app)
}

func masterOf(app string) string { return fmt.Sprintf("%s-%d", app, masterNumber) }

// sharedNetwork describes the network of the shared system.
func sharedNetwork(callback string) string {
	var b strings.Builder
	b.WriteString("domains:\n  - {name: " + home + ", urls: ['tcp://127.0.0.1:9089', 'ws://127.0.0.1:8088']}\n" +
		"  - {name: domain-02, urls: ['tcp://127.0.0.1:9189', 'ws://two.example:8188', 'wss://two.example']}\nclientApps:\n")
	app := func(name, more string) {
		fmt.Fprintf(&b, "  - {appName: %s, appId: %s, masterUserId: %s%s}\n", name, appID(name), masterOf(name), more)
	}
	for _, name := range []string{"ANZ", "BNZ", "CNZ"} {
		app(name, "")
	}
	for n := range spareApps {
		app(fmt.Sprintf("SPARE%d", n+1), "")
	}
	app("ONE", ", masterDelivery: one")
	app("FRIEND1", ", allowedApps: [FRIEND2]")
	app("FRIEND2", ", allowedApps: [FRIEND1]")
	app("ONESIDED", ", allowedApps: [ANZ]")
	app("SPLIT", ", userDistributions: [{domainName: "+home+", to: 99999}, {domainName: domain-02, from: 100000, to: 199999}]")
	app("NOURL", ", authEnabled: true")
	for name := range callbacks {
		app(name, ", authEnabled: true, authUrl: '"+callback+"/"+name+"'")
	}
	return b.String()
}

// within fails the test if something takes longer than it may. The machine that
// the tests run on gets as much again.
func within(t *testing.T, what string, limit time.Duration, began time.Time) {
	t.Helper()
	if took := time.Since(began); took > 2*limit {
		t.Errorf("%s took %v, expected at most %v", what, took.Round(time.Millisecond), limit)
	}
}
