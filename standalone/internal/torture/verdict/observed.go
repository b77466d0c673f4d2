package verdict

import (
	"slices"

	"github.com/linkerhq/linker/standalone/internal/torture/history"
)

// lane names a part of a domain's log.
type lane struct {
	domain string
	number int
}

// observed judges what was seen of the system itself.
func (c *check) observed(op *history.Op) {
	switch op.Kind {
	case history.KindProcess:
		switch op.Process.When {
		case history.AtWarm:
			c.warm[op.Process.Name] = *op.Process
		case history.AtEnd:
			c.end[op.Process.Name] = *op.Process
		default:
		}
	case history.KindMailbox:
		c.mailbox(op)
	case history.KindDead:
		c.dead = append(c.dead, *op)
	case history.KindWhereabouts:
		c.seen[op.User] = true
		if open := int64(len(c.person(op.User).open)); open != op.Count {
			c.violated(I9, op.At, subject{user: op.User}, "%s has %d sockets, and the system knows of %d", op.User, open, op.Count)
		}
	case history.KindOffset:
		c.offset(op)
	case history.KindLog:
		c.violated(I14, op.At, subject{}, "the log of %s has a %s: %s", op.Name, op.Code, op.Note)
	default:
	}
}

func (c *check) mailbox(op *history.Op) {
	m := op.Mailbox
	if m.Rows != 0 || m.Claims != 0 {
		c.violated(I7, op.At, subject{}, "at the end %d rows wait in %s, %d of them under way", m.Rows, m.Domain, m.Claims)
	}
	if m.Links != 0 {
		c.violated(I10, op.At, subject{}, "at the end %d rows wait in %s for a road", m.Links, m.Domain)
	}
	if m.Dead != 0 {
		c.violated(I7, op.At, subject{}, "%d dead letters are in %s", m.Dead, m.Domain)
	}
}

func (c *check) offset(op *history.Op) {
	o := op.Offset
	key := lane{o.Domain, o.Lane}
	if before, known := c.offsets[key]; known && o.Committed < before {
		c.violated(I11, op.At, subject{}, "lane %d of %s was committed up to %d, and then up to %d", o.Lane, o.Domain, before, o.Committed)
	}
	c.offsets[key] = o.Committed
	if o.Last && max(o.Committed, 0) < o.Log {
		c.violated(I11, op.At, subject{}, "at the end lane %d of %s is committed up to %d, and its log ends at %d", o.Lane, o.Domain, o.Committed, o.Log)
	}
}

// deadLetter finds the messages that a dead letter is about, by their id, and judges
// it: nothing that the load does may end there.
func (c *check) deadLetter(op history.Op) {
	about := subject{}
	for _, m := range c.person(op.User).messages {
		if m == nil || m.id != op.ID {
			continue
		}
		about = m.subject()
		for i := range m.to {
			if len(op.To) == 0 || slices.Contains(op.To, m.to[i].user.id) {
				m.to[i].dead = true
			}
		}
	}
	c.violated(I7, op.At, about, "a dead letter of %s in %s: %s", op.User, op.Domain, op.Code)
}
