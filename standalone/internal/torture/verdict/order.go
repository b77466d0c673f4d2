package verdict

// order knows what has come of each sender to each receiver, in orders that the system
// promises.
//
// Which of two messages goes first is not a matter of their numbers alone: one that
// was refused or not answered is sent again, and what went out before that may rightly
// overtake it. So a message has to come before another one if its last attempt was
// made before the first attempt of the other.
type order struct {
	newest map[stream]*message // first copies: the one whose first attempt was last
	raw    map[stream]*message // the same of all that has come
	fast   map[stream]*message
}

// stream is something within which there is one order.
type stream struct {
	from     *person
	receiver *person  // nil: of a session
	session  *session // nil: of a receiver, over all sessions
	fetched  bool     // without push, what is fetched and what comes by itself are two orders
	sender   int64    // session of the sender, for FAST
}

func newOrder() order {
	return order{newest: map[stream]*message{}, raw: map[stream]*message{}, fast: map[stream]*message{}}
}

// streamOf returns the order to which a message belongs; false: none can be known.
func (o *order) streamOf(m *message, receiver *person, s *session) (stream, bool) {
	switch {
	case s.push && receiver.role != roleTwin:
		return stream{from: m.from, receiver: receiver}, true
	case s.push:
		return stream{from: m.from, session: s}, true
	case m.firstAt > s.opened:
		return stream{from: m.from, session: s}, true
	case m.acceptedAt != 0 && m.acceptedAt < s.asked && m.from.domain == receiver.domain:
		// In another domain it may have been accepted after the login by the domain
		// where that was.
		return stream{from: m.from, session: s, fetched: true}, true
	default:
		return stream{}, false
	}
}

// take notes that a message has come. It says whether anything newer had come before,
// copies counted, and which newer one, if this may not be so: excused are copies and
// what is marked late.
func (o *order) take(m *message, receiver *person, s *session, excused bool) (raw bool, newer *message) {
	key, known := o.streamOf(m, receiver, s)
	if !known {
		return false, nil
	}
	raw = after(o.raw, key, m) != nil
	if excused {
		return raw, nil
	}
	return raw, after(o.newest, key, m)
}

// after returns what had come before m although m had to come first, and notes m.
func after(newest map[stream]*message, key stream, m *message) *message {
	before := newest[key]
	if before == nil || m.first > before.first {
		newest[key] = m
	}
	if before != nil && before.first > m.last && !m.givenUp {
		return before
	}
	return nil
}

// takeFast notes that a FAST message has come, and returns the number of a newer one
// that had come before; 0: none.
func (o *order) takeFast(m *message, s *session) int64 {
	key := stream{from: m.from, session: s, sender: m.session}
	before := o.fast[key]
	if before != nil && before.n > m.n {
		return before.n
	}
	o.fast[key] = m
	return 0
}

// forget drops what is known of a session that has ended.
func (o *order) forget(s *session) {
	for _, newest := range []map[stream]*message{o.newest, o.raw, o.fast} {
		for key := range newest {
			if key.session == s {
				delete(newest, key)
			}
		}
	}
}
