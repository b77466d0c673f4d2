package tracing

import (
	"cmp"
	"slices"
	"time"

	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/trace"
)

// state says where a message is. The list is closed.
type state string

const (
	stateDelivered state = "delivered"          // a session of the receiver has proved receipt
	stateMailbox   state = "waiting in mailbox" // of the receiver's home
	stateHeld      state = "held"               // it waits for others of its sender, which it has overtaken
	stateRoad      state = "waiting for road"   // in the mailbox of a domain before its receiver's home
	stateOnTheWay  state = "on the way"         // as far as is known it was being worked on last
	stateDead      state = "dead"               // among the dead letters
	stateRefused   state = "refused"            // it was never accepted, and its sender was told
	stateUnknown   state = "unknown"            // it was stored, and is not there any more
)

// whereabouts is where a message is for one of its receivers.
type whereabouts struct {
	User    string `json:"user,omitempty"`
	Users   int    `json:"users,omitempty"` // how many it is about, where they are not known by name
	State   state  `json:"state"`
	Domain  string `json:"domain"`
	Towards string `json:"towards,omitempty"` // the domain whose road it waits for, or takes
	Since   string `json:"since,omitempty"`
	Reason  string `json:"reason,omitempty"` // of dead and refused
}

// story is what is known about one receiver.
type story struct {
	proved, dead, refused, stored, held *trace.Event
	domains                             map[string]*chapter
	found                               []trace.Found
}

// chapter is what one domain has done.
type chapter struct {
	last   *trace.Event
	handed bool // to another domain, and it has not come back
}

// where works out where a message is. The events are sorted by time; the clocks of domains
// may differ, so that what is certain counts before what is late.
func where(r *trace.Report) []whereabouts {
	stories := map[ident.UserID]*story{}
	of := func(user ident.UserID) *story {
		if stories[user] == nil {
			stories[user] = &story{domains: map[string]*chapter{}}
		}
		return stories[user]
	}
	for i := range r.Events {
		if e := &r.Events[i]; e.User != "" {
			of(e.User).note(e)
		}
	}
	list := []whereabouts{}
	for _, f := range r.Found {
		if f.User != "" {
			of(f.User).found = append(of(f.User).found, f)
			continue
		}
		list = append(list, waits(&f))
	}
	for user, s := range stories {
		w := s.where(r.Missing)
		w.User = string(user)
		list = append(list, w)
	}
	list = append(list, groupsOnTheWay(r)...)
	slices.SortFunc(list, compareWhereabouts)
	return list
}

// note adds an event, which is later than those before.
func (s *story) note(e *trace.Event) {
	c := s.domains[e.Place.Domain]
	if c == nil {
		c = &chapter{}
		s.domains[e.Place.Domain] = c
	}
	switch e.Kind {
	case trace.Proved, trace.Removed, trace.Confirmed:
		if s.proved == nil {
			s.proved = e
		}
	case trace.Dead:
		s.dead = e
	case trace.Refused:
		s.refused = e
	case trace.Stored:
		s.stored = e
	case trace.Held:
		s.held = e
	case trace.Released:
		s.held = nil
	case trace.HandedOver:
		c.handed = true
	case trace.Accepted, trace.Received, trace.Taken:
		c.handed, s.dead = false, nil // it has come, perhaps once more
	case trace.Duplicate:
		if c.last != nil {
			return // a copy says nothing about where it is
		}
	case trace.Reached, trace.Late, trace.Sent, trace.Fetched, trace.Returned, trace.Moved:
	}
	c.last = e
}

// last is the latest event in a domain that has not handed the message over; if all have,
// the latest one.
func (s *story) last() *trace.Event {
	var last, handed *trace.Event
	for _, c := range s.domains {
		switch {
		case c.handed && (handed == nil || handed.At.Before(c.last.At)):
			handed = c.last
		case !c.handed && (last == nil || last.At.Before(c.last.At)):
			last = c.last
		}
	}
	return cmp.Or(last, handed)
}

// where says where the message is; missing are those who could not say anything, mailboxes
// among them.
func (s *story) where(missing []string) whereabouts {
	switch last := s.last(); {
	case s.proved != nil:
		return at(stateDelivered, s.proved)
	case len(s.found) > 0:
		return s.waiting()
	case s.dead != nil:
		return at(stateDead, s.dead)
	case last.Kind == trace.Refused:
		return at(stateRefused, s.refused)
	case s.held != nil:
		return at(stateHeld, s.held)
	case last.Kind == trace.Duplicate:
		return at(stateUnknown, last)
	case s.stored == nil || s.domains[s.stored.Place.Domain].handed:
		return at(stateOnTheWay, last)
	case !slices.Contains(missing, s.stored.Place.Domain+"/mailbox"):
		return at(stateUnknown, last)
	case s.stored.Road:
		return at(stateRoad, s.stored)
	default:
		return at(stateMailbox, s.stored)
	}
}

// waiting says where the message was found. If it is known when it came there, that is more
// exact than what the mailbox says.
func (s *story) waiting() whereabouts {
	f := s.mostWanted()
	w := waits(f)
	if s.stored != nil && s.stored.Place.Domain == f.Domain && (f.Wait == trace.InMailbox || f.Wait == trace.OnRoad) {
		w.Since = instant(s.stored.At)
	}
	return w
}

// mostWanted is where the message waits: at home rather than before, and anywhere rather
// than among the dead letters, from where it may have been sent again.
func (s *story) mostWanted() *trace.Found {
	best := &s.found[0]
	for i := range s.found {
		if f := &s.found[i]; f.Wait < best.Wait {
			best = f
		}
	}
	return best
}

func at(st state, e *trace.Event) whereabouts {
	w := whereabouts{State: st, Domain: e.Place.Domain, Since: instant(e.At), Reason: e.Reason}
	if e.Road {
		w.Towards = e.Peer
	}
	return w
}

// waits describes what was found.
func waits(f *trace.Found) whereabouts {
	w := whereabouts{
		User: string(f.User), Users: f.Users, State: stateMailbox, Domain: f.Domain, Towards: f.Towards, Since: instant(time.Unix(f.Since, 0)),
		Reason: f.Reason,
	}
	switch {
	case f.Wait == trace.HeldBack:
		w.State = stateHeld
	case f.Wait == trace.OnRoad:
		w.State = stateRoad
	case f.Wait == trace.Buried:
		w.State = stateDead
	case f.Proved:
		w.State = stateDelivered
	}
	return w
}

// groupsOnTheWay are records for several receivers of another domain from which nothing was
// heard.
func groupsOnTheWay(r *trace.Report) []whereabouts {
	var list []whereabouts
	for i := range r.Events {
		e := &r.Events[i]
		if e.User != "" || !e.Road || e.Kind == trace.Refused ||
			slices.ContainsFunc(r.Events, func(other trace.Event) bool { return other.Place.Domain == e.Peer }) ||
			slices.ContainsFunc(r.Found, func(f trace.Found) bool { return f.Wait == trace.OnRoad && f.Towards == e.Peer }) {
			continue
		}
		w := at(stateOnTheWay, e)
		w.Users = e.Users
		// The last one counts.
		list = append(slices.DeleteFunc(list, func(other whereabouts) bool { return other.Towards == w.Towards }), w)
	}
	return list
}
