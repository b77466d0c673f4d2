package link_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/linkerhq/linker/pkg/link"
	"github.com/linkerhq/linker/pkg/logtest"
	"github.com/linkerhq/linker/pkg/polltest"
)

// letters returns n bytes that no other test sends.
func letters(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('a' + rand.IntN(26))
	}
	return b
}

// records waits until n records of a channel have come, in order.
func records(t *testing.T, r *running, channel uint64, n int) [][]byte {
	t.Helper()
	var got [][]byte
	for len(got) < n {
		select {
		case m := <-r.got:
			part, is := m.(link.Records)
			if !is || part.Channel != channel || part.First != uint64(len(got))+1 {
				t.Fatalf("got %T, want records of channel %d from %d on", m, channel, len(got)+1)
			}
			got = append(got, part.Records...)
		case err := <-r.ended:
			t.Fatalf("the connection has ended with %v after %d records", err, len(got))
		}
	}
	return got
}

func TestMessagesOfEverySizeArriveInOrder(t *testing.T) {
	t.Parallel()
	dialled, accepted := pair(t)
	a, b := run(t.Context(), dialled), run(t.Context(), accepted)
	var sent []link.Message
	send := func(m link.Message) {
		if !a.Send(m) {
			t.Fatalf("%T was not queued", m)
		}
		sent = append(sent, m)
	}
	next := uint64(1)
	for _, size := range []int{1, 2, 3, 127, 128, 16383, 16384, 16385, 65536, link.MaxRecord - 1, link.MaxRecord} {
		send(link.Records{Channel: 7, First: next, Records: [][]byte{letters(size)}})
		send(link.Fast{Record: letters(size)})
		send(link.States{Entries: letters(size)})
		next++
	}
	send(link.States{Entries: []byte{}})
	send(link.Records{Channel: 1 << 63, First: 1, Records: [][]byte{[]byte("x"), []byte("yz"), letters(300)}})
	for i, want := range sent {
		select {
		case got := <-b.got:
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("message %d: got %T, want %T of another content", i, got, want)
			}
		case err := <-b.ended:
			t.Fatal(err)
		}
	}
	for _, m := range []link.Message{
		link.Refusal{Channel: 7, N: 2, Code: "TOO_LARGE"}, link.Ack{Channel: 7, UpTo: 3}, link.Ack{Channel: 7, UpTo: next - 1},
	} {
		b.Send(m)
		if got := <-a.got; got != m {
			t.Errorf("got %v, want %v", got, m)
		}
	}
	out, in := a.Stats(), b.Stats()
	if out.RecordsOut != next+2 || in.RecordsIn != next+2 || out.FastOut != 11 || in.FastIn != 11 || out.Queued != 0 || in.BytesIn < 3*link.MaxRecord {
		t.Errorf("out %+v, in %+v", out, in)
	}
	if err := a.stop(); !errors.Is(err, link.ErrClosed) {
		t.Errorf("the side that closes: %v", err)
	}
	if err := <-b.ended; !errors.Is(err, link.ErrGone) {
		t.Errorf("the other side: %v", err)
	}
}

func TestRecordsThatNoFrameHoldsTravelInSeveral(t *testing.T) {
	t.Parallel()
	dialled, accepted := pair(t)
	a, b := run(t.Context(), dialled), run(t.Context(), accepted)
	var want [][]byte
	for i := range 50 {
		want = append(want, letters(1+i*4000))
	}
	want = append(want, letters(link.MaxRecord), letters(1), letters(link.MaxRecord), letters(link.MaxRecord))
	for range 20000 {
		want = append(want, letters(3))
	}
	if !a.Send(link.Records{Channel: 1, First: 1, Records: want}) {
		t.Fatal("not queued")
	}
	if !a.Send(link.Records{Channel: 1, First: uint64(len(want)) + 1}) {
		t.Error("no records at all were refused")
	}
	got := records(t, b, 1, len(want))
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("record %d is another one", i+1)
		}
	}
	a.stop()
	<-b.ended
}

