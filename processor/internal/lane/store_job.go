package lane

import (
	"math"

	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/processor/internal/custody"
)

// storeJob is what waits for the store. Its writes are carried out first, kind
// by kind, then its reads, side by side: what is read of a target shows all that was
// written of it before it was asked for, and may show later rows.
type storeJob struct {
	put      []mailbox.Row
	first    uint64 // the number of the first row to put: how many the lane has put before it
	mark     []mailbox.Key
	del      []mailbox.Key
	proved   []after[custody.ProvedRows]
	announce []mailbox.Announced
	save     *mailbox.LaneChange
	bury     []custody.Burial
	asked    questions
	round    uint64 // of the effects that were added last
}

// questions are what the store is to read.
type questions struct {
	reads  []after[custody.Read]
	counts []after[custody.Count]
	usages []after[ident.UserID]
	loads  []ident.UserID
	expire []custody.Expiration
	lists  []custody.List
}

// after is something that comes after the rows of its target that were put before it.
// It does not wait for later ones: a target that is behind gets rows all the time.
type after[T any] struct {
	what T
	to   string // the target
	end  uint64 // the number of the first row, of any target, that was put after it
}

func (j *storeJob) empty() bool {
	return len(j.put)+len(j.mark)+len(j.del)+len(j.proved)+len(j.announce)+len(j.bury) == 0 && j.save == nil && j.asked.empty()
}

// add adds what a round of the actor wants: what it reads comes after what it writes.
func (j *storeJob) add(fx *custody.Effects) {
	j.put = append(j.put, fx.Put...)
	j.mark = append(j.mark, fx.Mark...)
	j.del = append(j.del, fx.Delete...)
	j.announce = append(j.announce, fx.Announce...)
	j.bury = append(j.bury, fx.Bury...)
	end := j.first + uint64(len(j.put))
	for _, p := range fx.DeleteProved {
		j.proved = append(j.proved, after[custody.ProvedRows]{p, p.To, end})
	}
	for _, r := range fx.Reads {
		j.asked.reads = append(j.asked.reads, after[custody.Read]{r, r.Query.To, end})
	}
	for _, c := range fx.Counts {
		j.asked.counts = append(j.asked.counts, after[custody.Count]{c, c.Query.To, end})
	}
	for _, u := range fx.Usages {
		j.asked.usages = append(j.asked.usages, after[ident.UserID]{u, string(u), end})
	}
	j.asked.loads = append(j.asked.loads, fx.Loads...)
	j.asked.expire = append(j.asked.expire, fx.Expirations...)
	j.asked.lists = append(j.asked.lists, fx.Lists...)
	j.round = max(j.round, fx.Round())
}

// wanted says whether a round wants anything of the store.
func wanted(fx *custody.Effects) bool {
	return len(fx.Put)+len(fx.Mark)+len(fx.Delete)+len(fx.DeleteProved)+len(fx.Announce)+len(fx.Bury)+
		len(fx.Reads)+len(fx.Counts)+len(fx.Usages)+len(fx.Loads)+len(fx.Expirations)+len(fx.Lists) > 0
}

func (a *questions) empty() bool {
	return len(a.reads)+len(a.counts)+len(a.loads)+len(a.usages)+len(a.expire)+len(a.lists) == 0
}

func (a *questions) append(other *questions) {
	a.reads = append(a.reads, other.reads...)
	a.counts = append(a.counts, other.counts...)
	a.usages = append(a.usages, other.usages...)
	a.loads = append(a.loads, other.loads...)
	a.expire = append(a.expire, other.expire...)
	a.lists = append(a.lists, other.lists...)
}

// cut takes off the job the rows beyond so many, with what has to come after them. That is
// the next job.
func (j *storeJob) cut(rows int) storeJob {
	rows = min(rows, len(j.put))
	next := storeJob{first: j.first + uint64(rows), round: j.round}
	if rows < len(j.put) {
		j.put, next.put = j.put[:rows:rows], j.put[rows:]
		next.asked, next.proved = j.behind(next.put, next.first)
	}
	return next
}

// behind takes off the job what has to come after rows of its target that are not stored
// yet: what is read, or deleted as a whole, has to show all that was put before. It goes with
// the next job. The first of the rows has the number first.
func (j *storeJob) behind(rows []mailbox.Row, first uint64) (later questions, proved []after[custody.ProvedRows]) {
	if len(rows) == 0 {
		return later, nil
	}
	// Few are asked about, and many rows may wait: only those of the former are noted.
	waits := map[string]uint64{} // target: the number of its first row that is not stored yet
	end := max(targets(j.asked.reads, first, waits), targets(j.asked.counts, first, waits),
		targets(j.asked.usages, first, waits), targets(j.proved, first, waits))
	if end <= first {
		return later, nil
	}
	for i := range rows[:min(uint64(len(rows)), end-first)] {
		if number, asked := waits[rows[i].To]; asked && number == unknown {
			waits[rows[i].To] = first + uint64(i)
		}
	}
	j.asked.reads, later.reads = part(j.asked.reads, waits)
	j.asked.counts, later.counts = part(j.asked.counts, waits)
	j.asked.usages, later.usages = part(j.asked.usages, waits)
	j.proved, proved = part(j.proved, waits)
	return later, proved
}

// unknown is no row's number.
const unknown = math.MaxUint64

// targets notes the targets of those that may have to wait for the row of this number or
// for later ones. All of them come before the row end.
func targets[T any](list []after[T], first uint64, waits map[string]uint64) (end uint64) {
	for i := range list {
		if list[i].end > first {
			waits[list[i].to] = unknown
			end = max(end, list[i].end)
		}
	}
	return end
}

// part splits a list, which it does not change.
func part[T any](list []after[T], waits map[string]uint64) (now, later []after[T]) {
	for _, e := range list {
		if number, asked := waits[e.to]; asked && number < e.end {
			later = append(later, e)
		} else {
			now = append(now, e)
		}
	}
	return now, later
}
