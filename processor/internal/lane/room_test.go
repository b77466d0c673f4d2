package lane_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

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

// small is a store whose disk is full as long as A-1 has a row.
type small struct{ mailbox.Store }

func (s small) Put(ctx context.Context, rows []mailbox.Row) error {
	there, _, err := s.Read(ctx, mailbox.Query{To: "A-1", Limit: 1})
	switch {
	case err != nil:
		return err
	case len(there) > 0:
		return mailbox.ErrNoRoom
	}
	return s.Store.Put(ctx, rows)
}

func TestWhatMakesRoomGoesOnWhileNothingCanBeStored(t *testing.T) {
	t.Parallel()
	b := serve(t, 1, custody.Limits{Expire: 2 * time.Second}, func(s mailbox.Store) mailbox.Store { return small{s} })
	b.describe()
	b.send(0, "A-1", 1)
	b.stored("A-1", 1)
	b.send(0, "A-3", 1) // finds no room until the row of A-1 has expired and is gone
	b.stored("A-3", 1)
}
