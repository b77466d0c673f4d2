package custody

import (
	"slices"
	"time"

	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/topology"
)

// pending are records behind one that was routed by a newer description of the network
// than this lane knows: they wait for it, in order.
type pending struct {
	records []RecordRead
	bytes   int
	since   time.Time // when the first began to wait
	gaveUp  uint64    // no record waits for this version, or one before it
	again   time.Time // no record waits at all before it
}

func (p *pending) add(r *RecordRead, now time.Time) {
	if len(p.records) == 0 {
		p.since = now
	}
	p.records = append(p.records, *r)
	p.bytes += r.size()
}

func (r *RecordRead) size() int {
	if r.Envelope == nil {
		return len(r.Raw)
	}
	return size(r.Envelope)
}

// tooNew says whether a record was routed by a description of the network that this
// lane should wait for.
func (s *State) tooNew(r *RecordRead) bool {
	return r.Envelope != nil && !r.Fill && r.Envelope.Network > s.pending.gaveUp && r.Envelope.Network > s.network.Version && !s.now.Before(s.pending.again)
}

// resume goes on with records that have waited for a newer network, which is there now,
// or does not come.
func (s *State) resume(fx *Effects) {
	p := &s.pending
	for len(p.records) > 0 {
		r := p.records[0]
		if s.tooNew(&r) {
			if s.now.Sub(p.since) < NetworkWait {
				return
			}
			p.gaveUp, p.again = r.Envelope.Network, s.now.Add(waitAgain)
		}
		p.records[0] = RecordRead{}
		p.records = p.records[1:]
		p.bytes -= r.size()
		s.resuming = r.Offset
		s.handle(&r, fx)
		s.resuming = noOffset
	}
	p.records = nil
}

// former is a description of the network that was in force until a time.
type former struct {
	network *topology.Snapshot
	until   time.Time
}

const (
	maxFormer = 16        // descriptions that are remembered at most,
	formerFor = time.Hour // and for how long
)

// networkChanged follows the network.
func (s *State) networkChanged(network *topology.Snapshot, fx *Effects) {
	s.described++
	if s.network == nil || network.SameNetwork(s.network) {
		s.network = network
		s.resume(fx)
		return
	}
	s.former = append(s.former, former{network: s.network, until: s.now})
	for len(s.former) > maxFormer || s.now.Sub(s.former[0].until) > formerFor {
		s.former = s.former[1:]
	}
	s.network = network
	clear(s.arrived)
	s.moving.begin(network.Version)
	s.resume(fx)
}

// movedFrom says whether a user was at home in another domain before, as far as this owner
// knows.
func (s *State) movedFrom(user ident.UserID, domain string) bool {
	return slices.ContainsFunc(s.former, func(f former) bool { return f.network.HomeOf(user, s.cfg.Domain) == domain })
}

// arriving says whether a user has moved here so lately that what waited at its former
// home, and comes first, may not be here yet.
func (s *State) arriving(user ident.UserID) bool {
	for _, f := range s.former {
		if home := f.network.HomeOf(user, s.cfg.Domain); home != s.cfg.Domain && s.now.Sub(f.until) < arrivingFor && !s.arrived[arrival{user, home}] {
			return true
		}
	}
	return false
}

// arrival is a user of whom a former home has sent all it had.
type arrival struct {
	user ident.UserID
	from string
}
