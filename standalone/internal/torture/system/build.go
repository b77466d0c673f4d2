package system

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Build says how programs are built from a checkout of the repository.
type Build struct {
	Root    string // of the checkout
	Overlay string // file for go build -overlay; "": none
	Race    bool   // with the race detector
	// Programs are the ones to build, as packages relative to the root; nil: all that
	// any system consists of.
	Programs []string
}

// Programs are what the system consists of that a configuration describes, as packages
// relative to the root of a checkout.
func (c Config) Programs() []string {
	if c.Standalone {
		return []string{"standalone"}
	}
	return []string{"connector/cmd/connector", "processor/cmd/processor", "metaserver/cmd/metaserver"}
}

// Into builds programs into a directory, with failpoints.
func (b Build) Into(ctx context.Context, dir string) error {
	args := []string{"build", "-buildvcs=false", "-tags", "failpoints", "-o", dir + string(filepath.Separator)}
	if b.Overlay != "" {
		args = append(args, "-overlay", b.Overlay)
	}
	if b.Race {
		args = append(args, "-race")
	}
	programs := b.Programs
	if programs == nil {
		programs = append(Config{}.Programs(), Config{Standalone: true}.Programs()...)
	}
	for _, program := range programs {
		args = append(args, "./"+program)
	}
	command := exec.CommandContext(ctx, "go", args...)
	command.Dir = b.Root
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("build the programs in %s: %w: %s", b.Root, err, out)
	}
	return nil
}

// ErrNoCheckout says that a directory is not inside a checkout of the repository.
var ErrNoCheckout = errors.New("not inside a checkout of the repository")

// Root finds the checkout that a directory lies in.
func Root(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for at := dir; ; at = filepath.Dir(at) {
		found := true
		for _, name := range []string{"go.work", "connector/cmd/connector", "standalone/cmd/linker-torture"} {
			if _, err := os.Stat(filepath.Join(at, name)); err != nil {
				found = false
			}
		}
		if found {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("%s: %w", dir, ErrNoCheckout)
		}
	}
}
