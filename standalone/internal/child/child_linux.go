package child

import "syscall"

// OwnGroup keeps a terminal's Ctrl-C away from a process, and ends it when this one
// is killed.
func OwnGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
