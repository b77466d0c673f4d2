package frames

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// However the bytes are cut, they mean the same.
func FuzzCuts(f *testing.F) {
	for _, c := range cases {
		if len(c.bytes) < 1<<10 {
			f.Add(c.bytes, 3)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, piece int) {
		const small = 300
		whole, cut := NewReader(small), NewReader(small)
		want := read(&whole, b, func() int { return len(b) })
		got := read(&cut, b, func() int { return piece & 0xff })
		if !equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		if len(cut.rest) > small+maxHeader || len(cut.message) > small {
			t.Errorf("%d and %d bytes are held", len(cut.rest), len(cut.message))
		}
	})
}

// The library that others use reads the same messages out of the same bytes.
func FuzzLikeTheLibrary(f *testing.F) {
	for _, c := range cases {
		if len(c.bytes) < 1<<10 {
			f.Add(c.bytes)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		want := byLibrary(t, b)
		r := NewReader(librarysLimit)
		var got []event
		for _, e := range read(&r, b, func() int { return len(b) }) {
			if e.kind == Text || e.kind == Binary {
				got = append(got, e)
			}
			if e.kind == Close {
				break
			}
		}
		if !equal(got, want) {
			t.Errorf("got %q, the library %q, of % x", got, want, b)
		}
	})
}

const librarysLimit = 1 << 10

// byLibrary returns the messages that coder/websocket reads as a server.
func byLibrary(t *testing.T, b []byte) []event {
	t.Helper()
	in := &script{Reader: *bytes.NewReader(b)}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	for key, value := range map[string]string{
		"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
	} {
		request.Header.Set(key, value)
	}
	ws, err := websocket.Accept(in, request, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ws.CloseNow() }()
	ws.SetReadLimit(librarysLimit)
	var events []event
	for {
		kind, payload, err := ws.Read(context.Background())
		if err != nil {
			return events
		}
		events = append(events, event{map[websocket.MessageType]Kind{websocket.MessageText: Text, websocket.MessageBinary: Binary}[kind], string(payload)})
	}
}

// script is a hijacked connection on which the client has said everything.
type script struct{ bytes.Reader }

// Read ends with an error: the library takes a plain end in the midst of a message for
// the message's end.
func (s *script) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (*script) Header() http.Header                { return http.Header{} }
func (*script) WriteHeader(int)                    {}
func (*script) Write(p []byte) (int, error)        { return len(p), nil }
func (*script) Close() error                       { return nil }
func (*script) LocalAddr() net.Addr                { return &net.TCPAddr{} }
func (*script) RemoteAddr() net.Addr               { return &net.TCPAddr{} }
func (*script) SetDeadline(time.Time) error        { return nil }
func (*script) SetReadDeadline(time.Time) error    { return nil }
func (*script) SetWriteDeadline(time.Time) error   { return nil }
func (s *script) WriteTo(io.Writer) (int64, error) { return 0, errors.ErrUnsupported }
func (s *script) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return s, bufio.NewReadWriter(bufio.NewReader(nil), bufio.NewWriter(s)), nil
}
