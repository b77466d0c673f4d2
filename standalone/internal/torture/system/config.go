package system

import (
	"errors"
	"fmt"
)

// Servers are real ones that a system stands on. Its domains have names there that
// no other run has.
type Servers struct{ Kafka, NATS, Redis, MongoDB string }

func (s Servers) validate() error {
	if s == (Servers{}) {
		return nil
	}
	if s.Kafka == "" || s.NATS == "" || s.Redis == "" || s.MongoDB == "" {
		return errors.New("--kafka, --nats, --redis and --mongodb belong together: name all four, or none for embedded servers")
	}
	return nil
}

// How many domains a system can have: of processes of their own, and in one process.
const (
	MaxDomains           = 8
	MaxStandaloneDomains = 16
)

// Config says what to run.
type Config struct {
	Dir        string   // of the run: data, logs, the network's file; it must exist
	Bin        string   // directory of the programs
	Domains    int      // 1 to MaxDomains, or to MaxStandaloneDomains
	Line       bool     // the domains are linked in a line, and not in a ring
	Standalone bool     // all domains in one process, which has its servers in itself
	Connectors int      // of each domain, at most MaxEach; 0: two. A standalone has one
	Processors int      // the same
	Unhurt     bool     // nothing fails by itself, as it does in every life otherwise: see Always
	Servers    Servers  // real ones; zero: embedded ones, one process for each domain
	Control    string   // script that kills, starts, pauses and resumes the real servers, as deploy/native/services does; "": nothing can
	Self       []string // command that runs RunServers with the arguments that are added to it
	Environ    []string // of the processes

	// Report is told what should not have happened, such as a process that ended by
	// itself. It may be called by any goroutine.
	Report func(process, text string)
}

// Validate names every setting that cannot be used.
func (c Config) Validate() error {
	var mistakes []error
	most := MaxDomains
	if c.Standalone {
		most = MaxStandaloneDomains
	}
	if c.Domains < 1 || c.Domains > most {
		mistakes = append(mistakes, fmt.Errorf("%d domains: expected 1 to %d", c.Domains, most))
	}
	if c.Connectors < 0 || c.Connectors > MaxEach {
		mistakes = append(mistakes, fmt.Errorf("%d connectors: expected 0 to %d", c.Connectors, MaxEach))
	}
	if c.Processors < 0 || c.Processors > MaxEach {
		mistakes = append(mistakes, fmt.Errorf("%d processors: expected 0 to %d", c.Processors, MaxEach))
	}
	if c.Standalone && c.Servers != (Servers{}) {
		mistakes = append(mistakes, errors.New("standalone has its servers in itself: real ones cannot be given"))
	}
	if c.Control != "" && c.Servers == (Servers{}) {
		mistakes = append(mistakes, errors.New("a script for servers is of use with real ones only"))
	}
	return errors.Join(append(mistakes, c.Servers.validate())...)
}
