package wire

import (
	"strconv"
	"unicode/utf8"

	"github.com/linkerhq/linker/pkg/ident"
)

// Stamp is what every frame that came from a message carries beside its type.
type Stamp struct {
	ID        ident.MessageID
	CreatedAt int64 // milliseconds since 1970, for display
}

// AppendMessage appends a MESSAGE frame. content is a JSON string, quotes
// included, exactly as the sender's client wrote it.
func AppendMessage(b []byte, from ident.UserID, content []byte, reference string, s Stamp) []byte {
	b = append(b, `{"type":"MESSAGE","data":{"from":"`...)
	b = append(b, from...)
	b = append(b, `","content":`...)
	b = append(b, content...)
	b = append(b, '}')
	b = appendReference(b, reference)
	return appendStamp(b, s)
}

// AppendConfirmation appends a MESSAGE_CONFIRMATION frame.
func AppendConfirmation(b []byte, reference string, s Stamp) []byte {
	b = append(b, `{"type":"MESSAGE_CONFIRMATION","data":{"reference":`...)
	b = appendString(b, reference)
	b = append(b, '}')
	return appendStamp(b, s)
}

// AppendPresence appends a USER_CONNECTED or USER_DISCONNECTED frame.
func AppendPresence(b []byte, connected bool, user ident.UserID, s Stamp) []byte {
	t := TypeUserDisconnected
	if connected {
		t = TypeUserConnected
	}
	b = append(b, `{"type":"`...)
	b = append(b, t...)
	b = append(b, `","data":{"userId":"`...)
	b = append(b, user...)
	b = append(b, `"}`...)
	return appendStamp(b, s)
}

// AppendFetchComplete appends a FETCH_MISSING_MESSAGES_COMPLETE frame.
func AppendFetchComplete(b []byte, left int) []byte {
	b = append(b, `{"type":"FETCH_MISSING_MESSAGES_COMPLETE","data":{"leftMissingCount":`...)
	b = strconv.AppendInt(b, int64(left), 10)
	return append(b, `}}`...)
}

// AppendMissingAvailable appends a MISSING_MESSAGES_AVAILABLE frame.
func AppendMissingAvailable(b []byte, count int) []byte {
	b = append(b, `{"type":"MISSING_MESSAGES_AVAILABLE","data":{"count":`...)
	b = strconv.AppendInt(b, int64(count), 10)
	return append(b, `}}`...)
}

// AppendAccepted appends a MESSAGE_ACCEPTED frame; an empty reference is left out.
func AppendAccepted(b []byte, reference string, id ident.MessageID) []byte {
	b = append(b, `{"type":"MESSAGE_ACCEPTED","data":{`...)
	if reference != "" {
		b = append(b, `"reference":`...)
		b = appendString(b, reference)
		b = append(b, ',')
	}
	b = append(b, `"id":`...)
	b = appendID(b, id)
	return append(b, `}}`...)
}

// AppendAuthRequired appends an AUTH_REQUIRED frame.
func AppendAuthRequired(b []byte) []byte {
	return append(b, `{"type":"AUTH_REQUIRED","data":{}}`...)
}

// AuthReply is what AUTH_CLIENT_REPLY says. Reason is empty when the login
// succeeded; Domain and URLs are set for WRONG_DOMAIN only.
type AuthReply struct {
	AppID  string
	UserID string
	Reason Reason
	Domain string
	URLs   []string
}

// AppendAuthReply appends an AUTH_CLIENT_REPLY frame.
func AppendAuthReply(b []byte, r AuthReply) []byte {
	b = append(b, `{"type":"AUTH_CLIENT_REPLY","data":{"appId":`...)
	b = appendString(b, r.AppID)
	b = append(b, `,"userId":`...)
	b = appendString(b, r.UserID)
	if r.Reason == "" {
		return append(b, `,"isAuthenticated":true}}`...)
	}
	b = append(b, `,"isAuthenticated":false,"reason":`...)
	b = appendString(b, string(r.Reason))
	if r.Domain != "" {
		b = append(b, `,"domain":`...)
		b = appendString(b, r.Domain)
		b = append(b, `,"urls":[`...)
		for i, u := range r.URLs {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendString(b, u)
		}
		b = append(b, ']')
	}
	return append(b, `}}`...)
}

