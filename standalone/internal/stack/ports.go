package stack

import (
	"errors"
	"fmt"
	"net"
	"strconv"
)

// portStep is how far the ports of a domain lie above those of the domain before.
const portStep = 100

// Ports are where the first domain listens, and the network as a whole. The n-th
// domain's lie 100·(n−1) above those of the first. 0 picks a free one, for each
// domain.
type Ports struct {
	Websocket     int
	Link          int
	ConnectorHTTP int
	ProcessorHTTP int
	Meta          int // of the network as a whole
	Console       int // of the network as a whole
}

// DefaultPorts are those that the documentation names.
func DefaultPorts() Ports {
	return Ports{Websocket: 8088, Link: 9089, ConnectorHTTP: 8080, ProcessorHTTP: 8081, Meta: 9000, Console: 4400}
}

// validate names every port that cannot be one.
func (p Ports) validate() error {
	var mistakes []error
	for _, c := range p.named() {
		if c.port < 0 || c.port > 65535 {
			mistakes = append(mistakes, fmt.Errorf("--%s %d: expected 0 to 65535", c.flag, c.port))
		}
	}
	return errors.Join(mistakes...)
}

// of returns the ports of the n-th domain, and an error if there are none left for
// it.
func (p Ports) of(n int) (Ports, error) {
	first := p.named()
	for _, port := range []*int{&p.Websocket, &p.Link, &p.ConnectorHTTP, &p.ProcessorHTTP} {
		if *port > 0 {
			*port += portStep * (n - 1)
		}
	}
	for i, c := range p.named() {
		if c.port > 65535 && first[i].port <= 65535 {
			return p, fmt.Errorf("--%s %d: the port of domain %d would be %d, expected at most 65535", c.flag, first[i].port, n, c.port)
		}
	}
	return p, nil
}

type namedPort struct {
	flag string
	port int
}

func (p Ports) named() []namedPort {
	return []namedPort{
		{"websocket-port", p.Websocket},
		{"link-port", p.Link},
		{"connector-http-port", p.ConnectorHTTP},
		{"processor-http-port", p.ProcessorHTTP},
		{"meta-port", p.Meta},
		{"console-port", p.Console},
	}
}

func portOr(port, standard int) int {
	if port == 0 {
		return standard
	}
	return port
}

func listenOn(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

func portOf(a net.Addr) int {
	_, p, err := net.SplitHostPort(a.String())
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(p)
	if err != nil {
		return 0
	}
	return n
}

// loopback is how this machine reaches an address that it listens on.
func loopback(a net.Addr) string {
	host, p, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, p)
}

// Endpoint is one place where the stack listens.
type Endpoint struct {
	Domain string // whose; empty: of the network as a whole
	Name   string
	URL    string
}

// Place is where one domain listens.
type Place struct{ Domain, Websocket, Link, Connector, Processor string }

func (d *domain) place() Place {
	return Place{
		Domain:    d.name,
		Websocket: "ws://" + loopback(d.connector.Addr()) + "/ws",
		Link:      "tcp://" + loopback(d.connector.LinkAddr()),
		Connector: "http://" + loopback(d.connector.HTTPAddr()),
		Processor: "http://" + loopback(d.processor.Addr()),
	}
}

// Places lists where the domains listen, the n-th at n-1.
func (s *Stack) Places() []Place {
	var list []Place
	for _, d := range s.running() {
		list = append(list, d.place())
	}
	return list
}

// Endpoints lists where what listens, domain by domain.
func (s *Stack) Endpoints() []Endpoint {
	var list []Endpoint
	for _, p := range s.Places() {
		list = append(list, Endpoint{p.Domain, "websocket", p.Websocket}, Endpoint{p.Domain, "link", p.Link},
			Endpoint{p.Domain, "connector", p.Connector}, Endpoint{p.Domain, "processor", p.Processor})
	}
	return append(list, Endpoint{"", "meta server", s.MetaURL()}, Endpoint{"", "console", s.ConsoleURL()})
}

// WebsocketURL is where clients of the first domain connect.
func (s *Stack) WebsocketURL() string { return s.Places()[0].Websocket }

// ConnectorURL is the health and the metrics of the first domain's connector.
func (s *Stack) ConnectorURL() string { return s.Places()[0].Connector }

// ProcessorURL is the health and the metrics of the first domain's processor.
func (s *Stack) ProcessorURL() string { return s.Places()[0].Processor }

// MetaURL is the meta server.
func (s *Stack) MetaURL() string { return "http://" + loopback(s.metaserv.Addr()) }

// ConsoleURL is the page for people.
func (s *Stack) ConsoleURL() string { return "http://" + loopback(s.console.Addr()) + "/" }

// NetworkFile is the YAML file that describes the network.
func (s *Stack) NetworkFile() string { return s.meta }
