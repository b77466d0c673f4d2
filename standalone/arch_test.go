package main_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// module is what all packages of this repository begin with.
const module = "github.com/linkerhq/linker/"

// vocabulary lists what everybody speaks, and which of each other these packages
// may import. They need nothing else but the standard library.
func vocabulary() map[string][]string {
	return map[string][]string{
		"pkg/internal/bin": nil,
		"pkg/ident":        nil,
		"pkg/wire":         {"pkg/ident"},
		"pkg/envelope":     {"pkg/ident", "pkg/internal/bin"},
		"pkg/linkstate":    {"pkg/ident", "pkg/internal/bin"},
		"pkg/topology":     {"pkg/ident"},
		"pkg/route":        {"pkg/ident", "pkg/topology", "pkg/wire"},
		"pkg/delivery":     {"pkg/envelope", "pkg/ident", "pkg/internal/bin"},
		"pkg/mailbox":      {"pkg/envelope", "pkg/ident"},
		"pkg/presence":     {"pkg/ident"},
	}
}

// inside lists, for the other packages, which packages of their own module they
// may import: imports go one way.
func inside() map[string][]string {
	return map[string][]string{
		"pkg/seldom":            nil,
		"pkg/failpoint":         nil,
		"pkg/broker/kafka":      {"pkg/ident", "pkg/certs", "pkg/failpoint", "pkg/seldom"},
		"pkg/broker/nats":       {"pkg/certs", "pkg/seldom"},
		"pkg/presence/redis":    {"pkg/presence", "pkg/ident", "pkg/certs"},
		"pkg/certs":             nil,
		"pkg/client":            {"pkg/ident"},
		"pkg/client/js":         nil,
		"pkg/link":              {"pkg/certs", "pkg/ident", "pkg/internal/bin", "pkg/topology"},
		"pkg/certs/certtest":    nil,
		"pkg/logtest":           nil,
		"pkg/mailbox/mongo":     {"pkg/mailbox", "pkg/envelope", "pkg/ident", "pkg/internal/bin"},
		"pkg/settings":          {"pkg/ident"},
		"pkg/program":           {"pkg/run", "pkg/settings"},
		"pkg/mailbox/sqlite":    {"pkg/mailbox", "pkg/envelope", "pkg/ident", "pkg/internal/bin", "pkg/internal/disk"},
		"pkg/mailboxtest":       {"pkg/mailbox", "pkg/envelope", "pkg/ident"},
		"pkg/topology/feed":     {"pkg/topology"},
		"pkg/trace":             {"pkg/ident", "pkg/internal/bin", "pkg/seldom"},
		"pkg/trace/otel":        {"pkg/ident", "pkg/seldom", "pkg/trace"},
		"pkg/run":               nil,
		"pkg/embedded":          {"pkg/internal/disk", "pkg/seldom"},
		"pkg/internal/disk":     nil,
		"pkg/internal/porttest": nil,
		"pkg/polltest":          nil,
		"pkg/disktest":          nil,

		"connector/internal/frames":              nil,
		"connector/internal/session":             {"connector/internal/frames"},
		"connector/internal/session/sessiontest": {"connector/internal/session"},
		"connector/internal/authcall":            nil,
		"connector/internal/lease":               nil,
		"connector/internal/linkport":            nil,
		"connector/internal/roster":              {"connector/internal/session"},
		"connector/internal/uplink":              {"connector/internal/session"},
		"connector/internal/downlink":            {"connector/internal/session"},
		"connector/internal/gateway": {
			"connector/internal/authcall", "connector/internal/roster", "connector/internal/session", "connector/internal/uplink",
		},
		"connector": {
			"connector/internal/downlink", "connector/internal/gateway", "connector/internal/lease", "connector/internal/linkport",
			"connector/internal/roster", "connector/internal/session", "connector/internal/uplink",
		},

		"processor/internal/window":      nil,
		"processor/internal/roll":        nil,
		"processor/internal/custody":     {"processor/internal/window"},
		"processor/internal/roads":       nil,
		"processor/internal/tracing":     {"processor/internal/custody"},
		"processor/internal/whereabouts": nil,
		"processor/internal/deadletters": nil,
		"processor/internal/lane":        {"processor/internal/custody", "processor/internal/roads"},
		"processor": {
			"processor/internal/custody", "processor/internal/deadletters", "processor/internal/lane", "processor/internal/roads", "processor/internal/roll", "processor/internal/tracing",
			"processor/internal/whereabouts",
		},

		"metaserver/internal/catalog": nil,
		"metaserver/internal/httpapi": {"metaserver/internal/catalog"},
		"metaserver":                  {"metaserver/internal/catalog", "metaserver/internal/httpapi"},

		"standalone/internal/console": nil,
		"standalone/internal/stack":   {"standalone/internal/console"},
		"standalone/internal/proxy":   nil,

		"standalone/internal/progress": nil,
		"standalone/internal/child":    nil,

		"standalone/internal/bench/figures":  nil,
		"standalone/internal/bench/frame":    nil,
		"standalone/internal/bench/message":  {"standalone/internal/bench/frame"},
		"standalone/internal/bench/plot":     nil,
		"standalone/internal/bench/relay":    nil,
		"standalone/internal/bench/report":   {"standalone/internal/bench/figures", "standalone/internal/bench/workload"},
		"standalone/internal/bench/swarm":    {"standalone/internal/bench/frame", "standalone/internal/bench/message"},
		"standalone/internal/bench/target":   {"standalone/internal/bench/figures", "standalone/internal/child"},
		"standalone/internal/bench/workload": {"standalone/internal/bench/figures", "standalone/internal/bench/message", "standalone/internal/bench/swarm"},
		"standalone/cmd/linker-bench": {
			"standalone/internal/bench/figures", "standalone/internal/bench/message", "standalone/internal/bench/plot", "standalone/internal/bench/relay", "standalone/internal/bench/report",
			"standalone/internal/bench/swarm", "standalone/internal/bench/target", "standalone/internal/bench/workload", "standalone/internal/progress",
			"standalone/internal/torture/system",
		},

		"standalone/internal/torture/bugs":    nil,
		"standalone/internal/torture/history": nil,
		"standalone/internal/torture/load":    {"standalone/internal/torture/history"},
		"standalone/internal/torture/nemesis": {"standalone/internal/torture/history", "standalone/internal/torture/system"},
		"standalone/internal/torture/system":  {"standalone/internal/child", "standalone/internal/proxy"},
		"standalone/internal/torture/verdict": {"standalone/internal/torture/history"},
		"standalone/cmd/linker-torture": {
			"standalone/internal/progress",
			"standalone/internal/torture/bugs", "standalone/internal/torture/history", "standalone/internal/torture/load",
			"standalone/internal/torture/nemesis", "standalone/internal/torture/system", "standalone/internal/torture/verdict",
		},

		"standalone/e2e":            nil,
		"standalone":                {"standalone/internal/stack"},
		"standalone/cmd/console":    {"standalone/internal/console"},
		"connector/cmd/connector":   {"connector"},
		"processor/cmd/processor":   {"processor"},
		"processor/cmd/linkerctl":   nil,
		"metaserver/cmd/metaserver": {"metaserver"},
		"deploy":                    nil,
	}
}

