// Package envelope is what travels between the services of a domain: one
// record of a lane. The client's frame travels inside as the bytes that will be
// written to the receiver's socket; nothing on the way encodes it again.
//
// An Envelope is a value: whoever changes one changes a copy.
package envelope

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/internal/bin"
)

// Kind says what a record is. The numbers are stored: they are never reused.
type Kind uint8

// The kinds of records.
const (
	KindMessage       Kind = 1  // a MESSAGE, for one or several users of the lane
	KindConfirmation  Kind = 2  // a MESSAGE_CONFIRMATION for the sender of a message
	KindPresence      Kind = 3  // USER_CONNECTED or USER_DISCONNECTED for a master
	KindLogin         Kind = 4  // a session begins; its position divides what is stored for it
	KindLogout        Kind = 5  // a session has ended
	KindFetch         Kind = 6  // a session asks for what is stored
	KindClose         Kind = 7  // the master closes all sockets of a user
	KindConnectorDown Kind = 8  // the lane's owner found a connector dead
	KindEpoch         Kind = 9  // a new owner has taken the lane; its position is the epoch
	KindFailure       Kind = 10 // a DELIVER_FAILED for a sender's open sockets; FAST only
	KindMissing       Kind = 11 // a user who was announced as connected has no session that a connector knows
	KindWindows       Kind = 12 // what a user's former home has taken of the streams to it; Frame holds it
)

// String names the kind as metrics and logs do.
func (k Kind) String() string {
	switch k {
	case KindMessage:
		return "message"
	case KindConfirmation:
		return "confirmation"
	case KindPresence:
		return "presence"
	case KindLogin:
		return "login"
	case KindLogout:
		return "logout"
	case KindFetch:
		return "fetch"
	case KindClose:
		return "close"
	case KindConnectorDown:
		return "connector_down"
	case KindEpoch:
		return "epoch"
	case KindFailure:
		return "failure"
	case KindMissing:
		return "missing"
	case KindWindows:
		return "windows"
	}
	return fmt.Sprintf("kind_%d", uint8(k))
}

// Deliverable says whether a record of this kind carries a frame for users.
func (k Kind) Deliverable() bool {
	return k == KindMessage || k == KindConfirmation || k == KindPresence
}

// Position is a place in a lane's log: the generation of the topic, which an
// operator raises when the topic is made anew, and the offset.
type Position struct {
	Generation uint32
	Offset     int64
}

// Compare orders positions as the log does.
func (p Position) Compare(q Position) int {
	if p.Generation != q.Generation {
		return cmp.Compare(p.Generation, q.Generation)
	}
	return cmp.Compare(p.Offset, q.Offset)
}

// Before says whether p lies before q.
func (p Position) Before(q Position) bool {
	return p.Generation < q.Generation || p.Generation == q.Generation && p.Offset < q.Offset
}

// Recipient is one user a message is for. N is the message's number among those
// of its stream to this user, from 1; 0 where the record has no stream.
type Recipient struct {
	User ident.UserID
	N    uint64
	// After is the message of the sender's stream before this one, which comes first;
	// zero: none is known. It stands with the first of a stream only.
	After Mark
}

// Mark names a message by its stream and number.
type Mark struct{ Stream, N uint64 }

// Features are what a client asked for when it logged in.
type Features uint8

// The features of a session.
const (
	FeatureAccept Features = 1 << iota // wants MESSAGE_ACCEPTED
	FeatureAck                         // confirms receipt with MESSAGE_ACK
	FeaturePush                        // wants everything stored pushed after login
	FeatureHints                       // sent a features list at all: understands MISSING_MESSAGES_AVAILABLE and GO_AWAY
)

// Has says whether all of want are in f.
func (f Features) Has(want Features) bool { return f&want == want }

// Envelope is one record. Which fields are meaningful depends on Kind.
type Envelope struct {
	Kind      Kind
	Confirm   bool // the sender wants a MESSAGE_CONFIRMATION
	Remember  bool // the id is the only mark of a duplicate: the lane remembers it
	ID        ident.MessageID
	Stream    uint64       // the sender's stream; 0: none
	From      ident.UserID // the sender; of a presence event the user it is about
	To        []Recipient  // never empty but for KindEpoch and KindConnectorDown
	CreatedAt int64        // milliseconds since 1970, for display
	Reference string       // of the message, for its confirmation
	Frame     []byte       // the finished client frame

	// Of what crosses links.
	Path     []string // the domains it has left, its origin first; empty: it was accepted here
	Home     string   // the domain of its receiver, where the distributions name none: it answers somebody there; empty: they do
	Network  uint64   // the highest version of the network that it was routed by; 0: none
	Late     bool     // newer ones of its sender have been delivered before it
	Released bool     // was held for a predecessor here, and goes on now whatever is missing
	Moved    bool     // waited at its receiver's former home, which sends it in order

	// Of KindLogin, KindLogout, KindFetch; Connector also of KindConnectorDown.
	Session   uint64
	Connector ident.Connector
	Features  Features // of KindLogin
	Request   uint64   // of KindFetch: rises with each of a session; of KindLogout: the highest d proved
	Count     int      // of KindFetch
}

