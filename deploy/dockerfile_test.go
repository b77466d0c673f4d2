package deploy

import (
	goversion "go/version"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

// recipe is a Dockerfile: what it builds, stage by stage.
type recipe []stage

type stage struct {
	name  string // of FROM … AS name
	from  string // another stage or an image
	steps []step
}

type step struct {
	name  string   // RUN, COPY, …
	flags []string // --from=modules
	args  string   // in one line
}

// flag returns the value of a flag, or nothing.
func (s step) flag(name string) string {
	for _, f := range s.flags {
		if value, is := strings.CutPrefix(f, "--"+name+"="); is {
			return value
		}
	}
	return ""
}

func (r recipe) find(name string) (stage, bool) {
	i := slices.IndexFunc(r, func(s stage) bool { return s.name == name })
	if i < 0 {
		return stage{}, false
	}
	return r[i], true
}

// all lists the steps that make a stage, with those of the stages that it is built on.
func (r recipe) all(s stage) []step {
	if base, is := r.find(s.from); is {
		return append(r.all(base), s.steps...)
	}
	return s.steps
}

// last returns the arguments of the last step with a name that a stage has.
func (r recipe) last(s stage, name string) string {
	last := ""
	for _, step := range r.all(s) {
		if step.name == name {
			last = step.args
		}
	}
	return last
}

// dockerfile reads deploy/Dockerfile, which uses neither directives nor heredocs.
func dockerfile(t *testing.T) recipe {
	t.Helper()
	comment := regexp.MustCompile(`(?m)^\s*#.*\n`)
	text := strings.ReplaceAll(comment.ReplaceAllString(read(t, "deploy", "Dockerfile"), ""), "\\\n", " ")
	var r recipe
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		s := step{name: words[0]}
		rest := words[1:]
		for len(rest) > 0 && strings.HasPrefix(rest[0], "--") {
			s.flags, rest = append(s.flags, rest[0]), rest[1:]
		}
		s.args = strings.Join(rest, " ")
		switch {
		case s.name == "FROM" && len(rest) == 3 && rest[1] == "AS":
			r = append(r, stage{name: rest[2], from: rest[0]})
		case s.name == "FROM" || len(r) == 0:
			t.Fatalf("deploy/Dockerfile: %s", line)
		default:
			r[len(r)-1].steps = append(r[len(r)-1].steps, s)
		}
	}
	return r
}

// targets lists the programs, each of which has an image.
func targets() []string { return []string{"connector", "processor", "metaserver", "console"} }

func target(t *testing.T, r recipe, name string) stage {
	t.Helper()
	s, is := r.find(name)
	if !is {
		t.Fatalf("deploy/Dockerfile has no target %s", name)
	}
	return s
}

func TestDockerfilePinsWhatItStartsFrom(t *testing.T) {
	t.Parallel()
	image := regexp.MustCompile(`^golang:(\d+\.\d+\.\d+)-alpine\d+\.\d+$`)
	directive := regexp.MustCompile(`(?m)^go (\S+)$`).FindStringSubmatch(read(t, "go.work"))
	if directive == nil {
		t.Fatal("go.work names no version of Go")
	}
	names := []string{"scratch"}
	r := dockerfile(t)
	for _, s := range r {
		if m := image.FindStringSubmatch(s.from); m != nil {
			if goversion.Compare("go"+m[1], "go"+directive[1]) < 0 {
				t.Errorf("%s is built with Go %s; go.work wants %s", s.name, m[1], directive[1])
			}
		} else if !slices.Contains(names, s.from) {
			t.Errorf("%s starts from %s, which is neither an earlier stage nor pinned", s.name, s.from)
		}
		names = append(names, s.name)
	}
}

