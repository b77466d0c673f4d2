package e2e

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/linkerhq/linker/metaserver"
	"github.com/linkerhq/linker/standalone/internal/stack"
)

// servers are the real ones that clusters stand on.
type servers struct{ kafka, nats, redis, mongo string }

// givenServers returns the servers that the environment names, if it names all.
func givenServers() (servers, bool) {
	s := servers{os.Getenv("KAFKA_HOSTS"), os.Getenv("NATS_URL"), os.Getenv("REDIS_URL"), os.Getenv("MONGODB_URI")}
	return s, s.kafka != "" && s.nats != "" && s.redis != "" && s.mongo != ""
}

const (
	clusterLanes = "4"
	metaToken    = secretToken // so that logs are searched for it
	cleanupTime  = 20 * time.Second
)

// cluster is a domain of processes of its own on real servers. Everything of it
// there has the name of the domain, which no other has: its topics, keys,
// subjects and database. Each process has an address of its own on loopback, so
// that it can have the same ports every time it starts, and no two share one.
type cluster struct {
	domain  string
	servers servers
	dir     string
	logs    string
	subnet  string // such as 127.5.17.
	setup   setup
	turn    atomic.Int64 // of connectors

	mu      sync.Mutex
	members []*member                // guarded by mu; in the order of starting
	held    map[string]chan struct{} // guarded by mu; by program: closed when it may start
	broken  error                    // guarded by mu; why a process could not be started
}

// newCluster prepares a cluster of a meta server, two connectors, two processors
// and a console; Run starts them.
func newCluster(dir string, on servers, s setup) (*cluster, error) {
	if _, err := buildPrograms(); err != nil {
		return nil, err
	}
	var random [6]byte
	_, _ = rand.Read(random[:])
	c := &cluster{
		domain: "d-" + hex.EncodeToString(random[2:]), servers: on, dir: dir, setup: s, held: map[string]chan struct{}{},
		subnet: fmt.Sprintf("127.%d.%d.", 1+int(random[0])%254, random[1]),
	}
	c.logs = filepath.Join(dir, "logs")
	if keep := os.Getenv("LINKER_TEST_LOGS"); keep != "" {
		c.logs = filepath.Join(keep, c.domain)
	}
	if err := os.MkdirAll(c.logs, 0o700); err != nil {
		return nil, err
	}
	network := strings.ReplaceAll(s.network, home, c.domain)
	if network == "" {
		network = strings.ReplaceAll(string(metaserver.DefaultFile(9089, 8088)), stack.Domain, c.domain)
	}
	if err := os.WriteFile(c.NetworkFile(), []byte(network), 0o600); err != nil {
		return nil, err
	}
	c.add("metaserver", 1)
	for n := range 2 {
		c.add("connector", 11+n)
		c.add("processor", 21+n)
	}
	c.add("console", 31)
	return c, nil
}

