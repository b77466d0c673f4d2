package uplink

import (
	"slices"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
)

// draft is what it takes to write one message: who gets it where, and room for its
// bytes. It is used again for other messages, of any session.
type draft struct {
	shares []share
	owed   []int32              // for each receiver, the place of its share
	to     []envelope.Recipient // of all shares, one share after another
	lanes  []int32              // for each lane of the domain, the place of its share from 1; 0: none
	places []int32              // for each receiver, its place in the sender's numbers; RELIABLE only
	frame  []byte
	record []byte // FAST only: the log wants one of its own

	envelope envelope.Envelope
}

// share is the receivers of a message in one lane of this domain, or in one other domain.
type share struct {
	domain string // the other domain, to which everything goes through the lane of the sender; empty: this one
	lane   int
	count  int                  // of receivers
	to     []envelope.Recipient // part of draft.to
}

func (u *Uplink) draft() *draft {
	if d, again := u.drafts.Get().(*draft); again {
		return d
	}
	return &draft{lanes: make([]int32, u.cfg.Lanes)}
}

// release keeps the room of a draft for other messages, and nothing of this one.
func (u *Uplink) release(d *draft) {
	for i := range d.shares {
		d.lanes[d.shares[i].lane] = 0
	}
	clear(d.shares)
	clear(d.to)
	d.envelope = envelope.Envelope{}
	d.shares, d.owed, d.to, d.places = d.shares[:0], d.owed[:0], d.to[:0], d.places[:0]
	u.drafts.Put(d)
}

// owe notes the next receiver. One of this domain is in the given lane; to another domain
// everything goes through the lane of the sender, which is the given one then.
func (d *draft) owe(domain string, lane int) {
	place := d.lanes[lane] - 1
	if domain != "" {
		place = int32(slices.IndexFunc(d.shares, func(s share) bool { return s.domain == domain }))
	}
	if place < 0 {
		place = int32(len(d.shares))
		d.shares = append(d.shares, share{domain: domain, lane: lane})
		if domain == "" {
			d.lanes[lane] = place + 1
		}
	}
	d.shares[place].count++
	d.owed = append(d.owed, place)
}

// divide gives each share its receivers, in their order; with numbers, if their places in
// them are known.
func (d *draft) divide(users []ident.UserID, n *numbers) {
	d.to = slices.Grow(d.to, len(users))[:len(users)]
	taken := 0
	for i := range d.shares {
		s := &d.shares[i]
		s.to = d.to[taken : taken : taken+s.count]
		taken += s.count
	}
	for i, user := range users {
		r := envelope.Recipient{User: user}
		if len(d.places) > 0 {
			r.N = n.next(d.places[i])
		}
		s := &d.shares[d.owed[i]]
		s.to = append(s.to, r)
	}
}
