// Package delivery is what a lane and a connector say to each other over the
// live plane. A lane sends a Batch to a connector: frames for sessions, each
// numbered d per session. The connector answers with Answers: up to which d it
// has taken, up to which the sockets have proved receipt, and what is gone.
// A lane that changes hands sends an Announcement, which connectors answer with
// their sessions of that lane.
//
// Everything here is at most once and may arrive twice, late or never; the
// numbers and epochs make that harmless.
package delivery

import (
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/internal/bin"
)

// MaxMessageSize is the largest message a batcher builds out of several items,
// in bytes: it fits the 32 KB read buffer of the live plane's client. A single
// larger item travels alone.
const MaxMessageSize = 28 << 10

// ConnectorSubject is where a connector listens for the batches of a lane.
func ConnectorSubject(domain string, c ident.Connector, lane int) string {
	return "conn." + domain + "." + c.Name + "." + c.Incarnation.String() + "." + strconv.Itoa(lane)
}

// LaneSubject is where the owner of a lane listens for answers.
func LaneSubject(domain string, lane int) string { return fmt.Sprintf("lane.%s.%d", domain, lane) }

// FastSubject is where the owner of a lane listens for FAST envelopes, one or several
// in a message: see AppendFast.
func FastSubject(domain string, lane int) string { return fmt.Sprintf("fast.%s.%d", domain, lane) }

// AppendFast appends an encoded envelope to a FAST message.
func AppendFast(dst, envelope []byte) []byte { return bin.AppendString(dst, envelope) }

// NextFast returns the first envelope of a FAST message, which it aliases, and what comes
// behind it.
func NextFast(message []byte) (envelope, rest []byte, err error) {
	size, n := binary.Uvarint(message)
	if n <= 0 || size > uint64(len(message)-n) {
		return nil, nil, fmt.Errorf("FAST message: the length of an envelope, expected at most the %d bytes that follow", len(message))
	}
	message = message[n:]
	return message[:size:size], message[size:], nil
}

// EpochSubject is where all connectors of a domain listen for announcements.
func EpochSubject(domain string) string { return "epoch." + domain }

// Kind says what an item of a batch is. The numbers are on the wire.
type Kind uint8

// The kinds of items.
const (
	KindFrame    Kind = 1 // a frame to be written and proved, numbered
	KindFast     Kind = 2 // a frame to be written, not numbered; Token asks for proof
	KindClose    Kind = 3 // the master closes the socket; numbered, so that it is not lost
	KindLoggedIn Kind = 4 // the lane knows the session; not numbered
)

// Target is one session an item is for.
type Target struct {
	Session uint64
	User    ident.UserID // whom the record names: the connector checks that the session is that user's
	D       uint64       // dense per session from 1; 0 for kinds that are not numbered
}

// Item is one frame, or one instruction, for one or several sessions.
type Item struct {
	Kind    Kind
	Late    bool // newer ones have been delivered before it
	Urgent  bool // a confirmation waits for the proof, or more for the session: do not delay the ping
	ID      ident.MessageID
	Pos     envelope.Position // of the record; of KindLoggedIn the position L of the login, zero with FeaturePush
	Token   uint64            // of KindFast: comes back in Answers.FastProved, 0: no proof wanted; of a frame that completes a fetch: the Request
	Targets []Target
	Frame   []byte
}

// Batch is what a lane sends to one connector in one message.
type Batch struct {
	Lane  int
	Epoch envelope.Position
	Items []Item
}

const version = 1

// AppendHeader appends the beginning of a batch; items follow by Item.Append.
func (b *Batch) AppendHeader(dst []byte) []byte {
	dst = append(dst, version)
	dst = binary.AppendUvarint(dst, uint64(b.Lane))
	return appendPosition(dst, b.Epoch)
}

// Append appends the whole batch.
func (b *Batch) Append(dst []byte) []byte {
	dst = b.AppendHeader(dst)
	for i := range b.Items {
		dst = b.Items[i].Append(dst)
	}
	return dst
}

