package main

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/linkerhq/linker/standalone/internal/stack"
)

func TestFlagsSayWhatMayWait(t *testing.T) {
	t.Parallel()
	const month = 720 * time.Hour
	for args, want := range map[string]stack.Waiting{
		"": {QuotaRows: 100_000, QuotaBytes: 256 << 20, ExpireAfter: month, DeadRetain: month},
		"--mailbox-quota-rows 2 --mailbox-quota-bytes 3 --mailbox-expire-after 4s --dead-retain 5s": {QuotaRows: 2, QuotaBytes: 3, ExpireAfter: 4 * time.Second, DeadRetain: 5 * time.Second},
		"--mailbox-quota-rows 0 --mailbox-quota-bytes 0 --mailbox-expire-after 0 --dead-retain 0s": {
			QuotaRows: stack.Unlimited, QuotaBytes: stack.Unlimited, ExpireAfter: stack.Unlimited, DeadRetain: stack.Unlimited,
		},
	} {
		_, cfg, _, err := parse(strings.Fields(args), io.Discard)
		if err != nil || cfg.Waiting != want {
			t.Errorf("%q: %+v, %v; want %+v", args, cfg.Waiting, err, want)
		}
	}
	for args, want := range map[string]string{
		"--mailbox-quota-rows=-1":     "--mailbox-quota-rows -1: expected 0 or more",
		"--mailbox-quota-bytes=-5":    "--mailbox-quota-bytes -5: expected",
		"--mailbox-expire-after=-1h":  "--mailbox-expire-after -1h0m0s: expected",
		"--dead-retain=-1s":           "--dead-retain -1s: expected",
		"--mailbox-quota-rows=plenty": "invalid value",
	} {
		if _, _, _, err := parse(strings.Fields(args), io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", args, err, want)
		}
	}
}
