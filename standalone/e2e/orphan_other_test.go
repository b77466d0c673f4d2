//go:build !linux

package e2e

import "syscall"

// ownGroup changes nothing here: processes outlive tests that are killed.
func ownGroup() *syscall.SysProcAttr { return nil }
