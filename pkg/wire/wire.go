// Package wire is the protocol that clients speak: the frame types, what the
// server may answer and why, and how frames are read and written. It does no
// I/O and keeps no state. docs/protocol.md describes the same in prose.
package wire

import "time"

// Type names what a frame is about.
type Type string

// Types that clients send.
const (
	TypeAuthClient      Type = "AUTH_CLIENT"
	TypeMessage         Type = "MESSAGE" // both ways
	TypeGroupMessage    Type = "GROUP_MESSAGE"
	TypeCloseConnection Type = "CLOSE_CONNECTION"
	TypeFetch           Type = "FETCH_MISSING_MESSAGES_REQUEST"
	TypeMessageAck      Type = "MESSAGE_ACK"
)

// Types that servers send.
const (
	TypeAuthClientReply  Type = "AUTH_CLIENT_REPLY"
	TypeAuthRequired     Type = "AUTH_REQUIRED"
	TypeConfirmation     Type = "MESSAGE_CONFIRMATION"
	TypeUserConnected    Type = "USER_CONNECTED"
	TypeUserDisconnected Type = "USER_DISCONNECTED"
	TypeFetchComplete    Type = "FETCH_MISSING_MESSAGES_COMPLETE"
	TypeMessageAccepted  Type = "MESSAGE_ACCEPTED"
	TypeInvalidMessage   Type = "INVALID_MESSAGE"
	TypeDeliverFailed    Type = "DELIVER_FAILED"
	TypeMissingAvailable Type = "MISSING_MESSAGES_AVAILABLE"
	TypeGoAway           Type = "GO_AWAY"
)

// Feature says how a message travels.
type Feature uint8

// The features of a message; absent means Reliable.
const (
	Reliable Feature = iota // through the log: never lost
	Fast                    // through memory: dropped when the receiver is not there
)

// Limits of what a client may send. All are counted before anything is stored.
const (
	DefaultFrameLimit   = 64 << 10 // bytes of one message, all its fragments together
	MaxReferenceLength  = 128      // characters
	MaxClientIDLength   = 64       // characters
	MaxGroupMembers     = 4096
	MaxFetchCount       = 2000
	DefaultFetchCount   = 100
	MaxNesting          = 32 // of JSON
	LoginTimeout        = 15 * time.Second
	PingAfter           = 25 * time.Second // without a sign of life
	DropAfter           = 35 * time.Second // without a sign of life
	MaxFetchesWaiting   = 16               // of one socket
	MaxBadFramesPerMin  = 200
	MaxPingsPerSecond   = 20
	ReadingTooSlowAfter = 30 * time.Second // with bytes waiting and none taken
)

// Code says why a frame was not taken (INVALID_MESSAGE) or a message not sent
// (DELIVER_FAILED). The list is closed: clients switch over it.
type Code string

// Codes of INVALID_MESSAGE: the frame cannot be taken as it is.
const (
	CodeBadJSON              Code = "BAD_JSON"
	CodeDuplicateKey         Code = "DUPLICATE_KEY"
	CodeUnknownType          Code = "UNKNOWN_TYPE"
	CodeForbiddenType        Code = "FORBIDDEN_TYPE" // only servers may send it
	CodeInvalidField         Code = "INVALID_FIELD"
	CodeInvalidUserID        Code = "INVALID_USER_ID"
	CodeTooLarge             Code = "TOO_LARGE"
	CodeAlreadyAuthenticated Code = "ALREADY_AUTHENTICATED"
)

// Codes of DELIVER_FAILED: the message was understood and cannot be sent.
const (
	CodeUnknownApp       Code = "UNKNOWN_APP"
	CodeForbiddenApp     Code = "FORBIDDEN_APP"
	CodeForbidden        Code = "FORBIDDEN" // the sender lacks the right
	CodeNotConnected     Code = "NOT_CONNECTED"
	CodeNoRoute          Code = "NO_ROUTE"
	CodeHopsExhausted    Code = "HOPS_EXHAUSTED"    // it came through too many domains
	CodeQueueUnavailable Code = "QUEUE_UNAVAILABLE" // retryable
	CodeMailboxFull      Code = "MAILBOX_FULL"
	CodeExpired          Code = "EXPIRED"
	CodeRateLimited      Code = "RATE_LIMITED" // retryable; also of INVALID_MESSAGE
)

// Reason says why a login was refused, in AUTH_CLIENT_REPLY. The list is closed.
type Reason string

// Reasons for a refused login.
const (
	ReasonInvalidRequest  Reason = "INVALID_REQUEST" // appId or userId missing or of the wrong type
	ReasonInvalidUserID   Reason = "INVALID_USER_ID"
	ReasonUnknownApp      Reason = "UNKNOWN_APP"
	ReasonWrongDomain     Reason = "WRONG_DOMAIN"
	ReasonAuthMissing     Reason = "AUTH_NOT_CONFIGURED" // authEnabled without authUrl
	ReasonRefused         Reason = "REFUSED"             // wrong appId, or the callback said no
	ReasonAuthUnavailable Reason = "AUTH_UNAVAILABLE"    // try again later
	ReasonTooManySockets  Reason = "TOO_MANY_SOCKETS"    // of this user, at this connector: try again later
)

// CloseCode is the status of a websocket close frame.
type CloseCode uint16

// Close codes. A client stays away after 1003, 1007, 1009, 4400, 4403 and 4410.
const (
	CloseGoingAway     CloseCode = 1001
	CloseProtocolError CloseCode = 1002
	CloseBinary        CloseCode = 1003
	CloseNotUTF8       CloseCode = 1007
	CloseTooLarge      CloseCode = 1009
	CloseRestarting    CloseCode = 1012
	CloseBadFrames     CloseCode = 4400
	CloseLoginTimeout  CloseCode = 4401
	CloseRefused       CloseCode = 4403
	CloseReadingSlowly CloseCode = 4408
	CloseByMaster      CloseCode = 4410
	CloseDomainMoved   CloseCode = 4421
	CloseSendingFast   CloseCode = 4429
	CloseTryAgain      CloseCode = 4503
)
