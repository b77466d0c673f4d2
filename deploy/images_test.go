package deploy

import (
	"bufio"
	"context"
	"debug/elf"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/topology"
)

const (
	testVersion = "v0.0.0-test"
	maxBinary   = 40 << 20 // bytes: an image is the binary and little else
)

// builder does by hand what docker build does: each stage is a directory of its
// own, which holds nothing but what its steps put there.
type builder struct {
	recipe recipe
	args   map[string]string
	ignore func(path string) bool
	built  map[string]image
}

// image is what a stage has come to.
type image struct {
	dir     string // of its root
	workdir string // in it
	env     []string
}

func newBuilder(t *testing.T) *builder {
	t.Helper()
	return &builder{
		recipe: dockerfile(t),
		args:   map[string]string{"VERSION": testVersion},
		ignore: ignore(t),
		built:  map[string]image{},
	}
}

// build returns the image of a stage, which it makes once.
func (b *builder) build(t *testing.T, name string) image {
	t.Helper()
	if i, is := b.built[name]; is {
		return i
	}
	s := target(t, b.recipe, name)
	i := image{dir: filepath.Join(t.TempDir(), name), workdir: "/"}
	if _, is := b.recipe.find(s.from); is {
		base := b.build(t, s.from)
		if err := os.CopyFS(i.dir, os.DirFS(base.dir)); err != nil {
			t.Fatal(err)
		}
		i.workdir, i.env = base.workdir, slices.Clone(base.env)
	} else if err := os.Mkdir(i.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	args := map[string]string{} // those of a stage are known in no other one
	for _, step := range s.steps {
		b.step(t, &i, args, step)
	}
	b.built[name] = i
	return i
}

func (b *builder) step(t *testing.T, i *image, args map[string]string, s step) {
	t.Helper()
	switch s.name {
	case "WORKDIR":
		i.workdir = i.path(s.args)
		if err := os.MkdirAll(filepath.Join(i.dir, i.workdir), 0o755); err != nil {
			t.Fatal(err)
		}
	case "ARG":
		args[s.args] = b.args[s.args]
	case "ENV":
		for pair := range strings.FieldsSeq(s.args) {
			i.env = append(i.env, os.Expand(pair, func(name string) string { return args[name] }))
		}
	case "COPY":
		paths := strings.Fields(s.args)
		for _, source := range paths[:len(paths)-1] {
			b.copy(t, i, s.flag("from"), source, paths[len(paths)-1])
		}
	case "RUN":
		command := exec.CommandContext(t.Context(), "sh", "-ec", s.args)
		command.Dir = filepath.Join(i.dir, i.workdir)
		command.Env = append(append(command.Environ(), "GOFLAGS=", "GOWORK="), i.env...)
		for name, value := range args {
			command.Env = append(command.Env, name+"="+value)
		}
		if output, err := command.CombinedOutput(); err != nil {
			t.Fatalf("RUN %s: %v\n%s", s.args, err, output)
		}
	case "USER", "EXPOSE", "LABEL", "STOPSIGNAL", "ENTRYPOINT":
	default:
		t.Fatalf("this test does not know %s", s.name)
	}
}

// path is where a path of a step leads in the image.
func (i image) path(p string) string {
	if filepath.IsAbs(p) {
		return filepath.Clean(p)
	}
	return filepath.Join(i.workdir, p)
}

// copy copies a file or what is in a directory, from the checkout or from another
// stage.
func (b *builder) copy(t *testing.T, i *image, from, source, destination string) {
	t.Helper()
	root, ignored := root, b.ignore
	if from != "" {
		root, ignored = b.build(t, from).dir, func(string) bool { return false }
		if source == "/etc/ssl/certs/ca-certificates.crt" {
			return // comes with the image that the stage starts from
		}
	}
	info, err := os.Stat(filepath.Join(root, source))
	if err != nil {
		t.Fatal(err)
	}
	to := i.path(destination)
	if !info.IsDir() && strings.HasSuffix(destination, "/") {
		to = filepath.Join(to, filepath.Base(source))
	}
	err = filepath.WalkDir(filepath.Join(root, source), func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		inRoot, err := filepath.Rel(root, path)
		if err != nil || ignored(inRoot) {
			return err
		}
		inSource, err := filepath.Rel(filepath.Join(root, source), path)
		if err != nil {
			return err
		}
		return place(path, filepath.Join(i.dir, to, inSource), entry)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// place makes a copy of one directory or file.
func place(from, to string, entry fs.DirEntry) error {
	if entry.IsDir() {
		return os.MkdirAll(to, 0o755)
	}
	info, err := entry.Info()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, info.Mode().Perm())
}

func TestImagesAreBuiltFromWhatTheDockerfileCopies(t *testing.T) {
	if testing.Short() {
		t.Skip("builds all programs from an empty directory")
	}
	t.Parallel()
	b := newBuilder(t)
	for _, name := range targets() {
		dir := b.build(t, name).dir
		binary := filepath.Join(dir, "linker")
		programs := []string{binary}
		if name == "processor" {
			tool := filepath.Join(dir, "linkerctl")
			programs = append(programs, tool)
			t.Run("linkerctl says what it is", func(t *testing.T) {
				if got := output(t, tool, "--version"); !strings.HasPrefix(got, "linkerctl "+testVersion+" go1.") {
					t.Errorf("--version says %q", got)
				}
			})
		}
		t.Run(name+" has static binaries and nothing else", func(t *testing.T) { onlyStaticBinaries(t, dir, programs) })
		t.Run(name+" says what it is", func(t *testing.T) {
			if got := output(t, binary, "--version"); !strings.HasPrefix(got, name+" "+testVersion+" go1.") {
				t.Errorf("--version says %q", got)
			}
			if got := output(t, binary, "--help"); !strings.Contains(got, "--listen") && !strings.Contains(got, "--http-listen") {
				t.Errorf("--help says %q", got)
			}
		})
	}
	binary := filepath.Join(b.build(t, "metaserver").dir, "linker")
	for _, d := range []deployment{oneDomain(), fourDomains()} {
		t.Run("the meta server serves the network of "+d.file, func(t *testing.T) { servesTheNetwork(t, binary, d) })
	}
	t.Run("the meta server takes the network of docs/network.md", func(t *testing.T) { takesTheExample(t, binary) })
}

func output(t *testing.T, binary string, args ...string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), binary, args...)
	command.Env = []string{} // nothing but what the image has
	out, err := command.Output()
	if err != nil {
		t.Fatalf("%s %v: %v", binary, args, err)
	}
	return string(out)
}