// owners lists every module of others and the packages that may import it; tests
// may as well. nil: every package may.
func owners() map[string][]string {
	return map[string][]string{
		"github.com/segmentio/kafka-go":           {"pkg/broker/kafka", "standalone/internal/torture/system"}, // which looks from outside
		"github.com/nats-io/nats.go":              {"pkg/broker/nats"},
		"github.com/redis/go-redis":               {"pkg/presence/redis"},
		"modernc.org/sqlite":                      {"pkg/mailbox/sqlite"},
		"go.mongodb.org/mongo-driver":             {"pkg/mailbox/mongo", "standalone/internal/torture/system"}, // which takes away what it has made
		"github.com/spf13/viper":                  {"pkg/settings"},
		"github.com/spf13/pflag":                  {"pkg/settings"},
		"github.com/coder/websocket":              {"pkg/client", "standalone/internal/torture/load", "standalone/internal/bench/relay", "connector/internal/session", "connector/internal/session/sessiontest"},
		"go.yaml.in/yaml":                         {"metaserver/internal/catalog", "pkg/settings"},
		"github.com/twmb/franz-go":                {"pkg/embedded"},
		"github.com/nats-io/nats-server":          {"pkg/embedded"},
		"github.com/alicebob/miniredis":           {"pkg/embedded"},
		"go.opentelemetry.io/otel":                {"pkg/trace/otel"},
		"github.com/prometheus/client_golang":     nil,
		"golang.org/x/sync":                       {"processor", "processor/internal/lane"},
		"github.com/HdrHistogram/hdrhistogram-go": {"standalone/internal/bench/figures"},
		"golang.org/x/sys":                        {"connector/internal/session", "standalone/internal/bench/swarm", "standalone/internal/bench/target"},
	}
}

