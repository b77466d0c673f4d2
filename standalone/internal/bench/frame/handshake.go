package frame

import (
	"bytes"
	"crypto/sha1" // RFC 6455 wants it
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
)

// MaxAnswer is how many bytes the answer to a handshake has at most.
const MaxAnswer = 16 << 10

// key is that of every handshake: it keeps caches apart, and there are none here.
const key = "bGlua2VyLWJlbmNoLWtleQ=="

// AppendHandshake appends the request that makes a connection a websocket.
func AppendHandshake(b []byte, host, path string) []byte {
	return fmt.Appendf(b, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n\r\n", path, host, key)
}

// acceptKey is what a server makes of the key.
func acceptKey() string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) // RFC 6455 wants it
	return base64.StdEncoding.EncodeToString(sum[:])
}

// ErrNoWebsocket says that the answer to a handshake is none to a websocket.
var ErrNoWebsocket = errors.New("the answer to the handshake is not that of a websocket")

// StatusError is an answer to a handshake other than 101.
type StatusError struct{ Status int }

// Error names the status.
func (e StatusError) Error() string {
	return "the handshake was answered with " + strconv.Itoa(e.Status) + ", expected 101"
}

// ReadAnswer reads the answer to a handshake and says how many bytes it has; 0 while
// it is not there as a whole.
func ReadAnswer(b []byte) (int, error) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		if len(b) > MaxAnswer {
			return 0, ErrNoWebsocket
		}
		return 0, nil
	}
	status, rest, _ := bytes.Cut(b[:end], []byte("\r\n"))
	words := bytes.Fields(status)
	if len(words) < 2 || string(words[0]) != "HTTP/1.1" {
		return 0, ErrNoWebsocket
	}
	code, err := strconv.Atoi(string(words[1]))
	if err != nil {
		return 0, ErrNoWebsocket
	}
	if code != 101 {
		return 0, StatusError{code}
	}
	for line := range bytes.SplitSeq(rest, []byte("\r\n")) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		if bytes.EqualFold(name, []byte("Sec-WebSocket-Accept")) && string(bytes.TrimSpace(value)) == acceptKey() {
			return end + len("\r\n\r\n"), nil
		}
	}
	return 0, ErrNoWebsocket
}
