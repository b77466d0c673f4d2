package system

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

const (
	lookInterval = 50 * time.Millisecond
	askTimeout   = 3 * time.Second
)

// Ready waits until everything serves, all links are up and every lane has an owner,
// and says what is not so when ctx ends.
func (s *System) Ready(ctx context.Context) error {
	for _, p := range s.processes {
		if err := until(ctx, func() error { return p.Serves(ctx) }); err != nil {
			return fmt.Errorf("%s is not ready: %w", p.name, err)
		}
	}
	for _, domain := range s.names {
		if err := until(ctx, func() error { return s.owned(ctx, domain) }); err != nil {
			return fmt.Errorf("%s is not ready: %w", domain, err)
		}
	}
	return nil
}

// until looks again and again until all is well, or ctx ends.
func until(ctx context.Context, look func() error) error {
	ticker := time.NewTicker(lookInterval)
	defer ticker.Stop()
	for {
		err := look()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-ticker.C:
		}
	}
}

// owned says whether every lane of a domain has an owner of whom the connectors hear.
func (s *System) owned(ctx context.Context, domain string) error {
	list, domains := s.Processes("", domain), 1
	if s.cfg.Standalone {
		list, domains = s.processes, len(s.names)
	}
	owned, silent := 0.0, 0.0
	for _, p := range list {
		samples, err := p.Metrics(ctx)
		if err != nil {
			return err
		}
		owned += Sum(samples, "linker_kafka_owned_lanes")
		silent += Sum(samples, "linker_downlink_silent_lanes")
	}
	if int(owned) != lanes*domains || silent > 0 {
		return fmt.Errorf("%v of %d lanes have an owner, and connectors do not hear of %v", owned, lanes*domains, silent)
	}
	return nil
}

// Serves says why the process does not serve, or which links it lacks; nil: all is
// well.
func (p *Process) Serves(ctx context.Context) error {
	if !p.Running() {
		return errors.New("it does not run")
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if !strings.HasPrefix(p.ready, "http://") {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", p.ready)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	code, body, err := get(ctx, p.ready, "")
	switch text := strings.TrimSpace(string(body)); {
	case err != nil:
		return err
	case code != http.StatusOK || strings.Contains(text, "links not up"):
		return errors.New(text)
	default:
		return nil
	}
}

// maxAnswer bounds what is read of an answer.
const maxAnswer = 16 << 20

func get(ctx context.Context, url, token string) (code int, body []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err = io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	return response.StatusCode, body, err
}
