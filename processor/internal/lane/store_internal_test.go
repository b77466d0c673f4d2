package lane

import (
	"fmt"
	"testing"

	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
	"github.com/linkerhq/linker/processor/internal/custody"
)

func TestWhatReadsWaitsForTheRowsOfItsTargetAndForNoOthers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		rows      []string // targets, in the order in which they are to be stored
		now, next string
	}{
		{"few rows", []string{"A-1", "A-2"}, "put A-1 A-2, read A-1 A-2, count A-1 A-2, usage A-1 A-2, proved A-1 A-2", "put, read, count, usage, proved"},
		{"rows of one beyond the limit", []string{"A-1", "A-1", "A-1", "A-2", "A-3"}, "put A-1 A-1 A-1, read A-1, count A-1, usage A-1, proved A-1", "put A-2 A-3, read A-2, count A-2, usage A-2, proved A-2"},
		{"of one who has some on both sides", []string{"A-1", "A-2", "A-3", "A-1"}, "put A-1 A-2 A-3, read A-2, count A-2, usage A-2, proved A-2", "put A-1, read A-1, count A-1, usage A-1, proved A-1"},
		{"of others only", []string{"A-3", "A-3", "A-3", "A-3"}, "put A-3 A-3 A-3, read A-1 A-2, count A-1 A-2, usage A-1 A-2, proved A-1 A-2", "put A-3, read, count, usage, proved"},
	} {
		var job storeJob
		for _, to := range c.rows {
			job.put = append(job.put, mailbox.Row{To: to})
		}
		for _, to := range []string{"A-1", "A-2"} {
			q := mailbox.Query{To: to}
			job.asked.reads = append(job.asked.reads, custody.Read{Query: q})
			job.asked.counts = append(job.asked.counts, custody.Count{Query: q})
			job.asked.usages = append(job.asked.usages, ident.UserID(to))
			job.proved = append(job.proved, custody.ProvedRows{To: to})
		}
		next := job.cut(3)
		if got := describeJob(&job); got != c.now {
			t.Errorf("%s: now %q, want %q", c.name, got, c.now)
		}
		if got := describeJob(&next); got != c.next {
			t.Errorf("%s: next %q, want %q", c.name, got, c.next)
		}
	}
}

func describeJob(j *storeJob) string {
	s := "put"
	for _, r := range j.put {
		s += " " + r.To
	}
	s += ", read"
	for _, r := range j.asked.reads {
		s += " " + r.Query.To
	}
	s += ", count"
	for _, c := range j.asked.counts {
		s += " " + c.Query.To
	}
	s += ", usage"
	for _, u := range j.asked.usages {
		s += " " + string(u)
	}
	s += ", proved"
	for _, p := range j.proved {
		s += fmt.Sprint(" ", p.To)
	}
	return s
}
