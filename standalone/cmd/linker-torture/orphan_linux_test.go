package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/polltest"
)

func TestNothingOutlivesATortureThatIsKilled(t *testing.T) {
	t.Parallel()
	bin := programs(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "run")
	command := exec.CommandContext(t.Context(), self, "--domains", "1", "--duration", "10m", "--quiet", "--bin", bin, "--dir", dir)
	command.Env = append(os.Environ(), asProgram+"=yes")
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	const limit = 2 * time.Minute
	var places []string
	polltest.Within(t, limit, "the network is described", func() bool {
		text, _ := os.ReadFile(filepath.Join(dir, "network.yaml"))
		places = regexp.MustCompile(`127\.0\.0\.1:\d+`).FindAllString(string(text), -1)
		return len(places) > 0
	})
	listening := func() int {
		count := 0
		for _, place := range places {
			conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", place)
			if err == nil {
				_ = conn.Close()
				count++
			}
		}
		return count
	}
	polltest.Within(t, limit, "all of it listens", func() bool { return listening() == len(places) })
	if err := command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = command.Wait() // it was killed
	polltest.Within(t, limit, "nothing listens any more", func() bool { return listening() == 0 })
}
