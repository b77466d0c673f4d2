package ident

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
)

// MessageID names a message: every copy of it, however often sent and to
// however many members of a group, has the same. It is derived from what the
// message is, never drawn, so that a repeated attempt arrives at the same id.
type MessageID [16]byte

// String is the form that clients see: 22 characters of unpadded base64url.
func (id MessageID) String() string { return base64.RawURLEncoding.EncodeToString(id[:]) }

// AppendText appends the form that clients see.
func (id MessageID) AppendText(b []byte) ([]byte, error) {
	return base64.RawURLEncoding.AppendEncode(b, id[:]), nil
}

// ClientMessageID derives the id of a message that its sender named itself. The
// name belongs to the sender and the receiver, "" for a group: what goes to
// somebody else under the same name is another message, with a confirmation of
// its own.
func ClientMessageID(sender, to UserID, clientID string) MessageID {
	return derive("client", string(sender)+" "+string(to), clientID)
}

// StreamMessageID derives the id of a direct message from its place in its
// sender's stream.
func StreamMessageID(stream uint64, to UserID, n uint64) MessageID {
	return derive("stream", string(to), pair(stream, n))
}

// GroupMessageID derives the id of a group message, one for all members, from
// its sender's stream and the counter of that stream's group messages.
func GroupMessageID(stream, counter uint64) MessageID {
	return derive("group", "", pair(stream, counter))
}

// ConfirmationID derives the id of the confirmation of a message.
func ConfirmationID(of MessageID) MessageID { return derive("confirmation", string(of[:]), "") }

// PresenceID derives the id of a presence event from the domain that announces it, the
// user it is about, and the count of that user's events there.
func PresenceID(domain string, about UserID, n uint64) MessageID {
	return derive("presence", domain+" "+string(about), string(binary.BigEndian.AppendUint64(nil, n)))
}

// PresenceStream is the stream of a user's presence events in a domain: they are numbered
// so that a master in another domain gets them in order. It is never 0.
func PresenceStream(domain string, about UserID) uint64 {
	id := derive("presence stream", domain, string(about))
	return max(binary.BigEndian.Uint64(id[:]), 1)
}

// pair is two numbers as bytes.
func pair(a, b uint64) string {
	var n [16]byte
	binary.BigEndian.PutUint64(n[:8], a)
	binary.BigEndian.PutUint64(n[8:], b)
	return string(n[:])
}

// derive hashes unambiguously: each part is preceded by its length.
func derive(kind, a, b string) MessageID {
	var room [128]byte
	data := room[:0]
	for _, part := range [...]string{kind, a, b} {
		data = binary.BigEndian.AppendUint32(data, uint32(len(part)))
		data = append(data, part...)
	}
	sum := sha256.Sum256(data)
	return MessageID(sum[:len(MessageID{})])
}
