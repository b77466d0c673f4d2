package e2e

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestAMessageLooksExactlyAsDocumented(t *testing.T) {
	t.Parallel()
	a, b := newUser(), newUser()
	sender, receiver := shared.login(t, a), shared.login(t, b)
	before := time.Now().UnixMilli()
	sender.send(`{"type":"MESSAGE","data":{"to":"%s","content":"some thing here to send"},"feature":"RELIABLE","reference":"abc123"}`, b)
	f := receiver.expect("MESSAGE")
	want := fmt.Sprintf(`{"type":"MESSAGE","data":{"from":"%s","content":"some thing here to send"},"reference":"abc123","id":"%s","createdAt":%d}`, a, f.ID, f.CreatedAt)
	if f.raw != want || f.ID == "" || f.CreatedAt < before || f.CreatedAt > time.Now().UnixMilli() {
		t.Errorf("got  %s\nwant %s", f.raw, want)
	}
	f = sender.expect("MESSAGE_CONFIRMATION")
	want = fmt.Sprintf(`{"type":"MESSAGE_CONFIRMATION","data":{"reference":"abc123"},"id":"%s","createdAt":%d}`, f.ID, f.CreatedAt)
	if f.raw != want {
		t.Errorf("got  %s\nwant %s", f.raw, want)
	}
}

func TestWhatIsLeftOutHasItsDefault(t *testing.T) {
	t.Parallel()
	a, b := newUser(), newUser()
	sender := shared.login(t, a)
	sender.send(`{"type":"MESSAGE","data":{"to":"%s","content":"stored"}}`, b)
	sender.send(`{"type":"MESSAGE","data":{"to":"%s","content":"stored too"},"reference":null,"feature":null,"confirmationEnabled":null}`, b)
	sender.works()
	receiver := shared.login(t, b)
	got, left := receiver.fetch(100)
	if len(got) != 2 || left != 0 || got[0].Data.Content != "stored" || got[1].Data.Content != "stored too" {
		t.Fatalf("got %v, %d left: a message without feature is RELIABLE", got, left)
	}
	if got[0].Reference != nil || got[1].Reference != nil {
		t.Errorf("got %v: a reference came from nowhere", got)
	}
}

func TestUnknownFieldsAreIgnoredAndFromCannotBeForged(t *testing.T) {
	t.Parallel()
	a, b := newUser(), newUser()
	sender, receiver := shared.login(t, a), shared.login(t, b)
	sender.send(`{"x":{"type":[1,{}]},"type":"MESSAGE","from":"ANZ-1","meta":{"from":"ANZ-1"},"createdAt":1,"Type":"AUTH_CLIENT","seq":9,`+
		`"data":{"from":"ANZ-1","to":"%s","content":"hello","To":"ANZ-1","more":[null],"createdAt":1},"late":true}`, b)
	f := receiver.expectMessage(a, "hello")
	if f.CreatedAt == 1 || f.Seq != 0 || f.Late {
		t.Errorf("got %v: the client has set what only servers may", f)
	}
}

func TestAThousandMessagesArriveInTheOrderSent(t *testing.T) {
	t.Parallel()
	for _, feature := range []string{"RELIABLE", "FAST"} {
		t.Run(feature, func(t *testing.T) {
			t.Parallel()
			const count, batch = 1000, 100 // FAST to a socket is bounded: it is not to be overrun
			a, b := newUser(), newUser()
			sender, receiver := shared.login(t, a), shared.login(t, b)
			ids := map[string]bool{}
			for n := range count {
				sender.send("%s", message(b, strconv.Itoa(n), "", feature))
				if feature == "RELIABLE" && n < count-1 || n%batch != batch-1 {
					continue
				}
				for len(ids) <= n {
					ids[receiver.expectMessage(a, strconv.Itoa(len(ids))).ID] = true
				}
			}
			if len(ids) != count {
				t.Errorf("got %d different ids, want %d", len(ids), count)
			}
		})
	}
}

