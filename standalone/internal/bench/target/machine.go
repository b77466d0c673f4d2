package target

import (
	"bytes"
	"os"
	"runtime"
	"strconv"
	"strings"
)

// CPUModel is what the processors of this machine are, as far as it says so.
func CPUModel() string {
	b, _ := os.ReadFile("/proc/cpuinfo") // another system says nothing
	if model := field(b, "model name", ":"); model != "" {
		return model
	}
	return runtime.GOARCH
}

// Memory is that of this machine in bytes; 0 if it does not say.
func Memory() int64 {
	b, _ := os.ReadFile("/proc/meminfo")
	kilobytes, err := strconv.ParseInt(strings.TrimSuffix(field(b, "MemTotal", ":"), " kB"), 10, 64)
	if err != nil {
		return 0
	}
	return kilobytes << 10
}

// Kernel is the kernel of this machine.
func Kernel() string {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return runtime.GOOS
	}
	return runtime.GOOS + " " + strings.TrimSpace(string(b))
}

// field finds the value of the first line that begins with a name.
func field(b []byte, name, separator string) string {
	for line := range bytes.Lines(b) {
		before, after, found := strings.Cut(string(line), separator)
		if found && strings.TrimSpace(before) == name {
			return strings.TrimSpace(after)
		}
	}
	return ""
}