func onlyStaticBinaries(t *testing.T, dir string, programs []string) {
	t.Helper()
	var files []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			files = append(files, path)
		}
		return err
	})
	if err != nil || !slices.Equal(files, programs) {
		t.Errorf("the image holds %v: %v", files, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "var", "lib", "linker")); err != nil || !info.IsDir() {
		t.Errorf("there is no place to write to: %v", err)
	}
	for _, program := range programs {
		static(t, program)
	}
}

func static(t *testing.T, binary string) {
	t.Helper()
	info, err := os.Stat(binary)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f MB", float64(info.Size())/(1<<20))
	if info.Size() > maxBinary || info.Mode().Perm()&0o111 != 0o111 {
		t.Errorf("the binary has %d bytes and the mode %v", info.Size(), info.Mode())
	}
	program, err := elf.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = program.Close() }()
	if slices.ContainsFunc(program.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		t.Error("the binary needs a dynamic linker, which the image does not have")
	}
	if program.Section(".symtab") != nil {
		t.Error("the binary is not stripped")
	}
}

// servesTheNetwork starts the meta server as its container does, but for the port.
func servesTheNetwork(t *testing.T, binary string, d deployment) {
	t.Helper()
	p := d.project(t)
	s := p.Services["metaserver"]
	file := *s.Environment["LINKER_FILE"]
	mount := s.Volumes[0]
	inside, err := filepath.Rel(mount.Target, file)
	if err != nil {
		t.Fatal(err)
	}
	address, stop := serve(t, binary, filepath.Join(mount.Source, inside), environment(s))
	defer stop()
	output(t, binary, "--probe", "http://"+address+"/readyz")
	network := snapshot(t, "http://"+address+"/snapshot", *s.Environment["LINKER_TOKEN"])
	leadsToItsConnectors(t, network, d.ours(t, p))
	if d == fourDomains() {
		isTheRing(t, network)
	}
}

