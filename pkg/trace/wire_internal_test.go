package trace

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/ident"
)

func aQuestion() Question {
	return Question{
		ID: QuestionID{1, 2}, Message: ident.MessageID{3}, Within: 2 * time.Second, Users: []ident.UserID{"ANZ-1", "BNZ-0"},
		Path: []string{"domain-01", "domain-02"}, Inbox: 1 << 63,
		Looks: []Look{{User: "ANZ-1", Lane: 3, Offset: 4}, {Towards: "domain-03", Lane: NoOffset, Offset: 1 << 60}},
	}
}

func anAnswer() answer {
	place := Place{Domain: "domain-01", Service: Processor, Name: "processor-1"}
	at := time.Date(2026, 11, 21, 16, 0, 0, 123456000, time.UTC)
	a := answer{from: place, more: true, looked: true, known: true, content: Report{
		Asked: []Place{place, {"domain-02", Connector, "c"}}, Missing: []string{"domain-03", "domain-01/mailbox"}, Cut: true,
		Found: []Found{{Domain: "domain-01", User: "ANZ-1", Wait: InMailbox, Proved: true, Since: 1763740800}, {Domain: "d", Users: 9, Wait: OnRoad, Towards: "e"}, {Domain: "d", User: "A-1", Wait: Buried, Reason: "EXPIRED"}},
	}}
	for i, k := range Kinds() {
		a.content.Events = append(a.content.Events, Event{
			At: at, Place: place, Kind: k, Message: ident.MessageID{3}, User: "ANZ-1", Users: i, Session: 1 << 63, Lane: i - 1, Offset: 1 << 62,
			Peer: "c", Road: i%2 == 0, Reason: "EXPIRED",
		})
	}
	return a
}

func TestWhatIsSaidIsUnderstood(t *testing.T) {
	t.Parallel()
	for _, q := range []Question{aQuestion(), {}} {
		if got, err := decodeQuestion(appendQuestion(nil, &q)); err != nil || !reflect.DeepEqual(got, q) {
			t.Errorf("%+v is read as %+v, %v", q, got, err)
		}
	}
	for _, a := range []answer{anAnswer(), {}} {
		if got, err := decodeAnswer(encodeAnswer(a), ident.MessageID{3}); err != nil || !reflect.DeepEqual(got, a) {
			t.Errorf("%+v is read as\n%+v, %v", a, got, err)
		}
	}
}

func TestAnAnswerThatIsTooLongKeepsItsEnds(t *testing.T) {
	t.Parallel()
	var a answer
	const events = 5 * maxEvents
	for n := range events {
		a.content.Events = append(a.content.Events, Event{At: time.Unix(0, 0), Kind: Sent, User: ident.UserID(fmt.Sprintf("%s-%d", strings.Repeat("A", 32), n)), Offset: int64(n)})
		a.content.Found = append(a.content.Found, Found{User: ident.UserID(fmt.Sprintf("%s-%d", strings.Repeat("B", 32), n)), Domain: strings.Repeat("d", 60)})
		a.content.Missing = append(a.content.Missing, strings.Repeat("m", 100)+fmt.Sprint(n))
	}
	b := encodeAnswer(a)
	got, err := decodeAnswer(b, ident.MessageID{})
	if err != nil || len(b) > MaxAnswer {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	list := got.content.Events
	if !got.content.Cut || len(list) < maxEvents/4 || list[0].Offset != 0 || list[len(list)-1].Offset != events-1 {
		t.Errorf("%d events are left, cut: %v", len(list), got.content.Cut)
	}
}

func TestWhatOthersSayIsNotBelievedToBeWellFormed(t *testing.T) {
	t.Parallel()
	question := func(change func(*Question)) []byte {
		q := aQuestion()
		change(&q)
		return appendQuestion(nil, &q)
	}
	reply := func(change func(*answer)) []byte {
		a := anAnswer()
		change(&a)
		return appendAnswer(nil, &a)
	}
	for name, b := range map[string][]byte{
		"nothing":               nil,
		"another version":       append([]byte{9}, question(func(*Question) {})[1:]...),
		"cut off":               question(func(*Question) {})[:30],
		"junk behind it":        append(question(func(*Question) {}), 0),
		"a user that is none":   question(func(q *Question) { q.Users[0] = "ANZ" }),
		"an empty user":         question(func(q *Question) { q.Users[0] = "" }),
		"a domain that is none": question(func(q *Question) { q.Path[0] = "A b" }),
		"too many domains":      question(func(q *Question) { q.Path = slices.Repeat([]string{"a"}, maxPath+1) }),
		"too many users":        question(func(q *Question) { q.Users = slices.Repeat([]ident.UserID{"A-1"}, maxUsers+1) }),
		"too many looks":        question(func(q *Question) { q.Looks = slices.Repeat(q.Looks, maxLooks) }),
		"a lane that is none":   question(func(q *Question) { q.Looks[0].Lane = 1 << 20 }),
		"too long":              append(question(func(*Question) {}), make([]byte, MaxQuestion)...),
	} {
		if q, err := decodeQuestion(b); err == nil || len(err.Error()) > 300 {
			t.Errorf("question, %s: got %+v, %v", name, q, err)
		}
	}
	for name, b := range map[string][]byte{
		"nothing":                     nil,
		"another version":             append([]byte{9}, reply(func(*answer) {})[1:]...),
		"junk behind it":              append(reply(func(*answer) {}), 0),
		"a user that is none":         reply(func(a *answer) { a.content.Events[0].User = "x" }),
		"control characters":          reply(func(a *answer) { a.content.Events[0].Peer = "\x1b[2J" }),
		"a long name":                 reply(func(a *answer) { a.content.Events[0].Peer = strings.Repeat("x", maxText+1) }),
		"a time that cannot be shown": reply(func(a *answer) { a.content.Events[0].At = time.Unix(1<<40, 0) }),
		"a wait that began in a time that cannot be shown": reply(func(a *answer) { a.content.Found[0].Since = 1 << 50 }),
		"too many events":                      reply(func(a *answer) { a.content.Events = slices.Repeat(a.content.Events, maxEvents) }),
		"a count of events that do not follow": append(bytes.Clone(reply(func(a *answer) { a.content = Report{} })[:20]), 255, 255, 255, 127),
		"too long":                             append(reply(func(*answer) {}), make([]byte, MaxAnswer)...),
	} {
		if a, err := decodeAnswer(b, ident.MessageID{3}); err == nil || len(err.Error()) > 1000 {
			t.Errorf("answer, %s: got %+v, %v", name, a, err)
		}
	}
}

func FuzzQuestion(f *testing.F) {
	q := aQuestion()
	f.Add(appendQuestion(nil, &q))
	f.Add(appendQuestion(nil, &Question{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := decodeQuestion(b)
		if err != nil {
			return
		}
		again := appendQuestion(nil, &q)
		back, err := decodeQuestion(again)
		if err != nil || !reflect.DeepEqual(back, q) {
			t.Fatalf("%+v is read again as %+v, %v", q, back, err)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add(encodeAnswer(anAnswer()))
	f.Add(encodeAnswer(answer{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := decodeAnswer(b, ident.MessageID{3})
		if err != nil {
			return
		}
		for _, e := range a.content.Events {
			if _, err := e.At.MarshalJSON(); err != nil {
				t.Fatalf("a time that cannot be shown: %v", err)
			}
		}
		back, err := decodeAnswer(encodeAnswer(a), ident.MessageID{3})
		if err != nil || !reflect.DeepEqual(back, a) {
			t.Fatalf("%+v is read again as\n%+v, %v", a, back, err)
		}
	})
}
