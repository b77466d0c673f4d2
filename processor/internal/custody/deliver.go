package custody

import (
	"slices"

	"github.com/linkerhq/linker/pkg/delivery"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/pkg/trace"
	"github.com/linkerhq/linker/pkg/wire"
)

// room says whether one more record may go out to the session.
func (sn *session) room() bool {
	bytes, records := sn.window()
	return sn.bytes < bytes && sn.flights.len() < records
}

// halfEmpty says whether it is worth to read more rows for the session.
func (sn *session) halfEmpty() bool {
	bytes, records := sn.window()
	return sn.bytes <= bytes/2 && sn.flights.len() <= records/2
}

// window is how much may be under way.
func (sn *session) window() (bytes, records int) {
	if sn.conn != 0 {
		return RoadBytes, RoadRecords
	}
	return WindowBytes, WindowRecords
}

// roomiest returns the session of the target with the least in flight that has
// room, nil if none has.
func (t *target) roomiest() *session {
	if sn := t.leastBusy(); sn != nil && sn.room() {
		return sn
	}
	return nil
}

// leastBusy returns the session with the least in flight.
func (t *target) leastBusy() *session {
	switch len(t.sessions) {
	case 0:
		return nil
	case 1:
		return t.sessions[0]
	}
	return slices.MinFunc(t.sessions, func(a, b *session) int { return a.flights.len() - b.flights.len() })
}

// send puts one message, or instruction, in flight to a session.
func (s *State) send(sn *session, it *item, fetched bool, fx *Effects) {
	sn.d++
	if sn.flights.len() == 0 {
		sn.heard, sn.pause = s.now, 0
	}
	s.takeOff(sn, flight{d: sn.d, item: it, fetch: fetched, since: s.now})
	if fetched {
		s.note(trace.Fetched, it, sn)
	} else {
		s.note(trace.Sent, it, sn)
	}
	if sn.conn != 0 {
		fx.Hand = append(fx.Hand, Hand{Conn: sn.conn, Channel: sn.id, N: sn.d, Record: s.outbound(it.env)})
		return
	}
	s.give(sn, it, sn.d, fx)
}

// takeOff puts a flight behind the others of its session.
func (s *State) takeOff(sn *session, f flight) {
	sn.flights.push(f)
	sn.bytes += f.item.size
	if f.item.flights == nil {
		f.item.flights = f.item.first[:0]
	}
	f.item.flights = append(f.item.flights, sn)
	s.occupied(sn)
}

// landed notes that a session has an item in flight no more.
func (it *item) landed(sn *session) {
	if len(it.flights) == 1 && it.flights[0] == sn {
		it.flights[0] = nil
		it.flights = it.flights[:0]
		return
	}
	it.flights = slices.DeleteFunc(it.flights, func(other *session) bool { return other == sn })
}

// give adds a delivery of an item to the effects, under a number of the session.
func (s *State) give(sn *session, it *item, d uint64, fx *Effects) {
	to := delivery.Target{Session: sn.id, User: sn.user.id, D: d}
	if it.control {
		fx.deliver(sn.connector, it.instruction, to)
		return
	}
	frame := delivery.Item{Kind: delivery.KindFrame, Pos: it.pos, ID: it.id}
	if it.env != nil {
		// When half of the window is full, what comes next waits for the proof, too.
		frame.Urgent = it.confirm == unconfirmed || !sn.halfEmpty()
		frame.Frame, frame.Late = it.env.Frame, it.env.Late
	}
	fx.deliver(sn.connector, &frame, to)
}

// instruct puts something in flight that is not a message: the end of a fetch, a
// hint, the order to close. Nothing stores it; it goes with its session.
func (s *State) instruct(sn *session, d delivery.Item, fx *Effects) {
	it := &item{user: sn.user, control: true, size: len(d.Frame) + overhead, instruction: &d, confirm: confirmed}
	s.send(sn, it, false, fx)
}

// resend repeats what the connector has not taken, and asks again about what it
// has taken and the socket has not proved.
func (s *State) resend(sn *session, fx *Effects) {
	if sn.flights.len() == 0 {
		return
	}
	wait := resendTaken
	if sn.taken < sn.d {
		wait = resendUntaken
	}
	if s.now.Sub(sn.heard) < max(wait, sn.pause) {
		return
	}
	sn.heard = s.now
	sn.pause = min(max(wait, 2*sn.pause), resendMost)
	s.metrics.resends.Inc()
	s.repeat(sn, fx)
}

