package lane_test

import (
	"errors"
	"sync/atomic"
	"testing"

	"github.com/linkerhq/linker/pkg/delivery"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/processor/internal/custody"
)

// cramped is a store whose room can come to an end.
type cramped struct {
	mailbox.Store
	full *atomic.Bool
}

func (s cramped) Room() error {
	if s.full.Load() {
		return errors.New("no room")
	}
	return nil
}

func TestConnectorsAreToldWhenTheStoreHasNoRoomAndWhenItHas(t *testing.T) {
	t.Parallel()
	var full atomic.Bool
	b := serve(t, 1, custody.Limits{}, func(s mailbox.Store) mailbox.Store { return cramped{s, &full} })
	var told atomic.Int32 // 0: nothing; 1: there is room; 2: there is none
	heard, err := b.plane.Subscribe(delivery.EpochSubject("d"), func(data []byte) {
		a, err := delivery.DecodeAnnouncement(data)
		if err != nil || a.Joining {
			return
		}
		told.Store(1)
		if a.Full {
			told.Store(2)
		}
	})
	must(t, err)
	t.Cleanup(func() { must(t, heard.Stop()) })
	b.describe()
	eventually(t, "there is room", func() bool { return told.Load() == 1 })
	full.Store(true)
	eventually(t, "there is none", func() bool { return told.Load() == 2 })
	full.Store(false)
	eventually(t, "there is room again", func() bool { return told.Load() == 1 })
}