const (
	flagLate = 1 << iota
	flagUrgent
)

// Append appends the encoding of one item.
func (it *Item) Append(dst []byte) []byte {
	var flags byte
	if it.Late {
		flags |= flagLate
	}
	if it.Urgent {
		flags |= flagUrgent
	}
	dst = append(dst, byte(it.Kind), flags)
	dst = append(dst, it.ID[:]...)
	dst = appendPosition(dst, it.Pos)
	dst = binary.AppendUvarint(dst, it.Token)
	dst = binary.AppendUvarint(dst, uint64(len(it.Targets)))
	for i := range it.Targets {
		t := &it.Targets[i]
		dst = bin.AppendUint64(dst, t.Session)
		dst = bin.AppendString(dst, t.User)
		dst = binary.AppendUvarint(dst, t.D)
	}
	return bin.AppendString(dst, it.Frame)
}

// DecodeBatch reads a batch. Frames alias b. The users of all targets share memory: who
// keeps one for longer than the batch had better clone it.
func DecodeBatch(b []byte) (Batch, error) {
	r := bin.NewReader(b)
	if v := r.Byte(); v != version {
		return Batch{}, fmt.Errorf("batch: unknown version %d", v)
	}
	batch := Batch{Lane: int(uint32(r.Uvarint())), Epoch: readPosition(r)}
	likely := 1 + len(b)/likelyItem
	batch.Items = make([]Item, 0, likely)
	var targets []Target // of several items; a new one is begun when it is full
	var room [1024]byte
	var places [64]int
	names, ends := room[:0], places[:0] // of the users of all targets
	for r.More() {
		batch.Items = append(batch.Items, Item{Kind: Kind(r.Byte())})
		it := &batch.Items[len(batch.Items)-1]
		flags := r.Byte()
		it.Late, it.Urgent = flags&flagLate != 0, flags&flagUrgent != 0
		r.Copy(it.ID[:])
		it.Pos = readPosition(r)
		it.Token = r.Uvarint()
		n := r.Count(10)
		if n > len(targets) {
			targets = make([]Target, max(n, likely))
		}
		it.Targets, targets = targets[:n:n], targets[n:]
		for i := range it.Targets {
			it.Targets[i].Session = r.Uint64()
			names = append(names, r.Bytes()...)
			ends = append(ends, len(names))
			it.Targets[i].D = r.Uvarint()
		}
		it.Frame = r.Bytes()
	}
	if err := r.Close(); err != nil {
		return Batch{}, fmt.Errorf("batch: %w", err)
	}
	users, from := ident.UserID(names), 0
	for i := range batch.Items {
		for j := range batch.Items[i].Targets {
			batch.Items[i].Targets[j].User, from, ends = users[from:ends[0]], ends[0], ends[1:]
		}
	}
	return batch, nil
}

// likelyItem is the usual size of an item, in bytes: as many as that allows are made room for.
const likelyItem = 1024

// Progress is how far one session is: the highest d taken up, in order, and the
// highest d up to which everything is proved to have been received. Gap says
// that a later d came and was refused: send again from Taken+1.
type Progress struct {
	Session uint64
	Taken   uint64
	Proved  uint64
	Gap     bool
}

// Unproved is a delivery that a session has taken and not proved.
type Unproved struct {
	D   uint64
	Pos envelope.Position
	ID  ident.MessageID
}

// SessionState is a session as its connector knows it, for a lane's new owner.
type SessionState struct {
	Progress
	User     ident.UserID
	L        envelope.Position // of its login record; zero with FeaturePush, or while the log has not acknowledged it
	Last     envelope.Position // the highest of the records taken that are not before L; zero: none
	Features envelope.Features
	Unproved []Unproved
}

