package bugs_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/linkerhq/linker/standalone/internal/torture/bugs"
)

// root is the root of the repository.
const root = "../../../.."

func TestEachBugCanBeBuilt(t *testing.T) {
	t.Parallel()
	at, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range bugs.Names() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			overlay, err := bugs.Overlay(name, at, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			vet := exec.CommandContext(t.Context(), "go", "vet", "-tags", "failpoints", "-overlay", overlay, "./processor/internal/...", "./connector/internal/downlink", "./pkg/broker/kafka")
			vet.Dir = at
			if out, err := vet.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func TestAnUnknownBugIsNamed(t *testing.T) {
	t.Parallel()
	_, err := bugs.Overlay("none", root, t.TempDir())
	if err == nil || !strings.Contains(err.Error(), `bug "none"`) {
		t.Errorf("%v", err)
	}
}
