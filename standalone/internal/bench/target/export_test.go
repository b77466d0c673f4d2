package target

import "time"

// ParseStat reads the time that a process has spent.
func ParseStat(b []byte) (time.Duration, error) { return parseStat(b) }

// ParseRollup reads the memory of a process.
func ParseRollup(b []byte) (int64, error) { return parseRollup(b) }