func TestMessagesOfManySendersKeepTheOrderOfEach(t *testing.T) {
	t.Parallel()
	dialled, accepted := pair(t)
	a, b := run(t.Context(), dialled), run(t.Context(), accepted)
	const senders, each = 8, 500
	var sending sync.WaitGroup
	for s := range uint64(senders) {
		sending.Go(func() {
			for n := range uint64(each) {
				a.Send(link.Records{Channel: s, First: n + 1, Records: [][]byte{binary.BigEndian.AppendUint64(nil, n)}})
			}
		})
	}
	next := map[uint64]uint64{}
	for range senders * each {
		m := (<-b.got).(link.Records)
		if n := binary.BigEndian.Uint64(m.Records[0]); n != next[m.Channel] || m.First != n+1 {
			t.Fatalf("channel %d: got %d under number %d, want %d", m.Channel, n, m.First, next[m.Channel])
		}
		next[m.Channel]++
	}
	sending.Wait()
	a.stop()
	<-b.ended
}

func TestWhatDoesNotFitIsNotQueuedAndLoggedOnce(t *testing.T) {
	t.Parallel()
	log, lines := logtest.New()
	client, err := link.NewEnd(link.Config{Domain: here, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	dialled, accepted := open(t, client, newEnd(t, there, link.Certificates{}), keyed())
	secret := bytes.Repeat([]byte("secret"), link.MaxFrame/6)
	for name, m := range map[string]link.Message{
		"record": link.Records{Channel: 1, First: 1, Records: [][]byte{[]byte("x"), secret}}, "empty record": link.Records{Channel: 1, First: 1, Records: [][]byte{nil}},
		"fast": link.Fast{Record: secret}, "empty fast": link.Fast{}, "states": link.States{Entries: secret}, "code": link.Refusal{Code: string(secret[:65])},
	} {
		if dialled.Send(m) {
			t.Errorf("%s was queued", name)
		}
	}
	if got := lines.Lines("does not fit"); got != 1 || strings.Contains(lines.String(), "secretsecret") {
		t.Errorf("%d lines: %.300s", got, lines)
	}
	// None of the records was queued: the channel still begins with 1.
	a, b := run(t.Context(), dialled), run(t.Context(), accepted)
	a.Send(link.Records{Channel: 1, First: 1, Records: [][]byte{[]byte("x")}})
	records(t, b, 1, 1)
	a.stop()
	<-b.ended
}

func TestFastWaitsOnlyWhereThereIsLittleToWaitFor(t *testing.T) {
	t.Parallel()
	dialled, accepted := pair(t)
	// Nothing is written before Run.
	queued := 0
	for dialled.Send(link.Fast{Record: letters(100000)}) {
		queued++
	}
	if want := link.MaxFastQueued/100000 + 1; queued != want {
		t.Errorf("%d were queued, want %d", queued, want)
	}
	if got := dialled.Stats(); got.Queued < link.MaxFastQueued || got.Queued > link.MaxFastQueued+110000 {
		t.Errorf("%+v", got)
	}
	if !dialled.Send(link.Records{Channel: 1, First: 1, Records: [][]byte{[]byte("x")}}) {
		t.Error("a record was refused because fast ones wait")
	}
	a, b := run(t.Context(), dialled), run(t.Context(), accepted)
	for range queued + 1 {
		<-b.got
	}
	if !a.Send(link.Fast{Record: []byte("x")}) {
		t.Error("there is room again, but it was refused")
	}
	<-b.got
	a.stop()
	<-b.ended
	if a.Send(link.Fast{Record: []byte("x")}) || a.Send(link.Ack{}) {
		t.Error("something was queued after the end")
	}
}

func TestFastThatNeverLeftIsCounted(t *testing.T) {
	t.Parallel()
	dialled, _ := pair(t)
	for range 3 {
		dialled.Send(link.Fast{Record: []byte("x")})
	}
	dialled.Close()
	if err := dialled.Run(t.Context(), nil); !errors.Is(err, link.ErrClosed) {
		t.Errorf("run after the end: %v", err)
	}
	if got := dialled.Stats(); got.FastLost+got.FastOut != 3 || got.Queued != 0 {
		t.Errorf("%+v", got)
	}
	if err := dialled.Run(t.Context(), nil); err == nil {
		t.Error("it runs twice")
	}
}

func TestASenderThatCountsWrongEndsItsOwnConnection(t *testing.T) {
	t.Parallel()
	for name, m := range map[string]link.Records{
		"a gap":             {Channel: 1, First: 4, Records: [][]byte{[]byte("x")}},
		"a number again":    {Channel: 1, First: 2, Records: [][]byte{[]byte("x")}},
		"a new one, from 0": {Channel: 2, First: 0, Records: [][]byte{[]byte("x")}},
		"a new one, from 2": {Channel: 2, First: 2, Records: [][]byte{[]byte("x")}},
	} {
		dialled, _ := pair(t)
		a := run(t.Context(), dialled)
		a.Send(link.Records{Channel: 1, First: 1, Records: [][]byte{[]byte("x"), []byte("y")}})
		if a.Send(m) {
			t.Errorf("%s was queued", name)
		}
		if err := <-a.ended; !errors.Is(err, link.ErrMisuse) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// byHand opens a link whose client is the test itself.
func byHand(t *testing.T) (*tls.Conn, *running) {
	t.Helper()
	p := serve(t, newEnd(t, there, link.Certificates{}), with(keyed()))
	conn, err := tls.Dial("tcp", p.address(), stranger(alpn))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := conn.Write(hello(1, here, there, 1, proof(t, conn, key, "linker link client", here, there))); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, len(frame(2, text(nil, make([]byte, 32)))))); err != nil {
		t.Fatal(err)
	}
	r := run(t.Context(), <-p.opened)
	t.Cleanup(func() { _ = r.stop() })
	return conn, r
}

func batch(channel, first uint64, list ...string) []byte {
	b := binary.BigEndian.AppendUint64(nil, channel)
	b = binary.AppendUvarint(binary.AppendUvarint(b, first), uint64(len(list)))
	for _, r := range list {
		b = text(b, r)
	}
	return frame(5, b)
}

func acked(channel, upTo uint64) []byte {
	return frame(6, binary.AppendUvarint(binary.BigEndian.AppendUint64(nil, channel), upTo))
}

func TestWhoBreaksTheProtocolIsCutOff(t *testing.T) {
	t.Parallel()
	refusal := func(channel, n uint64, code string) []byte {
		return frame(7, text(binary.AppendUvarint(binary.BigEndian.AppendUint64(nil, channel), n), code))
	}
	for name, c := range map[string]struct {
		says []byte
		want string
	}{
		"a frame of 0 bytes":                {[]byte{0, 0, 0, 0}, "a frame of 0 bytes, expected 1 to 1048576"},
		"a frame above the limit":           {binary.BigEndian.AppendUint32(nil, link.MaxFrame+1), "a frame of 1048577 bytes"},
		"the largest length":                {[]byte{255, 255, 255, 255}, "a frame of 4294967295 bytes"},
		"an unknown type":                   {frame(200, []byte("x")), "unknown type 200"},
		"a question that was not agreed on": {frame(10, []byte("12345678x")), "not agreed on"},
		"an answer that was not agreed on":  {frame(11, []byte("12345678x")), "not agreed on"},
		"an empty question":                 {frame(10, []byte("12345678")), "empty question"},
		"a question without a number":       {frame(10, []byte("1234567")), "7 bytes, expected 8"},
		"a question that is too long":       {frame(10, make([]byte, 9+link.MaxQuestion)), "expected 8 to"},
		"a second hello":                    {hello(1, here, there, 1, make([]byte, 32)), "on an open link"},
		"a ping that is too long":           {frame(3, make([]byte, 100)), "type 3"},
		"a ping that is cut off":            {frame(3, make([]byte, 7)), "type 3"},
		"a pong without a ping":             {frame(4, []byte{0, 0, 0, 0, 0, 0, 1, 0}), "ping 256"},
		"a channel that begins late":        {batch(1, 2, "x"), "begin with 2, expected 1"},
		"a channel that begins at 0":        {batch(1, 0, "x"), "from number 0"},
		"a gap":                             {append(batch(1, 1, "x", "y"), batch(1, 4, "z")...), "begin with 4, expected 3"},
		"a number again":                    {append(batch(1, 1, "x", "y"), batch(1, 2, "z")...), "begin with 2, expected 3"},
		"no records":                        {batch(1, 1), "without records"},
		"fewer records than it says":        {frame(5, batch(1, 1, "x", "y")[5:16]), "fewer than it says"},
		"an empty record":                   {batch(1, 1, "xyz", ""), "record 1 of a frame is empty"},
		"records that are cut off":          {frame(5, batch(1, 1, "xyz")[5:17]), "cut off"},
		"junk at the end":                   {frame(6, append(acked(1, 1)[5:], 0)), "malformed"},
		"more than was sent":                {acked(9, 3), "acknowledges record 3 of channel 9, of which 2 were sent"},
		"a channel that is not there":       {acked(8, 1), "of which 0 were sent"},
		"a refusal of what was not":         {refusal(9, 3, "X"), "refuses record 3"},
		"a refusal of number 0":             {refusal(9, 0, "X"), "refuses record 0"},
		"a long code":                       {refusal(9, 1, strings.Repeat("x", 65)), "65 bytes"},
		"an empty fast record":              {frame(8, nil), "empty fast"},
	} {
		conn, r := byHand(t)
		r.Send(link.Records{Channel: 9, First: 1, Records: [][]byte{[]byte("x"), []byte("y")}})
		if _, err := conn.Write(c.says); err != nil {
			t.Fatal(err)
		}
		if err := <-r.ended; !errors.Is(err, link.ErrProtocol) || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

func TestAFrameThatIsCutOffIsTheEnd(t *testing.T) {
	t.Parallel()
	conn, r := byHand(t)
	if _, err := conn.Write(append(frame(9, []byte("whole")), 0, 0, 1, 0, 9, 'x')); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	if err := <-r.ended; !errors.Is(err, link.ErrGone) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
	if got := <-r.got; string(got.(link.States).Entries) != "whole" {
		t.Errorf("what came whole is lost: %v", got)
	}
}

func TestChannelsAreBounded(t *testing.T) {
	t.Parallel()
	conn, r := byHand(t)
	go func() {
		var b []byte
		for channel := range uint64(link.MaxChannels + 1) {
			b = append(b, batch(channel, 1, "x")...)
		}
		_, _ = conn.Write(b)
	}()
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	if err := <-r.ended; !errors.Is(err, link.ErrProtocol) || !strings.Contains(err.Error(), "65536 channels") {
		t.Errorf("read: %v", err)
	}
	if got := r.Stats().RecordsIn; got != link.MaxChannels {
		t.Errorf("%d were read", got)
	}
	dialled, _ := pair(t)
	for channel := range uint64(link.MaxChannels) {
		if !dialled.Send(link.Records{Channel: channel, First: 1, Records: [][]byte{[]byte("x")}}) {
			t.Fatal("not queued")
		}
	}
	if dialled.Send(link.Records{Channel: link.MaxChannels, First: 1, Records: [][]byte{[]byte("x")}}) {
		t.Error("a channel too many was opened")
	}
	if err := dialled.Run(t.Context(), nil); !errors.Is(err, link.ErrMisuse) {
		t.Errorf("sent: %v", err)
	}
}

func TestAnAckThatSaysNothingNewIsNotHandedOver(t *testing.T) {
	t.Parallel()
	conn, r := byHand(t)
	r.Send(link.Records{Channel: 9, First: 1, Records: [][]byte{[]byte("x"), []byte("y")}})
	for _, upTo := range []uint64{0, 1, 1, 0, 2} {
		if _, err := conn.Write(acked(9, upTo)); err != nil {
			t.Fatal(err)
		}
	}
	for want := uint64(1); want <= 2; want++ {
		if got := <-r.got; got != (link.Ack{Channel: 9, UpTo: want}) {
			t.Errorf("got %v, want %d", got, want)
		}
	}
}

func TestAnErrorOfTheHandlerIsWhyItEnds(t *testing.T) {
	t.Parallel()
	dialled, accepted := pair(t)
	a := run(t.Context(), dialled)
	for range 5 {
		a.Send(link.Fast{Record: []byte("x")})
	}
	mistake, calls := errors.New("a mistake"), 0
	err := accepted.Run(t.Context(), func(link.Message) error {
		calls++
		return mistake
	})
	if err != mistake || calls != 1 {
		t.Errorf("got %v after %d calls", err, calls)
	}
	if err := <-a.ended; !errors.Is(err, link.ErrGone) {
		t.Errorf("the other side: %v", err)
	}
}

func TestTheEndOfTheContextIsWhyItEnds(t *testing.T) {
	t.Parallel()
	dialled, accepted := pair(t)
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	a, b := run(ctx, dialled), run(t.Context(), accepted)
	select {
	case <-a.Done():
		t.Error("it has ended before the end")
	default:
	}
	cancel(why)
	if err := <-a.ended; err != why {
		t.Errorf("got %v", err)
	}
	<-a.Done()
	<-b.ended
}

func TestAHeartbeatKeepsAnIdleLinkAndMeasuresIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dialled, accepted, _, _ := inMemory(t)
		a, b := run(t.Context(), dialled), run(t.Context(), accepted)
		time.Sleep(time.Hour)
		for _, r := range []*running{a, b} {
			select {
			case err := <-r.ended:
				t.Errorf("it has ended: %v", err)
			default:
			}
			// 720 pings and as many pongs of 13 bytes, the first one at once.
			if got := r.Stats(); got.BytesOut < 2*720*13 || got.BytesOut > 2*721*13 {
				t.Errorf("%+v", got)
			}
		}
		a.stop()
		<-b.ended
	})
}

// TestALinkThatIsCutOneWayEndsOnBothSides: the one hears the other's pings to the
// end.
func TestALinkThatIsCutOneWayEndsOnBothSides(t *testing.T) {
	t.Parallel()
	for name, cut := range map[string]func(dialler, listener *cable){
		"from the dialler": func(d, _ *cable) { d.cut.Store(true) },
		"to the dialler":   func(_, l *cable) { l.cut.Store(true) },
		"both ways":        func(d, l *cable) { d.cut.Store(true); l.cut.Store(true) },
	} {
		synctest.Test(t, func(t *testing.T) {
			dialled, accepted, d, l := inMemory(t)
			a, b := run(t.Context(), dialled), run(t.Context(), accepted)
			time.Sleep(101 * time.Second) // the last pings were answered a second ago
			cut(d, l)
			begin := time.Now()
			sending, stop := context.WithCancel(t.Context())
			go func() {
				for n := uint64(1); sending.Err() == nil; n++ {
					a.Send(link.Records{Channel: 1, First: n, Records: [][]byte{[]byte("x")}})
					b.Send(link.Records{Channel: 2, First: n, Records: [][]byte{[]byte("x")}})
					time.Sleep(time.Second)
				}
			}()
			for _, r := range []*running{a, b} {
				err := <-r.ended
				if took := time.Since(begin); took != 13*time.Second {
					t.Errorf("%s: it took %s", name, took)
				}
				if !errors.Is(err, link.ErrSilent) && !errors.Is(err, link.ErrGone) {
					t.Errorf("%s: %v", name, err)
				}
			}
			stop()
			time.Sleep(time.Second)
		})
	}
}

// inMemoryByHand opens a link whose client is the test itself, for bubbles of
// synctest.
func inMemoryByHand(t *testing.T) (*tls.Conn, *running) {
	t.Helper()
	a, b := net.Pipe()
	opened := make(chan *link.Conn, 1)
	go func() {
		c, err := newEnd(t, there, link.Certificates{}).Accept(context.Background(), b, with(keyed()))
		if err != nil {
			t.Error(err)
		}
		opened <- c
	}()
	conn := tls.Client(a, stranger(alpn))
	if err := conn.Handshake(); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(hello(1, here, there, 1, proof(t, conn, key, "linker link client", here, there))); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, len(frame(2, text(nil, make([]byte, 32)))))); err != nil {
		t.Fatal(err)
	}
	return conn, run(t.Context(), <-opened)
}

