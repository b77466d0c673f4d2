package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// Promises about recovery.
const (
	takeoverLimit = 10 * time.Second // a killed processor's lanes serve again
	offlineLimit  = 10 * time.Second // a killed connector's users are announced as gone
	refillLimit   = 3 * time.Second  // presence is whole after Redis was emptied
	healLimit     = 30 * time.Second // everything flows after a fault; far above what it takes
)

// TestNothingIsLostWhateverFails lets messages flow through a cluster, breaks one
// thing after another, and checks at the end that each message which was accepted
// has come once, in order, and nothing else has. It runs before the tests that are
// parallel: it breaks servers which those need.
//
//nolint:paralleltest // see above
func TestNothingIsLostWhateverFails(t *testing.T) {
	on, given := givenServers()
	switch {
	case !given:
		t.Skip("needs real servers: set KAFKA_HOSTS, NATS_URL, REDIS_URL and MONGODB_URI; deploy/native/services starts and names them")
	case testing.Short():
		t.Skip("takes minutes")
	}
	c, err := newCluster(t.TempDir(), on, setup{network: loadNetwork()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the cluster ended with %v", err)
		}
	})
	ready, cancelReady := context.WithTimeout(ctx, readyPatience)
	defer cancelReady()
	if err := c.Ready(ready); err != nil {
		t.Fatal(err)
	}
	f := &faults{cluster: c, load: startLoad(t, c)}
	f.load.flows(t, time.Now(), healLimit)
	f.run(t)
	f.load.finish(t)
	f.checkRest(t)
}

// faults breaks a cluster under load.
type faults struct {
	cluster *cluster
	load    *load
}

func (f *faults) run(t *testing.T) {
	processor, connector := f.cluster.all("processor")[0], f.cluster.all("connector")[0]
	f.fault(t, "a processor is killed", func(t *testing.T) { f.killProcessor(t, processor) })
	f.fault(t, "a connector is killed", func(t *testing.T) { f.killConnector(t, connector) })
	f.fault(t, "the meta server is killed", f.killMetaServer)
	f.fault(t, "everything is killed", f.killAll)
	for _, pause := range []time.Duration{3 * time.Second, 8 * time.Second, 20 * time.Second} {
		f.fault(t, fmt.Sprint("a processor sleeps for ", pause), func(t *testing.T) { f.sleep(t, processor, pause) })
		f.fault(t, fmt.Sprint("a connector sleeps for ", pause), func(t *testing.T) { f.sleep(t, connector, pause) })
	}
	f.fault(t, "processors are restarted in turn", func(t *testing.T) { f.restart(t, "processor") })
	f.fault(t, "connectors are restarted in turn", func(t *testing.T) { f.restart(t, "connector") })
	f.fault(t, "a processor is added and removed", f.scale)
	f.fault(t, "Redis is emptied", f.emptyRedis)
	servers := []string{"nats", "redis", "mongodb", "kafka"}
	for _, server := range servers {
		f.fault(t, server+" is killed", func(t *testing.T) { f.breakServers(t, "kill", "start", 3*time.Second, server) })
		f.fault(t, server+" sleeps", func(t *testing.T) { f.breakServers(t, "pause", "resume", 8*time.Second, server) })
	}
	f.fault(t, "a processor is killed while the mailboxes are away", func(t *testing.T) { f.killWhileAway(t, "mongodb", processor) })
	f.fault(t, "a connector is killed while Redis is away", func(t *testing.T) { f.killWhileAway(t, "redis", connector) })
	f.fault(t, "all servers are killed", func(t *testing.T) { f.breakServers(t, "kill", "start", 3*time.Second, servers...) })
	f.fault(t, "everything breaks at random", f.chaos)
}

// fault breaks something while everybody is where they belong.
func (f *faults) fault(t *testing.T, name string, run func(*testing.T)) {
	t.Run(name, func(t *testing.T) {
		f.load.spread(t)
		run(t)
	})
}

