package target

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// OnDisk fails for a directory that is in memory.
func OnDisk(dir string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("look at %s: %w", dir, err)
	}
	if fs.Type == unix.TMPFS_MAGIC || fs.Type == unix.RAMFS_MAGIC {
		return fmt.Errorf("%s is in memory: expected a directory on a disk", dir)
	}
	return nil
}