func TestAnAcknowledgementProvesTheRoundTripButNoPingOrRecordDoes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		conn, r := inMemoryByHand(t) // which answers no ping
		go func() { _, _ = io.Copy(io.Discard, conn) }()
		for n := uint64(1); n <= 20; n++ {
			r.Send(link.Records{Channel: 1, First: n, Records: [][]byte{[]byte("x")}})
			time.Sleep(10 * time.Second)
			if _, err := conn.Write(acked(1, n)); err != nil {
				t.Fatalf("after %d: %v", n, err)
			}
		}
		begin := time.Now()
		go func() {
			for n := uint64(1); ; n++ {
				// Its own pings, records and what it has acknowledged before come on.
				time.Sleep(time.Second)
				says := append(frame(3, binary.BigEndian.AppendUint64(nil, n)), batch(5, n, "x")...)
				if _, err := conn.Write(append(says, acked(1, 20)...)); err != nil {
					return
				}
			}
		}()
		if err := <-r.ended; !errors.Is(err, link.ErrSilent) || time.Since(begin) != 14*time.Second {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
		time.Sleep(2 * time.Second)
		_ = conn.NetConn().Close()
	})
}

func TestAHandlerThatIsSlowDoesNotStopTheHeartbeat(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dialled, accepted, _, _ := inMemory(t)
		a := run(t.Context(), dialled)
		a.Send(link.Fast{Record: []byte("x")})
		handled := make(chan error, 1)
		go func() {
			handled <- accepted.Run(t.Context(), func(link.Message) error {
				time.Sleep(10 * time.Minute)
				return nil
			})
		}()
		time.Sleep(time.Hour)
		select {
		case err := <-a.ended:
			t.Errorf("it has ended: %v", err)
		case err := <-handled:
			t.Errorf("it has ended: %v", err)
		default:
		}
		a.stop()
		<-handled
	})
}