// again starts a process again and waits until everything flows.
func (f *faults) again(t *testing.T, m *member) {
	t.Helper()
	began := time.Now()
	if err := m.start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), healLimit)
	defer cancel()
	if err := f.cluster.Ready(ctx); err != nil {
		t.Error(err)
	}
	ready := time.Since(began)
	t.Logf("started again: ready after %v, messages flow after %v",
		ready.Round(10*time.Millisecond), f.load.flows(t, began, healLimit).Round(10*time.Millisecond))
}

func (f *faults) killProcessor(t *testing.T, m *member) {
	lanes := ownedLanes(t, m)
	began := time.Now()
	if err := m.kill(); err != nil {
		t.Error(err)
	}
	waited := f.load.first(t, began, healLimit)
	t.Logf("it had %d lanes; first deliveries after %v", lanes, waited)
	if last := waited[len(waited)-1]; last > takeoverLimit {
		t.Errorf("the first delivery of a lane came after %v", last)
	}
	f.again(t, m)
}

func (f *faults) killConnector(t *testing.T, m *member) {
	gone, stayed := map[string]bool{}, map[string]bool{}
	for i, c := range f.cluster.all("connector") {
		for n := range bystanders {
			user := fmt.Sprintf("%s-%d", loadApp, 300+10*i+n)
			b := login(t, c.websocket(), user)
			defer b.cut()
			if c == m {
				gone[user] = true
			} else {
				stayed[user] = true
			}
		}
	}
	f.load.flows(t, time.Now(), healLimit)
	began := time.Now()
	if err := m.kill(); err != nil {
		t.Error(err)
	}
	told := map[string]time.Duration{}
	for end := began.Add(healLimit); len(told) < len(gone) && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		for _, e := range f.load.ledger.heardSince(began, gone) {
			told[e.user] = e.at.Sub(began).Round(10 * time.Millisecond)
		}
	}
	t.Logf("its users were announced as gone after %v; the others had their first messages after %v", told, f.load.first(t, began, healLimit))
	f.again(t, m)
	for user := range gone {
		if at, heard := told[user]; !heard || at > offlineLimit {
			t.Errorf("%s: heard of after %v, %t; want at most %v", user, at, heard, offlineLimit)
		}
	}
	if events := f.load.ledger.heardSince(began, gone); len(events) != len(gone) {
		t.Errorf("the master heard %v, want each of %d once", events, len(gone))
	}
	if events := f.load.ledger.heardSince(began, stayed); len(events) > 0 {
		t.Errorf("of those who stayed the master heard %v", events)
	}
}

func (f *faults) killMetaServer(t *testing.T) {
	m := f.cluster.all("metaserver")[0]
	began := time.Now()
	if err := m.kill(); err != nil {
		t.Error(err)
	}
	t.Logf("without it messages flow after %v", f.load.flows(t, began, healLimit).Round(10*time.Millisecond))
	f.again(t, m)
}

// sleep stops a process for a while, as a machine does that is overloaded or
// moved.
func (f *faults) sleep(t *testing.T, m *member, pause time.Duration) {
	began := time.Now()
	if err := m.signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	time.Sleep(pause) // the fault itself
	if err := m.signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	woken := time.Now()
	flowed := f.load.flows(t, woken, healLimit)
	t.Logf("first deliveries %v after it fell asleep; awake, messages flow after %v", f.load.first(t, began, healLimit), flowed.Round(10*time.Millisecond))
	ctx, cancel := context.WithTimeout(t.Context(), healLimit)
	defer cancel()
	if err := f.cluster.Ready(ctx); err != nil {
		t.Error(err)
	}
}

// restart ends each process that runs a program in good order, and starts it
// again.
func (f *faults) restart(t *testing.T, program string) {
	for _, m := range f.cluster.all(program) {
		began := time.Now()
		if err := m.terminate(); err != nil {
			t.Error(err)
		}
		took := time.Since(began)
		t.Logf("it ended after %v; first deliveries since it was told to: %v", took.Round(10*time.Millisecond), f.load.first(t, began, healLimit))
		f.again(t, m)
	}
}

