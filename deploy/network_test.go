package deploy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/link"
	"github.com/linkerhq/linker/pkg/topology"
)

func TestCertificatesOfTheNetworkDocumentOpenALink(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i, command := range opensslCommands(t) {
		shell(t, dir, command)
		if i > 0 { // the first one makes the authority
			shell(t, dir, strings.ReplaceAll(command, "domain-01", "domain-02"))
		}
	}
	certificates := func(domain string) link.Certificates {
		return link.Certificates{
			CertFile: filepath.Join(dir, domain+".pem"), KeyFile: filepath.Join(dir, domain+".key"), CAFile: filepath.Join(dir, "ca.pem"),
		}
	}
	for _, domain := range []string{"domain-01", "domain-02"} {
		ownersOnly(t, filepath.Join(dir, domain+".key"))
	}
	if err := open(t, certificates("domain-01"), certificates("domain-02")); err != nil {
		t.Error(err)
	}
	if err := open(t, certificates("domain-02"), certificates("domain-02")); err == nil {
		t.Error("with its own certificate domain-02 passes for domain-01")
	}
}

// takesTheExample checks that the meta server takes the network of docs/network.md,
// and that messages go there as is said.
func takesTheExample(t *testing.T, binary string) {
	t.Helper()
	example := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindStringSubmatch(read(t, "docs", "network.md"))
	if example == nil {
		t.Fatal("there is no YAML in docs/network.md")
	}
	file := filepath.Join(t.TempDir(), "network.yaml")
	if err := os.WriteFile(file, []byte(example[1]), 0o600); err != nil {
		t.Fatal(err)
	}
	const token = "a-token-for-this-test"
	address, stop := serve(t, binary, file, []string{"LINKER_TOKEN=" + token})
	defer stop()
	network := snapshot(t, "http://"+address+"/snapshot", token)
	path, cost := network.Path("domain-01", "domain-03", nil)
	if !slices.Equal(path, []string{"domain-01", "domain-02", "domain-03"}) || cost != 2 {
		t.Errorf("the path is %v, for %d", path, cost)
	}
	path, cost = network.Path("domain-01", "domain-03", func(from, _ string) bool { return from != "domain-02" })
	if !slices.Equal(path, []string{"domain-01", "domain-03"}) || cost != 5 {
		t.Errorf("without domain-02 the path is %v, for %d", path, cost)
	}
}

// opensslCommands are the blocks of docs/network.md that make and check
// certificates, in their order.
func opensslCommands(t *testing.T) []string {
	t.Helper()
	needOpenSSL(t)
	var commands []string
	for _, m := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(read(t, "docs", "network.md"), -1) {
		if strings.Contains(m[1], "openssl ") {
			commands = append(commands, m[1])
		}
	}
	if len(commands) != 4 || strings.Contains(commands[0], "domain-01") {
		t.Fatalf("docs/network.md has %d blocks with openssl, want an authority, a request, a certificate and a look at it", len(commands))
	}
	return commands
}

func needOpenSSL(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("there is no openssl to make certificates with")
	}
}

func shell(t *testing.T, dir, command string, environ ...string) string {
	t.Helper()
	c := exec.CommandContext(t.Context(), "sh", "-euc", command)
	c.Dir = dir
	c.Env = append(c.Environ(), environ...)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}

func ownersOnly(t *testing.T, file string) {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("%s has the mode %v", file, info.Mode())
	}
}

// open opens a link from domain-01 to domain-02, as a processor and a connector do,
// and closes it. It returns why that cannot be done.
func open(t *testing.T, dialling, listening link.Certificates) error {
	t.Helper()
	l := topology.Link{N1: "domain-01", N2: "domain-02"}
	from, err := link.NewEnd(link.Config{Domain: l.N1, Certificates: dialling})
	if err != nil {
		return err
	}
	to, err := link.NewEnd(link.Config{Domain: l.N2, Certificates: listening})
	if err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	accepted := make(chan error, 1)
	go func() {
		raw, err := listener.Accept()
		if err != nil {
			accepted <- err
			return
		}
		conn, err := to.Accept(ctx, raw, func(domain string) (topology.Link, bool) { return l, domain == l.N1 })
		if err == nil {
			conn.Close()
		}
		accepted <- err
	}()
	conn, err := from.Dial(ctx, listener.Addr().String(), l)
	if err == nil {
		conn.Close()
	}
	return errors.Join(err, <-accepted)
}

