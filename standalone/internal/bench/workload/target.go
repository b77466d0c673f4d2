package workload

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/linkerhq/linker/standalone/internal/bench/message"
	"github.com/linkerhq/linker/standalone/internal/bench/swarm"
)

// newSwarm prepares so many clients; the n-th connects to the n-th URL, and so on in turn.
func (e Env) newSwarm(ctx context.Context, clients int) (*swarm.Swarm, error) {
	var targets []swarm.Target
	for _, text := range e.URLs {
		t, err := target(ctx, text)
		if err != nil {
			return nil, err
		}
		targets = append(targets, t)
	}
	e.Progress.Clients.Store(int64(clients))
	o := e.Options
	at := func(n int) swarm.Target { return targets[n%len(targets)] }
	if e.place != nil {
		at = func(n int) swarm.Target {
			url, _ := e.place(n)
			return targets[url%len(targets)]
		}
	}
	return swarm.New(swarm.Config{
		Connections: clients, Concurrency: o.Concurrency, LoginWithin: time.Duration(o.LoginWithin),
		Target: at, ComeBack: e.comeBack,
		Login: func(n int) message.Login {
			return message.Login{AppID: o.AppID, UserID: e.user(n), Token: o.Token, Features: o.Features}
		},
	})
}

// CheckURL says what is wrong with the URL of a websocket.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "ws" || u.Host == "" || u.User != nil {
		return fmt.Errorf("--url %q: expected ws://HOST:PORT/PATH", text)
	}
	return nil
}

// target finds out where a URL leads.
func target(ctx context.Context, text string) (swarm.Target, error) {
	if err := CheckURL(text); err != nil {
		return swarm.Target{}, err
	}
	u, err := url.Parse(text)
	if err != nil {
		return swarm.Target{}, err
	}
	port := u.Port()
	if port == "" {
		port = "80"
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return swarm.Target{}, fmt.Errorf("the port in %s: %w", text, err)
	}
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", u.Hostname())
	if err != nil {
		return swarm.Target{}, fmt.Errorf("find the server of %s: %w", text, err)
	}
	// IPv4 first: a loopback network has many addresses there.
	slices.SortStableFunc(found, func(a, b netip.Addr) int { return a.Unmap().BitLen() - b.Unmap().BitLen() })
	return swarm.Target{Addr: netip.AddrPortFrom(found[0].Unmap(), uint16(number)), Host: u.Host, Path: u.RequestURI()}, nil
}
