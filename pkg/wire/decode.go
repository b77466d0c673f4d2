package wire

import (
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/linkerhq/linker/pkg/ident"
)

// Frame is one frame of a client, read and checked. Which fields are meaningful
// depends on Type.
type Frame struct {
	Type      Type
	Reference string // "" where there is none
	Feature   Feature
	Confirm   bool // confirmationEnabled

	// Of AUTH_CLIENT. UserID is as the client wrote it.
	AppID  string
	UserID string
	Token  string
	Wants  Wants

	To      []ident.UserID // of MESSAGE and CLOSE_CONNECTION: one; of GROUP_MESSAGE: distinct, as ordered by the client
	Content []byte         // of MESSAGE and GROUP_MESSAGE: a JSON string, quotes included; aliases the input

	// Of MESSAGE and GROUP_MESSAGE: the name that the client itself gives its
	// message. It means something only to sessions with the feature accept, so a
	// wrong one is not an error of the frame.
	ClientID        string
	ClientIDProblem *Problem

	Count int    // of FETCH_MISSING_MESSAGES_REQUEST: 1 to MaxFetchCount
	UpTo  uint64 // of MESSAGE_ACK; the largest uint64 for anything beyond
}

// Wants is what AUTH_CLIENT asks for in data.features. Names that are not known
// are ignored.
type Wants struct {
	Listed bool // a list was sent at all, if only an empty one
	Accept bool
	Ack    bool
	Push   bool
}

// Problem says why a frame cannot be taken.
type Problem struct {
	Code    Code
	Message string // names the field, the value and what was expected
}

// Decode reads one text message of a client, which must be valid UTF-8. Names
// match exactly, unknown ones are ignored, null means absent, and a name that
// matters may stand only once in its object.
//
// With a Problem the frame says what could be made out nevertheless: the type as
// the client wrote it, and the reference if that is a valid one.
func Decode(b []byte) (Frame, *Problem) {
	s := scanner{b: b}
	if p := s.scan(); p != nil {
		return Frame{}, p
	}
	f := Frame{Confirm: true}
	referenceProblem := f.readReference(s.top[topReference])
	if t := s.top[topType]; t.kind == kindString && !t.surrogate {
		f.Type = Type(clip(t.text()))
	}
	if s.duplicate != "" {
		return f, &Problem{CodeDuplicateKey, fmt.Sprintf("%s: stands twice in one object, expected once", s.duplicate)}
	}
	if p := checkType(s.top[topType], f.Type); p != nil {
		return f, p
	}
	if referenceProblem != nil {
		return f, referenceProblem
	}
	if p := f.readOptions(s.top[topFeature], s.top[topConfirmation]); p != nil {
		return f, p
	}
	return f, f.readData(&s)
}

func checkType(v value, t Type) *Problem {
	if v.kind != kindString {
		return &Problem{CodeUnknownType, "type: " + v.describe() + ", expected the name of a frame type"}
	}
	switch t {
	case TypeAuthClient, TypeMessage, TypeGroupMessage, TypeCloseConnection, TypeFetch, TypeMessageAck:
		return nil
	case TypeAuthClientReply, TypeAuthRequired, TypeConfirmation, TypeUserConnected, TypeUserDisconnected,
		TypeFetchComplete, TypeMessageAccepted, TypeInvalidMessage, TypeDeliverFailed, TypeMissingAvailable, TypeGoAway,
		"INTERNAL_MESSAGE", "MESSAGE_STATE_CHANGED", "GROUP_CONNECTOR_MESSAGE", "HOP_ACK":
		return &Problem{CodeForbiddenType, "type: " + v.describe() + " is sent by servers only"}
	default:
		return &Problem{CodeUnknownType, "type: " + v.describe() + " is not a known frame type"}
	}
}

func (f *Frame) readReference(v value) *Problem {
	if v.absent() {
		return nil
	}
	expected := fmt.Sprintf("a string of at most %d characters without U+0000", MaxReferenceLength)
	s, ok := v.name(MaxReferenceLength)
	if !ok {
		return invalid("reference", v, expected)
	}
	f.Reference = s
	return nil
}

func (f *Frame) readOptions(feature, confirmation value) *Problem {
	switch {
	case feature.absent():
	case feature.kind == kindString && feature.text() == "RELIABLE":
	case feature.kind == kindString && feature.text() == "FAST":
		f.Feature = Fast
	default:
		return invalid("feature", feature, `"RELIABLE" or "FAST"`)
	}
	switch confirmation.kind {
	case kindNone, kindNull, kindTrue:
	case kindFalse:
		f.Confirm = false
	default:
		return invalid("confirmationEnabled", confirmation, "true or false")
	}
	return nil
}

