package client

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
)

// Frame types of the protocol.
const (
	typeAuth         = "AUTH_CLIENT"
	typeAuthReply    = "AUTH_CLIENT_REPLY"
	typeMessage      = "MESSAGE"
	typeGroup        = "GROUP_MESSAGE"
	typeClose        = "CLOSE_CONNECTION"
	typeAck          = "MESSAGE_ACK"
	typeAccepted     = "MESSAGE_ACCEPTED"
	typeConfirmation = "MESSAGE_CONFIRMATION"
	typeConnected    = "USER_CONNECTED"
	typeDisconnected = "USER_DISCONNECTED"
	typeFailed       = "DELIVER_FAILED"
	typeInvalid      = "INVALID_MESSAGE"
	typeGoAway       = "GO_AWAY"
)

// Reasons of a refused login that are not final.
const (
	reasonWrongDomain     = "WRONG_DOMAIN"
	reasonAuthUnavailable = "AUTH_UNAVAILABLE"
	reasonTooMany         = "TOO_MANY_SOCKETS"
)

// incoming is any frame of a server.
type incoming struct {
	Type      string `json:"type"`
	Reference string `json:"reference"`
	ID        string `json:"id"`
	CreatedAt int64  `json:"createdAt"`
	Seq       uint64 `json:"seq"`
	Late      bool   `json:"late"`
	Data      struct {
		From            string   `json:"from"`
		Content         string   `json:"content"`
		UserID          string   `json:"userId"`
		ID              string   `json:"id"`
		Reference       string   `json:"reference"`
		Code            string   `json:"code"`
		Message         string   `json:"message"`
		Reason          string   `json:"reason"`
		Domain          string   `json:"domain"`
		URLs            []string `json:"urls"`
		IsAuthenticated bool     `json:"isAuthenticated"`
		Retryable       bool     `json:"retryable"`
		RetryAfterMs    int64    `json:"retryAfterMs"`
		ReconnectInMs   int64    `json:"reconnectInMs"`
	} `json:"data"`
}

// decode reads one frame.
func decode(b []byte) (*incoming, error) {
	f := new(incoming)
	if err := json.Unmarshal(b, f); err != nil {
		return nil, fmt.Errorf("a frame of the server: %w", err)
	}
	return f, nil
}

// createdAt is when the frame's message was created, by the server's clock.
func (f *incoming) createdAt() time.Time { return time.UnixMilli(f.CreatedAt) }

// refusal is what DELIVER_FAILED and INVALID_MESSAGE say.
func (f *incoming) refusal() *SendError {
	return &SendError{
		Code: f.Data.Code, Message: f.Data.Message, Retryable: f.Data.Retryable,
		RetryAfter: milliseconds(f.Data.RetryAfterMs, maxRetryAfter),
	}
}

// milliseconds is a pause that a server asks for, within reason.
func milliseconds(ms int64, most time.Duration) time.Duration {
	return time.Duration(min(max(ms, 0), most.Milliseconds())) * time.Millisecond
}

// outgoing is any frame of a client.
type outgoing struct {
	Type      string `json:"type"`
	Data      any    `json:"data"`
	Feature   string `json:"feature,omitempty"`
	Reference string `json:"reference,omitempty"`
	ID        string `json:"id,omitempty"`
	Confirm   *bool  `json:"confirmationEnabled,omitempty"`
}

type messageData struct {
	To      any    `json:"to"` // a string, or a list of them for a group
	Content string `json:"content"`
}

type authData struct {
	AppID    string   `json:"appId"`
	UserID   string   `json:"userId"`
	Token    string   `json:"token"`
	Features []string `json:"features"`
}

type userData struct {
	UserID string `json:"userId"`
}

type ackData struct {
	UpTo uint64 `json:"upTo"`
}

// encode writes a frame, without the escapes for HTML that nobody needs here.
func encode(f outgoing) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(f); err != nil {
		panic(err) // strings, numbers and lists of strings have no error
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// encodeMessage writes the frame of a message.
func encodeMessage(m *Pending, reference, feature string) []byte {
	f := outgoing{Type: typeMessage, Reference: reference, Feature: feature, ID: m.ID}
	if m.Group {
		f.Type = typeGroup
		f.Data = messageData{To: m.To, Content: m.Content}
	} else {
		f.Data = messageData{To: m.To[0], Content: m.Content}
	}
	if !m.Confirm {
		f.Confirm = new(bool)
	}
	return encode(f)
}
