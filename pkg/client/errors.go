package client

import (
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Errors of Send and its like; errors.Is tells them apart.
var (
	// ErrClosed: the client was closed.
	ErrClosed = errors.New("the client is closed")
	// ErrUnknown: the message was written and not answered. It may be delivered
	// or not. Sent again with the same ID within ten minutes it is delivered
	// once.
	ErrUnknown = errors.New("it is not known whether the message was accepted")
	// ErrPending: the message is in the outbox and will be sent.
	ErrPending = errors.New("the message waits in the outbox")
	// ErrNotConnected: there is no connection, and FAST messages do not wait for
	// one.
	ErrNotConnected = errors.New("not connected")
	// ErrFull: too many messages wait to be accepted.
	ErrFull = errors.New("too many messages wait to be accepted")
	// ErrTooLarge: the frame is larger than Config.MaxFrame.
	ErrTooLarge = errors.New("the message is too large")
	// ErrInvalid: an argument is not what it has to be; the server would not
	// take the message.
	ErrInvalid = errors.New("invalid argument")
	// ErrBusy: another loop takes the messages.
	ErrBusy = errors.New("another loop takes the messages")
	// ErrForgotten: too many messages wait for their confirmation; the oldest
	// are not waited for any more.
	ErrForgotten = errors.New("too many messages wait for their confirmation")
)

// LoginError says why the server refuses the login.
type LoginError struct {
	Reason string // a reason of AUTH_CLIENT_REPLY, such as REFUSED
}

// Error names the reason.
func (e *LoginError) Error() string { return "the login was refused: " + e.Reason }

// CloseError is how the server ended the connection.
type CloseError struct {
	Code   int // of the websocket's close frame
	Reason string
}

// Error names the code, and what it means.
func (e *CloseError) Error() string {
	s := "the server closed the connection with " + strconv.Itoa(e.Code)
	if meaning, known := closeMeanings[e.Code]; known {
		s += ", " + meaning
	}
	if e.Reason != "" {
		s += fmt.Sprintf(" (%q)", e.Reason)
	}
	return s
}

// SendError says why the server does not send a message.
type SendError struct {
	Code       string // of DELIVER_FAILED or INVALID_MESSAGE
	Message    string // for people
	Retryable  bool
	RetryAfter time.Duration // 0: not said
}

// Error has the code and the server's words.
func (e *SendError) Error() string {
	if e.Message == "" {
		return "the server refused it: " + e.Code
	}
	return "the server refused it: " + e.Code + ": " + e.Message
}

// Close codes that matter here.
const (
	closeBinary     = 1003
	closeNotUTF8    = 1007
	closeTooLarge   = 1009
	closeBadFrames  = 4400
	closeRefused    = 4403
	closeByMaster   = 4410
	closeMoved      = 4421
	closeSlowReader = 4408
	closeFastSender = 4429
	closeTryAgain   = 4503
)

// closeMeanings says what close codes mean.
var closeMeanings = map[int]string{
	1001: "going away", 1002: "a protocol error", closeBinary: "a binary frame", closeNotUTF8: "not UTF-8", closeTooLarge: "a frame is too large",
	1012: "restarting", closeBadFrames: "too many bad frames", 4401: "not logged in in time", closeRefused: "refused", closeSlowReader: "reading too slowly",
	closeByMaster: "closed by the master user", closeMoved: "the home domain has moved", closeFastSender: "sending too fast", closeTryAgain: "try again later",
}

// isFinal says whether a client stays away after this close code.
func isFinal(code int) bool {
	switch code {
	case closeBinary, closeNotUTF8, closeTooLarge, closeBadFrames, closeRefused, closeByMaster:
		return true
	default:
		return false
	}
}
