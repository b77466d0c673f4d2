package wire

import (
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

	// Of MESSAGE and CLOSE_CONNECTION: one. Of GROUP_MESSAGE: distinct, as ordered by the
	// client; they are parts of one string, so who keeps a member had better clone it.
	To      []ident.UserID
	Content []byte // of MESSAGE and GROUP_MESSAGE: a JSON string, quotes included; aliases the input

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
	var f Frame
	p := DecodeInto(b, &f)
	return f, p
}

// DecodeInto is Decode into a frame that the caller has room for.
func DecodeInto(b []byte, f *Frame) *Problem {
	*f = Frame{}
	s := scanner{b: b}
	if p := s.scan(); p != nil {
		return p
	}
	parts := &s.parts
	f.Confirm = true
	referenceProblem := f.readReference(&parts.top[topReference])
	f.Type = parts.top[topType].typeName()
	if parts.duplicate != "" {
		return &Problem{CodeDuplicateKey, parts.duplicate + ": stands twice in one object, expected once"}
	}
	if p := checkType(&parts.top[topType], f.Type); p != nil {
		return p
	}
	if referenceProblem != nil {
		return referenceProblem
	}
	if p := f.readOptions(&parts.top[topFeature], &parts.top[topConfirmation]); p != nil {
		return p
	}
	return f.readData(parts)
}

// typeName is the type that a value names, "" if it is no string. To name one that
// clients send costs no memory.
func (v *value) typeName() Type {
	if v.kind != kindString || v.surrogate {
		return ""
	}
	if !v.escaped {
		for _, t := range [...]Type{TypeMessage, TypeMessageAck, TypeGroupMessage, TypeFetch, TypeAuthClient, TypeCloseConnection} {
			if string(v.inner()) == string(t) {
				return t
			}
		}
	}
	return Type(clip(v.text()))
}

func checkType(v *value, t Type) *Problem {
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

func (f *Frame) readReference(v *value) *Problem {
	if v.absent() {
		return nil
	}
	s, ok := v.name(MaxReferenceLength)
	if !ok {
		return invalid("reference", v, "a string of at most "+strconv.Itoa(MaxReferenceLength)+" characters without U+0000")
	}
	f.Reference = s
	return nil
}

func (f *Frame) readOptions(feature, confirmation *value) *Problem {
	switch {
	case feature.absent():
	case feature.says("RELIABLE"):
	case feature.says("FAST"):
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

func (f *Frame) readData(s *parts) *Problem {
	data := &s.top[topData]
	if data.kind != kindObject && (f.Type != TypeFetch || !data.absent()) {
		return invalid("data", data, "an object")
	}
	switch f.Type {
	case TypeAuthClient:
		return f.readAuth(s)
	case TypeMessage:
		if p := f.readUser("data.to", &s.data[dataTo]); p != nil {
			return p
		}
		return f.readContent(s)
	case TypeGroupMessage:
		if p := f.readMembers(&s.data[dataTo]); p != nil {
			return p
		}
		return f.readContent(s)
	case TypeCloseConnection:
		return f.readUser("data.userId", &s.data[dataUserID])
	case TypeFetch:
		return f.readCount(&s.data[dataCount])
	default: // TypeMessageAck: checkType has let no other pass
		return f.readUpTo(&s.data[dataUpTo])
	}
}

// readAuth reads everything that is right, so that a refusal can repeat it, and
// reports the first mistake.
func (f *Frame) readAuth(s *parts) *Problem {
	var first *Problem
	note := func(p *Problem) {
		if first == nil {
			first = p
		}
	}
	for _, field := range []struct {
		name string
		v    *value
		into *string
	}{
		{"data.appId", &s.data[dataAppID], &f.AppID},
		{"data.userId", &s.data[dataUserID], &f.UserID},
	} {
		text, ok := field.v.name(len(field.v.raw))
		if !ok {
			note(invalid(field.name, field.v, "a string without U+0000"))
			continue
		}
		*field.into = text
	}
	switch token := &s.data[dataToken]; {
	case token.absent():
	case token.kind == kindString && !token.surrogate:
		f.Token = token.text()
	default: // its value stays out of the message: it may be a secret
		note(&Problem{CodeInvalidField, "data.token: expected a string"})
	}
	note(f.readWants(&s.data[dataFeatures]))
	return first
}

func (f *Frame) readWants(v *value) *Problem {
	if v.absent() {
		return nil
	}
	if v.kind != kindArray {
		return invalid("data.features", v, "an array of strings")
	}
	f.Wants.Listed = true
	s := v.elements()
	for range v.count {
		element := s.element()
		switch {
		case element.kind != kindString:
			return invalid("data.features", &element, "an array of strings")
		case element.says("accept"):
			f.Wants.Accept = true
		case element.says("ack"):
			f.Wants.Ack = true
		case element.says("push"):
			f.Wants.Push = true
		}
	}
	return nil
}

const userIDForm = "a user id <appName>-<number>"

func (f *Frame) readUser(field string, v *value) *Problem {
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

// readMembers reads the members of a group. All their ids are parts of one string: to have
// one of them means to keep the others.
func (f *Frame) readMembers(v *value) *Problem {
	expected := func() string { return "an array of 1 to " + strconv.Itoa(MaxGroupMembers) + " user ids" }
	if v.kind != kindArray || v.count == 0 {
		return invalid("data.to", v, expected())
	}
	all := string(v.raw)
	most := min(int(v.count), MaxGroupMembers)
	f.To = make([]ident.UserID, 0, most)
	seen := newSet(most)
	s := v.elements()
	for range v.count {
		s.beforeElement()
		start := s.i
		var text string
		if s.simpleStr() {
			text = all[start+1 : s.i-1]
		} else {
			s.i = start
			other := s.value(1)
			text, _ = other.name(len(other.raw))
		}
		user, err := ident.ParseUserID(text)
		if err != nil {
			s.i = start
			wrong := s.value(1)
			return invalid("data.to", &wrong, "only user ids <appName>-<number> in the array")
		}
		if seen.has(f.To, user) {
			continue
		}
		if len(f.To) == MaxGroupMembers {
			return &Problem{CodeInvalidField, "data.to: more than " + strconv.Itoa(MaxGroupMembers) + " different members, expected " + expected()}
		}
		seen.add(len(f.To))
		f.To = append(f.To, user)
	}
	return nil
}

func (f *Frame) readContent(s *parts) *Problem {
	content := &s.data[dataContent]
	if content.kind != kindString {
		return invalid("data.content", content, "a string")
	}
	if content.surrogate {
		return &Problem{CodeInvalidField, "data.content: holds half of a surrogate pair, expected a string of whole characters"}
	}
	f.Content = content.raw
	f.readClientID("id", &s.top[topID])
	if s.top[topID].absent() {
		f.readClientID("data.id", &s.data[dataID])
	}
	return nil
}

func (f *Frame) readClientID(field string, v *value) {
	if v.absent() {
		return
	}
	text, ok := v.name(MaxClientIDLength)
	if !ok || text == "" {
		f.ClientIDProblem = invalid(field, v, "a string of 1 to "+strconv.Itoa(MaxClientIDLength)+" characters without U+0000")
		return
	}
	f.ClientID = text
}

func (f *Frame) readCount(v *value) *Problem {
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

func (f *Frame) readUpTo(v *value) *Problem {
	n, ok := v.whole()
	if !ok {
		return invalid("data.upTo", v, "the seq of a delivered frame")
	}
	f.UpTo = n
	return nil
}

func invalid(field string, v *value, expected string) *Problem {
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
