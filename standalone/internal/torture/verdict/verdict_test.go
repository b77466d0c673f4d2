package verdict_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/linkerhq/linker/standalone/internal/torture/history"
	"github.com/linkerhq/linker/standalone/internal/torture/verdict"
)

func TestARunWithEverythingInItIsClean(t *testing.T) {
	t.Parallel()
	s := begun()
	s.message("ANZ-1", "ANZ-3")
	n := s.send("ANZ-1", history.Op{Confirm: true}, "ANZ-3")
	s.deliver("ANZ-1", n, "ANZ-3") // before the sender hears that it was accepted
	s.accept("ANZ-1", n)
	s.confirm("ANZ-1", n)
	group := s.send("ANZ-2", history.Op{}, "ANZ-3", "ANZ-4", "ANZ-7")
	s.accept("ANZ-2", group)
	for _, to := range []string{"ANZ-4", "ANZ-3", "ANZ-7"} {
		s.deliver("ANZ-2", group, to).Bound = "*"
	}
	// Each of two sockets gets its own.
	one := s.opened["ANZ-5"]
	two := s.login("ANZ-5", history.ClientAck, "push", "ack")
	n = s.message("ANZ-2", "ANZ-5")
	s.deliver("ANZ-2", n, "ANZ-5").Session = one
	n = s.message("ANZ-2", "ANZ-5")
	s.deliver("ANZ-2", n, "ANZ-5").Session = one
	s.login("ANZ-5", history.ClientRaw, "push")
	s.deliver("ANZ-2", n, "ANZ-5") // the system does not know yet that another socket has it
	if one == two {
		t.Fatal("the two sockets are one")
	}
	// Sent again it is answered alike, and taken once.
	n = s.message("ANZ-2", "ANZ-4")
	s.add(history.Op{Kind: history.KindSend, User: "ANZ-2", N: n, To: []string{"ANZ-4"}, Sum: sum("ANZ-2", n), Attempt: 2, Again: true})
	s.add(history.Op{Kind: history.KindAccepted, User: "ANZ-2", N: n, ID: id("ANZ-2", n), Again: true})
	// One that was refused is sent again; one that was not answered may come or not.
	n = s.send("ANZ-1", history.Op{}, "ANZ-4")
	s.add(history.Op{Kind: history.KindRefused, User: "ANZ-1", N: n, Code: "QUEUE_UNAVAILABLE"})
	s.add(history.Op{Kind: history.KindSend, User: "ANZ-1", N: n, To: []string{"ANZ-4"}, Sum: sum("ANZ-1", n), Attempt: 2})
	s.accept("ANZ-1", n)
	s.deliver("ANZ-1", n, "ANZ-4")
	n = s.send("ANZ-1", history.Op{}, "ANZ-4")
	s.add(history.Op{Kind: history.KindUnknown, User: "ANZ-1", N: n, Final: true})
	s.message("ANZ-1", "ANZ-4")
	s.deliver("ANZ-1", n, "ANZ-4") // late, and nobody has relied on it
	// A reported failure is no loss, nor is FAST to somebody who is away.
	n = s.send("ANZ-1", history.Op{}, "ANZ-3")
	s.accept("ANZ-1", n)
	s.add(history.Op{Kind: history.KindFailed, User: "ANZ-1", N: n, Code: "EXPIRED"})
	n = s.send("ANZ-8", history.Op{Feature: history.FeatureFast}, "ANZ-3")
	s.deliver("ANZ-8", n, "ANZ-3")
	s.logout("ANZ-6", 0)
	s.presence("ANZ-6", false)
	s.send("ANZ-8", history.Op{Feature: history.FeatureFast}, "ANZ-6")
	s.wait(5 * second)
	r := s.end().isClean(t)
	want := verdict.Counts{
		Sent: 10, Accepted: 9, Unknown: 1, Owed: 11, Delivered: 11, Failed: 1, Confirmed: 1,
		FastSent: 2, FastDelivered: 1, Sockets: 11, Presence: 9,
	} // delivered are ten that were owed, and the one without an answer
	if r.Counts != want {
		t.Errorf("got %+v, want %+v", r.Counts, want)
	}
	if r.Codes["EXPIRED"] != 1 || r.Codes["QUEUE_UNAVAILABLE"] != 1 {
		t.Errorf("got %v", r.Codes)
	}
}

