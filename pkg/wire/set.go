package wire

import (
	"hash/maphash"
	"math/bits"
	"slices"

	"github.com/linkerhq/linker/pkg/ident"
)

// fewMembers is how many are compared one by one: that is faster than to look for them.
const fewMembers = 8

// set tells which users stand in a list already, of which it keeps the places: a table of
// twice as many as there can be, searched from where a user's hash points to. The seed is
// drawn, so that nobody can choose ids that all point to one place.
type set struct {
	seed   maphash.Seed
	table  []uint16 // places in the list, from 1; 0: free. Empty for a short list
	looked int      // the free place of the table that the last search has ended at
}

// newSet returns the set of a list that grows to at most so many users.
func newSet(most int) set {
	if most <= fewMembers {
		return set{}
	}
	return set{seed: maphash.MakeSeed(), table: make([]uint16, 1<<bits.Len(uint(2*most-1)))}
}

// has says whether a user stands in the list.
func (s *set) has(list []ident.UserID, user ident.UserID) bool {
	if len(s.table) == 0 {
		return slices.Contains(list, user)
	}
	last := len(s.table) - 1
	for i := int(maphash.String(s.seed, string(user))) & last; ; i = (i + 1) & last {
		place := s.table[i]
		if place == 0 {
			s.looked = i
			return false
		}
		if list[place-1] == user {
			return true
		}
	}
}

// add notes the user that has was asked about last, who will stand at a place of the list.
func (s *set) add(place int) {
	if len(s.table) > 0 {
		s.table[s.looked] = uint16(place + 1)
	}
}
