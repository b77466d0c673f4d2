// Package feed keeps the newest snapshot of the network at hand: it waits at the
// meta server for the next version, and remembers the last one in a file for a
// start without the meta server.
package feed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/topology"
)

const (
	// waitAtServer is how long the meta server keeps a request waiting for the next
	// version.
	waitAtServer = 25 * time.Second
	// requestTimeout bounds a request that waits, firstTimeout one that does not:
	// after that the copy in the file must do for the time being.
	requestTimeout = waitAtServer + 10*time.Second
	firstTimeout   = 3 * time.Second
	// leastPause lies between any two requests, so that servers that disagree cannot
	// keep us busy; half of it is drawn at random.
	leastPause = 200 * time.Millisecond
	// mostPause bounds the pauses after errors, which double.
	mostPause = 2 * time.Second
)

// Config says where snapshots come from.
type Config struct {
	// Domain is the one that the process is of: a network without it is worth a
	// warning.
	Domain string
	// URL is the base of the meta server, such as http://127.0.0.1:9000.
	URL string
	// Token is what the meta server wants to see of services.
	Token string
	// Cache is the file that holds the last good snapshot, readable by its owner
	// only because of the secrets in it; none if empty.
	Cache string
	Log   *slog.Logger
	// Metrics takes the metrics of one Feed at most.
	Metrics prometheus.Registerer
}

// Feed holds the newest snapshot. Its methods may be called by any number of
// goroutines.
//
// Versions of one meta server only rise. A lower one comes from a server that was
// started anew with an older file, or from another one. If it describes the
// same network it is ignored, if another network it is taken, because what the
// server says now is what its operators want. So whoever follows the feed takes
// what is current and does not compare versions.
type Feed struct {
	domain   string
	endpoint string
	token    string
	cache    string
	log      *slog.Logger
	client   *http.Client
	failures prometheus.Counter
	version  prometheus.Gauge

	current atomic.Pointer[topology.Snapshot] // stored with mu held

	mu          sync.Mutex
	subscribers map[chan struct{}]struct{} // guarded by mu

	// Owned by Run.
	seen string // ETag of the server's last answer
	away bool   // whether the last request was in vain
}

// New checks the configuration; it starts nothing and asks nobody.
func New(cfg Config) (*Feed, error) {
	base, err := url.Parse(cfg.URL)
	switch {
	case err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "":
		return nil, errors.New("configure the topology feed: the URL of the meta server is not an http:// or https:// URL")
	case cfg.Token == "":
		return nil, errors.New("configure the topology feed: the token of the meta server is missing")
	case cfg.Log == nil:
		return nil, errors.New("configure the topology feed: the logger is missing")
	}
	f := &Feed{
		failures: prometheus.NewCounter(prometheus.CounterOpts{Name: "linker_feed_failures_total", Help: "Requests for the description of the network that were in vain."}),
		version:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "linker_feed_version_milliseconds", Help: "Version of the description of the network that is in force."}),
		domain:   cfg.Domain,
		endpoint: base.JoinPath("snapshot").String(),
		token:    cfg.Token,
		cache:    cfg.Cache,
		log:      cfg.Log,
		client: &http.Client{
			Transport: &http.Transport{DialContext: (&net.Dialer{Timeout: firstTimeout}).DialContext},
			// A redirect could carry the token elsewhere.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		subscribers: make(map[chan struct{}]struct{}),
	}
	for _, c := range []prometheus.Collector{f.failures, f.version} {
		if err := cfg.Metrics.Register(c); err != nil {
			return nil, fmt.Errorf("register the metrics of the topology feed: %w", err)
		}
	}
	return f, nil
}

// Current returns the newest snapshot; nil until there is a first one.
func (f *Feed) Current() *topology.Snapshot { return f.current.Load() }

// Describes says whether the newest snapshot knows the domain of this process.
func (f *Feed) Describes() bool {
	s := f.Current()
	if s == nil {
		return false
	}
	_, known := s.Domain(f.domain)
	return known
}

