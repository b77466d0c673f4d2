package figures

import "slices"

// Stream follows the numbers of the messages that one receiver gets from one sender:
// 1, 2, 3 and so on, each once. The zero value has seen none. It belongs to one
// goroutine.
//
// It holds the gaps only, so that a stream without faults takes no memory.
type Stream struct {
	highest    int64
	taken      int64
	missing    []gap // sorted; below highest
	duplicates int64
	disordered int64
}

// gap are numbers that have not come: from first to last.
type gap struct{ first, last int64 }

// Take notes that a number has come, and says whether it is new.
func (s *Stream) Take(n int64) bool {
	if n == s.highest+1 {
		s.highest = n
		s.taken++
		return true
	}
	return s.takeOther(n)
}

func (s *Stream) takeOther(n int64) bool {
	if n > s.highest {
		s.missing = append(s.missing, gap{s.highest + 1, n - 1})
		s.highest = n
		s.taken++
		return true
	}
	i, _ := slices.BinarySearchFunc(s.missing, n, func(g gap, n int64) int { return int(min(max(g.last-n, -1), 1)) })
	if n < 1 || i == len(s.missing) || n < s.missing[i].first {
		s.duplicates++
		return false
	}
	s.disordered++
	s.taken++
	g := s.missing[i]
	switch {
	case g.first == g.last:
		s.missing = slices.Delete(s.missing, i, i+1)
	case n == g.first:
		s.missing[i].first++
	case n == g.last:
		s.missing[i].last--
	default:
		s.missing[i].last = n - 1
		s.missing = slices.Insert(s.missing, i+1, gap{n + 1, g.last})
	}
	return true
}

// Taken is how many different ones have come.
func (s *Stream) Taken() int64 { return s.taken }

// Duplicates is how often one came that had come before.
func (s *Stream) Duplicates() int64 { return s.duplicates }

// Disordered is how many came after one with a higher number.
func (s *Stream) Disordered() int64 { return s.disordered }
