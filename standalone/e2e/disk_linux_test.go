package e2e

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/disktest"
)

// diskSender sends numbered messages to one receiver and notes what became of them.
type diskSender struct {
	t        *testing.T
	to       string
	next     int
	accepted []int // in the order of the answers
	refused  int
}

// send sends one message and says whether it, or one before it, was accepted by the
// time an answer should have come. There is none for what stands before a log that
// refuses it: that is accepted when there is room.
func (s *diskSender) send(c *client) bool {
	s.t.Helper()
	c.say(s.to, padded(s.next, 8<<10), strconv.Itoa(s.next)) // 8 KiB
	s.next++
	before := len(s.accepted)
	for len(s.accepted) == before {
		f, err := c.receive(time.Second)
		if errors.Is(err, errNothing) {
			return false
		}
		if err != nil {
			s.t.Fatal(err)
		}
		n, err := strconv.Atoi(f.Data.Reference + f.reference())
		switch {
		case err != nil:
			s.t.Fatalf("got %v", f)
		case f.Type == "MESSAGE_CONFIRMATION":
		case f.Type == "MESSAGE_ACCEPTED":
			s.accepted = append(s.accepted, n)
		case f.Type == "DELIVER_FAILED" && f.Data.Code == "QUEUE_UNAVAILABLE" && *f.Data.Retryable && f.Data.RetryAfterMs > 0:
			s.refused++
			return false
		default:
			s.t.Fatalf("got %v", f)
		}
	}
	return true
}

// untilRefused sends until a message is refused.
func (s *diskSender) untilRefused(c *client) {
	s.t.Helper()
	before := s.refused
	patiently(s.t, "messages are refused", patience, func() bool {
		for s.send(c) {
		}
		return s.refused > before
	})
}

// untilAccepted sends until a message is accepted.
func (s *diskSender) untilAccepted(c *client) {
	s.t.Helper()
	patiently(s.t, "messages are accepted again", patience, func() bool { return s.send(c) })
}

// diskReader takes what a receiver gets.
type diskReader struct {
	got []int          // the first arrival of each
	ids map[int]string // by number
}

func (r *diskReader) take(t *testing.T, frames []*frame) {
	t.Helper()
	for _, f := range frames {
		digits, _, _ := strings.Cut(f.Data.Content, ".")
		n, err := strconv.Atoi(digits)
		if f.Type != "MESSAGE" || err != nil {
			t.Fatalf("got %v", f)
		}
		switch id, again := r.ids[n]; {
		case !again:
			r.got, r.ids[n] = append(r.got, n), f.ID
		case id != f.ID:
			t.Errorf("a copy of %d came as %s and as %s", n, id, f.ID)
		}
	}
}

// A disk that fills takes no new messages, but everything else goes on: what it has
// can be fetched, which makes room. When it is full to the last byte, by others,
// nothing is lost either, not even by a crash; and when there is room, everything
// goes on without a restart.
func TestAFullDiskLosesNothingAndRecoversByItself(t *testing.T) {
	ofStandalone(t)
	t.Parallel()
	disk := disktest.Small(t, 64<<20)
	d := dataDir(disk + "/data")
	p := begin(t, string(d))
	if !p.isReady(t, readyPatience) {
		t.Fatal("it is not ready")
	}
	sender, user := login(t, p.ws(), "ANZ-101", "accept"), "ANZ-102"
	s, r := &diskSender{t: t, to: user}, &diskReader{ids: map[int]string{}}

	// It fills up with what waits for somebody who is away.
	empty := disktest.Fill(t, disk, 30<<20)
	s.untilRefused(sender)
	if left := disktest.Free(t, disk); left < 14<<20 {
		t.Errorf("%d KiB were left when messages were refused", left>>10)
	}
	if code, body := get(t, p.urls["processor"]+"/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "the disk is almost full") {
		t.Errorf("the processor is %d %s", code, body)
	}

	// He comes, fetches, and what he has fetched makes room.
	receiver := login(t, p.ws(), user)
	frames, _ := receiver.fetch(2000)
	r.take(t, frames)
	if !slices.Equal(r.got, s.accepted) {
		t.Fatalf("fetched %v, accepted %v", r.got, s.accepted)
	}
	receiver.leave()
	s.untilAccepted(sender)

	// Others fill it to the last byte.
	emptyRest := disktest.Fill(t, disk, 0)
	s.untilRefused(sender)
	if code, body := get(t, p.urls["connector"]+"/healthz"); code != http.StatusOK {
		t.Errorf("the connector is %d %s", code, body)
	}

	// There is room again; nothing is restarted.
	emptyRest()
	s.untilAccepted(sender)

	// Full to the last byte again, and a crash.
	_ = disktest.Fill(t, disk, 0)
	s.untilRefused(sender)
	p.kill()
	if lines := strings.Count(p.stderr.String(), "level=WARN"); lines > 100 {
		t.Errorf("%d warnings were logged", lines)
	}
	empty()
	q := launch(t, d)
	receiver = login(t, q.ws(), user)
	for left := 1; left > 0; {
		frames, left = receiver.fetch(2000)
		r.take(t, frames)
	}
	if !slices.IsSorted(r.got) {
		t.Errorf("out of order: %v", r.got)
	}
	for _, n := range s.accepted {
		if !slices.Contains(r.got, n) {
			t.Errorf("%d was accepted and is lost", n)
		}
	}
	t.Logf("%d messages were accepted, %d refused, %d not answered", len(s.accepted), s.refused, s.next-len(s.accepted)-s.refused)
	if err := q.interrupt(t); err != nil {
		t.Error(err)
	}
}