// Subscribe returns a channel that receives whenever Current has changed since the
// last receive; changes that come quickly one after another are told as one. If
// there is a snapshot already, the channel holds a first value. The channel is
// never closed; stop ends the subscription and may be called more than once.
func (f *Feed) Subscribe() (changed <-chan struct{}, stop func()) {
	ch := make(chan struct{}, 1) // when full, the subscriber is told already
	f.mu.Lock()
	defer f.mu.Unlock()
	f.subscribers[ch] = struct{}{}
	if f.Current() != nil {
		ch <- struct{}{}
	}
	return ch, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.subscribers, ch)
	}
}

// Run follows the meta server until ctx ends; then it returns nil. While the meta
// server is away the last snapshot stays current, from the file if there was none.
func (f *Feed) Run(ctx context.Context) error {
	defer f.client.CloseIdleConnections()
	pause := leastPause
	for {
		err := f.ask(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			f.missing(err)
			pause = min(2*pause, mostPause)
		default:
			f.found()
			pause = leastPause
		}
		timer := time.NewTimer(pause/2 + rand.N(pause/2))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

// ask gets the next snapshot. The first request, and the first after an error, do
// not wait for one.
func (f *Feed) ask(ctx context.Context) error {
	wait, timeout := waitAtServer, requestTimeout
	if f.away || f.seen == "" {
		wait, timeout = 0, firstTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	answer, err := f.fetch(ctx, wait)
	if err != nil || answer == nil {
		return err
	}
	f.seen = answer.etag
	f.take(answer)
	return nil
}

// take makes an answer current unless it says the same or less.
func (f *Feed) take(a *answer) {
	previous := f.Current()
	if previous != nil && a.snapshot.Version <= previous.Version {
		if a.snapshot.SameNetwork(previous) {
			return
		}
		f.log.Warn("meta server went back to a lower version with another network, it is taken",
			"version", a.snapshot.Version, "previous", previous.Version)
	}
	f.publish(a.snapshot)
	f.log.Info("topology is current", "version", a.snapshot.Version)
	if f.cache == "" {
		return
	}
	err := writeCache(f.cache, a.body)
	if err != nil {
		f.log.Warn("topology cannot be kept for a start without the meta server", "error", err)
	}
}

func (f *Feed) publish(s *topology.Snapshot) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, known := s.Domain(f.domain); !known {
		f.log.Warn("the network has no domain of this name: is it written as in the file of the meta server?", "domain", f.domain)
	}
	f.current.Store(s)
	f.version.Set(float64(s.Version))
	for ch := range f.subscribers {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// missing notes that the meta server does not answer: once, until it does again.
func (f *Feed) missing(err error) {
	f.failures.Inc()
	if f.away {
		return
	}
	f.away = true
	f.log.Warn("meta server does not answer, the last topology stays current", "error", err)
	if f.cache == "" || f.Current() != nil {
		return
	}
	snapshot, err := readCache(f.cache)
	if err != nil {
		f.log.Warn("there is no topology from an earlier run", "error", err)
		return
	}
	f.publish(snapshot)
	f.log.Warn("topology of an earlier run is current until the meta server answers", "version", snapshot.Version)
}

func (f *Feed) found() {
	if f.away {
		f.away = false
		f.log.Info("meta server answers again")
	}
}

// answer is a snapshot and the form it came in.
type answer struct {
	snapshot *topology.Snapshot
	body     []byte
	etag     string
}

// fetch returns nil if the server had nothing new for as long as it was to wait.
func (f *Feed) fetch(ctx context.Context, wait time.Duration) (*answer, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, f.endpoint+"?wait="+wait.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("ask for the snapshot: %w", err)
	}
	request.Header.Set("Authorization", "Bearer "+f.token)
	if f.seen != "" {
		request.Header.Set("If-None-Match", f.seen)
	}
	response, err := f.client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask for the snapshot: %w", err)
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK:
		return readAnswer(response)
	case http.StatusNotModified:
		return nil, nil
	case http.StatusUnauthorized:
		return nil, errors.New("ask for the snapshot: the meta server does not accept the token")
	default:
		return nil, fmt.Errorf("ask for the snapshot: the meta server answered %s", response.Status)
	}
}
