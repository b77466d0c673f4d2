package deploy

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/settings"
)

// root is the checkout.
const root = ".."

func read(t *testing.T, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(append([]string{root}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func program(t *testing.T, name string) settings.Program {
	t.Helper()
	for _, p := range settings.Programs() {
		if p.Name == name {
			return p
		}
	}
	t.Fatalf("there is no program %q", name)
	return settings.Program{}
}

// values reads the settings of a program as the program itself would.
func values(t *testing.T, name string, environ []string) *settings.Values {
	t.Helper()
	v, err := settings.Read(program(t, name), nil, environ)
	if err != nil {
		t.Fatalf("the %s would not start: %v", name, err)
	}
	return v
}

// documented lists the variables that docs/configuration.md has for each program,
// with those that name the files of secrets.
func documented(t *testing.T) map[string][]string {
	t.Helper()
	variables := map[string][]string{}
	row := regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\| ([a-z, ]+) \\|[^|]*\\| (.*) \\|$")
	for _, m := range row.FindAllStringSubmatch(read(t, "docs", "configuration.md"), -1) {
		programs := strings.Split(m[2], ", ")
		if m[2] == "all" {
			programs = []string{"connector", "processor", "metaserver", "console"}
		}
		for _, p := range programs {
			name := variable(m[1])
			variables[p] = append(variables[p], name)
			if strings.HasPrefix(m[3], "secret") {
				variables[p] = append(variables[p], name+"_FILE")
			}
		}
	}
	if len(variables) != len(settings.Programs()) || len(variables["connector"]) < 30 {
		t.Fatalf("docs/configuration.md: is the form of its table another one? %d variables of %d programs were found",
			len(variables["connector"]), len(variables))
	}
	return variables
}

// variable is the name of a key in the environment.
func variable(key string) string {
	return settings.Key{Name: key}.Environment()
}

// listens lists the ports that a program listens on.
func listens(t *testing.T, name string, v *settings.Values) []string {
	t.Helper()
	var ports []string
	for _, k := range program(t, name).Keys {
		if k.Name == "listen" || strings.HasSuffix(k.Name, "-listen") {
			address := v.Text(k.Name)
			ports = append(ports, address[strings.LastIndex(address, ":")+1:])
		}
	}
	if len(ports) == 0 {
		t.Fatalf("the %s listens nowhere", name)
	}
	return ports
}

// drain is how long a program may take to end.
func drain(t *testing.T, name string, v *settings.Values) time.Duration {
	t.Helper()
	if slices.ContainsFunc(program(t, name).Keys, func(k settings.Key) bool { return k.Name == "drain-for" }) {
		return v.Duration("drain-for")
	}
	return 0
}
