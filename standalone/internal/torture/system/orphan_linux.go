package system

import "syscall"

// ownGroup keeps a terminal's Ctrl-C away from a process, and ends it when this one
// is killed.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
