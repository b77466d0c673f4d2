package e2e

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	// linkChaosTime is how long links are cut at random unless LINKER_TEST_CHAOS says
	// otherwise.
	linkChaosTime = 6 * time.Second
	// farEvery is how often each sender of a load of several domains sends.
	farEvery = 3 * loadEvery
	// cutFor is the longest that a link is cut, far below what makes messages late.
	cutFor = 2 * time.Second
)

// chaosSetting is how long everything breaks, and what the choices begin with.
func chaosSetting(t *testing.T, otherwise time.Duration) (limit time.Duration, seed uint64) {
	t.Helper()
	limit, seed = otherwise, rand.Uint64()
	var err error
	if text := os.Getenv("LINKER_TEST_CHAOS"); text != "" {
		if limit, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	if text := os.Getenv("LINKER_TEST_SEED"); text != "" {
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("for %v, with LINKER_TEST_SEED=%d", limit, seed)
	return limit, seed
}

// chaosLoad lets users of four domains write to each other.
func chaosLoad(t *testing.T, places func() []string) *load {
	t.Helper()
	l := newLoad(t, places)
	l.ledger.far, l.every = true, farEvery
	var receivers []string
	for domain := 1; domain <= 4; domain++ {
		for i, k := range []kind{
			{features: []string{"push"}, patient: true},
			{features: []string{"push", "ack"}, restless: true},
			{features: []string{"push"}, seldom: true},
			{},
		} {
			user := ofApp(loadApp, domain, i+1)
			receivers = append(receivers, user)
			l.receive(user, k, domain-1)
		}
	}
	l.watch(ofApp(loadApp, 2, masterNumber), 1)
	for domain := 1; domain <= 4; domain++ {
		l.send(ofApp(loadApp, domain, 100), receivers, domain%2 == 0, domain-1)
	}
	return l
}

// breakLinks does to proxies what networks do, each by itself, until ctx ends; then
// all are healed.
func breakLinks(ctx context.Context, proxies []*proxy, seed uint64) {
	var breaking sync.WaitGroup
	for i, p := range proxies {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		breaking.Go(func() {
			for pause(ctx, random, 2*cutFor) {
				switch random.IntN(5) {
				case 0, 1:
					p.cut()
				case 2:
					p.blackhole(forth)
				case 3:
					p.blackhole(back)
				default:
					p.blackhole(bothWays)
				}
				pause(ctx, random, cutFor)
				p.heal()
			}
		})
	}
	breaking.Wait()
}

func TestNothingIsLostWhileLinksAreCutAtRandom(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, networkSetup{yaml: withApps(describeNetwork(4, ringOf(4)), appWith(loadApp, 2, ""))})
	n.settle(t, 4)
	l := chaosLoad(t, n.websockets)
	l.flows(t, time.Now(), patience)
	limit, seed := chaosSetting(t, linkChaosTime)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var proxies []*proxy
	for _, e := range ringOf(4) {
		both := n.link(e.a, e.b)
		proxies = append(proxies, both[:]...)
	}
	breakLinks(ctx, proxies, seed)
	healed := time.Now()
	t.Logf("messages flow %v after the last link was healed", l.flows(t, healed, backOff).Round(10*time.Millisecond))
	n.settle(t, 4)
	l.finish(t)
}

// farProcess is the real program with four domains, which is killed and started again
// at the same data, while those outside know one address for each domain's links.
type farProcess struct {
	data, network string
	ways          []*proxy // to each domain's link port

	mu  sync.Mutex
	now *process // guarded by mu; nil: none runs
}

func newFarProcess(t *testing.T) *farProcess {
	t.Helper()
	dir := t.TempDir()
	f := &farProcess{data: filepath.Join(dir, "data"), network: filepath.Join(dir, "network.yaml")}
	yaml := withApps(describeNetwork(4, ringOf(4)), appWith(loadApp, 2, ""))
	for i := range 4 {
		p := newProxy(t)
		p.find(func() string { return strings.TrimPrefix(f.address(i, 2), "tcp://") })
		f.ways = append(f.ways, p)
		yaml = strings.Replace(yaml, domainName(i+1)+".example:9089", p.addr(), 1)
	}
	if err := os.WriteFile(f.network, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	return f
}

// address is what the program printed in a column of a domain's line; "": nothing.
func (f *farProcess) address(domain, column int) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.now == nil {
		return ""
	}
	select {
	case <-f.now.listening:
	default:
		return ""
	}
	for line := range f.now.urls {
		if fields := strings.Fields(line); len(fields) > column && fields[0] == domainName(domain+1) {
			return fields[column]
		}
	}
	return ""
}

func (f *farProcess) websockets() []string {
	var urls []string
	for domain := range 4 {
		if url := f.address(domain, 1); url != "" {
			urls = append(urls, url)
		}
	}
	return urls
}

// again starts the program, and waits until it is ready.
func (f *farProcess) again(t *testing.T) {
	t.Helper()
	p := begin(t, f.data, "--meta", f.network)
	f.mu.Lock()
	f.now = p
	f.mu.Unlock()
	if !p.isReady(t, readyPatience) {
		t.Fatal("it is not ready")
	}
}

func TestNothingIsLostWhileAllDomainsAreKilledAndLinksAreCut(t *testing.T) {
	if os.Getenv("LINKER_TEST_CHAOS") == "" {
		t.Skip("takes as long as LINKER_TEST_CHAOS says")
	}
	t.Parallel()
	ofStandalone(t)
	f := newFarProcess(t)
	f.again(t)
	l := chaosLoad(t, f.websockets)
	l.flows(t, time.Now(), patience)
	limit, seed := chaosSetting(t, linkChaosTime)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var breaking sync.WaitGroup
	breaking.Go(func() { breakLinks(ctx, f.ways, seed) })
	random := rand.New(rand.NewPCG(seed, uint64(len(f.ways))))
	kills := 0
	for pause(ctx, random, 20*time.Second) {
		f.now.kill()
		f.again(t)
		kills++
	}
	breaking.Wait()
	healed := time.Now()
	t.Logf("killed %d times; messages flow %v after the last link was healed", kills, l.flows(t, healed, backOff).Round(10*time.Millisecond))
	l.finish(t)
	if err := f.now.interrupt(t); err != nil {
		t.Errorf("it ended with %v", err)
	}
}