// repeat sends again, under the same numbers, all that was not taken; if all
// was, the last delivery, whose answer says how far the session is.
func (s *State) repeat(sn *session, fx *Effects) {
	flights := sn.flights.all()
	for i := range flights {
		if f := &flights[i]; f.d > sn.taken || i == len(flights)-1 {
			s.give(sn, f.item, f.d, fx)
		}
	}
}

// answered takes what a connector says of its sessions.
func (s *State) answered(a *delivery.Answers, fx *Effects) {
	if a.Epoch != s.pos(s.cfg.Epoch) {
		return
	}
	if a.Join.Parts > 0 {
		s.joined(a, fx)
	}
	from := s.connectors[a.Connector]
	for i := range a.Progress {
		p := &a.Progress[i]
		if sn := s.sessions[p.Session]; sn != nil && sn.target != nil && sn.connector == from {
			s.progress(sn, p, fx)
		}
	}
	for _, id := range a.Gone {
		if sn := s.sessions[id]; sn != nil && sn.connector == from {
			s.endSession(sn, fx)
			s.left(sn, fx)
		}
	}
	for _, token := range a.FastProved {
		w, found := s.fast[token]
		if !found {
			w, found = s.fastOld[token]
		}
		if found {
			delete(s.fast, token)
			delete(s.fastOld, token)
			fx.Produce = append(fx.Produce, Produce{Envelope: s.confirmation(w.from, w.to, w.id, w.reference, w.origin)})
		}
	}
}

// progress moves a session's numbers forward.
func (s *State) progress(sn *session, p *delivery.Progress, fx *Effects) {
	if p.Proved > p.Taken {
		return // no connector of ours says so
	}
	if p.Taken > sn.d {
		// It counts from before this owner's time: its own numbers are needed.
		s.endSession(sn, fx)
		sn.gone = false
		s.unadopted[sn] = true
		delete(s.heard, sn.connector.id)
		return
	}
	if p.Taken > sn.taken || p.Proved > sn.proved {
		sn.heard, sn.pause = s.now, 0
	}
	n := s.advance(sn, p.Taken, p.Proved, fx)
	if p.Gap && sn.taken < sn.d {
		s.repeat(sn, fx)
	}
	if n > 0 {
		s.serveFetch(sn, fx)
	}
}

// advance notes how far a session is and returns how many deliveries have landed.
func (s *State) advance(sn *session, taken, proved uint64, fx *Effects) int {
	sn.taken, sn.proved = max(sn.taken, taken), max(sn.proved, proved)
	n := 0
	for sn.flights.len() > 0 && sn.flights.all()[0].d <= sn.proved {
		it := sn.flights.all()[0].item
		sn.flights.drop(1)
		sn.bytes -= it.size
		s.land(sn, it, fx)
		n++
	}
	if n > 0 && sn.target.behind {
		s.catching[sn.target] = true
	}
	return n
}

// land notes that a session has proved receipt of a message.
func (s *State) land(sn *session, it *item, fx *Effects) {
	it.landed(sn)
	if it.control {
		return
	}
	s.metrics.proofs.Inc()
	it.proved = true
	if sn.conn == 0 {
		s.note(trace.Proved, it, sn)
	}
	if it.env == nil {
		s.readForProof(it, fx)
		return
	}
	s.finish(it, fx)
}

// finish does what proof of receipt allows: first the confirmation, and when the
// log has that, the end of custody — unless another target is still owed a copy.
func (s *State) finish(it *item, fx *Effects) {
	switch it.confirm {
	case unconfirmed:
		it.confirm = confirming
		fx.Produce = append(fx.Produce, Produce{
			Envelope: s.confirmation(it.env.From, it.user.id, it.env.ID, it.env.Reference, it.env.Origin()),
			Token:    Token{Confirms: it.pos, User: it.user.id},
		})
		return
	case confirming:
		return
	}
	if s.owedToOthers(it) {
		if it.stored && !it.marked {
			it.marked, it.user.marked = true, true
			s.touch(it.key())
			fx.Mark = append(fx.Mark, it.key())
		}
		s.release(it)
		return
	}
	switch {
	case it.stored && !it.deleted:
		it.deleted, it.leaving = true, fx.round
		s.metrics.landed(it)
		s.note(it.leaves(), it, nil)
		s.touch(it.key())
		s.removed(it.user.id, it.size)
		fx.Delete = append(fx.Delete, it.key())
	case it.inLog && !it.stored && !it.storing:
		s.metrics.landed(it)
		if it.user.domain != "" { // of a session the proof says it all
			s.note(trace.HandedOver, it, nil)
		}
		s.settle(it)
	}
	s.release(it)
}

