package frame_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/linkerhq/linker/standalone/internal/bench/frame"
)

const most = 1 << 20

// ofServer is a frame as a server writes it.
func ofServer(first byte, payload []byte) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n <= 125:
		b = append(b, byte(n))
	case n <= 65535:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	return append(b, payload...)
}

func TestFramesOfAServerAreReadAtEveryLength(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, 125, 126, 65535, 65536, 100_000} {
		payload := []byte(strings.Repeat("x", size))
		whole := ofServer(0x81, payload)
		f, n, err := frame.Read(append(bytes.Clone(whole), "next"...), most)
		if err != nil || n != len(whole) || f.Opcode != frame.Text || !f.Final || !bytes.Equal(f.Payload, payload) {
			t.Errorf("%d bytes: got %v, %d, %v", size, f.Opcode, n, err)
		}
		for cut := range min(len(whole), 20) {
			if _, n, err := frame.Read(whole[:cut], most); n != 0 || err != nil {
				t.Errorf("%d bytes, %d of them there: got %d, %v", size, cut, n, err)
			}
		}
		if _, n, err := frame.Read(whole[:len(whole)-1], most); size > 0 && (n != 0 || err != nil) {
			t.Errorf("%d bytes without the last: got %d, %v", size, n, err)
		}
	}
}

func TestWhatAServerMayNotSendIsRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"a reserved bit":            {[]byte{0xc1, 0}, frame.ErrReserved},
		"a mask":                    {[]byte{0x81, 0x80, 0, 0, 0, 0}, frame.ErrMasked},
		"an unknown kind":           {[]byte{0x83, 0}, frame.ErrOpcode},
		"an unknown control frame":  {[]byte{0x8b, 0}, frame.ErrOpcode},
		"a ping in parts":           {[]byte{0x09, 0}, frame.ErrControl},
		"a ping of 126 bytes":       {[]byte{0x89, 126, 0, 126}, frame.ErrControl},
		"a frame beyond the limit":  {ofServer(0x82, make([]byte, 1000)), frame.ErrTooLong},
		"a frame beyond all limits": {[]byte{0x82, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, frame.ErrTooLong},
	} {
		if _, n, err := frame.Read(c.b, 1000); !errors.Is(err, c.want) || n != 0 {
			t.Errorf("%s: got %d, %v", name, n, err)
		}
	}
}

func TestFramesOfAClientAreMasked(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 125, 126, 65535, 65536} {
		payload := bytes.Repeat([]byte("y"), size)
		b := frame.Append([]byte("before"), frame.Text, payload)[len("before"):]
		if b[0] != 0x81 || b[1]&0x80 == 0 {
			t.Fatalf("%d bytes: begins with %x", size, b[:2])
		}
		header := len(b) - size
		if header > frame.MaxHeader || !bytes.Equal(b[header-4:header], make([]byte, 4)) {
			t.Errorf("%d bytes: the header is %x", size, b[:header])
		}
		// Without the mask it is what a server writes.
		unmasked := append([]byte{b[0], b[1] &^ 0x80}, b[2:header-4]...)
		f, n, err := frame.Read(append(unmasked, b[header:]...), most)
		if err != nil || n != len(b)-4 || !bytes.Equal(f.Payload, payload) {
			t.Errorf("%d bytes: got %d of %d, %v", size, n, len(b), err)
		}
	}
}

func TestCloseCodes(t *testing.T) {
	t.Parallel()
	if got := frame.CloseCode([]byte{0x11, 0x97, 'x'}); got != 4503 {
		t.Errorf("got %d", got)
	}
	if got := frame.CloseCode([]byte{1}); got != 1005 {
		t.Errorf("got %d", got)
	}
}

func FuzzReadTakesWhatIsThereOrRefusesIt(f *testing.F) {
	f.Add(ofServer(0x81, []byte("hello")), 100)
	f.Add(ofServer(0x89, nil), 0)
	f.Add([]byte{0x82, 126, 1}, 10)
	f.Add([]byte{0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0}, 1<<17)
	f.Fuzz(func(t *testing.T, b []byte, most int) {
		got, n, err := frame.Read(b, most)
		if n < 0 || n > len(b) || n > max(most, 0) && n > 0 || err != nil && n > 0 || len(got.Payload) > n {
			t.Fatalf("%d bytes, at most %d: got %d with %d bytes, %v", len(b), most, n, len(got.Payload), err)
		}
		if n == 0 {
			return
		}
		// What has followed changes nothing, and less than that is not enough.
		if _, again, err := frame.Read(b[:n], most); again != n || err != nil {
			t.Errorf("alone: got %d, %v, expected %d", again, err, n)
		}
		if _, less, err := frame.Read(b[:n-1], most); less != 0 || err != nil {
			t.Errorf("without its end: got %d, %v", less, err)
		}
	})
}

const accepted = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nsec-websocket-accept: "

func TestTheAnswerToAHandshake(t *testing.T) {
	t.Parallel()
	good := accepted + frame.AcceptKey() + "\r\n\r\n"
	if n, err := frame.ReadAnswer([]byte(good + "rest")); n != len(good) || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
	if n, err := frame.ReadAnswer([]byte(good[:len(good)-1])); n != 0 || err != nil {
		t.Errorf("in part: got %d, %v", n, err)
	}
	var status frame.StatusError
	if _, err := frame.ReadAnswer([]byte("HTTP/1.1 503 Service Unavailable\r\n\r\n")); !errors.As(err, &status) || status.Status != 503 {
		t.Errorf("got %v", err)
	}
	for _, bad := range []string{
		accepted + "x\r\n\r\n", "HTTP/1.1 101 OK\r\n\r\n", "HTTP/1.0 101 OK\r\n\r\n", "\r\n\r\n", "HTTP/1.1 x\r\n\r\n", strings.Repeat("x", frame.MaxAnswer+1),
	} {
		if n, err := frame.ReadAnswer([]byte(bad)); n != 0 || !errors.Is(err, frame.ErrNoWebsocket) {
			t.Errorf("%.60q: got %d, %v", bad, n, err)
		}
	}
}

func FuzzReadAnswer(f *testing.F) {
	f.Add([]byte(accepted + frame.AcceptKey() + "\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 404 Not Found\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := frame.ReadAnswer(b); n < 0 || n > len(b) || n > 0 && err != nil {
			t.Errorf("got %d of %d, %v", n, len(b), err)
		}
	})
}
