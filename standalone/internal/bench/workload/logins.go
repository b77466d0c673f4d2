package workload

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/linkerhq/linker/standalone/internal/bench/figures"
	"github.com/linkerhq/linker/standalone/internal/bench/swarm"
)

// logins follows how the clients of a swarm get in, and who loses its connection. It
// belongs to the thread of the swarm.
type logins struct {
	env       Env
	swarm     *swarm.Swarm
	latencies *figures.Latencies
	begun     int64 // when the first one began
	last      int64 // when the last one was in
	entered   int
	closed    int64 // connections that have ended
	errors    map[string]int64
	failed    error
}

func newLogins(e Env, s *swarm.Swarm) logins {
	return logins{env: e, swarm: s, latencies: figures.NewLatencies(), errors: map[string]int64{}}
}

// LoggedIn counts a client.
func (l *logins) LoggedIn(c *swarm.Client, now int64) {
	l.entered++
	l.last = now
	l.latencies.Record(now - c.Begun())
	l.env.Progress.Entered.Store(int64(l.entered))
}

// Writable changes nothing by itself.
func (l *logins) Writable(*swarm.Client, int64) {}

// Ended counts a connection that was lost.
func (l *logins) Ended(_ *swarm.Client, why string, _ int64) {
	l.closed++
	l.errors[why]++
	if l.closed == int64(len(l.swarm.Clients())) {
		l.fail(fmt.Errorf("all connections have ended: %s", listed(l.errors)))
	}
}

// fail ends the run.
func (l *logins) fail(err error) {
	if l.failed == nil {
		l.failed = err
	}
	l.swarm.Stop()
}

// complete says whether all clients have got in. It fails when that takes too long.
func (l *logins) complete(now int64) bool {
	if l.begun == 0 {
		l.begun = now
	}
	clients := len(l.swarm.Clients())
	if l.entered >= clients {
		return true
	}
	if now-l.begun > int64(l.env.Options.LoginWithin) {
		l.fail(fmt.Errorf("%d of %d clients have not got in within %s; attempts that failed: %s",
			clients-l.entered, clients, l.env.Options.LoginWithin, listed(l.swarm.Failures())))
	}
	return false
}

// figures adds what logins came to.
func (l *logins) figures(r *figures.Run) {
	q := l.latencies.Quantiles()
	r.Login = &q
	r.LoginSeconds = float64(l.last-l.begun) / nanos
	r.LoginRetries = l.swarm.Retries()
	r.Connections = len(l.swarm.Clients())
	r.ConnectionsClosed = l.closed
	for why, n := range l.swarm.Failures() {
		r.LoginFailures += n
		l.errors["login-"+why] += n
	}
	if len(l.errors) > 0 {
		r.Errors = l.errors
	}
}

// listed is what was counted, for people.
func listed(counts map[string]int64) string {
	if len(counts) == 0 {
		return "none"
	}
	var list []string
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		list = append(list, fmt.Sprintf("%d × %s", counts[what], what))
	}
	return strings.Join(list, ", ")
}
