package deploy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/link"
	"github.com/linkerhq/linker/pkg/topology"
)

// script is a script of deploy/native with a directory and ports of its own.
type script struct {
	name    string
	dir     string
	offset  int
	environ []string
}

// nobodysServers are addresses for what starts no more than a meta server.
func nobodysServers() []string {
	return []string{"KAFKA_HOSTS=127.0.0.1:1", "NATS_URL=nats://127.0.0.1:1", "REDIS_URL=redis://127.0.0.1:1", "MONGODB_URI=mongodb://127.0.0.1:1"}
}

func native(t *testing.T, name string) script {
	t.Helper()
	for _, needed := range []string{"bash", "flock", "setsid", "realpath"} {
		if _, err := exec.LookPath(needed); err != nil {
			t.Skipf("there is no %s, which the scripts of deploy/native need", needed)
		}
	}
	dir := t.TempDir()
	s := script{name: name, dir: dir, offset: freeOffset(t)}
	s.environ = append(nobodysServers(), "LINKER_NATIVE_DIR="+dir, fmt.Sprintf("LINKER_NATIVE_PORT_OFFSET=%d", s.offset))
	return s
}

// freeOffset is added to all ports. That of the meta server is free then, and none of
// those that a system picks by itself.
func freeOffset(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := 12_000 + rand.IntN(10_000)
		listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			_ = listener.Close()
			return port - 9000
		}
	}
	t.Fatal("no free port was found")
	return 0
}

// run returns what the script prints, and its exit code.
func (s script) run(t *testing.T, args ...string) (string, int) {
	t.Helper()
	// It ends by itself, and runs in cleanups too.
	c := exec.CommandContext(context.WithoutCancel(t.Context()), filepath.Join(root, "deploy", "native", s.name), args...)
	c.Env = append(c.Environ(), s.environ...)
	out, err := c.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), c.ProcessState.ExitCode()
}

// must runs the script, which succeeds.
func (s script) must(t *testing.T, args ...string) string {
	t.Helper()
	out, code := s.run(t, args...)
	if code != 0 {
		t.Fatalf("%s %v ends with %d:\n%s", s.name, args, code, out)
	}
	return out
}

func TestNativeScriptsSayWhatTheyDoNotTake(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		script string
		args   []string
		code   int
		says   string
	}{
		{"network", nil, 2, "usage: "},
		{"network", []string{"dance"}, 2, "there is no command 'dance'"},
		{"network", []string{"start", "--domains", "0"}, 1, "--domains takes a number from 1 to 16"},
		{"network", []string{"start", "--domains", "17"}, 1, "--domains takes a number from 1 to 16"},
		{"network", []string{"start", "--domains"}, 1, "--domains takes a number from 1 to 16"},
		{"network", []string{"start", "--processors", "10"}, 1, "--processors takes a number from 1 to 9"},
		{"network", []string{"start", "--meta", "none.yaml"}, 1, "--meta takes a YAML file of a network; 'none.yaml' is none"},
		{"network", []string{"start", "--meta", "deploy_test.go", "--domains", "2"}, 1, "do not go together"},
		{"network", []string{"stop", "--domains", "2"}, 1, "stop does not take '--domains'"},
		{"network", []string{"kill", "domain-02"}, 1, "there is no domain or process 'domain-02'"},
		{"network", []string{"status"}, 1, "nothing was started"},
		{"network", []string{"logs"}, 1, "nothing was started"},
		{"domain", nil, 2, "usage: "},
		{"domain", []string{"start", "--domains", "2"}, 1, "start does not take '--domains'"},
		{"domain", []string{"start", "--connectors", "100"}, 1, "--connectors takes a number from 1 to 99"},
		{"domain", []string{"kill", "../kafka"}, 1, "no process '../kafka' was started"},
		{"domain", []string{"status"}, 1, "nothing was started"},
	} {
		t.Run(strings.Join(append([]string{c.script}, c.args...), " "), func(t *testing.T) {
			t.Parallel()
			out, code := native(t, c.script).run(t, c.args...)
			if code != c.code || !strings.Contains(out, c.says) {
				t.Errorf("ends with %d, want %d; says\n%s\nwant %q", code, c.code, out, c.says)
			}
		})
	}
}

