package uplink

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/linkerhq/linker/pkg/ident"
)

// send takes the next number of each receiver.
func (s *numbers) send(now time.Duration, to ...ident.UserID) []uint64 {
	var got []uint64
	for _, place := range s.begin(to, now, nil) {
		got = append(got, s.next(place))
		s.use(place, now)
	}
	return got
}

func user(i int) ident.UserID { return ident.UserID(fmt.Sprintf("ANZ-%d", i)) }

func TestEachReceiverIsNumberedDenselyHoweverManyThereAre(t *testing.T) {
	t.Parallel()
	for _, many := range []int{1, fewReceivers - 1, fewReceivers, fewReceivers + 1, 100, maxReceivers} {
		s := newNumbers()
		stream := s.stream
		all := make([]ident.UserID, many)
		for i := range all {
			all[i] = user(i)
		}
		for i := range all { // one by one first
			if got := s.send(0, all[i]); got[0] != 1 {
				t.Fatalf("%d receivers: %s begins with %d", many, all[i], got[0])
			}
		}
		for n := uint64(2); n < 4; n++ {
			for i, got := range s.send(0, all...) {
				if got != n {
					t.Fatalf("%d receivers: %s has %d, want %d", many, all[i], got, n)
				}
			}
		}
		if s.stream != stream {
			t.Errorf("%d receivers: another stream", many)
		}
	}
}

func TestAnotherStreamBeginsWhereReceiversDoNotFit(t *testing.T) {
	t.Parallel()
	fill := func() (numbers, uint64) {
		s := newNumbers()
		for i := range maxReceivers {
			s.send(0, user(i))
		}
		return s, s.stream
	}
	s, stream := fill()
	s.send(streamIdle, user(7))
	if s.stream != stream {
		t.Error("a receiver that is known, in time, is too much")
	}
	if got := s.send(0, user(7), user(maxReceivers)); s.stream == stream || got[0] != 1 || got[1] != 1 {
		t.Errorf("one more than fit: stream %x after %x, numbers %d", s.stream, stream, got)
	}
	s, stream = fill()
	s.groups = 5
	s.send(streamIdle+1, user(3))
	if s.stream == stream || s.groups != 0 || len(s.receivers) != 1 {
		t.Errorf("a receiver that has heard nothing for long: stream %x after %x, %d groups, %d receivers", s.stream, stream, s.groups, len(s.receivers))
	}
}

// The ids of a group are parts of one string: a receiver that is kept must not keep it.
func TestAReceiverIsKeptAlone(t *testing.T) {
	t.Parallel()
	all := strings.Repeat("x", 1000) + "ANZ-1"
	s := newNumbers()
	s.send(0, ident.UserID(all[1000:]))
	if unsafe.StringData(string(s.receivers[0].user)) == unsafe.StringData(all[1000:]) {
		t.Error("it is part of the list")
	}
}

func TestASenderThatHasSentNothingIsSmall(t *testing.T) {
	t.Parallel()
	if size := unsafe.Sizeof(Sender{}); size > 200 {
		t.Errorf("%d bytes, want at most 200", size)
	}
	if s := newNumbers(); s.receivers != nil || s.places != nil {
		t.Error("a stream without receivers holds memory")
	}
}
