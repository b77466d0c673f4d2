package e2e

import (
	"bufio"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// Opcodes of RFC 6455.
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xa
	fin            = 0x80
)

// rawSocket is a websocket of which the test makes every byte itself: it reads
// only when told to, and answers nothing by itself.
type rawSocket struct {
	conn net.Conn
	in   *bufio.Reader
}

// dialRaw opens a websocket.
func dialRaw(t *testing.T, url string) *rawSocket {
	t.Helper()
	host := strings.TrimSuffix(strings.TrimPrefix(url, "ws://"), "/ws")
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	r := &rawSocket{conn: conn, in: bufio.NewReader(conn)}
	r.within(t, patience)
	r.bytes(t, []byte("GET /ws HTTP/1.1\r\nHost: "+host+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "+base64.StdEncoding.EncodeToString([]byte(rand.Text()[:16]))+"\r\n\r\n"))
	res, err := http.ReadResponse(r.in, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("got status %d", res.StatusCode)
	}
	return r
}

// loginRaw opens a websocket and logs a user in.
func loginRaw(t *testing.T, url, user string, features ...string) *rawSocket {
	t.Helper()
	r := dialRaw(t, url)
	r.text(t, auth(user, features...))
	if f := r.frame(t); f.Type != "AUTH_CLIENT_REPLY" || !*f.Data.IsAuthenticated {
		t.Fatalf("got %v", f)
	}
	return r
}

// within bounds all that follows.
func (r *rawSocket) within(t *testing.T, d time.Duration) {
	t.Helper()
	if err := r.conn.SetDeadline(time.Now().Add(d)); err != nil {
		t.Fatal(err)
	}
}

func (r *rawSocket) bytes(t *testing.T, b []byte) {
	t.Helper()
	if _, err := r.conn.Write(b); err != nil {
		t.Fatal(err)
	}
}

func (r *rawSocket) text(t *testing.T, s string) {
	t.Helper()
	r.bytes(t, masked(fin|opText, []byte(s)))
}

// maskedHeader is the header of a whole frame whose mask is zero: the payload
// follows as it is.
func maskedHeader(op byte, n int) []byte {
	return append(header(fin|op, 0x80, n), 0, 0, 0, 0)
}

func header(first, mask byte, n int) []byte {
	switch {
	case n < 126:
		return []byte{first, mask | byte(n)}
	case n < 1<<16:
		return binary.BigEndian.AppendUint16([]byte{first, mask | 126}, uint16(n))
	default:
		return binary.BigEndian.AppendUint64([]byte{first, mask | 127}, uint64(n))
	}
}

// masked is a frame as a client must send it.
func masked(first byte, payload []byte) []byte {
	mask := [4]byte{1, 2, 3, 4}
	b := append(header(first, 0x80, len(payload)), mask[:]...)
	for i, c := range payload {
		b = append(b, c^mask[i%4])
	}
	return b
}

// read returns the next frame of the server, whatever it is.
func (r *rawSocket) read() (op byte, payload []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(r.in, head[:]); err != nil {
		return 0, nil, err
	}
	n := uint64(head[1] & 0x7f)
	switch n {
	case 126:
		var b [2]byte
		_, err = io.ReadFull(r.in, b[:])
		n = uint64(binary.BigEndian.Uint16(b[:]))
	case 127:
		var b [8]byte
		_, err = io.ReadFull(r.in, b[:])
		n = binary.BigEndian.Uint64(b[:])
	}
	if err != nil {
		return 0, nil, err
	}
	if head[0]&fin == 0 || n > 1<<20 {
		return 0, nil, fmt.Errorf("a frame that begins with %x", head)
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(r.in, payload)
	return head[0] & 0xf, payload, err
}

// frame returns the next text frame; pings are passed over.
func (r *rawSocket) frame(t *testing.T) *frame {
	t.Helper()
	return r.nextText(t, false)
}

// answer is frame, but pings are answered.
func (r *rawSocket) answer(t *testing.T) *frame {
	t.Helper()
	return r.nextText(t, true)
}

func (r *rawSocket) nextText(t *testing.T, answering bool) *frame {
	t.Helper()
	for {
		op, payload, err := r.read()
		switch {
		case err != nil:
			t.Fatal(err)
		case op == opPing && answering:
			r.bytes(t, masked(fin|opPong, payload))
		case op == opText:
			f, err := parseFrame(payload)
			if err != nil {
				t.Fatal(err)
			}
			return f
		case op == opClose:
			t.Fatalf("closed: %x", payload)
		}
	}
}

// closeCode reads up to the close frame; -1 if the connection ends without one.
func (r *rawSocket) closeCode(t *testing.T) int {
	t.Helper()
	code, err := r.tryCloseCode()
	if err != nil {
		t.Fatal(err)
	}
	return code
}

func (r *rawSocket) tryCloseCode() (int, error) {
	for {
		op, payload, err := r.read()
		var timeout net.Error
		switch {
		case errors.As(err, &timeout) && timeout.Timeout():
			return 0, errors.New("the connection is still open")
		case err != nil:
			return -1, nil
		case op == opClose && len(payload) >= 2:
			return int(binary.BigEndian.Uint16(payload)), nil
		}
	}
}

// reset ends the connection with a RST: no goodbye of any kind.
func (r *rawSocket) reset(t *testing.T) {
	t.Helper()
	if err := errors.Join(r.conn.(*net.TCPConn).SetLinger(0), r.conn.Close()); err != nil {
		t.Fatal(err)
	}
}
