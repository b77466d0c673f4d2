// Package system runs a network of domains as processes of their own, so that they
// can be hurt: a meta server, and for each domain connectors, processors and the
// servers they stand on, with proxies on the links between the domains. It also
// says what it finds in them afterwards.
//
// What it runs are the programs of the repository, without any change but the
// failpoints that they are built with. Everything listens on this machine only.
package system

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

const (
	lanes = 4 // of each domain

	connectorsEach = 2
	processorsEach = 2

	// drainSpread is over which a connector sends its clients away that is told to end.
	drainSpread = "2s"

	// The ports of a block. standalone has those of each domain 100 above those of the
	// one before, which is the length of a block.
	portMeta      = 0
	portConsole   = 1
	portKafka     = 2
	portNATS      = 3
	portRedis     = 4
	portConnector = 10 // three for each connector: websocket, link, HTTP
	portProcessor = 40
	portsUsed     = 50
)

// MaxEach is how many connectors, and how many processors, a domain can have.
const MaxEach = (portProcessor - portConnector) / 3

// System is a network of domains. Its methods may be called by any goroutine, after
// New and until Close.
type System struct {
	cfg       Config
	ports     *ports
	metaToken string
	httpToken string
	domains   []Domain
	processes []*Process // static; in the order of starting
	views     *views     // nil: standalone
	names     []string   // of the domains
	secrets   []string   // static: what no log may hold

	mu          sync.Mutex
	description description // guarded by mu
}

