package linkport

import (
	"time"

	"github.com/linkerhq/linker/pkg/link"
	"github.com/linkerhq/linker/pkg/linkstate"
)

// heardInside takes what a service of this domain says of links.
func (s *service) heardInside(data []byte) {
	entries, err := linkstate.Decode(data)
	if err != nil {
		s.refuseStates("this domain", statesUndecodable)
		return
	}
	s.tell(nil, s.state.Merge(entries, time.Now()))
}

// heardOutside takes what a neighbour says of links, its own and others'. Of our
// own domain's it may repeat what the speakers have said that we know; it cannot
// make up new ones.
func (s *service) heardOutside(from *peer, data []byte) {
	entries, err := linkstate.Decode(data)
	if err != nil {
		s.refuseStates(from.name, statesUndecodable)
		return
	}
	news := s.state.Merge(s.believable(from, entries), time.Now())
	if len(news) == 0 {
		return
	}
	subject := linkstate.StatesSubject(s.port.cfg.Domain)
	for _, part := range linkstate.Batches(news) {
		// What is lost here comes again with the speaker's next entry.
		_ = s.to.Plane.Publish(subject, part)
	}
	s.tell(from, news)
}

// believable leaves out the entries of our own domain, of which we hear inside, and what
// is said of domains that the network does not have.
func (s *service) believable(from *peer, entries []linkstate.Entry) []linkstate.Entry {
	var ours map[uint64]bool
	kept := entries[:0]
	for _, e := range entries {
		if e.Domain == s.port.cfg.Domain {
			if ours == nil {
				ours = s.speakers()
			}
			if !ours[e.Speaker] {
				s.refuseStates(from.name, statesStranger)
			}
			continue
		}
		kept = append(kept, e)
	}
	network := s.to.Network.Current()
	if network == nil {
		return nil // they are repeated
	}
	return linkstate.Within(kept, func(domain string) bool { _, is := network.Domain(domain); return is })
}

// speakers are the ones of our own domain that we know.
func (s *service) speakers() map[uint64]bool {
	ours := make(map[uint64]bool)
	for _, e := range s.state.All(time.Now()) {
		if e.Domain == s.port.cfg.Domain {
			ours[e.Speaker] = true
		}
	}
	return ours
}

// tell passes news on to all neighbours but the one that it came from.
func (s *service) tell(from *peer, news []linkstate.Entry) {
	if len(news) == 0 {
		return
	}
	messages := linkstate.Batches(news)
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := range s.peers {
		if p != from {
			p.say(messages)
		}
	}
}

// introduce tells a new neighbour everything that is known.
func (p *peer) introduce() { p.say(linkstate.Batches(p.s.state.All(time.Now()))) }

func (p *peer) say(messages [][]byte) {
	for _, m := range messages {
		p.conn.Send(link.States{Entries: m})
	}
}

func (s *service) refuseStates(from, why string) {
	s.port.metrics.refusedStates[why].Inc()
	if why == statesStranger {
		return // one that has just begun or ended: neighbours hear of it before or after us
	}
	if s.port.lines.refusedStates.Due() {
		s.port.cfg.Log.Warn("states of links refused", "from", from, "reason", why)
	}
}
