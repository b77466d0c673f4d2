package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/settings"
	"github.com/linkerhq/linker/pkg/wire"
	"github.com/linkerhq/linker/standalone/internal/stack"
)

func TestArchitectureNamesOnlyFilesAndFunctionsThatExist(t *testing.T) {
	t.Parallel()
	quoted := regexp.MustCompile("`([^`]+)`")
	file := regexp.MustCompile(`^[a-z0-9_./-]+\.go$`)
	name := regexp.MustCompile(`^([A-Za-z_]\w*\.)?[A-Za-z_]\w*$`)
	declared := map[string][]string{}
	checked := 0
	picture := regexp.MustCompile("(?s)```.*?```")
	text := strings.ReplaceAll(picture.ReplaceAllString(document(t, "ARCHITECTURE.md"), ""), "\n", " ")
	matches := quoted.FindAllStringSubmatchIndex(text, -1)
	current, end := "", 0
	for _, m := range matches {
		word := text[m[2]:m[3]]
		between := text[end:m[0]]
		end = m[1]
		switch {
		case file.MatchString(word):
			current = word
			if _, known := declared[word]; !known {
				declared[word] = declarations(t, word)
			}
		case current != "" && name.MatchString(word) && isSeparator(between):
			checked++
			if !slices.Contains(declared[current], word) {
				t.Errorf("ARCHITECTURE.md: there is no %s in %s", word, current)
			}
		default:
			current = ""
		}
	}
	if checked < 100 {
		t.Errorf("only %d names were found in ARCHITECTURE.md: is its form another one?", checked)
	}
}

// isSeparator says whether what stands between two quoted words makes the second
// one a name in the file that came before.
func isSeparator(s string) bool {
	s = strings.TrimSpace(s)
	return s == "" || s == ","
}

// declarations lists what a file declares: functions, methods as Type.Method,
// types, constants and variables.
func declarations(t *testing.T, path string) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", path), nil, parser.SkipObjectResolution)
	if err != nil {
		t.Errorf("%s: %v", path, err)
		return nil
	}
	var names []string
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			names = append(names, receiver(d)+d.Name.Name)
		case *ast.GenDecl:
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					names = append(names, s.Name.Name)
				case *ast.ValueSpec:
					for _, n := range s.Names {
						names = append(names, n.Name)
					}
				}
			}
		}
	}
	return names
}

func receiver(d *ast.FuncDecl) string {
	if d.Recv == nil {
		return ""
	}
	kind := d.Recv.List[0].Type
	if pointer, is := kind.(*ast.StarExpr); is {
		kind = pointer.X
	}
	if generic, is := kind.(*ast.IndexExpr); is {
		kind = generic.X
	}
	if name, is := kind.(*ast.Ident); is {
		return name.Name + "."
	}
	return ""
}

func TestDocumentsLinkToFilesThatExist(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	for path, text := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", path, m[1], err)
			}
		}
	}
}

func TestDocumentsNameNoPathOfOneMachine(t *testing.T) {
	t.Parallel()
	private := regexp.MustCompile(`(^|[\s"'=(` + "`" + `])(/(work|root|home|Users|mnt)/|~/)\S*`)
	for path, text := range documents(t) {
		for _, found := range private.FindAllString(text, -1) {
			t.Errorf("%s names %s", path, strings.TrimSpace(found))
		}
	}
}

func TestProtocolDocumentNamesEveryTypeCodeReasonAndCloseCode(t *testing.T) {
	t.Parallel()
	text := document(t, "docs", "protocol.md")
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", "pkg", "wire", "wire.go"), nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, d := range file.Decls {
		g, is := d.(*ast.GenDecl)
		if !is || g.Tok != token.CONST {
			continue
		}
		for _, s := range g.Specs {
			v := s.(*ast.ValueSpec)
			kind, is := v.Type.(*ast.Ident)
			if !is || len(v.Values) != 1 {
				continue
			}
			value, is := v.Values[0].(*ast.BasicLit)
			if !is {
				continue
			}
			want := "`" + strings.Trim(value.Value, `"`) + "`"
			if kind.Name == "CloseCode" {
				want = "| " + value.Value + " |"
			}
			seen[kind.Name]++
			if !strings.Contains(text, want) {
				t.Errorf("docs/protocol.md does not name %s, %s", v.Names[0].Name, want)
			}
		}
	}
	for _, kind := range []string{"Type", "Code", "Reason", "CloseCode"} {
		if seen[kind] < 5 {
			t.Errorf("pkg/wire/wire.go declares %d constants of type %s only", seen[kind], kind)
		}
	}
}

func TestExamplesOfTheProtocolDocumentAreFrames(t *testing.T) {
	t.Parallel()
	sent, received := 0, 0
	for line := range strings.Lines(document(t, "docs", "protocol.md")) {
		line = strings.TrimSpace(line)
		if text, is := strings.CutPrefix(line, "→ "); is {
			sent++
			if _, problem := wire.Decode([]byte(text)); problem != nil {
				t.Errorf("%s\nis refused: %s %s", text, problem.Code, problem.Message)
			}
		}
		if text, is := strings.CutPrefix(line, "← "); is {
			received++
			var frame struct {
				Type string
				Data map[string]any
			}
			if err := json.Unmarshal([]byte(text), &frame); err != nil || frame.Type == "" || frame.Data == nil {
				t.Errorf("%s\nis no frame: %v", text, err)
			}
		}
	}
	if sent < 8 || received < 12 {
		t.Errorf("found %d frames of clients and %d of servers only", sent, received)
	}
}