// TestAHandlerThatIsStuckEndsTheLinkOnBothSides: what is read ahead is bounded.
func TestAHandlerThatIsStuckEndsTheLinkOnBothSides(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ size, most int }{
		"many":  {100, 1 + 64},
		"large": {1 << 20 / 2, 1 + 8},
	} {
		synctest.Test(t, func(t *testing.T) {
			dialled, accepted, _, _ := inMemory(t)
			a := run(t.Context(), dialled)
			handled, calls := make(chan error, 1), 0
			go func() {
				handled <- accepted.Run(t.Context(), func(link.Message) error {
					calls++
					<-accepted.Done()
					return nil
				})
			}()
			for n := range uint64(100) {
				a.Send(link.Records{Channel: 1, First: n + 1, Records: [][]byte{make([]byte, c.size)}})
			}
			begin := time.Now()
			if err := <-handled; !errors.Is(err, link.ErrStuck) || time.Since(begin) != 14*time.Second {
				t.Errorf("%s: %v after %s", name, err, time.Since(begin))
			}
			if err := <-a.ended; !errors.Is(err, link.ErrSilent) && !errors.Is(err, link.ErrGone) {
				t.Errorf("%s: the other side: %v", name, err)
			}
			// One more was read and found no room.
			if got := accepted.Stats().RecordsIn; got > uint64(c.most)+1 || got < uint64(c.most) || calls != 1 {
				t.Errorf("%s: %d were read, %d handed over", name, got, calls)
			}
		})
	}
}

