package run

import (
	"bytes"
	"io/fs"
	"math"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
)

// memoryShare is how many percent of what the process may use are the limit of
// its heap: the rest is for stacks of threads and for the kernel's buffers.
const memoryShare = 90

// LimitMemory makes the garbage collector work harder before the process is killed
// for its memory: the limit is 90 % of that of the control group, which it reads
// below root, "/" but in tests. An operator's GOMEMLIMIT in the environment stays
// as it is. It returns the limit, 0 if it has set none. Go follows the group's
// limit of processors by itself.
func LimitMemory(root fs.FS, environ []string) int64 {
	for _, entry := range environ {
		if strings.HasPrefix(entry, "GOMEMLIMIT=") {
			return 0
		}
	}
	group := groupMemory(root)
	if group == math.MaxInt64 {
		return 0
	}
	limit := group / 100 * memoryShare
	debug.SetMemoryLimit(limit)
	return limit
}

// groupMemory is the least that the process's control group and those above it
// allow; MaxInt64 if nothing does.
func groupMemory(root fs.FS) int64 {
	least := int64(math.MaxInt64)
	groups, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return least
	}
	for line := range bytes.Lines(groups) {
		parts := strings.SplitN(strings.TrimSpace(string(line)), ":", 3)
		if len(parts) != 3 {
			continue
		}
		mount, file := "sys/fs/cgroup", "memory.max"
		switch {
		case parts[0] == "0" && parts[1] == "":
		case parts[1] == "memory":
			mount, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		default:
			continue
		}
		// In a container the path may be one of the host, which is not there.
		for dir := path.Clean("/" + parts[2]); ; dir = path.Dir(dir) {
			least = min(least, limitIn(root, path.Join(mount, dir, file)))
			if dir == "/" {
				break
			}
		}
	}
	return least
}

// limitIn reads one limit; "max" and what is larger than any machine is none.
func limitIn(root fs.FS, file string) int64 {
	const none = int64(1) << 60
	text, err := fs.ReadFile(root, file)
	if err != nil {
		return math.MaxInt64
	}
	limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || limit <= 0 || limit >= none {
		return math.MaxInt64
	}
	return limit
}