// New prepares a system: it binds the ports of proxies, reserves those of the
// processes, and writes the network's file. It starts no process.
func New(cfg Config) (*System, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, err
	}
	cfg.Dir = dir
	s := &System{cfg: cfg, metaToken: rand.Text(), httpToken: rand.Text()}
	s.secrets = []string{s.metaToken, s.httpToken}
	if err := s.prepare(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *System) prepare() error {
	for _, dir := range []string{s.dataDir(), s.logDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	var err error
	if s.ports, err = reservePorts(s.cfg.Domains, portsUsed); err != nil {
		return err
	}
	s.name()
	pairs := s.Links()
	for _, pair := range pairs {
		key := rand.Text()
		s.description.links = append(s.description.links, describedLink{pair[0], pair[1], key})
		s.secrets = append(s.secrets, key)
	}
	linkPorts := map[string][]string{}
	for n, name := range s.names {
		linkPorts[name] = s.linkPorts(n)
	}
	if !s.cfg.Standalone {
		if s.views, err = newViews("http://"+address(s.ports.port(0, portMeta)), pairs, linkPorts); err != nil {
			return err
		}
	}
	for n, name := range s.names {
		d := Domain{Name: name, First: int64(n) * HomeRange}
		var urls []string
		for _, link := range linkPorts[name] {
			urls = append(urls, "tcp://"+link)
		}
		for _, port := range s.websocketPorts(n) {
			d.URLs = append(d.URLs, "ws://"+address(port)+"/ws")
			urls = append(urls, "ws://"+address(port))
		}
		s.domains = append(s.domains, d)
		s.description.domains = append(s.description.domains, described{name, urls})
	}
	s.description.apps, s.description.moved = s.Apps(), map[string]string{}
	if err := s.description.write(s.networkFile()); err != nil {
		return err
	}
	s.list()
	return nil
}

// name names the domains. On servers that others use, nobody else has such names.
func (s *System) name() {
	prefix := "domain"
	if s.cfg.Servers != (Servers{}) {
		var random [4]byte
		_, _ = rand.Read(random[:])
		prefix = "t" + hex.EncodeToString(random[:])
	}
	for n := range s.cfg.Domains {
		s.names = append(s.names, fmt.Sprintf("%s-%02d", prefix, n+1))
	}
}

func (s *System) connectors() int {
	if s.cfg.Standalone {
		return 1
	}
	return cmp.Or(s.cfg.Connectors, connectorsEach)
}

// always is what fails in every life of a process.
func (s *System) always() string {
	if s.cfg.Unhurt {
		return ""
	}
	return Always()
}

func (s *System) linkPorts(domain int) []string {
	var list []string
	for n := range s.connectors() {
		list = append(list, address(s.ports.port(domain, portConnector+3*n+1)))
	}
	return list
}

func (s *System) websocketPorts(domain int) []int {
	var list []int
	for n := range s.connectors() {
		list = append(list, s.ports.port(domain, portConnector+3*n))
	}
	return list
}

// list makes the processes.
func (s *System) list() {
	at := func(block, n int) string { return address(s.ports.port(block, n)) }
	meta := "http://" + at(0, portMeta)
	if s.cfg.Standalone {
		port := func(n int) string { return fmt.Sprint(s.ports.port(0, n)) }
		p := &Process{name: "standalone", role: Standalone, ready: meta + "/readyz", always: s.always()}
		for n := range s.names {
			p.http = append(p.http, "http://"+at(n, portProcessor)) // which tells those of the connector as well
		}
		s.add(p, "standalone",
			"--data", s.standaloneDir(), "--meta", s.networkFile(), "--host", "127.0.0.1", "--log-level", "INFO",
			"--websocket-port", port(portConnector), "--link-port", port(portConnector+1), "--connector-http-port", port(portConnector+2),
			"--processor-http-port", port(portProcessor), "--meta-port", port(portMeta), "--console-port", port(portConsole))
		return
	}
	s.add(&Process{name: "metaserver", role: Metaserver, http: []string{meta}, ready: meta + "/readyz", environ: []string{"LINKER_TOKEN=" + s.metaToken}}, "metaserver",
		"--listen", at(0, portMeta), "--file", s.networkFile())
	for n, domain := range s.names {
		s.addServers(n, domain)
	}
	for n, domain := range s.names {
		common := func(name string) []string {
			on := s.on(n)
			return []string{
				"--domain", domain, "--lanes", fmt.Sprint(lanes), "--kafka-hosts", on.Kafka, "--nats-url", on.NATS, "--redis-url", on.Redis,
				"--meta-url", s.views.url(domain), "--meta-cache", filepath.Join(s.dataDir(), strings.ReplaceAll(name, "/", "-")+".json"),
			}
		}
		for i := range cmp.Or(s.cfg.Processors, processorsEach) {
			name, http := fmt.Sprintf("%s/processor-%d", domain, i+1), at(n, portProcessor+i)
			s.add(&Process{
				name: name, role: Processor, domain: domain, http: []string{"http://" + http}, ready: "http://" + http + "/readyz",
				environ: []string{"LINKER_META_TOKEN=" + s.metaToken, "LINKER_HTTP_TOKEN=" + s.httpToken}, always: s.always(),
			}, "processor", append(common(name), "--http-listen", http, "--mailbox-url", s.on(n).MongoDB)...)
		}
		for i := range s.connectors() {
			name, first := fmt.Sprintf("%s/connector-%d", domain, i+1), portConnector+3*i
			s.add(&Process{
				name: name, role: Connector, domain: domain, http: []string{"http://" + at(n, first+2)}, ready: "http://" + at(n, first+2) + "/readyz",
				environ: []string{"LINKER_META_TOKEN=" + s.metaToken}, always: s.always(),
			}, "connector", append(common(name), "--listen", at(n, first), "--link-listen", at(n, first+1), "--http-listen", at(n, first+2), "--drain-spread", drainSpread)...)
		}
	}
}

// addServers adds the embedded servers of a domain, unless there are real ones.
func (s *System) addServers(n int, domain string) {
	if s.cfg.Servers != (Servers{}) {
		return
	}
	port := func(n2 int) string { return fmt.Sprint(s.ports.port(n, n2)) }
	p := &Process{name: domain + "/servers", role: Brokers, domain: domain, ready: address(s.ports.port(n, portRedis))}
	s.add(p, "", append(slices.Clone(s.cfg.Self[1:]), "--data", filepath.Join(s.dataDir(), domain, "kafka"),
		"--kafka-port", port(portKafka), "--nats-port", port(portNATS), "--redis-port", port(portRedis))...)
	p.path = s.cfg.Self[0]
}

// on is where the servers of a domain are. MongoDB is the URL of the mailbox.
func (s *System) on(n int) Servers {
	if s.cfg.Servers != (Servers{}) {
		return s.cfg.Servers
	}
	at := func(port int) string { return address(s.ports.port(n, port)) }
	return Servers{
		Kafka: at(portKafka), NATS: "nats://" + at(portNATS), Redis: "redis://" + at(portRedis), MongoDB: "file:" + s.mailboxDir(n) + "?shared=true",
	}
}

// mailboxDir is where the mailbox of the n-th domain is, from 0. A standalone keeps
// that of domain-01 beside those of the others.
func (s *System) mailboxDir(n int) string {
	switch {
	case !s.cfg.Standalone:
		return filepath.Join(s.dataDir(), s.names[n], "mailbox")
	case n == 0:
		return filepath.Join(s.standaloneDir(), "mailbox")
	default:
		return filepath.Join(s.standaloneDir(), s.names[n], "mailbox")
	}
}

func (s *System) standaloneDir() string { return filepath.Join(s.dataDir(), "standalone") }
func (s *System) dataDir() string       { return filepath.Join(s.cfg.Dir, "data") }
func (s *System) logDir() string        { return filepath.Join(s.cfg.Dir, "logs") }
func (s *System) networkFile() string   { return filepath.Join(s.cfg.Dir, "network.yaml") }

// add completes a process that runs a program of the repository.
func (s *System) add(p *Process, program string, args ...string) {
	p.path, p.args = filepath.Join(s.cfg.Bin, program), args
	p.environ = slices.Concat(s.cfg.Environ, p.environ)
	p.log = filepath.Join(s.logDir(), strings.ReplaceAll(p.name, "/", "-")+".log")
	p.report = func(text string) {
		if s.cfg.Report != nil {
			s.cfg.Report(p.name, text)
		}
	}
	s.processes = append(s.processes, p)
}

// Domains returns the domains, as clients see them.
func (s *System) Domains() []Domain { return slices.Clone(s.domains) }

// Processes returns those that do this in the domain; "" stands for any role, and
// for any domain.
func (s *System) Processes(role Role, domain string) []*Process {
	return slices.DeleteFunc(slices.Clone(s.processes), func(p *Process) bool {
		return role != "" && p.role != role || domain != "" && p.domain != domain
	})
}

// Process returns the process of that name.
func (s *System) Process(name string) (*Process, error) {
	for _, p := range s.processes {
		if p.name == name {
			return p, nil
		}
	}
	return nil, fmt.Errorf("there is no process %q", name)
}

// Links returns the pairs of domains that are linked.
func (s *System) Links() [][2]string {
	if s.cfg.Line {
		return line(s.names)
	}
	return ring(s.names)
}

// AddSecret adds what no log may hold. It is called before Run.
func (s *System) AddSecret(secret string) { s.secrets = append(s.secrets, secret) }

// Run starts everything, and ends it in good order when ctx ends.
func (s *System) Run(ctx context.Context) error {
	base, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var serving sync.WaitGroup
	var viewsErr error
	if s.views != nil {
		serving.Go(func() { viewsErr = s.views.run(base) })
	}
	var failed error
	for _, p := range s.processes {
		if failed = p.Start(""); failed != nil {
			break
		}
	}
	if failed == nil {
		<-ctx.Done()
	}
	failed = errors.Join(failed, s.end())
	stop()
	serving.Wait()
	return errors.Join(failed, viewsErr, s.ports.Close())
}

// end ends all processes: the connectors first, then what they need.
func (s *System) end() error {
	var failed error
	for _, role := range []Role{Standalone, Connector, Processor, Metaserver, Brokers} {
		list := s.Processes(role, "")
		errs := make([]error, len(list))
		var ending sync.WaitGroup
		for i, p := range list {
			ending.Go(func() { errs[i] = p.close(true) })
		}
		ending.Wait()
		failed = errors.Join(failed, errors.Join(errs...))
	}
	return failed
}

// Close releases a system that is never run.
func (s *System) Close() error {
	var failed error
	if s.views != nil {
		failed = s.views.close()
	}
	if s.ports != nil {
		failed = errors.Join(failed, s.ports.Close())
	}
	return failed
}