// add prepares one more process; host is the last number of its address.
func (c *cluster) add(program string, host int) *member {
	m := &member{program: program, host: fmt.Sprint(c.subnet, host), environ: c.setup.environ, log: filepath.Join(c.logs, fmt.Sprintf("%s-%d.log", program, host%10))}
	cache := filepath.Join(c.dir, fmt.Sprintf("%s-%d-network.json", program, host))
	switch program {
	case "metaserver":
		m.args = []string{"--listen", m.host + ":9000", "--file", c.NetworkFile(), "--token", metaToken}
	case "console":
		m.args = []string{"--listen", m.host + ":4400", "--meta-url", c.MetaURL()}
	case "connector":
		m.args = append(c.common(cache), "--listen", m.host+":8088", "--link-listen", m.host+":9089", "--http-listen", m.host+":8080", "--drain-spread", c.setup.drainSpread.String())
		if len(c.setup.origins) > 0 {
			m.args = append(m.args, "--allowed-origins", strings.Join(c.setup.origins, ","))
		}
		if c.setup.frameLimit > 0 {
			m.args = append(m.args, "--frame-limit", fmt.Sprint(c.setup.frameLimit))
		}
	case "processor":
		m.args = append(c.common(cache), "--http-listen", m.host+":8081", "--mailbox-url", c.servers.mongo)
		if w := c.setup.waiting; w.QuotaRows > 0 {
			m.args = append(m.args, "--mailbox-quota-rows", fmt.Sprint(w.QuotaRows))
		}
		if w := c.setup.waiting; w.ExpireAfter > 0 {
			m.args = append(m.args, "--mailbox-expire-after", w.ExpireAfter.String())
		}
	}
	if c.setup.debug {
		m.args = append(m.args, "--log-level", "debug")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.members = append(c.members, m)
	return m
}

// common is what connectors and processors are told alike.
func (c *cluster) common(cache string) []string {
	return []string{
		"--domain", c.domain, "--lanes", clusterLanes, "--kafka-hosts", c.servers.kafka, "--nats-url", c.servers.nats,
		"--redis-url", c.servers.redis, "--meta-url", c.MetaURL(), "--meta-token", metaToken, "--meta-cache", cache,
	}
}

// remove forgets a process that has ended.
func (c *cluster) remove(m *member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.members = slices.DeleteFunc(c.members, func(other *member) bool { return other == m })
}

// all returns the members that run this program, "" for all of them.
func (c *cluster) all(program string) []*member {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(c.members), func(m *member) bool { return program != "" && m.program != program })
}

// running returns those of them that run.
func (c *cluster) running(program string) []*member {
	return slices.DeleteFunc(c.all(program), func(m *member) bool { return !m.runs() })
}

// hold keeps a program from being started by Run until release is called.
func (c *cluster) hold(program string) (release func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	until := make(chan struct{})
	c.held[program] = until
	return sync.OnceFunc(func() { close(until) })
}

// Run starts the processes, ends them in good order when ctx ends, and takes
// what they have left on the servers away.
func (c *cluster) Run(ctx context.Context) error {
	err := c.start(ctx)
	<-ctx.Done()
	err = errors.Join(err, c.stop())
	return errors.Join(err, c.clean(), c.mistakes())
}

// start starts all processes. Ready finds those that end by themselves.
func (c *cluster) start(ctx context.Context) error {
	err := c.startAll(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken = err
	return err
}

func (c *cluster) startAll(ctx context.Context) error {
	var mistakes []error
	for _, m := range c.all("") {
		c.mu.Lock()
		held := c.held[m.program]
		c.mu.Unlock()
		if held == nil {
			mistakes = append(mistakes, m.start())
		}
	}
	for program, until := range c.heldPrograms() {
		select {
		case <-until:
		case <-ctx.Done():
			return errors.Join(mistakes...)
		}
		for _, m := range c.all(program) {
			mistakes = append(mistakes, m.start())
		}
	}
	return errors.Join(mistakes...)
}

func (c *cluster) heldPrograms() map[string]chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.held)
}

// stop ends all processes as an operator does: the connectors first, then what
// they need.
func (c *cluster) stop() error {
	var mistakes []error
	for _, program := range []string{"connector", "processor", "console", "metaserver"} {
		list := c.all(program)
		failed := make([]error, len(list))
		var ending sync.WaitGroup
		for i, m := range list {
			ending.Go(func() {
				if m.started() {
					failed[i] = m.terminate()
				}
			})
		}
		ending.Wait()
		mistakes = append(mistakes, failed...)
	}
	return errors.Join(mistakes...)
}

// kill ends all processes at once, as a crash of the machine does.
func (c *cluster) kill() {
	var ending sync.WaitGroup
	for _, m := range c.running("") {
		ending.Go(func() { _ = m.kill() })
	}
	ending.Wait()
}

func (c *cluster) mistakes() error {
	var found []error
	for _, m := range c.all("") {
		found = append(found, m.mistakes())
	}
	return errors.Join(found...)
}

