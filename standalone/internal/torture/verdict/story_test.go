package verdict_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/linkerhq/linker/standalone/internal/torture/history"
	"github.com/linkerhq/linker/standalone/internal/torture/verdict"
)

const (
	second = 1_000_000 // microseconds
	master = "ANZ-9"
	there  = "ws://127.0.0.1:1/ws" // where everybody connects
)

// story is a history that is made by hand.
type story struct {
	now      int64
	sessions int64
	numbers  map[string]int64
	opened   map[string]int64 // sessions by user
	ops      []history.Op
}

// begun is a story in which everybody has logged in: ANZ-1 and ANZ-2 send, ANZ-3 and
// ANZ-4 get everything pushed, ANZ-5 has two sockets, ANZ-6 fetches, ANZ-7 is a Go
// client, ANZ-8 sends FAST.
func begun() *story {
	s := &story{numbers: map[string]int64{}, opened: map[string]int64{}}
	s.add(history.Op{Kind: history.KindRun, Run: &history.Run{Format: history.Format, Seed: 7, Command: "linker-torture --seed 7"}})
	for i, role := range []string{
		history.RoleSender, history.RoleSender, history.RoleReceiver, history.RoleReceiver, history.RoleTwin,
		history.RoleReceiver, history.RoleReceiver, history.RoleFast, history.RoleMaster,
	} {
		s.add(history.Op{Kind: history.KindUser, User: fmt.Sprint("ANZ-", i+1), Role: role, Domain: "domain-01", App: "ANZ", Steady: true})
	}
	s.phase(history.PhaseWarm)
	s.login(master, history.ClientRaw, "push")
	for _, user := range []string{"ANZ-1", "ANZ-2", "ANZ-3", "ANZ-4", "ANZ-5", "ANZ-8"} {
		s.login(user, history.ClientRaw, "push")
		s.presence(user, true)
	}
	s.login("ANZ-6", history.ClientRaw)
	s.presence("ANZ-6", true)
	s.login("ANZ-7", history.ClientGo, "push")
	s.presence("ANZ-7", true)
	return s
}

func (s *story) add(op history.Op) *story {
	s.now += 1000
	op.At = s.now
	s.ops = append(s.ops, op)
	return s
}

func (s *story) wait(micros int64) *story {
	s.now += micros
	return s
}

func (s *story) phase(name string) { s.add(history.Op{Kind: history.KindPhase, Name: name}) }

func (s *story) login(user, client string, features ...string) int64 {
	s.sessions++
	s.opened[user] = s.sessions
	s.add(history.Op{Kind: history.KindOpen, User: user, Session: s.sessions, Client: client, Features: features, URL: there, Asked: s.now + 500})
	return s.sessions
}

func (s *story) logout(user string, proved int64) {
	s.add(history.Op{Kind: history.KindClose, User: user, Session: s.opened[user], Proved: proved})
}

func (s *story) presence(user string, online bool) {
	s.add(history.Op{Kind: history.KindPresence, User: master, Session: 1, ID: fmt.Sprint("p", len(s.ops)), About: user, Online: online})
}

// send sends a message and returns its number.
func (s *story) send(from string, op history.Op, to ...string) int64 {
	s.numbers[from]++
	n := s.numbers[from]
	op.Kind, op.User, op.Session, op.N, op.To, op.Sum, op.Attempt = history.KindSend, from, s.opened[from], n, to, sum(from, n), 1
	s.add(op)
	return n
}

func sum(from string, n int64) string { return fmt.Sprint("sum of ", id(from, n)) }

func id(from string, n int64) string { return fmt.Sprint(from, "/", n) }

func (s *story) accept(from string, n int64) {
	s.add(history.Op{Kind: history.KindAccepted, User: from, N: n, ID: id(from, n)})
}

func (s *story) deliver(from string, n int64, to string) *history.Op {
	s.add(history.Op{Kind: history.KindDelivered, User: to, Session: s.opened[to], From: from, N: n, ID: id(from, n), Sum: sum(from, n)})
	return &s.ops[len(s.ops)-1]
}

func (s *story) confirm(from string, n int64) {
	s.add(history.Op{Kind: history.KindConfirmed, User: from, Session: s.opened[from], N: n, ID: "c" + id(from, n)})
}

// message sends a message that takes its way, and returns its number.
func (s *story) message(from, to string) int64 {
	n := s.send(from, history.Op{}, to)
	s.accept(from, n)
	s.deliver(from, n, to)
	return n
}

func (s *story) fault(f history.Fault) { s.add(history.Op{Kind: history.KindFault, Fault: &f}) }

// end ends a run in good order.
func (s *story) end() *story {
	s.phase(history.PhaseQuiesce)
	s.add(history.Op{Kind: history.KindMailbox, Mailbox: &history.Mailbox{Domain: "domain-01"}})
	s.add(history.Op{Kind: history.KindOffset, Offset: &history.Offset{Domain: "domain-01", Lane: 1, Committed: 7, Log: 7, Last: true}})
	s.phase(history.PhaseEnd)
	return s
}

// file writes the story down.
func (s *story) file(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "history.jsonl")
	var b strings.Builder
	e := json.NewEncoder(&b)
	for _, op := range s.ops {
		if err := e.Encode(op); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (s *story) check(t *testing.T) *verdict.Report {
	t.Helper()
	r, err := verdict.Check(s.file(t))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func table(t *testing.T, r *verdict.Report) string {
	t.Helper()
	var b strings.Builder
	if err := r.WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func (s *story) isClean(t *testing.T) *verdict.Report {
	t.Helper()
	r := s.check(t)
	if !r.OK() {
		t.Errorf("it is not clean:\n%s", table(t, r))
	}
	return r
}

// breaks expects that this invariant is violated, and no other but those named beside.
func (s *story) breaks(t *testing.T, want verdict.Invariant, beside ...verdict.Invariant) *verdict.Report {
	t.Helper()
	r := s.check(t)
	if r.Broken[want] == 0 || r.OK() {
		t.Errorf("%s was not violated:\n%s", want, table(t, r))
	}
	for other := range r.Broken {
		if other != want && !slices.Contains(beside, other) {
			t.Errorf("%s was violated beside %s:\n%s", other, want, table(t, r))
		}
	}
	return r
}