// TestAHandlerThatIsSlowButGoesOnKeepsTheLink: what nobody has read yet is no
// silence.
func TestAHandlerThatIsSlowButGoesOnKeepsTheLink(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dialled, accepted, _, _ := inMemory(t)
		a := run(t.Context(), dialled)
		handled := make(chan error, 1)
		const all = 400
		var got uint64
		go func() {
			handled <- accepted.Run(t.Context(), func(m link.Message) error {
				time.Sleep(300 * time.Millisecond)
				got++
				accepted.Send(link.Ack{Channel: 1, UpTo: got})
				return nil
			})
		}()
		for n := range uint64(all) {
			a.Send(link.Records{Channel: 1, First: n + 1, Records: [][]byte{make([]byte, 1000)}})
		}
		for n := range uint64(all) {
			select {
			case m := <-a.got:
				if m.(link.Ack).UpTo != n+1 {
					t.Fatalf("got %v", m)
				}
			case err := <-a.ended:
				t.Fatalf("it has ended after %d: %v", n, err)
			}
		}
		a.stop()
		<-handled
	})
}

// TestAWriteThatStandsStillEndsTheLink has the other side acknowledge what it does
// not even read.
func TestAWriteThatStandsStillEndsTheLink(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		conn, r := inMemoryByHand(t)
		begin := time.Now()
		for n := uint64(1); n <= 2; n++ {
			r.Send(link.Records{Channel: 1, First: n, Records: [][]byte{[]byte("x")}})
			time.Sleep(5 * time.Second)
			if _, err := conn.Write(acked(1, n)); err != nil {
				t.Fatal(err)
			}
		}
		err := <-r.ended
		if !errors.Is(err, link.ErrSilent) || !strings.Contains(err.Error(), "no progress") || time.Since(begin) != 14*time.Second {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
		_ = conn.NetConn().Close()
	})
}