// Answers is what a connector sends to one lane in one message. Answers for
// another epoch than the lane's own are ignored by it.
type Answers struct {
	Lane       int
	Epoch      envelope.Position
	Connector  ident.Connector
	Progress   []Progress
	Gone       []uint64 // sessions that a batch named and that do not exist
	FastProved []uint64 // tokens
	Join       Join     // with Parts: the answer to an announcement
	Sessions   []SessionState
}

// Join says which part of a connector's whole list of sessions a message holds.
// All parts of one list have the same Serial.
type Join struct {
	Serial uint64
	Part   int // from 0
	Parts  int // 0: the message is no part of a list
}

// Append appends the encoding of a.
func (a *Answers) Append(dst []byte) []byte {
	dst = append(dst, version)
	dst = binary.AppendUvarint(dst, uint64(a.Join.Parts))
	if a.Join.Parts > 0 {
		dst = binary.AppendUvarint(dst, uint64(a.Join.Part))
		dst = bin.AppendUint64(dst, a.Join.Serial)
	}
	dst = binary.AppendUvarint(dst, uint64(a.Lane))
	dst = appendPosition(dst, a.Epoch)
	dst = bin.AppendString(dst, a.Connector.Name)
	dst = append(dst, a.Connector.Incarnation[:]...)
	dst = binary.AppendUvarint(dst, uint64(len(a.Progress)))
	for _, p := range a.Progress {
		dst = appendProgress(dst, p)
	}
	dst = appendUint64s(dst, a.Gone)
	dst = appendUint64s(dst, a.FastProved)
	dst = binary.AppendUvarint(dst, uint64(len(a.Sessions)))
	for i := range a.Sessions {
		dst = a.Sessions[i].append(dst)
	}
	return dst
}

func (s *SessionState) append(dst []byte) []byte {
	dst = appendProgress(dst, s.Progress)
	dst = bin.AppendString(dst, s.User)
	dst = appendPosition(dst, s.L)
	dst = appendPosition(dst, s.Last)
	dst = append(dst, byte(s.Features))
	dst = binary.AppendUvarint(dst, uint64(len(s.Unproved)))
	for _, u := range s.Unproved {
		dst = binary.AppendUvarint(dst, u.D)
		dst = appendPosition(dst, u.Pos)
		dst = append(dst, u.ID[:]...)
	}
	return dst
}

// Parts splits the answer to an announcement into messages of at most about
// maxBytes: more only where one session alone is larger. All get the serial.
func (a *Answers) Parts(serial uint64, maxBytes int) []Answers {
	var lists [][]SessionState
	var scratch []byte
	first, size := 0, 0
	for i := range a.Sessions {
		scratch = a.Sessions[i].append(scratch[:0])
		if size += len(scratch); size > maxBytes && i > first {
			lists = append(lists, a.Sessions[first:i])
			first, size = i, len(scratch)
		}
	}
	lists = append(lists, a.Sessions[first:])
	parts := make([]Answers, len(lists))
	for i, list := range lists {
		parts[i] = *a
		parts[i].Sessions = list
		parts[i].Join = Join{Serial: serial, Part: i, Parts: len(lists)}
	}
	return parts
}

// DecodeAnswers reads answers. Nothing aliases b.
func DecodeAnswers(b []byte) (Answers, error) {
	r := bin.NewReader(b)
	if v := r.Byte(); v != version {
		return Answers{}, fmt.Errorf("answers: unknown version %d", v)
	}
	var a Answers
	if a.Join.Parts = int(uint32(r.Uvarint())); a.Join.Parts > 0 {
		a.Join.Part = int(uint32(r.Uvarint()))
		a.Join.Serial = r.Uint64()
	}
	a.Lane = int(uint32(r.Uvarint()))
	a.Epoch = readPosition(r)
	a.Connector.Name = r.String()
	r.Copy(a.Connector.Incarnation[:])
	a.Progress = make([]Progress, r.Count(11))
	for i := range a.Progress {
		a.Progress[i] = readProgress(r)
	}
	a.Gone = readUint64s(r)
	a.FastProved = readUint64s(r)
	a.Sessions = make([]SessionState, r.Count(18))
	for i := range a.Sessions {
		s := SessionState{Progress: readProgress(r), User: ident.UserID(r.String()), L: readPosition(r), Last: readPosition(r), Features: envelope.Features(r.Byte())}
		s.Unproved = make([]Unproved, r.Count(19))
		for j := range s.Unproved {
			u := Unproved{D: r.Uvarint(), Pos: readPosition(r)}
			r.Copy(u.ID[:])
			s.Unproved[j] = u
		}
		a.Sessions[i] = s
	}
	if err := r.Close(); err != nil {
		return Answers{}, fmt.Errorf("answers: %w", err)
	}
	return a, nil
}