// produced notes that the log has taken a confirmation or presence event.
func (s *State) produced(t Token, fx *Effects) {
	if t.Passed != 0 {
		s.log.settle(t.Passed - 1)
		return
	}
	if t.Stands != (mailbox.Key{}) {
		s.movedAway(t.Stands, fx)
		return
	}
	u := s.users[t.User]
	if u == nil {
		return
	}
	if t.Presence != 0 {
		s.presenceProduced(u, t.Presence, fx)
		return
	}
	if it := u.items.find(t.Confirms); it != nil && it.confirm == confirming {
		it.confirm = confirmed
		s.note(trace.Confirmed, it, nil)
		s.finish(it, fx)
	}
}

// confirmation is the record that tells the sender of a message that it was
// received. Its id follows from the message's, so that the sender's lane knows
// a second one.
func (s *State) confirmation(sender, receiver ident.UserID, id ident.MessageID, reference, origin string) envelope.Envelope {
	e := envelope.Envelope{
		Kind:      envelope.KindConfirmation,
		Remember:  true,
		ID:        ident.ConfirmationID(id),
		From:      receiver,
		To:        []envelope.Recipient{{User: sender}},
		Home:      origin,
		CreatedAt: s.now.UnixMilli(),
	}
	e.Frame = wire.AppendConfirmation(make([]byte, 0, confirmationSize+len(reference)), reference, wire.Stamp{ID: e.ID, CreatedAt: e.CreatedAt})
	return e
}

// confirmationSize is more than a confirmation has beside its reference, in bytes.
const confirmationSize = 160

// owedToOthers says whether a target still has to get the message.
func (s *State) owedToOthers(it *item) bool {
	if it.user.one && it.proved {
		return false
	}
	for _, t := range it.user.targets {
		if it.pos.Before(t.l) {
			continue
		}
		if !t.sent(it.pos) {
			return true
		}
		for _, sn := range it.flights {
			if sn.target == t {
				return true
			}
		}
	}
	return false
}

// store asks the mailbox to take custody.
func (s *State) store(it *item, fx *Effects) {
	if it.storing || it.stored || it.env == nil || !s.admit(it, fx) {
		return
	}
	it.storing = true
	it.user.storing++
	if it.proved && it.confirm == confirmed {
		it.marked, it.user.marked = true, true
	}
	fx.Put = append(fx.Put, mailbox.Row{
		To:     string(it.user.id),
		Pos:    it.pos,
		ID:     it.id,
		Lane:   s.cfg.Lane,
		Proved: it.marked,
		Stored: s.now.Unix(),
		Record: it.record(),
	})
}

// record encodes the envelope for this one receiver.
func (it *item) record() []byte {
	e := *it.env
	for i := range e.To {
		if e.To[i].User == it.user.id {
			e.To = e.To[i : i+1 : i+1]
			break
		}
	}
	return e.Encode()
}

func (it *item) key() mailbox.Key {
	return mailbox.Key{To: string(it.user.id), Pos: it.pos, ID: it.id}
}

// rowsStored notes that the mailbox has custody.
func (s *State) rowsStored(keys []mailbox.Key, fx *Effects) {
	for _, k := range keys {
		if s.heldStored(k, fx) {
			continue
		}
		u := s.users[ident.UserID(k.To)]
		if u == nil {
			continue
		}
		s.lookForMoved(u)
		u.storing--
		u.stored++
		for _, t := range u.targets {
			if t.behind {
				s.catching[t] = true
			}
		}
		it := u.items.find(k.Pos)
		if it == nil {
			continue
		}
		it.storing, it.stored = false, true
		s.note(trace.Stored, it, nil)
		s.settle(it)
		s.metrics.stored.Inc()
		if it.proved {
			s.finish(it, fx)
		}
		s.release(it)
		s.forget(u)
		for _, t := range u.targets {
			for _, sn := range t.sessions {
				s.serveFetch(sn, fx)
			}
		}
	}
}