// adapters lists the packages that stand between ports and SDKs, and who may
// choose them: the roots of services, the one driver that names them, and the torture,
// which looks into the mailboxes of a system that has ended.
func adapters() (adapters, choosers []string) {
	return []string{"pkg/broker/kafka", "pkg/broker/nats", "pkg/presence/redis", "pkg/mailbox/sqlite", "pkg/mailbox/mongo", "pkg/topology/feed"},
		[]string{"connector", "processor", "processor/internal/lane", "processor/internal/deadletters", "standalone/internal/torture/system"}
}

func TestPackagesImportOnlyWhatTheyMay(t *testing.T) {
	t.Parallel()
	list := packages(t)
	for name, rule := range map[string]func(*testing.T, []listed){
		"the vocabulary needs only the standard library":   vocabularyNeedsOnlyTheStandardLibrary,
		"imports inside a module go one way":               importsInsideAModuleGoOneWay,
		"modules of others are imported where they belong": modulesOfOthersAreImportedWhereTheyBelong,
		"only the roots of services choose adapters":       onlyTheRootsOfServicesChooseAdapters,
		"services do not import each other":                servicesDoNotImportEachOther,
		"only standalone and tests run embedded brokers":   onlyStandaloneAndTestsRunEmbeddedBrokers,
		"test suites are imported by tests only":           testSuitesAreImportedByTestsOnly,
		"nothing is global":                                nothingIsGlobal,
		"package variables are errors or tables":           packageVariablesAreErrorsOrTables,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rule(t, list)
		})
	}
}

func vocabularyNeedsOnlyTheStandardLibrary(t *testing.T, list []listed) {
	for name, allowed := range vocabulary() {
		for _, imported := range find(t, list, name).Imports {
			if own, is := strings.CutPrefix(imported, module); is && slices.Contains(allowed, own) || isStandard(imported) {
				continue
			}
			t.Errorf("%s imports %s; it may import the standard library and %v", name, imported, allowed)
		}
	}
}

func importsInsideAModuleGoOneWay(t *testing.T, list []listed) {
	table := inside()
	for _, p := range list {
		name := p.name()
		if _, is := vocabulary()[name]; is {
			continue
		}
		allowed, listed := table[name]
		if !listed {
			t.Errorf("%s: say in this test what it may import of its own module", name)
			continue
		}
		for _, imported := range p.Imports {
			own, is := strings.CutPrefix(imported, module)
			if !is || moduleOf(own) != moduleOf(name) || slices.Contains(allowed, own) {
				continue
			}
			if _, is := vocabulary()[own]; is && !strings.HasPrefix(name, "pkg/") {
				continue
			}
			t.Errorf("%s imports %s; of its own module it may import %v", name, own, allowed)
		}
	}
	for name := range table {
		find(t, list, name)
	}
}

func modulesOfOthersAreImportedWhereTheyBelong(t *testing.T, list []listed) {
	table := owners()
	used := map[string]bool{}
	for _, p := range list {
		for _, imported := range p.Imports {
			if isStandard(imported) || strings.HasPrefix(imported, module) {
				continue
			}
			owner := ""
			for prefix := range table {
				if imported == prefix || strings.HasPrefix(imported, prefix+"/") {
					owner = prefix
				}
			}
			used[owner] = true
			switch {
			case owner == "":
				t.Errorf("%s imports %s: say in this test who may", p.name(), imported)
			case table[owner] != nil && !slices.Contains(table[owner], p.name()):
				t.Errorf("%s imports %s; only %v and tests may", p.name(), imported, table[owner])
			}
		}
	}
	for prefix := range table {
		if !used[prefix] {
			t.Errorf("nothing imports %s any more: take it out of this test", prefix)
		}
	}
}

