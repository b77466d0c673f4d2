package js_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/client/js"
)

// patience is far above what the tests of the package take.
const patience = 3 * time.Minute

func TestBrowsersGetTheModulesAndNothingElse(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"linker.js": true, "linker-browser.js": true, "linker-node.js": false, "linker.d.ts": false, "package.json": false,
	} {
		body, err := fs.ReadFile(js.Files(), name)
		if (err == nil) != want || want && len(body) == 0 {
			t.Errorf("%s: %d bytes, %v; is it to be there: %v", name, len(body), err, want)
		}
	}
}

func TestTheClientKeepsItsPromisesInNode(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	command := exec.CommandContext(ctx, "node", "--test")
	command.Env = append(os.Environ(), nodeOptions(t))
	if output, err := command.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, output)
	}
}

func TestItsTypesAreStrict(t *testing.T) {
	t.Parallel()
	tsc, err := exec.LookPath("tsc")
	if err != nil {
		t.Skip("the types are compared with the modules, but not compiled: no tsc in PATH")
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	command := exec.CommandContext(ctx, tsc, "--noEmit", "--strict", "--target", "esnext", "--module", "nodenext",
		"--lib", "esnext,dom", "tests/program.ts")
	if output, err := command.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, output)
	}
}

// nodeOptions is what Node must be told to have a WebSocket. The test is skipped where
// it cannot have one.
func nodeOptions(t *testing.T) string {
	t.Helper()
	output, err := exec.CommandContext(t.Context(), "node", "--version").Output()
	if err != nil {
		t.Skipf("the client is not tested: node: %v", err)
	}
	version := strings.TrimSpace(string(output))
	var major, minor int
	if _, err := fmt.Sscanf(version, "v%d.%d", &major, &minor); err != nil {
		t.Fatalf("node is of version %q: %v", version, err)
	}
	switch {
	case major >= 22:
		return "NODE_OPTIONS="
	case major > 20 || major == 20 && minor >= 10:
		return "NODE_OPTIONS=--experimental-websocket"
	default:
		t.Skipf("the client is not tested: node is of version %s, 20.10 is the first with a WebSocket", version)
		return ""
	}
}
