package custody

import (
	"encoding/binary"
	"strconv"
	"strings"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/pkg/trace"
	"github.com/linkerhq/linker/pkg/wire"
)

// Another domain is a target like a session: live over the channel that its road takes
// now, or behind in the mailbox of that destination. One mailbox belongs to one lane,
// so that what is under way keeps the order of the lane.
const roadPrefix = "link/"

func (s *State) roadName(domain string) ident.UserID {
	return ident.UserID(RoadTarget(domain, s.cfg.Lane))
}

// RoadTarget names the mailbox of what waits in a lane for the road to another domain.
func RoadTarget(domain string, lane int) string {
	return roadPrefix + domain + "/" + strconv.Itoa(lane)
}

// isRoad says whether a mailbox is that of another domain.
func isRoad(target string) bool { return strings.HasPrefix(target, roadPrefix) }

// roadDomain returns the domain of such a mailbox.
func roadDomain(target string) string {
	domain, _, _ := strings.Cut(strings.TrimPrefix(target, roadPrefix), "/")
	return domain
}

// rowID is the id of a row that is not a message for a user: no two records of a lane
// have the same, whatever messages they carry.
func rowID(pos envelope.Position) ident.MessageID {
	var id ident.MessageID
	binary.BigEndian.PutUint32(id[:], pos.Generation)
	binary.BigEndian.PutUint64(id[8:], uint64(pos.Offset))
	return id
}

// road returns another domain as a target.
func (s *State) road(domain string) *user {
	u := s.roads[domain]
	if u == nil {
		u = s.user(s.roadName(domain))
		u.domain, u.marked = domain, false
		s.roads[domain] = u
	}
	return u
}

// share is the receivers of a record in one other domain.
type share struct {
	domain string
	to     []envelope.Recipient
}

func addShare(shares []share, domain string, to envelope.Recipient) []share {
	for i := range shares {
		if shares[i].domain == domain {
			shares[i].to = append(shares[i].to, to)
			return shares
		}
	}
	return append(shares, share{domain: domain, to: []envelope.Recipient{to}})
}

// transit takes custody of a record for receivers in another domain.
func (s *State) transit(offset int64, e *envelope.Envelope, sh share, fx *Effects) {
	one := *e
	one.To, one.Released = sh.to, false
	for i := range one.To {
		one.To[i].After = s.follow(offset, e, one.To[i])
	}
	if e.Kind == envelope.KindWindows && len(e.Path) == 0 {
		if e.Network < s.moving.version { // the user has moved again since, and what it has taken is told anew
			s.log.settle(offset)
			return
		}
		one.Frame = s.present(e)
	}
	s.metrics.taken.Inc()
	u := s.road(sh.domain)
	it := &item{user: u, pos: s.pos(offset), env: &one, size: size(&one), taken: s.now, inLog: true, confirm: confirmed}
	it.id = rowID(it.pos)
	s.note(trace.Taken, it, nil)
	s.hold(it)
	s.logged += it.size
	if len(one.Path) >= envelope.MaxPath {
		s.deadLetter(it, wire.CodeHopsExhausted, "the message has come through too many domains on its way to "+sh.domain, fx)
		return
	}
	if one.CameThrough(s.cfg.Domain) && !s.pauses(u) {
		// Domains do not agree about the roads yet.
		u.paused = s.now.Sub(s.begun) + againAfter
	}
	if s.pauses(u) {
		for _, t := range u.targets {
			s.setBehind(t, true)
			s.catching[t] = true
		}
	}
	s.wait(it)
	s.offer(it, fx)
}

