//go:build !linux

package child

import "syscall"

// OwnGroup keeps a terminal's Ctrl-C away from a process. It outlives this one if
// this one is killed.
func OwnGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
