package verdict_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/linkerhq/linker/standalone/internal/torture/history"
	"github.com/linkerhq/linker/standalone/internal/torture/verdict"
)

// underWay is a message of a random story.
type underWay struct {
	from     string
	n        int64
	to       []string // who have not got it yet
	accepted bool
	confirm  bool
	proved   bool
}

// randomStory is a clean story in which many messages are under way at the same time.
func randomStory(random *rand.Rand, messages int) *story {
	s := begun()
	var way []*underWay
	receivers := []string{"ANZ-3", "ANZ-4", "ANZ-7"}
	sent := 0
	for sent < messages || len(way) > 0 {
		if sent < messages && (len(way) == 0 || random.IntN(4) == 0) {
			sent++
			m := &underWay{from: fmt.Sprint("ANZ-", 1+random.IntN(2)), to: []string{receivers[random.IntN(len(receivers))]}, confirm: random.IntN(3) == 0}
			if random.IntN(5) == 0 {
				m.to, m.confirm = slices.Clone(receivers), false
			}
			m.n = s.send(m.from, history.Op{Confirm: m.confirm}, slices.Clone(m.to)...)
			way = append(way, m)
			continue
		}
		m := way[random.IntN(len(way))]
		switch {
		case !m.accepted && random.IntN(2) == 0:
			m.accepted = true
			s.accept(m.from, m.n)
		case len(m.to) > 0:
			to := m.to[random.IntN(len(m.to))]
			if slices.ContainsFunc(way, func(o *underWay) bool { return o.from == m.from && o.n < m.n && slices.Contains(o.to, to) }) {
				continue // it may not overtake
			}
			group := len(m.to) > 1
			m.to = slices.DeleteFunc(m.to, func(user string) bool { return user == to })
			op := s.deliver(m.from, m.n, to)
			if group {
				op.Bound = "*"
			}
		case m.confirm && !m.proved:
			m.proved = true
			s.confirm(m.from, m.n)
		}
		if m.accepted && len(m.to) == 0 && m.proved == m.confirm {
			way = slices.DeleteFunc(way, func(o *underWay) bool { return o == m })
		}
	}
	return s.end()
}

// deliveries returns where in a story messages are delivered.
func deliveries(s *story) []int {
	var list []int
	for i, op := range s.ops {
		if op.Kind == history.KindDelivered {
			list = append(list, i)
		}
	}
	return list
}

// partner finds a later delivery of the same sender to the same receiver; 0: none.
func partner(s *story, i int) int {
	for j := i + 1; j < len(s.ops); j++ {
		if a, b := s.ops[i], s.ops[j]; b.Kind == history.KindDelivered && a.User == b.User && a.From == b.From {
			return j
		}
	}
	return 0
}

func TestEveryMutationOfARandomHistoryIsCaught(t *testing.T) {
	t.Parallel()
	for seed := range uint64(25) {
		random := rand.New(rand.NewPCG(seed, 0))
		s := randomStory(random, 20+random.IntN(60))
		s.isClean(t)
		list := deliveries(s)
		i := list[random.IntN(len(list))]
		for name, c := range map[string]struct {
			want   []verdict.Invariant // one of them
			mutate func(ops []history.Op) []history.Op
		}{
			"drop": {[]verdict.Invariant{verdict.I1}, func(ops []history.Op) []history.Op { return slices.Delete(ops, i, i+1) }},
			"copy": {[]verdict.Invariant{verdict.I3, verdict.I2}, func(ops []history.Op) []history.Op { return slices.Insert(ops, i+1, ops[i]) }},
			"swap": {[]verdict.Invariant{verdict.I4, verdict.I6}, func(ops []history.Op) []history.Op {
				j := partner(s, i)
				if j == 0 {
					return nil
				}
				a, b := ops[i], ops[j]
				a.At, b.At = b.At, a.At
				ops[i], ops[j] = b, a
				return ops
			}},
			"forge": {[]verdict.Invariant{verdict.I5}, func(ops []history.Op) []history.Op {
				ops[i].Sum = "another"
				return ops
			}},
			"misname": {[]verdict.Invariant{verdict.I2, verdict.I6}, func(ops []history.Op) []history.Op {
				ops[i].ID = "another"
				return ops
			}},
			"misdirect": {[]verdict.Invariant{verdict.I6}, func(ops []history.Op) []history.Op {
				ops[i].User = "ANZ-6"
				return ops
			}},
		} {
			mutated := *s
			if mutated.ops = c.mutate(slices.Clone(s.ops)); mutated.ops == nil {
				continue
			}
			r := mutated.check(t)
			found := slices.ContainsFunc(c.want, func(i verdict.Invariant) bool { return r.Broken[i] > 0 })
			if !found {
				t.Errorf("seed %d: %s of operation %d, %+v, was not caught:\n%s", seed, name, i, s.ops[i], table(t, r))
			}
		}
	}
}
