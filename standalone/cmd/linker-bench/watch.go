package main

import (
	"fmt"
	"sync"
	"time"

	"github.com/linkerhq/linker/standalone/internal/bench/workload"
	"github.com/linkerhq/linker/standalone/internal/progress"
)

// watch shows how far a run has come until the function that it returns is called.
func watch(line *progress.Line, what string, of *workload.Progress) (stop func()) {
	ended := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		ticker := time.NewTicker(progress.Often)
		defer ticker.Stop()
		var last int64
		for {
			select {
			case <-ended:
				return
			case <-ticker.C:
			}
			delivered := of.Delivered.Load()
			text := fmt.Sprintf("%s: %s; %d of %d logged in", what, of.Phase(), of.Entered.Load(), of.Clients.Load())
			if of.Sent.Load() > 0 {
				text = fmt.Sprintf("%s: %s; %d sent, %d delivered, %d/s", what, of.Phase(), of.Sent.Load(), delivered, (delivered-last)*int64(time.Second/progress.Often))
			}
			last = delivered
			line.Draw(text)
		}
	})
	return func() {
		close(ended)
		watching.Wait()
		line.Erase()
	}
}
