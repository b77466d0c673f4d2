//go:build failpoints && unix

package failpoint

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
)

// Enabled says whether this program was built with the tag failpoints.
const Enabled = true

type armed struct {
	Failure
	passed atomic.Uint64
}

// plan is read once, from the environment: a test arms a process when it starts it.
var plan = sync.OnceValue(func() map[Point][]*armed {
	list, err := Parse(os.Getenv(Variable))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	byPoint := map[Point][]*armed{}
	for _, f := range list {
		byPoint[f.Point] = append(byPoint[f.Point], &armed{Failure: f})
	}
	return byPoint
})

// Hit is called wherever a process may be made to fail. The error is ErrInjected or nil.
func Hit(p Point) error {
	for _, a := range plan()[p] {
		if a.passed.Add(1) != a.At {
			continue
		}
		fmt.Fprintf(os.Stderr, "failpoint %s\n", a.Failure)
		switch a.Action {
		case Exit:
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // nothing more happens here
		case Stop:
			_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		case Err:
			return ErrInjected
		}
	}
	return nil
}
