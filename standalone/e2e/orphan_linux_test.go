package e2e

import "syscall"

// ownGroup keeps a terminal's Ctrl-C away from a process, and ends it when the
// tests are killed.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