// killAll kills all processes at once, and starts them again.
func (f *faults) killAll(t *testing.T) {
	f.cluster.kill()
	began := time.Now()
	if err := f.cluster.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), healLimit)
	defer cancel()
	if err := f.cluster.Ready(ctx); err != nil {
		t.Error(err)
	}
	ready := time.Since(began)
	t.Logf("started again: ready after %v, messages flow after %v", ready.Round(10*time.Millisecond), f.load.flows(t, began, healLimit).Round(10*time.Millisecond))
}

func (f *faults) scale(t *testing.T) {
	m := f.cluster.add("processor", 23)
	began := time.Now()
	f.again(t, m)
	within := took(t, began, func() bool { return ownedLanes(t, m) > 0 })
	t.Logf("it has lanes after %v; first deliveries after %v", within.Round(10*time.Millisecond), f.load.first(t, began, healLimit))
	if within > takeoverLimit {
		t.Errorf("it has had no lane for %v", within)
	}
	var share []int
	for _, p := range f.cluster.all("processor") {
		share = append(share, ownedLanes(t, p))
	}
	if slices.Min(share) < 1 || slices.Max(share) > 2 {
		t.Errorf("%s lanes are shared like %v", clusterLanes, share)
	}
	began = time.Now()
	if err := m.terminate(); err != nil {
		t.Error(err)
	}
	t.Logf("removed: first deliveries after %v", f.load.first(t, began, healLimit))
	f.cluster.remove(m)
	f.load.flows(t, began, healLimit)
}

// emptyRedis takes all that Redis knows: nobody may be announced because of that.
func (f *faults) emptyRedis(t *testing.T) {
	steady := map[string]bool{}
	for _, user := range f.load.steady {
		steady[user] = true
	}
	prefix := "linker:{" + f.cluster.domain + "}:"
	var places strings.Builder
	places.WriteString("EXISTS")
	for _, user := range f.load.steady {
		places.WriteString(" " + prefix + "user:" + user)
	}
	whole := func() bool {
		return redis(t, f.cluster.servers.redis, "HLEN "+prefix+"leases") == len(f.cluster.running("connector")) &&
			redis(t, f.cluster.servers.redis, places.String()) == len(f.load.steady)
	}
	eventually(t, "everybody in Redis", whole)
	began := time.Now()
	redis(t, f.cluster.servers.redis, "FLUSHALL")
	filled := took(t, began, whole)
	t.Logf("everybody is there again after %v", filled.Round(10*time.Millisecond))
	if filled > refillLimit {
		t.Errorf("presence was whole after %v only", filled)
	}
	time.Sleep(offlineLimit - time.Since(began)) // as long as somebody could be taken for gone
	if events := f.load.ledger.heardSince(began, steady); len(events) > 0 {
		t.Errorf("the master heard %v", events)
	}
	t.Logf("first deliveries after %v", f.load.first(t, began, healLimit))
}

// breakServers breaks servers for a while, mends them, and waits until everything
// flows.
func (f *faults) breakServers(t *testing.T, fault, mend string, pause time.Duration, names ...string) {
	if os.Getenv("LINKER_NATIVE") == "" {
		t.Skip(noNative)
	}
	began := time.Now()
	if err := runServices(fault, names...); err != nil {
		t.Fatal(err)
	}
	time.Sleep(pause) // the fault itself
	if err := runServices(mend, names...); err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), readyPatience)
	defer cancel()
	if err := f.cluster.Ready(ctx); err != nil {
		t.Error(err)
	}
	ready := time.Since(back)
	flowed := f.load.flows(t, back, readyPatience)
	t.Logf("it was away for %v; everybody is ready %v after its return, messages flow after %v", back.Sub(began).Round(10*time.Millisecond),
		ready.Round(10*time.Millisecond), flowed.Round(10*time.Millisecond))
}