func TestEveryViolationIsFound(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		want   verdict.Invariant
		beside []verdict.Invariant
		tell   func(s *story)
	}{
		"lost": {want: verdict.I1, tell: func(s *story) {
			s.accept("ANZ-1", s.send("ANZ-1", history.Op{}, "ANZ-3"))
		}},
		"lost for one member of a group": {want: verdict.I1, tell: func(s *story) {
			n := s.send("ANZ-1", history.Op{}, "ANZ-3", "ANZ-4")
			s.accept("ANZ-1", n)
			s.deliver("ANZ-1", n, "ANZ-3")
		}},
		"lost for one of two sockets": {want: verdict.I1, tell: func(s *story) {
			s.login("ANZ-5", history.ClientAck, "push", "ack")
			s.message("ANZ-1", "ANZ-5")
			s.wait(11 * second)
		}},
		"delivered under another id than accepted": {want: verdict.I2, tell: func(s *story) {
			s.deliver("ANZ-1", s.message("ANZ-1", "ANZ-3"), "ANZ-3").ID = "another"
		}, beside: []verdict.Invariant{verdict.I3}},
		"twice through one Go client": {want: verdict.I2, tell: func(s *story) {
			s.deliver("ANZ-1", s.message("ANZ-1", "ANZ-7"), "ANZ-7")
		}},
		"twice on one socket without a fault": {want: verdict.I3, tell: func(s *story) {
			s.deliver("ANZ-1", s.message("ANZ-1", "ANZ-3"), "ANZ-3")
		}},
		"twice on another socket although it was proved": {want: verdict.I3, tell: func(s *story) {
			n := s.message("ANZ-1", "ANZ-3")
			s.logout("ANZ-3", 1)
			s.login("ANZ-3", history.ClientRaw, "push")
			s.deliver("ANZ-1", n, "ANZ-3")
		}},
		"twice on a second socket that came later": {want: verdict.I3, tell: func(s *story) {
			n := s.message("ANZ-1", "ANZ-5")
			s.wait(6 * second)
			s.login("ANZ-5", history.ClientRaw, "push")
			s.deliver("ANZ-1", n, "ANZ-5")
		}},
		"twice because of a link": {want: verdict.I3, tell: func(s *story) {
			s.fault(history.Fault{Number: 1, Kind: "link-cut", Links: true})
			n := s.message("ANZ-1", "ANZ-3")
			s.fault(history.Fault{Number: 1, Kind: "link-cut", Links: true, End: true})
			s.deliver("ANZ-1", n, "ANZ-3")
		}},
		"twice because of what nobody may notice": {want: verdict.I3, tell: func(s *story) {
			s.fault(history.Fault{Number: 1, Kind: "zombie", Harmless: true})
			n := s.message("ANZ-1", "ANZ-3")
			s.deliver("ANZ-1", n, "ANZ-3")
			s.fault(history.Fault{Number: 1, Kind: "zombie", Harmless: true, End: true})
		}},
		"FAST lost beside what nobody may notice": {want: verdict.I12, tell: func(s *story) {
			s.fault(history.Fault{Number: 1, Kind: "zombie", Harmless: true})
			s.send("ANZ-8", history.Op{Feature: history.FeatureFast}, "ANZ-3")
			s.wait(6 * second)
			s.fault(history.Fault{Number: 1, Kind: "zombie", Harmless: true, End: true})
		}},
		"a message that nobody has sent": {want: verdict.I6, tell: func(s *story) {
			s.deliver("ANZ-1", 1<<25+1, "ANZ-3")
		}},
		"twice through two Go clients with one memory": {want: verdict.I2, tell: func(s *story) {
			n := s.message("ANZ-1", "ANZ-7")
			s.logout("ANZ-7", 0)
			s.login("ANZ-7", history.ClientGo, "push")
			s.deliver("ANZ-1", n, "ANZ-7")
		}},
		"twice long after a fault": {want: verdict.I3, tell: func(s *story) {
			s.fault(history.Fault{Number: 1, Kind: "connector-kill"})
			s.fault(history.Fault{Number: 1, Kind: "connector-kill", End: true})
			s.wait(31 * second)
			s.deliver("ANZ-1", s.message("ANZ-1", "ANZ-3"), "ANZ-3")
		}},
		"twice because of a fault long after": {want: verdict.I3, tell: func(s *story) {
			n := s.message("ANZ-1", "ANZ-3")
			s.wait(16 * second)
			s.fault(history.Fault{Number: 1, Kind: "connector-kill"})
			s.deliver("ANZ-1", n, "ANZ-3")
		}},
		"out of order": {want: verdict.I4, tell: func(s *story) {
			a, b := s.send("ANZ-1", history.Op{}, "ANZ-3"), s.send("ANZ-1", history.Op{}, "ANZ-3")
			s.accept("ANZ-1", a)
			s.accept("ANZ-1", b)
			s.deliver("ANZ-1", b, "ANZ-3")
			s.deliver("ANZ-1", a, "ANZ-3")
		}},
		"out of order over two sockets, one after the other": {want: verdict.I4, tell: func(s *story) {
			a, b := s.send("ANZ-1", history.Op{}, "ANZ-3"), s.send("ANZ-1", history.Op{}, "ANZ-3")
			s.accept("ANZ-1", a)
			s.accept("ANZ-1", b)
			s.deliver("ANZ-1", b, "ANZ-3")
			s.logout("ANZ-3", 1)
			s.login("ANZ-3", history.ClientRaw, "push")
			s.deliver("ANZ-1", a, "ANZ-3")
		}},
		"a group overtakes": {want: verdict.I4, tell: func(s *story) {
			a, b := s.send("ANZ-1", history.Op{}, "ANZ-3"), s.send("ANZ-1", history.Op{}, "ANZ-3", "ANZ-4")
			s.accept("ANZ-1", a)
			s.accept("ANZ-1", b)
			s.deliver("ANZ-1", b, "ANZ-4")
			s.deliver("ANZ-1", b, "ANZ-3")
			s.deliver("ANZ-1", a, "ANZ-3")
		}},
		"what is fetched is out of order": {want: verdict.I4, tell: func(s *story) {
			s.logout("ANZ-6", 0)
			a, b := s.send("ANZ-1", history.Op{}, "ANZ-6"), s.send("ANZ-1", history.Op{}, "ANZ-6")
			s.accept("ANZ-1", a)
			s.accept("ANZ-1", b)
			s.login("ANZ-6", history.ClientRaw)
			s.deliver("ANZ-1", b, "ANZ-6")
			s.deliver("ANZ-1", a, "ANZ-6")
		}},
		"late without need": {want: verdict.I4, tell: func(s *story) {
			n := s.send("ANZ-1", history.Op{}, "ANZ-3")
			s.accept("ANZ-1", n)
			s.deliver("ANZ-1", n, "ANZ-3").Late = true
		}},
		"late too early": {want: verdict.I4, tell: func(s *story) {
			s.fault(history.Fault{Number: 1, Kind: "link-shut", Links: true})
			n := s.send("ANZ-1", history.Op{}, "ANZ-3")
			s.accept("ANZ-1", n)
			s.wait(20*second).deliver("ANZ-1", n, "ANZ-3").Late = true
		}},
		"changed": {want: verdict.I5, tell: func(s *story) {
			n := s.send("ANZ-1", history.Op{}, "ANZ-3")
			s.accept("ANZ-1", n)
			s.deliver("ANZ-1", n, "ANZ-3").Damaged = true
		}},
		"another content": {want: verdict.I5, tell: func(s *story) {
			n := s.send("ANZ-1", history.Op{}, "ANZ-3")
			s.accept("ANZ-1", n)
			s.deliver("ANZ-1", n, "ANZ-3").Sum = "another"
		}},
		"for somebody else": {want: verdict.I5, tell: func(s *story) {
			n := s.send("ANZ-1", history.Op{}, "ANZ-3")
			s.accept("ANZ-1", n)
			s.deliver("ANZ-1", n, "ANZ-3").Bound = "ANZ-4"
		}},
		"from somebody else": {want: verdict.I5, tell: func(s *story) {
			n := s.send("ANZ-1", history.Op{}, "ANZ-3")
			s.accept("ANZ-1", n)
			s.deliver("ANZ-1", n, "ANZ-3").Note = "the content names ANZ-2"
		}},
		"never sent": {want: verdict.I6, tell: func(s *story) { s.deliver("ANZ-1", 1, "ANZ-3") }},
		"never sent to this one": {want: verdict.I6, tell: func(s *story) {
			s.deliver("ANZ-1", s.message("ANZ-1", "ANZ-3"), "ANZ-4")
		}},
		"answered in two ways": {want: verdict.I6, tell: func(s *story) {
			n := s.message("ANZ-1", "ANZ-3")
			s.add(history.Op{Kind: history.KindAccepted, User: "ANZ-1", N: n, ID: "another", Again: true})
		}},
		"refused and delivered": {want: verdict.I6, tell: func(s *story) {
			n := s.send("ANZ-1", history.Op{}, "ANZ-3")
			s.add(history.Op{Kind: history.KindRefused, User: "ANZ-1", N: n, Code: "FORBIDDEN_APP", Final: true})
			s.deliver("ANZ-1", n, "ANZ-3")
		}},
		"left for a user": {want: verdict.I7, tell: func(s *story) {
			s.add(history.Op{Kind: history.KindLeft, User: "ANZ-3", Count: 2})
		}},
		"left in a mailbox": {want: verdict.I7, tell: func(s *story) {
			s.add(history.Op{Kind: history.KindMailbox, Mailbox: &history.Mailbox{Domain: "domain-01", Rows: 2}})
		}},
		"claims": {want: verdict.I7, tell: func(s *story) {
			s.add(history.Op{Kind: history.KindMailbox, Mailbox: &history.Mailbox{Domain: "domain-01", Claims: 2}})
		}},
		"a dead letter": {want: verdict.I7, tell: func(s *story) {
			n := s.send("ANZ-1", history.Op{}, "ANZ-3")
			s.accept("ANZ-1", n)
			s.add(history.Op{Kind: history.KindDead, Domain: "domain-01", User: "ANZ-1", ID: id("ANZ-1", n), Code: "HOPS_EXHAUSTED"})
		}},
		"confirmed and not delivered": {want: verdict.I8, tell: func(s *story) {
			n := s.send("ANZ-1", history.Op{Confirm: true}, "ANZ-3")
			s.accept("ANZ-1", n)
			s.confirm("ANZ-1", n)
			s.deliver("ANZ-1", n, "ANZ-3")
		}},
		"confirmed twice": {want: verdict.I8, tell: func(s *story) {
			n := s.send("ANZ-1", history.Op{Confirm: true}, "ANZ-3")
			s.accept("ANZ-1", n)
			s.deliver("ANZ-1", n, "ANZ-3")
			s.confirm("ANZ-1", n)
			s.confirm("ANZ-1", n)
			s.ops[len(s.ops)-1].ID = "another"
		}},
		"never confirmed": {want: verdict.I8, tell: func(s *story) {
			n := s.send("ANZ-1", history.Op{Confirm: true}, "ANZ-3")
			s.accept("ANZ-1", n)
			s.deliver("ANZ-1", n, "ANZ-3")
		}},
		"confirmed without a wish": {want: verdict.I8, tell: func(s *story) {
			s.confirm("ANZ-1", s.message("ANZ-1", "ANZ-3"))
		}},
		"announced twice on end": {want: verdict.I9, tell: func(s *story) { s.presence("ANZ-3", true) }},
		"gone before it came": {want: verdict.I9, tell: func(s *story) {
			s.presence("ANZ-10", false)
		}},
		"taken for online":  {want: verdict.I9, tell: func(s *story) { s.logout("ANZ-3", 0) }},
		"taken for offline": {want: verdict.I9, tell: func(s *story) { s.presence("ANZ-3", false) }},
		"offline for nothing": {want: verdict.I9, tell: func(s *story) {
			s.wait(16 * second)
			s.presence("ANZ-3", false)
			s.presence("ANZ-3", true)
		}},
		"not announced in time": {want: verdict.I9, tell: func(s *story) {
			s.kill("ANZ-3")
			s.wait(12 * second)
			s.presence("ANZ-3", false)
			s.login("ANZ-3", history.ClientRaw, "push")
			s.presence("ANZ-3", true)
		}},
		"unknown whereabouts": {want: verdict.I9, tell: func(s *story) {
			s.add(history.Op{Kind: history.KindWhereabouts, User: "ANZ-3", Count: 0})
		}},
		"whereabouts of others only": {want: verdict.I9, tell: func(s *story) {
			s.wait(6 * second)
			for n := 1; n <= 9; n++ {
				if n != 3 {
					s.add(history.Op{Kind: history.KindWhereabouts, User: fmt.Sprint("ANZ-", n), Count: 1})
				}
			}
		}},
		"waits for a road": {want: verdict.I10, tell: func(s *story) {
			s.add(history.Op{Kind: history.KindMailbox, Mailbox: &history.Mailbox{Domain: "domain-01", Links: 2}})
		}},
		"committed backwards": {want: verdict.I11, tell: func(s *story) {
			s.add(history.Op{Kind: history.KindOffset, Offset: &history.Offset{Domain: "domain-01", Lane: 0, Committed: 7, Log: 9}})
			s.add(history.Op{Kind: history.KindOffset, Offset: &history.Offset{Domain: "domain-01", Lane: 0, Committed: 6, Log: 9}})
		}},
		"not committed at the end": {want: verdict.I11, tell: func(s *story) {
			s.add(history.Op{Kind: history.KindOffset, Offset: &history.Offset{Domain: "domain-01", Lane: 0, Committed: -1, Log: 9, Last: true}})
		}},
		"FAST twice": {want: verdict.I12, tell: func(s *story) {
			n := s.send("ANZ-8", history.Op{Feature: history.FeatureFast}, "ANZ-3")
			s.deliver("ANZ-8", n, "ANZ-3")
			s.fault(history.Fault{Number: 1, Kind: "connector-kill"}) // explains nothing here
			s.deliver("ANZ-8", n, "ANZ-3")
		}},
		"FAST out of order": {want: verdict.I12, tell: func(s *story) {
			a, b := s.send("ANZ-8", history.Op{Feature: history.FeatureFast}, "ANZ-3"), s.send("ANZ-8", history.Op{Feature: history.FeatureFast}, "ANZ-3")
			s.deliver("ANZ-8", b, "ANZ-3")
			s.deliver("ANZ-8", a, "ANZ-3")
		}},
		"FAST lost": {want: verdict.I12, tell: func(s *story) {
			s.send("ANZ-8", history.Op{Feature: history.FeatureFast}, "ANZ-3")
			s.wait(6 * second)
		}},
		"a process that has grown": {want: verdict.I13, tell: func(s *story) {
			s.add(history.Op{Kind: history.KindProcess, Process: &history.Process{Name: "connector-1", When: history.AtWarm, Goroutines: 100}})
			s.add(history.Op{Kind: history.KindProcess, Process: &history.Process{Name: "connector-1", When: history.AtEnd, Goroutines: 141}})
		}},
		"a race": {want: verdict.I14, tell: func(s *story) {
			s.add(history.Op{Kind: history.KindLog, Name: "connector-1", Code: history.LogRace, Note: "WARNING: DATA RACE"})
		}},
		"a strange frame": {want: verdict.Protocol, tell: func(s *story) {
			s.add(history.Op{Kind: history.KindStrange, User: "ANZ-3", Note: "NEWS"})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := begun()
			s.message("ANZ-2", "ANZ-4")
			c.tell(s)
			s.message("ANZ-2", "ANZ-4")
			s.end().breaks(t, c.want, c.beside...)
		})
	}
}