func TestCertificatesOfOneHostAreMadeOnce(t *testing.T) {
	t.Parallel()
	needOpenSSL(t)
	script, err := filepath.Abs(filepath.Join(root, "deploy", "compose", "certificates.sh"))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "links")
	owner := fmt.Sprintf("OWNER=%d:%d", os.Getuid(), os.Getgid())
	in := func(domain string) link.Certificates {
		return link.Certificates{
			CertFile: filepath.Join(dir, domain, "link.pem"), KeyFile: filepath.Join(dir, domain, "link.key"), CAFile: filepath.Join(dir, domain, "ca.pem"),
		}
	}
	first := shell(t, ".", script+" "+dir+" domain-01", owner)
	if first != "made the authority\nmade a certificate of domain-01\n" {
		t.Errorf("the first time it says %q", first)
	}
	before := contents(t, dir)
	if again := shell(t, ".", script+" "+dir+" domain-01 domain-02", owner); again != "made a certificate of domain-02\n" {
		t.Errorf("the second time it says %q", again)
	}
	after := contents(t, dir)
	for name, content := range before {
		if after[name] != content {
			t.Errorf("%s was made again", name)
		}
	}
	if len(before) != 5 || len(after) != 8 {
		t.Errorf("%d files, then %d; want 5 and 8", len(before), len(after))
	}
	for _, key := range []string{filepath.Join(dir, "ca.key"), in("domain-01").KeyFile, in("domain-02").KeyFile} {
		ownersOnly(t, key)
	}
	if err := open(t, in("domain-01"), in("domain-02")); err != nil {
		t.Error(err)
	}

	// What another authority has signed is made again, and so is what was half made.
	if err := os.Remove(filepath.Join(dir, "ca.pem")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "domain-02", ".new"), 0o700); err != nil {
		t.Fatal(err)
	}
	shell(t, ".", script+" "+dir+" domain-01 domain-02")
	if err := open(t, in("domain-01"), in("domain-02")); err != nil {
		t.Errorf("with another authority: %v", err)
	}
	if files := contents(t, dir); len(files) != 8 || files["domain-01/ca.pem"] == before["domain-01/ca.pem"] {
		t.Errorf("%d files, and the authority of domain-01 is the old one: %v", len(files), files["domain-01/ca.pem"] == before["domain-01/ca.pem"])
	}
}

// contents are all files below a directory, by name.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		files[name] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestNetworkDocumentSetsWhatProgramsKnow(t *testing.T) {
	t.Parallel()
	known := documented(t)
	variables := regexp.MustCompile(`(?m)^(LINKER_[A-Z_]+)=`).FindAllStringSubmatch(read(t, "docs", "network.md"), -1)
	if len(variables) < 4 {
		t.Fatalf("docs/network.md sets %d variables only", len(variables))
	}
	for _, m := range variables {
		for _, name := range []string{"connector", "processor"} {
			if !slices.Contains(known[name], m[1]) {
				t.Errorf("docs/network.md sets %s, which a %s does not know", m[1], name)
			}
		}
	}
}

func TestNetworkDocumentNamesMetricsThatOperationsExplains(t *testing.T) {
	t.Parallel()
	explained := read(t, "docs", "operations.md")
	for _, m := range regexp.MustCompile("`(linker_[a-z_]+)").FindAllStringSubmatch(read(t, "docs", "network.md"), -1) {
		if !strings.Contains(explained, "`"+m[1]+"`") {
			t.Errorf("docs/network.md names %s, which docs/operations.md does not have", m[1])
		}
	}
}
