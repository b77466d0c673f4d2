package stack

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/linkerhq/linker/pkg/topology"
)

// openAgain is how long after an attempt in vain the next one is made to open a
// domain that was added to the network.
const openAgain = 5 * time.Second

// running returns the domains that were opened, in the order of their ports.
func (s *Stack) running() []*domain {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.domains)
}

// openDomains opens what the network file describes, in its order.
func (s *Stack) openDomains() error {
	snapshot, _ := s.metaserv.Network()
	network := snapshot.Network()
	if err := s.checkNetwork(len(network.Domains)); err != nil {
		return err
	}
	for _, described := range network.Domains {
		if _, err := s.addDomain(described.Name); err != nil {
			return err
		}
	}
	return s.correctPorts(network)
}

// addDomain opens a domain as the next one.
func (s *Stack) addDomain(name string) (*domain, error) {
	d, err := s.openDomain(name, len(s.running())+1)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.domains = append(s.domains, d)
	return d, nil
}

// runDomains runs all domains until ctx ends or one of them fails, and those that
// are added to the network meanwhile. They stop side by side.
func (s *Stack) runDomains(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, maxDomains) // one from each: nothing blocks
	launched := 0
	launch := func(d *domain) {
		launched++
		go func() { ended <- d.run(ctx) }()
	}
	for _, d := range s.running() {
		launch(d)
	}
	f := follower{stack: s, launch: launch}
	var err error
	for ctx.Err() == nil {
		snapshot, changed := s.metaserv.Network()
		var again <-chan time.Time // never comes
		if !f.follow(snapshot.Network()) {
			again = time.After(openAgain)
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-again:
		case err = <-ended:
			launched--
			cancel()
		}
	}
	for range launched {
		err = errors.Join(err, <-ended)
	}
	return err
}

// follower starts what is added to the network. It is owned by runDomains.
type follower struct {
	stack    *Stack
	launch   func(*domain)
	leaving  []string // domains that run and are not in the network any more
	complain string   // what the operator was told last about a domain that cannot be opened
}

// follow compares the network with what runs, and says whether all of it does.
func (f *follower) follow(network topology.Network) bool {
	log := f.stack.cfg.Log
	var mistake error
	for _, described := range network.Domains {
		running := f.stack.running()
		if slices.ContainsFunc(running, func(d *domain) bool { return d.name == described.Name }) {
			continue
		}
		if len(running) == maxDomains {
			mistake = errTooMany
			break
		}
		d, err := f.stack.addDomain(described.Name)
		if err != nil {
			mistake = err
			break // the order is that of the ports
		}
		at := d.place()
		log.Warn("domain was added to the network and starts", "domain", d.name,
			"websocket", at.Websocket, "link", at.Link, "connector", at.Connector, "processor", at.Processor)
		f.launch(d)
	}
	f.tell(mistake)
	f.leave(network)
	return mistake == nil
}

var errTooMany = errors.New("as many domains run as may in one process, those that were removed from the network since the start included")

// tell logs why not all domains run, once for each reason.
func (f *follower) tell(mistake error) {
	text := ""
	if mistake != nil {
		text = mistake.Error()
	}
	if text != "" && text != f.complain {
		f.stack.cfg.Log.Error("domain of the network cannot be started", "error", mistake, "limit", maxDomains)
	}
	f.complain = text
}

// leave tells of domains that were removed: what they hold may still have to be
// handed on, so they run until the end.
func (f *follower) leave(network topology.Network) {
	var leaving []string
	for _, d := range f.stack.running() {
		if slices.ContainsFunc(network.Domains, func(described topology.Domain) bool { return described.Name == d.name }) {
			continue
		}
		leaving = append(leaving, d.name)
		if !slices.Contains(f.leaving, d.name) {
			f.stack.cfg.Log.Warn("domain was removed from the network; it runs until the next start, for it may have messages to hand on", "domain", d.name)
		}
	}
	f.leaving = leaving
}