// serve starts the meta server with a file, and returns where it listens. stop ends
// it, and waits.
func serve(t *testing.T, binary, file string, environ []string) (address string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	command := exec.CommandContext(ctx, binary, "--listen", "127.0.0.1:0", "--file", file)
	command.Env = environ
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	log, err := command.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	address = firstMatch(io.TeeReader(log, &said), regexp.MustCompile(`listen=(127\.0\.0\.1:[1-9]\d*)`))
	if address == "" {
		cancel()
		t.Fatalf("the meta server did not start: %v\n%s", command.Wait(), said.String())
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(io.Discard, log)
	}()
	return address, func() {
		cancel()
		<-read
		if err := command.Wait(); command.ProcessState.ExitCode() != 0 {
			t.Errorf("the meta server ended after SIGTERM with %v: %v", command.ProcessState, err)
		}
	}
}

// snapshot is what a meta server tells services.
func snapshot(t *testing.T, url, token string) *topology.Snapshot {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	network, err := topology.Decode(body)
	if err != nil {
		t.Fatalf("%s: %v\n%s", res.Status, err, body)
	}
	return network
}

// leadsToItsConnectors checks that the urls of each domain, as clients of this
// machine and containers see them, are those of its connectors.
func leadsToItsConnectors(t *testing.T, network *topology.Snapshot, services map[string]types.ServiceConfig) {
	t.Helper()
	var named []string
	for _, domain := range network.Network().Domains {
		for _, text := range domain.URLs {
			u, err := url.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			port := uint32(8088)
			if u.Scheme == "tcp" {
				port = 9089
			}
			for name, s := range services {
				of := s.Environment["LINKER_DOMAIN"]
				if s.Build.Target == "connector" && reaches(u, name, s, port) && *of == domain.Name {
					named = append(named, fmt.Sprint(name, " ", u.Scheme))
				}
			}
		}
	}
	var want []string
	for name, s := range services {
		if s.Build.Target == "connector" {
			want = append(want, name+" tcp", name+" ws")
		}
	}
	slices.Sort(named)
	slices.Sort(want)
	if !slices.Equal(named, want) {
		t.Errorf("the urls of the network lead to %v, want %v", named, want)
	}
}

// reaches says whether a url leads to a port of a service: by the service's name,
// or as published on this machine.
func reaches(u *url.URL, name string, s types.ServiceConfig, port uint32) bool {
	if u.Hostname() == name {
		return u.Port() == strconv.FormatUint(uint64(port), 10)
	}
	return u.Hostname() == "127.0.0.1" && slices.ContainsFunc(s.Ports, func(p types.ServicePortConfig) bool {
		return p.Target == port && p.Published == u.Port()
	})
}

// isTheRing checks links and distributions of the four domains.
func isTheRing(t *testing.T, network *topology.Snapshot) {
	t.Helper()
	var links []string
	for _, l := range network.Network().Links {
		links = append(links, l.N1+" "+l.N2)
		if l.Key != "" || l.Insecure {
			t.Errorf("the link of %s with %s is not proved by certificates", l.N1, l.N2)
		}
	}
	want := []string{"domain-01 domain-02", "domain-02 domain-03", "domain-03 domain-04", "domain-04 domain-01"}
	if !slices.Equal(links, want) {
		t.Errorf("the links are %v, want %v", links, want)
	}
	for user, home := range map[string]string{
		"ANZ-0": "domain-01", "ANZ-999999": "domain-01", "ANZ-1000000": "domain-02", "BNZ-2999999": "domain-02",
		"ANZ-3000000": "domain-03", "CNZ-5999999": "domain-03", "ANZ-6000000": "domain-04", "ANZ-999999999999999999": "domain-04",
	} {
		if got := network.HomeOf(ident.UserID(user), ""); got != home {
			t.Errorf("%s is at home in %q, want %s", user, got, home)
		}
	}
}

// firstMatch reads lines until one matches, and returns its first group.
func firstMatch(r io.Reader, pattern *regexp.Regexp) string {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if m := pattern.FindStringSubmatch(lines.Text()); m != nil {
			return m[1]
		}
	}
	return ""
}
