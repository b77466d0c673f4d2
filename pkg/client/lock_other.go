//go:build !darwin && !dragonfly && !freebsd && !linux && !netbsd && !openbsd

package client

import (
	"errors"
	"os"
)

// lockFile has no way to keep others away here, and so refuses.
func lockFile(string) (*os.File, error) { return nil, errors.ErrUnsupported }

func unlockFile(file *os.File) error { return file.Close() }