const version = 1

const (
	flagConfirm = 1 << iota
	flagRemember
	flagSession // the session part follows
	flagTravel  // path and network follow
	flagAfter   // recipients have an After
	flagLate
	flagReleased
	flagMoved
	knownFlags = 1<<iota - 1
)

// MaxPath is how many domains a record may come through.
const MaxPath = 64

// flags says which parts follow.
func (e *Envelope) flags() uint64 {
	var flags uint64
	if e.Confirm {
		flags |= flagConfirm
	}
	if e.Remember {
		flags |= flagRemember
	}
	if e.Session != 0 || e.Connector != (ident.Connector{}) {
		flags |= flagSession
	}
	if len(e.Path) > 0 || e.Network != 0 || e.Home != "" {
		flags |= flagTravel
	}
	for i := range e.To {
		if e.To[i].After != (Mark{}) {
			flags |= flagAfter
			break
		}
	}
	if e.Late {
		flags |= flagLate
	}
	if e.Released {
		flags |= flagReleased
	}
	if e.Moved {
		flags |= flagMoved
	}
	return flags
}

// Append appends the encoding of e.
func (e *Envelope) Append(b []byte) []byte {
	flags := e.flags()
	b = append(b, version, byte(e.Kind))
	b = binary.AppendUvarint(b, flags)
	b = append(b, e.ID[:]...)
	b = bin.AppendUint64(b, e.Stream)
	b = bin.AppendString(b, e.From)
	b = binary.AppendUvarint(b, uint64(len(e.To)))
	for _, r := range e.To {
		b = bin.AppendString(b, r.User)
		b = binary.AppendUvarint(b, r.N)
		if flags&flagAfter != 0 {
			b = bin.AppendUint64(b, r.After.Stream)
			b = binary.AppendUvarint(b, r.After.N)
		}
	}
	b = binary.AppendVarint(b, e.CreatedAt)
	b = bin.AppendString(b, e.Reference)
	if flags&flagTravel != 0 {
		b = binary.AppendUvarint(b, uint64(len(e.Path)))
		for _, domain := range e.Path {
			b = bin.AppendString(b, domain)
		}
		b = bin.AppendString(b, e.Home)
		b = binary.AppendUvarint(b, e.Network)
	}
	if flags&flagSession != 0 {
		b = bin.AppendUint64(b, e.Session)
		b = bin.AppendString(b, e.Connector.Name)
		b = append(b, e.Connector.Incarnation[:]...)
		b = append(b, byte(e.Features))
		b = bin.AppendUint64(b, e.Request)
		b = binary.AppendVarint(b, int64(e.Count))
	}
	return bin.AppendString(b, e.Frame)
}

// Encode returns the encoding of e in memory of its own.
func (e *Envelope) Encode() []byte {
	const fixed, recipient, domain = 128, 32, 2
	size := fixed + len(e.From) + len(e.Reference) + len(e.Home) + len(e.Connector.Name) + len(e.Frame)
	for i := range e.To {
		size += recipient + len(e.To[i].User)
	}
	for _, d := range e.Path {
		size += domain + len(d)
	}
	return e.Append(make([]byte, 0, size))
}

// ErrVersion is reported for a record of a version this program does not know.
var ErrVersion = errors.New("unknown envelope version")

// Decode reads an encoded envelope. Frame aliases b. The strings share memory with each
// other: who keeps one for longer than the envelope had better clone it.
func Decode(b []byte) (Envelope, error) {
	var e Envelope
	if err := e.decode(b, nil); err != nil {
		return Envelope{}, err
	}
	return e, nil
}

// DecodeNew is Decode for what will be passed on as a pointer: the envelope and its only
// recipient are one piece of memory.
func DecodeNew(b []byte) (*Envelope, error) {
	var whole struct {
		Envelope
		to [1]Recipient
	}
	if err := whole.decode(b, whole.to[:]); err != nil {
		return nil, err
	}
	return &whole.Envelope, nil
}

