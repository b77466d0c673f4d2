package verdict

import (
	"slices"

	"github.com/linkerhq/linker/standalone/internal/torture/history"
)

const (
	roleTwin   = history.RoleTwin
	roleMaster = history.RoleMaster

	// offlineTime is how long it may take until the users of a killed connector are
	// announced as gone.
	offlineTime = 11_000_000 // microseconds
	// calmBefore is how long nothing else may have failed before that kill.
	calmBefore = 15_000_000
	// registerTime is how long it may take until everybody can find out where a new
	// socket is: a lease.
	registerTime = 5_000_000
	// announceTime is how old an announcement may be, as long as nothing fails.
	announceTime = 15_000_000
)

// presence is what a master has heard of a user.
type presence struct {
	heard bool
	on    bool
	ids   map[string]bool
}

// vanished is a user whose only socket went with a killed connector.
type vanished struct {
	user  *person
	fault int64 // its number
	at    int64
	heard bool
}

func (c *check) presence(op *history.Op) {
	c.sessionOf(op).got++
	p := c.person(op.About)
	if p.online.ids == nil {
		p.online.ids = map[string]bool{}
	}
	if p.online.ids[op.ID] {
		return // a copy
	}
	p.online.ids[op.ID] = true
	c.report.Counts.Presence++
	about := subject{user: op.About}
	if !c.faults.moved && (p.online.heard && p.online.on == op.Online || !p.online.heard && !op.Online) {
		c.violated(I9, op.At, about, "%s was announced as %s twice on end", op.About, onOrOff(op.Online))
	}
	p.online.heard, p.online.on = true, op.Online
	if op.Online {
		return
	}
	if c.faults.first == 0 && slices.ContainsFunc(p.open, func(s *session) bool { return s.opened < op.At-announceTime }) {
		c.violated(I9, op.At, about, "%s was announced as gone and had a socket all the time", op.About)
	}
	for _, v := range c.faults.vanished {
		if v.user == p && !v.heard {
			v.heard = true
			c.offline.add(op.At - v.at)
		}
	}
}

func onOrOff(on bool) string {
	if on {
		return "connected"
	}
	return "disconnected"
}

// closing compares at the end what the masters know with the sockets that are open.
func (c *check) closing(at int64) {
	for _, id := range sortedIDs(c.people) {
		p := c.people[id]
		if len(c.seen) > 0 && len(p.open) > 0 && !c.seen[id] && p.open[0].opened < at-registerTime {
			c.violated(I9, at, subject{user: id}, "%s has %d sockets, and the system knows of none", id, len(p.open))
		}
		if p.role == roleMaster || p.role == "" || c.faults.moved {
			continue
		}
		if open := len(p.open) > 0; open != p.online.on {
			c.violated(I9, at, subject{user: id}, "at the end %s has %d sockets, and its master last heard that it is %s", id, len(p.open), onOrOff(p.online.on))
		}
	}
}
