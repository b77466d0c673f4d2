package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/settings"
)

// unit is a unit of systemd: the values of each of its keys, in their order.
type unit map[string][]string

// units reads the units under deploy/systemd, by the names of the programs.
func units(t *testing.T) map[string]unit {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root, "deploy", "systemd", "*.service"))
	if err != nil || len(paths) != 3 {
		t.Fatalf("the units are %v: %v", paths, err)
	}
	all := map[string]unit{}
	for _, path := range paths {
		u := unit{}
		for line := range strings.Lines(read(t, "deploy", "systemd", filepath.Base(path))) {
			if key, value, is := strings.Cut(strings.TrimSpace(line), "="); is && !strings.HasPrefix(line, "#") {
				u[key] = append(u[key], value)
			}
		}
		all[strings.TrimSuffix(strings.TrimSuffix(filepath.Base(path), ".service"), "@")] = u
	}
	return all
}

// one is the value of a key that stands in a unit once.
func (u unit) one(t *testing.T, key string) string {
	t.Helper()
	if len(u[key]) != 1 {
		t.Fatalf("%s is given as %q", key, u[key])
	}
	return u[key][0]
}

// environ is what systemd gives to the instance of a program: what the unit sets,
// then its files, of which those are taken that deploy/systemd has examples for.
func (u unit) environ(t *testing.T, name, instance string) []string {
	t.Helper()
	credentials := t.TempDir()
	for _, c := range u["LoadCredential"] {
		id, _, _ := strings.Cut(c, ":")
		if err := os.WriteFile(filepath.Join(credentials, id), []byte("a-token-for-this-test\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	specifiers := strings.NewReplacer("%p", name, "%i", instance, "%d", credentials, "%S", "/var/lib")
	var environ []string
	for _, e := range u["Environment"] {
		environ = append(environ, specifiers.Replace(e))
	}
	for _, file := range u["EnvironmentFile"] {
		file, optional := strings.CutPrefix(specifiers.Replace(file), "-")
		example := filepath.Base(file) + ".example"
		if _, err := os.Stat(filepath.Join(root, "deploy", "systemd", example)); err != nil {
			if !optional {
				t.Errorf("%s reads %s, for which there is no example", name, file)
			}
			continue
		}
		if filepath.Dir(file) != "/etc/linker" {
			t.Errorf("%s reads %s", name, file)
		}
		for line := range strings.Lines(read(t, "deploy", "systemd", example)) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				environ = append(environ, line)
			}
		}
	}
	return environ
}

func TestUnitsSetWhatProgramsKnowAndNeed(t *testing.T) {
	t.Parallel()
	known := documented(t)
	for name, u := range units(t) {
		for _, instance := range []string{"1", "2"} {
			environ := u.environ(t, name, instance)
			for _, e := range environ {
				if key, _, _ := strings.Cut(e, "="); !slices.Contains(known[name], key) {
					t.Errorf("%s sets %s, which docs/configuration.md does not have for it", name, key)
				}
			}
			values(t, name, environ)
		}
	}
}

func TestUnitsStartOneProgramEach(t *testing.T) {
	t.Parallel()
	for name, u := range units(t) {
		if got := u.one(t, "ExecStart"); got != "/usr/local/lib/linker/"+program(t, name).Name {
			t.Errorf("%s starts %s", name, got)
		}
	}
}

func TestInstancesOfOneHostListenOnPortsOfTheirOwn(t *testing.T) {
	t.Parallel()
	taken := map[string]string{}
	for name, u := range units(t) {
		instances := []string{"1"}
		if len(u["StateDirectory"]) > 0 { // of a template
			instances = append(instances, "2")
		}
		for _, instance := range instances {
			for _, port := range listens(t, name, values(t, name, u.environ(t, name, instance))) {
				if other, is := taken[port]; is {
					t.Errorf("%s %s and %s both listen on %s", name, instance, other, port)
				}
				taken[port] = name + " " + instance
			}
		}
	}
}

func TestExamplesOfEnvironmentFilesNameOnlyKnownSettings(t *testing.T) {
	t.Parallel()
	known := documented(t)
	set := regexp.MustCompile(`(?m)^#?([A-Z_]+)=(.*)$`)
	paths, err := filepath.Glob(filepath.Join(root, "deploy", "systemd", "*.env.example"))
	if err != nil || len(paths) != 5 {
		t.Fatalf("the examples are %v: %v", paths, err)
	}
	for _, path := range paths {
		file := filepath.Base(path)
		name, _, _ := strings.Cut(strings.TrimSuffix(file, ".env.example"), "-")
		for _, m := range set.FindAllStringSubmatch(read(t, "deploy", "systemd", file), -1) {
			if !slices.Contains(known[name], m[1]) {
				t.Errorf("%s has %s, which docs/configuration.md does not have for a %s", file, m[1], name)
			}
			if !strings.HasPrefix(m[0], "#") {
				continue
			}
			for _, k := range program(t, name).Keys {
				if k.Environment() == m[1] && k.Default != "" && k.Kind != settings.Switch && m[1] != "LINKER_LOG_FORMAT" && k.Default != m[2] {
					t.Errorf("%s shows %s; the default is %s", file, m[0], k.Default)
				}
			}
		}
	}
}

func TestUnitsEndInGoodOrderAndStartAgain(t *testing.T) {
	t.Parallel()
	for name, u := range units(t) {
		timeout, err := time.ParseDuration(u.one(t, "TimeoutStopSec"))
		if err != nil {
			t.Fatal(err)
		}
		if most := drain(t, name, values(t, name, u.environ(t, name, "1"))); timeout < most+5*time.Second {
			t.Errorf("%s is killed after %v, but may take %v to end", name, timeout, most)
		}
		want := map[string]string{"Restart": "always", "StartLimitIntervalSec": "0", "LimitNOFILE": "1048576"}
		for key, value := range want {
			if got := u.one(t, key); got != value {
				t.Errorf("%s has %s=%s, want %s", name, key, got, value)
			}
		}
	}
}

func TestUnitsMayDoLittle(t *testing.T) {
	t.Parallel()
	user := regexp.MustCompile(`(?m)^u (\S+) `).FindStringSubmatch(read(t, "deploy", "systemd", "linker.conf"))
	if user == nil {
		t.Fatal("linker.conf makes no user")
	}
	for name, u := range units(t) {
		want := map[string]string{
			"User": user[1], "Group": user[1], "UMask": "0077", "NoNewPrivileges": "yes",
			"ProtectSystem": "strict", "ProtectHome": "yes", "PrivateDevices": "yes", "PrivateTmp": "yes",
			"MemoryDenyWriteExecute": "yes", "RestrictNamespaces": "yes", "SystemCallArchitectures": "native",
		}
		for key, value := range want {
			if got := u.one(t, key); got != value {
				t.Errorf("%s has %s=%s, want %s", name, key, got, value)
			}
		}
		if got := u.one(t, "CapabilityBoundingSet"); got != "" && got != "CAP_NET_BIND_SERVICE" {
			t.Errorf("%s has the capabilities %s", name, got)
		}
	}
}

func TestUnitsAreHardenedAlike(t *testing.T) {
	t.Parallel()
	all := units(t)
	for name, u := range all {
		for key, value := range all["connector"] {
			hardens := strings.HasPrefix(key, "Protect") || strings.HasPrefix(key, "Restrict") || strings.HasPrefix(key, "SystemCall")
			if hardens && !slices.Equal(u[key], value) {
				t.Errorf("%s has %s=%v, the connector %v", name, key, u[key], value)
			}
		}
	}
}

// TestSystemdKnowsWhatUnitsSay asks systemd itself, where it is.
func TestSystemdKnowsWhatUnitsSay(t *testing.T) {
	t.Parallel()
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not here")
	}
	start := regexp.MustCompile(`(?m)^ExecStart=.*$`)
	for name, u := range units(t) {
		file := name + ".service"
		if len(u["StateDirectory"]) > 0 {
			file = name + "@.service"
		}
		// The programs are not installed here, and anything that can be executed will do.
		text := start.ReplaceAllString(read(t, "deploy", "systemd", file), "ExecStart=/bin/sh")
		path := filepath.Join(t.TempDir(), strings.Replace(file, "@", "@1", 1))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		output, err := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", path).CombinedOutput()
		if err != nil || len(output) > 0 {
			t.Errorf("%s: %v\n%s", file, err, output)
		}
	}
}