// kill kills the connector of all, who all come back at once but one.
func (s *story) kill(late string) {
	s.fault(history.Fault{Number: 1, Kind: "connector-kill", URLs: []string{there}, Kill: true})
	for n := 1; n <= 8; n++ {
		user := fmt.Sprint("ANZ-", n)
		s.add(history.Op{Kind: history.KindClose, User: user, Session: s.opened[user], Broken: true})
		if user != late {
			s.login(user, history.ClientRaw, "push")
		}
	}
	s.wait(2 * second)
	s.fault(history.Fault{Number: 1, Kind: "connector-kill", URLs: []string{there}, Kill: true, End: true})
}

func TestAKillIsTimed(t *testing.T) {
	t.Parallel()
	s := begun()
	s.kill("ANZ-3")
	s.message("ANZ-1", "ANZ-4")
	s.wait(4 * second)
	s.presence("ANZ-3", false)
	s.wait(8 * second)
	s.login("ANZ-3", history.ClientRaw, "push")
	s.presence("ANZ-3", true)
	s.message("ANZ-1", "ANZ-3")
	r := s.end().isClean(t)
	if r.Offline.Count != 1 || time.Duration(r.Offline.Max) < 6*time.Second || time.Duration(r.Offline.Max) > 7*time.Second {
		t.Errorf("got %+v", r.Offline)
	}
	if len(r.Faults) != 1 || r.Faults[0].Count != 1 || r.Faults[0].Begin.Count != 2 || r.Faults[0].End.Count != 2 {
		t.Errorf("got %+v", r.Faults)
	}
}