// decode fills an empty envelope. Recipients go to to, if it is long enough.
func (e *Envelope) decode(b []byte, to []Recipient) error {
	r := bin.NewReader(b)
	if v := r.Byte(); v != version {
		return fmt.Errorf("%w %d", ErrVersion, v)
	}
	e.Kind = Kind(r.Byte())
	flags := r.Uvarint()
	if flags&^knownFlags != 0 {
		return fmt.Errorf("%w: unknown flags %b", ErrVersion, flags)
	}
	e.Confirm = flags&flagConfirm != 0
	e.Remember = flags&flagRemember != 0
	e.Late = flags&flagLate != 0
	e.Released = flags&flagReleased != 0
	e.Moved = flags&flagMoved != 0
	r.Copy(e.ID[:])
	e.Stream = r.Uint64()
	e.From = ident.UserID(r.Shared())
	if n := r.Count(2); n > 0 {
		if n > len(to) {
			to = make([]Recipient, n)
		}
		e.To = to[:n]
		for i := range e.To {
			e.To[i].User, e.To[i].N = ident.UserID(r.Shared()), r.Uvarint()
			if flags&flagAfter != 0 {
				e.To[i].After = Mark{Stream: r.Uint64(), N: r.Uvarint()}
			}
		}
	}
	e.CreatedAt = r.Varint()
	e.Reference = r.Shared()
	if flags&flagTravel != 0 {
		if n := r.Count(1); n > 0 {
			e.Path = make([]string, n)
			for i := range e.Path {
				e.Path[i] = r.Shared()
			}
		}
		e.Home = r.Shared()
		e.Network = r.Uvarint()
	}
	if flags&flagSession != 0 {
		e.Session = r.Uint64()
		e.Connector.Name = r.Shared()
		r.Copy(e.Connector.Incarnation[:])
		e.Features = Features(r.Byte())
		e.Request = r.Uint64()
		e.Count = int(r.Varint())
	}
	e.Frame = r.Bytes()
	if err := r.Close(); err != nil {
		return fmt.Errorf("envelope: %w", err)
	}
	if err := e.validate(); err != nil {
		return fmt.Errorf("envelope: %w", err)
	}
	return nil
}

// validate refuses what no service of ours writes.
func (e *Envelope) validate() error {
	switch e.Kind {
	case KindMessage, KindConfirmation, KindPresence, KindFailure, KindWindows:
		if len(e.Frame) == 0 {
			return fmt.Errorf("%s without a frame", e.Kind)
		}
	case KindLogin, KindLogout, KindFetch:
		if e.Session == 0 {
			return fmt.Errorf("%s without a session", e.Kind)
		}
		if len(e.To) != 1 {
			return fmt.Errorf("%s for %d users", e.Kind, len(e.To))
		}
	case KindClose, KindMissing:
	case KindConnectorDown, KindEpoch:
		return nil
	default:
		return fmt.Errorf("unknown %s", e.Kind)
	}
	if len(e.To) == 0 {
		return fmt.Errorf("%s without a recipient", e.Kind)
	}
	if len(e.Path) > MaxPath {
		return fmt.Errorf("a path of %d domains", len(e.Path))
	}
	if e.Home != "" && !ident.IsDomainName(e.Home) {
		return fmt.Errorf("home: %.80q is not a domain name", e.Home)
	}
	for _, domain := range e.Path {
		if !ident.IsDomainName(domain) {
			return fmt.Errorf("path: %.80q is not a domain name", domain)
		}
	}
	for _, to := range e.To {
		if _, err := ident.ParseUserID(string(to.User)); err != nil {
			return fmt.Errorf("recipient: %w", err)
		}
	}
	return nil
}

// Origin is the domain that accepted the record; empty: this one.
func (e *Envelope) Origin() string {
	if len(e.Path) == 0 {
		return ""
	}
	return e.Path[0]
}

// Replayed says whether the record is a dead letter that an operator has sent again.
func (e *Envelope) Replayed() bool { return e.Late && e.Remember && e.Stream == 0 }

// CameThrough says whether the record has left a domain before.
func (e *Envelope) CameThrough(domain string) bool { return slices.Contains(e.Path, domain) }

// User is the first recipient, for kinds that have just one.
func (e *Envelope) User() ident.UserID { return e.To[0].User }
