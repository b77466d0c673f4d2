//go:build !linux

package system

import "syscall"

// ownGroup keeps a terminal's Ctrl-C away from a process. It outlives this one if
// this one is killed.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