func TestWhatAFaultExplainsIsOnlyCounted(t *testing.T) {
	t.Parallel()
	s := begun()
	n := s.message("ANZ-1", "ANZ-3")
	m := s.send("ANZ-1", history.Op{}, "ANZ-4")
	s.accept("ANZ-1", m)
	s.fault(history.Fault{Number: 1, Kind: "processor-kill"})
	s.deliver("ANZ-1", n, "ANZ-3")
	s.message("ANZ-1", "ANZ-3")
	s.deliver("ANZ-1", n, "ANZ-3") // out of order too
	s.wait(31 * second)
	s.message("ANZ-1", "ANZ-4")
	s.deliver("ANZ-1", m, "ANZ-4").Late = true
	r := s.end().isClean(t)
	if c := r.Counts; c.TwiceRaw != 2 || c.TwiceUnexplained != 0 || c.TwiceClient != 0 || c.DisorderRaw != 2 || c.DisorderClient != 0 || c.Late != 1 {
		t.Errorf("got %+v", c)
	}
}

func TestACopyOfWhatWasNotProvedNeedsNoFault(t *testing.T) {
	t.Parallel()
	s := begun()
	a, b := s.message("ANZ-1", "ANZ-3"), s.message("ANZ-1", "ANZ-3")
	s.logout("ANZ-3", 1) // the second one is not proved
	s.login("ANZ-3", history.ClientRaw, "push")
	s.deliver("ANZ-1", b, "ANZ-3")
	if r := s.end().isClean(t); r.Counts.TwiceRaw != 1 {
		t.Errorf("got %+v of %d and %d", r.Counts, a, b)
	}
}