func onlyTheRootsOfServicesChooseAdapters(t *testing.T, list []listed) {
	adapters, choosers := adapters()
	for _, p := range list {
		for _, imported := range p.Imports {
			own, _ := strings.CutPrefix(imported, module)
			if slices.Contains(adapters, own) && !slices.Contains(choosers, p.name()) {
				t.Errorf("%s imports the adapter %s; only %v may, and tests", p.name(), own, choosers)
			}
		}
	}
}

func servicesDoNotImportEachOther(t *testing.T, list []listed) {
	for _, p := range list {
		for _, imported := range p.all() {
			own, is := strings.CutPrefix(imported, module)
			from, to := moduleOf(p.name()), moduleOf(own)
			switch {
			case !is || from == to || to == "pkg":
			case to == "standalone":
				t.Errorf("%s imports %s: nothing imports standalone", p.name(), own)
			case from != "standalone":
				t.Errorf("%s imports %s: services talk over the network", p.name(), own)
			case strings.Contains(own, "/internal/"):
				t.Errorf("%s imports %s: it may see only the roots of services", p.name(), own)
			}
		}
	}
}

func onlyStandaloneAndTestsRunEmbeddedBrokers(t *testing.T, list []listed) {
	for _, p := range list {
		if moduleOf(p.name()) != "standalone" && slices.Contains(p.Imports, module+"pkg/embedded") {
			t.Errorf("%s imports pkg/embedded: services get URLs", p.name())
		}
	}
}

func testSuitesAreImportedByTestsOnly(t *testing.T, list []listed) {
	for _, p := range list {
		for _, imported := range p.Imports {
			if strings.HasPrefix(imported, module) && strings.HasSuffix(imported, "test") {
				t.Errorf("%s imports %s outside of its tests", p.name(), imported)
			}
		}
	}
}

// nothingIsGlobal keeps it possible that two of every service live in one
// process.
func nothingIsGlobal(t *testing.T, list []listed) {
	forbidden := map[string][]string{
		"net/http": {"DefaultServeMux", "Handle", "HandleFunc", "ListenAndServe"},
		"github.com/prometheus/client_golang/prometheus": {"DefaultRegisterer", "DefaultGatherer", "MustRegister", "Register"},
		"log/slog": {"SetDefault", "Default", "Debug", "Info", "Warn", "Error"},
		"log":      {"SetOutput", "SetFlags", "Print", "Printf", "Println", "Fatal", "Fatalf"},
		"flag":     {"CommandLine", "Parse"},
	}
	process := map[string][]string{"os": {"Exit", "Getenv", "LookupEnv", "Args"}, "os/signal": {"Notify", "NotifyContext"}}
	eachSource(t, list, func(p listed, path string, file *ast.File, _ []byte) {
		names := importNames(file)
		ast.Inspect(file, func(n ast.Node) bool {
			selector, is := n.(*ast.SelectorExpr)
			if !is {
				return true
			}
			x, is := selector.X.(*ast.Ident)
			if !is {
				return true
			}
			imported := names[x.Name]
			if slices.Contains(forbidden[imported], selector.Sel.Name) {
				t.Errorf("%s uses %s.%s", path, x.Name, selector.Sel.Name)
			}
			if p.Name != "main" && p.name() != "pkg/run" && slices.Contains(process[imported], selector.Sel.Name) {
				t.Errorf("%s uses %s.%s, which belongs to main", path, x.Name, selector.Sel.Name)
			}
			return true
		})
		for _, d := range file.Decls {
			if f, is := d.(*ast.FuncDecl); is && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s has an init", path)
			}
		}
	})
}