// Announcement says, every second, that a lane has an owner. A connector that
// sees a higher epoch than it knew, or Joining, answers with its sessions.
type Announcement struct {
	Lane    int
	Epoch   envelope.Position
	Joining bool // the owner collects sessions and does not yet deliver
	Full    bool // the lane's backlog nears what the log retains: accept nothing for it
	Lag     int64
	Ask     []ident.Connector // they are there and have not told their sessions: they answer as to Joining
}

const (
	flagJoining = 1 << iota
	flagFull
)

// Append appends the encoding of a.
func (a *Announcement) Append(dst []byte) []byte {
	var flags byte
	if a.Joining {
		flags |= flagJoining
	}
	if a.Full {
		flags |= flagFull
	}
	dst = append(dst, version, flags)
	dst = binary.AppendUvarint(dst, uint64(a.Lane))
	dst = appendPosition(dst, a.Epoch)
	dst = binary.AppendVarint(dst, a.Lag)
	for _, c := range a.Ask {
		dst = bin.AppendString(dst, c.Name)
		dst = append(dst, c.Incarnation[:]...)
	}
	return dst
}

// DecodeAnnouncement reads an announcement.
func DecodeAnnouncement(b []byte) (Announcement, error) {
	r := bin.NewReader(b)
	if v := r.Byte(); v != version {
		return Announcement{}, fmt.Errorf("announcement: unknown version %d", v)
	}
	flags := r.Byte()
	a := Announcement{
		Joining: flags&flagJoining != 0,
		Full:    flags&flagFull != 0,
		Lane:    int(uint32(r.Uvarint())),
		Epoch:   readPosition(r),
		Lag:     r.Varint(),
	}
	for r.More() {
		c := ident.Connector{Name: r.String()}
		r.Copy(c.Incarnation[:])
		a.Ask = append(a.Ask, c)
	}
	if err := r.Close(); err != nil {
		return Announcement{}, fmt.Errorf("announcement: %w", err)
	}
	return a, nil
}

func appendPosition(dst []byte, p envelope.Position) []byte {
	dst = binary.AppendUvarint(dst, uint64(p.Generation))
	return binary.AppendVarint(dst, p.Offset)
}

func readPosition(r *bin.Reader) envelope.Position {
	return envelope.Position{Generation: uint32(r.Uvarint()), Offset: r.Varint()}
}

func appendProgress(dst []byte, p Progress) []byte {
	dst = bin.AppendUint64(dst, p.Session)
	dst = binary.AppendUvarint(dst, p.Taken)
	dst = binary.AppendUvarint(dst, p.Proved)
	var gap byte
	if p.Gap {
		gap = 1
	}
	return append(dst, gap)
}

func readProgress(r *bin.Reader) Progress {
	return Progress{Session: r.Uint64(), Taken: r.Uvarint(), Proved: r.Uvarint(), Gap: r.Byte() != 0}
}

func appendUint64s(dst []byte, list []uint64) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(list)))
	for _, v := range list {
		dst = bin.AppendUint64(dst, v)
	}
	return dst
}

func readUint64s(r *bin.Reader) []uint64 {
	list := make([]uint64, r.Count(8))
	for i := range list {
		list[i] = r.Uint64()
	}
	return list
}