func TestWhatWasSentBeforeARefusalMayOvertake(t *testing.T) {
	t.Parallel()
	s := begun()
	a, b := s.send("ANZ-1", history.Op{}, "ANZ-3"), s.send("ANZ-1", history.Op{}, "ANZ-3")
	s.add(history.Op{Kind: history.KindRefused, User: "ANZ-1", N: a, Code: "QUEUE_UNAVAILABLE"})
	s.accept("ANZ-1", b)
	s.deliver("ANZ-1", b, "ANZ-3")
	s.add(history.Op{Kind: history.KindSend, User: "ANZ-1", N: a, To: []string{"ANZ-3"}, Sum: sum("ANZ-1", a), Attempt: 2})
	s.accept("ANZ-1", a)
	s.deliver("ANZ-1", a, "ANZ-3")
	s.end().isClean(t)
}

func TestWhatIsFetchedAndWhatComesByItselfAreTwoOrders(t *testing.T) {
	t.Parallel()
	s := begun()
	s.logout("ANZ-6", 0)
	s.presence("ANZ-6", false)
	stored := []int64{s.send("ANZ-1", history.Op{}, "ANZ-6"), s.send("ANZ-1", history.Op{}, "ANZ-6")}
	for _, n := range stored {
		s.accept("ANZ-1", n)
	}
	s.login("ANZ-6", history.ClientRaw)
	s.presence("ANZ-6", true)
	s.message("ANZ-1", "ANZ-6")
	for _, n := range stored {
		s.deliver("ANZ-1", n, "ANZ-6")
	}
	s.end().isClean(t)
}