// clean takes the topics and the database away; what is in Redis expires by
// itself.
func (c *cluster) clean() error {
	ctx, cancel := context.WithTimeout(context.Background(), cleanupTime)
	defer cancel()
	transport := &kafka.Transport{}
	defer transport.CloseIdleConnections()
	client := &kafka.Client{Addr: kafka.TCP(strings.Split(c.servers.kafka, ",")...), Transport: transport}
	if _, err := client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{"in." + c.domain, "dead." + c.domain}}); err != nil {
		return fmt.Errorf("delete topics: %w", err)
	}
	if strings.HasPrefix(c.servers.mongo, "file:") {
		return nil // it goes with its directory
	}
	database, disconnect, err := c.database()
	if err != nil {
		return err
	}
	defer disconnect()
	if err := database.Drop(ctx); err != nil {
		return fmt.Errorf("drop the database: %w", err)
	}
	return nil
}

// database is the one that the processors use.
func (c *cluster) database() (database *mongo.Database, disconnect func(), err error) {
	client, err := mongo.Connect(options.Client().ApplyURI(c.servers.mongo))
	if err != nil {
		return nil, nil, fmt.Errorf("connect to MongoDB: %w", err)
	}
	return client.Database("linker_" + c.domain), func() { _ = client.Disconnect(context.Background()) }, nil
}

// Ready returns when every service says that it is, or with what keeps it.
func (c *cluster) Ready(ctx context.Context) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var waiting *member
	for {
		c.mu.Lock()
		broken := c.broken
		c.mu.Unlock()
		if broken != nil {
			return broken
		}
		waiting = nil
		for _, m := range c.all("") {
			if m.started() && !m.runs() {
				return m.named(m.awaitEnd(0))
			}
			if waiting == nil && m.ops() != "" && readyz(ctx, m.ops()) != http.StatusOK {
				waiting = m
			}
		}
		if waiting == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return waiting.named(ctx.Err())
		}
	}
}

// WebsocketURL is where clients connect: to each connector that runs in turn.
func (c *cluster) WebsocketURL() string {
	list := c.running("connector")
	if len(list) == 0 {
		list = c.all("connector")
	}
	return list[int(c.turn.Add(1))%len(list)].websocket()
}

// MetaURL is the meta server.
func (c *cluster) MetaURL() string { return "http://" + c.subnet + "1:9000" }

// ConsoleURL is the page for people.
func (c *cluster) ConsoleURL() string { return "http://" + c.subnet + "31:4400/" }

// NetworkFile is the YAML file that describes the network.
func (c *cluster) NetworkFile() string { return filepath.Join(c.dir, "network.yaml") }

// Endpoints lists where what listens.
func (c *cluster) Endpoints() []stack.Endpoint {
	var list []stack.Endpoint
	for _, m := range c.all("") {
		switch m.program {
		case "connector":
			list = append(list, stack.Endpoint{Name: "websocket", URL: m.websocket()},
				stack.Endpoint{Name: "link", URL: "tcp://" + m.host + ":9089"}, stack.Endpoint{Name: "connector", URL: m.ops()})
		case "processor":
			list = append(list, stack.Endpoint{Name: "processor", URL: m.ops()})
		}
	}
	return append(list, stack.Endpoint{Name: "meta server", URL: c.MetaURL()}, stack.Endpoint{Name: "console", URL: c.ConsoleURL()})
}

// websocket is where clients of a connector connect.
func (m *member) websocket() string { return "ws://" + m.host + ":8088/ws" }

// ops is the health and the metrics of a service; the console has none.
func (m *member) ops() string {
	switch m.program {
	case "connector":
		return "http://" + m.host + ":8080"
	case "processor":
		return "http://" + m.host + ":8081"
	case "metaserver":
		return "http://" + m.host + ":9000"
	default:
		return ""
	}
}

// started says whether the process was ever started.
func (m *member) started() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cmd != nil
}