// killWhileAway kills a process while a server is away, and brings first the
// process back and then the server.
func (f *faults) killWhileAway(t *testing.T, server string, m *member) {
	if os.Getenv("LINKER_NATIVE") == "" {
		t.Skip(noNative)
	}
	if err := runServices("kill", server); err != nil {
		t.Fatal(err)
	}
	time.Sleep(4 * time.Second) // until much depends on what the process has in memory
	if err := m.kill(); err != nil {
		t.Error(err)
	}
	time.Sleep(2 * time.Second) // the fault itself
	if err := m.start(); err != nil {
		t.Fatal(err)
	}
	if err := runServices("start", server); err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	flowed := f.load.flows(t, back, readyPatience)
	t.Logf("messages flow %v after the server's return", flowed.Round(10*time.Millisecond))
}

// noNative is why servers are not broken.
const noNative = "breaks servers: set LINKER_NATIVE=1 if deploy/native/services has started them for these tests only"

// nativeServices is a command of the script that runs the servers.
func nativeServices(command string, names ...string) *exec.Cmd {
	return exec.Command("../../deploy/native/services", append([]string{command}, names...)...)
}

// checkRest looks at what must be left behind: nothing in mailboxes, nothing dead.
func (f *faults) checkRest(t *testing.T) {
	database, disconnect, err := f.cluster.database()
	if err != nil {
		t.Fatal(err)
	}
	defer disconnect()
	left := int64(-1)
	for end := time.Now().Add(patience); left != 0 && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		// Whoever has left no session has nothing stored; presence is the master's.
		left, err = database.Collection("mailbox").CountDocuments(t.Context(), bson.D{{Key: "to", Value: bson.D{{Key: "$ne", Value: masterOf(loadApp)}}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	if left != 0 {
		t.Errorf("%d rows are left in mailboxes", left)
	}
	transport := &kafka.Transport{}
	defer transport.CloseIdleConnections()
	client := &kafka.Client{Addr: kafka.TCP(strings.Split(f.cluster.servers.kafka, ",")...), Transport: transport}
	topic := "dead." + f.cluster.domain
	offsets, err := client.ListOffsets(t.Context(), &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic: {kafka.LastOffsetOf(0)}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range offsets.Topics[topic] {
		if p.LastOffset != 0 {
			t.Errorf("%d records are dead letters", p.LastOffset)
		}
	}
	for _, m := range f.cluster.all("") {
		if m.runs() {
			t.Logf("%s has used %s of memory at most", m.log[strings.LastIndex(m.log, "/")+1:], m.peakMemory())
		}
	}
}

// took waits until something is so and returns how long that took from a moment.
func took(t *testing.T, since time.Time, look func() bool) time.Duration {
	t.Helper()
	eventually(t, "what was awaited", look)
	return time.Since(since)
}

// ownedLanes returns how many lanes a processor says that it owns.
func ownedLanes(t *testing.T, m *member) int {
	t.Helper()
	_, metrics := get(t, m.ops()+"/metrics")
	_, rest, found := strings.Cut(metrics, "\nlinker_kafka_owned_lanes ")
	value, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.Atoi(value)
	if !found || err != nil {
		t.Fatalf("%s does not tell its lanes: %q, %v", m.ops(), value, err)
	}
	return n
}

// redis sends a command to the server and returns the number in its answer: of
// elements, if that is a list.
func redis(t *testing.T, address, command string) int {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	in := bufio.NewReader(conn)
	for _, line := range []string{"AUTH " + password, command} {
		if line == "AUTH " {
			continue
		}
		if _, err := fmt.Fprint(conn, line, "\r\n"); err != nil {
			t.Fatal(err)
		}
		answer, err := in.ReadString('\n')
		if err == nil && strings.HasPrefix(answer, "-") {
			err = errors.New(strings.TrimSpace(answer))
		}
		if err != nil {
			t.Fatal(err)
		}
		if n, err := strconv.Atoi(strings.TrimSpace(strings.TrimLeft(answer, "*:"))); err == nil {
			return n
		}
	}
	return 0
}