func (f *Frame) readData(s *scanner) *Problem {
	data := s.top[topData]
	if data.kind != kindObject && (f.Type != TypeFetch || !data.absent()) {
		return invalid("data", data, "an object")
	}
	switch f.Type {
	case TypeAuthClient:
		return f.readAuth(s)
	case TypeMessage:
		if p := f.readUser("data.to", s.data[dataTo]); p != nil {
			return p
		}
		return f.readContent(s)
	case TypeGroupMessage:
		if p := f.readMembers(s.data[dataTo]); p != nil {
			return p
		}
		return f.readContent(s)
	case TypeCloseConnection:
		return f.readUser("data.userId", s.data[dataUserID])
	case TypeFetch:
		return f.readCount(s.data[dataCount])
	default: // TypeMessageAck: checkType has let no other pass
		return f.readUpTo(s.data[dataUpTo])
	}
}

// readAuth reads everything that is right, so that a refusal can repeat it, and
// reports the first mistake.
func (f *Frame) readAuth(s *scanner) *Problem {
	var first *Problem
	note := func(p *Problem) {
		if first == nil {
			first = p
		}
	}
	for _, field := range []struct {
		name string
		v    value
		into *string
	}{
		{"data.appId", s.data[dataAppID], &f.AppID},
		{"data.userId", s.data[dataUserID], &f.UserID},
	} {
		text, ok := field.v.name(len(s.b))
		if !ok {
			note(invalid(field.name, field.v, "a string without U+0000"))
			continue
		}
		*field.into = text
	}
	switch token := s.data[dataToken]; {
	case token.absent():
	case token.kind == kindString && !token.surrogate:
		f.Token = token.text()
	default: // its value stays out of the message: it may be a secret
		note(&Problem{CodeInvalidField, "data.token: expected a string"})
	}
	note(f.readWants(s.data[dataFeatures]))
	return first
}

func (f *Frame) readWants(v value) *Problem {
	if v.absent() {
		return nil
	}
	if v.kind != kindArray {
		return invalid("data.features", v, "an array of strings")
	}
	f.Wants.Listed = true
	for element := range v.elements() {
		if element.kind != kindString {
			return invalid("data.features", element, "an array of strings")
		}
		switch element.text() {
		case "accept":
			f.Wants.Accept = true
		case "ack":
			f.Wants.Ack = true
		case "push":
			f.Wants.Push = true
		}
	}
	return nil
}

const userIDForm = "a user id <appName>-<number>"

func (f *Frame) readUser(field string, v value) *Problem {
	text, ok := v.name(len(v.raw))
	if !ok || text == "" {
		return invalid(field, v, userIDForm)
	}
	user, err := ident.ParseUserID(text)
	if err != nil {
		return &Problem{CodeInvalidUserID, field + ": " + v.describe() + ", expected " + userIDForm}
	}
	f.To = []ident.UserID{user}
	return nil
}

func (f *Frame) readMembers(v value) *Problem {
	expected := fmt.Sprintf("an array of 1 to %d user ids", MaxGroupMembers)
	if v.kind != kindArray {
		return invalid("data.to", v, expected)
	}
	seen := make(map[ident.UserID]struct{})
	for element := range v.elements() {
		text, ok := element.name(len(element.raw))
		user, err := ident.ParseUserID(text)
		if !ok || err != nil {
			return invalid("data.to", element, "only user ids <appName>-<number> in the array")
		}
		if _, known := seen[user]; known {
			continue
		}
		if len(seen) == MaxGroupMembers {
			return &Problem{CodeInvalidField, "data.to: more than " + strconv.Itoa(MaxGroupMembers) + " different members, expected " + expected}
		}
		seen[user] = struct{}{}
		f.To = append(f.To, user)
	}
	if len(f.To) == 0 {
		return invalid("data.to", v, expected)
	}
	return nil
}

func (f *Frame) readContent(s *scanner) *Problem {
	content := s.data[dataContent]
	if content.kind != kindString {
		return invalid("data.content", content, "a string")
	}
	if content.surrogate {
		return &Problem{CodeInvalidField, "data.content: holds half of a surrogate pair, expected a string of whole characters"}
	}
	f.Content = content.raw
	f.readClientID("id", s.top[topID])
	if s.top[topID].absent() {
		f.readClientID("data.id", s.data[dataID])
	}
	return nil
}

func (f *Frame) readClientID(field string, v value) {
	if v.absent() {
		return
	}
	text, ok := v.name(MaxClientIDLength)
	if !ok || text == "" {
		f.ClientIDProblem = invalid(field, v, fmt.Sprintf("a string of 1 to %d characters without U+0000", MaxClientIDLength))
		return
	}
	f.ClientID = text
}

func (f *Frame) readCount(v value) *Problem {
	if v.absent() {
		f.Count = DefaultFetchCount
		return nil
	}
	n, ok := v.whole()
	if !ok || n < 1 {
		return invalid("data.count", v, "a whole number from 1 to "+strconv.Itoa(MaxFetchCount))
	}
	f.Count = int(min(n, MaxFetchCount))
	return nil
}

func (f *Frame) readUpTo(v value) *Problem {
	n, ok := v.whole()
	if !ok {
		return invalid("data.upTo", v, "the seq of a delivered frame")
	}
	f.UpTo = n
	return nil
}

func invalid(field string, v value, expected string) *Problem {
	return &Problem{CodeInvalidField, field + ": " + v.describe() + ", expected " + expected}
}

// clip keeps a hostile value from filling a message, and cuts no character.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	cut := most
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}