func TestSendersAtOnceKeepTheirOwnOrder(t *testing.T) {
	t.Parallel()
	const senders, count = 8, 200
	b := newUser()
	receivers := []*client{shared.login(t, b), shared.login(t, b, "push"), shared.login(t, b)}
	var sending sync.WaitGroup
	for range senders {
		sender := shared.login(t, newUser())
		sending.Go(func() {
			for n := range count {
				if err := sender.write(message(b, strconv.Itoa(n), "", "RELIABLE")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for _, receiver := range receivers {
		next := map[string]int{}
		for range senders * count {
			f := receiver.expect("MESSAGE")
			if f.Data.Content != strconv.Itoa(next[f.Data.From]) {
				t.Fatalf("got %v, want %d", f, next[f.Data.From])
			}
			next[f.Data.From]++
		}
	}
	sending.Wait()
}

func TestAMessageToOneselfArrives(t *testing.T) {
	t.Parallel()
	a := newUser()
	c := shared.login(t, a)
	for _, feature := range []string{"RELIABLE", "FAST"} {
		c.send("%s", message(a, "to myself", "r", feature))
		c.expectMessage(a, "to myself")
		c.expectConfirmation("r")
	}
}

func TestEveryOpenSocketGetsOneCopyWithTheSameID(t *testing.T) {
	t.Parallel()
	for _, feature := range []string{"RELIABLE", "FAST"} {
		t.Run(feature, func(t *testing.T) {
			t.Parallel()
			a, b := newUser(), newUser()
			sender := shared.login(t, a)
			sockets := []*client{shared.login(t, b), shared.login(t, b, "accept"), shared.login(t, b, "push")}
			sender.send("%s", message(b, "to all", "once", feature))
			sender.expectConfirmation("once")
			sender.send("%s", message(b, "marker", "marker", feature))
			sender.expectConfirmation("marker")
			ids := map[string]bool{}
			for _, c := range sockets {
				ids[c.expectMessage(a, "to all").ID] = true
				c.expectMessage(a, "marker")
			}
			if len(ids) != 1 {
				t.Errorf("the copies have the ids %v", ids)
			}
		})
	}
}

func TestAMasterWhoseAppWantsItGetsEachMessageOnOneSocketOnly(t *testing.T) {
	t.Parallel()
	const count = 200
	master := masterOf("ONE")
	workers := []*client{shared.login(t, master), shared.login(t, master), shared.login(t, master)}
	user := userOf("ONE")
	sender := shared.login(t, user)
	for n := range count {
		sender.say(master, strconv.Itoa(n), strconv.Itoa(n))
	}
	for range count {
		sender.expect("MESSAGE_CONFIRMATION") // so all of them have been read
	}
	seen := map[string]int{}
	for _, w := range workers {
		for {
			w.mu.Lock()
			queued := len(w.queue)
			w.mu.Unlock()
			if queued == 0 {
				break
			}
			if f := w.next(); f.Type == "MESSAGE" {
				seen[f.Data.Content]++
			}
		}
	}
	for n := range count {
		if seen[strconv.Itoa(n)] != 1 {
			t.Errorf("message %d came %d times, want once", n, seen[strconv.Itoa(n)])
		}
	}
}

func TestAConfirmationComesExactlyOnceAndOnlyWhenWanted(t *testing.T) {
	t.Parallel()
	for _, feature := range []string{"RELIABLE", "FAST"} {
		for _, sockets := range []int{1, 2} {
			for _, c := range []struct {
				fields string
				wanted bool
			}{
				{`,"reference":"r"`, true},
				{`,"reference":"r","confirmationEnabled":true`, true},
				{`,"reference":"r","confirmationEnabled":null`, true},
				{`,"reference":"` + strings.Repeat("é", 128) + `"`, true},
				{`,"reference":"r","confirmationEnabled":false`, false},
				{`,"reference":""`, false},
				{`,"reference":" \t"`, false},
				{`,"reference":null`, false},
				{``, false},
			} {
				t.Run(fmt.Sprint(feature, sockets, c.fields), func(t *testing.T) {
					t.Parallel()
					a, b := newUser(), newUser()
					sender := shared.login(t, a)
					receivers := make([]*client, sockets)
					for i := range receivers {
						receivers[i] = shared.login(t, b)
					}
					sender.send(`{"type":"MESSAGE","feature":"%s","data":{"to":"%s","content":"x"}%s}`, feature, b, c.fields)
					for _, r := range receivers {
						r.expectMessage(a, "x")
					}
					if c.wanted {
						sender.expect("MESSAGE_CONFIRMATION")
					}
					// The next confirmation is the next frame: none came too many.
					sender.send("%s", message(b, "marker", "marker", feature))
					sender.expectConfirmation("marker")
				})
			}
		}
	}
}

func TestAFastMessageToNobodyIsDropped(t *testing.T) {
	t.Parallel()
	a, b := newUser(), newUser()
	sender := shared.login(t, a)
	sender.sayFast(b, "gone", "gone")
	sender.works()
	receiver := shared.login(t, b)
	if got, left := receiver.fetch(100); len(got) != 0 || left != 0 {
		t.Errorf("got %v, %d left", got, left)
	}
	sender.sayFast(b, "here", "here")
	receiver.expectMessage(a, "here")
	sender.expectConfirmation("here")
}

func TestALateConfirmationComesLiveOrWithAFetch(t *testing.T) {
	t.Parallel()
	a, b := newUser(), newUser()
	sender := shared.login(t, a, "accept")
	sender.say(b, "one", "first")
	sender.expect("MESSAGE_ACCEPTED")
	sender.say(b, "two", "second")
	sender.expect("MESSAGE_ACCEPTED")
	receiver := shared.login(t, b)
	got, left := receiver.fetch(1)
	if len(got) != 1 || left != 1 {
		t.Fatalf("got %v, %d left", got, left)
	}
	sender.expectConfirmation("first")
	sender.leave()
	if got, left = receiver.fetch(1); len(got) != 1 || left != 0 {
		t.Fatalf("got %v, %d left", got, left)
	}
	sender = shared.login(t, a)
	got = sender.fetchUntil(func(got []*frame) bool { return len(got) > 0 })
	if len(got) != 1 || got[0].Type != "MESSAGE_CONFIRMATION" || got[0].Data.Reference != "second" {
		t.Errorf("got %v", got)
	}
}

func TestContentArrivesByteForByte(t *testing.T) {
	t.Parallel()
	a, b := newUser(), newUser()
	sender, receiver := shared.login(t, a), shared.login(t, b)
	absent := newUser()
	literals := map[string]string{
		"empty":             `""`,
		"escapes":           `"\"\\\/\b\f\n\r\t\u00e9\u00E9"`,
		"NUL":               `"a\u0000b"`,
		"a pair":            `"\ud83d\ude00 and 😀"`,
		"many scripts":      `"中文 العربية עברית ไทย 𝔘𝔫𝔦 ß é é"`,
		"separators":        `"\u2028  \u007f "`,
		"HTML":              `"<script>alert('&amp;')</script>"`,
		"JSON in a string":  `"{\"type\":\"MESSAGE\"}"`,
		"not a character":   `"￾￿\uffff"`,
		"60 KB":             `"` + strings.Repeat("0123456789", 6000) + `"`,
		"60 KB of escapes":  `"` + strings.Repeat(`\u0001`, 10000) + `"`,
		"something hidden":  `"` + secretContent + `"`,
		"60 KB of unicode":  `"` + strings.Repeat("😀", 15000) + `"`,
		"blanks at the end": `"   "`,
	}
	contentOf := func(raw string) string {
		var f struct {
			Data struct{ Content json.RawMessage }
		}
		if err := json.Unmarshal([]byte(raw), &f); err != nil {
			t.Fatal(err)
		}
		return string(f.Data.Content)
	}
	for name, literal := range literals {
		for _, feature := range []string{"RELIABLE", "FAST"} {
			sender.send("%s", `{"type":"MESSAGE","data":{"to":"`+b+`","content":  `+literal+` },"feature":"`+feature+`"}`)
			if got := contentOf(receiver.expect("MESSAGE").raw); got != literal {
				t.Errorf("%s, %s: got %.100s, want %.100s", name, feature, got, literal)
			}
		}
		sender.send("%s", `{"type":"MESSAGE","data":{"to":"`+absent+`","content":`+literal+`}}`)
		sender.works()
		later := shared.login(t, absent)
		if got, _ := later.fetch(100); len(got) != 1 || contentOf(got[0].raw) != literal {
			t.Errorf("%s, stored: got %v, want %.100s", name, got, literal)
		}
		later.leave()
	}
}

func TestAReferenceComesBackAsItWas(t *testing.T) {
	t.Parallel()
	a, b := newUser(), newUser()
	sender, receiver := shared.login(t, a), shared.login(t, b)
	for _, reference := range []string{"1", `"quoted" \ and /`, "новое 😀", strings.Repeat("x", 128), "\n\t", "abc", "abc"} {
		sender.say(b, "x", reference)
		if f := receiver.expect("MESSAGE"); f.reference() != reference {
			t.Errorf("got %v, want %q", f, reference)
		}
		if strings.TrimSpace(reference) != "" {
			sender.expectConfirmation(reference)
		}
	}
}