// packageVariablesAreErrorsOrTables allows what nobody writes to: error
// values, tables, embedded files, and the check that a type has the methods of
// an interface.
func packageVariablesAreErrorsOrTables(t *testing.T, list []listed) {
	eachSource(t, list, func(p listed, path string, file *ast.File, text []byte) {
		for _, d := range file.Decls {
			g, is := d.(*ast.GenDecl)
			if !is || g.Tok != token.VAR {
				continue
			}
			embedded := g.Doc != nil && strings.Contains(string(text[g.Doc.Pos()-1:g.Doc.End()-1]), "//go:embed")
			for _, s := range g.Specs {
				v := s.(*ast.ValueSpec)
				if p.Name == "main" && v.Names[0].Name == "version" { // set where it is built
					continue
				}
				if !embedded && v.Names[0].Name != "_" && !isConstantValue(v) {
					t.Errorf("%s: %s is a package variable", path, v.Names[0].Name)
				}
			}
		}
	})
}

func isConstantValue(v *ast.ValueSpec) bool {
	for _, value := range v.Values {
		switch e := value.(type) {
		case *ast.CompositeLit:
		case *ast.CallExpr:
			selector, is := e.Fun.(*ast.SelectorExpr)
			if !is || !slices.Contains([]string{"New", "Errorf", "MustCompile", "NewReplacer"}, selector.Sel.Name) {
				return false
			}
		default:
			return false
		}
	}
	return len(v.Values) > 0
}

// TestServicesCannotTellHowTheyAreRun allows no second code path.
func TestServicesCannotTellHowTheyAreRun(t *testing.T) {
	t.Parallel()
	word := regexp.MustCompile(`(?i)standalone|all-?in-?one|in-?process`)
	for _, dir := range []string{"connector", "processor", "metaserver"} {
		walk(t, filepath.Join(root(t), dir), ".go", func(path string, text []byte) {
			if found := word.Find(text); found != nil {
				t.Errorf("%s says %q", path, found)
			}
		})
	}
}

// listed is a package as go list describes it.
type listed struct {
	ImportPath   string
	Dir          string
	Name         string
	GoFiles      []string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

func (p listed) name() string { return strings.TrimPrefix(p.ImportPath, module) }

func (p listed) all() []string { return slices.Concat(p.Imports, p.TestImports, p.XTestImports) }

func moduleOf(name string) string {
	first, _, _ := strings.Cut(name, "/")
	return first
}

func isStandard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}

// root is the root of the repository.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// packages lists the packages of all modules.
func packages(t *testing.T) []listed {
	t.Helper()
	command := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Dir,Name,GoFiles,Imports,TestImports,XTestImports", "work")
	command.Dir = root(t)
	command.Env = append(os.Environ(), "GOWORK="+filepath.Join(root(t), "go.work"))
	command.Stderr = os.Stderr
	output, err := command.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var list []listed
	for decoder := json.NewDecoder(strings.NewReader(string(output))); ; {
		var p listed
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		list = append(list, p)
	}
	if len(list) < 20 {
		t.Fatalf("go list names %d packages only", len(list))
	}
	return list
}

func find(t *testing.T, list []listed, name string) listed {
	t.Helper()
	for _, p := range list {
		if p.name() == name {
			return p
		}
	}
	t.Errorf("there is no package %s: take it out of this test", name)
	return listed{}
}

// eachSource reads all source files that are not tests nor test suites.
func eachSource(t *testing.T, list []listed, look func(p listed, path string, file *ast.File, text []byte)) {
	t.Helper()
	for _, p := range list {
		if strings.HasSuffix(p.ImportPath, "test") {
			continue
		}
		for _, name := range p.GoFiles {
			path := filepath.Join(p.Dir, name)
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, text, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			look(p, p.name()+"/"+name, file, text)
		}
	}
}

// importNames maps the names of a file's imports to their paths.
func importNames(file *ast.File) map[string]string {
	names := map[string]string{}
	for _, spec := range file.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue // the parser has let it pass, so it cannot be
		}
		name := path[strings.LastIndex(path, "/")+1:]
		if spec.Name != nil {
			name = spec.Name.Name
		}
		names[name] = path
	}
	return names
}

// walk calls look for every file below a directory whose name ends so.
func walk(t *testing.T, dir, suffix string, look func(path string, text []byte)) {
	t.Helper()
	seen := 0
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, suffix) {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		seen++
		look(path, text)
		return nil
	})
	if err != nil || seen == 0 {
		t.Fatalf("%d files %s below %s: %v", seen, suffix, dir, err)
	}
}