// follow notes a record that begins its way to another domain here, and returns what
// comes before it if it is the first of its stream. What has waited for a user who has
// moved is not taken here any more: its new home takes it.
func (s *State) follow(offset int64, e *envelope.Envelope, to envelope.Recipient) envelope.Mark {
	if e.Moved && e.Stream != 0 {
		s.windows.PutBack(to.User, e.Stream, to.N, offset)
	}
	if e.Stream == 0 || len(e.Path) > 0 || e.Moved || e.Kind != envelope.KindMessage {
		return to.After
	}
	stream, n := s.windows.Follow(e.From, to.User, e.Stream, to.N, offset, s.now)
	return envelope.Mark{Stream: stream, N: n}
}

// passOn writes a record into the lane of its receiver, who is at home here, but was not
// when the record was written.
func (s *State) passOn(offset int64, e *envelope.Envelope, to envelope.Recipient, fx *Effects) {
	s.noteRecord(trace.Moved, offset, e, to.User)
	one := *e
	one.To = []envelope.Recipient{to}
	fx.Produce = append(fx.Produce, Produce{Envelope: one, Token: Token{Passed: offset + 1}})
}

// outbound encodes a record for the next domain.
func (s *State) outbound(e *envelope.Envelope) []byte {
	one := *e
	one.Network = max(e.Network, s.network.Version)
	return one.Encode()
}

// roadsChanged ends the channels whose road is another one now, and opens new ones.
// What was under way is sent again over these: the receivers' lanes know what they
// have taken.
func (s *State) roadsChanged(ways map[string]Road, fx *Effects) {
	s.ways = ways
	for domain, u := range s.roads {
		way := ways[domain]
		for _, t := range u.targets {
			if sn := t.sessions[0]; sn.conn != way.Conn {
				delete(s.channels, sn.id)
				fx.Leave = append(fx.Leave, Leave{Conn: sn.conn, Channel: sn.id})
				s.endSession(sn, fx)
			}
		}
	}
	for domain, way := range ways {
		u := s.road(domain)
		if len(u.targets) > 0 {
			continue
		}
		s.serial++
		sn := &session{id: s.cfg.Channels + s.serial, user: u, conn: way.Conn, features: envelope.FeaturePush, heard: s.now}
		s.channels[sn.id] = sn
		s.attach(sn, envelope.Position{}, fx)
		if !s.usage(u).known { // for those who watch how much waits
			s.askUsage(u.id, s.usage(u), fx)
		}
	}
}

// handedOver takes what a neighbour says its log has.
func (s *State) handedOver(e *HandedOver, fx *Effects) {
	if sn := s.channels[e.Channel]; sn != nil && sn.target != nil && e.UpTo <= sn.d {
		s.advance(sn, e.UpTo, e.UpTo, fx)
	}
}

// refusedByNeighbour makes a dead letter of a message that a neighbour will never take.
// Windows are no message: of a user who has never been at home there they say nothing.
func (s *State) refusedByNeighbour(e *Refused, fx *Effects) {
	sn := s.channels[e.Channel]
	if sn == nil {
		return
	}
	for _, f := range sn.flights.all() {
		if f.d == e.N && f.item.env != nil && f.item.env.Kind.Deliverable() {
			s.deadLetter(f.item, wire.Code(e.Code), "the next domain on the way to "+sn.user.domain+" refuses the message", fx)
		}
	}
}

// handFast sends a FAST record on its way to another domain, if there is a road now.
func (s *State) handFast(e *envelope.Envelope, domain string, fx *Effects) bool {
	way, open := s.ways[domain]
	if !open || len(e.Path) >= envelope.MaxPath {
		return false
	}
	fx.HandFast = append(fx.HandFast, HandFast{Conn: way.Conn, Record: e.Encode()})
	return true
}

// Waiting returns how many messages, and how many bytes of them, wait in the mailbox of
// each other domain, as far as it is known.
func (s *State) Waiting() map[string]mailbox.Usage {
	list := map[string]mailbox.Usage{}
	for id, waits := range s.roadUsage { // a road may be forgotten, what waits for it may not
		if waits.known {
			list[roadDomain(string(id))] = mailbox.Usage{Rows: waits.rows, Bytes: waits.bytes}
		}
	}
	return list
}