// TestWhatWasReadIsHandedOverAfterTheEnd: an acknowledgement that came is not
// forgotten because the connection broke.
func TestWhatWasReadIsHandedOverAfterTheEnd(t *testing.T) {
	t.Parallel()
	dialled, accepted := pair(t)
	a := run(t.Context(), dialled)
	for n := range uint64(20) {
		a.Send(link.Records{Channel: 1, First: n + 1, Records: [][]byte{[]byte("x")}})
	}
	var got []uint64
	err := accepted.Run(t.Context(), func(m link.Message) error {
		if len(got) == 0 {
			polltest.Eventually(t, "all are read", func() bool { return accepted.Stats().RecordsIn == 20 })
			a.Close()
			<-accepted.Done()
		}
		got = append(got, m.(link.Records).First)
		return nil
	})
	if !errors.Is(err, link.ErrGone) || len(got) != 20 || got[19] != 20 {
		t.Errorf("%v: got %v", err, got)
	}
	<-a.ended
}

// BenchmarkRecords sends batches of 16 records of 200 bytes, acknowledged one by
// one, over TCP.
func BenchmarkRecords(b *testing.B) {
	dialled, accepted := pair(b)
	const each, size, window = 16, 200, 4 << 20 / 200
	record := letters(size)
	list := make([][]byte, each)
	for i := range list {
		list[i] = record
	}
	room := make(chan struct{}, window/each)
	var ending sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	ending.Go(func() {
		_ = accepted.Run(ctx, func(m link.Message) error {
			r := m.(link.Records)
			accepted.Send(link.Ack{Channel: r.Channel, UpTo: r.First + uint64(len(r.Records)) - 1})
			return nil
		})
	})
	done := make(chan struct{})
	want := uint64(b.N+each-1) / each * each
	ending.Go(func() {
		released := uint64(0)
		_ = dialled.Run(ctx, func(m link.Message) error {
			for upTo := m.(link.Ack).UpTo; released < upTo; released += each {
				<-room
			}
			if released == want {
				close(done)
			}
			return nil
		})
	})
	b.SetBytes(size)
	b.ResetTimer()
	for n := uint64(0); n < want; n += each {
		room <- struct{}{}
		dialled.Send(link.Records{Channel: 1, First: n + 1, Records: list})
	}
	<-done
	b.StopTimer()
	cancel()
	ending.Wait()
}
