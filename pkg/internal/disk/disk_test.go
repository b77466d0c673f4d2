package disk_test

import (
	"errors"
	"math"
	"testing"

	"github.com/linkerhq/linker/pkg/internal/disk"
)

func reserves() []disk.Reserve { return []disk.Reserve{disk.Intake, disk.Log, disk.Mailbox} }

func TestNobodyWritesMoreThanThereIs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, r := range reserves() {
		if err := r.Check(dir, math.MaxInt64/2); !errors.Is(err, disk.ErrLow) {
			t.Errorf("%d: a write of 4 EiB: %v", r, err)
		}
		if err := r.Check(dir, math.MinInt64/2); err != nil {
			t.Errorf("%d: a disk with room for 4 EiB counts as full: %v", r, err)
		}
	}
}

func TestADirectoryThatIsNotThereIsAnErrorOfItsOwn(t *testing.T) {
	t.Parallel()
	if err := disk.Log.Check(t.TempDir()+"/none", 0); err == nil || errors.Is(err, disk.ErrLow) {
		t.Errorf("got %v", err)
	}
}

func TestWhoCanWaitStopsFirstOnEveryDisk(t *testing.T) {
	t.Parallel()
	for size := int64(1 << 20); size > 0; size *= 2 {
		before := size / 2
		for _, r := range reserves() {
			if r.Of(size) >= before || r.Of(size) <= 0 {
				t.Errorf("of %d bytes %d leaves %d, who stops before it %d", size, r, r.Of(size), before)
			}
			before = r.Of(size)
		}
	}
}