// TestNativeNetworkIsDescribedAndProved starts no more than the meta server of a
// network.
func TestNativeNetworkIsDescribedAndProved(t *testing.T) {
	t.Parallel()
	needOpenSSL(t)
	s := native(t, "network")
	t.Cleanup(func() {
		if out, code := s.run(t, "stop"); code != 0 {
			t.Errorf("stop ends with %d:\n%s", code, out)
		}
	})
	s.must(t, "start", "--domains", "3", "metaserver")
	s.describes(t, "domain-01", "domain-02", "domain-03")
	s.leadsTo(t, "domain-03", []int{9289}, []int{8288})
	if err := open(t, s.certificates("domain-01"), s.certificates("domain-02")); err != nil {
		t.Error(err)
	}

	// More of them while it runs.
	s.must(t, "start", "--domains", "4", "--connectors", "2", "metaserver")
	s.describes(t, "domain-01", "domain-02", "domain-03", "domain-04")
	s.leadsTo(t, "domain-04", []int{9389, 9399}, []int{8388, 8398})
	network := s.snapshot(t)
	for _, pair := range [][3]string{{"domain-01", "domain-04", "domain-04"}, {"domain-03", "domain-04", "domain-04"}, {"domain-04", "domain-02", "domain-01"}} {
		if path, _ := network.Path(pair[0], pair[1], nil); len(path) < 2 || path[1] != pair[2] {
			t.Errorf("from %s to %s the path is %v", pair[0], pair[1], path)
		}
	}
	for user, want := range map[ident.UserID]string{"ANZ-0": "domain-01", "ANZ-999999": "domain-01", "ANZ-2500000": "domain-03", "ANZ-77000000": "domain-04"} {
		if home := network.HomeOf(user, ""); home != want {
			t.Errorf("%s is at home in %q, want %q", user, home, want)
		}
	}

	// What somebody has edited stays.
	file := filepath.Join(s.dir, "network", "network.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append([]byte("# mine\n"), text...), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := s.must(t, "start", "--domains", "2", "metaserver"); !strings.Contains(out, "was edited and stays as it is") {
		t.Errorf("with an edited file it says\n%s", out)
	}
	s.describes(t, "domain-01", "domain-02", "domain-03", "domain-04")

	if out, code := s.run(t, "status"); code != 0 || !strings.Contains(out, " ready\n") {
		t.Errorf("status ends with %d and says\n%s", code, out)
	}
	s.must(t, "kill", "metaserver")
	if out, code := s.run(t, "status"); code != 1 || !strings.Contains(out, " stopped\n") {
		t.Errorf("after a kill status ends with %d and says\n%s", code, out)
	}
}

func TestNativeNetworkTakesAFile(t *testing.T) {
	t.Parallel()
	needOpenSSL(t)
	s := native(t, "network")
	t.Cleanup(func() {
		if out, code := s.run(t, "stop"); code != 0 {
			t.Errorf("stop ends with %d:\n%s", code, out)
		}
	})
	file := filepath.Join(s.dir, "mine.yaml")
	text := fmt.Sprintf("domains:\n  - {name: south, urls: ['tcp://127.0.0.1:%d', 'ws://127.0.0.1:%d']}\n"+
		"  - {name: north, urls: ['tcp://127.0.0.1:%d', 'ws://elsewhere.example:8088']}\n", 9089+s.offset, 8088+s.offset, 9189+s.offset)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out := s.must(t, "start", "--meta", file, "metaserver")
	note := fmt.Sprintf("does not name ws://127.0.0.1:%d;", 8188+s.offset)
	if !strings.Contains(out, note) || strings.Count(out, "note: ") != 1 {
		t.Errorf("it says\n%s\nwant one note that the file %s", out, note)
	}
	s.describes(t, "south", "north")
	if err := open(t, s.certificates("south"), s.certificates("north")); err == nil {
		t.Error("the certificate of south passes for domain-01")
	}
	if out, code := s.run(t, "start", "--domains", "2", "metaserver"); code != 1 || !strings.Contains(out, "the meta server serves "+file) {
		t.Errorf("with another network it ends with %d and says\n%s", code, out)
	}
	s.must(t, "start", "metaserver") // the same again
	if out, code := s.run(t, "start", "south/connector-2"); code != 1 || !strings.Contains(out, "there is no domain or process 'south/connector-2'") {
		t.Errorf("of an unknown process it ends with %d and says\n%s", code, out)
	}
}

// certificates are those that a domain of the network proves itself with.
func (s script) certificates(domain string) link.Certificates {
	dir := filepath.Join(s.dir, "network", "links", domain)
	return link.Certificates{CertFile: filepath.Join(dir, "link.pem"), KeyFile: filepath.Join(dir, "link.key"), CAFile: filepath.Join(dir, "ca.pem")}
}

// snapshot is what the meta server of the network tells services.
func (s script) snapshot(t *testing.T) *topology.Snapshot {
	t.Helper()
	token, err := os.ReadFile(filepath.Join(s.dir, "network", "token"))
	if err != nil {
		t.Fatal(err)
	}
	return snapshot(t, fmt.Sprintf("http://127.0.0.1:%d/snapshot", 9000+s.offset), string(token))
}

// describes checks which domains the meta server has.
func (s script) describes(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	for _, d := range s.snapshot(t).Network().Domains {
		got = append(got, d.Name)
	}
	if !slices.Equal(got, want) {
		t.Errorf("the domains are %v, want %v", got, want)
	}
}

// leadsTo checks the URLs of a domain, by their ports without the offset.
func (s script) leadsTo(t *testing.T, domain string, links, websockets []int) {
	t.Helper()
	var want []string
	for _, port := range links {
		want = append(want, fmt.Sprintf("tcp://127.0.0.1:%d", port+s.offset))
	}
	for _, port := range websockets {
		want = append(want, fmt.Sprintf("ws://127.0.0.1:%d", port+s.offset))
	}
	d, _ := s.snapshot(t).Domain(domain)
	if !slices.Equal(d.URLs, want) {
		t.Errorf("the URLs of %s are %v, want %v", domain, d.URLs, want)
	}
}
