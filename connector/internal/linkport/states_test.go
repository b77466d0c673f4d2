package linkport_test

import (
	"reflect"
	"slices"
	"sync"
	"testing"

	"github.com/linkerhq/linker/pkg/broker/nats"
	"github.com/linkerhq/linker/pkg/link"
	"github.com/linkerhq/linker/pkg/linkstate"
)

// says is an entry of a speaker.
func says(domain string, speaker, version uint64, up ...string) linkstate.Entry {
	return linkstate.Entry{Domain: domain, Speaker: speaker, Version: version, Up: up}
}

// heard collects entries, as they were said.
type heard struct {
	mu   sync.Mutex
	list []linkstate.Entry // guarded by mu
}

func (h *heard) add(b []byte) {
	entries, err := linkstate.Decode(b)
	if err != nil {
		return // the test says such things itself
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range entries {
		e.Age = 0
		h.list = append(h.list, e)
	}
}

func (h *heard) count(e linkstate.Entry) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, other := range h.list {
		if reflect.DeepEqual(e, other) {
			n++
		}
	}
	return n
}

func (h *heard) all() []linkstate.Entry {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.list)
}

// listen collects what a neighbour is told of links.
func (n *neighbour) listen() *heard {
	h := &heard{}
	go func() {
		for {
			select {
			case m := <-n.got:
				if s, is := m.(link.States); is {
					h.add(s.Entries)
				}
			case <-n.ended:
				return
			}
		}
	}()
	return h
}

// inside collects what services of the domain are told.
func inside(t *testing.T, c *nats.Conn) *heard {
	t.Helper()
	h := &heard{}
	if _, err := c.Subscribe(linkstate.StatesSubject(here), h.add); err != nil {
		t.Fatal(err)
	}
	if err := c.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	return h
}

func (n *neighbour) say(entries ...linkstate.Entry) {
	n.t.Helper()
	n.put(link.States{Entries: linkstate.Append(nil, entries)})
}

func TestWhatIsNewOfLinksIsToldToEverybodyElse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.withNATS()
	services := inside(t, c)
	w.serve()
	second, third := w.dial("domain-02"), w.dial("domain-03")
	toSecond, toThird := second.listen(), third.listen()

	own := says(here, 1, 10, "domain-02", "domain-03")
	if err := c.Publish(linkstate.StatesSubject(here), linkstate.Append(nil, []linkstate.Entry{own})); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both neighbours hear what a service says", func() bool { return toSecond.count(own) == 1 && toThird.count(own) == 1 })

	far := says("domain-04", 4, 10, "domain-03")
	third.say(far)
	eventually(t, "the services and the other neighbour hear what one says", func() bool { return services.count(far) == 1 && toSecond.count(far) == 1 })
	second.say(far) // is no news
	near := says("domain-02", 2, 7)
	second.say(near)
	eventually(t, "what comes after it is heard", func() bool { return services.count(near) == 1 && toThird.count(near) == 1 })
	if toThird.count(far) > 0 || services.count(far) > 1 || toSecond.count(near) > 0 {
		t.Errorf("news went back, or twice: services %v, domain-02 %v, domain-03 %v", services.all(), toSecond.all(), toThird.all())
	}

	late := w.dial("domain-02").listen()
	eventually(t, "a new link is told everything", func() bool { return late.count(own) == 1 && late.count(far) == 1 && late.count(near) == 1 })
}

func TestNobodyElseSpeaksForOurDomain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.withNATS()
	services := inside(t, c)
	w.serve()
	second, third := w.dial("domain-02"), w.dial("domain-03")
	toThird := third.listen()
	known := says(here, 1, 10, "domain-02")
	if err := c.Publish(linkstate.StatesSubject(here), linkstate.Append(nil, []linkstate.Entry{known})); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the speaker is known", func() bool { return toThird.count(known) == 1 })

	made, newer, other := says(here, 666, 10, "domain-02"), says(here, 1, 11), says("domain-02", 2, 10, here)
	second.say(made, newer, other)
	eventually(t, "the rest is told", func() bool { return toThird.count(other) == 1 && services.count(other) == 1 })
	if toThird.count(made)+services.count(made)+toThird.count(newer)+services.count(newer) > 0 {
		t.Error("what a neighbour made up was told")
	}
	w.counted("linker_linkport_refused_states_total", "unknown_speaker", 1)
	second.put(link.States{Entries: []byte{1, 2, 3}})
	w.counted("linker_linkport_refused_states_total", "undecodable", 1)
	if err := c.Publish(linkstate.StatesSubject(here), []byte{1, 2, 3}); err != nil {
		t.Fatal(err)
	}
	w.counted("linker_linkport_refused_states_total", "undecodable", 2)
	second.say(says("domain-02", 2, 11, here, "domain-09")) // the link goes on; nobody knows domain-09
	eventually(t, "what comes then is told", func() bool { return toThird.count(says("domain-02", 2, 11, here)) == 1 })
}

func TestALifeBeginsWithoutKnowingAnythingOfLinks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	end := w.serve()
	first := w.dial("domain-02")
	first.say(says("domain-02", 2, 10, here))
	other := w.dial("domain-03").listen()
	eventually(t, "it is known", func() bool { return other.count(says("domain-02", 2, 10, here)) == 1 })
	end()
	w.serve()
	again := w.dial("domain-03")
	fresh := again.listen()
	w.dial("domain-02").say(says("domain-02", 2, 9, here))
	eventually(t, "what is said now is told", func() bool { return fresh.count(says("domain-02", 2, 9, here)) == 1 })
	if fresh.count(says("domain-02", 2, 10, here)) > 0 {
		t.Error("a new life knows what an earlier one has heard")
	}
}