func TestImagesRunAsAUserThatIsANumberAndNotRoot(t *testing.T) {
	t.Parallel()
	r := dockerfile(t)
	user := regexp.MustCompile(`^([1-9]\d{3,}):([1-9]\d{3,})$`)
	for _, name := range targets() {
		s := target(t, r, name)
		if got := r.last(s, "USER"); !user.MatchString(got) {
			t.Errorf("%s runs as %q", name, got)
		}
		if got := r.last(s, "ENTRYPOINT"); got != `["/linker"]` {
			t.Errorf("%s starts %s; signals reach only a program that is started without a shell", name, got)
		}
		if got := r.last(s, "STOPSIGNAL"); got != "SIGTERM" {
			t.Errorf("%s is stopped by %q", name, got)
		}
	}
}

func TestImagesExposeThePortsOfTheirPrograms(t *testing.T) {
	t.Parallel()
	r := dockerfile(t)
	for _, name := range targets() {
		exposed := strings.Fields(r.last(target(t, r, name), "EXPOSE"))
		var standard []string
		for _, k := range program(t, name).Keys {
			if k.Name == "listen" || strings.HasSuffix(k.Name, "-listen") {
				standard = append(standard, strings.TrimPrefix(k.Default, ":"))
			}
		}
		slices.Sort(exposed)
		slices.Sort(standard)
		if !slices.Equal(exposed, standard) {
			t.Errorf("%s exposes %v and listens on %v", name, exposed, standard)
		}
	}
}

func TestDockerfileCopiesWhatIsThere(t *testing.T) {
	t.Parallel()
	ignored := ignore(t)
	earlier := map[string]bool{}
	for _, s := range dockerfile(t) {
		for _, step := range s.steps {
			if step.name != "COPY" {
				continue
			}
			if from := step.flag("from"); from != "" {
				if !earlier[from] {
					t.Errorf("%s copies from %s, which is no earlier stage", s.name, from)
				}
				continue
			}
			paths := strings.Fields(step.args)
			for _, source := range paths[:len(paths)-1] {
				if _, err := os.Stat(filepath.Join(root, source)); err != nil {
					t.Errorf("%s: %v", s.name, err)
				}
				if ignored(source) {
					t.Errorf("%s copies %s, which .dockerignore leaves out", s.name, source)
				}
			}
		}
		earlier[s.name] = true
	}
}

func TestDockerignoreLeavesOutWhatImagesDoNotNeed(t *testing.T) {
	t.Parallel()
	ignored := ignore(t)
	for path, want := range map[string]bool{
		".git/HEAD": true, "bin/standalone": true, "data/lock": true, "deploy/Dockerfile": true, "README.md": true, "go.work": true,
		"pkg/wire/wire_test.go": true, "connector/connector_test.go": true, "pkg/wire/testdata/fuzz/x": true,
		"pkg/go.mod": false, "pkg/wire/wire.go": false, "connector/cmd/connector/main.go": false,
		"standalone/internal/console/static/console.js": false, "pkg/client/js/linker.js": false,
	} {
		if got := ignored(path); got != want {
			t.Errorf("%s: left out %v, want %v", path, got, want)
		}
	}
}

// ignore says of paths in the checkout whether .dockerignore leaves them out.
func ignore(t *testing.T) func(path string) bool {
	t.Helper()
	patterns, err := ignorefile.ReadAll(strings.NewReader(read(t, ".dockerignore")))
	if err != nil {
		t.Fatal(err)
	}
	matcher, err := patternmatcher.New(patterns)
	if err != nil {
		t.Fatal(err)
	}
	return func(path string) bool {
		matches, err := matcher.MatchesOrParentMatches(path)
		if err != nil {
			t.Fatal(err)
		}
		return matches
	}
}

func TestImagesSayWhatTheyAre(t *testing.T) {
	t.Parallel()
	r := dockerfile(t)
	for _, name := range targets() {
		var labels strings.Builder
		for _, step := range r.all(target(t, r, name)) {
			if step.name == "LABEL" {
				labels.WriteString(step.args + " ")
			}
		}
		for _, want := range []string{"title", "source", "licenses"} {
			if !strings.Contains(labels.String(), "org.opencontainers.image."+want+"=") {
				t.Errorf("%s has no label %s", name, want)
			}
		}
	}
}
