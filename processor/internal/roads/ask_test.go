package roads_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/linkerhq/linker/pkg/link"
	"github.com/linkerhq/linker/processor/internal/roads"
)

// questions are what was asked over a call.
func (c *call) questions() []link.Question {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []link.Question
	for _, m := range c.sent {
		if q, is := m.(link.Question); is {
			list = append(list, q)
		}
	}
	return list
}

type reply struct {
	text string
	err  error
}

// ask asks in the background.
func (x *timed) ask(ctx context.Context, question string) <-chan reply {
	got := make(chan reply, 1)
	go func() {
		text, err := x.Ask(ctx, "b", []byte(question))
		got <- reply{string(text), err}
	}()
	synctest.Wait()
	return got
}

func TestANeighbourIsAsked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := newTimed(t, somebody)
		c := x.exchange.last()
		first, second := x.ask(t.Context(), "first"), x.ask(t.Context(), "second")
		asked := c.questions()
		if len(asked) != 2 || string(asked[0].Text) != "first" || asked[0].N == 0 || asked[1].N == asked[0].N {
			t.Fatalf("asked %+v", asked)
		}
		c.in <- link.Answer{N: 999, Text: []byte("to nobody's question")}
		c.in <- link.Answer{N: asked[1].N, Text: []byte("yes")}
		c.in <- link.Answer{N: asked[1].N, Text: []byte("once more")}
		c.in <- link.Answer{N: asked[0].N}
		if got := <-second; got.text != "yes" || got.err != nil {
			t.Errorf("got %+v", got)
		}
		if got := <-first; !errors.Is(got.err, roads.ErrNoAnswer) {
			t.Errorf("got %+v, want that there is no answer", got)
		}
		if _, err := x.Ask(t.Context(), "c", []byte("x")); !errors.Is(err, roads.ErrNoLink) {
			t.Errorf("a domain that is no neighbour: %v", err)
		}
		if names := x.Neighbours(); len(names) != 1 || names[0] != "b" {
			t.Errorf("neighbours: %v", names)
		}
	})
}

func TestAnAnswerIsWaitedForAsLongAsItMayTakeAndTheConnectionLasts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := newTimed(t, somebody)
		c := x.exchange.last()
		brief, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		got := <-x.ask(brief, "x")
		if took := time.Since(began); !errors.Is(got.err, context.DeadlineExceeded) || took != time.Second {
			t.Errorf("got %+v after %v", got, took)
		}
		waits := x.ask(t.Context(), "y")
		c.Close()
		if got := <-waits; !errors.Is(got.err, roads.ErrNoAnswer) {
			t.Errorf("the connection has ended: %+v", got)
		}
		x.exchange.set(nobody)
		synctest.Wait()
	})
}

func TestANeighbourOfAnOlderVersionIsNotAsked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := newTimed(t, func() (*call, error) {
			c := newCall()
			c.old = true
			return c, nil
		})
		if _, err := x.Ask(t.Context(), "b", []byte("x")); !errors.Is(err, roads.ErrNoLink) {
			t.Errorf("got %v", err)
		}
		if asked := x.exchange.last().questions(); len(asked) != 0 {
			t.Errorf("asked %+v", asked)
		}
	})
}

func TestQuestionsThatWaitAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := newTimed(t, somebody)
		ctx, cancel := context.WithCancel(t.Context())
		var waits []<-chan reply
		for range 128 {
			waits = append(waits, x.ask(ctx, "x"))
		}
		if _, err := x.Ask(ctx, "b", []byte("x")); err == nil || errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		cancel()
		for _, w := range waits {
			<-w
		}
		if got := x.ask(t.Context(), "after"); len(x.exchange.last().questions()) != 129 {
			t.Error("nothing is asked any more")
		} else {
			x.exchange.last().in <- link.Answer{N: 129, Text: []byte("y")}
			if r := <-got; r.text != "y" {
				t.Errorf("got %+v", r)
			}
		}
	})
}

func TestANeighbourThatAsksOverOurLinkIsLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := newTimed(t, somebody)
		c := x.exchange.last()
		c.in <- link.Question{N: 1, Text: []byte("x")}
		<-c.done
	})
}
