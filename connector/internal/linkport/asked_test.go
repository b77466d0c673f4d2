package linkport_test

import (
	"context"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/link"
	"github.com/linkerhq/linker/pkg/trace"
)

// answer waits for the answer to a question.
func (n *neighbour) answer() link.Answer {
	n.t.Helper()
	select {
	case m := <-n.got:
		a, is := m.(link.Answer)
		if !is {
			n.t.Fatalf("got %T, want an answer", m)
		}
		return a
	case <-n.ended:
		n.t.Fatal("the link has ended; want an answer")
	case <-time.After(20 * time.Second):
		n.t.Fatal("there is no answer")
	}
	panic("unreachable")
}

func TestANeighbourIsAnsweredBesideWhatElseComes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	slow := make(chan struct{})
	asked := make(chan string, 100)
	w.deps.Asked = func(ctx context.Context, neighbour string, question []byte) []byte {
		asked <- string(question)
		switch string(question) {
		case "slow":
			select {
			case <-slow:
			case <-ctx.Done():
			}
		case "unknown":
			return nil
		}
		return fmt.Appendf(nil, "%s, %s", question, neighbour)
	}
	w.serve()
	n := w.dial("domain-02")
	n.put(link.Question{N: 5, Text: []byte("slow")})
	<-asked
	n.put(link.Question{N: 6, Text: []byte("fast")})
	if a := n.answer(); a.N != 6 || string(a.Text) != "fast, domain-02" {
		t.Errorf("got %d %q", a.N, a.Text)
	}
	n.put(link.Question{N: 7, Text: []byte("unknown")})
	if a := n.answer(); a.N != 7 || len(a.Text) != 0 {
		t.Errorf("got %d %q, want that there is no answer", a.N, a.Text)
	}
	w.counted("linker_linkport_unanswered_questions_total", "domain-02", 1)
	n.send(1, 1, message("A-1000", 1, inLane(0, 0)))
	w.next().done(1, nil)
	n.want(link.Ack{Channel: 1, UpTo: 1})

	// Four are answered at once, and no more.
	for i := range uint64(3) {
		n.put(link.Question{N: 10 + i, Text: []byte("slow")})
	}
	n.put(link.Question{N: 20, Text: []byte("one too many")})
	if a := n.answer(); a.N != 20 || len(a.Text) != 0 {
		t.Errorf("got %d %q, want that there is no answer", a.N, a.Text)
	}
	close(slow)
	for range 4 {
		if a := n.answer(); string(a.Text) != "slow, domain-02" {
			t.Errorf("got %d %q", a.N, a.Text)
		}
	}
	w.lint()
}

func TestTheEndOfALinkEndsWhatIsAskedOverIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	asked := make(chan struct{})
	w.deps.Asked = func(ctx context.Context, _ string, _ []byte) []byte {
		close(asked)
		<-ctx.Done()
		return nil
	}
	end := w.serve()
	n := w.dial("domain-02")
	n.put(link.Question{N: 1, Text: []byte("x")})
	<-asked
	end() // returns when nothing is under way any more
	n.gone()
}

func TestAnAnswerThatNobodyAskedForEndsTheLink(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve()
	n := w.dial("domain-02")
	n.put(link.Answer{N: 1, Text: []byte("x")})
	n.gone()
}

func TestWhatTheLogHasOfANeighbourIsTraced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.deps.Trace = trace.NewLog(trace.Place{Domain: here, Service: trace.Connector, Name: "c"}, 1, nil)
	w.serve()
	n := w.dial("domain-02")
	m := message("A-1000", 1, inLane(0, 0), inLane(0, 500), inLane(1, 0))
	m.ID = ident.MessageID{7}
	began := time.Now()
	n.send(1, 1, m)
	w.next().done(30, nil)
	w.next().done(40, nil)
	n.want(link.Ack{Channel: 1, UpTo: 1})
	events := w.deps.Trace.Find(m.ID)
	if len(events) != 2 {
		t.Fatalf("got %+v", events)
	}
	for i := range events {
		if at := events[i].At; at.Before(began.Truncate(time.Microsecond)) || at.After(time.Now()) {
			t.Errorf("it was received at %v", at)
		}
		events[i].At = time.Time{}
	}
	want := trace.Event{
		Place: trace.Place{Domain: here, Service: trace.Connector, Name: "c"}, Kind: trace.Received, Message: m.ID, Peer: "domain-02",
	}
	first, second := want, want
	first.Users, first.Lane, first.Offset = 2, 0, 30
	second.User, second.Lane, second.Offset = inLane(1, 0), 1, 40
	if !reflect.DeepEqual(events, []trace.Event{first, second}) {
		t.Errorf("got %+v", events)
	}
}
