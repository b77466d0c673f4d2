package main

import (
	"cmp"
	"flag"
	"fmt"

	"github.com/linkerhq/linker/standalone/internal/stack"
)

// waitingFlags adds the flags of what may wait in mailboxes. The function that it returns
// reads them, once they are parsed.
func waitingFlags(flags *flag.FlagSet) func() (stack.Waiting, error) {
	w := stack.DefaultWaiting()
	flags.IntVar(&w.QuotaRows, "mailbox-quota-rows", w.QuotaRows, "`messages` that may wait for one user; 0: any number")
	flags.Int64Var(&w.QuotaBytes, "mailbox-quota-bytes", w.QuotaBytes, "`bytes` that may wait for one user; 0: any number")
	flags.DurationVar(&w.ExpireAfter, "mailbox-expire-after", w.ExpireAfter, "how `long` a message waits at most; 0: for ever")
	flags.DurationVar(&w.DeadRetain, "dead-retain", w.DeadRetain, "how `long` a dead letter is kept for operators; 0: for ever")
	return func() (stack.Waiting, error) {
		for _, set := range []struct {
			flag  string
			value int64
		}{
			{"mailbox-quota-rows", int64(w.QuotaRows)},
			{"mailbox-quota-bytes", w.QuotaBytes},
			{"mailbox-expire-after", int64(w.ExpireAfter)},
			{"dead-retain", int64(w.DeadRetain)},
		} {
			if set.value < 0 {
				return w, fmt.Errorf("--%s %s: expected 0 or more; 0 is no limit", set.flag, flags.Lookup(set.flag).Value)
			}
		}
		return stack.Waiting{
			QuotaRows: cmp.Or(w.QuotaRows, stack.Unlimited), QuotaBytes: cmp.Or(w.QuotaBytes, stack.Unlimited),
			ExpireAfter: cmp.Or(w.ExpireAfter, stack.Unlimited), DeadRetain: cmp.Or(w.DeadRetain, stack.Unlimited),
		}, nil
	}
}
