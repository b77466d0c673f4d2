package target

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// ticks are those of a second in the files of /proc. On Linux it is this for all programs.
const ticks = 100

// CPU is the time that processes have spent on processors.
func CPU(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
		if err != nil {
			return 0, fmt.Errorf("read the CPU time of process %d: %w", pid, err)
		}
		used, err := parseStat(b)
		if err != nil {
			return 0, fmt.Errorf("read the CPU time of process %d: %w", pid, err)
		}
		sum += used
	}
	return sum, nil
}

var errForm = errors.New("not in the expected form")

// parseStat reads the time that a process has spent from its stat: fields 14 and 15,
// counted from 1. The name, the second, may hold spaces.
func parseStat(b []byte) (time.Duration, error) {
	const user, system = 14 - 3, 15 - 3 // behind the name
	_, rest, found := bytes.Cut(b[max(bytes.LastIndexByte(b, ')'), 0):], []byte(") "))
	fields := bytes.Fields(rest)
	if !found || len(fields) <= system {
		return 0, errForm
	}
	var sum int64
	for _, field := range fields[user : system+1] {
		n, err := strconv.ParseInt(string(field), 10, 64)
		if err != nil {
			return 0, errForm
		}
		sum += n
	}
	return time.Duration(sum) * (time.Second / ticks), nil
}

// Resident is the memory of processes, in bytes.
func Resident(pids []int) (int64, error) {
	var sum int64
	for _, pid := range pids {
		// What /proc/PID/status says may be wrong by some hundred KiB.
		b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "smaps_rollup"))
		if err != nil {
			return 0, fmt.Errorf("read the memory of process %d: %w", pid, err)
		}
		resident, err := parseRollup(b)
		if err != nil {
			return 0, fmt.Errorf("read the memory of process %d: %w", pid, err)
		}
		sum += resident
	}
	return sum, nil
}

// parseRollup reads the line of the resident memory.
func parseRollup(b []byte) (int64, error) {
	for line := range bytes.Lines(b) {
		fields := bytes.Fields(line)
		if len(fields) != 3 || string(fields[0]) != "Rss:" || string(fields[2]) != "kB" {
			continue
		}
		kilobytes, err := strconv.ParseInt(string(fields[1]), 10, 64)
		if err != nil {
			return 0, errForm
		}
		return kilobytes << 10, nil
	}
	return 0, errForm
}