func TestAViolationTellsWhatHappenedToItsMessage(t *testing.T) {
	t.Parallel()
	s := begun()
	s.message("ANZ-1", "ANZ-3")
	n := s.send("ANZ-1", history.Op{}, "ANZ-3")
	s.accept("ANZ-1", n)
	r := s.end().breaks(t, verdict.I1)
	if len(r.Violations) != 1 || len(r.Violations[0].Events) != 2 {
		t.Fatalf("got %+v", r.Violations)
	}
	told := table(t, r)
	for _, want := range []string{
		`"op":"send","user":"ANZ-1","session":2,"n":2`, `"op":"accepted"`, "I1 at ", "ANZ-1/2 was accepted as ANZ-1/2 and never came to ANZ-3",
		verdict.I1.Promise(), "I1 was violated 1 times", "To repeat it: linker-torture --seed 7",
	} {
		if !strings.Contains(told, want) {
			t.Errorf("it does not say %s:\n%s", want, told)
		}
	}
}

func TestARunThatWasBrokenOffIsNotClean(t *testing.T) {
	t.Parallel()
	s := begun()
	s.accept("ANZ-1", s.send("ANZ-1", history.Op{}, "ANZ-3"))
	r := s.check(t)
	if r.OK() || r.Complete || len(r.Broken) > 0 {
		t.Errorf("got %s", table(t, r))
	}
}

func TestAFileThatIsNoHistoryIsAnError(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "history.jsonl")
	if _, err := verdict.Check(path); err == nil {
		t.Error("there is no file, and no error")
	}
	for text, want := range map[string]string{"": "it is empty", "nothing\n": "line 1"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := verdict.Check(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v", text, err)
		}
	}
}