// Failure is what INVALID_MESSAGE and DELIVER_FAILED say.
type Failure struct {
	Code         Code
	Message      string // names the field, the value and what was expected
	Retryable    bool   // DELIVER_FAILED only
	RetryAfterMs int    // DELIVER_FAILED only; 0 is left out
	Reference    string // "" is left out
}

// AppendInvalidMessage appends an INVALID_MESSAGE frame.
func AppendInvalidMessage(b []byte, f Failure) []byte {
	b = append(b, `{"type":"INVALID_MESSAGE","data":{"code":"`...)
	b = append(b, f.Code...)
	b = append(b, `","message":`...)
	b = appendString(b, f.Message)
	b = append(b, '}')
	b = appendReference(b, f.Reference)
	return append(b, '}')
}

// AppendDeliverFailed appends a DELIVER_FAILED frame.
func AppendDeliverFailed(b []byte, f Failure) []byte {
	b = append(b, `{"type":"DELIVER_FAILED","data":{"code":"`...)
	b = append(b, f.Code...)
	b = append(b, `","message":`...)
	b = appendString(b, f.Message)
	b = append(b, `,"retryable":`...)
	b = strconv.AppendBool(b, f.Retryable)
	if f.RetryAfterMs > 0 {
		b = append(b, `,"retryAfterMs":`...)
		b = strconv.AppendInt(b, int64(f.RetryAfterMs), 10)
	}
	b = append(b, '}')
	b = appendReference(b, f.Reference)
	return append(b, '}')
}

// AppendGoAway appends a GO_AWAY frame.
func AppendGoAway(b []byte, reason string, reconnectInMs int) []byte {
	b = append(b, `{"type":"GO_AWAY","data":{"reason":`...)
	b = appendString(b, reason)
	b = append(b, `,"reconnectInMs":`...)
	b = strconv.AppendInt(b, int64(reconnectInMs), 10)
	return append(b, `}}`...)
}

// AppendSeq appends a copy of a finished frame with "seq":n beside its type.
func AppendSeq(b, frame []byte, n uint64) []byte {
	b = append(b, frame[:len(frame)-1]...)
	b = append(b, `,"seq":`...)
	b = strconv.AppendUint(b, n, 10)
	return append(b, '}')
}

// AppendLate appends a copy of a finished frame with "late":true beside its type.
func AppendLate(b, frame []byte) []byte {
	b = append(b, frame[:len(frame)-1]...)
	return append(b, `,"late":true}`...)
}

func appendReference(b []byte, reference string) []byte {
	if reference == "" {
		return b
	}
	b = append(b, `,"reference":`...)
	return appendString(b, reference)
}

func appendStamp(b []byte, s Stamp) []byte {
	b = append(b, `,"id":`...)
	b = appendID(b, s.ID)
	b = append(b, `,"createdAt":`...)
	b = strconv.AppendInt(b, s.CreatedAt, 10)
	return append(b, '}')
}

func appendID(b []byte, id ident.MessageID) []byte {
	b = append(b, '"')
	b, _ = id.AppendText(b) // never fails: base64 has no error
	return append(b, '"')
}

// appendString appends s as a JSON string (RFC 8259, section 7). Bytes that
// are not UTF-8 become U+FFFD.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
			i++
		case c < 0x20 || c == 0x7f:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			i++
		case c < utf8.RuneSelf:
			b = append(b, c)
			i++
		default:
			r, size := utf8.DecodeRuneInString(s[i:])
			b = utf8.AppendRune(b, r)
			i += size
		}
	}
	return append(b, '"')
}