func TestConfigurationDocumentNamesEveryKeyOfEveryProgram(t *testing.T) {
	t.Parallel()
	want := map[string]string{} // the default, by program and key
	var programs []string
	for _, p := range settings.Programs() {
		programs = append(programs, p.Name)
		for _, k := range p.Keys {
			standard := cmp.Or(k.Default, k.Stands, "none")
			if k.Required {
				standard = "required"
			}
			want[p.Name+" "+k.Name] = fmt.Sprint(standard, ", secret: ", k.Secret)
		}
	}
	documented := map[string]string{}
	row := regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\| ([a-z, ]+) \\| ([^|]+) \\| ([^|]+) \\|$")
	for _, m := range row.FindAllStringSubmatch(document(t, "docs", "configuration.md"), -1) {
		of := strings.Split(m[2], ", ")
		if m[2] == "all" {
			of = programs
		}
		for _, program := range of {
			name := program + " " + m[1]
			if _, twice := documented[name]; twice {
				t.Errorf("docs/configuration.md has %s twice", name)
			}
			documented[name] = fmt.Sprint(strings.ReplaceAll(m[3], "`", ""), ", secret: ", strings.HasPrefix(m[4], "secret. "))
		}
	}
	for name, standard := range want {
		if got, is := documented[name]; !is || got != standard {
			t.Errorf("%s has the default %s; docs/configuration.md says %q", name, standard, got)
		}
	}
	for name := range documented {
		if _, is := want[name]; !is {
			t.Errorf("docs/configuration.md has %s, which there is not", name)
		}
	}
}

func TestTheExampleOfTheConfigurationDocumentCanBeUsed(t *testing.T) {
	t.Parallel()
	example := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindStringSubmatch(document(t, "docs", "configuration.md"))
	if example == nil {
		t.Fatal("there is no YAML in docs/configuration.md")
	}
	dir := t.TempDir()
	for _, name := range []string{"redis-url", "meta-token"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("redis://redis:6379\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "connector.yaml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(example[1], "/run/secrets", dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := settings.Read(settings.Connector(), []string{"--config", file}, nil); err != nil {
		t.Error(err)
	}
}

func TestConfigurationDocumentNamesEveryFlag(t *testing.T) {
	t.Parallel()
	var help bytes.Buffer
	if err := runStandalone(t.Context(), []string{"--help"}, &help, io.Discard); err != nil {
		t.Fatal(err)
	}
	var flags []string
	for _, m := range regexp.MustCompile(`(?m)^  -([a-z-]+)`).FindAllStringSubmatch(help.String(), -1) {
		flags = append(flags, "--"+m[1])
	}
	var documented []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(--[a-z-]+)` \\|").FindAllStringSubmatch(document(t, "docs", "configuration.md"), -1) {
		if m[1] != "--help" {
			documented = append(documented, m[1])
		}
	}
	slices.Sort(flags)
	slices.Sort(documented)
	if !slices.Equal(flags, documented) {
		t.Errorf("the program has the flags\n%v\ndocs/configuration.md has\n%v", flags, documented)
	}
}

func TestOperationsDocumentNamesTheMetricsThatAreExported(t *testing.T) {
	t.Parallel()
	s := twoDomains(t)
	var documented []string
	for _, m := range regexp.MustCompile("`(linker_[a-z_]+)").FindAllStringSubmatch(document(t, "docs", "operations.md"), -1) {
		documented = append(documented, m[1])
	}
	slices.Sort(documented)
	documented = slices.Compact(documented)

	// Lanes show their figures every second only.
	var exported []string
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for {
		exported = metrics(t, s)
		if slices.Equal(exported, documented) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			for _, name := range documented {
				if !slices.Contains(exported, name) {
					t.Errorf("docs/operations.md names %s, which is not exported", name)
				}
			}
			for _, name := range exported {
				if !slices.Contains(documented, name) {
					t.Errorf("%s is not in docs/operations.md", name)
				}
			}
			return
		}
	}
}

// twoDomains runs two linked domains, so that everything is exported that ever is.
func twoDomains(t *testing.T) *stack.Stack {
	t.Helper()
	s, err := stack.New(stack.Config{Data: t.TempDir(), Domains: 2, Host: "127.0.0.1", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	if err := s.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// metrics lists the names of the metrics that the services of a stack export.
func metrics(t *testing.T, s *stack.Stack) []string {
	t.Helper()
	name := regexp.MustCompile(`(?m)^# TYPE (linker_\w+) `)
	var names []string
	for _, service := range []string{s.ConnectorURL(), s.ProcessorURL(), s.MetaURL()} {
		for _, m := range name.FindAllStringSubmatch(get(t, service+"/metrics"), -1) {
			names = append(names, m[1])
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func get(t *testing.T, url string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s, %v", url, strconv.Itoa(response.StatusCode), err)
	}
	return string(text)
}

// document reads a file of the repository.
func document(t *testing.T, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(append([]string{".."}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// documents reads everything at the root and below docs and .ci that people read.
func documents(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, pattern := range []string{"*.md", "Makefile", ".golangci.yml", "docs/*", "docs/adr/*", ".ci/*"} {
		paths, err := filepath.Glob(filepath.Join("..", pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			if info, err := os.Stat(path); err != nil || info.IsDir() {
				continue
			}
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			found[path] = string(text)
		}
	}
	if len(found) < 10 {
		t.Fatalf("only %d documents were found", len(found))
	}
	return found
}
